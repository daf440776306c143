"""Brings back the state of an instance before its last restore."""

from __future__ import annotations

import json
from functools import cached_property
from typing import TYPE_CHECKING, Any

from lava_deploy.beside import Before, Exchange, Restoring
from lava_deploy.configuration import Database, Route
from lava_deploy.errors import UsageError
from lava_deploy.operations import go_on, halt, restoring_faults, runs
from lava_deploy.parts import before, console, database, etc, exchange, facts, media, release
from lava_deploy.steps import Plan, Step

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from lava_deploy.configuration import Configuration
    from lava_deploy.model import Instance
    from lava_deploy.operations import Doors
    from lava_deploy.postgres import Postgres

OPERATION = "undo of the restore"
REASON = "lava-deploy: it ran when a snapshot was restored, which was undone since"


def faults(doors: Doors, instance: Instance, *, stop: bool) -> list[str]:
    """What stands in the way. Raises UsageError when there is nothing to undo."""
    kept = before.newest(doors.system, instance)
    if kept is None:
        raise UsageError(
            f"nothing is kept of {instance.name} from before a restore",
            hint=f"States are kept for {before.DAYS_KEPT} days. `lava-deploy snapshots list "
            f"{instance.name}` shows what can be restored.",
        )
    found = restoring_faults(doors, instance, stop=stop)
    server = doors.postgres(Database(**facts.read(doors.system, instance)["database"]))
    if not server.has_database(kept.database):
        found.append(f"the database {kept.database} is gone")
    settings = kept.root / "etc" / instance.facts.name
    if doors.system.exists(settings):
        there, now = (json.loads(doors.system.read(one)) for one in (settings, instance.facts))
        if there["route"] != now["route"]:
            former = Route(**there["route"]).url
            found.append(f"the route was changed since: toggle it back to {former} first")
    label = before.record(doors.system, kept)["label"]
    if not release.exists(doors.system, instance, label):
        found.append(f"the release {label} is gone from {instance.releases}")
    return found


def decide(doors: Doors, instance: Instance, route: Mapping[str, Any]) -> dict[str, Any]:
    """What the plan is rebuilt from; `route` is what the instance's pages are looked for at."""
    kept = before.newest(doors.system, instance)
    assert kept
    known = before.record(doors.system, kept)
    return {
        "stamp": kept.stamp,
        "origin": known["origin"],
        "label": known["label"],
        "current_label": release.in_use(doors.system, instance).label,
        "database_only": known["database_only"],
        "runs": runs(doors, instance),
        "database": facts.read(doors.system, instance)["database"],
        "route": dict(route),
        "own_disk": not doors.packs.on_one_disk(instance.media, instance.root),
    }


def plan(
    doors: Doors, instance: Instance, decisions: Mapping[str, Any], configuration: Configuration
) -> Plan:
    """Exchange all again; what is there now goes when that has succeeded."""
    undoing = _Undoing(doors, instance, decisions, configuration)
    return Plan(OPERATION, instance.name, undoing.steps(), undoing.afterwards(), decisions)


class _Undoing:
    """The pieces of it, as callables without arguments for its steps."""

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
        self.kept = Before(instance, decisions["stamp"])
        self.leaving = Restoring(instance)
        self.kept_media = self.kept.media(decisions["own_disk"])
        self.leaving_media = self.leaving.media(decisions["own_disk"])
        self.databases = instance.database, self.kept.database, self.leaving.database

    def steps(self) -> tuple[Step, ...]:
        decisions = self.decisions
        exchanged = (
            Step("exchange the media and the configuration", self.exchange, self.exchange_back),
        )
        switched = (
            Step(
                "switch to the release before",
                lambda: release.switch(self.system, self.instance, decisions["label"]),
                lambda: release.switch(self.system, self.instance, decisions["current_label"]),
            ),
        )
        stop = Step("stop the services", self.stop, self.start_again)
        start = Step("start the services", self.start_again, self.stop)
        return (
            stop,
            Step("write down what is exchanged", self.record, self.forget_record),
            Step("exchange the database", self.exchange_database, self.exchange_database_back),
            *(() if decisions["database_only"] else exchanged),
            *(switched if decisions["label"] != decisions["current_label"] else ()),
            Step("end the jobs that were cut off", self.end_jobs),
            *((start,) if decisions["runs"] else ()),
        )

    def afterwards(self) -> tuple[Step, ...]:
        return (Step("remove what was restored", self.clear),)

    @cached_property
    def server(self) -> Postgres:
        server = Database(**self.decisions["database"])
        return self.doors.postgres(database.located(self.system, server))

    @property
    def written(self) -> Path:
        return self.kept.root / "undo.json"

    def stop(self) -> None:
        halt(self.doors, self.instance)

    def start_again(self) -> None:
        if self.decisions["runs"]:
            go_on(self.doors, self.instance, self.configuration)

    def record(self) -> None:
        """Once nothing writes any more: jobs that came since have no place in the state before."""
        found = [] if self.decisions["database_only"] else [*self.found()]
        self.system.write(self.written, json.dumps(found), mode=0o600)

    def found(self) -> Iterator[tuple[str, bool, bool]]:
        """Paths in the media, and whether something comes back for each, and leaves."""
        known, system = before.record(self.system, self.kept), self.system
        exchanged = [path for path, _, _ in known["exchanges"]]
        for path in exchanged:
            comes, leaves = self.kept_media / path, self.instance.media / path
            yield path, system.exists(comes), system.exists(leaves)
        groups = {group.name for group in self.packs.groups(self.instance.media)}
        for root, names in media.jobs(self.packs, self.system, self.instance.media, groups).items():
            if root not in exchanged:
                jobs = known["jobs"].get(root)
                new = [root] if jobs is None else [f"{root}/{one}" for one in {*names} - {*jobs}]
                yield from ((path, False, True) for path in sorted(new))

    def forget_record(self) -> None:
        if self.system.exists(self.written) and not self.decisions["database_only"]:
            exchange.require_undone(self.system, self.exchanges())
        self.forget_leaving()
        self.system.remove(self.written)

    def forget_leaving(self) -> None:
        self.system.remove_tree(self.leaving_media)
        self.system.remove_directory(self.leaving_media.parent)
        self.system.remove_tree(self.leaving.root)

    def exchanges(self) -> list[Exchange]:
        own = [
            Exchange(one.path, one.out, one.into, True, True)
            for one in etc.exchanges(self.leaving, self.kept)
        ]
        written = json.loads(self.system.read(self.written))
        places = self.instance.media, self.kept_media, self.leaving_media
        return own + exchange.within(*places, written)

    def exchange(self) -> None:
        exchange.make(self.system, self.instance, self.exchanges())

    def exchange_back(self) -> None:
        if self.system.exists(self.written):
            self.stop()  # they run again if an undo failed before
            exchange.undo(self.system, self.instance, self.exchanges())

    def exchange_database(self) -> None:
        database.exchange(self.server, *self.databases)

    def exchange_database_back(self) -> None:
        if self.server.has_database(self.leaving.database):
            self.stop()
            database.exchange_back(self.server, *self.databases)

    def end_jobs(self) -> None:
        current = release.of(self.system, self.instance, self.decisions["label"])
        action = {"action": "end_running_jobs", "reason": REASON}
        console.ask(self.system, self.instance, current, [action])

    def clear(self) -> None:
        self.server.remove_database(self.leaving.database)
        self.forget_leaving()
        before.remove(self.system, self.server, self.kept)
