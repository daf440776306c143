#!/usr/bin/env python3
"""A release built from git and from Debian's packages, against pip with the same lock.

    python3 benchmarks/build.py [SUITE] [INIT]     (as root; bookworm and plain else)

Cold is without any download of former builds, warm with all of them but nothing built. Pip's part
is `python3 -m venv` and `pip install --require-hashes` only: LAVA itself and its static files,
which ours has, would come on top.
"""

import sys
import time

import measuring
from measuring import CLONE, PLAIN_WAY, RUNS, Admin

PYTHON = f"{CLONE}/.venv/bin/python"
WORK = "/var/tmp/benchmark"
# Where tests/contract/upstream.py looks for a cut of upstream's repository, beside the clone.
CUT = "shared/data/lava-git.tar"


def main(suite: str = "bookworm", init: str = "plain") -> None:
    """Measure on a new host."""
    with measuring.bare_host(suite, init) as admin:
        admin("setup")
        measure(admin)


def measure(admin: Admin) -> None:
    """Measure on a host that was set up."""
    admin.machine.run(["mkdir", "--parents", WORK])
    cut = measuring.ROOT.parent / CUT
    if cut.exists():
        admin.machine.put(cut, f"{CLONE}/../{CUT}")
    repository = measuring.inside(admin, "repository", f"{WORK}/upstream", python=PYTHON)
    for source, place in (("git", repository), ("debian", "")):
        _compare(admin, source, place)
    admin.machine.run(["rm", "-rf", WORK])


def _compare(admin: Admin, source: str, place: str) -> None:
    """Build in turns with pip, first cold, then warm."""
    spent: dict[str, list[float]] = {}
    cache, pip = f"{WORK}/cache", f"{WORK}/pip"
    for _ in range(RUNS):
        admin.machine.run(["rm", "-rf", cache, pip])
        for state in ("cold", "warm"):
            # what is built goes, downloads stay
            admin.machine.run(["rm", "-rf", f"{cache}/releases", f"{cache}/code"])
            built = measuring.inside(admin, "build", source, cache, place, python=PYTHON)
            for part in ("fetch", "build"):
                spent.setdefault(f"{state} {part}", []).append(built[part])
            spent.setdefault(f"{state} pip", []).append(_pip(admin, built["lock"], pip))
    print(f"# LAVA {built['version']} from {source}")
    for state in ("cold", "warm"):
        ours = [
            sum(pair) for pair in zip(spent[f"{state} fetch"], spent[f"{state} build"], strict=True)
        ]
        here = measuring.shown(f"release from {source}, {state}", ours)
        for part in ("fetch", "build"):
            measuring.shown(f"  {part}", spent[f"{state} {part}"])
        there = measuring.shown(f"venv and pip install, {state}", spent[f"{state} pip"])
        measuring.ratio(f"release / pip, {state}", here, there)


def _pip(admin: Admin, lock: str, cache: str) -> float:
    """Seconds of pip with a lock and a cache."""
    begun = time.monotonic()
    admin.machine.run([PLAIN_WAY, "build", lock], env={"PIP_CACHE_DIR": cache})
    spent = time.monotonic() - begun
    admin.machine.run(["rm", "-r", "/srv/plain"])
    return spent


if __name__ == "__main__":
    main(*sys.argv[1:])
