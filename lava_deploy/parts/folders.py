"""The directory tree of an instance."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from lava_deploy.model import Instance
    from lava_deploy.system import System

WEB_SERVER_GROUP = "www-data"


def exists(system: System, instance: Instance) -> bool:
    return system.exists(instance.root)


def make(system: System, instance: Instance) -> None:
    """Make all directories with their owners.

    What the web server must pass through is open to all; what is the instance's alone is closed.
    """
    for path, mode, owner, group in _tree(instance):
        system.make_directory(path, mode, owner, group)


def remove(system: System, instance: Instance) -> None:
    """Remove everything that belongs to the instance, its media included."""
    system.remove_tree(instance.root)


def _tree(instance: Instance) -> list[tuple[Path, int, str, str]]:
    user, etc = instance.user, instance.etc
    return [
        (instance.root, 0o755, "root", "root"),
        (instance.releases, 0o755, "root", "root"),
        (etc, 0o750, "root", user),
        (instance.settings, 0o750, "root", user),
        (instance.site, 0o750, "root", user),
        (instance.launchers, 0o750, "root", user),
        # the web interface and the API change what is in these
        (etc / "devices", 0o750, user, user),
        (etc / "device-types", 0o750, user, user),
        (etc / "health-checks", 0o750, user, user),
        (etc / "dispatcher.d", 0o750, user, user),
        # root's dispatcher and root's supervisor write below: nobody else may replace what is there
        (instance.root / "var", 0o750, "root", user),
        (instance.root / "var/lib", 0o750, "root", user),
        (instance.media.parent, 0o750, user, user),
        (instance.media, 0o750, user, user),
        (instance.worker_directory, 0o700, "root", "root"),
        (instance.log, 0o750, "root", user),
        # sockets get the group of their directory, as the user is no member of it
        (instance.runs, 0o2750, user, WEB_SERVER_GROUP),
    ]
