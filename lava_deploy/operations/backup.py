"""Takes a snapshot of an instance: its database, its media, its configuration, its code."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from lava_deploy import __version__
from lava_deploy.configuration import Database
from lava_deploy.errors import MAKE_ROOM
from lava_deploy.model import LOCK, WHEELS
from lava_deploy.operations import runs
from lava_deploy.parts import (
    before,
    database,
    dump,
    facts,
    media,
    release,
    services,
    settings,
    snapshots,
    wheels,
)
from lava_deploy.snapshot import FORMAT, PARTIAL, Manifest, Member, Snapshot
from lava_deploy.steps import Plan, Step

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from lava_deploy.configuration import Configuration
    from lava_deploy.model import Instance
    from lava_deploy.operations import Doors
    from lava_deploy.postgres import Postgres
    from lava_deploy.system import System

OPERATION = "backup"
# The numbers of jobs that have begun and not ended: lava_scheduler_app/models.py, TestJob.state
RUNNING = "SELECT id FROM lava_scheduler_app_testjob WHERE state IN (1, 2, 3, 4) ORDER BY id"
# Measured: a dump takes a tenth of what its database does, more or less.
DUMP_SHARE = 10
ROOM_BESIDE = 64 * 10**6


@dataclass(frozen=True)
class Request:
    """What an admin asks of a backup; `rate` is in bytes of media a second, 0 for any."""

    note: str = ""
    stop: bool = False
    with_code: bool = False
    rate: int = 0


@dataclass(frozen=True)
class Totals:
    """What a snapshot took: bytes that are its own, bytes that it shares with earlier ones.

    `unshared` are those that it could have shared on a file system with hard links.
    """

    id: str
    new: int
    shared: int
    unshared: int
    skipped: tuple[tuple[str, str], ...]
    running: tuple[int, ...]


def faults(doors: Doors, instance: Instance) -> list[str]:
    """What stands in the way of a backup: no database, no pg_dump of its version, no room."""
    system, place = doors.system, doors.host.backups
    if not system.is_directory(place):
        return [f"{place} does not exist: run `lava-deploy setup` first"]
    server = doors.postgres(Database(**facts.read(system, instance)["database"]))
    found = dump.faults(system, server.version())
    need = server.size(instance.database) // DUMP_SHARE + ROOM_BESIDE
    free = system.free_space(place)
    if free < need:
        found.append(
            f"a snapshot needs {need / 1e6:.0f} MB or more in {place}, "
            f"{free / 1e6:.0f} MB are free. {MAKE_ROOM}"
        )
    return found


def decide(doors: Doors, instance: Instance, request: Request, now: datetime) -> dict[str, Any]:
    """What the plan is rebuilt from: the id, and which snapshot its media are compared with."""
    there = snapshots.listed(doors.system, doors.host, instance.name)
    best = snapshots.newest_good(there)
    known = facts.read(doors.system, instance)
    return {
        **asdict(request),
        "clock_fault": snapshots.clock_fault(now, there[-1].snapshot.id if there else ""),
        "stop": request.stop and runs(doors, instance),
        "id": snapshots.next_id(now, [one.snapshot.id for one in there]),
        "sequence": max((one.manifest.sequence for one in there if one.manifest), default=0) + 1,
        "previous": best.snapshot.id if best else "",
        "begun": now.isoformat(timespec="seconds"),
        "database": known["database"],
        "worker": known["worker"],
    }


def plan(
    doors: Doors, instance: Instance, decisions: Mapping[str, Any], configuration: Configuration
) -> Plan:
    """Build it beside, and give it its name when it is whole."""
    making = _Making(doors, instance, decisions, configuration)
    return Plan(OPERATION, instance.name, making.steps(), making.afterwards(), decisions)


def totals(doors: Doors, instance: Instance, decisions: Mapping[str, Any]) -> Totals:
    """What became of a plan that was carried out."""
    there = snapshots.listed(doors.system, doors.host, instance.name)
    found = {one.snapshot.id: one for one in there}
    made, previous = found[decisions["id"]], found.get(decisions["previous"])
    assert made.manifest
    former = previous.manifest.members if previous and previous.manifest else ()
    same = {*made.manifest.members} & {*former}
    return Totals(
        made.snapshot.id,
        made.own,
        made.shared,
        0 if made.shared else sum(one.size for one in same),
        made.manifest.skipped,
        made.manifest.running,
    )


class _Making:
    """The pieces of a backup, as callables without arguments for its steps."""

    def __init__(
        self,
        doors: Doors,
        instance: Instance,
        decisions: Mapping[str, Any],
        configuration: Configuration,
    ) -> None:
        self.doors, self.system, self.packs = doors, doors.system, doors.packs
        self.instance, self.decisions = instance, decisions
        self.configuration = configuration
        self.final = snapshots.at(doors.host, instance.name, decisions["id"])
        self.partial = Snapshot(self.final.path.with_name(f"{self.final.id}{PARTIAL}"))
        # what the steps found so far, for those that come after them, in another run if need be
        self.found = self.partial.path.with_name(f"{self.final.id}.found{PARTIAL}")

    def steps(self) -> tuple[Step, ...]:
        stopped = (Step("stop the services", self.stop, self.start),)
        started = (Step("start the services", self.start),)
        return (
            Step(f"begin the snapshot {self.final.id}", self.begin, self.forget),
            *(stopped if self.decisions["stop"] else ()),
            Step("dump the database", self.dump),
            Step("pack the media", self.pack),
            Step("keep the configuration, the worker and the code", self.keep),
            *(started if self.decisions["stop"] else ()),
            Step("write the manifest", self.publish),
        )

    def afterwards(self) -> tuple[Step, ...]:
        return (Step("clear away what is over", self.clear),)

    def begin(self) -> None:
        for path in snapshots.leftovers(self.system, self.doors.host, self.instance.name):
            if path not in (self.partial.path, self.found):  # killed runs left them
                _remove(self.system, path)
        self.system.make_directory(self.partial.path.parent, 0o700)
        self.system.make_directory(self.partial.path, 0o700)

    def forget(self) -> None:
        for one in (self.partial, self.final):
            snapshots.remove(self.system, one)
        self.system.remove(self.found)
        self.system.remove_directory(self.final.path.parent)

    def clear(self) -> None:
        self.system.remove(self.found)
        begun = datetime.fromisoformat(self.decisions["begun"])
        before.remove_old(self.system, self.server, self.instance, begun)

    def stop(self) -> None:
        services.stop(self.system, self.doors.keeper, self.instance, self.configuration)

    def start(self) -> None:
        services.start(self.system, self.doors.keeper, self.instance, self.configuration)

    @cached_property
    def located(self) -> Database:
        return database.located(self.system, Database(**self.decisions["database"]))

    @property
    def server(self) -> Postgres:
        return self.doors.postgres(self.located)

    def dump(self) -> None:
        """The jobs that run, and the dump, are of one moment."""
        major = self.server.version()
        password = settings.database_password(self.system, self.instance)
        with self.system.in_background(), self.server.frozen(self.instance.database) as frozen:
            running = [number for (number,) in frozen.rows(RUNNING)]
            dumped_by = dump.make(
                self.system,
                self.instance,
                self.located,
                password,
                self.partial.dump,
                major,
                frozen.id,
                gently=bool(self.decisions["rate"]),
            )
        self.keep_found(
            running=running,
            dumped_by=dumped_by,
            postgres=major,
            database_size=self.server.size(self.instance.database),
            dump=self.packs.members(self.partial.dump, self.partial.path),
        )

    @cached_property
    def previous(self) -> Snapshot | None:
        id = self.decisions["previous"]
        return snapshots.at(self.doors.host, self.instance.name, id) if id else None

    @cached_property
    def former(self) -> dict[str, Member]:
        return snapshots.members(self.system, self.previous) if self.previous else {}

    def pack(self) -> None:
        """After the dump: a row is there before its files, which only grow."""
        self.system.remove_tree(self.partial.media)
        self.system.make_directory(self.partial.media, 0o700)
        with self.system.in_background():
            kept = media.keep(
                self.packs,
                self.instance.media,
                self.partial,
                self.previous,
                self.former,
                self.decisions["rate"],
                self.doors.report.amount,
            )
        self.keep_found(media=kept.members, skipped=kept.skipped)

    def keep(self) -> None:
        instance, partial = self.instance, self.partial
        configuration = [(instance.configuration, "instance.yaml"), (instance.etc, "etc")]
        etc, etc_skipped = self.packs.bundle(partial.etc, configuration)
        directory = [(instance.worker_directory, "lava-dispatcher")]
        worker, _ = self.packs.bundle(partial.worker, directory)  # jobs come and go in it
        code = self.keep_code()
        self.keep_found(
            others=[
                replace(etc, path=partial.etc.name),
                replace(worker, path=partial.worker.name),
                *code,
            ],
            etc_skipped=etc_skipped,
        )

    def keep_code(self) -> list[Member]:
        """The release's own code is one file on this disk, whatever number of snapshots has it."""
        current, to = release.in_use(self.system, self.instance), self.partial.release
        self.system.remove_tree(to)
        self.system.make_directory(to, 0o700)
        for path in release.sources(self.system, current):
            self.packs.share(path, to / path.name)
        if self.decisions["with_code"]:
            wheels.make(self.system, self.doors.host.cache, current, to / WHEELS)
        # where snapshots are on another disk than releases, they share among themselves
        members = self.packs.members(to, self.partial.path)
        media.share(self.packs, members, self.partial, self.previous, self.former)
        return members

    def publish(self) -> None:
        snapshots.publish(self.system, self.partial, self.manifest())
        snapshots.read(self.system, self.final)  # which finds what should not be there

    def manifest(self) -> Manifest:
        found = json.loads(self.system.read(self.found))
        current = release.in_use(self.system, self.instance)
        lock = self.system.read(current.path / LOCK)
        members = [Member(**one) for kind in ("dump", "media", "others") for one in found[kind]]
        return Manifest(
            format=FORMAT,
            id=self.final.id,
            sequence=self.decisions["sequence"],
            instance=self.instance.name,
            version=current.version,
            source=current.source,
            origin=current.origin,
            locator=current.locator,
            place=current.place,
            commit=current.commit,
            python=current.interpreter,
            lock=hashlib.sha256(lock.encode()).hexdigest(),
            postgres=found["postgres"],
            dumped_by=found["dumped_by"],
            database_size=found["database_size"],
            media=str(self.instance.media),
            worker=self.decisions["worker"],
            running=tuple(found["running"]),
            stopped=self.decisions["stop"],
            begun=self.decisions["begun"],
            ended=datetime.now(UTC).isoformat(timespec="seconds"),
            tool=__version__,
            note=self.decisions["note"],
            members=tuple(sorted(members, key=lambda one: one.path)),
            skipped=tuple((path, why) for path, why in found["skipped"] + found["etc_skipped"]),
        )

    def keep_found(self, **found: Any) -> None:
        """Keep what a step found for the manifest, on disk: a resumed run does not know it."""
        there = json.loads(self.system.read(self.found)) if self.system.exists(self.found) else {}
        plain = {
            key: [asdict(one) if isinstance(one, Member) else one for one in value]
            if isinstance(value, list)
            else value
            for key, value in found.items()
        }
        self.system.write(self.found, json.dumps({**there, **plain}), mode=0o600)


def _remove(system: System, path: Path) -> None:
    if system.is_directory(path):
        system.remove_tree(path)
    else:
        system.remove(path)
