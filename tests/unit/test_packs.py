"""Packs: how media are grouped, what comes out of quick_packs, their index."""

import os
import shutil
import stat
import subprocess
import tarfile
import time
from pathlib import Path

import pytest

from lava_deploy import packs as door
from lava_deploy.packs import Packs, writing
from lava_deploy.snapshot import Group, State
from tests.fakes.media import DAY, NEVER, ODD, listing, members, pack, unpack, write


def test_media_are_grouped_by_day_and_jobs_of_old_by_the_thousand(
    quick_packs: Packs, media: Path
) -> None:
    assert quick_packs.groups(media) == [
        Group("2026-11-21", ("job-output/2026/11/21",)),
        Group("2026-11-20", (DAY,)),
        Group("old-0", ("job-output/job-12", "job-output/job-999")),
        Group("old-1", ("job-output/job-1000",)),
        Group("other", ()),
    ]


def test_what_is_no_directory_where_one_is_expected_belongs_to_no_day(
    quick_packs: Packs, media: Path, to: Path, tmp_path: Path
) -> None:
    write(media / "job-output/2026/11/22", "a file")
    write(media / "job-output/2027", "a file")
    (media / "job-output/2026/12").symlink_to("11")
    found = pack(quick_packs, media, to)
    assert len(found) == 5
    unpack(quick_packs, [each[0] for each in members(to, found)], tmp_path / "new")
    assert listing(tmp_path / "new") == listing(media)
    link = ("job-output/2026/12", "is a link: what it leads to is not packed")
    assert found["other"].skipped == (link,)


def test_where_there_are_no_media_yet_there_is_one_empty_pack(
    quick_packs: Packs, to: Path, tmp_path: Path
) -> None:
    (tmp_path / "media").mkdir()
    found = pack(quick_packs, tmp_path / "media", to)
    assert [*found] == ["other"]
    assert found["other"].state.files == 0
    assert quick_packs.check_deep([to / "other.tar.zst"]) == {}


def test_what_was_packed_is_unpacked_as_it_was(
    quick_packs: Packs, media: Path, to: Path, tmp_path: Path
) -> None:
    found = pack(quick_packs, media, to)
    unpack(quick_packs, [each[0] for each in members(to, found)], tmp_path / "new")
    assert listing(tmp_path / "new") == listing(media)
    assert [one.skipped for one in found.values()] == [()] * 5
    assert found["2026-11-20"].state.files == 4
    assert found["2026-11-20"].state.raw == 6000 + 4 + 5


def test_unpacking_twice_is_unpacking_once(
    quick_packs: Packs, media: Path, to: Path, tmp_path: Path
) -> None:
    found = [each[0] for each in members(to, pack(quick_packs, media, to))]
    unpack(quick_packs, found, tmp_path / "new")
    write(tmp_path / "new" / DAY / "7/output.yaml", "torn")
    unpack(quick_packs, found, tmp_path / "new")
    assert listing(tmp_path / "new") == listing(media)


def test_the_same_files_make_the_same_packs(
    quick_packs: Packs, media: Path, to: Path, tmp_path: Path
) -> None:
    shutil.copytree(media, tmp_path / "copy", symlinks=True)
    first = pack(quick_packs, media, to)
    second = pack(quick_packs, tmp_path / "copy", to)
    assert [one.members for one in first.values()] == [second[name].members for name in first]


def test_packs_are_for_their_owner_and_hold_what_their_members_say(
    quick_packs: Packs, media: Path, to: Path
) -> None:
    found = members(to, pack(quick_packs, media, to))
    assert {stat.S_IMODE(path.stat().st_mode) for path, _, _ in found} == {0o600}
    assert quick_packs.check(found) == {}


@pytest.mark.skipif(not shutil.which("zstd"), reason="tar needs zstd for it")
def test_tar_reads_packs(quick_packs: Packs, media: Path, to: Path, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    for path, _, _ in members(to, pack(quick_packs, media, to)):
        extract = ["tar", "--extract", "--zstd", "--preserve-permissions", f"--file={path}"]
        said = subprocess.run([*extract, f"--directory={tmp_path}/new"], capture_output=True)
        assert (said.returncode, said.stderr) == (0, b"")
    contents = {path: each[::2] for path, each in listing(media).items()}
    assert {path: each[::2] for path, each in listing(tmp_path / "new").items()} == contents


def test_a_member_of_any_name_has_the_header_that_tarfile_writes(media: Path) -> None:
    file = media / "export/results.csv"
    for name in ("short", "x" * 100, "y" * 101, ODD):
        header = writing._header(name, file.stat(), tarfile.REGTYPE, 2)
        wanted = tarfile.TarFile(os.devnull, "w").gettarinfo(file, name)
        wanted.mtime = int(wanted.mtime)
        assert header == wanted.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")


def test_a_group_that_is_large_is_cut_between_jobs(
    quick_packs: Packs, media: Path, to: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "PACK_LIMIT", 60_000)
    for job in range(100, 104):
        write(media / DAY / f"{job}/output.yaml", "x" * 30_000)
        write(media / DAY / f"{job}/output.idx", "x" * 10_000)
    found = pack(quick_packs, media, to)
    names = [member.path for member in found["2026-11-20"].members]
    assert names == [f"2026-11-20.{number}.tar.zst" for number in (1, 2, 3, 4, 5)]
    jobs = [
        quick_packs.read(to / name, f"{DAY}/{job}/output.idx")
        for name, job in zip(names, (100, 101, 102, 103), strict=False)
    ]
    assert jobs == [b"x" * 10_000] * 4
    unpack(quick_packs, [each[0] for each in members(to, found)], tmp_path / "new")
    assert listing(tmp_path / "new") == listing(media)


def test_a_former_pack_is_replaced_and_not_written_into(
    quick_packs: Packs, media: Path, to: Path, tmp_path: Path
) -> None:
    shared = write(tmp_path / "shared", "of another snapshot")
    os.link(shared, to / "2026-11-20.tar.zst")
    pack(quick_packs, media, to)
    assert shared.read_text() == "of another snapshot"


def test_a_rate_bounds_how_fast_files_are_read(
    quick_packs: Packs, tmp_path: Path, to: Path
) -> None:
    write(tmp_path / "media/file", "x" * 500_000)
    begun = time.monotonic()
    pack(quick_packs, tmp_path / "media", to, rate=1_000_000)
    assert time.monotonic() - begun > 0.9


def test_progress_ends_with_all_done(quick_packs: Packs, media: Path, to: Path) -> None:
    told: list[tuple[int, int, int]] = []
    groups = quick_packs.groups(media)
    found = [*quick_packs.pack(media, groups, to, {}, NEVER, 0, lambda *each: told.append(each))]
    assert [each[:2] for each in told] == [(1, 5), (2, 5), (3, 5), (4, 5), (5, 5)]
    assert told[-1][2] == sum(packed.state.raw for packed in found)


def test_a_bundle_has_files_and_trees_under_other_names(
    quick_packs: Packs, media: Path, to: Path, tmp_path: Path
) -> None:
    one = write(tmp_path / "instance.yaml", "one")
    (tmp_path / "linked").symlink_to(media / DAY)
    entries = [(one, "instance.yaml"), (tmp_path / "linked", "day"), (tmp_path / "no", "no")]
    member, skipped = quick_packs.bundle(to / "etc.tar.zst", entries)
    assert skipped == (("no", "is not there"),)
    assert quick_packs.check([(to / member.path, member.size, member.sha256)]) == {}
    assert quick_packs.read(to / "etc.tar.zst", "instance.yaml") == b"one"
    (tmp_path / "new").mkdir()
    quick_packs.extract(to / "etc.tar.zst", tmp_path / "new", ["day"])
    assert listing(tmp_path / "new/day") == listing(media / DAY)
    assert not (tmp_path / "new/instance.yaml").exists()
    with pytest.raises(FileNotFoundError):
        quick_packs.read(to / "etc.tar.zst", "day/none")


def test_an_index_is_read_as_it_was_written(quick_packs: Packs, media: Path, to: Path) -> None:
    states = quick_packs.states(media, quick_packs.groups(media))
    groups = {name: (state, [f"{name}.tar.zst"]) for name, state in states.items()}
    quick_packs.write_index(to / "index", groups, 12345)
    index = quick_packs.read_index(to / "index")
    assert (index.scanned, index.states) == (12345, states)
    assert index.members["old-1"] == ("old-1.tar.zst",)


def test_an_index_that_cannot_be_understood_is_empty(quick_packs: Packs, to: Path) -> None:
    quick_packs.write_index(to / "index", {"a": (State("", 1, 2, 3), ())}, 12345)
    whole = (to / "index").read_bytes()
    for content in (b"", b"{}", whole[:-1], whole[:20] + b"x" + whole[21:]):
        (to / "index").write_bytes(content)
        index = quick_packs.read_index(to / "index")
        assert (index.scanned, index.states) == (0, {})
    assert quick_packs.read_index(to / "none").states == {}


def test_a_file_is_shared_by_a_second_name_and_a_second_time_changes_nothing(
    quick_packs: Packs, tmp_path: Path
) -> None:
    one, two = write(tmp_path / "one", "pack"), write(tmp_path / "two", "pack")
    quick_packs.share(one, two)
    quick_packs.share(one, two)
    assert two.samefile(one) and one.stat().st_nlink == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]


def test_what_belongs_to_no_day_and_no_job_is_told_by_the_fewest_paths(
    quick_packs: Packs, media: Path
) -> None:
    write(media / "job-output/2026/11/notes/a", "x")
    write(media / "job-output/readme", "x")
    write(media / ".lava-deploy/media/a", "what a restore prepares")
    shutil.rmtree(media / "csv", ignore_errors=True)
    write(media / "csv/jobs/a.csv", "x")
    loose = {path for path in quick_packs.loose(media) if not path.startswith("other")}
    assert {"csv", "job-output/2026/11/notes", "job-output/readme"} <= loose
    assert ".lava-deploy" not in loose and not any("2026/11/2" in path for path in loose)
