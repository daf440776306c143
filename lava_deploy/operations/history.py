"""What was done to each instance: one line a command, kept when the instance is gone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from lava_deploy.model import Host
    from lava_deploy.system import System

SUFFIX = ".history"


@dataclass(frozen=True)
class Entry:
    """One command: when it ended (UTC, ISO 8601), by whom, what it was and how it ended."""

    ended: str
    who: str
    command: str
    outcome: str


def write(system: System, host: Host, subject: str, entry: Entry) -> None:
    """Add a line. Fields are parted by tabs, so none of them may contain one."""
    fields = (entry.ended, entry.who, entry.command, entry.outcome)
    system.append(_file(host, subject), "\t".join(" ".join(field.split()) for field in fields))


def read(system: System, host: Host, subject: str) -> list[Entry]:
    """All lines, the oldest first. A line that a crash tore is left out."""
    if not system.exists(_file(host, subject)):
        return []
    lines = [line.split("\t") for line in system.read(_file(host, subject)).splitlines()]
    return [Entry(*fields) for fields in lines if len(fields) == 4]


def subjects(system: System, host: Host) -> list[str]:
    """All that have a history, removed instances among them."""
    names = system.names(host.log)
    return [name.removesuffix(SUFFIX) for name in names if name.endswith(SUFFIX)]


def _file(host: Host, subject: str) -> Path:
    return host.log / f"{subject}{SUFFIX}"
