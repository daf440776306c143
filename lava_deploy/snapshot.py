"""What a snapshot is: the names in its directory, its manifest, and how media are grouped."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

# The format that is written; what a newer lava-deploy wrote is refused.
FORMAT = 1
# The files that make a directory a snapshot; the second has the checksum of the first and of all
# members, for `sha256sum --check`.
MANIFEST, CHECKSUMS = "manifest.json", "MANIFEST.sha256"
# One that is being made, and one that is being removed.
PARTIAL, REMOVING = ".partial", ".removing"
# The link to the newest good one.
LATEST = "latest"
PACK = ".tar.zst"


@dataclass(frozen=True)
class Snapshot:
    """One snapshot and all paths in it; whether it is whole is not known."""

    path: Path

    @property
    def id(self) -> str:
        """The time it was begun at, in the form of `model.STAMP`."""
        return self.path.name

    @property
    def manifest(self) -> Path:
        return self.path / MANIFEST

    @property
    def checksums(self) -> Path:
        return self.path / CHECKSUMS

    @property
    def dump(self) -> Path:
        """What pg_dump wrote in its directory format."""
        return self.path / "db"

    @property
    def media(self) -> Path:
        """The packs of the media, whose members are named relative to the media directory."""
        return self.path / "media"

    @property
    def index(self) -> Path:
        """How the media were found, for the next backup; only a cache."""
        return self.path / "media.index.json.zst"

    @property
    def etc(self) -> Path:
        """instance.yaml and etc/."""
        return self.path / f"etc{PACK}"

    @property
    def worker(self) -> Path:
        """The directory of the local worker."""
        return self.path / f"worker{PACK}"

    @property
    def release(self) -> Path:
        """What the release can be built from again: description, lock, LAVA's own code."""
        return self.path / "release"


@dataclass(frozen=True)
class Member:
    """A file of a snapshot: its path in it, bytes, hash, and bytes before it was compressed."""

    path: str
    size: int
    sha256: str
    raw: int


@dataclass(frozen=True)
class Group:
    """Media that are packed together: a day (`2026-11-20`), or what has no day.

    `roots` are paths relative to the media directory. That of a day is one directory; the group
    `other` has no roots: it is all that is in none of the others.
    """

    name: str
    roots: tuple[str, ...]


@dataclass(frozen=True)
class State:
    """How a group was found: `digest` is equal only if no file of it was touched in between.

    `newest` is the latest ctime in it, in nanoseconds since 1970; `raw` the bytes of its files.
    """

    digest: str
    newest: int
    files: int
    raw: int


@dataclass(frozen=True)
class Packed:
    """What became of a group: its packs, none if it was as known, and what could not be read.

    Paths of `members` are relative to the directory of the packs; `skipped` has a path and a
    reason each.
    """

    group: Group
    state: State
    members: tuple[Member, ...]
    skipped: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Manifest:
    """What a snapshot says of itself.

    `sequence` goes up by one with each of an instance, whatever the clock says; times are ISO 8601
    in UTC. `version`, `source`, `origin`, `locator`, `place`, `commit` and `python` are those of
    the release. `postgres` is the server's major version, `database_size` what the database took
    there. `media` is where the media lay and `worker` the name of the local worker. `running` are
    the numbers of the jobs that had begun and not ended. `skipped` has what could not be read.
    """

    format: int
    id: str
    sequence: int
    instance: str
    version: str
    source: str
    origin: str
    locator: str
    place: str
    commit: str
    python: str
    lock: str
    postgres: int
    dumped_by: str
    database_size: int
    media: str
    worker: str
    running: tuple[int, ...]
    stopped: bool
    begun: str
    ended: str
    tool: str
    note: str
    members: tuple[Member, ...]
    skipped: tuple[tuple[str, str], ...] = ()
