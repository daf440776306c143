"""What an admin asks for: each module plans one thing, out of parts, for `steps` to carry out."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from lava_deploy.configuration import SELF_SIGNED
from lava_deploy.errors import Unreachable
from lava_deploy.model import SYSTEMD, WEB

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager
    from datetime import datetime
    from pathlib import Path

    from lava_deploy.configuration import Configuration, Database, Route
    from lava_deploy.model import Host, Instance
    from lava_deploy.operations.apply import Request
    from lava_deploy.packs import Packs
    from lava_deploy.parts.origin import Origin
    from lava_deploy.parts.services import Keeper
    from lava_deploy.parts.supervisor import Supervisord
    from lava_deploy.playbook import Playbook
    from lava_deploy.postgres import Postgres
    from lava_deploy.report import Report
    from lava_deploy.system import System
    from lava_deploy.web import Web

# The lock of what instances share: the configuration of Apache, unit files. Held briefly; no
# instance can have such a name.
SHARED_LOCK = "host.shared"
# Lines of a log that are shown with an error.
LAST_WORDS = 12
# For processes that load LAVA on a busy machine; for those that have loaded it.
SECONDS_TO_START, SECONDS_TO_ANSWER = 60, 15


@dataclass(frozen=True)
class Doors:
    """The ways to the outside that operations hand to parts, and the host they lead to.

    Those that take long to load are opened when first used: who only looks needs few.
    """

    host: Host
    system: System
    postgres: Callable[[Database], Postgres]
    open_playbook: Callable[[], Playbook]
    open_web: Callable[[], Web]
    open_packs: Callable[[], Packs]
    report: Report

    @cached_property
    def playbook(self) -> Playbook:
        return self.open_playbook()

    @cached_property
    def web(self) -> Web:
        return self.open_web()

    @cached_property
    def packs(self) -> Packs:
        return self.open_packs()

    @property
    def keeper(self) -> Keeper:
        """What keeps services running here: systemd where it is process 1, else the supervisor."""
        if self.system.exists(SYSTEMD):
            from lava_deploy.parts.systemd import Systemd

            return Systemd(self.system, self.host)
        return self.supervisord

    @property
    def supervisord(self) -> Supervisord:
        from lava_deploy.parts.supervisor import Supervisord

        return Supervisord(self.system, self.web, self.host)


def origin(doors: Doors, path: Path, place: str = "") -> Origin:
    """What a restore takes from a directory; `place` is that of the media in a legacy archive."""
    from lava_deploy.parts import legacy
    from lava_deploy.parts.origin import FromSnapshot

    if legacy.exists(doors.system, path):
        return legacy.FromLegacy(doors.system, doors.packs, path, place)
    return FromSnapshot(doors.system, doors.packs, path)


def runs(doors: Doors, instance: Instance) -> bool:
    """Whether any process of an instance runs."""
    from lava_deploy.parts import facts, services

    known = services.named(instance, facts.read(doors.system, instance)["services"])
    states = doors.keeper.states({instance: known})[instance].values()
    return any(state.running for state in states)


def texts_of(
    instance: Instance, configuration: Configuration, server: Database
) -> dict[Path, str | None]:
    """All files that depend on instance.yaml, as they should be; `server` has its port."""
    from lava_deploy.parts import route, settings

    return {
        **settings.texts(instance, configuration, server),
        **route.texts(instance, configuration.route),
    }


def serving_faults(
    doors: Doors,
    instance: Instance,
    route: Route,
    planned: Mapping[Path, str | None] | None = None,
) -> list[str]:
    """What stands in the way of Apache's serving an instance; `planned` as for `route.faults`."""
    from lava_deploy.parts import apache, ports
    from lava_deploy.parts import route as routes

    found = routes.faults(doors.system, instance, route, planned) + apache.faults(doors.system)
    for port in (ports.HTTP, ports.HTTPS) if route.secure else (ports.HTTP,):
        found += ports.faults(doors.system, port)
    return found


def issues_certificate(doors: Doors, instance: Instance, request: Request, now: datetime) -> bool:
    """Whether a change has the host's own authority issue a certificate."""
    from lava_deploy.parts import tls

    route = request.configuration.route
    return route.certificate == SELF_SIGNED and (
        request.renew or tls.is_due(doors.system, instance, route.hostname, now)
    )


def open_route(doors: Doors, instance: Instance, route: Route) -> None:
    """Have Apache serve an instance; by HTTPS, its certificate is there."""
    from lava_deploy.parts import route as routes
    from lava_deploy.parts import tls

    with alone(doors, "open the route"):
        if route.secure:
            tls.module_on(doors.system, doors.host)
        routes.make(doors.system, instance, route)


def close_route(doors: Doors, instance: Instance) -> None:
    """Have Apache serve an instance no longer, and HTTPS where nothing else of ours needs it."""
    from lava_deploy.parts import route

    with alone(doors, "close the route"):
        route.remove(doors.system, instance)
        end_tls(doors)


def end_tls(doors: Doors) -> None:
    """Switch HTTPS off where it was switched on for an instance, and none needs it any more."""
    from lava_deploy.parts import route, tls

    if not route.any_secure(doors.system) and tls.module_off(doors.system, doors.host):
        route.reload(doors.system)
        tls.forget_module(doors.system, doors.host)


def alone(doors: Doors, what: str) -> AbstractContextManager[None]:
    """No other run changes meanwhile what instances share."""
    from lava_deploy import locks

    return locks.locked(doors.host.locks, SHARED_LOCK, what, patience=60)


def restoring_faults(doors: Doors, instance: Instance, *, stop: bool) -> list[str]:
    """Why the state of an instance cannot be exchanged just now."""
    from lava_deploy.parts import settings

    found = []
    if not stop and runs(doors, instance):
        found.append(f"{instance.name} is running: --stop stops it, and starts it afterwards")
    if settings.stale(doors.system, instance):
        found.append(
            f"{instance.name} was set up by another lava-deploy: `lava-deploy apply "
            f"{instance.name}` brings its own files up to date"
        )
    return found


def halt(doors: Doors, instance: Instance) -> None:
    """Stop all services, and end the jobs that go on without them."""
    from lava_deploy.parts import services

    doors.keeper.stop_all(instance)
    services.end_jobs(doors.system, instance)


def go_on(doors: Doors, instance: Instance, configuration: Configuration) -> None:
    """Start all services, and wait until the pages answer."""
    doors.keeper.start_all(instance)
    wait_for_pages(doors, instance, configuration)


def wait_for_pages(
    doors: Doors,
    instance: Instance,
    configuration: Configuration,
    seconds: float = SECONDS_TO_START,
) -> None:
    """Wait until the pages answer. Raises Unreachable, with the web server's last words."""
    from lava_deploy.parts import logs, route, services

    try:
        route.wait(doors.web, configuration.route, seconds)
    except Unreachable as error:
        wanted = services.of(doors.system, instance, configuration, WEB)
        sources = doors.keeper.logs(instance, wanted, lines=LAST_WORDS)
        lines = logs.read(doors.system, sources, logs.Selection(lines=LAST_WORDS))
        said = "\n".join(map(str, lines))
        raise Unreachable(f"{error}\nThe web server's log ends so:\n{said}".rstrip()) from error
