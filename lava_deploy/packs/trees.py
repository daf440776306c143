"""Trees that others write in meanwhile: what is in them, how it is grouped, whether it changed."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Self

from lava_deploy.snapshot import Group, State

OTHER = "other"
OUTPUT = "job-output"
OLD_JOB = re.compile(r"job-([0-9]{1,12})")
OLD_JOBS_TOGETHER = 1000
# Where there are directories: a link in their place leads to media that are not packed.
PLACES = re.compile(rf"{OUTPUT}(/[0-9]{{4}}(/[0-9]{{2}}){{0,2}}|/{OLD_JOB.pattern})?")
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# More than any LAVA writes, fewer than Python calls may be nested or files may be open.
DEEPEST = 100
# Failures to open or read that are not a matter of one file.
OF_ALL_FILES = frozenset([errno.ENOMEM, errno.EMFILE, errno.ENFILE])


class Entry(NamedTuple):
    """What was found: its path in the tree, as stat(2) has its mode and size."""

    path: str
    mode: int
    size: int


@dataclass(frozen=True)
class Task:
    """A group of media to look at; `without` are the roots of all others if it has no roots."""

    media: Path
    group: Group
    without: frozenset[str]


@dataclass
class Scan:
    """All that was found in a group, in order: parents first, names sorted in each directory."""

    state: State
    entries: list[Entry] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)


class Tree:
    """A directory and what is below it, of which no symbolic link is followed.

    Whoever may write there can exchange a directory for a link at any moment, and we are root.
    """

    def __init__(self, top: Path) -> None:
        self._names: list[str] = []
        self._open = [os.open(top, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)]

    def close(self) -> None:
        for descriptor in self._open:
            os.close(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def directory(self, path: str) -> int:
        """The open directory with a path below the top, until the next one is asked for."""
        names = path.split("/") if path else []
        same = 0
        while same < min(len(names), len(self._names)) and names[same] == self._names[same]:
            same += 1
        while len(self._names) > same:
            self._names.pop()
            os.close(self._open.pop())
        for name in names[same:]:
            self._open.append(self._enter(name, self._open[-1]))
            self._names.append(name)
        return self._open[-1]

    def _enter(self, name: str, parent: int) -> int:
        return os.open(name, DIRECTORY, dir_fd=parent)


def reason(error: OSError) -> str:
    """Why something was skipped, in words."""
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return "vanished before it was read"
    if error.errno == errno.ELOOP:
        return "became something else while it was read"
    return f"cannot be read: {error.strerror}"


def groups(media: Path) -> list[Group]:
    """How media are packed: by day, newest first, then what old LAVAs wrote, then all other."""
    days = [
        Group(f"{year}-{month}-{day}", (f"{OUTPUT}/{year}/{month}/{day}",))
        for year in _numbers(media / OUTPUT, 4)
        for month in _numbers(media / OUTPUT / year, 2)
        for day in _numbers(media / OUTPUT / year / month, 2)
    ]
    return [*reversed(days), *_old(media / OUTPUT), Group(OTHER, ())]


def _old(output: Path) -> Iterator[Group]:
    """Groups of the jobs whose directories have no day."""
    numbers = ((int(job[1]), job[0]) for job in map(OLD_JOB.fullmatch, _directories(output)) if job)
    together: dict[int, list[str]] = {}
    for number, name in sorted(numbers):
        together.setdefault(number // OLD_JOBS_TOGETHER, []).append(f"{OUTPUT}/{name}")
    for thousand, roots in sorted(together.items()):
        yield Group(f"old-{thousand}", tuple(roots))


def _numbers(directory: Path, digits: int) -> list[str]:
    number = re.compile(f"[0-9]{{{digits}}}")
    return sorted(name for name in _directories(directory) if number.fullmatch(name))


def _directories(directory: Path) -> list[str]:
    """Names of the directories in one; none if it is not there, a link or no directory."""
    if directory.is_symlink():
        return []
    try:
        with os.scandir(directory) as found:
            return [entry.name for entry in found if entry.is_dir(follow_symlinks=False)]
    except (FileNotFoundError, NotADirectoryError):
        return []


class _Scanner:
    """Collects what is below some roots, and the digest of it."""

    def __init__(self, without: Collection[str]) -> None:
        self.without = without
        self.entries: list[Entry] = []
        self.skipped: list[tuple[str, str]] = []
        self.newest = 0
        self.files = 0
        self.raw = 0
        self._digest = hashlib.sha256()

    def root(self, tree: Tree, path: str) -> None:
        """Collect a root and what is below it; nothing if it is not there."""
        parent, _, name = path.rpartition("/")
        try:
            directory = tree.directory(parent)
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            return
        self._one(directory, name, path, status)

    def below(self, directory: int, path: str) -> None:
        """Collect what is in an open directory, which has this path, '' for the top."""
        try:
            with os.scandir(directory) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError as error:
            self._skip(path, error)
            return
        prefix = f"{path}/" if path else ""
        for entry in entries:
            inner = prefix + entry.name
            if inner not in self.without:
                try:
                    status = entry.stat(follow_symlinks=False)
                except OSError as error:
                    self._skip(inner, error)
                    continue
                self._one(directory, entry.name, inner, status)

    def _one(self, parent: int, name: str, path: str, status: os.stat_result) -> None:
        mode, size, changed = status.st_mode, status.st_size, status.st_ctime_ns
        self.entries.append(Entry(path, mode, size))
        self._digest.update(
            f"{path}\0{mode} {size} {status.st_mtime_ns} {changed} {status.st_ino} "
            f"{status.st_uid} {status.st_gid}\n".encode(errors="surrogateescape")
        )
        self.newest = max(self.newest, changed)
        if stat.S_ISREG(mode):
            self.files += 1
            self.raw += size
        elif stat.S_ISDIR(mode):
            self._enter(parent, name, path)
        elif stat.S_ISLNK(mode) and PLACES.fullmatch(path):
            self.skipped.append((path, "is a link: what it leads to is not packed"))

    def _enter(self, parent: int, name: str, path: str) -> None:
        if path.count("/") > DEEPEST:
            self.skipped.append((path, "its directories are nested too deeply"))
            return
        try:
            directory = os.open(name, DIRECTORY, dir_fd=parent)
        except OSError as error:
            self._skip(path, error)
            return
        try:
            self.below(directory, path)
        finally:
            os.close(directory)

    def _skip(self, path: str, error: OSError) -> None:
        if error.errno in OF_ALL_FILES:
            raise error
        self.skipped.append((path, reason(error)))

    def result(self) -> Scan:
        state = State(self._digest.hexdigest(), self.newest, self.files, self.raw)
        return Scan(state, self.entries, self.skipped)


def scan(tree: Tree, group: Group, without: Collection[str] = ()) -> Scan:
    """Find all of a group; `without` are the roots of all others, for the group that has none."""
    scanner = _Scanner(without)
    for root in group.roots:
        scanner.root(tree, root)
    if not group.roots:
        scanner.below(tree.directory(""), "")
    return scanner.result()


def state(task: Task) -> tuple[str, State]:
    """How a group is found now, with its name."""
    with Tree(task.media) as tree:
        return task.group.name, scan(tree, task.group, task.without).state
