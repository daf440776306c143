"""Writing packs: tar in GNU's format, compressed with zstd, the same bytes for the same files."""

from __future__ import annotations

import functools
import grp
import hashlib
import os
import pwd
import stat
import struct
import tarfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import zstandard

from lava_deploy.packs.trees import OF_ALL_FILES, Entry, Tree, reason, scan
from lava_deploy.snapshot import PACK, PASSING, Group, Member, Packed, State

# Measured: as small as gzip -6 for logs, and higher levels are not smaller.
LEVEL = 1
BLOCK = tarfile.BLOCKSIZE
# As GNU tar has it: name, mode, uid, gid, size, mtime, checksum, type, target of a link, magic,
# names of user and group; what is for devices and continued names stays empty.
HEADER = struct.Struct("100s8s8s8s12s12s8sc100s8s32s32s183x")
CHUNK = 1024**2
# Larger files are not read whole before they are written.
STREAMED = 8 * 1024**2
READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
# A file may have changed this long before the clock of its file system says so, as git has it.
RACY = 2_000_000_000
TRIES = 3


@dataclass(frozen=True)
class Task:
    """A group to look at and pack into the directory `to`.

    `without` are the roots of all groups, `known` is how it was found by a scan that began at
    `scanned` (nanoseconds since 1970). `limit` is in bytes, `rate` in bytes a second, 0 for none.
    """

    media: Path
    group: Group
    without: frozenset[str]
    to: Path
    known: State | None
    scanned: int
    limit: int
    rate: int


def pack(task: Task) -> Packed:
    """Pack a group unless no file of it changed since the scan that is known.

    Where files were exchanged meanwhile, as LAVA does with logs that it compresses, once more: the
    new ones were not found yet when the old ones were gone.
    """
    for _ in range(TRIES):
        packed = _pack(task)
        if not any(reason.startswith(PASSING) for _, reason in packed.skipped):
            break
    return packed


def _pack(task: Task) -> Packed:
    with Tree(task.media) as tree:
        found = scan(tree, task.group, task.without)
        if is_as_known(found.state, task.known, task.scanned):
            return Packed(task.group, found.state, (), tuple(found.skipped))
        skipped, pace = found.skipped, Pace(task.rate)
        parts = _cut(found.entries, task)
        names = [task.group.name] if len(parts) == 1 else _numbered(task.group.name, len(parts))
        members = tuple(
            _write(task.to / f"{name}{PACK}", tree, part, skipped, pace)
            for name, part in zip(names, parts, strict=True)
        )
    return Packed(task.group, found.state, members, tuple(skipped))


def is_as_known(state: State, known: State | None, scanned: int) -> bool:
    """Whether no file of a group changed since a scan that began at `scanned` (in nanoseconds)."""
    return known is not None and state.digest == known.digest and state.newest < scanned - RACY


def _numbered(name: str, count: int) -> list[str]:
    return [f"{name}.{number}" for number in range(1, count + 1)]


def _cut(entries: Sequence[Entry], task: Task) -> list[list[Entry]]:
    """Cut what is too large for one pack between jobs."""
    parts: list[list[Entry]] = [[]]
    raw = 0
    for job in _jobs(entries, task.group):
        size = sum(entry.size for entry in job)
        if raw and raw + size > task.limit:
            parts.append([])
            raw = 0
        parts[-1] += job
        raw += size
    return parts


def _jobs(entries: Sequence[Entry], group: Group) -> Iterator[list[Entry]]:
    """What belongs together: job-output/YYYY/MM/DD/ID, job-output/job-ID, or what is as high."""
    slashes = 4 if group.roots and group.roots[0].count("/") == 3 else 1
    job: list[Entry] = []
    for entry in entries:
        if job and entry.path.count("/") <= slashes:
            yield job
            job = []
        job.append(entry)
    yield job


def bundle(
    to: Path, entries: Sequence[tuple[Path, str]]
) -> tuple[Member, tuple[tuple[str, str], ...]]:
    """Pack files and trees under names of their own; what is not there is skipped."""
    skipped: list[tuple[str, str]] = []
    with Pack(to) as written:
        for path, name in entries:
            # these paths are the admin's, who may have put a directory on another disk
            _add_tree(written, path.resolve(), name, skipped)
        return written.finish(), tuple(skipped)


def _add_tree(written: Pack, path: Path, name: str, skipped: list[tuple[str, str]]) -> None:
    if not path.exists():
        skipped.append((name, "is not there"))
        return
    with Tree(path.parent) as tree:
        found = scan(tree, Group(name, (path.name,)))
        length = len(path.name)
        skipped += ((name + inner[length:], fault) for inner, fault in found.skipped)
        for entry in found.entries:
            _add(written, tree, entry, name + entry.path[length:], skipped, Pace(0))


def _write(
    path: Path, tree: Tree, entries: Sequence[Entry], skipped: list[tuple[str, str]], pace: Pace
) -> Member:
    with Pack(path) as written:
        for entry in entries:
            _add(written, tree, entry, entry.path, skipped, pace)
        return written.finish()


class Pace:
    """Keeps reading below a rate in bytes a second; 0 is as fast as it goes."""

    def __init__(self, rate: int) -> None:
        self._rate, self._read, self._begun = rate, 0, time.monotonic()

    def keep(self, read: int) -> None:
        """Wait as long as it takes for `read` more bytes."""
        if self._rate:
            self._read += read
            ahead = self._read / self._rate - (time.monotonic() - self._begun)
            if ahead > 0:
                time.sleep(ahead)


class Pack:
    """A pack that is being written."""

    def __init__(self, path: Path) -> None:
        self._path = path
        # what is there may be linked into other snapshots
        path.unlink(missing_ok=True)
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        compressor = zstandard.ZstdCompressor(level=LEVEL, write_checksum=True)
        self._compressor = compressor.compressobj()
        self._hash = hashlib.sha256()
        self._pieces: list[bytes] = []
        self._waiting = self._raw = self._size = 0

    def __enter__(self) -> Pack:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)

    def add(self, piece: bytes) -> None:
        """Append bytes of the tar file."""
        self._pieces.append(piece)
        self._waiting += len(piece)
        if self._waiting >= CHUNK:
            self._compress()

    def finish(self) -> Member:
        """End the pack and bring it to the disk."""
        self.add(bytes(2 * BLOCK))
        self._compress()
        self._put(self._compressor.flush())
        os.fsync(self._file)
        return Member(self._path.name, self._size, self._hash.hexdigest(), self._raw)

    def _compress(self) -> None:
        self._raw += self._waiting
        self._put(self._compressor.compress(b"".join(self._pieces)))
        self._pieces.clear()
        self._waiting = 0

    def _put(self, compressed: bytes) -> None:
        self._hash.update(compressed)
        self._size += len(compressed)
        rest = memoryview(compressed)
        while rest:
            rest = rest[os.write(self._file, rest) :]


class _Unreadable(Exception):
    """A file that is not in the pack as it was found; the message says why."""


def _add(
    written: Pack,
    tree: Tree,
    entry: Entry,
    name: str,
    skipped: list[tuple[str, str]],
    pace: Pace,
) -> None:
    """Add what was found, as it is by now; what cannot be read is put among what is skipped."""
    try:
        for piece in _pieces(tree, entry, name, pace):
            written.add(piece)
    except _Unreadable as fault:
        skipped.append((name, str(fault)))


def _pieces(tree: Tree, entry: Entry, name: str, pace: Pace) -> Iterator[bytes]:
    """The bytes of a tar file for what was found: header, content, filling."""
    parent, _, last = entry.path.rpartition("/")
    kind = stat.S_IFMT(entry.mode)
    try:
        directory = tree.directory(parent)
        if kind == stat.S_IFREG:
            yield from _file(directory, last, name, pace)
        elif kind == stat.S_IFDIR:
            yield _header(name, _status(directory, last, kind), tarfile.DIRTYPE, 0)
        elif kind == stat.S_IFLNK:
            status = _status(directory, last, kind)
            target = os.readlink(last, dir_fd=directory)
            yield _header(name, status, tarfile.SYMTYPE, 0, target)
        else:
            raise _Unreadable("is neither a file nor a directory nor a link")
    except OSError as error:
        if error.errno in OF_ALL_FILES:
            raise
        raise _Unreadable(reason(error)) from error


def _status(directory: int, name: str, kind: int) -> os.stat_result:
    status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    if stat.S_IFMT(status.st_mode) != kind:
        raise _Unreadable("became something else while it was read")
    return status


def _file(directory: int, name: str, path: str, pace: Pace) -> Iterator[bytes]:
    """A file as long as it was when it was opened; what is appended later is left out."""
    file = _open(directory, name)
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            raise _Unreadable("became something else while it was read")
        size = status.st_size
        if size > STREAMED:
            yield from _stream(file, status, path, pace)
            return
        content = _read(file, size)
        yield _header(path, status, tarfile.REGTYPE, len(content))
        yield content
        yield bytes(-len(content) % BLOCK)
        pace.keep(len(content))
        if len(content) < size:
            raise _Unreadable(f"got shorter while it was read: {len(content)} of {size} bytes")
    finally:
        os.close(file)


def _read(file: int, size: int) -> bytes:
    """That many bytes, fewer if the file ends before."""
    content = os.read(file, size)
    while len(content) < size and (more := os.read(file, size - len(content))):
        content += more
    return content


def _stream(file: int, status: os.stat_result, path: str, pace: Pace) -> Iterator[bytes]:
    """A large file. Its header has been written when it gets shorter: zeros take the place."""
    size = left = status.st_size
    fault = ""
    yield _header(path, status, tarfile.REGTYPE, size)
    while left and not fault:
        try:
            piece = os.read(file, min(left, CHUNK))
            fault = "" if piece else "got shorter while it was read"
        except OSError as error:
            piece, fault = b"", reason(error)
        yield piece
        pace.keep(len(piece))
        left -= len(piece)
    filling = left + -size % BLOCK
    while filling:
        yield bytes(min(filling, CHUNK))
        filling -= min(filling, CHUNK)
    if fault:
        raise _Unreadable(f"{fault}: the last {left} of {size} bytes are zeros")


def _open(directory: int, name: str) -> int:
    try:
        return os.open(name, READ | os.O_NOATIME, dir_fd=directory)
    except PermissionError:
        # only a file's owner and root may ask for that
        return os.open(name, READ, dir_fd=directory)


def _header(name: str, status: os.stat_result, kind: bytes, size: int, target: str = "") -> bytes:
    """The header of a member, as tarfile would write it, in a third of the time."""
    path = name.encode(errors="surrogateescape") + (b"/" if kind == tarfile.DIRTYPE else b"")
    link = target.encode(errors="surrogateescape")
    numbers = stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid
    mtime = status.st_mtime_ns // 1_000_000_000
    if max(len(path), len(link)) > 100 or max(numbers) >= 8**7 or not 0 <= mtime < 8**11 > size:
        return _long_header(name, numbers, mtime, kind, size, target)
    block = HEADER.pack(
        path,
        *(b"%07o" % number for number in numbers),
        *(b"%011o" % number for number in (size, mtime)),
        b" " * 8,
        kind,
        link,
        tarfile.GNU_MAGIC,
        _user(status.st_uid).encode(),
        _group(status.st_gid).encode(),
    )
    return b"%b%06o\0%b" % (block[:148], sum(block), block[155:])


def _long_header(
    name: str, numbers: tuple[int, int, int], mtime: int, kind: bytes, size: int, target: str
) -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname, info.mtime = kind, size, target, mtime
    info.mode, info.uid, info.gid = numbers
    info.uname, info.gname = _user(info.uid), _group(info.gid)
    return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")


@functools.cache
def _user(uid: int) -> str:
    """The name of a user, '' if there is none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return ""


@functools.cache
def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return ""
