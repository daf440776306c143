"""Reading packs: unpacking them where nothing can land outside, and looking for faults."""

from __future__ import annotations

import contextlib
import ctypes
import grp
import hashlib
import os
import pwd
import tarfile
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import zstandard

from lava_deploy.errors import DeployError
from lava_deploy.packs.trees import Tree
from lava_deploy.snapshot import Member

BLOCK = tarfile.BLOCKSIZE
CHUNK = 1024**2
# Odd, as tar files have an even length: the last piece of one is shorter.
PIECE = CHUNK - 1
# Names and targets of links that do not fit into a header.
LONG = {tarfile.GNUTYPE_LONGNAME: "name", tarfile.GNUTYPE_LONGLINK: "linkname"}
LONGEST_NAME = 65536
KINDS = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE)
MAKE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
# Directories up to job-output/YYYY/MM/DD get entries out of several packs.
SHARED_DEPTH = 3

Owner = Callable[[tarfile.TarInfo], tuple[int, int]]


@dataclass(frozen=True)
class Task:
    """A pack to be unpacked below the directory `to`, for one owner."""

    pack: Path
    to: Path
    uid: int
    gid: int


@dataclass(frozen=True)
class Directory:
    """How a directory is to be when all that belongs in it is there."""

    path: str
    mode: int
    mtime: int


@dataclass(frozen=True)
class Unpacked:
    """Bytes that were written, and directories that other packs may put something into."""

    raw: int
    shared: tuple[Directory, ...]


class _Source:
    """A file that remembers whether more was asked of it than it has."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.exhausted = file, False

    def read(self, size: int) -> bytes:
        read = self._file.read(size)
        self.exhausted = not read
        return read


class _Stream:
    """The tar file in a pack, piece by piece."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._source = _Source(file)
        decompressor = zstandard.ZstdDecompressor()
        self._reader = decompressor.stream_reader(cast("BinaryIO", self._source), read_size=CHUNK)
        self._path, self._buffer, self._at = path, b"", 0

    def take(self, size: int) -> bytes:
        """The next bytes, exactly as many."""
        end = self._at + size
        if end > len(self._buffer):
            self._fill(size)
            end = size
        taken = self._buffer[self._at : end]
        self._at = end
        return taken

    def _fill(self, size: int) -> None:
        pieces = [self._buffer[self._at :]]
        missing = size - len(pieces[0])
        while missing > 0:
            pieces.append(self._read())
            missing -= len(pieces[-1])
            if not pieces[-1]:
                raise DeployError(f"the tar file in {self._path} has no end")
        self._buffer, self._at = b"".join(pieces), 0

    def finish(self) -> None:
        """Read what is left, which has the checksum of all."""
        while self._read():
            pass

    def _read(self) -> bytes:
        """Some more bytes, none at the end.

        The decompressor passes it by when its file ends too early. It then has asked for more
        before it gave its last bytes, which are fewer than it was asked for.
        """
        read = self._reader.read(PIECE)
        if read and self._source.exhausted:
            raise DeployError(f"{self._path} is cut short")
        return read


class Content:
    """What a file in a pack contains: to be read to its end, or it is skipped."""

    def __init__(self, stream: _Stream, size: int) -> None:
        self._stream, self._left, self._filling = stream, size, -size % BLOCK

    def __iter__(self) -> Iterator[bytes]:
        while self._left:
            size = min(self._left, CHUNK)
            self._left -= size
            yield self._stream.take(size)
        self._stream.take(self._filling)
        self._filling = 0


def members(pack: Path) -> Iterator[tuple[tarfile.TarInfo, Content]]:
    """All that is in a pack, one after the other. Raises DeployError for one that is damaged."""
    try:
        with open(pack, "rb", buffering=0) as file:
            stream = _Stream(pack, file)
            yield from _members(stream)
            stream.finish()
    except (zstandard.ZstdError, tarfile.HeaderError) as error:
        raise DeployError(f"{pack} is damaged: {error}") from error


def _members(stream: _Stream) -> Iterator[tuple[tarfile.TarInfo, Content]]:
    long: dict[str, str] = {}
    while True:
        block = stream.take(BLOCK)
        if block == bytes(BLOCK):
            return
        info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        if info.size < 0:
            raise tarfile.HeaderError("a size is below 0")
        content = Content(stream, info.size if info.type != tarfile.DIRTYPE else 0)
        if info.type in LONG:
            if info.size > LONGEST_NAME:
                raise tarfile.HeaderError("a name is too long")
            text = b"".join(content).rstrip(b"\0")
            long[LONG[info.type]] = text.decode(errors="surrogateescape")
            continue
        info.name = long.pop("name", info.name).rstrip("/")
        info.linkname = long.pop("linkname", info.linkname)
        yield info, content
        for _ in content:
            pass


class Place(Tree):
    """A directory that packs are unpacked into; directories that are missing are made."""

    def __init__(self, top: Path, uid: int, gid: int) -> None:
        super().__init__(top)
        self._owner = uid, gid

    def _enter(self, name: str, parent: int) -> int:
        try:
            return super()._enter(name, parent)
        except FileNotFoundError:
            with contextlib.suppress(FileExistsError):  # the other worker was faster
                os.mkdir(name, 0o755, dir_fd=parent)
                os.chown(name, *self._owner, dir_fd=parent, follow_symlinks=False)
            return super()._enter(name, parent)

    def put(self, info: tarfile.TarInfo, content: Iterable[bytes], owner: tuple[int, int]) -> None:
        """Make a member of a pack. Raises DeployError for what does not belong there."""
        names = info.name.split("/")
        if info.type not in KINDS or not {"", ".", ".."}.isdisjoint(names):
            raise DeployError(f"{info.name!r} in it does not belong into a pack")
        try:
            if info.type == tarfile.DIRTYPE:
                directory = self.directory(info.name)
                os.fchown(directory, *owner)
                return
            directory = self.directory("/".join(names[:-1]))
            if info.type == tarfile.SYMTYPE:
                self._link(directory, names[-1], info, owner)
            else:
                self._file(directory, names[-1], info, content, owner)
        except (NotADirectoryError, IsADirectoryError) as error:
            raise DeployError(f"something else is in the way of {info.name!r}") from error
        except (ValueError, OverflowError) as error:
            raise DeployError(f"{info.name!r} in it is not sound: {error}") from error

    def _link(
        self, directory: int, name: str, info: tarfile.TarInfo, owner: tuple[int, int]
    ) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=directory)
        os.symlink(info.linkname, name, dir_fd=directory)
        os.chown(name, *owner, dir_fd=directory, follow_symlinks=False)
        times = (int(info.mtime),) * 2
        os.utime(name, times, dir_fd=directory, follow_symlinks=False)

    def _file(
        self,
        directory: int,
        name: str,
        info: tarfile.TarInfo,
        content: Iterable[bytes],
        owner: tuple[int, int],
    ) -> None:
        try:
            file = os.open(name, MAKE, 0o600, dir_fd=directory)
        except FileExistsError:
            # of an unpacking that was killed; what is there is replaced, never written into
            os.unlink(name, dir_fd=directory)
            file = os.open(name, MAKE, 0o600, dir_fd=directory)
        try:
            for piece in content:
                rest = memoryview(piece)
                while rest:
                    rest = rest[os.write(file, rest) :]
            os.fchown(file, *owner)
            os.fchmod(file, info.mode & 0o7777)
            os.utime(file, (int(info.mtime),) * 2)
        finally:
            os.close(file)

    def settle(self, directories: Sequence[Directory]) -> None:
        """Give directories their modes and times, the deepest first."""
        for each in sorted(directories, key=lambda each: each.path, reverse=True):
            directory = self.directory(each.path)
            os.fchmod(directory, each.mode)
            os.utime(directory, (each.mtime,) * 2)


def unpack(task: Task) -> Unpacked:
    """Unpack one of several packs; whoever has unpacked all settles the shared directories."""
    with Place(task.to, task.uid, task.gid) as place:
        raw, directories = _put_all(place, task.pack, lambda _: (task.uid, task.gid))
        shared = tuple(each for each in directories if each.path.count("/") <= SHARED_DEPTH)
        place.settle([each for each in directories if each.path.count("/") > SHARED_DEPTH])
    return Unpacked(raw, shared)


def settle(to: Path, uid: int, gid: int, directories: Sequence[Directory]) -> None:
    """Finish directories of which several packs had something, and bring all to the disk."""
    with Place(to, uid, gid) as place:
        place.settle(directories)
        if ctypes.CDLL(None, use_errno=True).syncfs(place.directory("")):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(to))


def extract(pack: Path, to: Path, names: Collection[str] | None) -> None:
    """Unpack what has one of these names, or is below; owners by name, root where unknown."""

    def wanted(name: str) -> bool:
        return names is None or any(f"{name}/".startswith(f"{each}/") for each in names)

    with Place(to, os.getuid(), os.getgid()) as place:
        _raw, directories = _put_all(place, pack, _named_owner, wanted)
        place.settle(directories)


def _put_all(
    place: Place, pack: Path, owner: Owner, wanted: Callable[[str], bool] = lambda _: True
) -> tuple[int, list[Directory]]:
    raw, directories = 0, []
    try:
        for info, content in members(pack):
            if not wanted(info.name):
                continue
            place.put(info, content, owner(info))
            raw += info.size
            if info.type == tarfile.DIRTYPE:
                directories.append(Directory(info.name, info.mode & 0o7777, int(info.mtime)))
    except DeployError as error:
        raise DeployError(f"{pack} cannot be unpacked: {error}", hint=error.hint) from error
    return raw, directories


def _named_owner(info: tarfile.TarInfo) -> tuple[int, int]:
    uid = gid = 0
    with contextlib.suppress(KeyError):
        uid = pwd.getpwnam(info.uname).pw_uid
    with contextlib.suppress(KeyError):
        gid = grp.getgrnam(info.gname).gr_gid
    return uid, gid


def read(pack: Path, name: str) -> bytes:
    """The content of a file in a pack. Raises FileNotFoundError."""
    for info, content in members(pack):
        if info.name == name:
            return b"".join(content)
    raise FileNotFoundError(f"{pack} has no {name}")


def measure(path: Path) -> Member:
    """A file as a member of a snapshot, under its own path."""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        return Member(str(path), size, hashlib.file_digest(file, "sha256").hexdigest(), size)


def fault(expected: tuple[Path, int, str]) -> tuple[Path, int, str]:
    """What is wrong with a file of which size and SHA-256 are known, '' if nothing; its size."""
    path, size, digest = expected
    try:
        with open(path, "rb") as file:
            found = os.fstat(file.fileno()).st_size
            if found != size:
                return path, found, f"has {found} bytes, not {size}"
            same = hashlib.file_digest(file, "sha256").hexdigest() == digest
            return path, found, "" if same else "is damaged: its SHA-256 differs"
    except FileNotFoundError:
        return path, 0, "is missing"
    except OSError as error:
        return path, 0, f"cannot be read: {error.strerror}"


def deep_fault(pack: Path) -> tuple[Path, int, str]:
    """What is wrong with a pack that is decompressed, '' if nothing; bytes of its files."""
    raw = 0
    try:
        for info, _ in members(pack):
            raw += info.size
    except DeployError as error:
        return pack, raw, str(error)
    except OSError as error:
        return pack, raw, f"cannot be read: {error.strerror}"
    return pack, raw, ""
