"""Runs lava-publisher on the listening socket it is handed, instead of a TCP port."""

import os
import socket
import sys

from aiohttp import web
from django.core.management import execute_from_command_line

FIRST_DESCRIPTOR = 3  # sd_listen_fds(3)


def main():
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        sys.exit("publisher: no listening socket was handed over")
    listening = socket.socket(fileno=FIRST_DESCRIPTOR)
    run_app = web.run_app

    def run_on_socket(application, host=None, port=None, **options):
        run_app(application, sock=listening, **options)

    web.run_app = run_on_socket
    execute_from_command_line(["lava-publisher", "lava-publisher", *sys.argv[1:]])


if __name__ == "__main__":
    main()
