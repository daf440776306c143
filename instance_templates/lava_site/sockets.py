"""Keeps listening sockets open while the servers behind them come and go, without systemd.

    sockets.py hold RUN NAME...            listen on RUN/NAME.sock, hand the sockets out for ever
    sockets.py take RUN NAME COMMAND...    become a command that has the socket, as sd_listen_fds(3)

It runs on the system's Python alone, so that it outlives every release. RUN belongs to the group
of the web server and passes the group on, so that the web server may connect.
"""

import contextlib
import os
import signal
import socket
import sys
import time
from pathlib import Path

FIRST_DESCRIPTOR = 3
BACKLOG = 4096  # the kernel takes the smaller of this and net.core.somaxconn
SECONDS_TO_WAIT = 10
CONTROL = "sockets.ctl"


def hold(runs, names):
    """Listen, and give whoever connects to RUN/sockets.ctl the socket whose name they send."""
    held = {name: _listening(runs / f"{name}.sock", 0o117) for name in names}
    control = _listening(runs / CONTROL, 0o177)
    _end_takers(runs)
    while True:
        asker, _ = control.accept()
        with asker, contextlib.suppress(OSError, KeyError):
            asker.settimeout(1)
            name = asker.recv(64).decode()
            socket.send_fds(asker, [b"1"], [held[name].fileno()])


def take(runs, name, command):
    """Fetch a socket and become the command."""
    descriptor = _fetched(runs / CONTROL, name)
    if descriptor != FIRST_DESCRIPTOR:
        os.dup2(descriptor, FIRST_DESCRIPTOR)
        os.close(descriptor)
    os.set_inheritable(FIRST_DESCRIPTOR, True)
    os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
    (runs / f"{os.environ['LAVA_SITE_SERVICE']}.taker").write_text(str(os.getpid()))
    os.execv(command[0], command)


def _listening(path, mask):
    path.unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX)
    before = os.umask(mask)
    listening.bind(str(path))
    os.umask(before)
    listening.listen(BACKLOG)
    return listening


def _fetched(control, name):
    """The descriptor of a socket; the holder may be about to start."""
    limit = time.monotonic() + SECONDS_TO_WAIT
    while True:
        try:
            with socket.socket(socket.AF_UNIX) as holder:
                holder.connect(str(control))
                holder.send(name.encode())
                _, descriptors, _, _ = socket.recv_fds(holder, 1, 1)
                return descriptors[0]
        except (OSError, IndexError) as error:
            if time.monotonic() > limit:
                sys.exit(f"sockets: nobody hands out the socket {name}: {error!r}")
            time.sleep(0.1)


def _end_takers(runs):
    """End those who listen on a socket of a former holder: nobody can reach them any more."""
    for mark in runs.glob("*.taker"):
        with contextlib.suppress(OSError, ValueError):
            os.kill(int(mark.read_text()), signal.SIGTERM)
        mark.unlink(missing_ok=True)


if __name__ == "__main__":
    verb, directory, *words = sys.argv[1:]
    if verb == "hold":
        hold(Path(directory), words)
    else:
        take(Path(directory), words[0], words[1:])
