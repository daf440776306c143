"""The command that shows logs, and the forms in which a time can be given to it."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

import click

from lava_deploy.cli.context import Context, common, named
from lava_deploy.cli.running import of_component

LINES = 50
UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
AGO = re.compile(r"([0-9]{1,9})([smhd])")
DAY, CLOCK = "%Y-%m-%d", ("%H:%M", "%H:%M:%S")
FORMS = "30s, 10m, 2h, 3d, 2026-11-25, '2026-11-25 14:00' or 14:00, seconds if wanted"


class Since(click.ParamType):
    """A time in the past: so long ago, or a day, a time of a day, a time of today; local time."""

    name = "when"

    def convert(
        self, value: str, param: click.Parameter | None, context: click.Context | None
    ) -> datetime:
        assert context is not None
        found = moment(value, context.ensure_object(Context).now)
        if found is None:
            self.fail(f"{value!r} is no time: give {FORMS}", param, context)
        return found


def moment(text: str, now: datetime) -> datetime | None:
    """The time that a text means, with its zone; None for one of no known form."""
    local = now.astimezone()
    try:
        if ago := AGO.fullmatch(text):
            return local - timedelta(**{UNITS[ago[2]]: int(ago[1])})
    except OverflowError:
        return None
    today = local.strftime(DAY)
    forms = [(DAY, text), *((f"{DAY} {clock}", text) for clock in CLOCK)]
    for form, whole in [*forms, *((f"{DAY} {clock}", f"{today} {text}") for clock in CLOCK)]:
        try:
            return datetime.strptime(whole, form).astimezone()
        except (ValueError, OverflowError):
            continue
    return None


@click.command()
@named
@of_component
@click.option("--follow", "-f", is_flag=True, help="Go on with new lines until interrupted.")
@click.option("--since", metavar="WHEN", type=Since(), help=f"All lines since then: {FORMS}.")
@click.option(
    "--job",
    metavar="N",
    type=click.IntRange(min=1),
    help="What has to do with job N, with its own log; with -f, until it is over.",
)
@click.option(
    "--lines",
    "-l",
    metavar="N",
    type=click.IntRange(min=0),
    help=f"At most the last N; {LINES} without --since and --job.",
)
@common
def logs(
    context: Context,
    name: str,
    component: str,
    follow: bool,
    since: datetime | None,
    job: int | None,
    lines: int | None,
) -> None:
    """Show the logs of NAME, or of one COMPONENT of it, in the order of time."""
    from lava_deploy.operations import logs as operation

    context.require_root()
    instance = context.instance(name)
    if lines is None and not since and not job:
        lines = LINES
    wanted = operation.Selection(since, job or 0, lines)
    read = operation.follow if follow else operation.read
    try:
        for line in read(context.doors, instance, component, wanted):
            context.report.line(str(line))
    except KeyboardInterrupt:  # how following ends
        raise click.exceptions.Exit(130) from None


COMMANDS = (logs,)
