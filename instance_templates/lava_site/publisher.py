"""Runs lava-publisher on the listening socket it is handed, instead of a TCP port."""

import importlib
import os
import socket
import sys
from pathlib import Path

import django
import zmq
import zmq.asyncio
from aiohttp import web
from django.core.management import execute_from_command_line

FIRST_DESCRIPTOR = 3  # sd_listen_fds(3)
# How long it waits at its end for more events than have come by then; LAVA's own waits 5 seconds.
SECONDS_OF_SILENCE = 1


def main():
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        sys.exit("publisher: no listening socket was handed over")
    listening = socket.socket(fileno=FIRST_DESCRIPTOR)
    run_app = web.run_app

    def run_on_socket(application, host=None, port=None, **options):
        run_app(application, sock=listening, **options)

    web.run_app = run_on_socket
    django.setup()
    command = importlib.import_module("lava_server.management.commands.lava-publisher")
    command.TIMEOUT = SECONDS_OF_SILENCE
    tell_the_scheduler(Path(os.environ["LAVA_SITE_ETC"]).parent / "run/events-out.sock")
    execute_from_command_line(["lava-publisher", "lava-publisher", *sys.argv[1:]])


def tell_the_scheduler(events):
    """Send events to the socket of the instance's own too if an admin set another EVENT_SOCKET."""
    own, bind = f"ipc://{events}", zmq.asyncio.Socket.bind

    def bind_both(self, address):
        bound = bind(self, address)
        if self.type == zmq.PUB and address != own:
            bind(self, own)
        return bound

    zmq.asyncio.Socket.bind = bind_both


if __name__ == "__main__":
    main()
