"""Commands that make, change and remove instances, and those that finish what was cut off."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import click

from lava_deploy import config
from lava_deploy.cli import installing
from lava_deploy.cli.context import (
    Context,
    as_json,
    common,
    dry_run,
    named,
    no_questions,
    overwrite,
    yes,
)
from lava_deploy.cli.host import HOST, refuse
from lava_deploy.configuration import name_faults
from lava_deploy.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from lava_deploy.configuration import Configuration
    from lava_deploy.journal import Journal
    from lava_deploy.model import Instance
    from lava_deploy.operations.apply import Request, Together
    from lava_deploy.steps import Plan


@click.command()
@click.argument("name")
@click.argument("revision", default="")
@installing.source
@installing.route
@click.option("--hostname", metavar="H", default="", help="The name that people use.")
@click.option("--admin", metavar="USER", default="", help="Name of the first admin.")
@click.option("--admin-mail", metavar="ADDRESS", default="", help="Mail address of the admin.")
@click.option(
    "--dispatcher/--no-dispatcher", default=None, help="Whether to run one on this machine."
)
@click.option(
    "--database", metavar="SERVER", default="", help="Postgres on another machine: HOST[:PORT]."
)
@click.option("--database-port", type=click.IntRange(1, 65535), help="Another cluster's port.")
@click.option("--database-admin", metavar="ROLE", help="Who makes roles and databases there.")
@click.option("--database-password-file", metavar="FILE", help="The file with their password.")
@click.option(
    "--set",
    "assignments",
    metavar="SETTING=VALUE",
    multiple=True,
    help="Any setting of instance.yaml, for instance web.workers=4.",
)
@click.option("--smoke", is_flag=True, help="Prove the instance by a real job at the end.")
@no_questions
@dry_run
@yes
@as_json
@common
def install(
    context: Context,
    name: str,
    revision: str,
    source: str,
    route: str | None,
    hostname: str,
    admin: str,
    admin_mail: str,
    dispatcher: bool | None,
    assignments: tuple[str, ...],
    smoke: bool,
    no_questions: bool,
    dry_run: bool,
    yes: bool,
    as_json: bool,
    **database: str | int | None,
) -> None:
    """Install an instance named NAME of REVISION.

    REVISION is a version (2026.10) or, from git, also a branch or commit; or the path of a working
    tree, as it is just now. Sources are asked in the order debian, git; the first that has it is
    taken. Without REVISION it is `latest`, the newest release of all sources that answer.
    """
    context.require_root()
    order = installing.Order(
        name, revision, source, route, hostname, admin, admin_mail, dispatcher, assignments
    )
    installing.place_database(order, **database)
    asks = context.interactive and not no_questions
    configuration, faults = installing.complete(context, order, ask=asks)
    # a text that is no name names no lock either; it is refused with all other faults
    with nullcontext() if name_faults(name) else context.holding(name):
        request = installing.request(context, order, configuration, faults)
        for line in installing.summary(request, configuration):
            context.report.note(line)
        if dry_run:
            context.report.plan(installing.plan(context, request, configuration))
            return
        if asks:
            context.confirm("Install it?", yes=yes, default=True)
        installing.build(context, request)
        with context.recorded(name):
            installing.carry_out(context, request, configuration)
            outcome = installing.prove(context, name, configuration) if smoke else None
    installing.present(context, name, configuration, outcome, as_json=as_json)


@click.command()
@named
@overwrite
@dry_run
@common
def apply(context: Context, name: str, overwrite: bool, dry_run: bool) -> None:
    """Carry out what changed in the instance.yaml of NAME; shows the difference."""
    from lava_deploy.operations.apply import Request

    context.require_root()
    instance = context.instance(name)
    with context.holding(name):
        request = Request(read_configuration(context, instance))
        carry_out_change(context, instance, request, overwrite=overwrite, dry_run=dry_run)


def carry_out_change(
    context: Context, instance: Instance, request: Request, *, overwrite: bool, dry_run: bool
) -> None:
    """Show what differs from what is in force, and carry it out. Raises PreflightFailed."""
    lines = difference(context, instance, request, overwrite=overwrite)
    if not lines:
        context.report.note(f"{instance.name} already is as its instance.yaml says")
        return
    for line in lines:
        context.report.line(line)
    plan = plan_change(context, instance, request)
    if dry_run:
        context.report.plan(plan)
        return
    with context.recorded(instance.name):
        context.carry_out(plan)


def difference(
    context: Context,
    instance: Instance,
    request: Request,
    together: Together | None = None,
    *,
    overwrite: bool,
) -> list[str]:
    """What differs from what is in force, line by line. Raises PreflightFailed.

    `together` is what the change has in common with others.
    """
    from lava_deploy.operations import preview

    doors, now = context.doors, context.now
    refuse(preview.faults(doors, instance, request, now, together, overwrite=overwrite))
    return preview.difference(doors, instance, request, now)


def plan_change(
    context: Context, instance: Instance, request: Request, together: Together | None = None
) -> Plan:
    """The plan to have in force what is requested."""
    from lava_deploy.operations import apply as operation

    decisions = operation.decide(context.doors, instance, request, context.now, together)
    return operation.plan(context.doors, instance, request, decisions, together)


@click.command()
@named
@dry_run
@yes
@common
def remove(context: Context, name: str, dry_run: bool, yes: bool) -> None:
    """Remove the instance NAME with its database and media; snapshots and history stay."""
    from lava_deploy.operations import remove as operation

    context.require_root()
    instance = context.instance(name)
    with context.holding(name):
        decisions = operation.decide(context.doors, instance)
        refuse(operation.faults(context.doors, decisions))
        plan = operation.plan(context.doors, instance, decisions, in_force(context, instance))
        if dry_run:
            context.report.plan(plan)
            return
        if not yes:
            _have_name_typed(context, instance)
        with context.recorded(name):
            context.carry_out(plan)
    context.report.note(f"{name} is removed; its history is in {context.host.log}")


def _have_name_typed(context: Context, instance: Instance) -> None:
    """Have the admin type what is about to be destroyed. Raises UsageError."""
    from lava_deploy.operations import remove as operation

    if not context.interactive:
        raise UsageError(
            f"this destroys {instance.name}, and there is no terminal to have that confirmed",
            hint="Give --yes if you mean it.",
        )
    context.report.note("This will be destroyed:")
    for line in operation.losses(context.doors, instance):
        context.report.note(f"  {line}")
    typed = click.prompt(f"Type {instance.name} to remove it", err=True, default="")
    if typed != instance.name:
        raise UsageError("not agreed: nothing was changed")


@click.command()
@named
@common
def resume(context: Context, name: str) -> None:
    """Complete a command on NAME that was killed or stopped half-way ("host": of setup)."""
    from lava_deploy import steps
    from lava_deploy.operations import setup

    context.require_root()
    with context.holding(name, unfinished=True), context.recorded(name):
        plan = _rebuild(context, _unfinished(context, name), read_configuration)
        steps.resume(plan, context.host.journals, context.report)
        if plan.operation == setup.UNDO:
            setup.finish_undo(context.doors)


@click.command()
@named
@common
def abandon(context: Context, name: str) -> None:
    """Undo a command on NAME that was killed or stopped half-way ("host": of setup)."""
    from lava_deploy import steps

    context.require_root()
    with context.holding(name, unfinished=True), context.recorded(name):
        plan = _rebuild(context, _unfinished(context, name), in_force)
        steps.abandon(plan, context.host.journals, context.report)
    context.report.note(f"the {plan.operation} of {name} is undone")


def _unfinished(context: Context, name: str) -> Journal:
    from lava_deploy.journal import unfinished

    journal = unfinished(context.host.journals, name)
    if journal is None:
        raise UsageError(f"nothing of {name} is unfinished")
    return journal


def _rebuild(
    context: Context,
    journal: Journal,
    read: Callable[[Context, Instance], Configuration],
) -> Plan:
    """The plan of an unfinished command, as it was planned then; `read` reads instance.yaml."""
    from lava_deploy.operations import apply, backup, install, remove, restore, setup, undo

    doors, decisions = context.doors, journal.decisions
    if journal.subject == HOST:
        outcome = setup.Outcome()
        if journal.operation == setup.UNDO:
            return setup.undo_plan(doors, outcome)
        return setup.plan(doors, outcome, new=decisions["new"])
    instance = context.host.instance(journal.subject)
    if journal.operation == install.OPERATION:
        order = install.Request(**decisions)
        return installing.plan(context, order, config.build(order.values, "the order"))
    if journal.operation in (backup.OPERATION, restore.OPERATION, undo.OPERATION):
        from lava_deploy.cli import restoring

        return restoring.rebuilt(context, journal, undoing=read is in_force)
    if journal.operation == remove.OPERATION:
        return remove.plan(doors, instance, decisions, in_force(context, instance))
    changes = decisions["changes"]
    if changes and read is read_configuration:
        request = rewritten(context, instance, changes, journal.operation)
    else:
        configuration = read(context, instance)
        request = apply.Request(configuration, changes, operation=journal.operation)
    return apply.plan(doors, instance, request, decisions)


def rewritten(
    context: Context, instance: Instance, changes: Mapping[str, Any], operation: str
) -> Request:
    """What a command wants that changes instance.yaml. Raises ConfigurationError."""
    from lava_deploy.operations.apply import Request

    text = config.rewrite(configuration_text(context, instance), changes)
    return Request(config.read(text, str(instance.configuration)), changes, text, operation)


def configuration_text(context: Context, instance: Instance) -> str:
    """The text of the instance.yaml of an instance."""
    from lava_deploy.operations import inspect

    return inspect.configuration_text(context.doors, instance)


def read_configuration(context: Context, instance: Instance) -> Configuration:
    """What the instance.yaml of an instance says. Raises ConfigurationError."""
    return config.read(configuration_text(context, instance), str(instance.configuration))


def in_force(context: Context, instance: Instance) -> Configuration:
    """The configuration that was carried out last."""
    from lava_deploy.operations import inspect

    return inspect.in_force(context.doors, instance)


COMMANDS = (install, apply, remove, resume, abandon)
