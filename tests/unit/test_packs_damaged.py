"""Packs that are damaged, and those that somebody made to do damage."""

import tarfile
from pathlib import Path

import pytest

from lava_deploy.errors import DeployError
from lava_deploy.packs import Packs, writing
from tests.fakes.media import DAY, listing, members, pack, unpack, write


def evil(to: Path, *infos: tarfile.TarInfo) -> Path:
    path = to / "evil.tar.zst"
    with writing.Pack(path) as written:
        for info in infos:
            written.add(info.tobuf(tarfile.GNU_FORMAT))
        written.finish()
    return path


def info(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, target
    return made


@pytest.mark.parametrize(
    "infos",
    [
        [info("/absolute")],
        [info("../beside")],
        [info("a/../../beside")],
        [info("a//b")],
        [info("./a")],
        [info("device", tarfile.CHRTYPE)],
        [info("hard", tarfile.LNKTYPE, "/etc/passwd")],
        [info("way", tarfile.SYMTYPE, ".."), info("way/beside")],
        [info("way", tarfile.SYMTYPE, ".."), info("way", tarfile.DIRTYPE)],
        [info("a/b"), info("a")],
        [info("a"), info("a/b")],
    ],
    ids=lambda infos: "+".join(each.name for each in infos),
)
def test_a_pack_that_reaches_elsewhere_is_refused(
    quick_packs: Packs, to: Path, tmp_path: Path, infos: list[tarfile.TarInfo]
) -> None:
    before = {*tmp_path.iterdir(), tmp_path / "new"}
    with pytest.raises(DeployError, match=r"evil.tar.zst cannot be unpacked"):
        unpack(quick_packs, [evil(to, *infos)], tmp_path / "new")
    assert {*tmp_path.iterdir()} == before


def test_a_link_that_is_in_the_way_of_a_file_is_replaced(
    quick_packs: Packs, media: Path, to: Path, tmp_path: Path
) -> None:
    outside = write(tmp_path / "outside", "untouched")
    found = [each[0] for each in members(to, pack(quick_packs, media, to))]
    unpack(quick_packs, found, tmp_path / "new")
    (tmp_path / "new" / DAY / "7/output.yaml").unlink()
    (tmp_path / "new" / DAY / "7/output.yaml").symlink_to(outside)
    unpack(quick_packs, found, tmp_path / "new")
    assert outside.read_text() == "untouched"
    assert listing(tmp_path / "new") == listing(media)


def test_every_flipped_bit_is_found(quick_packs: Packs, media: Path, to: Path) -> None:
    found = members(to, pack(quick_packs, media, to))
    path = to / "2026-11-20.tar.zst"
    whole = path.read_bytes()
    for at in range(0, len(whole), max(1, len(whole) // 20)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        assert quick_packs.check(found) == {path: "is damaged: its SHA-256 differs"}


def test_a_bit_that_is_flipped_in_what_is_compressed_is_found_without_its_sum(
    quick_packs: Packs, media: Path, to: Path, tmp_path: Path
) -> None:
    pack(quick_packs, media, to)
    path = to / "2026-11-20.tar.zst"
    whole = path.read_bytes()
    at = len(whole) // 2
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
    assert [*quick_packs.check_deep([path])] == [path]
    with pytest.raises(DeployError):
        unpack(quick_packs, [path], tmp_path / "new")


def test_packs_that_are_cut_short_are_found_wherever(
    quick_packs: Packs, media: Path, to: Path
) -> None:
    found = members(to, pack(quick_packs, media, to))
    path = to / "2026-11-20.tar.zst"
    whole = path.read_bytes()
    for length in (0, 3, len(whole) // 2, len(whole) - 4, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert [*quick_packs.check_deep([path])] == [path]
        assert quick_packs.check(found) == {path: f"has {length} bytes, not {len(whole)}"}


def test_all_faults_are_told(quick_packs: Packs, media: Path, to: Path) -> None:
    found = members(to, pack(quick_packs, media, to))
    (to / "other.tar.zst").unlink()
    (to / "old-0.tar.zst").unlink()
    (to / "old-0.tar.zst").mkdir()
    assert quick_packs.check(found) == {
        to / "other.tar.zst": "is missing",
        to / "old-0.tar.zst": "cannot be read: Is a directory",
    }
