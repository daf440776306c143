"""What a release depends on, as files out of which it can be built again without any index.

They are as the index has them, whatever their form, since the lock has hashes of just these.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from typing import TYPE_CHECKING

from lava_deploy import uv
from lava_deploy.model import LOCK, WHEELS

if TYPE_CHECKING:
    from pathlib import Path

    from lava_deploy.model import Release
    from lava_deploy.system import System

WHEEL = ".whl"
# What a source package is built with if it does not say (PEP 518); older versions of it need wheel.
BUILDER = "setuptools>=40.8.0"
ALWAYS = "wheel"


def make(system: System, cache: Path, release: Release, to: Path) -> None:
    """Put the files into the directory `to`, as links to those of the cache, and on the disk.

    They serve the release's own version of Python on machines of this kind. Raises CommandFailed
    when they cannot be had as the lock has them.
    """
    lock = system.read(release.path / LOCK)
    series = release.interpreter.rpartition(".")[0]
    digest = hashlib.sha256(lock.encode()).hexdigest()[:16]
    kept = cache / WHEELS / f"{digest}-python{series}"
    partial = kept.with_name(f"{kept.name}.partial")
    with system.locked(kept.with_name(f".{kept.name}.lock")):
        if not system.exists(kept):
            system.remove_tree(partial)
            system.make_directory(partial)
            try:
                _download(system, release, lock, partial)
                system.rename(partial, kept)
            finally:
                system.remove_tree(partial)
    system.remove_tree(to)
    system.copy_linked(kept, to)
    for path in (*(to / name for name in system.names(to)), to):
        system.flush(path)


def _download(system: System, release: Release, lock: str, to: Path) -> None:
    whole = ["--no-deps", "--require-hashes", "--requirement", str(release.path / LOCK)]
    uv.run_pip(system, release.python, ["download", "--dest", to, *whole])
    sources = [to / name for name in system.names(to) if not name.endswith(WHEEL)]
    # Each set by itself: two may ask for versions that exclude each other.
    for wanted in sorted({builders(_project(system, source)) for source in sources}):
        with system.temporary_directory() as directory:
            constraints = directory / "constraints.txt"
            system.write(constraints, locked_versions(lock))
            chosen = ["--only-binary=:all:", "--constraint", str(constraints), *wanted]
            uv.run_pip(system, release.python, ["download", "--dest", to, *chosen])


def _project(system: System, source: Path) -> str:
    """The pyproject.toml of a source package, '' if it has none."""
    # GNU tar: * is the one directory at the top
    only = ["--wildcards", "--no-wildcards-match-slash", "*/pyproject.toml"]
    return system.run(
        ["tar", "--extract", "--to-stdout", f"--file={source}", *only], check=False
    ).stdout


def builders(project: str) -> tuple[str, ...]:
    """What a source package with that pyproject.toml is built with, by PEP 518."""
    system = tomllib.loads(project).get("build-system", {})
    return tuple(sorted({*system.get("requires", [BUILDER]), ALWAYS}))


def locked_versions(lock: str) -> str:
    """The versions in a lock without their hashes, as constraints for what it does not name."""
    found = re.findall(r"^([\w.-]+)(?:\[[^]]*\])?(==[^\s;]+)", lock, re.M)
    return "".join(f"{name}{version}\n" for name, version in found)
