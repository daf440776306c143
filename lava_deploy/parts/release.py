"""The release of an instance: LAVA's code, its own virtualenv and its static files.

A release is built once per host, in the cache, and shared into instances as hard links of files
that belong to root and that nobody else may write.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from lava_deploy import uv
from lava_deploy.errors import DeployError
from lava_deploy.model import CODE, DESCRIPTION, LOCK, PYTHON, Built, Release

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from lava_deploy.model import Code, Instance, Revision
    from lava_deploy.packs import Packs
    from lava_deploy.system import System

# To be raised when the way a release is built changes: what is in the cache is then built anew.
RECIPE = "3"
STATIC = "static"
# What uv writes into a relocatable virtualenv: to the shell a command, to Python a text.
FIRST_LINES = """\
#!/bin/sh
'''exec' "$(dirname -- "$(realpath -- "$0")")"/'python' "$0" "$@"
' '''
"""
# Enough of LAVA's settings for its static files: no database, nothing of /etc/lava-server.
SETTINGS = """\
from lava_server.settings.common import *

SECRET_KEY = "not used"
DJANGO_LOGFILE = "/dev/null"
STATIC_ROOT = {static!r}
globals().update(update(globals()))
# else Django looks for the zone's file, which apt may be unpacking just now
TIME_ZONE = None
"""
VERIFICATION = """\
import os, platform, django, gunicorn, lava_dispatcher.parser
from lava_common.version import __version__
print(__version__, platform.python_version(), os.uname().machine)
"""


def label(stamp: str, version: str) -> str:
    """The name of a release's directory: when it came, and what it is."""
    return f"{stamp}-{version}"


def cached(system: System, cache: Path, revision: Revision) -> Built | None:
    """The release of a revision that was built on this host before, with the same Python."""
    folder = _folder(system, cache, revision)
    if not system.exists(folder / DESCRIPTION):
        return None
    return Built(json.loads(system.read(folder / DESCRIPTION))["version"], folder)


def build(
    system: System, packs: Packs, cache: Path, code: Code, progress: Callable[[str], None]
) -> Built:
    """Build a release in the cache, or take the one that another run has built meanwhile.

    A release is whole or not there at all. Raises CommandFailed when dependencies cannot be had or
    compiled, and DeployError when what was built does not work.
    """
    folder = _folder(system, cache, code.revision)
    partial = folder.with_name(f"{folder.name}.partial")
    with system.locked(folder.with_name(f".{folder.name}.lock")):
        ready = cached(system, cache, code.revision)
        if ready:
            return ready
        system.remove_tree(partial)
        system.make_directory(partial)
        try:
            _fill(system, cache, code, partial, progress)
            _keep(system, packs, code, partial)
            _close(system, code, partial)
            system.rename(partial, folder)
        except BaseException:
            system.remove_tree(partial)
            raise
    return Built(code.version, folder)


def exists(system: System, instance: Instance, label: str) -> bool:
    """Whether an instance has a release, whole."""
    return system.exists(instance.releases / label / DESCRIPTION)


def make(system: System, instance: Instance, label: str, built: Built) -> None:
    """Give an instance a release of the cache: its own directories with the same files."""
    if exists(system, instance, label):
        return
    partial = instance.releases / f"{label}.partial"
    system.remove_tree(partial)
    system.make_directory(instance.releases)
    system.copy_linked(built.path, partial)
    system.rename(partial, instance.releases / label)


def remove(system: System, instance: Instance, label: str) -> None:
    """Remove a release from an instance, and the link to it; those of others and the cache stay."""
    if system.target(instance.current) == label:
        system.remove(instance.current)
    system.remove_tree(instance.releases / f"{label}.partial")
    system.remove_tree(instance.releases / label)


def switch(system: System, instance: Instance, label: str) -> None:
    """Turn the link `current` to a release."""
    system.link(instance.current, label)


def current(system: System, instance: Instance) -> Release | None:
    """The release that `current` names, if there is one."""
    label = system.target(instance.current)
    return of(system, instance, label) if label and exists(system, instance, label) else None


def in_use(system: System, instance: Instance) -> Release:
    """The release that `current` names. Raises DeployError when it leads nowhere."""
    found = current(system, instance)
    if found is None:
        raise DeployError(f"{instance.name} has no release: {instance.current} leads nowhere")
    return found


def of(system: System, instance: Instance, label: str) -> Release:
    """A release of an instance as it describes itself. Raises FileNotFoundError."""
    path = instance.releases / label
    described = json.loads(system.read(path / DESCRIPTION))
    return Release(
        label,
        described["version"],
        described["source"],
        described["locator"],
        path,
        described["origin"],
        described.get("place", ""),  # releases built by older versions of lava-deploy lack it
        described["commit"],
        described["python"],
    )


def sources(system: System, release: Release) -> list[Path]:
    """The files that a release can be built from again.

    Without the last, CODE, in one that an older lava-deploy has built.
    """
    names = (DESCRIPTION, LOCK, CODE)
    return [release.path / name for name in names if system.exists(release.path / name)]


def _folder(system: System, cache: Path, revision: Revision) -> Path:
    """Where a revision is built: a name for all that decides what comes out."""
    python = system.target(PYTHON)
    parts = [revision.source, revision.locator, python, RECIPE]
    digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]
    return cache / "releases" / f"{revision.version}-{digest}"


def _fill(
    system: System, cache: Path, code: Code, to: Path, progress: Callable[[str], None]
) -> None:
    venv, lock = to / "venv", to / LOCK
    if code.lock:
        system.write(lock, code.lock)
    else:
        progress("choosing the versions of what LAVA depends on")
        choose = "pip compile --quiet --generate-hashes --no-header --no-annotate".split()
        choose += ["--python", str(PYTHON), "--output-file", str(lock), "-"]
        uv.run(system, cache, choose, stdin=code.requirements)
    progress("downloading and installing what LAVA depends on")
    uv.run(system, cache, ["venv", "--quiet", "--relocatable", "--python", PYTHON, venv])
    sync = "pip sync --quiet --require-hashes --link-mode copy --compile-bytecode".split()
    # What has to be compiled gets the locked setuptools, if there is one.
    sync += ["--build-constraints", str(lock), "--python", str(venv / "bin/python"), str(lock)]
    if code.wheels:
        sync += ["--no-index", "--find-links", str(code.wheels)]
    uv.run(system, cache, sync)
    progress(f"installing LAVA {code.version} and its static files")
    _install(system, code, venv)
    _collect(system, code, to)


def _install(system: System, code: Code, venv: Path) -> None:
    """Copy LAVA into the virtualenv, where LAVA's own wheel would put it."""
    packages = _packages(system, venv)
    system.run(["cp", "--archive", f"{code.tree}/packages/.", packages])
    system.make_directory(packages / "usr/share")
    data = packages / "usr/share/lava-server"
    system.run(["cp", "--archive", code.tree / "share/lava-server", data])
    names = [packages / name for name in system.names(code.tree / "packages")]
    python = venv / "bin/python"
    system.run([python, "-I", "-m", "compileall", "-q", "-j", "0", *names])
    for name in system.names(code.tree / "programs"):
        first, _, rest = system.read(code.tree / "programs" / name).partition("\n")
        if "python" in first:
            system.write(venv / "bin" / name, FIRST_LINES + rest, mode=0o755)


def _collect(system: System, code: Code, to: Path) -> None:
    """Collect the static files, which the web server hands out without asking LAVA."""
    with system.temporary_directory() as work:
        system.write(work / "lava_collect.py", SETTINGS.format(static=str(to / STATIC)))
        system.run(
            [to / "venv/bin/python", "-m", "django", "collectstatic", "--no-input", "-v", "0"],
            environment={"PYTHONPATH": str(work), "DJANGO_SETTINGS_MODULE": "lava_collect"},
        )
    if system.exists(code.tree / STATIC):
        system.run(["cp", "--archive", f"{code.tree}/{STATIC}/.", to / STATIC])


def _keep(system: System, packs: Packs, code: Code, to: Path) -> None:
    """Keep LAVA's own code, so that the release can be built again when no source has it."""
    entries = [(code.tree / name, name) for name in system.names(code.tree)]
    _, skipped = packs.bundle(to / CODE, entries)
    if skipped:
        path, reason = skipped[0]
        raise DeployError(f"{code.tree}/{path} cannot be kept with the release: {reason}")


def _close(system: System, code: Code, to: Path) -> None:
    """Try what was built, describe it and let nobody but root write to it."""
    said = system.run([to / "venv/bin/python", "-I", "-c", VERIFICATION]).stdout.split()
    version, python, machine = said
    if version != code.version:
        raise DeployError(f"the release built of LAVA {code.version} calls itself {version}")
    description = {
        "version": version,
        "offered": code.revision.version,
        "source": code.revision.source,
        "locator": code.revision.locator,
        "origin": code.revision.origin,
        "place": code.revision.place,
        "commit": code.commit,
        "python": python,
        "machine": machine,
        "build_packages": code.build_packages,
    }
    system.write(to / DESCRIPTION, json.dumps(description, indent=2) + "\n")
    system.run(["chown", "--recursive", "--no-dereference", "root:root", to])
    system.run(["chmod", "--recursive", "u=rwX,go=rX", to])
    # The key of the virtual machines that the dispatcher starts: ssh refuses one others can read.
    key = _packages(system, to / "venv") / "lava_dispatcher/dynamic_vm_keys/lava"
    if system.exists(key):
        system.run(["chmod", "0600", key])


def _packages(system: System, venv: Path) -> Path:
    return next(
        venv / "lib" / name / "site-packages"
        for name in system.names(venv / "lib")
        if name.startswith("python3")
    )
