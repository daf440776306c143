"""instance.yaml, the one file of an instance that an admin edits."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from lava_deploy import templates
from lava_deploy.configuration import Configuration

if TYPE_CHECKING:
    from lava_deploy.model import Instance
    from lava_deploy.system import System


def text(name: str, configuration: Configuration) -> str:
    """The commented file that says what a configuration says, but for its password."""
    settings = " {}"
    if configuration.settings:
        settings = "\n" + textwrap.indent(templates.dump(dict(configuration.settings)), "  ")
    return templates.render(
        "instance.yaml.j2",
        name=name,
        route=configuration.route,
        mail=configuration.mail,
        web=configuration.web,
        components=configuration.components,
        limits=configuration.limits,
        database=configuration.database,
        settings=settings.rstrip("\n"),
    )


def renamed(text_of_former: str, former: str, name: str) -> str:
    """The text of another instance's file, with this one's name in the comments of ours."""
    plain = Configuration()
    lines = zip(text(former, plain).splitlines(), text(name, plain).splitlines(), strict=True)
    for theirs, own in lines:
        if theirs != own:
            text_of_former = text_of_former.replace(theirs, own)
    return text_of_former


def exists(system: System, instance: Instance) -> bool:
    return system.exists(instance.configuration)


def make(system: System, instance: Instance, configuration: Configuration) -> None:
    """Write the file where there is none; an admin's own is never replaced."""
    if not exists(system, instance):
        change(system, instance, text(instance.name, configuration))


def change(system: System, instance: Instance, text: str) -> None:
    """Give the file another text, that of a command by which an admin changes it."""
    system.write(instance.configuration, text, mode=0o640, group=instance.user)


def read(system: System, instance: Instance) -> str:
    """The text of the file. Raises FileNotFoundError."""
    return system.read(instance.configuration)
