#!/usr/bin/env python3
"""Toggles between a host name and a path: how long they take, and what clients meet meanwhile.

    python3 benchmarks/toggles.py [SUITE] [INIT]     (as root; bookworm and plain by default)

First nobody is there, then four clients all the time: one reads pages, one logs in and out, one
submits jobs over XML-RPC, one holds a websocket (benchmarks/clients.py). Each answer is checked for
what it says. Then all instances are toggled at once, and Apache's part of it for many more.
"""

import os
import re
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any

import measuring
from measuring import CLONE, Admin

NAME, OTHERS = "demo", ("two", "three")
TOGGLES = 20
RENDERED = 50
PYTHON, CLIENTS = f"{CLONE}/.venv/bin/python", f"{CLONE}/benchmarks/clients.py"
STEP = re.compile(r"(?m)^\[\d+/\d+\] (?:\S+: )?(.+) … done \((\d+\.\d) s\)$")
RELOADED = "grep -c AH00493 /var/log/apache2/error.log || true"
# Jobs wait for it for ever, so that those of the clients are not in each other's way.
DEVICE = ("devices", "update", "--health", "MAINTENANCE", "lava-deploy-qemu")


def main(suite: str = "bookworm", init: str = "plain") -> None:
    """Measure on a new host."""
    with measuring.bare_host(suite, init) as admin:
        admin("quickstart", NAME)
        admin("manage", NAME, *DEVICE)
        measure(admin)


def measure(admin: Admin) -> None:
    """Measure on a host with one instance, whose device is in maintenance."""
    for option in ("redirect", "no-redirect"):
        loaded()
        _times(f"toggle --{option}", _inside(admin, "toggles", option, NAME, str(TOGGLES)))
    for mode in ("sticky", "following"):
        loaded()
        _met(mode, _inside(admin, mode, NAME, str(TOGGLES)))
    for name in OTHERS:
        admin("install", "-n", "--yes", name)
    loaded()
    for kind in ("location", "vhost"):
        _together(admin, kind)
    _rendered(admin)


def loaded() -> None:
    """Say how busy the machine is."""
    print(f"# load {os.getloadavg()[0]:.1f}", flush=True)


def _inside(admin: Admin, *words: str) -> Any:
    return measuring.inside(admin, *words, python=PYTHON, script=CLIENTS, timeout=3600)


def _times(what: str, toggles: Sequence[dict[str, Any]]) -> None:
    """The seconds of toggles each way, and of those steps that take any."""
    for kind in dict.fromkeys(one["kind"] for one in toggles):
        ours = [one for one in toggles if one["kind"] == kind]
        measuring.shown(f"{what}, to {kind}", [one["seconds"] for one in ours])
        _steps([one["said"] for one in ours])


def _steps(said: Sequence[str]) -> None:
    steps = [(name, float(spent)) for text in said for name, spent in STEP.findall(text)]
    for name in dict(steps):
        spent = [seconds for step, seconds in steps if step == name]
        if statistics.median(spent) > 0:
            measuring.shown(f"  {name}"[:44], spent)


def _met(mode: str, found: dict[str, Any]) -> None:
    """What clients met."""
    _times(f"{mode} clients, toggle", found["toggles"])
    for kind, tally in found["clients"].items():
        counts = ", ".join(
            f"{tally[one]} {one}" for one in ("requests", "failed", "refused", "gone")
        )
        print(f"  {kind:<10} {counts}, longest wait {tally['longest']:.1f} s", flush=True)
        for fault, times in tally["faults"]:
            print(f"    {times} x {fault}", flush=True)
    print(
        f"  websocket cut {len(found['cuts'])} times {found['cuts']}, "
        f"{len(found['lost'])} of {found['events']} events lost {found['lost'][:5]}",
        flush=True,
    )


def _together(admin: Admin, kind: str) -> None:
    """Toggle all at once; Apache may read its files once."""
    reloads = int(admin.machine.run(RELOADED).stdout)
    begun = time.monotonic()
    said = admin("toggle-all", kind).stderr
    spent = time.monotonic() - begun
    measuring.shown(f"toggle-all {kind}, {len(OTHERS) + 1} instances", [spent])
    _steps([said])
    reloads = int(admin.machine.run(RELOADED).stdout) - reloads
    print(f"  Apache was reloaded {reloads} times", flush=True)


def _rendered(admin: Admin) -> None:
    found = _inside(admin, "rendered", str(RENDERED))
    for part, what in (
        ("write", "write a route, with configtest"),
        ("reload", "reload"),
        ("configtest", "configtest alone"),
    ):
        measuring.shown(f"{RENDERED} rendered, {what}", found[part])
    print(f"  all {RENDERED} written: {sum(found['write'][RENDERED:]) / 2:.1f} s", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
