"""Carries out what an admin changed in instance.yaml: settings, route, services, limits."""

from __future__ import annotations

import difflib
from dataclasses import asdict
from typing import TYPE_CHECKING

from lava_deploy import locks
from lava_deploy.configuration import Database
from lava_deploy.model import Secret
from lava_deploy.operations import SHARED_LOCK, wait_for_pages
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
    from collections.abc import Sequence
    from pathlib import Path

    from lava_deploy.configuration import Configuration, Limits
    from lava_deploy.model import Instance, Service
    from lava_deploy.operations import Doors

OPERATION = "apply"


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
    for path, text in _wanted(doors, instance, configuration).items():
        lines += _difference(doors, path, text)
    there = set(facts.read(doors.system, instance).get("services", ()))
    wanted = {each.name for each in services.of(doors.system, instance, configuration)}
    lines += [f"+ {name} will run" for name in sorted(wanted - there)]
    lines += [f"- {name} will not run" for name in sorted(there - wanted)]
    return lines + _limits_difference(facts.limits(doors.system, instance), configuration.limits)


def plan(doors: Doors, instance: Instance, configuration: Configuration) -> Plan:
    """Write, reload and restart; undone by the former texts."""
    system = doors.system

    def keep() -> None:
        former.make(system, instance, _wanted(doors, instance, configuration))

    def write() -> None:
        server = database.located(system, configuration.database)
        settings.make(system, instance, configuration, server)

    def put_back() -> None:
        texts = former.read(system, instance)
        ours = {path: text for path, text in texts.items() if path.is_relative_to(instance.etc)}
        settings.change(system, instance, ours)

    def open_route() -> None:
        with locks.locked(doors.host.locks, SHARED_LOCK, OPERATION, patience=60):
            route.change(system, _route(instance, configuration))
        facts.remember_texts(system, instance, _route(instance, configuration))

    def open_former_route() -> None:
        # without texts, an earlier undo has put them back, and only Apache may not know it yet
        texts = former.read(system, instance)
        ours = _route(instance, configuration)
        wanted = {path: text for path, text in texts.items() if path in ours}
        with locks.locked(doors.host.locks, SHARED_LOCK, OPERATION, patience=60):
            route.change(system, wanted)
        facts.remember_texts(system, instance, wanted)

    def run() -> None:
        wanted = services.of(system, instance, configuration)
        if before == after and former.read(system, instance) == _wanted(
            doors, instance, configuration
        ):
            # new limits alone need no other processes
            doors.keeper.install(instance, wanted, configuration.limits)
            return
        # what LAVA does not take shows here, with its reason, while the former processes serve
        console.ask(system, instance, release.in_use(system, instance), [{"action": "load_pages"}])
        _serve(doors, instance, wanted, configuration.limits)
        wait_for_pages(doors, instance, configuration)

    def name_host() -> None:
        """Afterwards, as the former name is known to nobody but the database."""
        domain = {"action": "site", "domain": configuration.route.hostname, "name": instance.name}
        console.ask(system, instance, release.in_use(system, instance), [domain])

    def serve_as_before() -> None:
        """Last of the undo; what another undo failed to put back is kept for the next try."""
        _serve(doors, instance, services.named(instance, before), limits_before)
        if former.are_back(system, instance):
            former.remove(system, instance)

    before = facts.read(system, instance)["services"]
    limits_before = facts.limits(system, instance)
    after = [each.name for each in services.of(system, instance, configuration)]
    return Plan(
        OPERATION,
        instance.name,
        (
            Step("keep the former files", keep, serve_as_before),
            Step("write the settings", write, put_back),
            Step("change the route", open_route, open_former_route),
            Step("bring the services up to date", run),
        ),
        (
            Step("name the host in the links of mails", name_host),
            Step(
                "remember what runs",
                lambda: facts.remember(
                    system,
                    instance,
                    services=after,
                    route=asdict(configuration.route),
                    limits=asdict(configuration.limits),
                ),
            ),
            Step("forget the former files", lambda: former.remove(system, instance)),
        ),
    )


def _serve(doors: Doors, instance: Instance, wanted: Sequence[Service], limits: Limits) -> None:
    """Run these services, anew, and no others; requests wait meanwhile."""
    doors.keeper.install(instance, wanted, limits)
    doors.keeper.restart(instance, wanted)


def _limits_difference(former: Limits, wanted: Limits) -> list[str]:
    pairs = [(name, asdict(former)[name], value) for name, value in asdict(wanted).items()]
    return [
        line
        for name, there, value in pairs
        if there != value
        for line in (f"- limits.{name}: {there or 'none'}", f"+ limits.{name}: {value or 'none'}")
    ]


def _wanted(
    doors: Doors, instance: Instance, configuration: Configuration
) -> dict[Path, str | None]:
    """All files that depend on instance.yaml, as they should be."""
    server = database.located(doors.system, configuration.database)
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
