"""Exchanges what an instance has for what waits beside it, by renaming; and back.

Each move is told by where things are, so that all may be repeated, whatever was cut off.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lava_deploy.beside import Exchange
    from lava_deploy.model import Instance
    from lava_deploy.system import System


def make(system: System, instance: Instance, exchanges: Iterable[Exchange]) -> None:
    """Move out what is there, move in what waits."""
    for one in exchanges:
        waits, there = system.exists(one.into), system.exists(one.path)
        if there and (waits if one.comes else not system.exists(one.out)):
            system.make_directory(one.out.parent, 0o700)
            system.rename(one.path, one.out)
        if one.comes and waits:
            _make_parents(system, instance, one)
            system.rename(one.into, one.path)
    system.run(["sync", "--file-system", instance.root])


def undo(system: System, instance: Instance, exchanges: Iterable[Exchange]) -> None:
    """Move all back, last first; only for what was begun, and not undone wholly yet."""
    for one in reversed([*exchanges]):
        if one.comes and system.exists(one.path) and not system.exists(one.into):
            system.make_directory(one.into.parent, 0o700)
            system.rename(one.path, one.into)
        if system.exists(one.out):
            system.rename(one.out, one.path)
    system.run(["sync", "--file-system", instance.root])


def _make_parents(system: System, instance: Instance, one: Exchange) -> None:
    """Directories of days that are not there: as LAVA would make them."""
    missing = [each for each in one.path.parents if not system.exists(each)]
    for path in reversed(missing):
        system.make_directory(path, 0o750, instance.user, instance.user)
