"""The snapshots of an instance, on the real disk: what is good, what is told, what is freed."""

import grp
import hashlib
import json
import os
import pwd
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from lava_deploy.errors import BrokenSnapshot, DeployError, UsageError
from lava_deploy.model import STAMP, Host
from lava_deploy.parts import snapshots
from lava_deploy.parts.snapshots import RECORDS, Listed
from lava_deploy.snapshot import CHECKSUMS, LATEST, MANIFEST, PARTIAL, REMOVING, Member, Snapshot
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


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)


def test_a_published_snapshot_is_good_and_the_latest(shelf):
    id = shelf.made(1)
    assert shelf.listed()[id].good
    assert shelf.faults(id) == {}
    assert shelf.latest == id
    names = sorted(path.name for path in shelf.at(id).path.iterdir())
    assert names == [CHECKSUMS, "db", MANIFEST, "media"]
    assert shelf.at(id).manifest.stat().st_mode & 0o777 == 0o600


def test_sha256sum_agrees_with_a_published_snapshot(shelf):
    path = shelf.at(shelf.made(1)).path
    command = ["sha256sum", "--check", "--strict", "--quiet", CHECKSUMS]
    assert subprocess.run(command, cwd=path).returncode == 0


def test_publishing_may_be_repeated(shelf):
    partial = shelf.partial(1, {})
    manifest = replace(AS_MADE, id=moment(1), sequence=1, members=members(partial.path))
    once = snapshots.publish(shelf.system, partial, manifest)
    assert snapshots.publish(shelf.system, partial, manifest) == once
    assert shelf.listed()[once.id].good


def test_without_a_directory_there_are_no_snapshots(shelf):
    shelf.directory.rmdir()
    assert shelf.listed() == {}
    assert snapshots.last_good(shelf.system, shelf.host, "demo") is None
    assert not snapshots.exists(shelf.system, shelf.host, "demo")
    assert snapshots.leftovers(shelf.system, shelf.host, "demo") == []
    snapshots.set_latest(shelf.system, shelf.host, "demo")


def test_the_order_is_that_of_making_whatever_the_clock_said(shelf):
    late, early = shelf.made(30), shelf.made(5)
    manifest = json.loads(shelf.at(early).manifest.read_text())
    assert [*shelf.listed()] == [early, late]
    partial = shelf.partial(2, {})
    newest = replace(
        AS_MADE, id=moment(2), sequence=manifest["sequence"] + 30, members=members(partial.path)
    )
    snapshots.publish(shelf.system, partial, newest)
    assert snapshots.names(shelf.system, shelf.host, "demo") == [early, late, moment(2)]
    assert shelf.latest == moment(2)


def test_the_directory_of_snapshots_may_be_a_link_to_another_place(shelf, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    shelf.directory.rename(elsewhere)
    shelf.directory.symlink_to(elsewhere)
    id = shelf.made(1)
    assert shelf.latest == id and shelf.listed()[id].good
    snapshots.remove(shelf.system, shelf.at(id))
    assert [*elsewhere.iterdir()] == []


# What is broken


@pytest.mark.parametrize("name", [DUMP, DAY, MANIFEST, CHECKSUMS])
def test_a_flipped_bit_is_found_in_every_kind_of_file(shelf, name):
    id = shelf.made(1)
    flip(shelf.at(id).path / name)
    assert [*shelf.faults(id)] == ([name] if name != CHECKSUMS else [CHECKSUMS])


def test_a_flipped_bit_is_found_anywhere_in_the_manifest_and_its_checksums(shelf):
    id = shelf.made(1)
    for name in (MANIFEST, CHECKSUMS):
        path = shelf.at(id).path / name
        sound = path.read_bytes()
        for place in range(0, len(sound), 3):
            changed = bytearray(sound)
            changed[place] ^= 1 << (place // 3 % 8)
            path.write_bytes(changed)
            assert shelf.faults(id), (name, place)
        path.write_bytes(sound)
    assert shelf.faults(id) == {}


def test_all_that_is_wrong_is_told_at_once(shelf):
    id = shelf.made(1, {NEW_DAY: b"new", "etc.tar.zst": b"etc", "worker.tar.zst": b"worker"})
    path = shelf.at(id).path
    (path / DUMP).unlink()
    os.truncate(path / DAY, 100)
    flip(path / NEW_DAY)
    (path / "etc.tar.zst").unlink()
    (path / "etc.tar.zst").symlink_to("/etc/hostname")
    (path / "media/more").write_text("more")
    assert shelf.faults(id) == {
        DUMP: "is missing",
        DAY: "has 100 bytes instead of 20000",
        NEW_DAY: "has other bytes",
        "etc.tar.zst": "is no file",
        "media/more": "is no member",
    }


def test_an_edited_manifest_is_found_also_by_a_quick_look(shelf):
    id = shelf.made(1)
    path = shelf.at(id).manifest
    path.write_text(path.read_text().replace("Debian sid", "elsewhere!"))
    assert shelf.listed()[id].faults == ("manifest.json: is not what MANIFEST.sha256 says",)
    with pytest.raises(BrokenSnapshot, match=r"manifest\.json: is not what"):
        snapshots.read(shelf.system, shelf.at(id))


def test_checksums_of_other_members_than_the_manifest_has_are_found(shelf):
    id = shelf.made(1)
    path = shelf.at(id).checksums
    whole = path.read_text()
    for text, fault in (
        (whole.replace(DAY, NEW_DAY), f"says otherwise than manifest.json of {DAY}, {NEW_DAY}"),
        ("", "is not what MANIFEST.sha256 says"),
        ("".join(reversed(whole.splitlines(keepends=True))), "is not as it was written"),
        (whole.replace("\n", "\r\n"), "is not as it was written"),
        ("nothing\n", "line 1: should be a SHA-256, two spaces and a path"),
    ):
        path.write_bytes(text.encode())
        assert fault in " ".join(shelf.listed()[id].faults)


def test_without_a_manifest_members_are_still_verified_by_the_checksums(shelf):
    id = shelf.made(1)
    shelf.at(id).manifest.unlink()
    flip(shelf.at(id).path / DAY)
    assert shelf.faults(id) == {MANIFEST: "is missing", DAY: "has other bytes"}


def test_without_checksums_members_are_still_verified_by_the_manifest(shelf):
    id = shelf.made(1)
    shelf.at(id).checksums.write_bytes(b"\xff")
    flip(shelf.at(id).path / DAY)
    found = shelf.faults(id)
    assert found.pop(CHECKSUMS).startswith("cannot be read: ")
    assert found == {DAY: "has other bytes"}


def test_a_snapshot_of_a_newer_format_is_listed_as_what_it_is(shelf):
    id = shelf.made(1)
    path = shelf.at(id).manifest
    path.write_text(path.read_text().replace('"format": 1', '"format": 2'))
    assert shelf.listed()[id].faults == (
        "manifest.json: made by a newer lava-deploy (format 2, this one reads up to 1)",
    )


def test_an_empty_directory_with_an_id_is_broken(shelf):
    (shelf.directory / moment(1)).mkdir()
    assert shelf.listed()[moment(1)].faults == (
        "MANIFEST.sha256: is missing",
        "manifest.json: is missing",
    )


# What is remembered


def test_a_broken_one_is_never_the_latest_and_not_taken_for_the_newest_good_one(shelf):
    good, broken = shelf.made(1), shelf.made(2)
    (shelf.at(broken).path / DUMP).unlink()
    snapshots.set_latest(shelf.system, shelf.host, "demo")
    assert shelf.latest == good
    assert snapshots.last_good(shelf.system, shelf.host, "demo") == shelf.at(good)
    assert snapshots.newest_good([*shelf.listed().values()]).snapshot.id == good
    assert shelf.find("latest") == shelf.at(good).path


def test_a_fault_that_only_reading_finds_is_remembered_until_a_verification_finds_none(shelf):
    id = shelf.made(1)
    flip(shelf.at(id).path / DUMP)
    assert shelf.listed()[id].good
    shelf.verified(id, 20)
    assert shelf.listed()[id].faults == (
        f"{DUMP}: has other bytes (found at 2026-11-25T20:00:00+00:00)",
    )
    assert shelf.latest == ""
    flip(shelf.at(id).path / DUMP)
    shelf.verified(id, 21)
    one = shelf.listed()[id]
    assert (one.good, one.verified, one.level) == (True, "2026-11-25T21:00:00+00:00", "read")
    assert shelf.latest == id


def test_a_pack_that_is_broken_in_one_is_broken_in_all_that_share_it(shelf):
    first = shelf.made(1)
    second = shelf.made(2, linked=first)
    other = shelf.made(3)
    flip(shelf.at(first).path / DAY)
    shelf.verified(second)
    found = shelf.listed()
    assert found[first].faults == (
        f"{DAY}: is one file with {second}/{DAY}, which was found broken",
    )
    assert [one.good for one in found.values()] == [False, False, True]
    snapshots.remove(shelf.system, shelf.at(second))
    assert not shelf.listed()[first].good
    snapshots.remove(shelf.system, shelf.at(first))
    assert not (shelf.directory / RECORDS).exists()
    assert shelf.listed()[other].good


def test_another_file_with_the_inode_of_a_broken_one_is_not_taken_for_it(shelf):
    first = shelf.made(1)
    second = shelf.made(2, linked=first)
    flip(shelf.at(first).path / DAY)
    shelf.verified(first)
    assert not shelf.listed()[second].good
    path = shelf.at(second).path / DAY
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(0, 0))
    assert shelf.listed()[second].good


def test_what_was_damaged_before_a_snapshot_came_to_share_it_is_no_fault_of_that_one(shelf):
    first = shelf.made(1)
    flip(shelf.at(first).path / DAY)
    shelf.verified(first)
    later = shelf.made(2, linked=first)
    assert shelf.listed()[later].good
    shelf.verified(later)
    found = shelf.listed()
    assert (found[first].good, found[later].good) == (False, True)


def test_a_mark_is_kept_until_it_is_taken_away(shelf):
    id = shelf.made(1)
    snapshots.mark_kept(shelf.system, shelf.at(id))
    assert shelf.listed()[id].kept
    assert (shelf.directory / RECORDS).stat().st_mode & 0o777 == 0o600
    snapshots.unmark(shelf.system, shelf.at(id))
    assert not shelf.listed()[id].kept
    assert not (shelf.directory / RECORDS).exists()


def test_records_of_what_is_gone_are_dropped(shelf):
    gone, there = shelf.made(1), shelf.made(2)
    for id in (gone, there):
        snapshots.mark_kept(shelf.system, shelf.at(id))
    snapshots.remove(shelf.system, shelf.at(gone))
    assert [*shelf.records["snapshots"]] == [there]


@pytest.mark.parametrize("text", ["{", "[]", '{"format": 2}', '{"format": 1, "snapshots": {}}'])
def test_damaged_records_are_not_taken_for_none(shelf, text):
    shelf.made(1)
    (shelf.directory / RECORDS).write_text(text)
    with pytest.raises(DeployError, match=r"records\.json cannot be read"):
        shelf.listed()


# What goes


def test_removing_leaves_the_others_whole_and_turns_the_latest(shelf):
    first = shelf.made(1)
    second = shelf.made(2, linked=first)
    snapshots.remove(shelf.system, shelf.at(second))
    assert [*shelf.listed()] == [first]
    assert shelf.faults(first) == {} and shelf.latest == first
    third = shelf.made(3, linked=first)
    snapshots.remove(shelf.system, shelf.at(first))
    assert shelf.faults(third) == {}
    snapshots.remove(shelf.system, shelf.at(third))
    assert [*shelf.directory.iterdir()] == []


def test_what_is_not_there_or_half_removed_may_be_removed(shelf):
    id = shelf.made(1)
    path = shelf.at(id).path
    path.rename(path.with_name(f"{id}{REMOVING}"))
    snapshots.remove(shelf.system, shelf.at(id))
    snapshots.remove(shelf.system, shelf.at(id))
    assert [*shelf.directory.iterdir()] == []


def test_of_a_snapshot_that_lies_elsewhere_the_link_is_removed(shelf, tmp_path):
    id = shelf.made(1)
    shelf.at(id).path.rename(tmp_path / id)
    shelf.at(id).path.symlink_to(tmp_path / id)
    assert shelf.listed()[id].good
    snapshots.remove(shelf.system, shelf.at(id))
    assert (tmp_path / id / MANIFEST).exists() and shelf.listed() == {}


def test_what_killed_runs_left_is_no_snapshot(shelf):
    id = shelf.made(1)
    for name in (f"{moment(2)}{PARTIAL}", f"{moment(3)}{REMOVING}"):
        (shelf.directory / name).mkdir()
    (shelf.directory / f"{moment(4)}.found{PARTIAL}").touch()
    assert [*shelf.listed()] == [id]
    left = snapshots.leftovers(shelf.system, shelf.host, "demo")
    assert [path.name.partition(".")[0] for path in left] == [moment(2), moment(3), moment(4)]


def usage(directory: Path) -> int:
    said = subprocess.run(
        ["du", "--summarize", "--block-size=1", directory], capture_output=True, text=True
    )
    return int(said.stdout.split()[0])


def test_what_is_said_to_be_freed_comes_true(shelf):
    first = shelf.made(1)
    second = shelf.made(2, {NEW_DAY: b"new" * 9999}, linked=first)
    shelf.made(3, linked=first)
    for ids in ((second,), (first, moment(3))):
        before = usage(shelf.directory)
        freed = snapshots.freed(shelf.system, map(shelf.at, ids))
        for id in ids:
            snapshots.remove(shelf.system, shelf.at(id))
        assert before - usage(shelf.directory) == freed


def test_what_is_its_own_and_what_is_shared_make_up_what_it_takes(shelf):
    first = shelf.made(1)
    assert shelf.listed()[first].shared == 0
    second = shelf.made(2, linked=first)
    one = shelf.listed()[second]
    pack = (shelf.at(second).path / DAY).stat().st_blocks * 512
    assert one.shared == shelf.listed()[first].shared == pack
    assert one.own + one.shared == usage(shelf.at(second).path)


# Names and times


def test_a_taken_second_gives_the_next_free_one():
    taken = ["2026-11-21T18-30-00Z", "2026-11-21T18-30-01Z.partial", "2026-11-21T18-30-03Z"]
    assert snapshots.next_id(BEGIN, taken) == "2026-11-21T18-30-02Z"
    assert snapshots.next_id(BEGIN, []) == "2026-11-21T18-30-00Z"


def test_a_clock_that_went_backwards_is_warned_of():
    assert snapshots.clock_fault(BEGIN, "") == ""
    assert snapshots.clock_fault(BEGIN, "2026-11-21T18-30-00Z") == ""
    assert "2026-11-21T18-30-01Z" in snapshots.clock_fault(BEGIN, "2026-11-21T18-30-01Z")


def test_a_snapshot_is_found_by_its_id_or_that_of_another_instance_or_a_path(shelf, tmp_path):
    id = shelf.made(1)
    path = shelf.at(id).path
    shelf.directory.parent.joinpath("other").symlink_to("demo")
    other = shelf.directory.parent / "other"
    assert shelf.find(id) == shelf.find("latest") == shelf.find(f"{path}/") == path
    assert shelf.find(f"other/{id}") == shelf.find("other/latest") == other / id
    assert shelf.find(str(shelf.directory / LATEST)) == path
    assert shelf.find(str(tmp_path)) == tmp_path


def test_a_relative_path_is_found_from_where_the_admin_is(shelf, monkeypatch):
    id = shelf.made(1)
    monkeypatch.chdir(shelf.directory.parent)
    assert shelf.find(f"demo/{id}") == shelf.find(f"./demo/{id}") == shelf.at(id).path


def test_a_wrong_name_is_answered_with_those_there_are(shelf):
    ids = [shelf.made(number) for number in range(1, 8)]
    with pytest.raises(UsageError, match="demo has no snapshot 2026-11-22T18-30-01Z") as refused:
        shelf.find("2026-11-22T18-30-01Z")
    assert refused.value.hint.startswith(f"There are: {ids[0]}, ")
    assert refused.value.hint.endswith(" and 2 more.")
    for text in ("yesterday", "", f"{ids[0]}.partial", "demo/records.json"):
        with pytest.raises(UsageError, match="demo has no snapshot"):
            shelf.find(text)
    with pytest.raises(UsageError, match="there is no directory /nowhere"):
        shelf.find("/nowhere")
    with pytest.raises(UsageError, match="elsewhere has no good snapshot") as none:
        shelf.find("elsewhere/latest")
    assert none.value.hint == "There are none."


def test_ten_snapshots_of_250_members_are_looked_at_in_a_fraction_of_a_second(shelf):
    first = shelf.made(1, {f"media/{number}.tar.zst": b"logs" for number in range(250)})
    files = [path for path in shelf.at(first).media.iterdir() if path.name != Path(DAY).name]
    for sequence in range(2, 11):
        partial = shelf.partial(sequence, {}, linked=first)
        for path in files:
            os.link(path, partial.media / path.name)
        manifest = snapshots.read(shelf.system, shelf.at(first))
        its = [one for one in manifest.members if one.path != DUMP]
        its += [one for one in members(partial.path) if one.path == DUMP]
        new = replace(manifest, id=moment(sequence), sequence=sequence, members=tuple(its))
        snapshots.publish(shelf.system, partial, new)
    begun = time.process_time()
    assert all(one.good for one in shelf.listed().values())
    assert time.process_time() - begun < 0.4
    begun = time.process_time()
    assert snapshots.last_good(shelf.system, shelf.host, "demo") == shelf.at(moment(10))
    assert time.process_time() - begun < 0.2
