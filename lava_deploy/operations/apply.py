"""Carries out what an admin changed in instance.yaml: settings, launchers, route, services."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from lava_deploy import steps
from lava_deploy.errors import DeployError
from lava_deploy.model import Database, Secret
from lava_deploy.operations import ROUTE_LOCK
from lava_deploy.parts import database, facts, former, release, route, services, settings
from lava_deploy.steps import Plan, Step

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from lava_deploy.model import Configuration, Instance, Release
    from lava_deploy.operations import Doors

OPERATION = "apply"


def faults(
    doors: Doors, instance: Instance, configuration: Configuration, *, overwrite: bool
) -> list[str]:
    """What stands in the way of a change; files edited by hand among it, unless `overwrite`."""
    system = doors.system
    known = Database(**facts.read(system, instance)["database"])
    found = route.faults(system, instance, configuration.route)
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
    wanted = {service.name for service in services.of(doors.system, instance, configuration)}
    there = services.installed(doors.system, doors.keeper, doors.web, instance)
    lines += [f"+ {name} will run" for name in sorted(wanted - there)]
    lines += [f"- {name} will not run" for name in sorted(there - wanted)]
    return lines


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
        launchers = {p: t for p, t in ours.items() if p.is_relative_to(instance.launchers)}
        services.change(system, instance, launchers)
        settings.change(system, instance, {p: t for p, t in ours.items() if p not in launchers})

    def open_route() -> None:
        with steps.locked(doors.host.locks, ROUTE_LOCK, OPERATION, patience=60):
            route.change(system, _route(instance, configuration))
        facts.remember_texts(system, instance, _route(instance, configuration))

    def open_former_route() -> None:
        texts = former.read(system, instance)
        wanted = {path: texts[path] or "" for path in _route(instance, configuration)}
        with steps.locked(doors.host.locks, ROUTE_LOCK, OPERATION, patience=60):
            route.change(system, wanted)
        facts.remember_texts(system, instance, wanted)

    def run() -> None:
        _run(doors, instance, configuration)
        route.wait(doors.web, configuration.route)

    return Plan(
        OPERATION,
        instance.name,
        (
            Step("keep the former files", keep, lambda: former.remove(system, instance)),
            Step("write the settings", write, put_back),
            Step("change the route", open_route, open_former_route),
            Step("restart what changed", run),
        ),
        (Step("forget the former files", lambda: former.remove(system, instance)),),
    )
