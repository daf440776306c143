"""Where a revision's code comes from: each module finds and fetches it from one kind of place.

A source is a module with three functions: `offers` (what there is), `find` (the one that is meant)
and `fetch` (its code, laid out the same whatever the source).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lava_deploy.errors import UnknownRevision, Unreachable, UsageError
from lava_deploy.model import Offers
from lava_deploy.sources import debian

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import ModuleType

    from lava_deploy.model import Code, Revision
    from lava_deploy.system import System

# In the order in which they are asked.
SOURCES = {"debian": debian}


def offers(system: System, cache: Path, *, refresh: bool = False) -> Offers:
    """What all sources have, and what of them could not be reached.

    They are asked once an hour at most, or now if `refresh` says so.
    """
    all_offers = [module.offers(system, cache, refresh=refresh) for module in SOURCES.values()]
    return Offers(
        tuple(revision for one in all_offers for revision in one.revisions),
        tuple(line for one in all_offers for line in one.unreachable),
    )


def find(system: System, cache: Path, wanted: str, source: str = "") -> Revision:
    """The revision that is meant, of the source that is named or else the first that has it.

    `wanted` is a version or `latest`. Raises UnknownRevision, Unreachable, UsageError.
    """
    failures = []
    for name in [source] if source else SOURCES:
        try:
            return _source(name).find(system, cache, wanted)
        except (UnknownRevision, Unreachable) as failure:
            failures.append(failure)
    raise failures[0]


def fetch(system: System, cache: Path, revision: Revision, progress: Callable[[str], None]) -> Code:
    """The code of a revision, in the cache. Raises Unreachable, UsageError."""
    return _source(revision.source).fetch(system, cache, revision, progress)


def _source(name: str) -> ModuleType:
    if name not in SOURCES:
        raise UsageError(f"there is no source {name!r}", hint=f"There is: {', '.join(SOURCES)}.")
    return SOURCES[name]
