"""Commands about how people reach instances."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from lava_deploy import config
from lava_deploy.cli.context import Context, common, dry_run, named
from lava_deploy.cli.installing import LOCAL
from lava_deploy.cli.instances import carry_out_change, configuration_text
from lava_deploy.configuration import ROUTES, VHOST

if TYPE_CHECKING:
    from lava_deploy.configuration import Route
    from lava_deploy.model import Instance


@click.command()
@named
@click.argument("kind", type=click.Choice(ROUTES))
@click.option("--hostname", metavar="H", default="", help="The name that people use.")
@click.option("--prefix", metavar="/P", default="", help="The path of a location.")
@click.option("--overwrite", is_flag=True, help="Also replace files that were edited by hand.")
@dry_run
@common
def toggle(
    context: Context,
    name: str,
    kind: str,
    hostname: str,
    prefix: str,
    overwrite: bool,
    dry_run: bool,
) -> None:
    """Have people reach NAME by a host name of its own, or below a path of every name.

    Writes it into instance.yaml, and carries it out as `apply` does. Jobs that run go on.
    """
    context.require_root()
    instance = context.instance(name)
    with context.holding(name):
        text, place = configuration_text(context, instance), str(instance.configuration)
        now = config.read(text, place).route
        changes = _changes(instance, now, kind, hostname, prefix)
        text = config.rewrite(text, changes)
        configuration = config.read(text, place)
        carry_out_change(
            context, instance, configuration, changes, text, overwrite=overwrite, dry_run=dry_run
        )


def _changes(
    instance: Instance, now: Route, kind: str, hostname: str, prefix: str
) -> dict[str, str]:
    """What instance.yaml is to say."""
    if kind == VHOST and now.hostname == LOCAL:  # which is the whole machine's
        hostname = hostname or f"{instance.name}.{LOCAL}"
    prefix = prefix or now.prefix or f"/{instance.name}"
    changes = {"route.kind": kind, "route.hostname": hostname, "route.prefix": prefix}
    return {place: value for place, value in changes.items() if value}


COMMANDS = (toggle,)
