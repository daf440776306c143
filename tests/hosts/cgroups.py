"""Control groups of the test hosts: every process of a host is found, and ended, through its own.

Remembered process ids could by now belong to somebody else; a control group cannot.
"""

import contextlib
import os
import subprocess
from pathlib import Path

from . import waiting

OURS = "lava-deploy-tests"
LIMIT = 20.0


def root() -> Path:
    """The control group that holds all beds; systemd machines and hybrid ones mount it apart."""
    hybrid = Path("/sys/fs/cgroup/unified")
    return (hybrid if hybrid.is_dir() else Path("/sys/fs/cgroup")) / OURS


def make_root() -> None:
    """Create the group of all beds."""
    if not (root().parent / "cgroup.procs").exists():
        raise FileNotFoundError(f"{root().parent} is no hierarchy of version 2")
    make(root())


def remove_root() -> None:
    """Remove the group of all beds, unless there is another bed."""
    with contextlib.suppress(OSError):
        root().rmdir()


def make(group: Path) -> None:
    """Create a group, and let the groups below it use the controllers it has itself."""
    if group != root():
        make(group.parent)
    group.mkdir(exist_ok=True)
    controllers = (group.parent / "cgroup.subtree_control").read_text().split()
    # A group that hands controllers down may hold no processes itself: hosts are leaves.
    for controller in controllers if _is_inner(group) else ():
        (group / "cgroup.subtree_control").write_text(f"+{controller}")


def run(group: Path, command: list[str], log: Path) -> int:
    """Run a command inside a group from its first moment on; what it says is added to the log."""
    make(group)
    enter = ["sh", "-c", 'echo $$ >"$0" && exec "$@"', str(group / "cgroup.procs")]
    with open(log, "a") as output:
        return subprocess.run(
            [*enter, *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            check=False,
        ).returncode


def start(group: Path, command: list[str], log: Path) -> None:
    """Start what outlives this process, in a session of its own; the group tells if it lives."""
    run(group, ["setsid", "--fork", *command], log)


def processes(group: Path) -> list[int]:
    """Ids of all processes in a group and below."""
    found = []
    # groups come and go while this looks: os.walk overlooks those that are gone
    for directory, _, _ in os.walk(group):
        with contextlib.suppress(OSError):
            found += [int(line) for line in Path(directory, "cgroup.procs").read_text().split()]
    return found


def kill(group: Path) -> None:
    """End everything in a group and remove it; nothing happens if there is no such group."""
    if not group.is_dir():
        return
    (group / "cgroup.kill").write_text("1")
    waiting.until(
        lambda: "populated 0" in (group / "cgroup.events").read_text(),
        LIMIT,
        lambda: TimeoutError(f"processes of {group} do not end: {processes(group)}"),
    )
    for directory, _, _ in os.walk(group, topdown=False):
        os.rmdir(directory)


def _is_inner(group: Path) -> bool:
    """Whether a group holds groups of ours and no processes: all beds, and each bed."""
    return group == root() or group.parent == root()
