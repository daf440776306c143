"""Commands that take snapshots of instances and look after them."""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from lava_deploy.cli.context import Context, as_json, common, dry_run, named
from lava_deploy.cli.host import refuse
from lava_deploy.cli.instances import in_force
from lava_deploy.errors import PartlyDone

if TYPE_CHECKING:
    from lava_deploy.operations.backup import Totals

UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}
RATE = re.compile(r"([0-9]{1,12})([kMG]?)B?")


class Rate(click.ParamType):
    """Bytes a second, such as 20M."""

    name = "rate"

    def convert(
        self, value: Any, parameter: click.Parameter | None, context: click.Context | None
    ) -> int:
        if isinstance(value, int):
            return value
        found = RATE.fullmatch(value)
        if not found or not int(found[1]):
            self.fail(f"{value!r} is no number of bytes such as 500k, 20M or 1G", parameter)
        return int(found[1]) * UNITS[found[2]]


@click.command()
@named
@click.option("--note", metavar="TEXT", default="", help="What the snapshot is for.")
@click.option("--stop", is_flag=True, help="Stop the instance meanwhile, which is not needed.")
@click.option("--with-code", is_flag=True, help="Also keep all that LAVA depends on.")
@click.option(
    "--rate", type=Rate(), default=0, metavar="BYTES", help="Read so much media a second: 20M."
)
@dry_run
@as_json
@common
def backup(
    context: Context,
    name: str,
    note: str,
    stop: bool,
    with_code: bool,
    rate: int,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Take a snapshot of NAME while it runs, and print the snapshot's id.

    It has the database, the media, the configuration and LAVA's own code. Jobs go on.
    """
    from lava_deploy.operations import backup as operation

    context.require_root()
    instance = context.instance(name)
    with context.holding(name):
        refuse(operation.faults(context.doors, instance))
        request = operation.Request(note, stop, with_code, rate)
        decisions = operation.decide(context.doors, instance, request, context.now)
        if decisions["clock_fault"]:
            context.report.warn(decisions["clock_fault"])
        plan = operation.plan(context.doors, instance, decisions, in_force(context, instance))
        if dry_run:
            context.report.plan(plan)
            return
        with context.recorded(name):
            context.carry_out(plan)
            totals = operation.totals(context.doors, instance, decisions)
            _present(context, totals, as_json=as_json)


def _present(context: Context, totals: Totals, *, as_json: bool) -> None:
    """Tell what was kept. Raises PartlyDone when something could not be."""
    if as_json:
        context.report.json({"snapshot": asdict(totals)})
    else:
        context.report.line(totals.id)
    seconds = context.seconds
    context.report.note(
        f"{totals.new / 1e6:.1f} MB new, {totals.shared / 1e6:.1f} MB shared with others, "
        f"{seconds:.1f} s"
    )
    if totals.unshared:
        context.report.warn(
            f"{totals.unshared / 1e6:.0f} MB that earlier snapshots have too were copied: "
            f"the file system has no hard links, or they are on another one"
        )
    if totals.skipped:
        lines = "".join(f"\n  - {path}: {why}" for path, why in totals.skipped)
        raise PartlyDone(f"the snapshot {totals.id} has all but these:{lines}")


COMMANDS = (backup,)
