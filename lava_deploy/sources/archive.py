"""A Debian archive as apt sees it, one private directory for each suite.

Apt itself verifies, downloads and keeps the indexes there. It takes the way to the network from the
host's configuration; the host's own indexes, package status and locks are neither used nor changed.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lava_deploy.errors import Unreachable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lava_deploy.system import System

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
# Names of suites that stay while releases of Debian come and go.
ALIASES = ("oldstable", "stable", "testing", "unstable")

# Read after the host's configuration. Hooks of the host concern the host's own packages.
CONFIGURATION = """\
Dir::State "{directory}";
Dir::State::lists "lists";
Dir::State::status "{directory}/status";
Dir::Cache "{directory}/cache";
Dir::Cache::pkgcache "packages.bin";
Dir::Cache::srcpkgcache "";
Dir::Etc::sourcelist "{directory}/suite.sources";
Dir::Etc::sourceparts "{directory}/none";
Dir::Etc::preferencesparts "{directory}/none";
Dir::Etc::preferences "{directory}/none";
Acquire::Languages "none";
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
"""
SOURCES = """\
Types: deb
URIs: {mirror}
Suites: {suite}
Components: main
Signed-By: {keyring}
"""


@dataclass(frozen=True)
class Archive:
    """A package archive: where it is, which of its suites are asked, whose signatures count."""

    mirror: str
    suites: tuple[str, ...]
    keyring: Path = KEYRING


@dataclass(frozen=True)
class Suite:
    """A suite of an archive, and apt's private directory for it."""

    name: str
    archive: Archive
    directory: Path

    @property
    def lock(self) -> Path:
        """Held while apt is at work, which refuses a second one instead of waiting."""
        return self.directory / "lock"

    @property
    def stamp(self) -> Path:
        """When the index was fetched, in seconds since 1970."""
        return self.directory / "fetched"

    def command(self, program: str, *arguments: str) -> list[str]:
        """A command line of apt's that knows nothing but this suite."""
        return [program, f"--config-file={self.directory}/apt.conf", "--quiet", *arguments]


def of_host(system: System) -> Archive:
    """The archive that the host's apt uses for Debian, with the host's suite and the well-known.

    Raises Unreachable when apt has no such source.
    """
    form = "$(CREATED_BY)|$(COMPONENT)|$(ORIGIN)|$(REPO_URI)|$(RELEASE)|$(SUITE)"
    said = system.run(["apt-get", "indextargets", "--format", form]).stdout.splitlines()
    lines = [line.split("|")[2:] for line in said if line.startswith("Packages|main|")]
    codename = codename_of_host(system)
    # The origin is known only once apt has the index of a source; a bare host has none.
    lines = [line for line in lines if line[0] in ("Debian", "$(ORIGIN)")]
    lines.sort(key=lambda line: (line[2] != codename, line[0] != "Debian"))
    if not lines:
        raise Unreachable(
            "apt of this host has no source for Debian's packages", hint="See sources.list(5)."
        )
    _, mirror, suite, alias = lines[0]
    return Archive(mirror, (suite, *(name for name in ALIASES if name not in (suite, alias))))


def codename_of_host(system: System) -> str:
    """`bookworm`; '' where os-release(5) does not tell."""
    release = re.search(r"^VERSION_CODENAME=(\S+)", system.read(Path("/etc/os-release")), re.M)
    return release[1] if release else ""


def suites(cache: Path, archive: Archive) -> list[Suite]:
    """The suites of an archive with their places in the cache."""
    return [Suite(name, archive, cache / "apt" / name) for name in archive.suites]


def refresh(system: System, suite: Suite, age: float) -> str:
    """Fetch the index of a suite unless there is one of at most `age` seconds; why not, or ''.

    An index that apt refuses (expired, signed by another, damaged) leaves the former in its place.
    """
    with system.locked(suite.lock):
        sources = SOURCES.format(
            mirror=suite.archive.mirror, suite=suite.name, keyring=suite.archive.keyring
        )
        if _fresh(system, suite, sources, age):
            return ""
        _prepare(system, suite, sources)
        ended = system.run(
            suite.command("apt-get", "--error-on=any", "update"),
            check=False,
        )
        if ended.status != 0:
            return f"{suite.archive.mirror} {suite.name}: {reason(ended.stderr)}"
        system.write(suite.stamp, f"{time.time():.0f}\n")
        return ""


def reason(said: str) -> str:
    """The first error that apt names, or its last line, if that has none."""
    lines = said.strip().splitlines()
    errors = [line[2:].strip() for line in lines if line.startswith("E:")]
    return (errors or lines[-1:] or ["apt gave no reason"])[0]


def distinct(system: System, all_suites: Sequence[Suite]) -> list[Suite]:
    """Those suites that have an index, without second names of one and the same."""
    found: dict[str, Suite] = {}
    for suite in all_suites:
        lists = suite.directory / "lists"
        for name in system.names(lists):
            if name.endswith("InRelease"):
                codename = re.search(r"^Codename: (\S+)", system.read(lists / name), re.M)
                found.setdefault(codename[1] if codename else suite.name, suite)
    return list(found.values())


def versions(system: System, suite: Suite, package: str) -> list[str]:
    """The versions of a package in a suite, the newest first."""
    with system.locked(suite.lock):
        said = system.run(suite.command("apt-cache", "madison", package)).stdout
    return [line.split("|")[1].strip() for line in said.splitlines()]


def describe(system: System, suite: Suite, packages: Sequence[str]) -> dict[str, dict[str, str]]:
    """Fields by packages, the newest where no version is given (`lava-server=2026.10-1`)."""
    with system.locked(suite.lock):
        show = suite.command("apt-cache", "--no-all-versions", "show", *packages)
        stanzas = system.run(show).stdout.split("\n\n")
    fields = [dict(re.findall(r"^(\S+): (.*)$", stanza, re.M)) for stanza in stanzas]
    return {each["Package"]: each for each in fields if each}


def download(system: System, suite: Suite, packages: Sequence[str], to: Path) -> None:
    """Download packages into a directory.

    Raises Unreachable when one cannot be had or is not what the signed index says.
    """
    command = suite.command("apt-get", "download", *packages)
    with system.locked(suite.lock):
        ended = system.run(["env", f"--chdir={to}", *command], check=False)
    if ended.status != 0:
        raise Unreachable(
            f"packages of {suite.archive.mirror} {suite.name} cannot be used: "
            f"{reason(ended.stderr)}",
            hint="If the mirror is just being updated, try again later.",
        )


def _fresh(system: System, suite: Suite, sources: str, age: float) -> bool:
    written = suite.directory / "suite.sources"
    if not system.exists(suite.stamp) or system.read(written) != sources:
        return False
    return 0 <= time.time() - float(system.read(suite.stamp)) < age


def _prepare(system: System, suite: Suite, sources: str) -> None:
    """Make apt's directories and files; an index of another mirror or keyring goes."""
    written = suite.directory / "suite.sources"
    if system.exists(written) and system.read(written) != sources:
        system.remove_tree(suite.directory / "lists")
    for name in ("lists/partial", "cache/archives/partial", "none"):
        system.make_directory(suite.directory / name)
    system.write(suite.directory / "status", "")
    system.write(suite.directory / "apt.conf", CONFIGURATION.format(directory=suite.directory))
    system.write(written, sources)
