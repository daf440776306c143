"""What a change of instance.yaml would do, and what stands in its way."""

from __future__ import annotations

import difflib
from dataclasses import asdict
from typing import TYPE_CHECKING

from lava_deploy.configuration import OWN, Database
from lava_deploy.model import Secret
from lava_deploy.operations import issues_certificate, serving_faults, texts_of
from lava_deploy.parts import database, facts, route, services, tls

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from lava_deploy.configuration import Limits
    from lava_deploy.model import Instance
    from lava_deploy.operations import Doors
    from lava_deploy.operations.apply import Request, Together


def faults(
    doors: Doors,
    instance: Instance,
    request: Request,
    now: datetime,
    together: Together | None = None,
    *,
    overwrite: bool,
) -> list[str]:
    """What stands in the way of a change; files edited by hand among it, unless `overwrite`."""
    system, configuration = doors.system, request.configuration
    planned = together.routes if together else {}
    known = Database(**facts.read(system, instance)["database"])
    found = serving_faults(doors, instance, configuration.route, planned)
    found += _certificate_faults(doors, instance, request, now)
    found += doors.keeper.faults(configuration.limits)
    if database.located(system, configuration.database) != known:
        found.append(
            "database: another server takes a backup and a restore, it cannot be applied "
            f"(now: {known.host or 'this machine'}, port {known.port})"
        )
    if not overwrite:
        routes = route.texts(instance, configuration.route)
        for path in facts.edited(system, instance, list(routes)):
            found.append(
                f"{path} was edited by hand (--overwrite replaces it):\n"
                + "\n".join(_difference(doors, path, routes[path]))
            )
    return found


def _certificate_faults(
    doors: Doors, instance: Instance, request: Request, now: datetime
) -> list[str]:
    """Why an admin's certificate, that there is or is to be taken, does not do."""
    system, route = doors.system, request.configuration.route
    if route.certificate != OWN:
        return []
    files = (request.certificate, request.key)
    if not all(files):
        files = (str(instance.certificate), str(instance.certificate_key))
        if not system.exists(instance.certificate):
            return [f"there is no certificate yet: lava-deploy tls set {instance.name}"]
    return tls.faults(system, *files, route.hostname, now)


def difference(doors: Doors, instance: Instance, request: Request, now: datetime) -> list[str]:
    """What would change in which file, as a unified diff; secrets are not shown."""
    lines, configuration = [], request.configuration
    server = database.located(doors.system, configuration.database)
    for path, text in texts_of(instance, configuration, server).items():
        lines += _difference(doors, path, text)
    there = set(facts.read(doors.system, instance).get("services", ()))
    wanted = {each.name for each in services.of(doors.system, instance, configuration)}
    lines += [f"+ {name} will run" for name in sorted(wanted - there)]
    lines += [f"- {name} will not run" for name in sorted(there - wanted)]
    if request.certificate:
        lines.append(f"+ the certificate in {request.certificate}")
    if issues_certificate(doors, instance, request, now):
        lines.append(f"+ a certificate for {configuration.route.hostname}, of this host's own")
    return lines + _limits_difference(facts.limits(doors.system, instance), configuration.limits)


def _limits_difference(former: Limits, wanted: Limits) -> list[str]:
    pairs = [(name, asdict(former)[name], value) for name, value in asdict(wanted).items()]
    return [
        line
        for name, there, value in pairs
        if there != value
        for line in (f"- limits.{name}: {there or 'none'}", f"+ limits.{name}: {value or 'none'}")
    ]


def _difference(doors: Doors, path: Path, wanted: str | None) -> list[str]:
    """A file's unified diff; of one that holds secrets, only that it changes."""
    there = doors.system.read(path) if doors.system.exists(path) else ""
    if isinstance(wanted, Secret):
        return [] if there == wanted.reveal() else [f"{path}: secret values change"]
    former, new = there.splitlines(), (wanted or "").splitlines()
    return list(difflib.unified_diff(former, new, f"{path}", f"{path} (new)", lineterm="", n=1))
