"""The directory etc/ of an instance as a restore makes it beside: a snapshot's content, own access.

What makes an instance itself stays: its route and database, its tokens, its services. All else is
the snapshot's, and nothing is merged with what was there.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lava_deploy.beside import Exchange

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from lava_deploy.beside import Before, Restoring
    from lava_deploy.system import System

# What is not taken out of a snapshot: written anew out of instance.yaml, or the instance's own.
OWN = frozenset(
    "client-token former.json gunicorn.yaml installed.json secrets.yaml services settings.d site "
    "tls worker-token".split()
)
# What LAVA's web interface and API write in, so that it belongs to the instance's user.
LAVAS = ("devices", "device-types", "health-checks", "dispatcher.d")


def make(system: System, restoring: Restoring, extract: Callable[[Path], None], keep: Path) -> None:
    """Make etc/ beside out of the instance's own and a snapshot's; an empty worker directory.

    `extract` puts the snapshot's into a directory. `keep` is a file of the instance that is kept
    whatever the snapshot has at its place.
    """
    instance, extracted = restoring.instance, restoring.extracted
    for path in (restoring.etc, extracted):
        system.remove_tree(path)
    system.make_directory(extracted, 0o700)
    extract(extracted)
    system.run(["cp", "--archive", "--", instance.etc, restoring.etc])
    for name in {*system.names(restoring.etc)} - OWN:
        _remove(system, restoring.etc / name)
    for name in {*system.names(extracted / "etc")} - OWN:
        system.rename(extracted / "etc" / name, restoring.etc / name)
    for name in LAVAS:
        system.make_directory(restoring.etc / name, 0o750, instance.user, instance.user)
    there = [restoring.etc / name for name in system.names(restoring.etc) if name not in OWN]
    own = [path for path in there if path.name in LAVAS]
    _give(system, own, instance.user, instance.user)
    # secrets are closed to all but root by their mode
    _give(system, [path for path in there if path not in own], "root", instance.user)
    if system.exists(keep):
        kept = restoring.etc / keep.relative_to(instance.etc)
        system.run(["cp", "--archive", "--", keep, kept])
    system.make_directory(restoring.worker, 0o700)


def beside(restoring: Restoring, texts: Mapping[Path, str | None]) -> dict[Path, str | None]:
    """Texts of files in etc/ for their places beside; those of others, such as Apache's, not."""
    etc = restoring.instance.etc
    return {
        restoring.etc / path.relative_to(etc): text
        for path, text in texts.items()
        if path.is_relative_to(etc)
    }


def exchanges(restoring: Restoring, before: Before) -> list[Exchange]:
    """What is exchanged but for the media."""
    instance = restoring.instance
    pairs = [
        (instance.etc, restoring.etc),
        (instance.configuration, restoring.configuration),
        (instance.worker_directory, restoring.worker),
    ]
    return [Exchange(path, into, before.root / path.name, True, True) for path, into in pairs]


def rename_worker(system: System, restoring: Restoring, former: str, name: str) -> None:
    """Let what was configured for a worker of one name, if there was one, be for another's."""
    if former in ("", name):
        return
    configured = restoring.etc / "dispatcher.d"
    for suffix in ("", ".yaml"):  # a directory, or a file as LAVA had it before
        path = configured / f"{former}{suffix}"
        if system.exists(path):
            _remove(system, configured / f"{name}{suffix}")
            system.rename(path, configured / f"{name}{suffix}")


def _give(system: System, paths: list[Path], user: str, group: str) -> None:
    if paths:
        owner = f"{user}:{group}"
        system.run(["chown", "--recursive", "--no-dereference", owner, "--", *paths])


def _remove(system: System, path: Path) -> None:
    if system.is_directory(path) and not system.target(path):
        system.remove_tree(path)
    else:
        system.remove(path)
