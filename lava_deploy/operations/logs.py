"""Shows what the components of an instance, or all that have to do with a job, said."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from lava_deploy.configuration import Database
from lava_deploy.errors import UsageError
from lava_deploy.parts import facts, logs, services
from lava_deploy.parts.logs import Selection

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lava_deploy.model import Instance, Log
    from lava_deploy.operations import Doors
    from lava_deploy.parts.logs import Job, Line


def read(doors: Doors, instance: Instance, component: str, wanted: Selection) -> Iterator[Line]:
    """The lines there are of an instance, or of one component, in the order of time.

    Raises UsageError for a job that does not exist.
    """
    job = _job(doors, instance, wanted)
    wanted = _narrowed(wanted, job)
    sources = _sources(doors, instance, component, wanted, job, follow=False)
    return logs.read(doors.system, sources, wanted)


def follow(doors: Doors, instance: Instance, component: str, wanted: Selection) -> Iterator[Line]:
    """The same, and then the lines that come; of a job, until it is over."""
    job = _job(doors, instance, wanted)
    wanted = _narrowed(wanted, job)
    sources = _sources(doors, instance, component, wanted, job, follow=True)

    def is_over() -> bool:
        now = _job(doors, instance, wanted)
        return now is not None and now.over

    return logs.follow(doors.system, sources, wanted, is_over)


def _job(doors: Doors, instance: Instance, wanted: Selection) -> Job | None:
    """The job that is asked for, if one is."""
    if not wanted.job:
        return None
    server = doors.postgres(Database(**facts.read(doors.system, instance)["database"]))
    found = logs.job(server, instance, wanted.job)
    if not found:
        raise UsageError(f"{instance.name} has no job {wanted.job}")
    return found


def _narrowed(wanted: Selection, job: Job | None) -> Selection:
    """Nobody speaks of a job before it is submitted."""
    if not job:
        return wanted
    return replace(wanted, since=max(wanted.since or job.submitted, job.submitted))


def _sources(
    doors: Doors,
    instance: Instance,
    component: str,
    wanted: Selection,
    job: Job | None,
    *,
    follow: bool,
) -> list[Log]:
    own = [logs.of_job(doors.system, job, follow=follow)] if job and not component else []
    said = doors.keeper.logs(
        instance,
        services.all_of(instance, component),
        since=wanted.since,
        # those of a job may be any
        lines=None if job else wanted.lines,
        follow=follow,
    )
    return [*said, *own]
