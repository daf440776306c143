#!/usr/bin/env python3
"""What a further instance of one release takes: disk before there is data, memory at rest.

    python3 benchmarks/footprint.py [SUITE]     (as root; bookworm by default, with both inits)

Disk is as ext4 counts it, hard-linked files once. Memory is the proportional set size of all
processes of an instance and of its Postgres backends, three instances side by side.
"""

import sys

import measuring
from measuring import Admin

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
    sizes = {
        whose: size / MEBIBYTE for whose, size in measuring.inside(admin, "memory", *NAMES).items()
    }
    measuring.shown("memory of an instance at rest", [sizes[name] for name in NAMES], "MiB")
    for ours in ("supervisor", "holders"):
        measuring.shown(f"memory: {ours}, {len(NAMES)} instances", [sizes[ours]], "MiB")
    measuring.aim("memory of ours", sizes["supervisor"] + sizes["holders"], "MiB", 40)


def show_disk(admin: Admin, name: str) -> None:
    """Show what the newest instance added to the disk."""
    former = ["/srv/lava/cache", *(f"{INSTANCES}/{one}" for one in NAMES if one != name)]
    sizes = measuring.inside(
        admin, "disk", *former, f"{INSTANCES}/{name}/code", f"{INSTANCES}/{name}"
    )
    [listed] = admin.json("status", name, "--sizes")["instances"]
    code, rest = (size / MEGABYTE for size in sizes[-2:])
    measuring.shown("disk: directories of its code", [code], "MB")
    measuring.shown("disk: all other files", [rest], "MB")
    measuring.aim("disk of a further instance, its files", code + rest, "MB", 20)
    database = listed["sizes"]["database"] / MEGABYTE
    measuring.shown("disk: its database, still empty", [database], "MB")


if __name__ == "__main__":
    main(*sys.argv[1:])
