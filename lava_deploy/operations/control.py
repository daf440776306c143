"""Starts and stops what an instance runs, and opens its management commands."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lava_deploy.errors import UsageError
from lava_deploy.model import WEB
from lava_deploy.operations import wait_for_pages
from lava_deploy.parts import console, release, services

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lava_deploy.configuration import Configuration
    from lava_deploy.model import Instance
    from lava_deploy.operations import Doors


def start(
    doors: Doors, instance: Instance, configuration: Configuration, component: str = ""
) -> None:
    """Start an instance, or one component of it, and wait until its pages answer."""
    _check(configuration, component)
    services.start(doors.system, doors.keeper, instance, configuration, component)
    if component in ("", WEB):
        wait_for_pages(doors, instance, configuration)


def stop(
    doors: Doors, instance: Instance, configuration: Configuration, component: str = ""
) -> None:
    """Stop an instance, or one component of it; jobs that are running go on."""
    _check(configuration, component)
    services.stop(doors.system, doors.keeper, instance, configuration, component)


def restart(
    doors: Doors, instance: Instance, configuration: Configuration, component: str = ""
) -> None:
    """Restart an instance, or one component of it; requests wait meanwhile."""
    _check(configuration, component)
    services.restart(doors.system, doors.keeper, instance, configuration, component)
    if component in ("", WEB):
        wait_for_pages(doors, instance, configuration)


def manage(
    doors: Doors, instance: Instance, arguments: Sequence[str], answers: Mapping[str, str]
) -> int:
    """Run a management command of LAVA's on the admin's terminal; return its exit status.

    `answers` are variables of the environment by which the admin answers its questions.
    """
    return console.manage(
        doors.system, instance, release.in_use(doors.system, instance), arguments, answers
    )


def _check(configuration: Configuration, component: str) -> None:
    """Raises UsageError for a component that is switched off."""
    if component and component != WEB and not getattr(configuration.components, component):
        raise UsageError(
            f"the {component} is switched off",
            hint=f"components.{component} in instance.yaml, then `lava-deploy apply`.",
        )
