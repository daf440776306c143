#!/usr/bin/env python3
"""The time line of quickstart on a bare host: when each step began and ended, in seconds.

    python3 benchmarks/quickstart.py [SUITE] [INIT]     (as root; bookworm and plain by default)

Packages that earlier hosts downloaded are at hand, so this is the time a near mirror gives. Boot
time of the host is not counted.
"""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.e2e.machines import copy_repository
from tests.hosts.bed import Bed, HostSpec

QUICKSTART = "/root/lava-deploy/lava-deploy quickstart demo --verbose"


def main(suite: str = "bookworm", init: str = "plain") -> int:
    """Print a line of output with the seconds since the start before it; return the status."""
    with Bed(share_downloads=True) as bed:
        [host] = bed.up([HostSpec("bench", suite, init)])
        copy_repository(host)
        begun = time.monotonic()
        with host.popen(QUICKSTART) as running:
            for line in running.stdout:
                print(f"{time.monotonic() - begun:6.1f}  {line}", end="", flush=True)
    print(f"{time.monotonic() - begun:6.1f}  end")
    return running.returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
