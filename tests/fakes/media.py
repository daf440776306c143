"""Media of a LAVA and packs of them, for the tests of packs."""

import os
from pathlib import Path

from lava_deploy.packs import Packs, writing
from lava_deploy.snapshot import Group, Packed

NEVER = 0
DAY = "job-output/2026/11/20"
# Of a program that knows no UTF-8.
ODD = os.fsdecode(b"caf\xe9 \n.yaml")


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def pack(packs: Packs, media: Path, to: Path, rate: int = 0) -> dict[str, Packed]:
    """Pack everything; the results by the names of their groups."""
    found = packs.pack(media, packs.groups(media), to, {}, NEVER, rate)
    return {packed.group.name: packed for packed in found}


def task(media: Path, to: Path, day: str = DAY) -> writing.Task:
    name = "-".join(day.split("/")[1:])
    return writing.Task(media, Group(name, (day,)), frozenset(), to, None, NEVER, 10**9, 0)


def listing(tree: Path) -> dict[str, tuple]:
    """All that is in a tree: type and mode, whole seconds of its time, content or target."""
    found = {}
    for path in tree.rglob("*"):
        status = path.lstat()
        content: object = None
        if path.is_symlink():
            content = os.readlink(path)
        elif path.is_file():
            content = path.read_bytes()
        found[str(path.relative_to(tree))] = (status.st_mode, int(status.st_mtime), content)
    return found


def members(to: Path, found: dict[str, Packed]) -> list[tuple[Path, int, str]]:
    return [(to / m.path, m.size, m.sha256) for one in found.values() for m in one.members]


def unpack(packs: Packs, found: list[Path], to: Path) -> None:
    to.mkdir(exist_ok=True)
    packs.unpack(found, to, os.getuid(), os.getgid())
