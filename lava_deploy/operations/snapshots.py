"""Looks after the snapshots of instances: lists, verifies, keeps, removes them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from lava_deploy import retention
from lava_deploy.errors import BrokenSnapshot, PreflightFailed
from lava_deploy.parts import dump, snapshots
from lava_deploy.records import READ, REHEARSED, UNPACKED

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from lava_deploy.operations import Doors
    from lava_deploy.parts.snapshots import Listed
    from lava_deploy.snapshot import Manifest, Snapshot


def listed(doors: Doors, instance: str) -> list[Listed]:
    """All snapshots of an instance, the newest last."""
    return snapshots.listed(doors.system, doors.host, instance)


def find(doors: Doors, instance: str, text: str) -> Snapshot:
    """The snapshot that an admin names. Raises UsageError."""
    return snapshots.find(doors.system, doors.host, instance, text)


def verify(doors: Doors, snapshot: Snapshot, now: datetime, *, deep: bool) -> dict[str, str]:
    """What is wrong with a snapshot, by the paths of its files; that is remembered.

    `deep` also decompresses the packs and goes through the dump.
    """
    tell = doors.report.amount
    faults = snapshots.verify(doors.system, doors.packs, snapshot, tell)
    if deep and not faults:
        faults = _deep_faults(doors, snapshot)
    if _is_listed(doors, snapshot):
        level = UNPACKED if deep else READ
        snapshots.remember_verification(doors.system, snapshot, faults, now, level)
    return faults


def _is_listed(doors: Doors, snapshot: Snapshot) -> bool:
    """Whether it lies where those of this host do; on others nothing is remembered."""
    return snapshot.path.parent.parent.resolve() == doors.host.backups.resolve()


def _deep_faults(doors: Doors, snapshot: Snapshot) -> dict[str, str]:
    manifest = snapshots.read(doors.system, snapshot)
    if missing := dump.faults(doors.system, manifest.postgres):
        raise PreflightFailed(missing)
    packs = [snapshot.path / one.path for one in manifest.members if one.path.endswith(".tar.zst")]
    found = doors.packs.check_deep(packs, doors.report.amount)
    faults = {str(path.relative_to(snapshot.path)): fault for path, fault in found.items()}
    broken = dump.check(doors.system, snapshot.dump, manifest.postgres)
    return {**faults, **({snapshot.dump.name: broken} if broken else {})}


def verified(doors: Doors, snapshot: Snapshot, now: datetime) -> Manifest:
    """The manifest of a snapshot, all of which was read. Raises BrokenSnapshot."""
    refuse(snapshot, verify(doors, snapshot, now, deep=False))
    return snapshots.read(doors.system, snapshot)


def refuse(snapshot: Snapshot, faults: Mapping[str, str]) -> None:
    """Raises BrokenSnapshot when there are faults."""
    if faults:
        lines = [f"{path}: {fault}" for path, fault in sorted(faults.items())]
        raise BrokenSnapshot(str(snapshot.path), lines)


def about(doors: Doors, instance: str, snapshot: Snapshot) -> dict[str, Any]:
    """What a snapshot says of itself, and what is known of it. Raises BrokenSnapshot."""
    there = [one for one in listed(doors, instance) if one.snapshot == snapshot]
    known = {
        key: getattr(one, key)
        for one in there
        for key in ("good", "kept", "level", "verified", "own", "shared")
    }
    manifest = asdict(snapshots.read(doors.system, snapshot))
    return {"path": str(snapshot.path), **known, **manifest}


def remember_rehearsal(doors: Doors, snapshot: Snapshot, now: datetime) -> None:
    """Remember that a snapshot was restored and ran a job."""
    if _is_listed(doors, snapshot):
        snapshots.remember_verification(doors.system, snapshot, {}, now, REHEARSED)


def mark(doors: Doors, snapshot: Snapshot, *, kept: bool) -> None:
    """Keep a snapshot from being pruned, or let it be."""
    (snapshots.mark_kept if kept else snapshots.unmark)(doors.system, snapshot)


@dataclass(frozen=True)
class Pruning:
    """What is to go, and the bytes that are free on the disk afterwards."""

    ids: tuple[str, ...]
    freed: int


def to_prune(doors: Doors, instance: str, policy: str) -> Pruning:
    """What a policy such as 7d,4w,12m lets go. Raises UsageError."""
    wanted = retention.parse(policy)
    there = [
        retention.Candidate(one.snapshot.id, one.sequence, one.good, one.kept)
        for one in listed(doors, instance)
    ]
    return removal(doors, instance, retention.to_go(wanted, there))


def removal_faults(doors: Doors, instance: str, going: Sequence[Snapshot]) -> list[str]:
    """Why some of them are not removed: they are elsewhere, or marked as kept."""
    kept = {one.snapshot.id for one in listed(doors, instance) if one.kept}
    elsewhere = [one for one in going if one != snapshots.at(doors.host, instance, one.id)]
    return [
        *(f"{one.path} is no snapshot of {instance} on this host" for one in elsewhere),
        *(
            f"{one.id} is kept: `lava-deploy snapshots keep {instance} {one.id} --off` first"
            for one in going
            if one.id in kept
        ),
    ]


def removal(doors: Doors, instance: str, ids: Sequence[str]) -> Pruning:
    """What the removal of these comes to."""
    going = [snapshots.at(doors.host, instance, id) for id in ids]
    return Pruning(tuple(ids), snapshots.freed(doors.system, going))


def remove(doors: Doors, instance: str, ids: Sequence[str]) -> None:
    """Remove snapshots, one by one; a removal that is cut off is completed by the next backup."""
    for id in ids:
        with doors.report.working(f"remove the snapshot {id}"):
            snapshots.remove(doors.system, snapshots.at(doors.host, instance, id))
