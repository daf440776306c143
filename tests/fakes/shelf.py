"""Snapshots of an instance on the real disk, made without an instance."""

import grp
import hashlib
import json
import os
import pwd
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from lava_deploy.model import STAMP, Host
from lava_deploy.parts import snapshots
from lava_deploy.parts.snapshots import RECORDS, Listed
from lava_deploy.snapshot import LATEST, PARTIAL, Member, Snapshot
from lava_deploy.system import System
from tests.unit.test_snapshot import MANIFEST as AS_MADE

BEGIN = datetime(2026, 11, 21, 18, 30, tzinfo=UTC)
DUMP, DAY, NEW_DAY = "db/toc.dat", "media/2026-11-20.tar.zst", "media/2026-11-21.tar.zst"


class Here(System):
    """This machine, for whoever runs the tests: what is root's is theirs."""

    def write(
        self, path: Path, text: str, mode: int = 0o644, owner: str = "root", group: str = "root"
    ) -> None:
        me, mine = pwd.getpwuid(os.getuid()).pw_name, grp.getgrgid(os.getgid()).gr_name
        super().write(path, text, mode, me, mine)


class Sums:
    """What `packs` says of files, without its processes."""

    def check(
        self, files: Sequence[tuple[Path, int, str]], tell: Callable[[int, int, int], None]
    ) -> dict[Path, str]:
        tell(len(files), len(files), sum(size for _, size, _ in files))
        return {path: "has other bytes" for path, _, sha256 in files if digest(path) != sha256}


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


class Shelf:
    """The snapshots of the instance `demo`."""

    def __init__(self, root: Path) -> None:
        self.system, self.host = Here(), Host.below(root)
        self.directory = self.host.backups / "demo"
        self.directory.mkdir(parents=True)

    def partial(self, sequence: int, files: dict[str, bytes], linked: str = "") -> Snapshot:
        """What a backup writes before the manifest; the day's pack is that of snapshot `linked`."""
        it = Snapshot(self.directory / f"{moment(sequence)}{PARTIAL}")
        for name, content in {DUMP: b"dump %d" % sequence, **files}.items():
            path = it.path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        if linked:
            it.media.mkdir(exist_ok=True)
            os.link(self.directory / linked / DAY, it.path / DAY)
        return it

    def made(self, sequence: int, files: dict[str, bytes] | None = None, linked: str = "") -> str:
        """The id of a new snapshot."""
        own = {} if linked else {DAY: b"logs" * 5000}
        partial = self.partial(sequence, {**own, **(files or {})}, linked)
        manifest = replace(
            AS_MADE, id=moment(sequence), sequence=sequence, members=members(partial.path)
        )
        return snapshots.publish(self.system, partial, manifest).id

    def at(self, id: str) -> Snapshot:
        return snapshots.at(self.host, "demo", id)

    def listed(self) -> dict[str, Listed]:
        return {one.snapshot.id: one for one in snapshots.listed(self.system, self.host, "demo")}

    def faults(self, id: str) -> dict[str, str]:
        return snapshots.verify(self.system, Sums(), self.at(id), lambda *_: None)

    def verified(self, id: str, hour: int = 20) -> dict[str, str]:
        """Verify a snapshot and remember what was found."""
        found = self.faults(id)
        when = datetime(2026, 11, 25, hour, tzinfo=UTC)
        snapshots.remember_verification(self.system, self.at(id), found, when, "read")
        return found

    def find(self, text: str) -> Path:
        return snapshots.find(self.system, self.host, "demo", text).path

    @property
    def latest(self) -> str:
        return self.system.target(self.directory / LATEST)

    @property
    def records(self) -> dict:
        return json.loads((self.directory / RECORDS).read_text())


def moment(sequence: int) -> str:
    return (BEGIN + timedelta(days=sequence)).strftime(STAMP)


def members(directory: Path) -> tuple[Member, ...]:
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    return tuple(
        Member(str(path.relative_to(directory)), path.stat().st_size, digest(path), 0)
        for path in files
    )


def flip(path: Path) -> None:
    """Turn one bit of a file, as a bad disk does, without a change of its times."""
    before, content = path.stat(), bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
