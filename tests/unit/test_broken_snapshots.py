"""What is wrong with snapshots on the real disk: how it is found, and remembered."""

import os
from pathlib import Path

import pytest

from lava_deploy.errors import BrokenSnapshot, DeployError
from lava_deploy.parts import snapshots
from lava_deploy.parts.snapshots import RECORDS
from lava_deploy.snapshot import CHECKSUMS, MANIFEST
from tests.fakes.shelf import DAY, DUMP, NEW_DAY, Shelf, flip, moment


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)


@pytest.mark.parametrize("name", [DUMP, DAY, MANIFEST, CHECKSUMS])
def test_a_flipped_bit_is_found_in_every_kind_of_file(shelf, name):
    id = shelf.made(1)
    flip(shelf.at(id).path / name)
    assert [*shelf.faults(id)] == [name]


def test_a_flipped_bit_is_found_anywhere_in_the_manifest_and_its_checksums(shelf):
    id = shelf.made(1)
    for name in (MANIFEST, CHECKSUMS):
        path = shelf.at(id).path / name
        sound = path.read_bytes()
        for place in range(0, len(sound), 7):
            changed = bytearray(sound)
            changed[place] ^= 1 << (place // 7 % 8)
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


def test_a_file_with_an_id_is_broken(shelf):
    (shelf.directory / moment(1)).touch()
    faults = shelf.listed()[moment(1)].faults
    assert [fault.partition(" ")[0] for fault in faults] == ["MANIFEST.sha256:", "manifest.json:"]


def test_a_manifest_that_is_no_json_is_broken_and_older_than_all_others(shelf):
    good, broken = shelf.made(1), shelf.made(2)
    shelf.at(broken).manifest.write_text("{")
    assert [(id, one.good) for id, one in shelf.listed().items()] == [(broken, False), (good, True)]


def test_a_broken_one_is_never_the_latest_and_not_taken_for_the_newest_good_one(shelf):
    good, broken = shelf.made(1), shelf.made(2)
    (shelf.at(broken).path / DUMP).unlink()
    snapshots.set_latest(shelf.system, shelf.directory)
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
