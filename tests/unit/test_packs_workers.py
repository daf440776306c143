"""The two processes that work on packs: they end with what started them, whatever happens."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lava_deploy.errors import DeployError
from lava_deploy.packs import Packs
from tests.fakes.media import DAY, NEVER, members, pack, unpack, write


def children(of: int) -> set[int]:
    """The processes that a process has started and that are still there."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[1]) == of and fields[0] != "Z":
            found.add(int(path.parent.name))
    return found


def working(of: int) -> set[int]:
    """Those of them that are workers, not what multiprocessing keeps for itself."""
    return {each for each in children(of) if "spawn_main" in command(each)}


def command(process: int) -> str:
    try:
        return Path(f"/proc/{process}/cmdline").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def test_a_consumer_that_fails_leaves_no_workers(packs: Packs, media: Path, to: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        for _ in packs.pack(media, packs.groups(media), to, {}, NEVER, rate=1000):
            assert len(working(os.getpid())) == 2
            raise ZeroDivisionError
    assert working(os.getpid()) == set()


def test_a_worker_that_is_killed_is_an_error(packs: Packs, media: Path, to: Path) -> None:
    found = packs.pack(media, packs.groups(media), to, {}, NEVER, rate=1000)
    next(found)
    for worker in working(os.getpid()):
        os.kill(worker, 9)
    with pytest.raises(DeployError, match="was killed"):
        list(found)


ROOT = Path(__file__).resolve().parents[2]
SLOW = """
import sys
from pathlib import Path
from lava_deploy.packs import Packs
media, to = Path(sys.argv[1]), Path(sys.argv[2])
packs = Packs()
for packed in packs.pack(media, packs.groups(media), to, {}, 0, rate=1000):
    print(packed.group.name, flush=True)
"""


@pytest.fixture
def slow(media: Path, to: Path) -> Iterator[subprocess.Popen]:
    """A program that is packing and has two workers."""
    for day in (22, 23, 24):
        write(media / f"job-output/2026/11/{day}/1/output.yaml", "x" * 1_000_000)
    program = to / "program"
    program.write_text(SLOW)
    running = subprocess.Popen(
        [sys.executable, program, media, to],
        stderr=subprocess.PIPE,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    try:
        assert wait_until(lambda: len(working(running.pid)) == 2 and any(to.glob("*.zst")))
        yield running
    finally:
        running.kill()
        running.wait()


def wait_until(ask: object, seconds: float = 10) -> bool:
    limit = time.monotonic() + seconds
    while not ask():
        if time.monotonic() > limit:
            return False
        time.sleep(0.02)
    return True


def test_a_parent_that_is_killed_leaves_no_processes(slow: subprocess.Popen) -> None:
    started = children(slow.pid)
    slow.kill()
    slow.wait()
    assert wait_until(lambda: not any(command(each) for each in started))


def test_an_interruption_of_all_is_dealt_with_by_the_parent_alone(slow: subprocess.Popen) -> None:
    started = working(slow.pid)
    os.killpg(slow.pid, 2)
    said = slow.communicate(timeout=10)[1].decode()
    assert said.count("Traceback") == 1
    assert said.rstrip().endswith("KeyboardInterrupt")
    assert not any(command(each) for each in started)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of half a megabyte."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", disk]
    if os.getuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root can mount")
    try:
        yield disk
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_full_disk_is_told_as_what_it_is(
    packs: Packs, media: Path, to: Path, small_disk: Path
) -> None:
    (media / DAY / "8/output.yaml").write_bytes(os.urandom(1_000_000))
    with pytest.raises(OSError, match="No space left on device"):
        pack(packs, media, small_disk)
    assert working(os.getpid()) == set()
    found = members(to, pack(packs, media, to))
    with pytest.raises(OSError, match="No space left on device"):
        unpack(packs, [each[0] for each in found], small_disk)
    assert working(os.getpid()) == set()
