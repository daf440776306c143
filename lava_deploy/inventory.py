"""Whether what is in a snapshot is what should be, by the names and sizes of its files."""

from __future__ import annotations

import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from lava_deploy import snapshot
from lava_deploy.errors import BrokenSnapshot
from lava_deploy.snapshot import CHECKSUMS, MANIFEST

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping

    from lava_deploy.snapshot import Manifest

    Statuses = Mapping[str, os.stat_result]

Read = TypeVar("Read")


@dataclass(frozen=True)
class Inventory:
    """What a quick look finds, as far as the manifest, or else the checksums, can be read.

    `sums` has the SHA-256 that each file should have, by its path, the manifest's included;
    `faults` what is wrong, by path.
    """

    manifest: Manifest | None
    sums: Mapping[str, str]
    statuses: Statuses
    faults: Mapping[str, str]


def take(texts: Mapping[str, str], statuses: Statuses, unread: Mapping[str, str]) -> Inventory:
    """Compare the manifest with its checksums, and what there is with both.

    `texts` has the two files by their names; `unread` why one of them is not in it.
    """
    faults = dict(unread)
    manifest = _parsed(snapshot.parse, MANIFEST, texts, faults)
    sums = _parsed(snapshot.parse_checksums, CHECKSUMS, texts, faults)
    if manifest and sums is not None:
        faults |= _contradiction(manifest, sums, texts, statuses)
    members = {one.path: one for one in manifest.members} if manifest else {}
    wanted = {**(sums or {}), **{path: one.sha256 for path, one in members.items()}}
    for path in sorted({*wanted, *_files(statuses)} - {MANIFEST, CHECKSUMS}):
        size = members[path].size if path in members else None
        fault = _fault(statuses.get(path), size) if path in wanted else "is no member"
        faults |= {path: fault} if fault else {}
    return Inventory(manifest, wanted, statuses, faults)


def _parsed(
    parse: Callable[[str], Read], name: str, texts: Mapping[str, str], faults: dict[str, str]
) -> Read | None:
    try:
        return parse(texts[name]) if name in texts else None
    except BrokenSnapshot as broken:
        faults[name] = "; ".join(broken.faults)
        return None


def _contradiction(
    manifest: Manifest, sums: Mapping[str, str], texts: Mapping[str, str], statuses: Statuses
) -> dict[str, str]:
    """Which of the two was edited or damaged; not one byte of the checksums may differ."""
    if sums.get(MANIFEST) != snapshot.digest(texts[MANIFEST]):
        return {MANIFEST: f"is not what {CHECKSUMS} says"}
    wanted = snapshot.checksums(texts[MANIFEST], manifest.members)
    members = snapshot.parse_checksums(wanted)
    differing = sorted({path for path, _ in members.items() ^ sums.items()})
    if differing:
        return {CHECKSUMS: f"says otherwise than {MANIFEST} of {', '.join(differing)}"}
    # reading takes the line ends of other systems for its own
    if texts[CHECKSUMS] != wanted or statuses[CHECKSUMS].st_size != len(wanted.encode()):
        return {CHECKSUMS: "is not as it was written"}
    return {}


def _files(statuses: Statuses) -> set[str]:
    """All that is no directory."""
    return {path for path, status in statuses.items() if not stat.S_ISDIR(status.st_mode)}


def _fault(status: os.stat_result | None, size: int | None) -> str:
    """What is wrong with a member; its size may not be known."""
    if status is None:
        return "is missing"
    if not stat.S_ISREG(status.st_mode):
        return "is no file"
    if size not in (None, status.st_size):
        return f"has {status.st_size} bytes instead of {size}"
    return ""
