"""The ports of the host that a web server needs, and who holds them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lava_deploy.system import System

HTTP, HTTPS = 80, 443
PROCESSES = Path("/proc")
TABLES = (PROCESSES / "net/tcp", PROCESSES / "net/tcp6")
# The state of a listening socket, as the kernel writes it in these tables.
LISTENS = "0A"
APACHE = "apache2"


def faults(system: System, port: int) -> list[str]:
    """Why Apache cannot listen on a port; empty if it can, or does.

    To be asked before Apache gets to know of a port: its configtest opens none, and Apache ends
    itself when it cannot open one at a reload.
    """
    program = holder(system, port)
    return [f"port {port} is held by {program}, Apache needs it"] if program else []


def holder(system: System, port: int) -> str:
    """The program that listens on a port, '' if that is nobody or Apache."""
    sockets = _listening(system, port)
    if not sockets:
        return ""
    for process in filter(str.isdigit, system.names(PROCESSES)):
        open_files = PROCESSES / process / "fd"
        if sockets & {system.target(open_files / name) for name in system.names(open_files)}:
            program = system.read(PROCESSES / process / "comm").strip()
            return "" if program == APACHE else program
    return "a program of another namespace"


def _listening(system: System, port: int) -> set[str]:
    """The sockets that listen on a port, as links in /proc/PID/fd name them (proc(5))."""
    found = set()
    for table in TABLES:
        lines = system.read(table).splitlines()[1:] if system.exists(table) else []
        for fields in map(str.split, lines):
            if fields[1].endswith(f":{port:04X}") and fields[3] == LISTENS:
                found.add(f"socket:[{fields[9]}]")
    return found
