"""Exchanges what an instance has for what waits beside it, by renaming; and back.

How far it came is told by where things are, so that all may be repeated, whatever was cut off.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lava_deploy.beside import Exchange
from lava_deploy.errors import DeployError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from lava_deploy.model import Instance
    from lava_deploy.system import System


def within(
    tree: Path, into: Path, out: Path, written: Iterable[tuple[str, bool, bool]]
) -> list[Exchange]:
    """Exchanges in a tree, as they are written down: path, whether anything comes, and leaves."""
    return [
        Exchange(tree / path, into / path, out / path, comes, leaves)
        for path, comes, leaves in written
    ]


def make(system: System, instance: Instance, exchanges: Iterable[Exchange]) -> None:
    """Move out what is there, move in what waits."""
    for one in exchanges:
        if one.leaves and not system.exists(one.out):
            system.make_directory(one.out.parent, 0o700)
            system.rename(one.path, one.out)
        if one.comes and system.exists(one.into):
            _make_parents(system, instance, one)
            system.rename(one.into, one.path)
    system.run(["sync", "--file-system", instance.root])


def undo(system: System, instance: Instance, exchanges: Iterable[Exchange]) -> None:
    """Move all back, last first; what has not left, or is back, is not touched."""
    backwards = [*exchanges][::-1]
    for one in backwards:
        if one.leaves and not system.exists(one.out):
            continue
        if one.comes and system.exists(one.path) and not system.exists(one.into):
            system.make_directory(one.into.parent, 0o700)
            system.rename(one.path, one.into)
        if one.leaves:
            system.rename(one.out, one.path)
    for one in backwards:
        if not one.leaves:
            _remove_empty(system, instance, one)
    system.run(["sync", "--file-system", instance.root])


def require_undone(system: System, exchanges: Iterable[Exchange]) -> None:
    """Raises DeployError while anything is not as before: what tells of it may not be removed."""
    for one in exchanges:
        if system.exists(one.out):
            raise DeployError(f"{one.path} is not back: it is kept as {one.out}")
        if not one.leaves and system.exists(one.path):
            raise DeployError(f"{one.path} came, and is not gone")


def _make_parents(system: System, instance: Instance, one: Exchange) -> None:
    """Directories of days that are not there: as LAVA would make them."""
    missing = [each for each in one.path.parents if not system.exists(each)]
    for path in reversed(missing):
        system.make_directory(path, 0o750, instance.user, instance.user)


def _remove_empty(system: System, instance: Instance, one: Exchange) -> None:
    """The directories that were made for it."""
    for path in one.path.parents:
        if path.is_relative_to(instance.media) and path != instance.media:
            system.remove_directory(path)
