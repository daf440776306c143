"""The proof that a snapshot can be restored: in an instance made for that, by a job there."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from lava_deploy.cli import installing, restoring
from lava_deploy.cli.context import Context
from lava_deploy.cli.host import refuse

if TYPE_CHECKING:
    from lava_deploy.snapshot import Snapshot

ADMIN = "rehearsal"


def rehearse(context: Context, source: Snapshot) -> None:
    """Restore a snapshot, which is verified, into an instance with its release; run a job; remove.

    The instance is there for that time only, and goes whatever comes of it.
    """
    from lava_deploy.operations import install, restorable, snapshots
    from lava_deploy.operations.restore import Request

    doors = context.doors
    scratch = f"rehearsal-{context.now:%H%M%S}"
    order = installing.Order(scratch, hostname=f"{scratch}.{installing.LOCAL}", admin=ADMIN)
    configuration, faults = installing.complete(context, order, ask=False)
    refuse([*faults, *install.faults(doors, scratch, configuration)])
    chosen = restoring.verified(context, source)
    adder = installing.package_adder(context)
    with context.report.working(f"build LAVA {chosen.described.version}"):
        revision = restorable.prepare(doors, source.path, adder)
        install.prepare_guest(doors)
    request = install.Request(
        name=scratch,
        revision=asdict(revision),
        stamp=context.stamp,
        worker=install.worker_name(doors),
        admin=ADMIN,
        values=order.values,
    )
    with context.holding(scratch), context.recorded(scratch):
        instance = context.host.instance(scratch)
        installing.carry_out(context, request, configuration)
        try:
            restoring.carry_out(context, instance, chosen, Request(stop=True))
        finally:
            _remove(context, scratch)
    snapshots.remember_rehearsal(doors, source, context.now)


def _remove(context: Context, scratch: str) -> None:
    from lava_deploy.operations import inspect, remove

    instance = context.host.instance(scratch)
    decisions = remove.decide(context.doors, instance)
    configuration = inspect.in_force(context.doors, instance)
    context.carry_out(remove.plan(context.doors, instance, decisions, configuration))
