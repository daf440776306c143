"""Whether a snapshot, or a directory of 2012, can be restored, and what is needed for it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from packaging.version import InvalidVersion, Version

from lava_deploy import sources
from lava_deploy.beside import Restoring
from lava_deploy.configuration import Database
from lava_deploy.errors import BrokenSnapshot, UnknownRevision
from lava_deploy.operations import origin, restoring_faults
from lava_deploy.parts import configuration, dump, facts, legacy, media, release
from lava_deploy.parts.origin import Described, described
from lava_deploy.snapshot import Snapshot
from lava_deploy.sources import snapshot as kept_code

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lava_deploy.model import Instance, Revision
    from lava_deploy.operations import Doors
    from lava_deploy.operations.restore import Request
    from lava_deploy.postgres import Postgres

__all__ = ["described", "faults", "is_legacy", "prepare", "seen"]

# Postgres wants half as much again for indexes while it makes them, and for its log.
DATABASE_SHARE = 1.5


def is_legacy(doors: Doors, path: Path) -> bool:
    """Whether a directory is no snapshot, but laid out as in 2012."""
    return isinstance(origin(doors, path), legacy.FromLegacy)


def seen(doors: Doors, instance: Instance, path: Path, *, database_only: bool) -> Described:
    """Read all of a directory of 2012. Raises BrokenSnapshot.

    A dump that cannot be read here, but may be elsewhere, is for `faults` to refuse.
    """
    tell, system = doors.report.amount, doors.system
    major, dumped = _server(doors, instance).version(), path / legacy.DUMP
    found = legacy.look(system, doors.packs, path, tell, database_only=database_only)
    faults, size = [*found.faults], 0
    if system.exists(dumped) and not _dump_faults(doors, dumped, major):
        broken = dump.check(system, dumped, major)
        faults += [f"{dumped.name}: {broken}"] if broken else []
        size = 0 if faults else dump.text_size(system, dumped, major)
    if faults:
        raise BrokenSnapshot(str(path), faults)
    if found.beside:
        doors.report.note(f"not part of the media, and left out: {', '.join(found.beside)}")
    return Described(str(path), database_size=size, media_size=found.size, place=found.place)


def faults(
    doors: Doors, instance: Instance, path: Path, described: Described, request: Request
) -> list[str]:
    """What stands in the way, found without any change; the origin is verified already."""
    found = restoring_faults(doors, instance, stop=request.stop)
    found += _version_faults(doors, instance, described, request)
    server = _server(doors, instance)
    found += _dump_faults(doors, origin(doors, path).dump, server.version())
    found += _room_faults(doors, instance, described, server, request)
    return found if request.database_only else found + _place_faults(doors, instance)


def _place_faults(doors: Doors, instance: Instance) -> list[str]:
    """Why days cannot be exchanged by their names: they are not in the media, but elsewhere."""
    output = instance.media / media.OUTPUT
    if doors.system.target(output):
        return [f"{output} is a link: snapshots do not have what it leads to, link media instead"]
    if doors.system.exists(output) and not doors.packs.on_one_disk(output, instance.media):
        return [f"{output} is a disk of its own: mount it at {instance.media} instead"]
    return []


def _server(doors: Doors, instance: Instance) -> Postgres:
    return doors.postgres(Database(**facts.read(doors.system, instance)["database"]))


def _dump_faults(doors: Doors, dumped: Path, major: int) -> list[str]:
    missing = dump.faults(doors.system, major)
    return missing or dump.readable_faults(doors.system, dumped, major)


def _version_faults(
    doors: Doors, instance: Instance, described: Described, request: Request
) -> list[str]:
    """Whether this release can serve what another one left: only what is older, by migrating it.

    Of what has no version, the database tells once it is loaded.
    """
    if not described.version:
        return [f"{described.name} has no release to install"] if request.with_release else []
    current = release.in_use(doors.system, instance)
    if request.with_release or _is_older(described.version, current.version):
        return []
    return [
        f"the snapshot is of LAVA {described.version}, and {instance.name} runs {current.version}, "
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
    described: Described,
    server: Postgres,
    request: Request,
) -> list[str]:
    """Too little room for what is made beside, as far as that is known beforehand."""
    system, needs = doors.system, {}
    directory = server.data_directory()
    if directory:
        needs[Path(directory)] = int(described.database_size * DATABASE_SHARE)
    if not request.database_only and str(instance.media) != described.media:
        needs[instance.media] = described.media_size
    return [
        f"the restore needs {need / 1e6:.0f} MB beside {path}, "
        f"{system.free_space(path) / 1e6:.0f} MB are free there"
        for path, need in needs.items()
        if system.free_space(path) < need
    ]


def prepare(doors: Doors, source: Path, add_packages: Callable[[Sequence[str]], None]) -> Revision:
    """Have the release of a snapshot in the cache, built out of the snapshot if need be."""
    system, cache, kept = doors.system, doors.host.cache, Snapshot(source).release
    revision = kept_code.revision(system, kept)
    if release.cached(system, cache, revision):
        return revision
    tell = doors.report.progress
    try:
        code = kept_code.fetch(system, doors.packs, cache, kept, tell)
    except UnknownRevision:  # the release was built by an older lava-deploy
        code = sources.fetch(system, cache, revision, tell)
    if code.build_packages:
        add_packages(code.build_packages)
    release.build(system, doors.packs, cache, code, tell)
    return revision


def configuration_text(doors: Doors, instance: Instance, source: str) -> str:
    """The instance.yaml of an origin, or the instance's where that has none.

    Raises FileNotFoundError.
    """
    text = origin(doors, Path(source)).configuration()
    if text or configuration.exists(doors.system, instance):
        return text or configuration.read(doors.system, instance)
    # of a restore that was killed between two renames
    return doors.system.read(Restoring(instance).configuration)
