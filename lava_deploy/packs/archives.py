"""Tar files that others packed by gzip: what is in them, and unpacking them into a directory."""

from __future__ import annotations

import gzip
import os
import tarfile
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath

from lava_deploy.errors import DeployError
from lava_deploy.packs.reading import CHUNK, Directory, Place, settle

# What files and directories are given, whatever modes they had: set-user-ID may be among them.
FILE, DIRECTORY = 0o640, 0o750
# How many levels count as near the top.
LEVELS = 8
# Of a damaged or evil archive, so many faults tell enough.
FAULTS_SHOWN = 5
MEGABYTE = 10**6

Tell = Callable[[int, int, int], None]


@dataclass(frozen=True)
class Archive:
    """What a tar file has, all of which was read.

    `raw` are the bytes of its files; `places` has for each name that was looked for the paths of
    the directories that have a directory of it, '' for the top. `directories` are those near the
    top, but for what is below such names. With `faults` it is not to be unpacked.
    """

    raw: int
    places: Mapping[str, frozenset[str]]
    directories: frozenset[PurePath]
    faults: tuple[str, ...]


def look(path: Path, wanted: Collection[str], tell: Tell) -> Archive:
    """Read all of a tar file, and look for directories with some names."""
    raw, faults = 0, list[str]()
    places: dict[str, set[str]] = {name: set() for name in wanted}
    near: set[PurePath] = set()
    try:
        for info, _ in _members(path, tell):
            parts = _parts(info)
            raw += info.size if info.isreg() else 0
            faults += _faults(info, parts)
            directories = parts if info.isdir() else parts[:-1]
            for depth, name in enumerate(directories[:LEVELS]):
                if name in places:
                    places[name].add("/".join(parts[:depth]))
                    break
                near.add(PurePath(*parts[: depth + 1]))
    except DeployError as error:
        faults = [*faults[: FAULTS_SHOWN - 1], str(error)]
    found = {name: frozenset(paths) for name, paths in places.items()}
    return Archive(raw, found, frozenset(near), tuple(faults[:FAULTS_SHOWN]))


def unpack(
    path: Path, below: str, to: Path, uid: int, gid: int, but: Collection[str], tell: Tell
) -> None:
    """Unpack what lies below a path in a tar file, without files of some names.

    No link is followed; links are made as they are. All is of the user and group, and on the disk
    in the end. Raises DeployError.
    """
    top = below.split("/") if below else []
    directories = []
    with Place(to, uid, gid) as place:
        for info, content in _members(path, tell):
            parts = _parts(info)
            if parts[: len(top)] != top or len(parts) == len(top) or parts[-1] in but:
                continue
            info.name = "/".join(parts[len(top) :])
            if info.isreg():
                info.type = tarfile.REGTYPE
            info.mode = DIRECTORY if info.isdir() else FILE
            place.put(info, content, (uid, gid))
            if info.isdir():
                directories.append(Directory(info.name, info.mode, int(info.mtime)))
    settle(to, uid, gid, directories)


def _members(path: Path, tell: Tell) -> Iterator[tuple[tarfile.TarInfo, Iterator[bytes]]]:
    """All that is in a tar file, and what files contain. Raises DeployError for a damaged one."""
    try:
        with open(path, "rb") as packed, gzip.GzipFile(fileobj=packed) as unpacked:
            total = os.fstat(packed.fileno()).st_size // MEGABYTE + 1
            with tarfile.open(fileobj=unpacked, mode="r|") as tar:
                while info := tar.next():
                    vars(tar)["members"].clear()  # or it remembers all there are
                    yield info, _pieces(tar, info)
                    tell(packed.tell() // MEGABYTE, total, unpacked.tell())
            _finish(path, unpacked)
            tell(total, total, unpacked.tell())
    except (EOFError, gzip.BadGzipFile, zlib.error, tarfile.TarError) as error:
        raise DeployError(f"{path} is damaged: {error}") from error


def _pieces(tar: tarfile.TarFile, info: tarfile.TarInfo) -> Iterator[bytes]:
    file = tar.extractfile(info) if info.isreg() else None
    while file and (piece := file.read(CHUNK)):
        yield piece


def _finish(path: Path, unpacked: gzip.GzipFile) -> None:
    """Read what is left, which has the checksum of all: zeros, unless tarfile gave up before."""
    while piece := unpacked.read(CHUNK):
        if piece.strip(b"\0"):
            raise DeployError(f"{path} is damaged: it goes on where a tar file should end")


def _parts(info: tarfile.TarInfo) -> list[str]:
    return [part for part in info.name.split("/") if part not in ("", ".")]


def _faults(info: tarfile.TarInfo, parts: list[str]) -> Iterator[str]:
    """Why a member is not unpacked."""
    if info.name.startswith("/") or ".." in parts:
        yield f"{info.name!r} in it would land elsewhere"
    elif not (info.isreg() or info.isdir() or info.issym()):
        yield f"{info.name!r} in it is no file, directory or symbolic link"
