"""The code of a release out of a snapshot, for when the source it came from has it no longer.

It is no source to choose from: a snapshot says itself which revision it has the code of.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from lava_deploy.errors import UnknownRevision
from lava_deploy.model import CODE, DESCRIPTION, LOCK, WHEELS, Code, Revision
from lava_deploy.sources import pythons

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Any

    from lava_deploy.packs import Packs
    from lava_deploy.system import System


def revision(system: System, kept: Path) -> Revision:
    """The revision that a release was built of; `kept` is the directory `release` of a snapshot.

    It is that of the source the code once came from, so that what is built of it is the same entry
    of the cache. Raises UnknownRevision.
    """
    described = _described(system, kept)
    return Revision(
        # older versions of lava-deploy did not keep the two that have a default here
        described.get("offered", described["version"]),
        described["source"],
        described["origin"],
        described["locator"],
        place=described.get("place", ""),
    )


def fetch(
    system: System, packs: Packs, cache: Path, kept: Path, progress: Callable[[str], None]
) -> Code:
    """The code that a snapshot has, unpacked in the cache, with the lock and any wheels it has.

    The snapshot is taken to be verified. Raises UnknownRevision when there is no code in it.
    """
    described = _described(system, kept)
    version = described["version"]
    if not system.exists(kept / CODE):
        raise UnknownRevision(
            f"{kept.parent} does not have the code of LAVA {version}",
            hint="It is of a release that an older lava-deploy has built.",
        )
    digest = system.run(["sha256sum", kept / CODE]).stdout.split()[0]
    name = f"snapshot-{digest[:16]}"
    tree, partial = cache / "code" / name, cache / "code" / f"{name}.partial"
    with system.locked(cache / "code" / f".{name}.lock"):
        if not system.exists(tree):
            progress(f"unpacking LAVA {version} from {kept.parent}")
            system.remove_tree(partial)
            system.make_directory(partial)
            packs.extract(kept / CODE, partial)
            system.rename(partial, tree)
    return Code(
        revision(system, kept),
        version,
        tree,
        lock=system.read(kept / LOCK),
        build_packages=tuple(described["build_packages"]),
        commit=described["commit"],
        wheels=kept / WHEELS if _has_wheels_for_here(system, kept, described) else None,
    )


def _has_wheels_for_here(system: System, kept: Path, described: dict[str, Any]) -> bool:
    """Those of another Python or kind of machine are of no use; an index may have others."""
    if not system.exists(kept / WHEELS):
        return False
    series = tuple(map(int, described["python"].split(".")[:2]))
    machine = system.run(["uname", "-m"]).stdout.strip()
    return (series, described["machine"]) == (pythons.here(system), machine)


def _described(system: System, kept: Path) -> dict[str, Any]:
    """What the release said of itself."""
    if not system.exists(kept / DESCRIPTION):
        raise UnknownRevision(f"{kept.parent} does not tell which LAVA it is of")
    return json.loads(system.read(kept / DESCRIPTION))
