"""Commands about how people reach instances."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import click

from lava_deploy.cli.context import (
    Context,
    as_json,
    common,
    complete_names,
    dry_run,
    named,
    overwrite,
)
from lava_deploy.cli.installing import LOCAL
from lava_deploy.cli.instances import (
    carry_out_change,
    difference,
    plan_change,
    read_configuration,
    rewritten,
)
from lava_deploy.cli.running import until
from lava_deploy.configuration import LOCATION, NONE, OWN, ROUTES, SELF_SIGNED, VHOST
from lava_deploy.errors import DeployError, PartlyDone, UsageError

if TYPE_CHECKING:
    from lava_deploy.configuration import Route
    from lava_deploy.model import Instance
    from lava_deploy.operations.apply import Request
    from lava_deploy.steps import Plan

HTTP_OK = 200
kind = click.argument("kind", type=click.Choice(ROUTES))


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
        request = _toggled(context, instance, kind, wanted)
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
    from lava_deploy.operations import apply, inspect

    context.require_root()
    names = inspect.names(context.doors)
    together = apply.Together(context.doors)
    plans: list[Plan] = []
    failures: dict[str, DeployError] = {}
    with ExitStack() as held:
        for name in names:
            instance = context.host.instance(name)
            try:
                held.enter_context(context.holding(name))
                request = _toggled(context, instance, kind, {})
                lines = difference(context, instance, request, together, overwrite=overwrite)
                if lines:
                    plans.append(plan_change(context, instance, request, together))
            except DeployError as error:
                failures[name] = error
        if dry_run:
            for plan in plans:
                context.report.line(f"{plan.subject}:")
                context.report.plan(plan)
        else:
            failures |= _carry_out_together(context, plans)
    _tell(context, names, [plan.subject for plan in plans if not dry_run], failures)


def _carry_out_together(context: Context, plans: list[Plan]) -> dict[str, DeployError]:
    """Carry plans out, with one reload of Apache's for all; those that failed."""
    from lava_deploy import steps
    from lava_deploy.operations import apply
    from lava_deploy.report import Named

    context.changing = True
    failures = steps.carry_out_together(
        plans,
        apply.LOADING,
        context.host.journals,
        lambda subject: Named(context.report, subject),
    )
    for plan in plans:
        context.record(plan.subject, failures.get(plan.subject))
    return failures


def _tell(
    context: Context,
    names: list[str],
    toggled: list[str],
    failures: dict[str, DeployError],
) -> None:
    """A line for each instance. Raises PartlyDone if some failed."""
    from lava_deploy.operations import inspect

    for name in names:
        url = inspect.in_force(context.doors, context.host.instance(name)).route.url
        outcome = "toggled" if name in toggled else "as it was"
        if name in failures:
            reason = " ".join(str(failures[name]).split())
            outcome = f"failed ({failures[name].exit_status}): {reason}"
        context.report.line(f"{name}  {url}  {outcome}")
    if failures:
        raise PartlyDone(
            f"{len(failures)} of {len(names)} instances could not be toggled: "
            + ", ".join(failures),
            hint="Mend the cause, then repeat the command: it leaves those that are done alone.",
        )


def _toggled(context: Context, instance: Instance, kind: str, wanted: dict[str, Any]) -> Request:
    """What instance.yaml is to say of a route of that kind. Raises ConfigurationError."""
    from lava_deploy.operations.apply import TOGGLE

    now = read_configuration(context, instance).route
    return rewritten(context, instance, _changes(instance, now, kind, wanted), TOGGLE)


def _changes(instance: Instance, now: Route, kind: str, wanted: dict[str, Any]) -> dict[str, Any]:
    """The places of instance.yaml that get new values: those that are wanted, or necessary."""
    changes = {key: value for key, value in wanted.items() if value not in ("", None)}
    own, redirect = f"{instance.name}.{LOCAL}", changes.get("route.redirect", now.redirect)
    necessary = {"route.kind": kind, "route.prefix": now.prefix or f"/{instance.name}"}
    # There and back, the names that nobody chose are what `install` proposes for each kind.
    if kind == VHOST and now.hostname == LOCAL:
        necessary["route.hostname"] = own
    elif kind == LOCATION and now.hostname == own and not redirect:
        necessary["route.hostname"] = LOCAL
    return {**necessary, **changes}


@click.group()
def tls() -> None:
    """Serve instances by HTTPS."""


@tls.command("set")
@named
@click.option(
    "--self-signed", is_flag=True, help="By a certificate of this machine's own authority."
)
@click.option("--cert", metavar="FILE", default="", help="Your certificate, with its issuers'.")
@click.option("--key", metavar="FILE", default="", help="Its key.")
@click.option("--hsts", metavar="SECONDS", type=int, help="For how long browsers insist on HTTPS.")
@click.option(
    "--plain-workers/--no-plain-workers",
    default=None,
    help="Whether workers on other machines may go on without HTTPS.",
)
@overwrite
@dry_run
@common
def tls_set(
    context: Context,
    name: str,
    self_signed: bool,
    cert: str,
    key: str,
    hsts: int | None,
    plain_workers: bool | None,
    overwrite: bool,
    dry_run: bool,
) -> None:
    """Serve NAME by HTTPS, and send who comes by HTTP there.

    A second time it takes, or issues, a new certificate. Who is to trust this machine's own
    authority needs the file ca.pem, which `route show` names.
    """
    context.require_root()
    instance = context.instance(name)
    if self_signed == bool(cert or key) or bool(cert) != bool(key):
        raise UsageError(
            "either --self-signed, or --cert and --key with your own files, should be given"
        )
    changes = {
        "route.certificate": SELF_SIGNED if self_signed else OWN,
        "route.hsts": hsts,
        "route.plain_workers": plain_workers,
    }
    files = {"certificate": os.path.abspath(cert), "key": os.path.abspath(key)} if cert else {}
    with context.holding(name):
        request = _secured(context, instance, changes, renew=self_signed, **files)
        carry_out_change(context, instance, request, overwrite=overwrite, dry_run=dry_run)


@tls.command("off")
@named
@overwrite
@dry_run
@common
def tls_off(context: Context, name: str, overwrite: bool, dry_run: bool) -> None:
    """Serve NAME by HTTP alone, and forget its certificate."""
    context.require_root()
    instance = context.instance(name)
    with context.holding(name):
        request = _secured(context, instance, {"route.certificate": NONE})
        carry_out_change(context, instance, request, overwrite=overwrite, dry_run=dry_run)


def _secured(context: Context, instance: Instance, wanted: dict[str, Any], **more: Any) -> Request:
    """What instance.yaml is to say of HTTPS. Raises ConfigurationError."""
    from lava_deploy.operations.apply import TLS

    changes = {key: value for key, value in wanted.items() if value is not None}
    return replace(rewritten(context, instance, changes, TLS), **more)


@click.group()
def route() -> None:
    """Look at how people reach instances."""


@route.command("show")
@click.argument("name", default="", shell_complete=complete_names)
@as_json
@common
def route_show(context: Context, name: str, as_json: bool) -> None:
    """Show what is served where, whether it answers, and which certificate until when.

    Exit status 6 if one does not answer.
    """
    from lava_deploy.operations import inspect

    context.require_root()
    names = [context.instance(name).name] if name else inspect.names(context.doors)
    found = [inspect.served(context.doors, context.host.instance(each)) for each in names]
    if as_json:
        context.report.json({"routes": [asdict(each) for each in found]})
    else:
        rows = [
            [
                each.name,
                each.kind,
                each.url,
                str(each.answers or "no answer"),
                each.other or "-",
                each.worker_url,
                until(each.certificate, context.now),
            ]
            for each in found
        ]
        headers = ["NAME", "KIND", "URL", "ANSWERS", "SENT ON FROM", "WORKERS", "CERTIFICATE"]
        context.report.table(headers, rows)
        if any(each.certificate.get("issued_by") == SELF_SIGNED for each in found):
            context.report.note(f"to be trusted by browsers and workers: {context.host.authority}")
    if any(each.answers != HTTP_OK for each in found):
        raise click.exceptions.Exit(6)


COMMANDS = (toggle, toggle_all, tls, route)
