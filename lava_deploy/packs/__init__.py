"""The door to packs: compressed tar files of media and of bundles, two processes at work.

Modules that take long to load are loaded when first needed.
"""

from __future__ import annotations

import os
import pwd
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from lava_deploy.beside import HIDDEN

if TYPE_CHECKING:
    from lava_deploy.packs.archives import Archive
    from lava_deploy.packs.index import Index
    from lava_deploy.snapshot import Group, Member, Packed, State

Task = TypeVar("Task")

# Larger groups are cut by job.
PACK_LIMIT = 256_000_000

# Called with how many are done, of how many, and their bytes so far.
Tell = Callable[[int, int, int], None]


def _silent(_done: int, _total: int, _bytes: int) -> None:
    """Tell nobody."""


class Packs:
    """Packs on this machine. Who calls holds nothing of their content in memory."""

    def groups(self, media: Path) -> list[Group]:
        """How media are packed: by day, newest first, then what old LAVAs wrote, then all other."""
        from lava_deploy.packs import trees

        return trees.groups(media)

    def states(
        self, media: Path, groups: Sequence[Group], tell: Tell = _silent
    ) -> dict[str, State]:
        """How groups are found now, by name; `groups` must be all there are."""
        from lava_deploy.packs import trees, workers

        without = _roots(groups)
        tasks = [
            trees.Task(media, group, without if not group.roots else frozenset())
            for group in groups
        ]
        found = {}
        raw = 0
        for name, state in workers.each(trees.state, tasks):
            found[name] = state
            raw += state.raw
            tell(len(found), len(tasks), raw)
        return found

    def untouched(self, media: Path, known: Index, tell: Tell = _silent) -> list[str]:
        """The names of groups of which no file was touched since an index was made of them."""
        from lava_deploy.packs import writing

        found = self.states(media, self.groups(media), tell)
        return [
            name
            for name, state in found.items()
            if writing.is_as_known(state, known.states.get(name), known.scanned)
        ]

    def loose(self, media: Path) -> list[str]:
        """The paths of what belongs to no day and no job, as few as tell it."""
        from lava_deploy.packs import sharing

        return [*sharing.loose(media)]

    def on_one_disk(self, path: Path, other: Path) -> bool:
        """Whether two directories are on one file system, so that names can be exchanged."""
        return os.stat(path).st_dev == os.stat(other).st_dev

    def share(self, path: Path, to: Path) -> None:
        """Give a file a second name, or make a copy on file systems without hard links."""
        from lava_deploy.packs import sharing

        sharing.share(path, to)

    def pack(
        self,
        media: Path,
        groups: Sequence[Group],
        to: Path,
        known: Mapping[str, State],
        scanned: int,
        rate: int = 0,
        tell: Tell = _silent,
    ) -> Iterator[Packed]:
        """Pack groups into the directory `to`, but not those that are as in `known`.

        `groups` must be all there are. `scanned` is when the scan for `known` began, in nanoseconds
        since 1970: what was touched 2 seconds before, or later, counts as changed. `rate` limits
        reading, in bytes a second. Packs are on the disk when they are returned; the order is that
        of readiness. What vanishes or cannot be read is told in `Packed.skipped`; what is appended
        meanwhile is left out. Raises OSError for a disk that is full or broken.
        """
        from lava_deploy.packs import workers, writing

        without = _roots(groups)
        tasks = [
            writing.Task(
                media,
                group,
                without if not group.roots else frozenset(),
                to,
                known.get(group.name),
                scanned,
                PACK_LIMIT,
                -(-rate // workers.WORKERS),
            )
            for group in groups
        ]
        raw = 0
        for done, packed in enumerate(workers.each(writing.pack, tasks), 1):
            raw += packed.state.raw
            tell(done, len(tasks), raw)
            yield packed

    def bundle(
        self, to: Path, entries: Sequence[tuple[Path, str]]
    ) -> tuple[Member, tuple[tuple[str, str], ...]]:
        """Pack files and trees under names of their own; also what was skipped, and why."""
        from lava_deploy.packs import writing

        return writing.bundle(to, entries)

    def owner(self, user: str) -> tuple[int, int]:
        """The numbers of a user and their group, as `unpack` takes them. Raises KeyError."""
        account = pwd.getpwnam(user)
        return account.pw_uid, account.pw_gid

    def unpack(
        self, packs: Sequence[Path], to: Path, uid: int, gid: int, tell: Tell = _silent
    ) -> None:
        """Unpack into the directory `to`, which is there, and bring it to the disk.

        All belongs to the user and group; what is there of the same name is replaced. Raises
        DeployError for a pack that is damaged or has anything that would land elsewhere.
        """
        from lava_deploy.packs import reading, workers

        tasks = [reading.Task(pack, to, uid, gid) for pack in _largest_first(packs)]
        shared: list[reading.Directory] = []
        raw = 0
        for done, unpacked in enumerate(workers.each(reading.unpack, tasks), 1):
            shared += unpacked.shared
            raw += unpacked.raw
            tell(done, len(tasks), raw)
        reading.settle(to, uid, gid, shared)

    def extract(self, pack: Path, to: Path, names: Collection[str] | None = None) -> None:
        """Unpack a bundle into the directory `to`, which is there, with the owners it names.

        What belongs to somebody unknown here becomes root's. `names` are the files or directories
        that are wanted.
        """
        from lava_deploy.packs import reading

        reading.extract(pack, to, names)

    def read(self, pack: Path, name: str) -> bytes:
        """The content of a small file in a pack. Raises FileNotFoundError."""
        from lava_deploy.packs import reading

        return reading.read(pack, name)

    def look(self, archive: Path, wanted: Collection[str], tell: Tell = _silent) -> Archive:
        """Read all of a tar file that others packed by gzip, and look for directories in it.

        `tell` gets the megabytes of the file instead of numbers of packs, as with `unpack_below`.
        """
        from lava_deploy.packs import archives

        return archives.look(archive, wanted, tell)

    def unpack_below(
        self,
        archive: Path,
        below: str,
        to: Path,
        uid: int,
        gid: int,
        but: Collection[str] = (),
        tell: Tell = _silent,
    ) -> None:
        """Unpack what is below a path in such a tar file into the directory `to`, which is there.

        Files with a name in `but` are left out; all belongs to the user and group, and nobody else
        may read it. Raises DeployError as `unpack` does.
        """
        from lava_deploy.packs import archives

        archives.unpack(archive, below, to, uid, gid, but, tell)

    def now(self) -> int:
        """The time as file systems have it, in nanoseconds since 1970."""
        return time.time_ns()

    def member(self, path: Path, base: Path) -> Member:
        """A file as a member of the snapshot in the directory `base`."""
        from lava_deploy.packs import reading

        return replace(reading.measure(path), path=str(path.relative_to(base)))

    def members(self, directory: Path, base: Path) -> list[Member]:
        """All files below a directory as members of the snapshot in `base`, in order."""
        from lava_deploy.packs import reading, workers

        files = sorted(path for path in directory.rglob("*") if path.is_file())
        found = workers.each(reading.measure, _largest_first(files))
        members = (replace(one, path=str(Path(one.path).relative_to(base))) for one in found)
        return sorted(members, key=lambda one: one.path)

    def check(
        self, files: Sequence[tuple[Path, int, str]], tell: Tell = _silent
    ) -> dict[Path, str]:
        """What is wrong with which files, of which the sizes and SHA-256 are given."""
        from lava_deploy.packs import reading

        ordered = sorted(files, key=lambda file: file[1], reverse=True)
        return _faults(reading.fault, ordered, tell)

    def check_deep(self, packs: Sequence[Path], tell: Tell = _silent) -> dict[Path, str]:
        """What is wrong with which packs, which are decompressed and read to their end."""
        from lava_deploy.packs import reading

        return _faults(reading.deep_fault, _largest_first(packs), tell)

    def write_index(
        self, path: Path, groups: Mapping[str, tuple[State, Sequence[str]]], scanned: int
    ) -> None:
        """Keep how groups were found, and the paths of their packs, for the next backup."""
        from lava_deploy.packs import index

        index.write(path, groups, scanned)

    def read_index(self, path: Path) -> Index:
        """What `write_index` was given; an empty index if it is missing or damaged."""
        from lava_deploy.packs import index

        return index.read(path)


def _roots(groups: Iterable[Group]) -> frozenset[str]:
    """What is not part of the group that has no roots; nor is what a restore prepares."""
    return frozenset([*(root for group in groups for root in group.roots), HIDDEN])


def _largest_first(packs: Sequence[Path]) -> list[Path]:
    """In the order that keeps both workers busy to the end; what is missing fails in its turn."""
    return sorted(packs, key=lambda pack: os.stat(pack).st_size if pack.exists() else 0)[::-1]


def _faults(
    find: Callable[[Task], tuple[Path, int, str]], tasks: Sequence[Task], tell: Tell
) -> dict[Path, str]:
    from lava_deploy.packs import workers

    faults = {}
    size = 0
    for done, (path, checked, fault) in enumerate(workers.each(find, tasks), 1):
        size += checked
        if fault:
            faults[path] = fault
        tell(done, len(tasks), size)
    return faults
