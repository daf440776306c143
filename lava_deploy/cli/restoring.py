"""Commands that bring an instance into the state of a snapshot, and back."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import click

from lava_deploy import config
from lava_deploy.cli import installing
from lava_deploy.cli.context import BACKUP, Context, common, dry_run, named
from lava_deploy.cli.host import refuse
from lava_deploy.cli.instances import in_force, read_configuration
from lava_deploy.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from lava_deploy.journal import Journal
    from lava_deploy.model import Instance
    from lava_deploy.operations.restore import Request, Wanted
    from lava_deploy.parts.origin import Described
    from lava_deploy.snapshot import Snapshot
    from lava_deploy.steps import Plan

NEWEST = "`latest` is the newest good one."
source = click.argument("snapshot", default="", metavar="[[SOURCE/]ID|PATH]")
stop = click.option("--stop", is_flag=True, help="Stop the instance, and start it afterwards.")
as_it_was = click.option(
    "--as-it-was", is_flag=True, help="Leave jobs that ran, and devices, as the snapshot has them."
)
smoke = click.option("--smoke/--no-smoke", default=True, help="Prove the result by a real job.")


@click.command()
@named
@source
@stop
@click.option(
    "--with-release", is_flag=True, help="Also install the release that the snapshot is of."
)
@as_it_was
@click.option("--undo", is_flag=True, help="Go back to the state before the last restore.")
@smoke
@dry_run
@common
def restore(
    context: Context,
    name: str,
    snapshot: str,
    stop: bool,
    with_release: bool,
    as_it_was: bool,
    undo: bool,
    smoke: bool,
    dry_run: bool,
) -> None:
    """Bring NAME into the state of a snapshot: `latest`, an id, or a directory.

    SOURCE/ID is a snapshot of another instance. Host name, route, tokens and limits stay those of
    NAME. The state before is kept for seven days.

    A directory may also be a backup of the tool of 2012: database.dump, files.tar.gz, etc.tar.gz.
    It is brought up to the LAVA of NAME; its settings go to etc/former, for you to look through.
    """
    from lava_deploy.operations.restore import Request

    context.require_root()
    instance = context.instance(name)
    if bool(snapshot) == undo:
        raise UsageError(
            "give either a snapshot or --undo", hint="`latest` is the newest good one."
        )
    with context.holding(name):
        if undo:
            _undo(context, instance, stop=stop, dry_run=dry_run)
            return
        request = Request(stop, with_release, as_it_was, smoke)
        _restore(context, instance, snapshot, request, dry_run=dry_run)


@click.command("restore-db")
@named
@source
@stop
@as_it_was
@smoke
@dry_run
@common
def restore_db(
    context: Context,
    name: str,
    snapshot: str,
    stop: bool,
    as_it_was: bool,
    smoke: bool,
    dry_run: bool,
) -> None:
    """Exchange the database of NAME alone for that of a snapshot.

    Media stay as they are: jobs that are only in the new database have no logs, and files of jobs
    that are only in the former one stay, and are written over by new jobs of the same numbers.
    """
    from lava_deploy.operations.restore import Request

    context.require_root()
    instance = context.instance(name)
    if not snapshot:
        raise UsageError("give a snapshot", hint=NEWEST)
    with context.holding(name):
        request = Request(stop, False, as_it_was, smoke, database_only=True)
        _restore(context, instance, snapshot, request, dry_run=dry_run)


@dataclass(frozen=True)
class Chosen:
    """A snapshot or a directory of 2012 that was verified, and what is known of it."""

    path: Path
    described: Described


def _restore(
    context: Context, instance: Instance, text: str, request: Request, *, dry_run: bool
) -> None:
    name = instance.name
    chosen = _choose(context, instance, text, database_only=request.database_only)
    if dry_run:
        context.report.plan(_new_plan(context, instance, chosen, request))
        return
    with context.recorded(name):
        carry_out(context, instance, chosen, request)
    context.report.note(f"{name} is as in {chosen.described.name}")
    context.report.note(f"`lava-deploy restore {name} --undo` brings back what was before")


def _choose(context: Context, instance: Instance, text: str, *, database_only: bool) -> Chosen:
    """What an admin names, verified. Raises UsageError, BrokenSnapshot."""
    from lava_deploy.operations import restorable, snapshots

    doors = context.doors
    found = snapshots.find(doors, instance.name, text)
    with context.report.working(f"verify {found.path}"):
        if restorable.is_legacy(doors, found.path):
            seen = restorable.seen(doors, instance, found.path, database_only=database_only)
            return Chosen(found.path, seen)
        return verified(context, found)


def verified(context: Context, found: Snapshot) -> Chosen:
    """A snapshot, all of which was read. Raises BrokenSnapshot."""
    from lava_deploy.operations import restorable, snapshots

    manifest = snapshots.verified(context.doors, found, context.now)
    return Chosen(found.path, restorable.described(manifest))


def carry_out(context: Context, instance: Instance, chosen: Chosen, request: Request) -> None:
    """Restore what was verified. Raises PreflightFailed with all that stands in the way."""
    from lava_deploy.operations import restorable

    plan = _new_plan(context, instance, chosen, request)
    if plan.decisions["revision"]:
        with context.report.working(f"build LAVA {chosen.described.version}"):
            adder = installing.package_adder(context)
            restorable.prepare(context.doors, chosen.path, adder)
    context.carry_out(plan)


def _new_plan(context: Context, instance: Instance, chosen: Chosen, request: Request) -> Plan:
    from lava_deploy.operations import restorable
    from lava_deploy.operations import restore as operation

    doors, found = context.doors, (chosen.path, chosen.described)
    refuse(restorable.faults(doors, instance, *found, request))
    keeps = replace(
        in_force(context, instance), database=read_configuration(context, instance).database
    )
    decisions = operation.decide(doors, instance, *found, request, context.stamp, keeps)
    return _plan(context, instance, decisions)


def _plan(context: Context, instance: Instance, decisions: Mapping[str, Any]) -> Plan:
    """The plan of a restore, new or unfinished. Raises ConfigurationError."""
    from lava_deploy.operations import restore as operation
    from lava_deploy.operations import smoke

    wanted = _wanted(context, instance, decisions)

    def prove() -> None:
        smoke.run(context.doors, instance, wanted.configuration.route)

    return operation.plan(context.doors, instance, decisions, wanted, prove)


def rebuilt(context: Context, journal: Journal, *, undoing: bool) -> Plan:
    """The plan of an unfinished backup or restore; it needs no snapshot to undo, or to clear up."""
    from lava_deploy.operations import backup, undo
    from lava_deploy.operations import restore as operation

    instance = context.host.instance(journal.subject)
    if journal.operation == backup.OPERATION:
        configuration = in_force(context, instance)
        return backup.plan(context.doors, instance, journal.decisions, configuration)
    if journal.operation == undo.OPERATION:
        return _undo_plan(context, instance, journal.decisions)
    if undoing or journal.committed:
        keeps = config.build(journal.decisions["keeps"], "what the instance keeps")
        wanted = operation.Wanted(keeps, "")
        return operation.plan(context.doors, instance, journal.decisions, wanted, lambda: None)
    return _plan(context, instance, journal.decisions)


def clear_away(context: Context, journal: Journal) -> bool:
    """Deal with what a killed backup left, and tell whether it was one; any other is left alone."""
    from lava_deploy import steps

    if journal.operation != BACKUP:
        return False
    plan = rebuilt(context, journal, undoing=not journal.committed)
    finish = steps.resume if journal.committed else steps.abandon
    context.report.note(f"a backup of {journal.subject} was killed: what it left is cleared away")
    finish(plan, context.host.journals, context.report)
    return True


def _wanted(context: Context, instance: Instance, decisions: Mapping[str, Any]) -> Wanted:
    """The snapshot's instance.yaml, or the instance's, with what this keeps of its own."""
    from lava_deploy.operations import restorable
    from lava_deploy.operations.restore import KEPT, Wanted

    keeps = config.build(decisions["keeps"], "what the instance keeps")
    if decisions["database_only"]:
        return Wanted(keeps, "")
    place = f"the instance.yaml of {decisions['origin']}"
    text = restorable.configuration_text(context.doors, instance, decisions["source"])
    theirs = config.read(text, place)
    changes = {
        f"{section}.{key}": value
        for section in KEPT
        for key, value in decisions["keeps"][section].items()
        if getattr(getattr(theirs, section), key) != value
    }
    text = config.rewrite(text, changes)
    return Wanted(config.read(text, place), text)


def _undo(context: Context, instance: Instance, *, stop: bool, dry_run: bool) -> None:
    from lava_deploy.operations import undo as operation

    refuse(operation.faults(context.doors, instance, stop=stop))
    route = asdict(in_force(context, instance).route)
    decisions = operation.decide(context.doors, instance, route)
    plan = _undo_plan(context, instance, decisions)
    if dry_run:
        context.report.plan(plan)
        return
    with context.recorded(instance.name):
        context.carry_out(plan)
    context.report.note(f"{instance.name} is as it was before {decisions['origin']} was restored")


def _undo_plan(context: Context, instance: Instance, decisions: Mapping[str, Any]) -> Plan:
    from lava_deploy.operations import undo as operation

    configuration = config.build({"route": decisions["route"]}, "the route")
    return operation.plan(context.doors, instance, decisions, configuration)


COMMANDS = (restore, restore_db)
