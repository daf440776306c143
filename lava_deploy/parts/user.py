"""The system user of an instance, with a group of the same name."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lava_deploy.model import Instance
    from lava_deploy.system import System


def exists(system: System, instance: Instance) -> bool:
    return _known(system, "passwd", instance) or _known(system, "group", instance)


def make(system: System, instance: Instance) -> None:
    """Make a user who cannot log in and owns no home directory."""
    if not _known(system, "group", instance):
        system.run(["groupadd", "--system", instance.user])
    if not _known(system, "passwd", instance):
        system.run(
            [
                *("useradd", "--system", "--gid", instance.user, "--no-create-home"),
                *("--home-dir", instance.root, "--shell", "/usr/sbin/nologin"),
                *("--comment", f"LAVA instance {instance.name}", instance.user),
            ]
        )


def remove(system: System, instance: Instance) -> None:
    """Remove the user and the group, if there are any."""
    if _known(system, "passwd", instance):
        system.run(["userdel", instance.user])
    # userdel(8) takes the group along when login.defs has USERGROUPS_ENAB, as Debian's has
    if _known(system, "group", instance):
        system.run(["groupdel", instance.user])


def _known(system: System, database: str, instance: Instance) -> bool:
    return system.run(["getent", database, instance.user], check=False).status == 0
