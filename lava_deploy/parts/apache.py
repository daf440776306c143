"""Apache's processes: there is an end to how many it has, and websockets keep those of the past."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lava_deploy.system import System

PROCESSES = Path("/proc")
MAIN = Path("/run/apache2/apache2.pid")
# Written by setup, with a limit that is in force once Apache is started anew; Debian's own.
LIMITS = Path("/etc/apache2/conf-available/lava-deploy.conf")
HIGH, LOW = 256, 16
# What a reload takes: Apache starts two, or three, for what is asked of it.
ROOM = 3


def faults(system: System) -> list[str]:
    """Why Apache would answer nobody after another reload; empty if it would.

    A process that has open websockets ends with the last of them, however many reloads ago.
    """
    if not system.exists(MAIN):
        return []
    main = system.read(MAIN).strip()
    limit = HIGH if system.is_newer(PROCESSES / main, LIMITS) else LOW
    have = sum(_parent(system, name) == main for name in system.names(PROCESSES) if name.isdigit())
    if have < limit - ROOM:
        return []
    return [
        f"Apache has {have} processes, most of which hold websockets since earlier reloads; with "
        f"{limit} it answers nobody: start it anew, which cuts connections for a moment "
        "(`systemctl restart apache2`; or `apache2ctl stop`, then `apache2ctl start`)"
    ]


def _parent(system: System, process: str) -> str:
    """The number of a process's parent: proc(5), field 4 of stat; '' when it has ended."""
    try:
        return system.read(PROCESSES / process / "stat").rpartition(")")[2].split()[1]
    except (OSError, UnicodeError):
        return ""
