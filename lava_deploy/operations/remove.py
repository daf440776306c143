"""Takes an instance away, and every trace of it but its snapshots and its history."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lava_deploy.configuration import Database
from lava_deploy.errors import Unreachable
from lava_deploy.operations import alone, close_route, open_route
from lava_deploy.parts import database, facts, folders, release, services, user
from lava_deploy.steps import Plan, Step

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lava_deploy.configuration import Configuration
    from lava_deploy.model import Instance
    from lava_deploy.operations import Doors

OPERATION = "remove"


def decide(doors: Doors, instance: Instance) -> dict[str, Any]:
    """What the plan needs once the instance's own files are gone."""
    known = facts.read(doors.system, instance)
    return {"database": known["database"], "worker": known["worker"]}


def faults(doors: Doors, decisions: Mapping[str, Any]) -> list[str]:
    """What stands in the way: a database server that does not answer."""
    try:
        doors.postgres(Database(**decisions["database"])).version()
    except Unreachable as error:
        return [str(error)]
    return []


def losses(doors: Doors, instance: Instance) -> list[str]:
    """What will be destroyed, a line each, with sizes."""
    sizes = {
        f"the media in {instance.media}": doors.system.size(instance.media),
        f"everything else in {instance.root}": doors.system.size(instance.root)
        - doors.system.size(instance.media),
    }
    lines = [f"{what} ({size / 1e6:.0f} MB)" for what, size in sizes.items()]
    return [f"the database {instance.database} with all jobs and results", *lines]


def plan(
    doors: Doors,
    instance: Instance,
    decisions: Mapping[str, Any],
    configuration: Configuration,
) -> Plan:
    """Take it out of service, which can be undone; then destroy it, which cannot."""
    server = doors.postgres(Database(**decisions["database"]))
    system = doors.system

    def stop_services() -> None:
        with alone(doors, OPERATION):
            services.remove(system, doors.keeper, instance)

    def start_services() -> None:
        current = release.current(system, instance)
        if current is None:  # there was nothing to start
            return
        with alone(doors, OPERATION):
            services.make(
                system,
                doors.keeper,
                instance,
                current,
                configuration,
                decisions["worker"],
            )
        services.start(system, doors.keeper, instance, configuration)

    return Plan(
        OPERATION,
        instance.name,
        (
            Step(
                "close the route",
                lambda: close_route(doors, instance),
                lambda: open_route(doors, instance, configuration.route),
            ),
            Step("stop the services", stop_services, start_services),
        ),
        (
            Step(
                f"remove the database {instance.database}",
                lambda: database.remove(server, instance),
            ),
            Step(f"remove {instance.root}", lambda: folders.remove(system, instance)),
            Step(f"remove the user {instance.user}", lambda: user.remove(system, instance)),
        ),
        dict(decisions),
    )
