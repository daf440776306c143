"""Makes a bare Debian host ready for instances, and takes that back."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from lava_deploy.errors import CommandFailed
from lava_deploy.model import SYSTEMD
from lava_deploy.parts import ports, tls
from lava_deploy.steps import Plan, Step, nothing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lava_deploy.operations import Doors

OPERATION = "setup"
UNDO = "setup --undo"
SUBJECT = "host"
HISTORY = "host.history"
PLAYBOOK = "host.yml"
UNDO_PLAYBOOK = "host-undo.yml"
# In the host's state: what the playbook made, by which it is undone, and what apt installed.
RECORD = "host.json"
MEMORY = "packages.json"

SUPPORTED = {"12": "Debian 12 (bookworm)", "13": "Debian 13 (trixie)"}
QEMU = {"amd64": "qemu-system-x86", "arm64": "qemu-system-arm"}
# What a release needs that brings no binary of one of its dependencies.
BUILD_TOOLS = ("gcc", "libc6-dev", "python3-dev")
# Measured: at most 0.7 GB of packages and 0.15 GB of archives, some room for logs and data.
DISK_NEEDED = 1_000_000_000
APT = ("apt-get", "--quiet=2", "--option=DPkg::Lock::Timeout=600")
INSTALL = ("install", "--assume-yes", "--no-install-recommends")
UNATTENDED = {"DEBIAN_FRONTEND": "noninteractive"}

CONTAINER = Path("/run/systemd/container")
# Keys of the file that remembers packages.
ADDED, BEFORE = "packages", "before"


@dataclass
class Outcome:
    """What a run of setup changed, for the CLI to tell; empty if there was nothing to do."""

    changes: list[str] = field(default_factory=list)


# Looking


def faults(doors: Doors, *, force: bool = False) -> list[str]:
    """Everything that stands in the way of setting this host up.

    Where packages are missing this refreshes apt's lists, which changes nothing else: then a dead
    network, an unknown package and too small a disk are all known beforehand. `force` tries on a
    distribution we do not know.
    """
    found = _distribution_faults(doors, force=force) + _architecture_faults(doors)
    found += ports.faults(doors.system, ports.HTTP)
    if not found and missing(doors):
        found += _disk_faults(doors) + _apt_faults(doors)
    return found


def missing(doors: Doors) -> list[str]:
    """The packages that setup would still have to install."""
    there = installed(doors)
    return [name for name in _packages(doors) if name not in there]


def installed(doors: Doors) -> set[str]:
    """The names of all packages that are wholly installed."""
    query = ["dpkg-query", "--show", "--showformat=${db:Status-Status} ${Package}\\n"]
    lines = [line.split() for line in doors.system.run(query).stdout.splitlines()]
    return {name for status, name in lines if status == "installed"}


def left_packages(doors: Doors) -> list[str]:
    """The packages that setup installed, with those they depend on, and that are still there."""
    return sorted({*_remembered(doors).get(ADDED, ())} & installed(doors))


# Making


def untouched(doors: Doors) -> bool:
    """Whether this host has never been set up: then a failure takes all back."""
    return not doors.system.exists(doors.host.state / RECORD)


def plan(doors: Doors, outcome: Outcome, *, new: bool) -> Plan:
    """The steps that make this host ready. Unless it is `new`, a failure undoes nothing.

    Running again is the repair, and what instances stand on is not taken from under them.
    """

    def make_ready() -> None:
        _make_ready(doors, outcome)

    def take_back() -> None:
        _take_back(doors, outcome)

    def install_supervisor() -> None:
        doors.supervisord.prepare()

    def remove_supervisor() -> None:
        doors.supervisord.unprepare()

    steps = [
        Step("download the packages", lambda: _download(doors)),
        Step("make the host ready", make_ready, take_back if new else nothing),
    ]
    if not doors.system.exists(SYSTEMD):
        undo = remove_supervisor if new else nothing
        steps.append(Step("install the supervisor", install_supervisor, undo))
    return Plan(OPERATION, SUBJECT, tuple(steps), decisions={"new": new})


def install_build_tools(doors: Doors, packages: Sequence[str] = BUILD_TOOLS) -> None:
    """Install what compiling a release's dependencies takes. Raises CommandFailed."""
    if set(packages) <= installed(doors):
        return
    wanted = [*doors.playbook.variables(PLAYBOOK)["packages"], *packages]
    variables = {**_variables(doors), "packages": wanted, "refresh_package_lists": True}
    _run_remembering(doors, variables)


def _download(doors: Doors) -> None:
    """Fetch all packages before any is installed: up to here, a dead network does no harm."""
    wanted = missing(doors)
    if not wanted:
        return
    # An installation that was killed half-way keeps apt from doing anything; parts of it may
    # still run, and `check` waits for their lock.
    if doors.system.run(["dpkg", "--audit"]).stdout.strip():
        doors.system.run([*APT, "check"], check=False)
        doors.system.run(["dpkg", "--configure", "--pending"], environment=UNATTENDED)
    doors.system.run([*APT, *INSTALL, "--download-only", *wanted])


def _make_ready(doors: Doors, outcome: Outcome) -> None:
    outcome.changes += _run_remembering(doors, _variables(doors))


def _run_remembering(doors: Doors, variables: dict[str, object]) -> tuple[str, ...]:
    """Run the playbook and remember which packages it added, whatever comes of it.

    What was there before is on disk meanwhile, so that a killed run does not forget either.
    """
    doors.system.make_directory(doors.host.state)
    known = _remembered(doors)
    before = known.get(BEFORE) or sorted(installed(doors))
    _remember(doors, {**known, BEFORE: before})
    try:
        return doors.playbook.run(PLAYBOOK, variables, doors.report.progress).changed
    finally:
        added = {*known.get(ADDED, ()), *(installed(doors) - {*before})}
        _remember(doors, {ADDED: sorted(added)})


def _variables(doors: Doors) -> dict[str, object]:
    host = doors.host
    return {
        "qemu": _qemu(doors),
        "nfs": _kernel_serves_nfs(doors),
        # the preflight has refreshed them where it matters
        "refresh_package_lists": False,
        "root": str(host.root),
        "instances": str(host.instances),
        "state": str(host.state),
        "log": str(host.log),
    }


def _packages(doors: Doors) -> list[str]:
    return [*doors.playbook.variables(PLAYBOOK)["packages"], _qemu(doors)]


def _qemu(doors: Doors) -> str:
    return QEMU.get(_architecture(doors), QEMU["amd64"])


def _architecture(doors: Doors) -> str:
    return doors.system.run(["dpkg", "--print-architecture"]).stdout.strip()


# Taking back


def undo_faults(doors: Doors) -> list[str]:
    """What stands in the way of taking setup back: instances."""
    names = doors.system.names(doors.host.instances)
    return [f"there are instances: {', '.join(names)}"] if names else []


def undo_plan(doors: Doors, outcome: Outcome) -> Plan:
    """The steps that make the host as it was, but for packages and for directories in use."""

    def remove_cache() -> None:
        doors.system.remove_tree(doors.host.cache)

    def take_back() -> None:
        _take_back(doors, outcome)

    def make_ready() -> None:
        _make_ready(doors, outcome)

    def remove_supervisor() -> None:
        doors.supervisord.unprepare()

    def install_supervisor() -> None:
        if not doors.system.exists(SYSTEMD):
            doors.supervisord.prepare()

    return Plan(
        UNDO,
        SUBJECT,
        (
            Step("remove what can be downloaded and built again", remove_cache),
            Step("remove the supervisor, if there is one", remove_supervisor, install_supervisor),
            Step("take back what was made for LAVA", take_back, make_ready),
        ),
    )


def finish_undo(doors: Doors) -> list[Path]:
    """Once the plan is carried out: remove our own state, tell which directories stay, in use.

    The host's history goes with what it tells of; that of former instances stays.
    """
    host, system = doors.host, doors.system
    system.remove_tree(host.state)
    tls.remove_authority(system, host)
    if system.names(host.log) == [HISTORY]:
        system.remove(host.log / HISTORY)
    # The engine needs these before the playbook can make, and record, them.
    for path in (host.log, host.instances, host.root):
        system.remove_directory(path)
    return [path for path in (host.backups, host.log, host.root) if system.exists(path)]


def _take_back(doors: Doors, outcome: Outcome) -> None:
    state = {"state": str(doors.host.state)}
    outcome.changes += doors.playbook.run(UNDO_PLAYBOOK, state, doors.report.progress).changed


# What setup installed


def _remembered(doors: Doors) -> dict[str, list[str]]:
    path = doors.host.state / MEMORY
    return json.loads(doors.system.read(path)) if doors.system.exists(path) else {}


def _remember(doors: Doors, packages: dict[str, list[str]]) -> None:
    doors.system.write(doors.host.state / MEMORY, json.dumps(packages, indent=1))


# Preflight


def _distribution_faults(doors: Doors, *, force: bool) -> list[str]:
    """By os-release(5)."""
    try:
        text = doors.system.read(Path("/etc/os-release"))
    except FileNotFoundError:
        text = ""
    values = dict(re.findall(r'(?m)^([A-Z_]+)="?([^"\n]*)"?$', text))
    known = values.get("ID") == "debian" and values.get("VERSION_ID") in SUPPORTED
    if known or force:
        return []
    name = values.get("PRETTY_NAME", "an unknown system")
    return [f"this is {name}; what works: {', '.join(SUPPORTED.values())} (--force tries anyway)"]


def _architecture_faults(doors: Doors) -> list[str]:
    try:
        architecture = _architecture(doors)
    except CommandFailed:
        return ["there is no dpkg: this works with Debian's packages only"]
    if architecture in QEMU:
        return []
    return [f"the architecture is {architecture}; what works: {', '.join(QEMU)}"]


def _disk_faults(doors: Doors) -> list[str]:
    free = doors.system.free_space(Path("/usr"))
    if free >= DISK_NEEDED:
        return []
    return [f"the packages need {DISK_NEEDED / 1e9:.1f} GB on /usr, {free / 1e9:.1f} GB are free"]


def _apt_faults(doors: Doors) -> list[str]:
    """Refresh the lists and let apt say whether it can install everything."""
    try:
        doors.system.run([*APT, "update", "--error-on=any"])
        doors.system.run([*APT, *INSTALL, "--simulate", *missing(doors)])
    except CommandFailed as failed:
        lines = [line for line in failed.output.splitlines() if line.startswith("E: ")]
        return [f"apt: {line.removeprefix('E: ')}" for line in lines] or [str(failed)]
    return []


def _kernel_serves_nfs(doors: Doors) -> bool:
    """Whether boards can have NFS from here: not in containers, not without systemd."""
    system = doors.system
    if not system.exists(SYSTEMD) or system.exists(CONTAINER):
        return False
    release = system.read(Path("/proc/sys/kernel/osrelease")).strip()
    modules = Path("/lib/modules", release, "modules.dep")
    return "nfsd" in system.read(Path("/proc/filesystems")).split() or (
        system.exists(modules) and "/nfsd.ko" in system.read(modules)
    )
