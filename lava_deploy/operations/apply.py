"""Carries out what an admin changed in instance.yaml: settings, route, services, limits."""

from __future__ import annotations

import difflib
from dataclasses import asdict
from typing import TYPE_CHECKING

from lava_deploy import locks
from lava_deploy.configuration import Database
from lava_deploy.model import SCHEDULER, WEB, Secret
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
    from collections.abc import Mapping
    from pathlib import Path

    from lava_deploy.configuration import Configuration, Limits
    from lava_deploy.model import Instance
    from lava_deploy.operations import Doors

OPERATION, TOGGLE = "apply", "toggle"
# Whose settings depend on the route; the publisher's and the worker's do not.
ROUTED = (WEB, SCHEDULER)


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
    changes: Mapping[str, str] | None = None,
    text: str = "",
) -> Plan:
    """Write, reload and restart; undone by the former texts.

    With `changes`, instance.yaml itself is given a new `text` first, as that is how they were made.
    """
    system = doors.system

    def keep() -> None:
        own = [instance.configuration] if changes else []
        former.make(system, instance, [*own, *_wanted(instance, configuration, server)])

    def rewrite() -> None:
        configuration_file.change(system, instance, text)

    def put_back_file() -> None:
        if (former_text := former.read(system, instance).get(instance.configuration)) is not None:
            configuration_file.change(system, instance, former_text)

    def write() -> None:
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
        new, old = _wanted(instance, configuration, server), former.read(system, instance)
        changed = {path for path, text in new.items() if old.get(path) != text}
        if before == after and not changed:
            # new limits alone need no other processes
            doors.keeper.install(instance, wanted, configuration.limits)
            return
        # what LAVA does not take shows here, with its reason, while the former processes serve
        console.ask(system, instance, release.in_use(system, instance), [{"action": "load_pages"}])
        routing = {settings.routing(instance), *_route(instance, configuration)}
        affected = [each for each in wanted if each.component in ROUTED]
        restarted = affected if before == after and changed <= routing else wanted
        doors.keeper.install(instance, wanted, configuration.limits)
        doors.keeper.restart(instance, restarted)
        wait_for_pages(doors, instance, configuration)

    def name_host() -> None:
        """Afterwards, as the former name is known to nobody but the database."""
        domain = {"action": "site", "domain": configuration.route.hostname, "name": instance.name}
        console.ask(system, instance, release.in_use(system, instance), [domain])

    def serve_as_before() -> None:
        """Last of the undo; what another undo failed to put back is kept for the next try."""
        wanted = services.named(instance, before)
        doors.keeper.install(instance, wanted, limits_before)
        doors.keeper.restart(instance, wanted)
        texts, ours = former.read(system, instance), _route(instance, configuration)
        enabled = [path for path, text in texts.items() if path in ours and text is not None]
        if former.are_back(system, instance) and route.are_enabled(system, enabled):
            former.remove(system, instance)

    server = database.located(system, configuration.database)
    before = facts.read(system, instance)["services"]
    limits_before = facts.limits(system, instance)
    after = [each.name for each in services.of(system, instance, configuration)]
    own = (Step("change instance.yaml", rewrite, put_back_file),) if changes else ()
    return Plan(
        TOGGLE if changes else OPERATION,
        instance.name,
        (
            Step("keep the former files", keep, serve_as_before),
            *own,
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
        dict(changes or {}),
    )


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
