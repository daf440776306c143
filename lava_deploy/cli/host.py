"""Commands for the machine as a whole: setup, quickstart, revisions."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from lava_deploy import config
from lava_deploy.cli import installing
from lava_deploy.cli.context import Context, as_json, common, dry_run, yes
from lava_deploy.configuration import name_faults
from lava_deploy.errors import PreflightFailed, UnknownRevision, Unreachable

if TYPE_CHECKING:
    from collections.abc import Sequence

HOST = "host"


@click.command()
@click.option("--undo", is_flag=True, help="Take away what setup made; packages stay.")
@click.option("--force", is_flag=True, help="Try it on a distribution that is not known to work.")
@dry_run
@yes
@common
def setup(context: Context, undo: bool, force: bool, dry_run: bool, yes: bool) -> None:
    """Make this machine ready for instances. Safe to repeat.

    Installs PostgreSQL, Apache and what LAVA's dispatcher needs from Debian, makes
    /srv/lava/{instances,backups,cache}, and starts the services.
    """
    context.require_root()
    if undo:
        _undo_setup(context, dry_run=dry_run, yes=yes)
    else:
        with context.holding(HOST), context.recorded(HOST):
            set_up(context, force=force, dry_run=dry_run)


def set_up(context: Context, *, force: bool = False, dry_run: bool = False) -> None:
    """Carry out the plan of `setup`, and say what it changed. Needs the host's lock."""
    from lava_deploy.operations import setup as operation

    refuse(operation.faults(context.doors, force=force))
    outcome = operation.Outcome()
    plan = operation.plan(context.doors, outcome, new=operation.untouched(context.doors))
    if context.carry_out(plan, dry_run=dry_run):
        tell_changes(context, outcome.changes)


def tell_changes(context: Context, changes: Sequence[str]) -> None:
    """One line a change, or that there was none."""
    for change in changes or ["nothing had to be changed"]:
        context.report.note(f"  {change}")


def refuse(faults: Sequence[str]) -> None:
    """Raises PreflightFailed when there are faults."""
    if faults:
        raise PreflightFailed(faults)


def _undo_setup(context: Context, *, dry_run: bool, yes: bool) -> None:
    from lava_deploy.operations import setup as operation

    doors = context.doors
    outcome = operation.Outcome()
    with context.holding(HOST):
        refuse(operation.undo_faults(doors))
        if not dry_run:
            context.confirm("Take away what setup made on this machine?", yes=yes)
        left = operation.left_packages(doors)
        if not context.carry_out(operation.undo_plan(doors, outcome), dry_run=dry_run):
            return
        directories = operation.finish_undo(doors)
    tell_changes(context, outcome.changes)
    for directory in directories:
        context.report.note(f"{directory} stays, as there is something in it")
    if left:
        context.report.note("These packages were installed by setup and stay; to remove them:")
        context.report.line(f"apt-get purge {' '.join(left)}")


@click.command()
@click.argument("name", default="demo")
@click.argument("revision", default="")
@installing.route
@click.option("--hostname", metavar="H", default="", help="Instead of NAME.localhost.")
@installing.source
@as_json
@common
def quickstart(
    context: Context,
    name: str,
    revision: str,
    route: str | None,
    hostname: str,
    source: str,
    as_json: bool,
) -> None:
    """Make a LAVA named NAME of a bare machine and prove it by a real job.

    Sets the host up, installs an instance of REVISION and runs the smoke job; asks nothing.
    """
    context.require_root()
    order = installing.Order(name, revision, source, route, hostname)
    configuration, faults = installing.complete(context, order, ask=False)
    refuse([*name_faults(name), *installing.admin_faults(order), *faults])
    _make_everything_ready(context, order)
    with context.holding(name), context.recorded(name):
        request = installing.request(context, order, configuration, faults)
        installing.carry_out(context, request, configuration)
        outcome = installing.prove(context, name, configuration)
    installing.present(context, name, configuration, outcome, as_json=as_json)


def _make_everything_ready(context: Context, order: installing.Order) -> None:
    """Set the host up while the release and the guest's image are fetched and built."""
    from concurrent.futures import ThreadPoolExecutor

    from lava_deploy.operations import install
    from lava_deploy.operations import setup as operation

    doors = context.doors
    with context.holding(HOST), context.recorded(HOST):
        refuse(operation.faults(doors))
        add_packages = installing.package_adder(context)

        wanted = installing.wanted(context, order)
        has_git = install.has_git(doors)

        def prepare_release() -> None:
            try:
                revision = install.choose(doors, wanted, context.report.progress)
            except (UnknownRevision, Unreachable):
                if has_git:
                    raise
                return  # with git, which setup is about to install, it may be found
            install.prepare(doors, revision, add_packages)

        with ThreadPoolExecutor() as pool:
            ready = [
                pool.submit(prepare_release),
                pool.submit(install.prepare_guest, doors),
            ]
            set_up(context)
            for one in ready:
                one.result()


@click.command()
@click.option("--refresh", is_flag=True, help="Ask the archives again, even if asked lately.")
@as_json
@common
def revisions(context: Context, refresh: bool, as_json: bool) -> None:
    """Show which revisions of LAVA can be had, from where, and which run on this machine.

    Of git these are the releases that run here; branches and commits can be named as well.
    """
    from lava_deploy.operations import inspect

    context.require_root()
    repository = config.repository(context.environment)
    offers = inspect.offers(context.doors, repository, refresh=refresh)
    if as_json:
        found = [asdict(revision) for revision in offers.revisions]
        context.report.json({"revisions": found, "unreachable": list(offers.unreachable)})
        return
    context.report.table(
        ["REVISION", "SOURCE", "FROM", "RUNS HERE"],
        [
            [one.version, one.source, one.origin, "yes" if one.runs_here else one.why_not]
            for one in offers.revisions
        ],
    )
    for line in offers.unreachable:
        context.report.warn(f"not reached: {line}")


COMMANDS = (setup, quickstart, revisions)
