"""The source "directory": a working tree of LAVA's source code, with changes nobody committed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lava_deploy.errors import UnknownRevision
from lava_deploy.model import Revision
from lava_deploy.sources import pythons, repositories, trees

if TYPE_CHECKING:
    from collections.abc import Callable

    from lava_deploy.model import Code
    from lava_deploy.system import System

SOURCE = "directory"
VERSION = "lava_common/VERSION"


def find(system: System, cache: Path, path: str) -> Revision:
    """What is in a directory just now, kept as it is; what its .gitignore names is left out.

    The version is that of the last commit, with `+dirty.` and the start of a hash of all files if
    these differ: two states that differ never pass for the same version. Without git, it is what
    the file VERSION of LAVA's archives says. Raises UnknownRevision.
    """
    tree = Path(path)
    if not system.exists(tree / "lava_common/version.py"):
        raise UnknownRevision(
            f"{path} has no lava_common/version.py: it is no tree of LAVA's source code",
            hint="A repository without files is given by --source PATH with a REVISION.",
        )
    locator = _keep(system, cache, tree)
    version = _version(system, cache, tree, locator)
    why_not = pythons.why_not(version, pythons.here(system))
    if why_not:
        raise UnknownRevision(f"LAVA {version} does not run here: {why_not}")
    return Revision(version, SOURCE, path, locator, place=path)


def fetch(system: System, cache: Path, revision: Revision, progress: Callable[[str], None]) -> Code:
    """The code of a directory as it was when it was found. Raises UnknownRevision."""
    copy = repositories.place(cache, revision.place)
    if not repositories.resolve(system, copy, f"{revision.locator}^{{tree}}"):
        raise UnknownRevision(
            f"what {revision.place} was like is not in the cache any more",
            hint="Order it again, as it is now.",
        )
    return trees.code(system, cache, copy, revision, progress)


def _keep(system: System, cache: Path, tree: Path) -> str:
    """Put all files into a repository of the cache, as a tree object; its hash."""
    copy = repositories.place(cache, str(tree))
    with system.locked(copy.with_suffix(".copying")):
        repositories.make(system, copy)
        repositories.run(system, copy, "-C", tree, f"--work-tree={tree}", "add", "--all")
        return repositories.run(system, copy, "write-tree")


def _version(system: System, cache: Path, tree: Path, locator: str) -> str:
    """What LAVA in a working tree is to call itself."""
    if not system.exists(tree / ".git"):
        if not system.exists(tree / VERSION):
            raise UnknownRevision(f"{tree} has neither .git nor {VERSION} to tell its version")
        return system.read(tree / VERSION).strip()
    described = _ask(system, tree, *repositories.DESCRIBE)
    committed = _ask(system, tree, "rev-parse", "HEAD^{tree}")
    if not described or not committed:
        raise UnknownRevision(
            f"no release precedes the commit that {tree} is at, so it has no version",
            hint="`git fetch --tags` of LAVA's own repository helps.",
        )
    rule = system.read(tree / "lava_common/version.py")
    version = repositories.version_of(described, rule)
    return version if committed == locator else f"{version}+dirty.{locator[:8]}"


def _ask(system: System, tree: Path, *words: str) -> str:
    """What git says of somebody's working tree, '' if that fails."""
    command = ["git", "-C", str(tree), "-c", f"safe.directory={tree}", *words]
    return system.run(command, check=False).stdout.strip()
