"""Whether a snapshot can be restored into an instance, and what is needed for it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from packaging.version import InvalidVersion, Version

from lava_deploy import sources
from lava_deploy.configuration import Database
from lava_deploy.errors import UnknownRevision
from lava_deploy.operations import runs
from lava_deploy.parts import dump, facts, release
from lava_deploy.snapshot import Snapshot
from lava_deploy.sources import snapshot as kept_code

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lava_deploy.model import Instance, Revision
    from lava_deploy.operations import Doors
    from lava_deploy.operations.restore import Request
    from lava_deploy.postgres import Postgres
    from lava_deploy.snapshot import Manifest

# Postgres wants half as much again for indexes while it makes them, and for its log.
DATABASE_SHARE = 1.5


def faults(
    doors: Doors, instance: Instance, source: Snapshot, manifest: Manifest, request: Request
) -> list[str]:
    """What stands in the way, found without any change; the snapshot is verified already."""
    found = []
    if not request.stop and runs(doors, instance):
        found.append(f"{instance.name} is running: --stop stops it, and starts it afterwards")
    found += _version_faults(doors, instance, manifest, request)
    server = doors.postgres(Database(**facts.read(doors.system, instance)["database"]))
    major = server.version()
    missing = dump.faults(doors.system, major)
    found += missing or dump.readable_faults(doors.system, source.dump, major)
    found += _room_faults(doors, instance, source, manifest, server, request)
    return found


def _version_faults(
    doors: Doors, instance: Instance, manifest: Manifest, request: Request
) -> list[str]:
    """Whether this release can serve what another one left: only what is older, by migrating it."""
    current = release.in_use(doors.system, instance)
    if request.with_release or _is_older(manifest.version, current.version):
        return []
    return [
        f"the snapshot is of LAVA {manifest.version}, and {instance.name} runs {current.version}, "
        "which cannot serve what is newer: --with-release installs that release as well"
    ]


def _is_older(version: str, than: str) -> bool:
    """Whether it is older or the same; of what has no order, only the same is."""
    try:
        return version == than or Version(version) < Version(than)
    except InvalidVersion:
        return False


def _room_faults(
    doors: Doors,
    instance: Instance,
    source: Snapshot,
    manifest: Manifest,
    server: Postgres,
    request: Request,
) -> list[str]:
    """Too little room for what is made beside, as far as that is known beforehand."""
    system, needs = doors.system, {}
    directory = server.data_directory()
    if directory:
        needs[Path(directory)] = int(manifest.database_size * DATABASE_SHARE)
    if not request.database_only and str(instance.media) != manifest.media:
        own = source.media.name
        raw = sum(one.raw for one in manifest.members if one.path.startswith(f"{own}/"))
        needs[instance.media] = raw
    return [
        f"the restore needs {need / 1e6:.0f} MB beside {path}, "
        f"{system.free_space(path) / 1e6:.0f} MB are free there"
        for path, need in needs.items()
        if system.free_space(path) < need
    ]


def prepare(
    doors: Doors, source: Snapshot, add_packages: Callable[[Sequence[str]], None]
) -> Revision:
    """Have the release of a snapshot in the cache, built out of the snapshot if need be."""
    system, cache = doors.system, doors.host.cache
    revision = kept_code.revision(system, source.release)
    if release.cached(system, cache, revision):
        return revision
    tell = doors.report.progress
    try:
        code = kept_code.fetch(system, doors.packs, cache, source.release, tell)
    except UnknownRevision:  # the release was built by an older lava-deploy
        code = sources.fetch(system, cache, revision, tell)
    if code.build_packages:
        add_packages(code.build_packages)
    release.build(system, doors.packs, cache, code, tell)
    return revision


def configuration_text(doors: Doors, source: str) -> str:
    """The instance.yaml in the snapshot at a path. Raises FileNotFoundError."""
    return doors.packs.read(Snapshot(Path(source)).etc, "instance.yaml").decode()
