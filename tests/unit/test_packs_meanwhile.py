"""Packs while others write what is read, and what counts as changed afterwards."""

import os
import shutil
import socket
import threading
import time
from pathlib import Path

import pytest

from lava_deploy.packs import Packs, trees, writing
from lava_deploy.snapshot import State
from tests.fakes.media import DAY, listing, members, pack, task, unpack, write


def packed_again(quick_packs: Packs, media: Path, to: Path, known: dict[str, State]) -> set[str]:
    """The groups that are packed by a backup after one whose scan found `known` and began now."""
    later = time.time_ns() + 10 * writing.RACY
    found = quick_packs.pack(media, quick_packs.groups(media), to, known, later)
    return {packed.group.name for packed in found if packed.members}


class Meanwhile:
    """Does something to the media when they were looked at and are about to be read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, act: object) -> None:
        def scan(*arguments: object) -> trees.Scan:
            found = trees.scan(*arguments)
            act()
            return found

        monkeypatch.setattr(writing, "scan", scan)


def test_what_is_appended_meanwhile_is_left_out_or_whole(
    quick_packs: Packs, media: Path, to: Path
) -> None:
    file = media / DAY / "7/output.yaml"
    stop = threading.Event()

    def append() -> None:
        with open(file, "a") as log:
            while not stop.is_set():
                log.write("- one\n")
                log.flush()

    thread = threading.Thread(target=append)
    thread.start()
    try:
        found = [writing.pack(task(media, to)) for _ in range(20)]
    finally:
        stop.set()
        thread.join()
    assert {one.skipped for one in found} == {()}
    said = quick_packs.read(to / "2026-11-20.tar.zst", f"{DAY}/7/output.yaml")
    assert said == b"- one\n" * (len(said) // 6)


def test_what_vanishes_or_changes_its_kind_meanwhile_is_named(
    quick_packs: Packs, media: Path, to: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def act() -> None:
        (media / DAY / "7/output.idx").unlink()
        shutil.rmtree(media / DAY / "8")
        (media / DAY / "7/output.yaml").unlink()
        (media / DAY / "7/output.yaml").symlink_to("/etc/shadow")
        shutil.rmtree(media / DAY / "7/metadata")
        (media / DAY / "7/metadata").symlink_to("/etc")

    write(media / DAY / "7/metadata/passwd", "mine")
    Meanwhile(monkeypatch, act)
    monkeypatch.setattr(writing, "TRIES", 1)
    vanished, changed = "vanished before it was read", "became something else while it was read"
    assert writing.pack(task(media, to)).skipped == (
        (f"{DAY}/7/metadata", changed),
        (f"{DAY}/7/metadata/a.yaml", vanished),
        (f"{DAY}/7/metadata/passwd", vanished),
        (f"{DAY}/7/output.idx", vanished),
        (f"{DAY}/7/output.yaml", changed),
        (f"{DAY}/8", vanished),
        (f"{DAY}/8/output.yaml", vanished),
    )
    assert quick_packs.check_deep([to / "2026-11-20.tar.zst"]) == {}


def test_a_log_that_is_compressed_meanwhile_is_packed_as_it_is_then(
    quick_packs: Packs, media: Path, to: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compress() -> None:
        log = media / DAY / "7/output.yaml"
        if log.exists():
            write(media / DAY / "7/output.yaml.xz", "compressed")
            log.unlink()

    Meanwhile(monkeypatch, compress)
    assert writing.pack(task(media, to)).skipped == ()
    assert quick_packs.read(to / "2026-11-20.tar.zst", f"{DAY}/7/output.yaml.xz") == b"compressed"


@pytest.mark.parametrize("size", [1000, writing.STREAMED + 1000])
def test_a_file_that_gets_shorter_while_it_is_read_is_named(
    quick_packs: Packs, media: Path, to: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    path = f"{DAY}/8/output.yaml"
    write(media / path, "x" * size)

    class Fstat:
        """Has the file cut when its size was read; nothing else happens in between."""

        def __getattr__(self, name: str) -> object:
            return getattr(os, name)

        def fstat(self, file: int) -> os.stat_result:
            status = os.fstat(file)
            if status.st_size == size:
                os.truncate(media / path, 600)
            return status

    monkeypatch.setattr(writing, "os", Fstat())
    monkeypatch.setattr(writing, "TRIES", 1)
    skipped = writing.pack(task(media, to)).skipped
    content = quick_packs.read(to / "2026-11-20.tar.zst", path)
    if size > writing.STREAMED:
        rest = f"the last {size - 600} of {size} bytes are zeros"
        assert skipped == ((path, f"got shorter while it was read: {rest}"),)
        assert content == b"x" * 600 + bytes(size - 600)
    else:
        assert skipped == ((path, f"got shorter while it was read: 600 of {size} bytes"),)
        assert content == b"x" * 600


def test_a_large_file_is_packed_whole(
    quick_packs: Packs, media: Path, to: Path, tmp_path: Path
) -> None:
    (media / DAY / "8/big").write_bytes(os.urandom(writing.STREAMED + 12345))
    found = pack(quick_packs, media, to)
    unpack(quick_packs, [each[0] for each in members(to, found)], tmp_path / "new")
    assert listing(tmp_path / "new") == listing(media)


def test_sockets_and_pipes_are_named_and_nothing_waits_for_them(
    quick_packs: Packs, media: Path, to: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(media / DAY / "8/pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        monkeypatch.chdir(media / DAY / "8")
        listening.bind("socket")
        skipped = pack(quick_packs, media, to)["2026-11-20"].skipped
    fault = "is neither a file nor a directory nor a link"
    assert skipped == ((f"{DAY}/8/pipe", fault), (f"{DAY}/8/socket", fault))


def test_what_may_not_be_read_is_named(quick_packs: Packs, media: Path, to: Path) -> None:
    (media / DAY / "7/output.yaml").chmod(0)
    if os.access(media / DAY / "7/output.yaml", os.R_OK):
        pytest.skip("root may read everything")
    reason = "cannot be read: Permission denied"
    assert pack(quick_packs, media, to)["2026-11-20"].skipped == ((f"{DAY}/7/output.yaml", reason),)


def test_what_nobody_touched_is_not_packed_again(quick_packs: Packs, media: Path, to: Path) -> None:
    known = quick_packs.states(media, quick_packs.groups(media))
    assert packed_again(quick_packs, media, to, known) == set()
    assert [*to.iterdir()] == []


@pytest.mark.parametrize("change", ["append", "rewrite", "chmod", "removal", "new", "link"])
def test_every_change_is_noticed(quick_packs: Packs, media: Path, to: Path, change: str) -> None:
    file = media / DAY / "7/output.yaml"
    link = media / DAY / "7/link"
    link.symlink_to("a")
    known = quick_packs.states(media, quick_packs.groups(media))
    before = file.stat()
    if change == "append":
        with open(file, "a") as log:
            log.write("- more\n")
    elif change == "rewrite":
        with open(file, "r+") as log:
            log.write("- two\n")
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert (file.stat().st_size, file.stat().st_mtime) == (before.st_size, before.st_mtime)
    elif change == "chmod":
        file.chmod(0o600)
    elif change == "removal":
        file.unlink()
    elif change == "new":
        write(file.with_name("new"), "")
    else:
        link.unlink()
        link.symlink_to("b")
    assert packed_again(quick_packs, media, to, known) == {"2026-11-20"}


def test_what_was_touched_just_before_the_scan_counts_as_changed(
    quick_packs: Packs, media: Path, to: Path
) -> None:
    groups = quick_packs.groups(media)
    known = quick_packs.states(media, groups)
    newest = max(state.newest for state in known.values())
    found = [*quick_packs.pack(media, groups, to, known, newest + writing.RACY)]
    assert any(packed.members for packed in found)
    found = [*quick_packs.pack(media, groups, to, known, newest + writing.RACY + 1)]
    assert not any(packed.members for packed in found)
