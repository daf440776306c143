#!/usr/bin/env python3
"""Snapshots of an instance with years of jobs, against how the tool of 2012 did it.

    python3 benchmarks/snapshots.py [SUITE] [INIT]     (as root; bookworm and plain by default)
    python3 benchmarks/snapshots.py --here NAME OTHER  (on this host, which is disposable)

Options: --jobs 70000, --days 200 (of 152 jobs with media each), --runs 3, --json FILE.

By default 0.9 GB of database, and 4.8 GB in 100,000 files (benchmarks/filling.py); what is filled
here stays so for the next run. The way of 2012: pg_dump -Fc and tar czf; gzip -t; pg_restore into
a new database and tar xzf into a new directory. Ours are whole commands. In each run all take their
turn: both first backups, both checks, a night that changes a hundredth, the second backup (that of
2012 is as long as the first), the first snapshot restored into its own instance and into OTHER, the
restore of 2012, the removal of a snapshot. Then pages of jobs, alone and while backups run.
"""

import argparse
import json
import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import measuring
from measuring import CLONE, RUNS, Admin

from tests.e2e.machines import Here

NAME, OTHER = "demo", "two"
FILLING, WATCHING = f"{CLONE}/benchmarks/filling.py", f"{CLONE}/benchmarks/watching.py"
BACKUPS = "/srv/lava/backups"
# What is measured is of a disk, not of the memory that hosts are in.
ON_DISK = ("/srv", "/var/lib/postgresql")
# Where the way of 2012 works, on the disk of the instances, and its database.
PLAIN, FRESH = "/srv/lava-2012", "lava-2012"
DUMP, FILES, PLACE = f"{PLAIN}/database.dump", f"{PLAIN}/files.tar.gz", f"{PLAIN}/media"
ALIKE = ("--stop", "--no-smoke", "--as-it-was")
SECONDS_ALONE = 15
MEGABYTE = 10**6
LIMIT = 3600
OLD_BACKUP, OLD_CHECK, OLD_RESTORE = "2012: backup", "2012: gzip -t", "2012: restore"
FIRST, SECOND, CHECK = "first backup", "second backup, 1 % new", "verify"
OWN, ELSEWHERE, REMOVE = "restore, 1 % changed", "restore elsewhere", "remove"
OURS = (FIRST, SECOND, CHECK, OWN, ELSEWHERE, REMOVE)
# With what each is compared, and the aim.
AIMS = (
    (FIRST, OLD_BACKUP, "at most 0.25"),
    (SECOND, OLD_BACKUP, "at most 0.12"),
    (CHECK, OLD_CHECK, "at most 0.1"),
    (OWN, OLD_RESTORE, "at most 0.4"),
    (ELSEWHERE, OLD_RESTORE, "at most 0.7"),
)
BYTES_AIM, MEMORY_AIM = "at most 0.2", 200
ALONE, WITH_OURS, WITH_OLD = "alone", "while a first backup runs", "while that of 2012 runs"


@dataclass
class Measured:
    """By what was done: seconds, and MB of memory and on disk, of each run; pages in ms."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    memory: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    disk: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    pages: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))


@dataclass(frozen=True)
class Bench:
    """A host with two instances, of which the first is filled; what is measured on it."""

    admin: Admin
    name: str
    other: str
    measured: Measured = field(default_factory=Measured)

    def run(self, what: str, *commands: list[str]) -> None:
        """Measure commands one after the other: their sum counts, and the most memory."""
        found = [self.watch("command", *words) for words in commands]
        seconds = [one["seconds"] for one in found]
        print(f"# {what}: {' + '.join(f'{one:.1f}' for one in seconds)} s", flush=True)
        self.measured.seconds[what].append(sum(seconds))
        self.measured.memory[what].append(max(one["memory"] for one in found) / MEGABYTE)

    def run_ours(self, what: str, *words: str) -> None:
        self.run(what, self.admin.line(*words))

    def watch(self, *words: str) -> Any:
        return measuring.inside(self.admin, *words, script=WATCHING, timeout=LIMIT)

    def fill(self, *words: str) -> Any:
        return measuring.inside(self.admin, *words, script=FILLING, timeout=LIMIT)

    def keep_sizes(self, *named: tuple[str, str]) -> None:
        """Keep what each path takes on the disk that none before it has."""
        sizes = measuring.inside(self.admin, "disk", *(path for _, path in named))
        for (what, _), size in zip(named, sizes, strict=True):
            self.measured.disk[what].append(size / MEGABYTE)

    @property
    def snapshots(self) -> str:
        return f"{BACKUPS}/{self.name}"

    def newest(self) -> str:
        return self.do("readlink", f"{self.snapshots}/latest")

    def do(self, *words: str) -> str:
        """Do what is not measured."""
        return self.admin.machine.run(list(words)).stdout.strip()


def main() -> None:
    """Measure on a new host, or on this one."""
    order = _order()
    if order.here:
        measured = measure(Bench(Admin(Here()), *order.here), order)
    else:
        with measuring.bare_host(order.suite, order.init, ON_DISK) as admin:
            admin("quickstart", NAME)
            admin("install", "-n", "--yes", OTHER)
            measured = measure(Bench(admin, NAME, OTHER), order)
    show(measured)
    if order.json:
        order.json.write_text(json.dumps(vars(measured), indent=1) + "\n")


def measure(bench: Bench, order: argparse.Namespace) -> Measured:
    """All runs, and what readers of pages meet."""
    filled = bench.fill("fill", bench.name, str(order.jobs), str(order.days))
    size = filled["database"] / MEGABYTE
    print(f"# {filled['jobs']} jobs, {size:.0f} MB of database, {filled['days']} days", flush=True)
    for _ in range(order.runs):
        compare(bench)
        clear(bench)
    for what, words in (
        (ALONE, [str(SECONDS_ALONE)]),
        (WITH_OURS, ["0", *bench.admin.line("backup", bench.name)]),
        (WITH_OLD, ["0", "sh", "-c", f"{dump(bench)} && {pack(bench)}"]),
    ):
        bench.do("mkdir", "-p", PLAIN)
        bench.measured.pages[what] = bench.watch("pages", bench.name, *words)
    clear(bench)
    return bench.measured


def compare(bench: Bench) -> None:
    """Each once; the instance is in the end as it was."""
    name, run, ours = bench.name, bench.run, bench.run_ours
    bench.do("mkdir", "-p", PLAIN)
    run(OLD_BACKUP, _shell(dump(bench)), _shell(pack(bench)))
    ours(FIRST, "backup", name)
    first = bench.newest()
    run(OLD_CHECK, ["gzip", "-t", FILES])
    ours(CHECK, "snapshots", "verify", name, first)
    bench.fill("change", name)
    ours(SECOND, "backup", name)
    bench.keep_sizes(
        (OLD_BACKUP, PLAIN),
        (FIRST, f"{bench.snapshots}/{first}"),
        (SECOND, f"{bench.snapshots}/{bench.newest()}"),
    )
    run(OLD_RESTORE, *map(_shell, restore()))
    ours(OWN, "restore", name, first, *ALIKE)
    ours(ELSEWHERE, "restore", bench.other, f"{name}/{first}", *ALIKE)
    ours(REMOVE, "snapshots", "remove", name, first, "--yes")


def clear(bench: Bench) -> None:
    """Have the next run find nothing of this one."""
    for name in (bench.name, bench.other):
        bench.watch("forget", name)
    bench.do("runuser", "-u", "postgres", "--", "dropdb", "--if-exists", FRESH)
    bench.do("rm", "-rf", PLAIN, bench.snapshots)


def dump(bench: Bench) -> str:
    return f"runuser -u postgres -- pg_dump -Fc lava-{bench.name} >{DUMP}"


def pack(bench: Bench) -> str:
    return f"tar czf {FILES} -C /srv/lava/instances/{bench.name}/var/lib/lava-server media"


def restore() -> tuple[str, str]:
    """The way of 2012, into a new database and a new directory."""
    return (
        f"cd / && runuser -u postgres -- createdb {FRESH} && "
        f"runuser -u postgres -- pg_restore -d {FRESH} <{DUMP}",
        f"mkdir {PLACE} && tar xzf {FILES} -C {PLACE}",
    )


def show(measured: Measured) -> None:
    """Print all, and how it compares with the aims."""
    medians = {what: measuring.shown(what, seconds) for what, seconds in measured.seconds.items()}
    for what, reference, aim in AIMS:
        measuring.ratio(f"{what} / {reference}", medians[what], medians[reference], aim)
    disk = {
        what: measuring.shown(f"on disk: {what}", sizes, "MB")
        for what, sizes in measured.disk.items()
    }
    measuring.ratio(f"on disk: {SECOND} / {OLD_BACKUP}", disk[SECOND], disk[OLD_BACKUP], BYTES_AIM)
    for what in OURS:
        measuring.aim(f"memory: {what}", max(measured.memory[what]), "MB", MEMORY_AIM)
    for what, spent in measured.pages.items():
        measuring.shown(f"pages {what}", spent, "ms")
        print(f"{'  of which 95 % took at most':<44} {_slowest(spent):9.3f} ms", flush=True)


def _slowest(spent: Sequence[float]) -> float:
    return statistics.quantiles(spent, n=20)[-1]


def _shell(text: str) -> list[str]:
    return ["sh", "-c", text]


def _order() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("suite", nargs="?", default="bookworm")
    parser.add_argument("init", nargs="?", default="plain")
    parser.add_argument("--here", nargs=2, metavar=("NAME", "OTHER"))
    parser.add_argument("--jobs", type=int, default=70_000)
    parser.add_argument("--days", type=int, default=200)
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--json", type=Path, metavar="FILE")
    return parser.parse_args()


if __name__ == "__main__":
    main()
