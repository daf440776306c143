"""What the benchmarks share: a host to measure on, and how figures are shown."""

import json
import os
import statistics
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.e2e.machines import CLONE, ROOT, Admin, copy_repository
from tests.hosts.bed import Bed, HostSpec, Images

INSIDE = f"{CLONE}/benchmarks/inside.py"
PLAIN_WAY = f"{CLONE}/benchmarks/plain_way.sh"
RUNS = 3
__all__ = ["CLONE", "INSIDE", "PLAIN_WAY", "ROOT", "RUNS", "Admin"]


@contextmanager
def bare_host(
    suite: str = "bookworm", init: str = "plain", on_disk: Sequence[str] = ()
) -> Iterator[Admin]:
    """A new host with this clone; what earlier hosts downloaded is at hand.

    Hosts are in memory where there is plenty; directories named in `on_disk` are on this machine's
    disk.
    """
    images = Images()
    downloads = images.directory / "caches"
    downloads.mkdir(parents=True, exist_ok=True)
    with ExitStack() as disk:
        share = {"/root/.cache": downloads}
        for inside in on_disk:
            share[inside] = Path(disk.enter_context(TemporaryDirectory(dir=images.directory)))
            share[inside].chmod(0o755)
        bed = disk.enter_context(Bed(images, share_downloads=True, share=share))
        [host] = bed.up([HostSpec("bench", suite, init)])
        copy_repository(host)
        conditions = f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
        print(f"# a host of Debian's {suite}, {init} as its init, {conditions}", flush=True)
        yield Admin(host)


def inside(
    admin: Admin,
    *words: str,
    input: str = "",
    python: str = "python3",
    script: str = INSIDE,
    timeout: float = 600,
) -> Any:
    """What inside.py, or another script, measures in the host."""
    ended = admin.machine.run([python, script, *words], input=input, timeout=timeout)
    return json.loads(ended.stdout)


def shown(what: str, runs: Sequence[float], unit: str = "s") -> float:
    """Print a measurement and return its median; of many runs only the least and greatest."""
    median = statistics.median(runs)
    if len(runs) > RUNS:
        raw = f"{len(runs)} runs, {min(runs):.3f} to {max(runs):.3f}"
    else:
        raw = "  ".join(f"{run:.2f}" for run in runs)
    print(f"{what:<44} {median:9.3f} {unit:<3} ({raw})", flush=True)
    return median


def ratio(what: str, ours: float, reference: float, aim: str = "none") -> None:
    """Print how we compare with the reference."""
    print(f"{what:<44} {ours / reference:9.3f}     aim: {aim}", flush=True)


def aim(what: str, value: float, unit: str, most: float) -> None:
    """Print a figure that is to stay below another."""
    print(f"{what:<44} {value:9.3f} {unit:<3} aim: at most {most:g} {unit}", flush=True)
