#!/usr/bin/env python3
"""What is measured inside a host, where it costs least; the answers are JSON.

inside.py page HOSTNAME COMMAND...       seconds until a page answers, and until the command ends
inside.py times ROUNDS <COMMANDS         seconds of each command of a JSON list, in turns
inside.py disk FROM... PATH...           bytes of each path that none before it has
inside.py memory NAME...                 bytes of each instance's processes, then of lava-deploy's

With the Python of lava-deploy's virtualenv, as they use its code:

inside.py repository DIRECTORY           the path of a git repository of LAVA's
inside.py build SOURCE CACHE [PLACE]     seconds of fetching and building the newest release
"""

import http.client
import json
import os
import pwd
import subprocess
import sys
import time
from pathlib import Path

BLOCK = 4096
BETWEEN_QUESTIONS = 0.05
# A page with rows of the database in it; no other site of the host has it.
PAGE = "/scheduler/"
# What lava-deploy itself keeps running on hosts without systemd.
SUPERVISOR, HOLDERS = "supervisor", "holders"


def page(hostname: str, *command: str) -> dict[str, float]:
    """Ask for a page through Apache from the start of a command until it answers 200."""
    begun = time.monotonic()
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sys.stderr) as running:
        found, ended = None, None
        while found is None or ended is None:
            if ended is None and running.poll() is not None:
                ended = time.monotonic() - begun
                if running.returncode != 0:
                    sys.exit(f"{command} ended with {running.returncode}")
            if found is None and _status(hostname) == http.client.OK:
                found = time.monotonic() - begun
            time.sleep(BETWEEN_QUESTIONS)
    return {"page": found, "ended": ended}


def times(rounds: str) -> list[list[float]]:
    """Each command once a round, so that whatever else happens on the host meets all of them."""
    commands = json.load(sys.stdin)
    spent: list[list[float]] = [[] for _ in commands]
    for _ in range(int(rounds)):
        for command, kept in zip(commands, spent, strict=True):
            begun = time.monotonic()
            subprocess.run(["sh", "-c", command], check=True, stdout=subprocess.DEVNULL)
            kept.append(time.monotonic() - begun)
    return spent


def disk(*paths: str) -> list[int]:
    """As ext4 counts: whole blocks, one for a directory; each file once, wherever it is first."""
    seen: set[tuple[int, int]] = set()
    return [_size(Path(path), seen) for path in paths]


def memory(*names: str) -> dict[str, int]:
    """The proportional set sizes: of what processes share, each has its part."""
    found = dict.fromkeys((*names, SUPERVISOR, HOLDERS), 0)
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_text().replace("\0", " ")
            owner = pwd.getpwuid(process.stat().st_uid).pw_name
            rolled = (process / "smaps_rollup").read_text()
        except (OSError, KeyError):  # it has ended, or is the kernel's
            continue
        size = next(int(line.split()[1]) for line in rolled.splitlines() if "Pss:" in line)
        if whose := _whose(words, owner, names):
            found[whose] += size * 1024
    return found


def repository(directory: str) -> str:
    """The repository that the tests take, too."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from tests.contract import upstream

    Path(directory).mkdir()
    return str(upstream.obtain(Path(directory)))


def build(source: str, cache: str, place: str = "") -> dict[str, float | str]:
    """Build a release in a cache of its own, as `install` does before its plan begins."""
    from lava_deploy import sources
    from lava_deploy.model import Wanted
    from lava_deploy.packs import Packs
    from lava_deploy.parts import release
    from lava_deploy.system import System

    system, to, begun = System(), Path(cache), time.monotonic()
    revision = sources.find(system, to, Wanted("latest", source, place), _quiet)
    code = sources.fetch(system, to, revision, _quiet)
    fetched = time.monotonic()
    built = release.build(system, Packs(), to, code, _quiet)
    ended = time.monotonic()
    lock = built.path / release.LOCK
    return {
        "fetch": fetched - begun,
        "build": ended - fetched,
        "version": built.version,
        "lock": str(lock),
    }


def _quiet(_: str) -> None:
    """Say nothing of the progress."""


def _status(hostname: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", 80, timeout=30)
    try:
        connection.request("GET", PAGE, headers={"Host": hostname})
        return connection.getresponse().status
    except OSError:
        return 0
    finally:
        connection.close()


def _size(path: Path, seen: set[tuple[int, int]]) -> int:
    status = path.lstat()
    if (status.st_dev, status.st_ino) in seen:
        return 0
    seen.add((status.st_dev, status.st_ino))
    if path.is_symlink():
        return 0  # a short target lies in the inode
    if path.is_dir():
        return BLOCK + sum(_size(Path(one.path), seen) for one in os.scandir(path))
    return -(-status.st_size // BLOCK) * BLOCK if path.is_file() else 0


def _whose(words: str, owner: str, names: tuple[str, ...]) -> str:
    """The instance that a process belongs to, or which of lava-deploy's own it is."""
    if "/srv/lava/supervisor/" in words:
        return SUPERVISOR
    if "sockets.py hold" in words:
        return HOLDERS
    for name in names:
        backend = words.startswith("postgres:") and f" lava-{name} " in words
        if owner == f"lava-{name}" or backend or f"/srv/lava/instances/{name}/" in words:
            return name
    return ""


if __name__ == "__main__":
    verb, *words = sys.argv[1:]
    verbs = (page, times, disk, memory, repository, build)
    json.dump({one.__name__: one for one in verbs}[verb](*words), sys.stdout)
