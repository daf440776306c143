"""Files as they were before a change, kept on disk until the change is over.

Not in the journal: settings may hold an admin's passwords.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lava_deploy.model import Instance
    from lava_deploy.system import System


def exists(system: System, instance: Instance) -> bool:
    return system.exists(_kept(instance))


def make(system: System, instance: Instance, paths: Iterable[Path]) -> None:
    """Keep the texts of files; those that do not exist are kept as such. A second time: nothing."""
    if exists(system, instance):
        return
    texts = {str(path): text for path, text in system.texts(sorted(paths)).items()}
    system.write(_kept(instance), json.dumps(texts), mode=0o600)


def read(system: System, instance: Instance) -> dict[Path, str | None]:
    """The texts kept, None for a file that did not exist; nothing when none were kept."""
    if not exists(system, instance):
        return {}
    kept = json.loads(system.read(_kept(instance)))
    return {Path(path): text for path, text in kept.items()}


def are_back(system: System, instance: Instance) -> bool:
    """Whether all files have their former texts again, and those that were not there are gone."""
    texts = read(system, instance)
    return texts == system.texts(texts)


def remove(system: System, instance: Instance) -> None:
    system.remove(_kept(instance))


def _kept(instance: Instance) -> Path:
    return instance.etc / "former.json"
