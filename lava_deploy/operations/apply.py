"""Carries out what an admin changed in instance.yaml: settings, route, services, limits."""

from __future__ import annotations

import difflib
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from lava_deploy import locks
from lava_deploy.configuration import LOCATION, Database
from lava_deploy.model import SCHEDULER, Secret
from lava_deploy.operations import SHARED_LOCK, wait_for_pages
from lava_deploy.parts import configuration as configuration_file
from lava_deploy.parts import (
    console,
    database,
    facts,
    former,
    release,
    route,
    services,
    settings,
)
from lava_deploy.steps import Plan, Step

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from lava_deploy.configuration import Configuration, Limits
    from lava_deploy.model import Instance, Service
    from lava_deploy.operations import Doors
    from lava_deploy.system import System

OPERATION, TOGGLE = "apply", "toggle"
# The step at which Apache reads the routes that were written, once for all instances of a command.
LOADING = "load the route"
# Whom a change concerns: all processes; the web server's and the scheduler, as the settings of
# others do not depend on the route; none.
ALL, ROUTED, NOBODY = "all", "routed", "nobody"


def faults(
    doors: Doors, instance: Instance, configuration: Configuration, *, overwrite: bool
) -> list[str]:
    """What stands in the way of a change; files edited by hand among it, unless `overwrite`."""
    system = doors.system
    known = Database(**facts.read(system, instance)["database"])
    found = route.faults(system, instance, configuration.route)
    found += doors.keeper.faults(configuration.limits)
    if database.located(system, configuration.database) != known:
        found.append(
            "database: another server takes a backup and a restore, it cannot be applied "
            f"(now: {known.host or 'this machine'}, port {known.port})"
        )
    if not overwrite:
        for path in facts.edited(system, instance, list(_route(instance, configuration))):
            found.append(
                f"{path} was edited by hand (--overwrite replaces it):\n"
                + "\n".join(_difference(doors, path, _route(instance, configuration)[path]))
            )
    return found


def difference(doors: Doors, instance: Instance, configuration: Configuration) -> list[str]:
    """What would change in which file, as a unified diff; secrets are not shown."""
    lines = []
    server = database.located(doors.system, configuration.database)
    for path, text in _wanted(instance, configuration, server).items():
        lines += _difference(doors, path, text)
    there = set(facts.read(doors.system, instance).get("services", ()))
    wanted = {each.name for each in services.of(doors.system, instance, configuration)}
    lines += [f"+ {name} will run" for name in sorted(wanted - there)]
    lines += [f"- {name} will not run" for name in sorted(there - wanted)]
    return lines + _limits_difference(facts.limits(doors.system, instance), configuration.limits)


def plan(
    doors: Doors,
    instance: Instance,
    configuration: Configuration,
    decisions: Mapping[str, Any],
    text: str = "",
    load_routes: Callable[[], None] | None = None,
) -> Plan:
    """Write, reload and restart; undone by the former texts.

    With changes among the `decisions` (see `decide`), instance.yaml itself is given a new `text`
    first, as that is how they were made. `load_routes` has Apache read its files, by default at
    once for this instance.
    """
    change = _Change(doors, instance, configuration, decisions, text, load_routes)
    operation = TOGGLE if decisions["changes"] else OPERATION
    return Plan(operation, instance.name, change.steps(), change.afterwards(), decisions)


def decide(
    doors: Doors, instance: Instance, configuration: Configuration, changes: Mapping[str, str]
) -> dict[str, Any]:
    """What a plan is rebuilt from: changes of instance.yaml, order of steps, whom it concerns.

    The route of a location shows what the code behind it was told to be; that of a host name shows
    the former code's pages as well. So a location is opened after the code, and closed before it.
    """
    wanted = _wanted(
        instance, configuration, database.located(doors.system, configuration.database)
    )
    changed = {path for path, text in wanted.items() if _differs(doors.system, path, text)}
    before = facts.read(doors.system, instance)["services"]
    same = before == _names(doors.system, instance, configuration)
    return {
        "changes": dict(changes),
        "route_last": configuration.route.kind == LOCATION,
        "concerns": _concerned(instance, configuration, changed) if same else ALL,
    }


class _Change:
    """The pieces of a change, as callables without arguments for its steps."""

    def __init__(
        self,
        doors: Doors,
        instance: Instance,
        configuration: Configuration,
        decisions: Mapping[str, Any],
        text: str,
        load_routes: Callable[[], None] | None,
    ) -> None:
        self.doors, self.system = doors, doors.system
        self.instance, self.configuration = instance, configuration
        self.changes, self.route_last = decisions["changes"], decisions["route_last"]
        self.text, self.concerned = text, decisions["concerns"]
        self.load_routes = load_routes or self.load_route
        self.server = database.located(self.system, configuration.database)
        self.before = facts.read(self.system, instance)["services"]
        self.after = _names(self.system, instance, configuration)
        self.routes = _route(instance, configuration)

    def steps(self) -> tuple[Step, ...]:
        own = (Step("change instance.yaml", self.rewrite, self.put_back_file),)
        routed = (
            Step("write the route", self.write_route, self.put_back_route),
            Step(LOADING, self.load_routes),
        )
        served = (Step("bring the services up to date", self.run),)
        return (
            Step("keep the former files", self.keep, self.serve_as_before),
            *(own if self.changes else ()),
            Step("write the settings", self.write_settings, self.put_back_settings),
            *(served + routed if self.route_last else routed + served),
            Step("see that the pages answer", self.wait),
        )

    def afterwards(self) -> tuple[Step, ...]:
        return (
            Step("name the host in the links of mails", self.name_host),
            Step("remember what runs", self.remember),
            Step("forget the former files", lambda: former.remove(self.system, self.instance)),
        )

    def keep(self) -> None:
        own = [self.instance.configuration] if self.changes else []
        wanted = _wanted(self.instance, self.configuration, self.server)
        former.make(self.system, self.instance, [*own, *wanted])

    def rewrite(self) -> None:
        configuration_file.change(self.system, self.instance, self.text)

    def put_back_file(self) -> None:
        if (text := self.former().get(self.instance.configuration)) is not None:
            configuration_file.change(self.system, self.instance, text)

    def write_settings(self) -> None:
        settings.make(self.system, self.instance, self.configuration, self.server)

    def put_back_settings(self) -> None:
        etc = self.instance.etc
        ours = {path: text for path, text in self.former().items() if path.is_relative_to(etc)}
        settings.change(self.system, self.instance, ours)

    def write_route(self) -> None:
        if self.changed() & {*self.routes}:
            with self.alone():
                route.write(self.system, self.routes)
        facts.remember_texts(self.system, self.instance, self.routes)

    def load_route(self) -> None:
        if self.changed() & {*self.routes}:
            with self.alone():
                route.reload(self.system)

    def put_back_route(self) -> None:
        # without texts, an earlier undo has put them back, and only Apache may not know it yet
        texts = {path: text for path, text in self.former().items() if path in self.routes}
        with self.alone():
            route.write(self.system, texts)
            route.reload(self.system)
        facts.remember_texts(self.system, self.instance, texts)

    def run(self) -> None:
        wanted = services.of(self.system, self.instance, self.configuration)
        self.doors.keeper.install(self.instance, wanted, self.configuration.limits)
        concerned = self.concerns()
        if concerned == ALL:
            # what LAVA does not take shows here, with its reason, while the former processes serve
            current = release.in_use(self.system, self.instance)
            console.ask(self.system, self.instance, current, [{"action": "load_pages"}])
        self.renew(wanted, concerned)

    def renew(self, running: Sequence[Service], concerned: str) -> None:
        """Have those processes of them read what was changed that it concerns."""
        keeper = self.doors.keeper
        if concerned == ROUTED:
            keeper.restart(self.instance, [one for one in running if one.component == SCHEDULER])
            services.reload(self.system, keeper, self.instance)
        elif concerned == ALL:
            keeper.restart(self.instance, running)

    def wait(self) -> None:
        if self.concerns() != NOBODY:
            wait_for_pages(self.doors, self.instance, self.configuration)

    def serve_as_before(self) -> None:
        """Last of the undo; what another undo failed to put back is kept for the next try."""
        running = services.named(self.instance, self.before)
        limits = facts.limits(self.system, self.instance)
        self.doors.keeper.install(self.instance, running, limits)
        self.renew(running, self.concerned)
        texts = self.former()
        enabled = [path for path, text in texts.items() if path in self.routes and text is not None]
        if former.are_back(self.system, self.instance) and route.are_enabled(self.system, enabled):
            former.remove(self.system, self.instance)

    def name_host(self) -> None:
        """Afterwards, as the former name is known to nobody but the database."""
        known, hostname = facts.read(self.system, self.instance), self.configuration.route.hostname
        if known["route"]["hostname"] != hostname:
            domain = {"action": "site", "domain": hostname, "name": self.instance.name}
            current = release.in_use(self.system, self.instance)
            console.ask(self.system, self.instance, current, [domain])

    def remember(self) -> None:
        facts.remember(
            self.system,
            self.instance,
            services=self.after,
            route=asdict(self.configuration.route),
            limits=asdict(self.configuration.limits),
        )

    def former(self) -> dict[Path, str | None]:
        return former.read(self.system, self.instance)

    def changed(self) -> set[Path]:
        """The files that this change gives another text."""
        new, old = _wanted(self.instance, self.configuration, self.server), self.former()
        return {path for path, text in new.items() if old.get(path) != text}

    def concerns(self) -> str:
        """Whom the change concerns by what instance.yaml says now, which may be edited since."""
        changed = self.changed()
        same = self.before == self.after
        return _concerned(self.instance, self.configuration, changed) if same else ALL

    def alone(self) -> AbstractContextManager[None]:
        """No other run changes meanwhile what instances share."""
        return locks.locked(self.doors.host.locks, SHARED_LOCK, OPERATION, patience=60)


def _concerned(instance: Instance, configuration: Configuration, changed: set[Path]) -> str:
    """Which processes have to read changed files: new limits alone are in force without it."""
    routing = {settings.routing(instance), *_route(instance, configuration)}
    if changed - routing:
        return ALL
    return ROUTED if changed else NOBODY


def _differs(system: System, path: Path, wanted: str | None) -> bool:
    there = system.read(path) if system.exists(path) else None
    return there != (wanted.reveal() if isinstance(wanted, Secret) else wanted)


def _names(system: System, instance: Instance, configuration: Configuration) -> list[str]:
    """The services that should run."""
    return [each.name for each in services.of(system, instance, configuration)]


def _limits_difference(former: Limits, wanted: Limits) -> list[str]:
    pairs = [(name, asdict(former)[name], value) for name, value in asdict(wanted).items()]
    return [
        line
        for name, there, value in pairs
        if there != value
        for line in (f"- limits.{name}: {there or 'none'}", f"+ limits.{name}: {value or 'none'}")
    ]


def _wanted(
    instance: Instance, configuration: Configuration, server: Database
) -> dict[Path, str | None]:
    """All files that depend on instance.yaml, as they should be; `server` has its port."""
    return {
        **settings.texts(instance, configuration, server),
        **_route(instance, configuration),
    }


def _route(instance: Instance, configuration: Configuration) -> dict[Path, str | None]:
    return route.texts(instance, configuration.route)


def _difference(doors: Doors, path: Path, wanted: str | None) -> list[str]:
    """A file's unified diff; of one that holds secrets, only that it changes."""
    there = doors.system.read(path) if doors.system.exists(path) else ""
    if isinstance(wanted, Secret):
        return [] if there == wanted.reveal() else [f"{path}: secret values change"]
    former, new = there.splitlines(), (wanted or "").splitlines()
    return list(difflib.unified_diff(former, new, f"{path}", f"{path} (new)", lineterm="", n=1))
