"""Backups of the tool of 2012: what is found in them, where it goes, and what is refused."""

import grp
import io
import os
import pwd
import tarfile
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from lava_deploy.errors import DeployError
from lava_deploy.packs import Packs
from lava_deploy.parts import legacy
from lava_deploy.parts.legacy import DUMP, ETC, MEDIA, FromLegacy
from tests.fakes.media import listing
from tests.fakes.shelf import Here

LOG = "job-output/2020/11/20/7/output.yaml"
ETC_OF_LAVA = {"lava-server/dispatcher-config/devices/board.jinja2": "{# a board #}"}
ME = pwd.getpwuid(os.getuid()).pw_name


class Owned(Here):
    """What is root's is whoever's that runs the tests."""

    def make_directory(
        self, path: Path, mode: int = 0o755, owner: str = "root", group: str = "root"
    ) -> None:
        super().make_directory(path, mode, ME, grp.getgrgid(os.getgid()).gr_name)


class Own(Packs):
    """The same for what is unpacked."""

    def unpack_below(self, archive, below, to, uid, gid, but=(), tell=lambda *_: None) -> None:
        super().unpack_below(archive, below, to, os.getuid(), os.getgid(), but, tell)


@dataclass(frozen=True)
class Directory:
    """Such a backup."""

    path: Path

    def archive(self, name: str, files: dict[str, str], *others: tarfile.TarInfo) -> None:
        """Write a tar file; of `others` there is nothing but a header."""
        with tarfile.open(self.path / name, "w:gz") as tar:
            for path, text in files.items():
                info = tarfile.TarInfo(path)
                info.size, info.mode = len(text.encode()), 0o4777
                tar.addfile(info, io.BytesIO(text.encode()))
            for other in others:
                tar.addfile(other)

    def look(self, *, database_only: bool = False) -> legacy.Seen:
        return legacy.look(Owned(), Own(), self.path, lambda *_: None, database_only=database_only)

    def origin(self) -> FromLegacy:
        return FromLegacy(Owned(), Own(), self.path, self.look().place)

    def extracted(self, to: Path) -> dict[str, tuple]:
        self.origin().extract(to)
        return listing(to / "etc")


@pytest.fixture
def backup(tmp_path: Path) -> Directory:
    made = Directory(tmp_path / "2012")
    made.path.mkdir()
    made.path.joinpath(DUMP).touch()
    made.archive(MEDIA, {f"media/{LOG}": "a log"})
    made.archive(ETC, ETC_OF_LAVA)
    return made


def member(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize("top", ["", "./", "media/", "./default/media/", "var/lib/lava-server/m/"])
def test_media_are_found_wherever_in_the_archive_they_are(
    backup: Directory, tmp_path: Path, top: str
) -> None:
    backup.archive(MEDIA, {f"{top}{LOG}": "a log", f"{top}reports/a.csv": "1,2"})
    assert backup.look().faults == ()
    to = tmp_path / "media"
    to.mkdir()
    backup.origin().unpack((), to, ME, lambda *_: None)
    files = {path: found[2] for path, found in listing(to).items() if found[2]}
    assert files == {LOG: b"a log", "reports/a.csv": b"1,2"}


def test_media_come_without_modes_of_their_own_and_without_indexes_of_logs(
    backup: Directory, tmp_path: Path
) -> None:
    index = LOG.replace("output.yaml", "output.idx")
    link = member("media/elsewhere", tarfile.SYMTYPE, "/etc/passwd")
    backup.archive(MEDIA, {f"media/{LOG}": "a log", f"media/{index}": "0"}, link)
    backup.origin().unpack((), tmp_path, ME, lambda *_: None)
    assert not tmp_path.joinpath(index).exists()
    assert tmp_path.joinpath(LOG).stat().st_mode & 0o7777 == 0o640
    assert os.readlink(tmp_path / "elsewhere") == "/etc/passwd"


def test_once_a_part_is_there_nothing_is_unpacked_again(backup: Directory, tmp_path: Path) -> None:
    backup.origin().unpack({"2020-11-20"}, tmp_path, ME, lambda *_: None)
    assert not tmp_path.joinpath("job-output").exists()


def test_what_is_not_part_of_the_media_is_named(backup: Directory) -> None:
    files = (f"default/media/{LOG}", "default/media/a/b", "default/archive/a/b", "home/x")
    backup.archive(MEDIA, dict.fromkeys(files, ""))
    assert backup.look().beside == ("default/archive", "home")


def test_what_lava_reads_is_taken_over_whatever_it_was_called(
    backup: Directory, tmp_path: Path
) -> None:
    server = "etc/lava-server"
    files = {
        f"{server}/dispatcher-config/devices/a.jinja2": "a",
        f"{server}/dispatcher-config/health-checks/qemu.yaml": "b",
        f"{server}/device-types/old.jinja2": "c",
        "etc/devices/v1.conf": "not these",
        f"{server}/dispatcher.d/worker/env.yaml": "of one worker",
        f"{server}/dispatcher.d/env.yaml": "d",
        f"{server}/env.dut.yaml": "e",
    }
    backup.archive(ETC, files)
    found = {path: one[2] for path, one in backup.extracted(tmp_path).items() if one[2]}
    assert found == {
        "devices/a.jinja2": b"a",
        "health-checks/qemu.yaml": b"b",
        "device-types/old.jinja2": b"c",
        "dispatcher.d/worker/env.yaml": b"of one worker",
        "env.yaml": b"d",
        "env-dut.yaml": b"e",
    }


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("secret_key.conf", 'SECRET_KEY="a#b(c\'d"\n'),
        ("settings.conf", '{\n  "SECRET_KEY": "a#b(c\'d",\n  "DEBUG": false\n}\n'),
        ("settings.d/00-secret-key.yaml", 'ADMINS: []\nSECRET_KEY: "a#b(c\'d"\n'),
    ],
)
def test_the_secret_key_is_taken_over_and_settings_are_left_to_the_admin(
    backup: Directory, tmp_path: Path, name: str, text: str
) -> None:
    backup.archive(ETC, {**ETC_OF_LAVA, f"lava-server/{name}": text})
    found = backup.extracted(tmp_path)
    assert yaml.safe_load(found["secrets.yaml"][2]) == {"SECRET_KEY": "a#b(c'd"}
    assert found["secrets.yaml"][0] & 0o777 == 0o600
    assert found["former"][0] & 0o777 == 0o700
    assert found[f"former/lava-server-{name.replace('/', '-')}"][2] == text.encode()


def test_of_several_keys_the_one_that_lava_read_last_counts(
    backup: Directory, tmp_path: Path
) -> None:
    files = {"a/settings.d/b.yaml": "SECRET_KEY: 'last'", "a/secret_key.conf": "SECRET_KEY='first'"}
    backup.archive(ETC, {**ETC_OF_LAVA, **files, "a/settings.conf": "no key"})
    assert b"last" in backup.extracted(tmp_path)["secrets.yaml"][2]


def test_all_that_is_missing_is_told_and_the_database_alone_needs_its_dump_only(
    backup: Directory,
) -> None:
    for name in (MEDIA, ETC):
        backup.path.joinpath(name).unlink()
    assert backup.look().faults == (f"{MEDIA}: is missing", f"{ETC}: is missing")
    assert backup.look(database_only=True).faults == ()
    backup.path.joinpath(DUMP).unlink()
    assert backup.look(database_only=True).faults == (f"{DUMP}: is missing",)


@pytest.mark.parametrize(
    ("evil", "fault"),
    [
        (member("/etc/x", tarfile.REGTYPE), "would land elsewhere"),
        (member("media/../../x", tarfile.DIRTYPE), "would land elsewhere"),
        (member("media/x", tarfile.LNKTYPE, "/etc/shadow"), "is no file, directory or symbolic"),
        (member("media/x", tarfile.CHRTYPE), "is no file, directory or symbolic"),
    ],
)
def test_what_would_land_elsewhere_is_refused(
    backup: Directory, evil: tarfile.TarInfo, fault: str
) -> None:
    backup.archive(MEDIA, {f"media/{LOG}": "a log"}, evil)
    [found] = backup.look().faults
    assert found.startswith(f"{MEDIA}: {evil.name!r}") and fault in found


def test_nothing_is_written_through_a_link(backup: Directory, tmp_path: Path) -> None:
    outside, to = tmp_path / "outside", tmp_path / "media"
    outside.mkdir()
    to.mkdir()
    with tarfile.open(backup.path / MEDIA, "w:gz") as tar:
        tar.addfile(member(f"media/{Path(LOG).parent.parent}", tarfile.SYMTYPE, str(outside)))
        tar.addfile(tarfile.TarInfo(f"media/{LOG}"))
    with pytest.raises((DeployError, OSError)):
        backup.origin().unpack((), to, ME, lambda *_: None)
    assert [*outside.iterdir()] == []


@pytest.mark.parametrize("name", [MEDIA, ETC])
def test_every_flipped_bit_and_every_cut_is_found(backup: Directory, name: str) -> None:
    path = backup.path / name
    whole = path.read_bytes()
    # what gzip's header has besides: time, name, system
    header = 10 + len(name.removesuffix(".gz")) + 1
    for at in range(header, len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        assert backup.look().faults, at
        path.write_bytes(whole[:at])
        assert backup.look().faults, at


def test_archives_of_something_else_are_refused(backup: Directory) -> None:
    backup.archive(MEDIA, {"photos/a": "", "photos/job-output": "a file"})
    backup.archive(ETC, {"etc/passwd": ""})
    assert backup.look().faults == (
        f"{MEDIA}: has no directory job-output, so it is not the media of a LAVA",
        f"{ETC}: has none of devices, device-types, health-checks, dispatcher.d, "
        "so it is no etc/ of a LAVA",
    )


def test_of_two_media_nobody_can_tell_which_is_meant(backup: Directory) -> None:
    backup.archive(MEDIA, {f"a/{LOG}": "", f"b/{LOG}": "", f"b/c/{LOG}": ""})
    assert backup.look().faults == (
        f"{MEDIA}: has several directories job-output: in a and in b and in b/c",
    )


def test_a_snapshot_is_one_whatever_else_lies_in_it(backup: Directory) -> None:
    assert legacy.exists(Owned(), backup.path)
    backup.path.joinpath("manifest.json").touch()
    assert not legacy.exists(Owned(), backup.path)
    assert not legacy.exists(Owned(), backup.path / DUMP)
