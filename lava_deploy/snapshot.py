"""What a snapshot is: the names in its directory, its manifest, and how media are grouped."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lava_deploy.errors import BrokenSnapshot
from lava_deploy.model import STAMP

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

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
# What lava-deployment-tool wrote in 2012 instead: the database, the media, its etc/.
LEGACY = ("database.dump", "files.tar.gz", "etc.tar.gz")
# How the reasons begin for which a file that others were writing or removing is not in a snapshot.
PASSING = ("vanished", "became something else", "got shorter")
ABOUT = "A snapshot of a LAVA instance; backups/README.rst of lava-deploy restores it by hand."
SUM, SUM_LINE = re.compile(r"[0-9a-f]{64}"), re.compile(r"([0-9a-f]{64})  (.+)")
# What sha256sum would have to escape is in no name.
UNFIT_IN_PATHS = re.compile(r"[\x00-\x1f\x7f\\]")
PLAIN: dict[Any, tuple[type, str]] = {
    "int": (int, "a whole number"),
    "str": (str, "a text"),
    "bool": (bool, "true or false"),
}


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


def is_id(text: str) -> bool:
    """Whether a text is what the directory of a whole snapshot is called."""
    try:
        return time_of(text).strftime(STAMP) == text
    except ValueError:
        return False


def time_of(id: str) -> datetime:
    """When a snapshot was begun. Raises ValueError for what is no id."""
    return datetime.strptime(id, STAMP).replace(tzinfo=UTC)


def text(manifest: Manifest) -> str:
    """The text of manifest.json: JSON in the order of the fields, a line for each and each member.

    It is ASCII, so that names in whatever encoding survive in it.
    """
    values = {"about": ABOUT, **asdict(manifest)}
    lines = [f"  {json.dumps(name)}: {_shown(value)}" for name, value in values.items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _shown(value: Any) -> str:
    """JSON on one line, or on one for each thing in a list of things."""
    if not isinstance(value, tuple) or not any(isinstance(each, dict | tuple) for each in value):
        return json.dumps(value)
    return "[\n" + ",\n".join(f"    {json.dumps(each)}" for each in value) + "\n  ]"


def parse(text: str) -> Manifest:
    """The manifest in the text of manifest.json.

    Names that are not known are passed by: the same format may come to tell more. Raises
    BrokenSnapshot with all faults, or the one that a newer lava-deploy made it.
    """
    try:
        said = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BrokenSnapshot(MANIFEST, [f"is no JSON: {error}"]) from error
    found = _version_faults(said) or [*_manifest_faults(said)]
    if found:
        raise BrokenSnapshot(MANIFEST, found)
    plain = {each.name: said[each.name] for each in fields(Manifest) if each.type in PLAIN}
    members = [
        Member(one["path"], one["size"], one["sha256"], one["raw"]) for one in said["members"]
    ]
    skipped = [(path, reason) for path, reason in said.get("skipped", [])]
    return Manifest(
        **plain, running=tuple(said["running"]), members=tuple(members), skipped=tuple(skipped)
    )


def sequence_of(text: str) -> int:
    """Which of its instance's snapshots it is by the text of a manifest; 0 where that is broken."""
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        return 0
    sequence = said.get("sequence") if isinstance(said, dict) else None
    return sequence if type(sequence) is int else 0


def _version_faults(said: Any) -> list[str]:
    """What keeps all else from being looked at."""
    version = said.get("format") if isinstance(said, dict) else None
    if type(version) is not int or version < 1:
        return ["has no format number"]
    if version > FORMAT:
        newer = f"format {version}, this one reads up to {FORMAT}"
        return [f"made by a newer lava-deploy ({newer})"]
    return []


def _manifest_faults(said: Mapping[str, Any]) -> Iterator[str]:
    yield from _plain_faults(Manifest, said, "")
    if isinstance(said.get("id"), str) and not is_id(said["id"]):
        yield f"id: {said['id']!r} is none"
    for name in ("begun", "ended"):
        if isinstance(said.get(name), str) and not _is_time(said[name]):
            yield f"{name}: {said[name]!r} is no time in ISO 8601, with its zone"
    for name in ("running", "members"):
        if not isinstance(said.get(name), list):
            yield f"{name}: should be a list"
        elif name == "running" and any(type(job) is not int for job in said[name]):
            yield "running: should be numbers of jobs"
        elif name == "members":
            yield from _member_faults(said[name])
    skipped = said.get("skipped", [])
    if not isinstance(skipped, list) or not all(_is_pair(each) for each in skipped):
        yield "skipped: should be a list of paths with a reason each"


def _plain_faults(kind: type, said: Mapping[str, Any], where: str) -> Iterator[str]:
    """What is missing, or of another type than it should be; no number is negative."""
    for each in fields(kind):
        if each.type not in PLAIN:
            continue
        wanted, words = PLAIN[each.type]
        value = said.get(each.name)
        if each.name not in said:
            yield f"{where}{each.name}: is missing"
        elif type(value) is not wanted or (type(value) is int and value < 0):
            yield f"{where}{each.name}: should be {words}, not {value!r}"


def _member_faults(members: list[Any]) -> Iterator[str]:
    seen: set[str] = set()
    for number, member in enumerate(members):
        where = f"members[{number}]"
        if not isinstance(member, dict):
            yield f"{where}: should have a path, size, sha256 and raw"
            continue
        faults = [*_plain_faults(Member, member, f"{where}.")]
        yield from faults
        if not faults:
            yield from _name_faults(member["path"], seen, where)
            if not SUM.fullmatch(member["sha256"]):
                yield f"{where}.sha256: {member['sha256']!r} is no SHA-256"
            seen.add(member["path"])


def _name_faults(path: str, seen: set[str], where: str) -> Iterator[str]:
    """Paths lead nowhere but into the snapshot, to a file of their own."""
    if any(part in ("", ".", "..") for part in path.split("/")) or UNFIT_IN_PATHS.search(path):
        yield f"{where}.path: {path!r} is no path in a snapshot"
    if path in seen or path in (MANIFEST, CHECKSUMS):
        yield f"{where}.path: {path} cannot be a member, or not twice"


def _is_time(text: str) -> bool:
    try:
        return datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and [type(each) for each in value] == [str, str]


def checksums(manifest: str, members: Iterable[Member]) -> str:
    """The text of MANIFEST.sha256 for the text of a manifest: what `sha256sum --check` reads."""
    sums = {MANIFEST: digest(manifest), **{each.path: each.sha256 for each in members}}
    return "".join(f"{sha256}  {path}\n" for path, sha256 in sums.items())


def digest(text: str) -> str:
    """The SHA-256 of a text as it stands in a file."""
    return hashlib.sha256(text.encode()).hexdigest()


def parse_checksums(text: str) -> dict[str, str]:
    """The SHA-256 of each path in the text of MANIFEST.sha256. Raises BrokenSnapshot."""
    *lines, rest = text.split("\n")
    found = [f"line {len(lines) + 1}: ends too early"] if rest else []
    sums: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        matched = SUM_LINE.fullmatch(line)
        if not matched:
            found.append(f"line {number}: should be a SHA-256, two spaces and a path")
        elif matched[2] in sums:
            found.append(f"line {number}: {matched[2]} stands there twice")
        else:
            sums[matched[2]] = matched[1]
    if found:
        raise BrokenSnapshot(CHECKSUMS, found)
    return sums
