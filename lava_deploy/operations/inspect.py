"""What there is on this host, asked of the machine itself."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from lava_deploy.configuration import (
    LOCATION,
    SELF_SIGNED,
    VHOST,
    Components,
    Configuration,
    Database,
    Route,
)
from lava_deploy.errors import DeployError
from lava_deploy.model import DISPATCHER, PUBLISHER, SCHEDULER
from lava_deploy.parts import before, facts, release, route, services, snapshots, tokens
from lava_deploy.parts import configuration as configuration_file
from lava_deploy.snapshot import time_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from lava_deploy.model import Instance, Offers, ServiceState
    from lava_deploy.operations import Doors


@dataclass(frozen=True)
class Overview:
    """One instance as it is now.

    `snapshot_age` is in seconds, None without a good one; `smoke` is the last smoke job's outcome.
    """

    name: str
    version: str
    source: str
    url: str
    components: Mapping[str, ServiceState]
    snapshot_age: int | None
    smoke: Mapping[str, Any]

    @property
    def running(self) -> bool:
        return all(state.running for state in self.components.values())


@dataclass(frozen=True)
class Sizes:
    """Bytes on disk; those of `code` are shared with other instances of the same release."""

    code: int
    database: int
    media: int
    logs: int


def names(doors: Doors) -> list[str]:
    """The instances of this host; one that is just being made is not among them yet."""
    found = doors.system.names(doors.host.instances)
    return [name for name in found if facts.exists(doors.system, doors.host.instance(name))]


def overviews(doors: Doors, instances: Sequence[Instance], now: datetime) -> list[Overview]:
    """What `list` tells of instances, without asking their servers."""
    configurations = {instance: in_force(doors, instance) for instance in instances}
    states = services.states(doors.system, doors.keeper, configurations)
    return [
        _overview(doors, instance, configuration, states[instance], now)
        for instance, configuration in configurations.items()
    ]


def _overview(
    doors: Doors,
    instance: Instance,
    configuration: Configuration,
    components: Mapping[str, ServiceState],
    now: datetime,
) -> Overview:
    current = release.current(doors.system, instance)
    return Overview(
        name=instance.name,
        version=current.version if current else "",
        source=current.source if current else "",
        url=configuration.route.url,
        components=components,
        snapshot_age=_snapshot_age(doors, instance, now),
        smoke=facts.read(doors.system, instance).get("smoke", {}),
    )


def answers(doors: Doors, configuration: Configuration) -> int:
    """The HTTP status of the instance's health page through its route, 0 without any answer."""
    return route.status(doors.web, configuration.route)


@dataclass(frozen=True)
class Served:
    """How people and workers reach an instance.

    `answers` is the status of its health page, 0 without an answer; `other` the address that sends
    people on; `certificate` is empty without HTTPS, else its `names`, when it `expires` (ISO 8601,
    UTC) and who it is `issued_by`.
    """

    name: str
    kind: str
    url: str
    answers: int
    other: str
    worker_url: str
    certificate: Mapping[str, Any]


def served(doors: Doors, instance: Instance) -> Served:
    """What Apache serves of an instance."""
    configuration = in_force(doors, instance)
    chosen = configuration.route
    other = replace(chosen, kind=VHOST if chosen.kind == LOCATION else LOCATION)
    return Served(
        name=instance.name,
        kind=chosen.kind,
        url=chosen.url,
        answers=answers(doors, configuration),
        other=other.url if chosen.redirect else "",
        worker_url=f"{chosen.origin}{instance.worker_location}",
        certificate=certificate(doors, instance, configuration),
    )


def certificate(doors: Doors, instance: Instance, configuration: Configuration) -> dict[str, Any]:
    """What there is to know of the certificate that is shown; nothing without HTTPS."""
    if not configuration.route.secure:
        return {}
    from lava_deploy.parts import tls  # which takes longer to load than the rest of `list`'s parts

    shown = tls.certificate(doors.system, instance)
    if shown is None:
        return {}
    issuer = SELF_SIGNED if configuration.route.certificate == SELF_SIGNED else shown.issuer
    expires = shown.expires.strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"names": list(shown.names), "expires": expires, "issued_by": issuer}


def sizes(doors: Doors, instance: Instance) -> Sizes:
    """What the instance takes on disk. Raises Unreachable when its database does not answer."""
    server = doors.postgres(Database(**facts.read(doors.system, instance)["database"]))
    return Sizes(
        code=doors.system.size(instance.releases),
        database=server.size(instance.database),
        media=doors.system.size(instance.media),
        logs=doors.system.size(instance.log),
    )


def admin(doors: Doors, instance: Instance) -> str:
    """The name of the first superuser."""
    return facts.read(doors.system, instance)["admin"]


def admin_password(doors: Doors, instance: Instance) -> str:
    """The first superuser's password, to be shown; '' once the admin has removed the file."""
    if not tokens.exists(doors.system, instance.admin_password):
        return ""
    return tokens.read(doors.system, instance.admin_password).reveal()


def offers(doors: Doors, repository: str, *, refresh: bool) -> Offers:
    """Which revisions can be had, from all sources; `refresh` asks even if asked lately."""
    from lava_deploy import sources  # which `list` and the like have no use for

    return sources.offers(doors.system, doors.host.cache, repository, refresh=refresh)


def _snapshot_age(doors: Doors, instance: Instance, now: datetime) -> int | None:
    """Seconds since the newest good snapshot was begun; its name is that time."""
    try:
        good = snapshots.last_good(doors.system, doors.host, instance.name)
    except DeployError:  # which are broken cannot be known: `snapshots list` says why
        return None
    return int((now - time_of(good.id)).total_seconds()) if good else None


def state_before(doors: Doors, instance: Instance) -> dict[str, Any]:
    """What is kept of the state before the last restore; nothing if nothing is."""
    kept = before.newest(doors.system, instance)
    if kept is None:
        return {}
    server = doors.postgres(Database(**facts.read(doors.system, instance)["database"]))
    return asdict(before.describe(doors.system, server, kept))


def about(doors: Doors, instance: Instance) -> dict[str, Any]:
    """Names and paths, and what lava-deploy remembers."""
    current = release.current(doors.system, instance)
    return {
        "user": instance.user,
        "database": facts.read(doors.system, instance)["database"] | {"name": instance.database},
        "admin": admin(doors, instance),
        "worker": facts.read(doors.system, instance)["worker"],
        "worker_location": instance.worker_location,
        "release": str(current.path) if current else "",
        "locator": current.locator if current else "",
        "configuration": str(instance.configuration),
        "media": str(instance.media),
        "logs": str(instance.log),
    }


def in_force(doors: Doors, instance: Instance) -> Configuration:
    """What of instance.yaml was carried out, whatever the file says by now.

    That is the route, the components and the limits. The defaults while nothing is remembered
    yet, or no more.
    """
    known = facts.read(doors.system, instance)
    if not known:
        return Configuration()
    running = {one: one in known["services"] for one in (PUBLISHER, SCHEDULER, DISPATCHER)}
    return Configuration(
        Route(**known["route"]),
        components=Components(**running),
        limits=facts.limits(doors.system, instance),
    )


def configuration_text(doors: Doors, instance: Instance) -> str:
    """The text of instance.yaml. Raises FileNotFoundError."""
    return configuration_file.read(doors.system, instance)
