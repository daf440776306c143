"""Commands about how people reach instances."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import click

from lava_deploy import config
from lava_deploy.cli.context import Context, common, dry_run, named
from lava_deploy.cli.installing import LOCAL
from lava_deploy.cli.instances import carry_out_change, configuration_text, plan_change
from lava_deploy.configuration import ROUTES, VHOST
from lava_deploy.errors import DeployError, PartlyDone

if TYPE_CHECKING:
    from lava_deploy.configuration import Route
    from lava_deploy.model import Instance
    from lava_deploy.operations.apply import Request
    from lava_deploy.steps import Plan

kind = click.argument("kind", type=click.Choice(ROUTES))
overwrite = click.option(
    "--overwrite", is_flag=True, help="Also replace files that were edited by hand."
)


@click.command()
@named
@kind
@click.option("--hostname", metavar="H", default="", help="The name that people use.")
@click.option("--prefix", metavar="/P", default="", help="The path of a location.")
@click.option(
    "--redirect/--no-redirect",
    default=None,
    help="Whether the address of the other kind sends people on to the new one.",
)
@overwrite
@dry_run
@common
def toggle(
    context: Context,
    name: str,
    kind: str,
    hostname: str,
    prefix: str,
    redirect: bool | None,
    overwrite: bool,
    dry_run: bool,
) -> None:
    """Have people reach NAME by a host name of its own, or below a path of every name.

    Writes it into instance.yaml, and carries it out as `apply` does. Jobs that run go on.
    """
    context.require_root()
    instance = context.instance(name)
    wanted = {"route.hostname": hostname, "route.prefix": prefix, "route.redirect": redirect}
    with context.holding(name):
        request = _request(context, instance, kind, wanted)
        carry_out_change(context, instance, request, overwrite=overwrite, dry_run=dry_run)


@click.command("toggle-all")
@kind
@overwrite
@dry_run
@common
def toggle_all(context: Context, kind: str, overwrite: bool, dry_run: bool) -> None:
    """Toggle all instances, as `toggle` does each; Apache reads its files once for all.

    One that cannot be toggled is left as it is, while the others are.
    """
    from lava_deploy import steps
    from lava_deploy.operations import apply, inspect
    from lava_deploy.report import Named

    context.require_root()
    names = inspect.names(context.doors)
    together = apply.Together(context.doors)
    plans: dict[str, Plan | None] = {}
    failures: dict[str, DeployError] = {}
    with ExitStack() as held:
        for name in names:
            try:
                held.enter_context(context.holding(name))
                instance = context.host.instance(name)
                request = _request(context, instance, kind, {})
                plans[name] = plan_change(context, instance, request, together, overwrite=overwrite)
            except DeployError as error:
                failures[name] = error
        wanted = [plan for plan in plans.values() if plan]
        if dry_run:
            for plan in wanted:
                context.report.line(f"{plan.subject}:")
                context.report.plan(plan)
        else:
            failures |= steps.carry_out_together(
                wanted,
                apply.LOADING,
                context.host.journals,
                lambda subject: Named(context.report, subject),
            )
            for plan in wanted:
                context.record(plan.subject, failures.get(plan.subject))
    _tell(context, names, plans, failures)


def _tell(
    context: Context,
    names: list[str],
    plans: dict[str, Plan | None],
    failures: dict[str, DeployError],
) -> None:
    """A line for each instance. Raises PartlyDone if some failed."""
    from lava_deploy.operations import inspect

    for name in names:
        url = inspect.in_force(context.doors, context.host.instance(name)).route.url
        outcome = "toggled" if plans.get(name) else "as it was"
        if name in failures:
            outcome = f"failed ({failures[name].exit_status}): {failures[name]}"
        context.report.line(f"{name}  {url}  {outcome}")
    if failures:
        raise PartlyDone(
            f"{len(failures)} of {len(names)} instances could not be toggled: "
            + ", ".join(failures),
            hint="Mend the cause, then repeat the command: it leaves those that are done alone.",
        )


def _request(context: Context, instance: Instance, kind: str, wanted: dict[str, Any]) -> Request:
    """What instance.yaml is to say. Raises ConfigurationError."""
    from lava_deploy.operations.apply import Request

    text, place = configuration_text(context, instance), str(instance.configuration)
    now = config.read(text, place).route
    changes = _changes(instance, now, kind, wanted)
    text = config.rewrite(text, changes)
    return Request(config.read(text, place), changes, text)


def _changes(instance: Instance, now: Route, kind: str, wanted: dict[str, Any]) -> dict[str, Any]:
    """The places of instance.yaml that get new values: those that are wanted, or necessary."""
    necessary: dict[str, Any] = {"route.kind": kind}
    if kind == VHOST and now.hostname == LOCAL:  # which is the whole machine's
        necessary["route.hostname"] = f"{instance.name}.{LOCAL}"
    necessary["route.prefix"] = now.prefix or f"/{instance.name}"
    return {**necessary, **{key: value for key, value in wanted.items() if value not in ("", None)}}


COMMANDS = (toggle, toggle_all)
