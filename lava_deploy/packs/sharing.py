"""What snapshots share, and by which paths media are exchanged."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from lava_deploy.beside import HIDDEN
from lava_deploy.packs.trees import OLD_JOB, OUTPUT

PIECE = 2**20
# Below job-output: years, months, days; what has another name there is loose.
LEVELS = (re.compile(r"[0-9]{4}"), re.compile(r"[0-9]{2}"), re.compile(r"[0-9]{2}"))


def share(path: Path, to: Path) -> None:
    """Give a file a second name, or make a copy where the file system has no hard links.

    What stood there is replaced in one step; nobody writes into a file with two names.
    """
    if to.exists() and to.samefile(path):  # rename(2) would do nothing and leave the name beside
        return
    beside = to.with_name(f".{to.name}.sharing")
    beside.unlink(missing_ok=True)
    try:
        os.link(path, beside)
    except OSError:  # no hard links, too many of this file, or another disk
        _copy(path, beside)
    beside.replace(to)


def _copy(path: Path, to: Path) -> None:
    handle = os.open(to, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(path, "rb") as read, open(handle, "wb") as written:
        while piece := read.read(PIECE):
            written.write(piece)
        written.flush()
        os.fsync(written)


def loose(media: Path) -> Iterator[str]:
    """The paths of what belongs to no day and no job: the least that hold nothing else."""
    for name in _names(media):
        if name not in (OUTPUT, HIDDEN):
            yield name
    for path in _loose(media / OUTPUT, LEVELS):
        yield f"{OUTPUT}/{path}"


def _loose(directory: Path, levels: tuple[re.Pattern[str], ...]) -> Iterator[str]:
    for name in _names(directory):
        path = directory / name
        top = len(levels) == len(LEVELS)
        is_directory = path.is_dir() and not path.is_symlink()
        if is_directory and levels[0].fullmatch(name):
            if len(levels) > 1:
                yield from (f"{name}/{below}" for below in _loose(path, levels[1:]))
        elif not (is_directory and top and OLD_JOB.fullmatch(name)):
            yield name


def _names(directory: Path) -> list[str]:
    if directory.is_symlink() or not directory.is_dir():
        return []
    return sorted(os.listdir(directory))
