"""The state of an instance before a restore, which is kept for some days."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lava_deploy.beside import Before, befores
from lava_deploy.snapshot import time_of

if TYPE_CHECKING:
    from datetime import datetime

    from lava_deploy.model import Instance
    from lava_deploy.postgres import Postgres
    from lava_deploy.system import System

DAYS_KEPT = 7


@dataclass(frozen=True)
class Kept:
    """A state that is kept: since when, in place of which snapshot, until when; bytes on disk."""

    stamp: str
    snapshot: str
    until: str
    size: int


def exists(system: System, found: Before) -> bool:
    return system.exists(found.record)


def record(system: System, kept: Before) -> dict[str, Any]:
    """What was exchanged for what. Raises FileNotFoundError."""
    return json.loads(system.read(kept.record))


def write(system: System, kept: Before, found: dict[str, Any]) -> None:
    """Write down what is exchanged for what; from here on it can be undone."""
    system.make_directory(kept.root, 0o700)
    system.write(kept.record, json.dumps(found), mode=0o600)


def all_of(system: System, instance: Instance) -> list[Before]:
    """Those that are kept, whole or not, the newest last."""
    return [Before(instance, name) for name in system.names(befores(instance))]


def newest(system: System, instance: Instance) -> Before | None:
    """The one that an undo would bring back."""
    return next((one for one in reversed(all_of(system, instance)) if exists(system, one)), None)


def describe(system: System, postgres: Postgres, kept: Before) -> Kept:
    """What an admin wants to know of one. Raises Unreachable."""
    known = record(system, kept)
    size = system.size(kept.root) + system.size(Path(known["media"]))
    if postgres.has_database(kept.database):
        size += postgres.size(kept.database)
    until = time_of(kept.stamp) + timedelta(days=DAYS_KEPT)
    return Kept(kept.stamp, known["origin"], until.isoformat(timespec="seconds"), size)


def forget(system: System, kept: Before, media: Path) -> None:
    """Remove one that was not needed, as all it would have kept is back in its place."""
    system.remove_tree(media)
    system.remove_tree(kept.root)
    for path in (media.parent, kept.root.parent):
        system.remove_directory(path)


def remove(system: System, postgres: Postgres, kept: Before) -> None:
    """Remove one, with its database and media."""
    postgres.remove_database(kept.database)
    # those on the instance's disk are below the root
    forget(system, kept, kept.media(own_disk=True))


def remove_old(system: System, postgres: Postgres, instance: Instance, now: datetime) -> None:
    """Remove those that were kept for long enough."""
    for one in all_of(system, instance):
        if time_of(one.stamp) + timedelta(days=DAYS_KEPT) < now:
            remove(system, postgres, one)
