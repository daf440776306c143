"""The snapshots of an instance, on the real disk: which there are, what is freed, what is found."""

import os
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from lava_deploy.errors import UsageError
from lava_deploy.parts import snapshots
from lava_deploy.snapshot import CHECKSUMS, LATEST, MANIFEST, PARTIAL, REMOVING
from tests.fakes.shelf import BEGIN, DAY, DUMP, NEW_DAY, Shelf, members, moment
from tests.unit.test_snapshot import MANIFEST as AS_MADE


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


def test_the_members_of_a_snapshot_are_told_by_their_paths(shelf):
    id = shelf.made(1)
    found = snapshots.members(shelf.system, shelf.at(id))
    assert found[DAY].size == 20000 and sorted(found) == [DUMP, DAY]
    assert snapshots.exists(shelf.system, shelf.host, "demo")


def test_without_a_directory_there_are_no_snapshots(shelf):
    shelf.directory.rmdir()
    assert shelf.listed() == {}
    assert snapshots.last_good(shelf.system, shelf.host, "demo") is None
    assert not snapshots.exists(shelf.system, shelf.host, "demo")
    assert snapshots.leftovers(shelf.system, shelf.host, "demo") == []
    snapshots.set_latest(shelf.system, shelf.directory)


def test_the_order_is_that_of_making_whatever_the_clock_said(shelf):
    first, second = shelf.made(5), shelf.made(30)
    partial = shelf.partial(2, {})
    last = replace(AS_MADE, id=moment(2), sequence=31, members=members(partial.path))
    snapshots.publish(shelf.system, partial, last)
    assert snapshots.names(shelf.system, shelf.host, "demo") == [first, second, last.id]
    assert shelf.latest == last.id


def test_the_directory_of_snapshots_may_be_a_link_to_another_place(shelf, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    shelf.directory.rename(elsewhere)
    shelf.directory.symlink_to(elsewhere)
    id = shelf.made(1)
    assert shelf.latest == id and shelf.listed()[id].good
    snapshots.remove(shelf.system, shelf.at(id))
    assert [*elsewhere.iterdir()] == []


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
    tmp_path.joinpath("database.dump").touch()
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
    with pytest.raises(UsageError, match="there is no snapshot in /etc"):
        shelf.find("/etc")
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
