"""Proves that an instance works: a real job on its virtual device, from submission to result."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from lava_deploy.parts import device, facts, guest, job, tokens

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from lava_deploy.configuration import Route
    from lava_deploy.model import Instance
    from lava_deploy.operations import Doors


def run(doors: Doors, instance: Instance, route: Route) -> job.Outcome:
    """Run the smoke job through the route that people use, and show its log.

    Raises JobFailed unless the job is Complete and its results prove that its own guest ran.
    """
    image = guest.make(doors.system, doors.host)
    nonce = secrets.token_hex(8)
    text = job.definition(image, device.TYPE, device.TAG, nonce)
    with _session(doors, instance, route) as session:
        outcome = _carry_out(doors, session, text)
        _remember(doors, instance, outcome)
        job.judge(outcome)
        job.judge_proof(outcome, job.log(doors.web, session, outcome.job), nonce)
    return outcome


def _session(doors: Doors, instance: Instance, route: Route) -> AbstractContextManager[job.Session]:
    token = tokens.read(doors.system, instance.client_token)
    return job.session(doors.system, route, token, doors.host.authority)


def _carry_out(doors: Doors, session: job.Session, text: str) -> job.Outcome:
    number = job.submit(doors.system, session, text)
    job.follow(doors.system, session, number, doors.report.note)
    return job.read_back(doors.web, session, number)


def _remember(doors: Doors, instance: Instance, outcome: job.Outcome) -> None:
    """Keep how the last smoke job ended, for `status`."""
    last = {"job": outcome.job, "health": outcome.health, "ended": outcome.ended}
    facts.remember(doors.system, instance, smoke=last)
