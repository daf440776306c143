"""Makes a new instance: everything it owns, up to a web page that answers."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from lava_deploy import sources, templates
from lava_deploy.errors import DeployError, Unreachable
from lava_deploy.model import Revision, name_faults
from lava_deploy.parts import (
    console,
    database,
    facts,
    folders,
    release,
    route,
    services,
    settings,
    tokens,
    user,
)
from lava_deploy.steps import Plan, Step, nothing

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lava_deploy.model import Configuration, Instance
    from lava_deploy.operations import Doors

OPERATION = "install"
GIGABYTE = 10**9
# Measured: a release takes 0.2 GB, a new database 0.02 GB; the rest is room for media.
DISK_NEEDED = 3 * GIGABYTE
# Measured: about 0.35 GB at rest with two web processes; a job in QEMU needs as much again.
MEMORY_NEEDED = 1 * GIGABYTE
SECONDS_TO_ANSWER = 60


@dataclass(frozen=True)
class Request:
    """All that decides what an installation makes; a resumed one is rebuilt from it.

    `label` names the release, `values` are those of instance.yaml without any secret.
    """

    name: str
    revision: Mapping[str, Any]
    label: str
    worker: str
    admin: str = "admin"
    admin_mail: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)


def faults(doors: Doors, name: str, configuration: Configuration) -> list[str]:
    """Everything that stands in the way of an instance of that name, found without any change."""
    found = name_faults(name)
    if found:
        return found
    instance = doors.host.instance(name)
    if folders.exists(doors.system, instance):
        found.append(f"the name {name} is taken: {instance.root} exists")
    elif user.exists(doors.system, instance):
        found.append(f"the name {name} is taken: there is a system user or group {instance.user}")
    found += route.faults(doors.system, instance, configuration.route)
    found += _room(doors)
    try:
        server = doors.postgres(database.located(doors.system, configuration.database))
        found += database.faults(server, instance)
    except Unreachable as error:
        found.append(str(error))
    return found


def choose(doors: Doors, wanted: str, source: str) -> Revision:
    """The revision an admin means. Raises UnknownRevision, Unreachable."""
    return sources.find(doors.system, doors.host.cache, wanted, source)


def prepare(doors: Doors, revision: Revision) -> release.Built:
    """Fetch and build a revision into the cache, where it serves every instance of this host."""
    built = release.cached(doors.system, doors.host.cache, revision)
    if built:
        return built
    code = sources.fetch(doors.system, doors.host.cache, revision, doors.report.progress)
    return release.build(doors.system, doors.host.cache, code, doors.report.progress)


def plan(doors: Doors, request: Request, configuration: Configuration) -> Plan:
    """The steps that make an instance, and unmake it."""
    making = _Making(doors, request, configuration)
    return Plan(
        OPERATION,
        request.name,
        tuple(making.steps()),
        decisions=asdict(request),
    )
