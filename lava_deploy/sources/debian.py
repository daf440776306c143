"""The source "debian": LAVA's binary packages in Debian's suites, unpacked and never installed."""

from __future__ import annotations

import difflib
import re
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from packaging.version import InvalidVersion, Version

from lava_deploy.errors import UnknownRevision, Unreachable
from lava_deploy.model import Code, Offers, Revision
from lava_deploy.sources import archive as archives
from lava_deploy.sources import packages, pythons

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from lava_deploy.sources.archive import Archive, Suite
    from lava_deploy.system import System

SOURCE = "debian"
HOUR = 3600


def offers(
    system: System, cache: Path, *, refresh: bool = False, archive: Archive | None = None
) -> Offers:
    """The revisions in all suites, the newest first, by indexes of the last hour or quite new ones.

    A suite that cannot be reached, or whose index is refused, is one line; what a former index of
    it had is offered all the same.
    """
    suites = archives.suites(cache, archive or archives.of_host(system))
    age = 0 if refresh else HOUR
    with ThreadPoolExecutor(max_workers=len(suites)) as pool:
        failures = list(pool.map(lambda suite: archives.refresh(system, suite, age), suites))
        different = archives.distinct(system, suites)
        versions = pool.map(lambda one: archives.versions(system, one, "lava-server"), different)
    places: dict[str, list[str]] = {}
    for suite, some in zip(different, versions, strict=True):
        for version in some:
            places.setdefault(version, []).append(suite.name)
    python = pythons.here(system)
    found = [_revision(version, names, python) for version, names in places.items()]
    found.sort(key=lambda revision: _age_of(revision.locator), reverse=True)
    return Offers(tuple(found), tuple(filter(None, failures)))


def find(system: System, cache: Path, wanted: str, *, archive: Archive | None = None) -> Revision:
    """The revision of a version (`2026.10`) or a package's version; `latest` is what runs here.

    Raises UnknownRevision, also for one that this host's Python cannot run; Unreachable when no
    suite answers.
    """
    offered = offers(system, cache, archive=archive)
    if offered.unreachable and not offered.revisions:
        raise Unreachable("no package archive can be used: " + "; ".join(offered.unreachable))
    return choose(offered, wanted)


def choose(offered: Offers, wanted: str) -> Revision:
    """The one of several revisions that is meant. Raises UnknownRevision."""
    runnable = [revision for revision in offered.revisions if revision.runs_here]
    names = list(dict.fromkeys(revision.version for revision in runnable))
    runs_here = f"These run here: {', '.join(names) or 'none'}."
    matching = [one for one in offered.revisions if wanted in (one.version, one.locator)]
    if wanted == "latest":
        matching = runnable
    if not matching:
        near = difflib.get_close_matches(wanted, names, n=1, cutoff=0)
        nearest = f"The nearest is {near[0]}. " if near else ""
        missed = "".join(f"; not reached: {line}" for line in offered.unreachable)
        raise UnknownRevision(f"Debian has no LAVA {wanted}{missed}", hint=nearest + runs_here)
    if not matching[0].runs_here:
        reason = matching[0].why_not
        raise UnknownRevision(f"LAVA {wanted} does not run here: {reason}", hint=runs_here)
    return matching[0]


def fetch(
    system: System,
    cache: Path,
    revision: Revision,
    progress: Callable[[str], None],
    *,
    archive: Archive | None = None,
) -> Code:
    """Download the packages of a revision and lay their files out in the cache, unless they are.

    Raises Unreachable when they cannot be had, or are not what the signed index says.
    """
    suite = _holding(system, cache, revision, archive or archives.of_host(system))
    wanted = [f"{name}={revision.locator}" for name in packages.LAVA]
    described = archives.describe(system, suite, wanted)
    needed = packages.depends(described.values(), "python3-.*")
    name = f"{SOURCE}-{revision.locator}-{packages.LAYOUT}"
    tree, partial = cache / "code" / name, cache / "code" / f"{name}.partial"
    with system.locked(cache / "code" / f".{name}.lock"):
        if not system.exists(tree):
            progress(f"downloading LAVA {revision.version} from Debian {suite.name}")
            scripts = _scripts(
                system, suite, packages.depends(described.values(), packages.SCRIPTS)
            )
            system.remove_tree(partial)
            system.make_directory(partial / "downloaded")
            try:
                archives.download(system, suite, [*wanted, *scripts], partial / "downloaded")
                packages.lay_out(system, partial, needed)
                system.rename(partial / "tree", tree)
            finally:
                system.remove_tree(partial)
    return _code(system, suite, revision, tree, needed)


def _scripts(system: System, suite: Suite, linked: Sequence[str]) -> list[str]:
    """Packages with JavaScript, and those that these depend on, as the documentation needs both."""
    described = archives.describe(system, suite, linked).values()
    return sorted({*linked, *packages.depends(described, packages.SCRIPTS)})


def _code(
    system: System, suite: Suite, revision: Revision, tree: Path, needed: Sequence[str]
) -> Code:
    version = packages.version(system, tree)
    listed = packages.listed_requirements(system, tree)
    if listed:
        return Code(revision, version, tree, listed)
    requirements, tools = pinned(system, suite, needed)
    return Code(revision, version, tree, requirements, build_packages=tools)


def pinned(system: System, suite: Suite, needed: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """Requirements by the versions that a suite has of packages of Python's.

    And the Debian packages without which one of them cannot be built.
    """
    described = archives.describe(system, suite, [*needed, *packages.UNLISTED])
    versions = {name: described[name]["Version"] for name in described}
    tools = {tool for name in needed for tool in packages.COMPILED.get(name, ())}
    return packages.pinned_requirements(versions), tuple(sorted(tools))


def _holding(system: System, cache: Path, revision: Revision, archive: Archive) -> Suite:
    """A suite that has the revision, by an index that may have been lost since it was chosen."""
    suites = archives.suites(cache, archive)
    for age in (float("inf"), 0):
        failures = [archives.refresh(system, suite, age) for suite in suites]
        for suite in archives.distinct(system, suites):
            if revision.locator in archives.versions(system, suite, "lava-server"):
                return suite
    raise Unreachable(
        f"LAVA {revision.locator} is not in {archive.mirror} any more",
        hint="; ".join(filter(None, failures)) or "`revisions` shows what there is now.",
    )


def _revision(package: str, suites: Sequence[str], python: tuple[int, int]) -> Revision:
    version = re.sub(r"^\d+:|[-+~].*", "", package)
    why_not = pythons.why_not(version, python)
    return Revision(version, SOURCE, f"Debian {', '.join(suites)}", package, not why_not, why_not)


def _age_of(package: str) -> tuple[Version, list[int]]:
    """What sorts the versions of a package: upstream's, then the numbers of Debian's revision."""
    upstream, _, revision = re.sub(r"^\d+:", "", package).partition("-")
    try:
        version = Version(upstream.replace("~", ""))
    except InvalidVersion:
        version = Version("0")
    return version, [int(number) for number in re.findall(r"\d+", revision)]
