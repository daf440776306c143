"""What a backup stores of media, what it shares with the one before, what a restore exchanges."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from lava_deploy import packs as door
from lava_deploy.packs import Packs
from lava_deploy.parts import media as part
from lava_deploy.parts.media import Kept
from lava_deploy.snapshot import Member, Snapshot
from lava_deploy.system import System
from tests.fakes.media import DAY, write

MINUTE = 60 * 10**9
PACK = "media/2026-11-20.tar.zst"


class Shop:
    """Snapshots of media, of which nothing else is kept; each is later than what it finds."""

    def __init__(self, packs: Packs, media: Path, directory: Path) -> None:
        self.packs, self.media, self.directory = packs, media, directory

    def keep(self, name: str, previous: str = "", without: str = "") -> Kept:
        """Take one; `without` is a pack that the previous one lacks."""
        to = self.at(name)
        to.media.mkdir(parents=True)
        before = self.at(previous) if previous else None
        former = {path: one for path, one in self.members(before).items() if path != without}
        self.packs.now = lambda: max(self._times()) + MINUTE
        return part.keep(self.packs, self.media, to, before, former, 0, lambda *_: None)

    def at(self, name: str) -> Snapshot:
        return Snapshot(self.directory / name)

    def members(self, snapshot: Snapshot | None) -> dict[str, Member]:
        found = self.packs.members(snapshot.path, snapshot.path) if snapshot else []
        return {one.path: one for one in found}

    def _times(self) -> Iterator[int]:
        for path in [self.media, *self.media.rglob("*")]:
            yield path.lstat().st_ctime_ns

    def shared(self, one: str, other: str) -> set[str]:
        """The packs that are the same file in both."""
        names = {path.name for path in self.at(one).media.iterdir()}
        pairs = [(name, self.at(one).media / name, self.at(other).media / name) for name in names]
        return {name for name, path, same in pairs if same.exists() and same.samefile(path)}


@pytest.fixture
def shop(quick_packs: Packs, media: Path, tmp_path: Path) -> Shop:
    return Shop(quick_packs, media, tmp_path / "snapshots")


ALL = {
    *("2026-11-20.tar.zst", "2026-11-21.tar.zst"),
    *("old-0.tar.zst", "old-1.tar.zst", "other.tar.zst"),
}


def test_all_that_is_in_a_snapshot_is_told_as_a_member(shop):
    kept = shop.keep("one")
    assert {one.path for one in kept.members} == {*shop.members(shop.at("one"))}
    assert {one.path for one in kept.members if one.path.startswith("media/")} == {
        f"media/{name}" for name in ALL
    }
    assert kept.skipped == []


def test_what_was_not_touched_is_shared_and_never_read(shop, monkeypatch):
    first = shop.keep("one")
    monkeypatch.setattr(os, "read", lambda *_: pytest.fail("something is read"))
    second = shop.keep("two", "one")
    assert shop.shared("one", "two") == ALL
    packs = [
        {one.path: one.sha256 for one in kept.members if one.path.startswith("media/")}
        for kept in (first, second)
    ]
    assert packs[0] == packs[1]


def test_only_a_day_that_was_touched_is_packed_again(shop, media):
    first = shop.keep("one")
    write(media / DAY / "7/output.yaml", "- more\n")
    second = shop.keep("two", "one")
    assert shop.shared("one", "two") == ALL - {"2026-11-20.tar.zst"}
    sums = [{one.path: one.sha256 for one in kept.members} for kept in (first, second)]
    assert sums[0][PACK] != sums[1][PACK]


def test_a_day_that_was_touched_and_is_the_same_is_shared_all_the_same(shop, media):
    shop.keep("one")
    log = media / DAY / "7/output.yaml"
    log.chmod(log.stat().st_mode)
    assert shop.packs.untouched(media, shop.packs.read_index(shop.at("one").index)) == [
        *("2026-11-21", "old-0", "old-1", "other")
    ]
    shop.keep("two", "one")
    assert shop.shared("one", "two") == ALL


def test_what_the_snapshot_before_lacks_is_made_again(shop):
    shop.keep("one")
    (shop.at("one").path / PACK).unlink()
    second = shop.keep("two", "one", without=PACK)
    assert shop.shared("one", "two") == ALL - {"2026-11-20.tar.zst"}
    assert PACK in [one.path for one in second.members]
    assert shop.packs.check_deep([shop.at("two").path / PACK]) == {}


def test_without_an_index_everything_is_packed_again_and_shared(shop):
    shop.keep("one")
    shop.at("one").index.write_text("torn")
    shop.keep("two", "one")
    assert shop.shared("one", "two") == ALL


def test_a_third_snapshot_shares_what_the_second_had_shared(shop):
    shop.keep("one")
    shop.keep("two", "one")
    shutil.rmtree(shop.at("one").path)
    shop.keep("three", "two")
    assert shop.shared("two", "three") == ALL


def test_of_a_day_that_is_cut_all_packs_are_shared(shop, monkeypatch):
    monkeypatch.setattr(door, "PACK_LIMIT", 5)
    shop.keep("one")
    cut = {"2026-11-20.1.tar.zst", "2026-11-20.2.tar.zst"}
    shop.keep("two", "one")
    assert cut < shop.shared("one", "two")
    monkeypatch.setattr(door, "PACK_LIMIT", 10**9)
    shop.keep("three", "two", without="media/2026-11-20.2.tar.zst")
    assert "2026-11-20.tar.zst" in {path.name for path in shop.at("three").media.iterdir()}
    assert not cut & {path.name for path in shop.at("three").media.iterdir()}


def test_a_day_that_went_is_in_no_later_snapshot(shop, media):
    shop.keep("one")
    shutil.rmtree(media / DAY)
    kept = shop.keep("two", "one")
    assert PACK not in [one.path for one in kept.members]


def test_what_could_not_be_kept_is_told_each_time(shop, media):
    shutil.rmtree(media / "job-output/2026/11/21")
    (media / "job-output/2026/11/21").symlink_to("20")
    told = [("job-output/2026/11/21", "is a link: what it leads to is not packed")]
    assert shop.keep("one").skipped == told
    assert shop.keep("two", "one").skipped == told


def test_what_differs_is_exchanged_and_days_that_stay_are_not(quick_packs, media, tmp_path):
    waiting = tmp_path / "waiting"
    for path in (f"{DAY}/7/output.yaml", "job-output/2026/09/30/1/output.yaml", "new/file"):
        write(waiting / path, "")
    stay = {"2026-11-21", "old-0", "old-1"}
    assert part.exchanges(quick_packs, media, waiting, stay) == [
        ("export", False, True),
        ("job-output/2026/09/30", True, False),
        (DAY, True, True),
        ("new", True, False),
    ]
    assert part.exchanges(quick_packs, media, waiting, {*stay, "other"}) == [
        ("job-output/2026/09/30", True, False),
        (DAY, True, True),
    ]


def test_of_a_job_that_ran_the_index_of_its_log_goes(quick_packs, media):
    write(media / "job-output/job-12/output.idx", "")
    part.forget_log_indexes(quick_packs, System({}), media, [7, 12, 4711])
    assert [*media.rglob("output.idx")] == []
    assert (media / DAY / "7/output.yaml").exists()


def test_of_other_jobs_the_indexes_stay(quick_packs, media):
    part.forget_log_indexes(quick_packs, System({}), media, [8])
    assert (media / DAY / "7/output.idx").exists()
