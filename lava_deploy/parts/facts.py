"""What lava-deploy remembers of an instance: where its code comes from, what it wrote last."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lava_deploy.configuration import Limits

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lava_deploy.model import Instance
    from lava_deploy.system import System

FORMAT = 1
HEADER = "Written by lava-deploy; nothing here is to be edited."


def exists(system: System, instance: Instance) -> bool:
    return system.exists(instance.facts)


def read(system: System, instance: Instance) -> dict[str, Any]:
    """All facts; empty when nothing was remembered yet."""
    if not exists(system, instance):
        return {}
    return json.loads(system.read(instance.facts))


def limits(system: System, instance: Instance) -> Limits:
    """The limits in force; none where nothing is remembered of any."""
    return Limits(**read(system, instance).get("limits", {}))


def remember(system: System, instance: Instance, **facts: Any) -> None:
    """Add facts, or replace those of the same names."""
    known = {"about": HEADER, "format": FORMAT, **read(system, instance), **facts}
    system.write(
        instance.facts, json.dumps(known, indent=2) + "\n", mode=0o640, group=instance.user
    )


def take_admin(system: System, instance: Instance, theirs: Path, etc: Path) -> None:
    """Have the facts in another etc/ name the first superuser that other facts do, if any do."""
    if system.exists(theirs):
        known = {**read(system, instance), "admin": json.loads(system.read(theirs))["admin"]}
        text = json.dumps(known, indent=2) + "\n"
        system.write(etc / instance.facts.name, text, mode=0o640, group=instance.user)


def remember_texts(system: System, instance: Instance, texts: Mapping[Path, str | None]) -> None:
    """Remember the hashes of files as lava-deploy wrote them; forget those with None."""
    known = read(system, instance).get("written", {})
    others = {path: digest for path, digest in known.items() if Path(path) not in texts}
    written = {str(path): _digest(text) for path, text in texts.items() if text is not None}
    remember(system, instance, written=dict(sorted({**others, **written}.items())))


def edited(system: System, instance: Instance, paths: list[Path]) -> list[Path]:
    """Those of the files that somebody else changed or removed since lava-deploy wrote them."""
    written = read(system, instance).get("written", {})
    return [
        path
        for path in paths
        if str(path) in written
        and (not system.exists(path) or _digest(system.read(path)) != written[str(path)])
    ]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
