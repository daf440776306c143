#!/usr/bin/env python3
"""What a further instance of one release takes: disk before there is data, memory at rest.

    python3 benchmarks/footprint.py [SUITE]     (as root; bookworm by default, with both inits)

Disk is as ext4 counts it, hard-linked files once. Memory is the proportional set size of all
processes of an instance and of its Postgres backends, three instances side by side.
"""

import sys

import measuring
from measuring import RUNS, Admin

NAMES = ("demo", "two", "three")
INSTANCES = "/srv/lava/instances"
MEGABYTE = 10**6
MEBIBYTE = 2**20


def main(suite: str = "bookworm") -> None:
    """Measure on a new host of each init."""
    for init in ("plain", "systemd"):
        with measuring.bare_host(suite, init) as admin:
            admin("quickstart", NAMES[0])
            for name in NAMES[1:]:
                admin("install", "-n", "--yes", name)
            measure(admin)


def measure(admin: Admin) -> None:
    """Measure on a host with these instances."""
    show_disk(admin, NAMES[-1])
    readings = [measuring.inside(admin, "memory", *NAMES) for _ in range(RUNS)]
    for whose, title in (("two", "memory of an instance at rest"), ("ours", "memory of ours")):
        median = measuring.shown(title, [one[whose] / MEBIBYTE for one in readings], "MiB")
    measuring.aim("of ours", median, "MiB", 40)


def show_disk(admin: Admin, name: str) -> None:
    """Show what the newest instance added to the disk."""
    former = ["/srv/lava/cache", *(f"{INSTANCES}/{one}" for one in NAMES if one != name)]
    sizes = measuring.inside(
        admin, "disk", *former, f"{INSTANCES}/{name}/code", f"{INSTANCES}/{name}"
    )
    [listed] = admin.json("status", name, "--sizes")["instances"]
    parts = {
        "directories of its code": sizes[-2],
        "database": listed["sizes"]["database"],
        "all else": sizes[-1],
    }
    for title, size in parts.items():
        measuring.shown(f"disk: {title}", [size / MEGABYTE], "MB")
    measuring.aim("disk of a further instance", sum(parts.values()) / MEGABYTE, "MB", 20)


if __name__ == "__main__":
    main(*sys.argv[1:])
