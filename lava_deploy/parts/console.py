"""Manages an instance's LAVA from the inside: `lava-server manage`, or many actions at once."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from lava_deploy.errors import CommandFailed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lava_deploy.model import Instance, Release
    from lava_deploy.system import System


def command(release: Release, arguments: Sequence[str]) -> list[str]:
    """The command line of `lava-server manage ARGUMENTS`, for the instance's environment.

    LAVA's own `lava-server manage` forces the settings of /etc/lava-server on everything.
    """
    return [str(release.python), "-P", "-m", "django", *arguments]


def manage(
    system: System,
    instance: Instance,
    release: Release,
    arguments: Sequence[str],
    answers: Mapping[str, str],
) -> int:
    """Run a management command on the admin's terminal, as the instance's user; its status.

    `answers` are variables by which the admin answers what the command would ask.
    """
    environment = {**answers, **instance.environment(release)}
    return system.attach(command(release, arguments), user=instance.user, environment=environment)


def ask(
    system: System,
    instance: Instance,
    release: Release,
    actions: Sequence[dict[str, Any]],
    database: str = "",
) -> list[Any]:
    """Carry out actions of lava_site/batch.py in one process, in order; the answer of each.

    With `database`, on another one of the same server, which belongs to the instance's role; nobody
    is told of what happens there. Secrets may stand in actions and answers: they go by pipes.
    Raises CommandFailed with what the first failing action said; the actions before it stay done.
    """
    words = [str(release.python), "-P", "-m", "lava_site.batch"]
    beside = {"LAVA_SITE_DATABASE": database} if database else {}
    names = ", ".join(action["action"] for action in actions)
    ended = system.run(
        words,
        stdin=json.dumps(list(actions)),
        user=instance.user,
        environment={**instance.environment(release), **beside},
        check=False,
    )
    if ended.status != 0:
        raise CommandFailed([*words, f"({names})"], ended.status, ended.stderr)
    return json.loads(ended.stdout)
