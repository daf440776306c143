"""Commands that look at instances and control what they run."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from lava_deploy.cli.context import Context, as_json, common, complete_names, named, told
from lava_deploy.cli.instances import in_force
from lava_deploy.model import COMPONENTS, Instance

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lava_deploy.operations.inspect import Overview

# Variables that answer the questions of Django's `createsuperuser`.
ANSWERS = "DJANGO_SUPERUSER_"
DAY, HOUR, MINUTE = 86400, 3600, 60


of_component = click.argument(
    "component", default="", metavar="[COMPONENT]", type=click.Choice(["", *COMPONENTS])
)


@click.command("list")
@as_json
@common
def list_(context: Context, as_json: bool) -> None:
    """List the instances of this machine."""
    context.require_root()
    found = _overviews(context, _instances(context, ""))
    if as_json:
        stopped = [journal.subject for journal in context.unfinished()]
        context.report.json({"instances": [_plain(one) for one in found], "unfinished": stopped})
        return
    rows = [
        [
            one.name,
            one.version,
            one.url,
            "running" if one.running else _stopped(one),
            _age(one.snapshot_age),
            _smoke(one),
        ]
        for one in found
    ]
    headers = ["NAME", "REVISION", "URL", "COMPONENTS", "LAST SNAPSHOT", "LAST SMOKE JOB"]
    context.report.table(headers, rows)
    _warn_of_unfinished(context)


@click.command()
@click.argument("name", default="", shell_complete=complete_names)
@click.option("--sizes", is_flag=True, help="Also measure what each takes on disk.")
@as_json
@common
def status(context: Context, name: str, sizes: bool, as_json: bool) -> None:
    """Tell whether NAME, or each instance, runs and answers. Exit status 6 if one does not."""
    from lava_deploy.operations import inspect

    context.require_root()
    found: list[dict[str, Any]] = []
    instances = _instances(context, name)
    for instance, overview in zip(instances, _overviews(context, instances), strict=True):
        configuration = in_force(context, instance)
        one = {
            **_plain(overview),
            "answers": inspect.answers(context.doors, configuration),
            "certificate": inspect.certificate(context.doors, instance, configuration),
            "before": inspect.state_before(context.doors, instance),
        }
        if sizes:
            one["sizes"] = asdict(inspect.sizes(context.doors, instance))
        found.append(one)
    if as_json:
        context.report.json({"instances": found})
    else:
        for one in found:
            _tell_status(context, one)
        _warn_of_unfinished(context)
    if any(not one["running"] or one["answers"] != 200 for one in found):
        raise click.exceptions.Exit(6)


@click.command()
@named
@as_json
@common
def show(context: Context, name: str, as_json: bool) -> None:
    """Show what there is to know of NAME: paths, names, release, settings."""
    from lava_deploy.operations import inspect

    context.require_root()
    instance = context.instance(name)
    [overview] = _overviews(context, [instance])
    about = {**_plain(overview), **inspect.about(context.doors, instance)}
    if as_json:
        # not beside the format's own version
        context.report.json({"instance": about})
        return
    context.report.table(
        ["WHAT", "VALUE"], [[key, str(value)] for key, value in _flat(about).items()]
    )


@click.command()
@click.argument("name", default="", shell_complete=complete_names)
@as_json
@common
def history(context: Context, name: str, as_json: bool) -> None:
    """Show what was done to NAME, or to all; also of instances that are gone."""
    from lava_deploy.operations import history as operation

    context.require_root()
    subjects = [name] if name else operation.subjects(context.doors.system, context.host)
    entries = [
        {"subject": subject, **asdict(entry)}
        for subject in subjects
        for entry in operation.read(context.doors.system, context.host, subject)
    ]
    entries.sort(key=lambda entry: entry["ended"])
    if as_json:
        context.report.json({"history": entries})
        return
    columns = ["ended", "subject", "who", "command", "outcome"]
    rows = [[entry[column] for column in columns] for entry in entries]
    context.report.table([column.upper() for column in columns], rows)


@click.command()
@named
@of_component
@common
def start(context: Context, name: str, component: str) -> None:
    """Start NAME, or one COMPONENT of it."""
    _control(context, name, component, "start")


@click.command()
@named
@of_component
@common
def stop(context: Context, name: str, component: str) -> None:
    """Stop NAME, or one COMPONENT of it; jobs that are running go on."""
    _control(context, name, component, "stop")


@click.command()
@named
@of_component
@common
def restart(context: Context, name: str, component: str) -> None:
    """Restart NAME, or one COMPONENT of it; requests wait meanwhile."""
    _control(context, name, component, "restart")


def _control(context: Context, name: str, component: str, verb: str) -> None:
    from lava_deploy.operations import control

    context.require_root()
    instance = context.instance(name)
    configuration = in_force(context, instance)
    what = f"{name} {component}".rstrip()
    with context.holding(name), context.recorded(name):
        getattr(control, verb)(context.doors, instance, configuration, component)
    context.report.note(f"{verb} {what}: done")


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@named
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
@common
def manage(context: Context, command: click.Context, name: str, arguments: tuple[str, ...]) -> None:
    """Run `lava-server manage ARGUMENTS` of NAME; the exit status is the command's."""
    from lava_deploy.operations import control

    context.require_root()
    instance = context.instance(name)
    answers = {k: v for k, v in context.environment.items() if k.startswith(ANSWERS)}
    status = control.manage(context.doors, instance, arguments or ("help",), answers)
    raise click.exceptions.Exit(status)


@click.command()
@named
@as_json
@common
def smoke(context: Context, name: str, as_json: bool) -> None:
    """Run a real job on NAME's virtual device and want it Complete."""
    from lava_deploy.operations import smoke as operation

    context.require_root()
    instance = context.instance(name)
    configuration = in_force(context, instance)
    with context.holding(name), context.recorded(name):
        outcome = operation.run(context.doors, instance, configuration.route)
    if as_json:
        context.report.json({"job": asdict(outcome)})
        return
    cases = ", ".join(f"{case} {result}" for case, result in outcome.cases.items())
    context.report.line(f"job     {outcome.url} {outcome.health} after {outcome.seconds:.0f} s")
    context.report.line(f"worker  {outcome.worker}")
    context.report.line(f"cases   {cases}")


def _warn_of_unfinished(context: Context) -> None:
    for journal in context.unfinished():
        context.report.warn(". ".join(told(journal)))


def _instances(context: Context, name: str) -> list[Instance]:
    """The one of that name, or all."""
    from lava_deploy.operations import inspect

    if name:
        return [context.instance(name)]
    return [context.host.instance(one) for one in inspect.names(context.doors)]


def _overviews(context: Context, instances: Sequence[Instance]) -> list[Overview]:
    from lava_deploy.operations import inspect

    return inspect.overviews(context.doors, instances, context.now)


def _plain(overview: Overview) -> dict[str, Any]:
    return {**asdict(overview), "running": overview.running}


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def _stopped(overview: Overview) -> str:
    stopped = [one for one, state in overview.components.items() if not state.running]
    return "stopped" if len(stopped) == len(overview.components) else f"no {', '.join(stopped)}"


def _age(seconds: int | None) -> str:
    if seconds is None:
        return "never"
    for unit, name in ((DAY, "days"), (HOUR, "hours"), (MINUTE, "minutes")):
        if seconds >= 2 * unit:
            return f"{seconds // unit} {name} ago"
    return f"{seconds} seconds ago"


def until(certificate: Mapping[str, Any], now: datetime) -> str:
    """Until when a certificate holds, and who issued it."""
    if not certificate:
        return "-"
    expires = datetime.fromisoformat(certificate["expires"])
    days = (expires - now).days
    left = f"{days} days left" if expires > now else "EXPIRED"
    return f"{certificate['issued_by']}, until {expires:%Y-%m-%d} ({left})"


def _smoke(overview: Overview) -> str:
    last = overview.smoke
    return f"{last['health']} {last['ended'][:16]}" if last else "never"


def _tell_status(context: Context, one: dict[str, Any]) -> None:
    """A few lines on an instance."""
    line = context.report.line
    line(f"{one['name']}  LAVA {one['version']} from {one['source']}, {one['url']}")
    line(f"  answers     {one['answers'] or 'not at all'}")
    if one["certificate"]:
        line(f"  certificate {until(one['certificate'], context.now)}")
    for component, state in one["components"].items():
        line(f"  {component:<11} {state['detail']}")
    line(f"  snapshot    {_age(one['snapshot_age'])}")
    if kept := one["before"]:
        line(
            f"  before      the state before {kept['snapshot']} was restored, "
            f"{kept['size'] / 1e6:.1f} MB, is kept until {kept['until'][:10]}: "
            f"`lava-deploy restore {one['name']} --undo`"
        )
    for what, size in one.get("sizes", {}).items():
        line(f"  {what:<11} {size / 1e6:.1f} MB")


COMMANDS = (list_, status, show, history, start, stop, restart, manage, smoke)
