"""The media of an instance: what a backup stores anew, what a restore exchanges.

A file may be written at any moment while jobs run; old days change as well, as when LAVA compresses
logs or makes an index. What was not touched is found without being read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from lava_deploy.packs import Packs
    from lava_deploy.snapshot import Member, Snapshot
    from lava_deploy.system import System

Tell = Callable[[int, int, int], None]
OTHER, OUTPUT = "other", "job-output"
# LAVA makes it again out of the log; that of a running job may be ahead of the log in a snapshot.
LOG_INDEX = "output.idx"


@dataclass
class Kept:
    """What became of the media: the snapshot's members; what could not be read, with reasons."""

    members: list[Member] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)


def keep(
    packs: Packs,
    media: Path,
    to: Snapshot,
    previous: Snapshot | None,
    former: Mapping[str, Member],
    rate: int,
    tell: Tell,
) -> Kept:
    """Pack what was touched since the previous snapshot, and share its packs of all else.

    `former` are the members of that snapshot by their paths. Raises OSError.
    """
    known = packs.read_index(previous.index if previous else Path())
    here = {
        name: [f"{to.media.name}/{path}" for path in paths] for name, paths in known.members.items()
    }
    states = {name: known.states[name] for name, paths in here.items() if {*paths} <= {*former}}
    kept, index = Kept(), {}
    began, groups = packs.now(), packs.groups(media)
    for packed in packs.pack(media, groups, to.media, states, known.scanned, rate, tell):
        name = packed.group.name
        members = [replace(one, path=f"{to.media.name}/{one.path}") for one in packed.members]
        # a group that was touched has a pack, even if it is empty by now
        members = members or [former[path] for path in here[name]]
        share(packs, members, to, previous, former)
        kept.members += members
        kept.skipped += packed.skipped
        if not packed.skipped:  # what is missing now is looked for, and told, the next time too
            index[name] = (packed.state, [Path(one.path).name for one in members])
    packs.write_index(to.index, index, began)
    kept.members.append(packs.member(to.index, to.path))
    return kept


def share(
    packs: Packs,
    members: Iterable[Member],
    to: Snapshot,
    previous: Snapshot | None,
    former: Mapping[str, Member],
) -> None:
    """Let members that the previous snapshot has, byte for byte, be one file with its own."""
    for one in members:
        if previous and one.sha256 == getattr(former.get(one.path), "sha256", ""):
            packs.share(previous.path / one.path, to.path / one.path)


def paths(packs: Packs, media: Path, but: Collection[str]) -> set[str]:
    """What there is of media, by the paths at which it is exchanged, without some groups."""
    found = {root for group in packs.groups(media) if group.name not in but for root in group.roots}
    return found if OTHER in but else found | {*packs.loose(media)}


def exchanges(
    packs: Packs, media: Path, waiting: Path, but: Collection[str]
) -> list[tuple[str, bool, bool]]:
    """Paths that are exchanged for what waits, and whether anything comes for each, and leaves."""
    coming = paths(packs, waiting, but)
    leaving = paths(packs, media, but)
    return [(path, path in coming, path in leaving) for path in sorted(coming | leaving)]


def jobs(packs: Packs, system: System, media: Path, names: Collection[str]) -> dict[str, list[str]]:
    """What is in the days of some groups, by their paths: a directory for each job."""
    return {
        root: system.names(media / root)
        for group in packs.groups(media)
        if group.name in names
        for root in group.roots
    }


def forget_log_indexes(packs: Packs, system: System, media: Path, numbers: Collection[int]) -> None:
    """Remove the indexes of the logs of jobs that ran: LAVA makes them again out of the logs."""
    roots = [root for group in packs.groups(media) for root in group.roots]
    for number in numbers:
        for root in roots:
            of_day = media / root / str(number) / LOG_INDEX
            old = media / root / LOG_INDEX
            system.remove(of_day if not root.endswith(f"job-{number}") else old)
