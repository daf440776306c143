"""The whole file system of a host as a dictionary, made to compare a host before and after."""

import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

# What changes in a host nobody touches, by logging in and by rebooting.
RESTLESS = (
    "/tmp/systemd-private-*",
    "/var/tmp/systemd-private-*",
    "/var/log/wtmp",
    "/var/log/lastlog",
    "/var/lib/systemd/random-seed",
)
KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "link",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
}


class Entry(NamedTuple):
    """One path. Owner and group are numbers; `content` is a SHA-256, a link's target, or ''."""

    kind: str
    mode: int
    owner: int
    group: int
    size: int
    content: str


class Reader:
    """Reads the tree below a root again and again; content that did not change is read once."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._digests: dict[str, tuple[tuple[int, ...], str]] = {}

    def read(self, exclude: Sequence[str] = ()) -> dict[str, Entry]:
        """Every path, as seen in the host (`/etc/passwd`), but the excluded; see Host.manifest."""
        paths = {path.rstrip("/") for path in exclude if not path.endswith("*")}
        beginnings = tuple(path[:-1] for path in exclude if path.endswith("*"))
        return dict(self._entries("", lambda path: path in paths or path.startswith(beginnings)))

    def _entries(
        self, directory: str, left_out: Callable[[str], bool]
    ) -> Iterator[tuple[str, Entry]]:
        """The entries below a directory, named by its path in the host."""
        for each in os.scandir(f"{self._root}{directory}/"):
            path = f"{directory}/{each.name}"
            if left_out(path):
                continue
            try:
                status = each.stat(follow_symlinks=False)
                yield path, self._entry(path, status)
                if stat.S_ISDIR(status.st_mode):
                    yield from self._entries(path, left_out)
            except FileNotFoundError:  # the host is alive: what was listed may be gone
                continue

    def _entry(self, path: str, status: os.stat_result) -> Entry:
        """The entry of a path. The size of a directory says nothing, so it is left out."""
        kind = KINDS[stat.S_IFMT(status.st_mode)]
        content, size = "", status.st_size
        if kind == "file":
            content = self._digest(path, status)
        elif kind == "link":
            content = os.readlink(f"{self._root}{path}")
        else:
            size = 0
        mode = stat.S_IMODE(status.st_mode)
        return Entry(kind, mode, status.st_uid, status.st_gid, size, content)

    def _digest(self, path: str, status: os.stat_result) -> str:
        """The SHA-256 of a file; the time of its last change tells whether it is known."""
        state = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        known = self._digests.get(path)
        if known and known[0] == state:
            return known[1]
        with open(f"{self._root}{path}", "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        self._digests[path] = (state, digest)
        return digest


def difference(before: dict[str, Entry], after: dict[str, Entry]) -> dict[str, str]:
    """What became of each path that is not as before: `added`, `removed` or `changed`."""
    changes = dict.fromkeys(after.keys() - before.keys(), "added")
    changes |= dict.fromkeys(before.keys() - after.keys(), "removed")
    both = before.keys() & after.keys()
    changes |= {path: "changed" for path in both if before[path] != after[path]}
    return dict(sorted(changes.items()))
