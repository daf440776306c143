"""Makes the code of a release of LAVA's source tree, which is in a git repository of the cache."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from lava_deploy import uv
from lava_deploy.errors import UnknownRevision
from lava_deploy.model import PYTHON, Code
from lava_deploy.sources import archive as archives
from lava_deploy.sources import debian, packages, repositories

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from lava_deploy.model import Revision
    from lava_deploy.system import System

# To be raised when the way files are laid out changes: what is in the cache is then made anew.
LAYOUT = "1"
EXTRAS = ("server", "dispatcher")
# What older trees have instead: packages of Debian's, by suites.
LISTING = "share/requirements/debian/{suite}.yaml"
LISTED = ("lava-common", "lava-server", "lava-dispatcher", "lava-dispatcher-host")
# Where LAVA's wheel puts what is meant for the directories of the system.
OUTSIDE = ("etc", "lib", "usr", "var")


def code(
    system: System,
    cache: Path,
    repository: Path,
    revision: Revision,
    progress: Callable[[str], None],
) -> Code:
    """The code of a revision whose locator is a commit or tree of that repository.

    Raises CommandFailed when the tree cannot be built, UnknownRevision when what it depends on is
    not told for this host.
    """
    lock = _lock(system, cache, repository, revision.locator)
    requirements, tools = ("", ()) if lock else _requirements(system, cache, repository, revision)
    name = f"{revision.source}-{revision.locator}-{revision.version}-{LAYOUT}"
    tree, partial = cache / "code" / name, cache / "code" / f"{name}.partial"
    with system.locked(cache / "code" / f".{name}.lock"):
        if not system.exists(tree):
            progress(f"building LAVA {revision.version} from {revision.origin}")
            system.remove_tree(partial)
            system.make_directory(partial)
            try:
                _lay_out(system, cache, repository, revision, partial)
                system.rename(partial / "tree", tree)
            finally:
                system.remove_tree(partial)
    commit = repositories.resolve(system, repository, f"{revision.locator}^{{commit}}")
    return Code(revision, revision.version, tree, requirements, lock, tools, commit)


def _lay_out(system: System, cache: Path, repository: Path, revision: Revision, work: Path) -> None:
    """Make a `work/tree` of what LAVA's own wheel has."""
    source, built, tree = work / "source", work / "built", work / "tree"
    _export(system, repository, revision.locator, source)
    system.write(source / "lava_common/VERSION", f"{revision.version}\n")
    install = "pip install --quiet --no-deps --link-mode copy --target".split()
    # LAVA asks git for the version of its wheel otherwise, which nobody reads.
    version = {"SETUPTOOLS_SCM_PRETEND_VERSION_FOR_LAVA": _numeric(revision.version)}
    words: list[str | Path] = [*install, built, "--python", PYTHON, source]
    uv.run(system, cache, words, environment=version)
    system.make_directory(tree / "share")
    system.rename(built / "usr/share/lava-server", tree / "share/lava-server")
    system.rename(built / "bin", tree / "programs")
    for name in OUTSIDE:
        system.remove_tree(built / name)
    system.rename(built, tree / "packages")
    system.write(tree / "packages/lava_common/VERSION", f"{revision.version}\n")
    if _needs_guestfs(system, tree):
        system.write(tree / "packages/guestfs.py", packages.GUESTFS)


def _export(system: System, repository: Path, tree: str, to: Path) -> None:
    """The files of a commit or tree, as LAVA's archives of releases have them."""
    archive = to.with_suffix(".tar")
    system.make_directory(to)
    repositories.run(system, repository, "archive", f"--output={archive}", tree)
    system.run(["tar", "--extract", f"--file={archive}", f"--directory={to}", "--no-same-owner"])


def _numeric(version: str) -> str:
    """The part of a version that PEP 440 allows of every LAVA's."""
    found = re.match(r"\d+(\.\d+)*(\.dev\d+)?", version)
    return found[0] if found else "0"


def _needs_guestfs(system: System, tree: Path) -> bool:
    """Whether the dispatcher does not even start without it."""
    files = tree / "packages/lava_dispatcher"
    search = system.run(["grep", "-rq", "^import guestfs", files], check=False)
    return search.status == 0


def _lock(system: System, cache: Path, repository: Path, tree: str) -> str:
    """The exact versions and hashes of the tree's uv.lock, '' if it has none (before 2026.06)."""
    texts = {
        name: repositories.text(system, repository, tree, name)
        for name in ("uv.lock", "pyproject.toml")
    }
    if not all(texts.values()):
        return ""
    export = "export --quiet --frozen --no-dev --no-emit-project --no-header --no-annotate".split()
    export += [f"--extra={extra}" for extra in EXTRAS]
    with system.temporary_directory() as directory:
        for name, text in texts.items():
            system.write(directory / name, text)
        words = [*export, "--python", str(PYTHON), "--directory", str(directory)]
        return uv.run(system, cache, words)


def _requirements(
    system: System, cache: Path, repository: Path, revision: Revision
) -> tuple[str, tuple[str, ...]]:
    """What a tree without a lock depends on, and the Debian packages to build that with."""
    project = repositories.text(system, repository, revision.locator, "pyproject.toml")
    requirements = requirements_of(tomllib.loads(project))
    if requirements:
        return requirements, ()
    codename = archives.codename_of_host(system)
    path = LISTING.format(suite=codename)
    listing = repositories.text(system, repository, revision.locator, path)
    if not listing:
        raise UnknownRevision(
            f"LAVA {revision.version} does not tell what it needs on Debian {codename}"
        )
    suite = archives.suites(cache, archives.of_host(system))[0]
    archives.refresh(system, suite, float("inf"))
    return debian.pinned(system, suite, packages_of(yaml.safe_load(listing)))


def requirements_of(project: dict[str, Any]) -> str:
    """The requirements in a pyproject.toml, '' if it does not have any (before 2026.01)."""
    extras = project.get("project", {}).get("optional-dependencies", {})
    if not all(extra in extras for extra in EXTRAS):
        return ""
    wanted = {*project["project"].get("dependencies", ()), *packages.ALWAYS}
    wanted.update(line for extra in EXTRAS for line in extras[extra])
    return "".join(f"{line}\n" for line in sorted(wanted))


def packages_of(listing: dict[str, Any]) -> list[str]:
    """The Debian packages of Python's in a tree's listing, without those for its own tests."""
    entries = [entry for name in LISTED for entry in (listing.get(name) or {}).values()]
    names = {entry["name"] for entry in entries if not entry.get("unittests")}
    return sorted(name for name in names if name.startswith("python3-"))
