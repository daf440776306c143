"""The snapshots of an instance on disk: which there are, which are good, what is known of them."""

from __future__ import annotations

import difflib
import stat
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from lava_deploy import inventory, records
from lava_deploy import snapshot as form
from lava_deploy.errors import BrokenSnapshot, DeployError, UsageError
from lava_deploy.model import STAMP
from lava_deploy.snapshot import LATEST, PARTIAL, REMOVING, Snapshot

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Mapping
    from datetime import datetime

    from lava_deploy.inventory import Inventory
    from lava_deploy.model import Host
    from lava_deploy.packs import Packs
    from lava_deploy.records import Records
    from lava_deploy.snapshot import Manifest, Member
    from lava_deploy.system import System

RECORDS = "records.json"
# stat(2): in these st_blocks counts, whatever blocks the file system has.
BLOCK = 512
IDS_SHOWN = 5


@dataclass(frozen=True)
class Listed:
    """A snapshot as a quick look finds it, which reads its manifest and no member.

    `faults` has what that look found, what the last verification had found, and members that it
    shares with a snapshot in which they were found broken. `verified` is when that was (ISO 8601),
    '' for never, and `level` how. `own` are the bytes on disk that no other has, `shared` the rest.
    """

    snapshot: Snapshot
    sequence: int
    manifest: Manifest | None
    faults: tuple[str, ...]
    kept: bool
    verified: str
    level: str
    own: int
    shared: int

    @property
    def good(self) -> bool:
        return not self.faults


def at(host: Host, instance: str, id: str) -> Snapshot:
    """The snapshot of that id, whether it exists or not."""
    return Snapshot(_directory(host, instance) / id)


def exists(system: System, host: Host, instance: str) -> bool:
    """Whether there is any snapshot of an instance, good or broken."""
    return bool(_ids(system, _directory(host, instance)))


def names(system: System, host: Host, instance: str) -> list[str]:
    """The ids of an instance's snapshots, good and broken, the newest last, as they were made."""
    return [one.id for one in _ordered(system, _directory(host, instance))]


def listed(system: System, host: Host, instance: str) -> list[Listed]:
    """All snapshots of an instance, the newest last. Raises DeployError for damaged records."""
    directory = _directory(host, instance)
    records = _records(system, directory)
    return [_listed(system, one, records) for one in _ordered(system, directory)]


def newest_good(found: Iterable[Listed]) -> Listed | None:
    """The newest of those that nothing is known to be wrong with."""
    return next((one for one in reversed([*found]) if one.good), None)


def last_good(system: System, host: Host, instance: str) -> Snapshot | None:
    """The newest good one, found without a look at those before it."""
    return _last_good(system, _directory(host, instance))


def read(system: System, snapshot: Snapshot) -> Manifest:
    """The manifest of a snapshot. Raises BrokenSnapshot, with all that a quick look finds."""
    seen = _look(system, snapshot)
    if seen.faults or seen.manifest is None:
        raise BrokenSnapshot(str(snapshot.path), _lines(seen.faults))
    return seen.manifest


def members(system: System, snapshot: Snapshot) -> dict[str, Member]:
    """The members of a good snapshot by their paths. Raises BrokenSnapshot."""
    return {one.path: one for one in read(system, snapshot).members}


def verify(
    system: System, packs: Packs, snapshot: Snapshot, tell: Callable[[int, int, int], None]
) -> dict[str, str]:
    """Read all of a snapshot: what is wrong with it, by the path of each file.

    Members and the manifest are compared by their SHA-256; what is missing or too much is found,
    too. `tell` gets how many files are read, of how many, and their bytes so far. Nothing is
    remembered of it.
    """
    seen = _look(system, snapshot)
    files = [
        (snapshot.path / path, seen.statuses[path].st_size, sha256)
        for path, sha256 in seen.sums.items()
        if path in seen.statuses and path not in seen.faults
    ]
    changed = packs.check(files, tell)
    relative = {str(path.relative_to(snapshot.path)): fault for path, fault in changed.items()}
    return {**seen.faults, **relative}


def remember_verification(
    system: System, snapshot: Snapshot, faults: Mapping[str, str], when: datetime, level: str
) -> None:
    """Remember what a verification found, for all snapshots that share a file that is broken.

    `level` is one of `records.LEVELS`.
    """
    directory = snapshot.path.parent
    known = _records(system, directory)
    time = when.isoformat(timespec="seconds")
    known.remember(snapshot.id, _look(system, snapshot), faults, time, level)
    _write(system, directory, known)
    set_latest(system, directory)


def mark_kept(system: System, snapshot: Snapshot) -> None:
    """Mark a snapshot as one that is never pruned."""
    known = _records(system, snapshot.path.parent)
    known.snapshots.setdefault(snapshot.id, {})["kept"] = True
    _write(system, snapshot.path.parent, known)


def unmark(system: System, snapshot: Snapshot) -> None:
    """Let a snapshot be pruned like any other."""
    known = _records(system, snapshot.path.parent)
    known.snapshots.get(snapshot.id, {}).pop("kept", None)
    _write(system, snapshot.path.parent, known)


def publish(system: System, partial: Snapshot, manifest: Manifest) -> Snapshot:
    """Make what was built beside a snapshot; from the rename on it exists, whatever comes.

    Everything in it that is new is brought to the disk first. May be repeated.
    """
    directory = partial.path.parent
    whole = Snapshot(directory / manifest.id)
    if system.exists(partial.path):
        text = form.text(manifest)
        system.write(partial.manifest, text, mode=0o600)
        system.write(partial.checksums, form.checksums(text, manifest.members), mode=0o600)
        for path, status in system.statuses(partial.path).items():
            if _is_only_here(status):
                system.flush(partial.path / path)
        system.rename(partial.path, whole.path)
        system.flush(directory)
        system.flush(directory.parent)
    set_latest(system, directory)
    return whole


def remove(system: System, snapshot: Snapshot) -> None:
    """Remove a snapshot, or what was to become one, if it is there, and what is known of it."""
    path = snapshot.path
    removing = path.with_name(f"{path.name}{REMOVING}")
    if system.target(path):
        system.remove(path)
    elif system.exists(path):
        system.remove_tree(removing)
        system.rename(path, removing)
        system.flush(path.parent)
    set_latest(system, path.parent)
    system.remove_tree(removing)
    if system.exists(path.parent / RECORDS):
        _write(system, path.parent, _records(system, path.parent))


def leftovers(system: System, host: Host, instance: str) -> list[Path]:
    """What killed runs left half made or half removed, for who holds the instance's lock."""
    directory = _directory(host, instance)
    found = system.names(directory)
    return [directory / name for name in found if name.endswith((PARTIAL, REMOVING))]


def next_id(now: datetime, taken: Iterable[str]) -> str:
    """An id for a snapshot that begins now: the time, or the next second that is free."""
    ids = {each.removesuffix(PARTIAL).removesuffix(REMOVING) for each in taken}
    while now.strftime(STAMP) in ids:
        now += timedelta(seconds=1)
    return now.strftime(STAMP)


def clock_fault(now: datetime, newest: str) -> str:
    """A warning if the newest snapshot, by its id, was begun later than now; else ''."""
    if not newest or form.time_of(newest) <= now:
        return ""
    return (
        f"the clock says {now.strftime(STAMP)}, but the newest snapshot was begun at {newest}: "
        "one of the two is wrong; snapshots keep the order in which they are made"
    )


def find(system: System, host: Host, instance: str, text: str) -> Snapshot:
    """The snapshot that an admin names: `latest`, an id, SOURCE/ either, or a path.

    It may be broken, or a backup of the tool of 2012. Raises UsageError.
    """
    path = Path(text).absolute()
    if text.startswith(("/", ".")) or ("/" in text and system.is_directory(path)):
        if not system.is_directory(path):
            raise UsageError(f"there is no directory {path}")
        if {*system.names(path)}.isdisjoint((form.MANIFEST, form.CHECKSUMS, *form.LEGACY)):
            raise UsageError(f"there is no snapshot in {path}, which has no {form.MANIFEST}")
        target = system.target(path)
        return Snapshot(path.parent / target if target else path)
    source, _, id = text.rpartition("/")
    source = source or instance
    if id == LATEST:
        good = last_good(system, host, source)
        if good is None:
            raise UsageError(f"{source} has no good snapshot", hint=_known(system, host, source))
        return good
    if not form.is_id(id) or id not in _ids(system, _directory(host, source)):
        raise UsageError(
            f"{source} has no snapshot {id}", hint=_known(system, host, source, like=id)
        )
    return at(host, source, id)


def freed(system: System, snapshots: Iterable[Snapshot]) -> int:
    """Bytes that are free on the disk once all of these snapshots are removed.

    A file counts if all its names are in them.
    """
    links: dict[tuple[int, int], int] = {}
    total = 0
    for one in snapshots:
        for status in system.statuses(one.path).values():
            inode = (status.st_dev, status.st_ino)
            links[inode] = links.get(inode, 0) + 1
            if stat.S_ISDIR(status.st_mode) or links[inode] == status.st_nlink:
                total += status.st_blocks * BLOCK
    return total


def _directory(host: Host, instance: str) -> Path:
    return host.backups / instance


def _ids(system: System, directory: Path) -> list[str]:
    return [name for name in system.names(directory) if form.is_id(name)]


def _ordered(system: System, directory: Path) -> list[Snapshot]:
    """As they were made, whatever the clock said; those with a broken manifest come first."""
    found = [Snapshot(directory / id) for id in _ids(system, directory)]
    return sorted(found, key=lambda one: (_sequence(system, one), one.id))


def _sequence(system: System, snapshot: Snapshot) -> int:
    try:
        return form.sequence_of(system.read(snapshot.manifest))
    except (OSError, UnicodeDecodeError):
        return 0


def _known(system: System, host: Host, instance: str, like: str = "") -> str:
    """Which snapshots there are, the nearest first, or else the newest."""
    ids = names(system, host, instance)[::-1]
    near = difflib.get_close_matches(like, ids, IDS_SHOWN)
    shown = [*near, *(id for id in ids if id not in near)][:IDS_SHOWN]
    more = f" and {len(ids) - len(shown)} more" if len(ids) > len(shown) else ""
    return f"There are: {', '.join(shown)}{more}." if shown else "There are none."


# What is good


def _listed(system: System, snapshot: Snapshot, known: Records) -> Listed:
    seen = _look(system, snapshot)
    its, (level, when) = known.snapshots.get(snapshot.id, {}), known.proof(snapshot.id)
    faults = {**known.known_faults(snapshot.id, seen), **seen.faults}
    only = [one for one in seen.statuses.values() if _is_only_here(one)]
    own, total = (sum(one.st_blocks for one in some) for some in (only, seen.statuses.values()))
    return Listed(
        snapshot,
        seen.manifest.sequence if seen.manifest else 0,
        seen.manifest,
        _lines(faults),
        its.get("kept", False),
        when,
        level,
        own * BLOCK,
        (total - own) * BLOCK,
    )


def _is_only_here(status: os.stat_result) -> bool:
    return stat.S_ISDIR(status.st_mode) or status.st_nlink == 1


def _lines(faults: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(f"{path}: {fault}" for path, fault in sorted(faults.items()))


def _last_good(system: System, directory: Path) -> Snapshot | None:
    ordered = _ordered(system, directory)
    known = _records(system, directory)
    return next((one for one in reversed(ordered) if _listed(system, one, known).good), None)


def set_latest(system: System, directory: Path) -> None:
    """Turn the link `latest` to the newest good one; without any, it goes."""
    good = _last_good(system, directory)
    link = directory / LATEST
    if good is None:
        system.remove(link)
    elif system.target(link) != good.id:
        system.link(link, good.id)
        system.flush(directory)


# What is known


def _records(system: System, directory: Path) -> Records:
    """Raises DeployError when they are damaged: it could be that the snapshots are to be kept."""
    path = directory / RECORDS
    try:
        return records.parse(system.read(path) if system.exists(path) else "")
    except ValueError as error:
        raise DeployError(
            f"{path} cannot be read: {error}",
            hint="It says which snapshots are kept and which are broken. Move it away, "
            "then verify the snapshots and mark again what is to be kept.",
        ) from error


def _write(system: System, directory: Path, known: Records) -> None:
    """Write what is known of snapshots that there still are."""
    ids = _ids(system, directory)
    known.forget_others(ids, (_look(system, Snapshot(directory / id)) for id in ids))
    path, text = directory / RECORDS, records.text(known)
    if not text:
        system.remove(path)
    elif not system.exists(path) or system.read(path) != text:  # the disk may be full
        system.write(path, text, mode=0o600)


# A look at one


def _look(system: System, snapshot: Snapshot) -> Inventory:
    texts, unread = {}, {}
    for path in (snapshot.manifest, snapshot.checksums):
        try:
            texts[path.name] = system.read(path)
        except FileNotFoundError:
            unread[path.name] = "is missing"
        except (OSError, UnicodeDecodeError) as error:
            unread[path.name] = f"cannot be read: {error}"
    return inventory.take(texts, _statuses(system, snapshot), unread)


def _statuses(system: System, snapshot: Snapshot) -> dict[str, os.stat_result]:
    """Of all in it; of nothing when it is gone, or no directory."""
    try:
        return system.statuses(snapshot.path)
    except (FileNotFoundError, NotADirectoryError):
        return {}
