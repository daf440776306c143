#!/usr/bin/env python3
"""A second instance of a known revision, against the plain way, until a page answers 200.

    python3 benchmarks/second_instance.py [SUITE] [INIT]     (as root; bookworm and plain else)

The two take turns in one host. The clock runs inside it, from the start of the command to the first
200 of a page with rows of the database, through Apache. Outside of the clock, `status` then has to
find all components running, and the instance is removed.
"""

import json
import re
import sys
import time

import measuring
from measuring import PLAIN_WAY, RUNS, Admin

NAME, PLAIN = "two", "plain"
STEP = re.compile(r"(?m)^(.+) … done \((\d+\.\d) s\)$")
CODE, LOCK = "/srv/lava/cache/code/debian-*", "/srv/lava/cache/releases/*/requirements.lock"
# A worker's state in the database: lava_scheduler_app.models.Worker.STATE_ONLINE
ONLINE = "SELECT count(*) FROM lava_scheduler_app_worker WHERE state = 0"
WORKER_LIMIT = 60


def main(suite: str = "bookworm", init: str = "plain") -> None:
    """Measure on a new host."""
    with measuring.bare_host(suite, init) as admin:
        admin("quickstart", "demo")
        measure(admin)


def measure(admin: Admin) -> None:
    """Measure on a host with an instance of the newest release of Debian's."""
    [version] = {one["version"] for one in admin.json("list")["instances"]}
    code, lock = (admin.machine.run(f"echo {path}").stdout.strip() for path in (CODE, LOCK))
    warm = f"{PLAIN_WAY} build {lock} && rm -r /srv/plain"
    admin.machine.run(warm)
    ours, plain, steps, online = [], [], [], []
    for _ in range(RUNS):
        ours.append(_page(admin, NAME, admin.line("install", "-n", "--yes", NAME, version), steps))
        online.append(_seconds_to_worker(admin))
        [state] = admin.json("status", NAME)["instances"]
        assert state["running"] and state["answers"] == 200, state
        admin("remove", NAME, "--yes")
        plain.append(_page(admin, PLAIN, [PLAIN_WAY, "make", code, lock, f"{PLAIN}.localhost"], []))
        admin.machine.run([PLAIN_WAY, "remove"])
    here = measuring.shown(f"install of LAVA {version}, to the first page", ours)
    there = measuring.shown("the plain way, to the first page", plain)
    measuring.ratio("install / the plain way", here, there, "at most 0.12")
    measuring.aim("install", here, "s", 4)
    measuring.shown("then, until its worker is online", online)
    for name in dict(steps):
        measuring.shown(f"  {name}"[:44], [spent for step, spent in steps if step == name])


def _page(admin: Admin, name: str, command: list[str], steps: list[tuple[str, float]]) -> float:
    """The seconds to the first page; the steps that the command tells of are added to `steps`."""
    ended = admin.machine.run(["python3", measuring.INSIDE, "page", f"{name}.localhost", *command])
    steps += [(step, float(spent)) for step, spent in STEP.findall(ended.stderr)]
    return json.loads(ended.stdout)["page"]


def _seconds_to_worker(admin: Admin) -> float:
    """How long the dispatcher takes after the command's end until LAVA counts on it."""
    begun = time.monotonic()
    ask = ["runuser", "-u", "postgres", "--", "psql", "-XAtc", ONLINE, f"lava-{NAME}"]
    while admin.machine.run(ask).stdout.strip() != "1":
        assert time.monotonic() - begun < WORKER_LIMIT
        time.sleep(0.1)
    return time.monotonic() - begun


if __name__ == "__main__":
    main(*sys.argv[1:])
