"""Commands that take snapshots of instances and look after them."""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from lava_deploy import retention
from lava_deploy.cli import rehearsing
from lava_deploy.cli.context import Context, as_json, common, complete_names, dry_run, named, yes
from lava_deploy.cli.host import refuse
from lava_deploy.cli.instances import in_force
from lava_deploy.configuration import name_faults
from lava_deploy.errors import PartlyDone
from lava_deploy.snapshot import PASSING

if TYPE_CHECKING:
    from lava_deploy.operations.backup import Totals
    from lava_deploy.operations.snapshots import Pruning
    from lava_deploy.parts.snapshots import Listed

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
    missing = [line for line in totals.skipped if not line[1].startswith(PASSING)]
    for path, why in totals.skipped:
        if why.startswith(PASSING):
            context.report.note(f"not in it: {path}, which {why}")
    if missing:
        lines = "".join(f"\n  - {path}: {why}" for path, why in missing)
        raise PartlyDone(f"the snapshot {totals.id} has all but these:{lines}")


def _name(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    """The name of an instance, which may be gone: its snapshots are there still."""
    if faults := name_faults(value):
        raise click.BadParameter("; ".join(faults))
    return value


of_instance = click.argument("name", callback=_name, shell_complete=complete_names)


@click.group("snapshots")
def group() -> None:
    """List, verify, keep and remove snapshots."""


of_snapshot = click.argument("snapshot", default="latest", metavar="[ID]")


@group.command("list")
@of_instance
@as_json
@common
def list_(context: Context, name: str, as_json: bool) -> None:
    """List the snapshots of NAME, the oldest first; also of an instance that is gone."""
    from lava_deploy.operations import snapshots as operation

    context.require_root()
    found = operation.listed(context.doors, name)
    if as_json:
        context.report.json({"snapshots": [_plain(one) for one in found]})
        return
    context.report.table(
        ["ID", "LAVA", "STATE", "KEPT", "OWN", "SHARED", "NOTE"],
        [
            [
                one.snapshot.id,
                one.manifest.version if one.manifest else "?",
                _state(one),
                "yes" if one.kept else "",
                f"{one.own / 1e6:.1f} MB",
                f"{one.shared / 1e6:.1f} MB",
                one.manifest.note if one.manifest else "",
            ]
            for one in found
        ],
    )


@group.command()
@of_instance
@of_snapshot
@as_json
@common
def show(context: Context, name: str, snapshot: str, as_json: bool) -> None:
    """Show what a snapshot of NAME says of itself, and what is known of it."""
    from lava_deploy.operations import snapshots as operation

    context.require_root()
    found = operation.find(context.doors, name, snapshot)
    about = operation.about(context.doors, name, found)
    if as_json:
        context.report.json({"snapshot": about})
        return
    members = about.pop("members")
    about["members"] = f"{len(members)} files, {sum(one['size'] for one in members) / 1e6:.1f} MB"
    context.report.table(["WHAT", "VALUE"], [[key, str(value)] for key, value in about.items()])


@group.command()
@of_instance
@of_snapshot
@click.option("--deep", is_flag=True, help="Also decompress all packs and read through the dump.")
@click.option(
    "--rehearse",
    is_flag=True,
    help="Restore it into an instance made for that, and run a job there.",
)
@as_json
@common
def verify(
    context: Context, name: str, snapshot: str, deep: bool, rehearse: bool, as_json: bool
) -> None:
    """Read all of a snapshot of NAME, and tell all that is wrong; then the exit status is 4."""
    from lava_deploy.operations import snapshots as operation

    context.require_root()
    found = operation.find(context.doors, name, snapshot)
    with context.holding(name), context.recorded(name):
        with context.report.working(f"verify {found.path}"):
            faults = operation.verify(context.doors, found, context.now, deep=deep)
        if as_json:
            context.report.json({"snapshot": str(found.path), "faults": faults})
        operation.refuse(found, faults)
        if rehearse:
            rehearsing.rehearse(context, found)
    if not as_json:
        context.report.line(f"{found.path} is good")


@group.command()
@of_instance
@click.argument("snapshot", metavar="ID")
@click.option("--off", is_flag=True, help="Let it be pruned again.")
@common
def keep(context: Context, name: str, snapshot: str, off: bool) -> None:
    """Mark a snapshot of NAME as one that is never pruned."""
    from lava_deploy.operations import snapshots as operation

    context.require_root()
    found = operation.find(context.doors, name, snapshot)
    with context.holding(name), context.recorded(name):
        operation.mark(context.doors, found, kept=not off)
    context.report.note(f"{found.id} is {'pruned like others' if off else 'kept'}")


@group.command()
@of_instance
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@dry_run
@yes
@common
def remove(context: Context, name: str, ids: tuple[str, ...], dry_run: bool, yes: bool) -> None:
    """Remove snapshots of NAME; others are not hurt by it."""
    from lava_deploy.operations import snapshots as operation

    context.require_root()
    found = [operation.find(context.doors, name, id) for id in ids]
    with context.holding(name):
        refuse(operation.removal_faults(context.doors, name, found))
        going = operation.removal(context.doors, name, [one.id for one in found])
        _remove(context, name, going, dry_run=dry_run, yes=yes)


@group.command()
@of_instance
@click.option(
    "--keep",
    "policy",
    default=retention.DEFAULT,
    show_default=True,
    metavar="RULES",
    help="How many days, weeks, months and years keep their newest one.",
)
@dry_run
@yes
@as_json
@common
def prune(
    context: Context, name: str, policy: str, dry_run: bool, yes: bool, as_json: bool
) -> None:
    """Remove old snapshots of NAME, but never the newest good one or one that is kept."""
    from lava_deploy.operations import snapshots as operation

    context.require_root()
    with context.holding(name):
        going = operation.to_prune(context.doors, name, policy)
        if as_json:
            context.report.json(
                {"removed": list(going.ids), "freed": going.freed, "only_planned": dry_run}
            )
        _remove(context, name, going, dry_run=dry_run, yes=yes)


def _remove(context: Context, name: str, going: Pruning, *, dry_run: bool, yes: bool) -> None:
    from lava_deploy.operations import snapshots as operation

    for id in going.ids:
        context.report.note(f"goes: {id}")
    context.report.note(f"{len(going.ids)} snapshots, which frees {going.freed / 1e6:.1f} MB")
    if dry_run or not going.ids:
        return
    context.confirm("Remove them?", yes=yes)
    with context.recorded(name):
        operation.remove(context.doors, name, going.ids)


def _plain(one: Listed) -> dict[str, Any]:
    return {
        "id": one.snapshot.id,
        "path": str(one.snapshot.path),
        "version": one.manifest.version if one.manifest else None,
        "note": one.manifest.note if one.manifest else None,
        "good": one.good,
        "faults": list(one.faults),
        "kept": one.kept,
        "verified": one.verified,
        "level": one.level,
        "own": one.own,
        "shared": one.shared,
    }


def _state(one: Listed) -> str:
    if not one.good:
        return f"BROKEN: {one.faults[0]}" + (" …" if len(one.faults) > 1 else "")
    return f"good, {one.level} {one.verified[:10]}" if one.verified else "good, not verified yet"


COMMANDS = (backup, group)
