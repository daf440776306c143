"""Brings an instance into the state of a snapshot, and back into the one before.

All is made beside while the instance runs; then names are exchanged. What a restore replaces is
kept, so that a wrong id typed loses nothing.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lava_deploy.beside import Before, Exchange, Restoring
from lava_deploy.configuration import Database
from lava_deploy.errors import DeployError
from lava_deploy.model import Revision
from lava_deploy.operations import go_on, halt, origin, runs, texts_of
from lava_deploy.parts import (
    before,
    console,
    database,
    device,
    dump,
    etc,
    exchange,
    facts,
    job,
    media,
    release,
    services,
    settings,
    tokens,
    worker,
)
from lava_deploy.parts import configuration as configuration_file
from lava_deploy.snapshot import Snapshot
from lava_deploy.sources import snapshot as kept_code
from lava_deploy.steps import Plan, Step

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from lava_deploy.configuration import Configuration
    from lava_deploy.model import Instance, Release, Secret
    from lava_deploy.operations import Doors
    from lava_deploy.parts.origin import Described
    from lava_deploy.postgres import Postgres
    from lava_deploy.system import System

OPERATION = "restore"
# The sections of instance.yaml that are about this instance on this host, not about its content.
KEPT = ("route", "components", "limits", "database")
REASON = "lava-deploy: it ran when the snapshot was taken that was restored"
NOTE = "lava-deploy: a snapshot was restored; is the device as this LAVA believes?"


@dataclass(frozen=True)
class Request:
    """What an admin asks of a restore."""

    stop: bool = False
    with_release: bool = False
    as_it_was: bool = False
    smoke: bool = True
    database_only: bool = False


@dataclass(frozen=True)
class Wanted:
    """What instance.yaml is to say: its text, and the same as values."""

    configuration: Configuration
    text: str


def decide(
    doors: Doors,
    instance: Instance,
    path: Path,
    described: Described,
    request: Request,
    stamp: str,
    keeps: Configuration,
) -> dict[str, Any]:
    """What the plan is rebuilt from, also when the snapshot is gone by then.

    `path` is that of the snapshot, or of what is restored instead of one; `keeps` is what of its
    configuration the instance keeps.
    """
    known, current = facts.read(doors.system, instance), release.in_use(doors.system, instance)
    other = request.with_release and described.version != current.version
    revision = asdict(kept_code.revision(doors.system, Snapshot(path).release)) if other else None
    return {
        **asdict(request),
        "source": str(path),
        "place": described.place,
        "origin": described.name,
        "stamp": stamp,
        "runs": runs(doors, instance),
        "revision": revision,
        "label": release.label(stamp, described.version) if other else current.label,
        "former_label": current.label,
        "same_version": described.version == (described.version if other else current.version),
        "running": list(described.running),
        "media": described.media,
        "worker": described.worker,
        "own_worker": known["worker"],
        "keeps": {section: asdict(getattr(keeps, section)) for section in KEPT},
        "database": known["database"],
        "dispatcher": "dispatcher" in known["services"],
        "own_disk": not doors.packs.on_one_disk(instance.media, instance.root),
    }


def plan(
    doors: Doors,
    instance: Instance,
    decisions: Mapping[str, Any],
    wanted: Wanted,
    prove: Callable[[], None],
) -> Plan:
    """Make all beside, stop, exchange, start; `prove` runs the smoke job."""
    making = _Restoring(doors, instance, decisions, wanted, prove)
    return Plan(OPERATION, instance.name, making.steps(), making.afterwards(), decisions)


class _Restoring:
    """The pieces of a restore, as callables without arguments for its steps."""

    def __init__(
        self,
        doors: Doors,
        instance: Instance,
        decisions: Mapping[str, Any],
        wanted: Wanted,
        prove: Callable[[], None],
    ) -> None:
        self.doors, self.system, self.packs = doors, doors.system, doors.packs
        self.instance, self.decisions = instance, decisions
        self.wanted, self.prove = wanted, prove
        self.origin = origin(doors, Path(decisions["source"]), decisions["place"])
        self.restoring = Restoring(instance)
        self.before = Before(instance, decisions["stamp"])
        self.media = self.restoring.media(decisions["own_disk"])
        self.kept_media = self.before.media(decisions["own_disk"])
        self.databases = instance.database, self.restoring.database, self.before.database
        # which groups were not unpacked while the instance ran
        self.left_out = self.media.with_name("left-out.json")

    def steps(self) -> tuple[Step, ...]:
        decisions = self.decisions
        label = decisions["label"]
        released = (
            Step(
                f"install LAVA {label.rpartition('-')[2]}",
                self.make_release,
                lambda: release.remove(self.system, self.instance, label),
            ),
        )
        files = (Step("make the configuration beside", self.make_etc, self.forget_beside),)
        exchanged = (
            Step("exchange the media and the configuration", self.exchange, self.exchange_back),
        )
        switched = (
            Step(
                "switch to that release",
                lambda: release.switch(self.system, self.instance, label),
                lambda: release.switch(self.system, self.instance, decisions["former_label"]),
            ),
        )
        running = (Step("start the services", self.start_again, self.stop),)
        proven = (Step("prove it by a smoke job", self.prove),)
        whole, other = not decisions["database_only"], decisions["revision"]
        and_media = " and the media" if whole else ""
        proves = decisions["runs"] and decisions["smoke"] and decisions["dispatcher"]
        return (
            *(released if other else ()),
            Step(f"load the database{and_media} beside", self.load, self.forget_loaded),
            Step("make it this instance's", self.adapt),
            *(files if whole else ()),
            Step("stop the services", self.stop, self.start_again),
            Step("write down what is exchanged", self.record, self.forget_record),
            Step("exchange the database", self.exchange_database, self.exchange_database_back),
            *(exchanged if whole else ()),
            *(switched if other else ()),
            *(running if decisions["runs"] else ()),
            *(proven if proves else ()),
        )

    def afterwards(self) -> tuple[Step, ...]:
        remembered = (Step("remember the release", self.remember),)
        return (
            *(remembered if self.decisions["revision"] else ()),
            Step("remove what is over", self.clear),
        )

    @cached_property
    def located(self) -> Database:
        return database.located(self.system, Database(**self.decisions["database"]))

    @property
    def server(self) -> Postgres:
        return self.doors.postgres(self.located)

    @property
    def access(self) -> tuple[System, Instance, Database, Secret]:
        password = settings.database_password(self.system, self.instance)
        return self.system, self.instance, self.located, password

    @property
    def release(self) -> Release:
        return release.of(self.system, self.instance, self.decisions["label"])

    def make_release(self) -> None:
        revision = Revision(**self.decisions["revision"])
        built = release.cached(self.system, self.doors.host.cache, revision)
        if built is None:
            raise DeployError("the release that was built is gone from the cache")
        release.make(self.system, self.instance, self.decisions["label"], built)

    def load(self) -> None:
        name = self.restoring.database
        self.server.remove_database(name)
        self.server.make_database(name, self.instance.user)
        with dump.loading(*self.access, self.origin.dump, name, self.server.version()):
            if not self.decisions["database_only"]:  # which is the other processor's work
                self.unpack()

    def forget_loaded(self) -> None:
        self.forget_media()
        self.server.remove_database(self.restoring.database)

    def adapt(self) -> None:
        """Bring it up to the release, and give it the names and tokens of this instance."""
        if not self.decisions["same_version"]:
            self.migrate()
        with dump.analyzing(*self.access, self.restoring.database, self.server.version()):
            self.ask(self.actions())

    def migrate(self) -> None:
        [found] = self.ask([{"action": "migrations"}])
        for kind, words in (
            ("unknown", "does not know migrations that the database has"),
            ("too_old", "needs a release in between to migrate it"),
        ):
            if found[kind]:
                raise DeployError(
                    f"LAVA {self.release.version} {words}: {', '.join(found[kind][:5])}",
                    hint=self.origin.ways[kind],
                )
        self.ask([{"action": "migrate"}])

    def ask(self, actions: Sequence[dict[str, Any]]) -> list[Any]:
        return console.ask(
            self.system, self.instance, self.release, actions, self.restoring.database
        )

    def actions(self) -> list[dict[str, Any]]:
        decisions, name = self.decisions, self.decisions["own_worker"]
        ours = {"secret": tokens.read(self.system, self.instance.client_token).reveal()}
        hostname = self.wanted.configuration.route.hostname
        actions: list[dict[str, Any]] = [
            {"action": "submitter", "name": job.USER},
            {"action": "api_token", "user": job.USER, "description": job.DESCRIPTION, **ours},
            {"action": "site", "domain": hostname, "name": self.instance.name},
        ]
        if decisions["media"] != str(self.instance.media):
            actions.append({"action": "move_media", "media": str(self.instance.media)})
        if decisions["dispatcher"]:
            secret = tokens.read(self.system, self.instance.worker_token)
            known = decisions["worker"] is not None
            worker_before = decisions["worker"] if known else self.only_worker()
            if worker_before:
                former = {"former": worker_before, "name": name, "token": secret.reveal()}
                actions.append({"action": "take_over_worker", **former})
            actions += worker.registration(name, secret) + device.registration(name)
        if not decisions["as_it_was"]:
            actions += [
                {"action": "end_running_jobs", "reason": REASON},
                {"action": "devices_to_maintenance", "note": NOTE, "but": [device.NAME]},
            ]
        return actions

    def only_worker(self) -> str:
        """The name of the worker that a LAVA had which has only one, '' if it has several."""
        [healths] = self.ask([{"action": "healths"}])
        names = [name for name in healths["workers"] if name != worker.EXAMPLE]
        return names[0] if len(names) == 1 else ""

    def unpack(self) -> None:
        self.forget_media()
        self.system.make_directory(self.media, 0o750, self.instance.user, self.instance.user)
        left_out = self.untouched()
        self.unpack_but(left_out)
        self.system.write(self.left_out, json.dumps(sorted(left_out)), mode=0o600)

    def untouched(self) -> set[str]:
        return self.origin.untouched(self.instance.media, self.doors.report.amount)

    def unpack_but(self, names: set[str]) -> None:
        self.origin.unpack(names, self.media, self.instance.user, self.doors.report.amount)
        media.forget_log_indexes(self.packs, self.system, self.media, self.decisions["running"])

    def forget_media(self) -> None:
        self.system.remove(self.left_out)
        self.system.remove_tree(self.media)
        self.system.remove_directory(self.media.parent)

    def make_etc(self) -> None:
        keep = device.dictionary(self.instance)
        etc.make(self.system, self.restoring, self.origin.extract, keep)
        texts = texts_of(self.instance, self.wanted.configuration, self.located)
        settings.change(self.system, self.instance, etc.beside(self.restoring, texts))
        theirs, to = self.restoring.extracted / "etc", self.restoring.etc
        settings.take_key(self.system, self.instance, theirs / self.instance.secrets.name, to)
        facts.take_admin(self.system, self.instance, theirs / self.instance.facts.name, to)
        workers = self.decisions["worker"] or "", self.decisions["own_worker"]
        etc.rename_worker(self.system, self.restoring, *workers)
        launchers = services.texts(
            self.instance, self.release, self.wanted.configuration, self.decisions["own_worker"]
        )
        services.change(self.system, self.instance, etc.beside(self.restoring, launchers))
        former, name = self.decisions["origin"].partition("/")[0], self.instance.name
        text = configuration_file.renamed(self.wanted.text, former, name)
        path = self.restoring.configuration
        self.system.write(path, text, mode=0o640, group=self.instance.user)

    def forget_beside(self) -> None:
        self.system.remove_tree(self.restoring.root)

    def stop(self) -> None:
        halt(self.doors, self.instance)

    def start_again(self) -> None:
        if self.decisions["runs"]:
            go_on(self.doors, self.instance, self.wanted.configuration)

    def record(self) -> None:
        """Once nothing writes any more: what was touched since is unpacked as well."""
        whole = not self.decisions["database_only"]
        staying = self.untouched() if whole else set()
        if whole:
            self.unpack_but(staying | self.unpacked())
        places = self.instance.media, self.media
        found = {
            "origin": self.decisions["origin"],
            "label": self.decisions["former_label"],
            "database_only": not whole,
            "media": str(self.kept_media),
            "exchanges": media.exchanges(self.packs, *places, staying) if whole else [],
            "jobs": media.jobs(self.packs, self.system, self.instance.media, staying),
        }
        before.write(self.system, self.before, found)

    def unpacked(self) -> set[str]:
        """The groups that wait beside the media, whole; those without a day are no such proof."""
        there = {group.name for group in self.packs.groups(self.media)} - {media.OTHER}
        return there - {*json.loads(self.system.read(self.left_out))}

    def all_exchanges(self) -> list[Exchange]:
        own = etc.exchanges(self.restoring, self.before)
        written = before.record(self.system, self.before)["exchanges"]
        return own + exchange.within(self.instance.media, self.media, self.kept_media, written)

    def exchange(self) -> None:
        exchange.make(self.system, self.instance, self.all_exchanges())

    def exchange_back(self) -> None:
        if before.exists(self.system, self.before):
            self.stop()  # they run again if an undo failed before
            exchange.undo(self.system, self.instance, self.all_exchanges())

    def forget_record(self) -> None:
        if before.exists(self.system, self.before) and not self.decisions["database_only"]:
            exchange.require_undone(self.system, self.all_exchanges())
        before.forget(self.system, self.before, self.kept_media)

    def exchange_database(self) -> None:
        database.exchange(self.server, *self.databases)

    def exchange_database_back(self) -> None:
        if self.server.has_database(self.before.database):
            self.stop()
            database.exchange_back(self.server, *self.databases)

    def remember(self) -> None:
        facts.remember(self.system, self.instance, revision=self.decisions["revision"])

    def clear(self) -> None:
        """Only the state before the last restore can be brought back."""
        for one in before.all_of(self.system, self.instance):
            if one != self.before:
                before.remove(self.system, self.server, one)
        self.forget_media()
        self.system.remove_tree(self.restoring.root)
