"""Where a revision's code comes from: each module finds and fetches it from one kind of place.

A source is a module with three functions: `offers` (what there is), `find` (the one that is meant)
and `fetch` (its code, laid out the same whatever the source). A directory offers nothing: it has
to be named.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from lava_deploy.errors import UnknownRevision, Unreachable, UsageError
from lava_deploy.model import LATEST, Offers
from lava_deploy.sources import debian, directory, git, pythons

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from lava_deploy.model import Code, Revision, Wanted
    from lava_deploy.system import System

SOURCES = {module.SOURCE: module for module in (debian, git, directory)}
# In the order in which they are asked. Debian's come first: they are signed.
ASKED = (debian.SOURCE, git.SOURCE)


def offers(system: System, cache: Path, place: str, *, refresh: bool = False) -> Offers:
    """What all sources have, and what of them could not be reached; `place` is the repository.

    They are asked once an hour at most, or now if `refresh` says so.
    """

    def of_debian() -> Offers:
        try:
            return debian.offers(system, cache, refresh=refresh)
        except Unreachable as failure:
            return Offers(unreachable=(str(failure),))

    with ThreadPoolExecutor() as pool:
        of_git = pool.submit(git.offers, system, cache, place, refresh=refresh)
        all_offers = [of_debian(), of_git.result()]
    return Offers(
        tuple(revision for one in all_offers for revision in one.revisions),
        tuple(line for one in all_offers for line in one.unreachable),
    )


def find(system: System, cache: Path, wanted: Wanted, tell: Callable[[str], None]) -> Revision:
    """The revision that is meant: of one source if one is named, else of the first that has it.

    `latest` is the newest of all that can be reached. `tell` is given a line for each source that
    cannot, and what takes long. Raises UnknownRevision, Unreachable, UsageError.
    """
    if wanted.source:
        return _find(system, cache, wanted.source, wanted, tell)
    if wanted.revision == LATEST:
        return _latest(system, cache, wanted, tell)
    failures: list[UnknownRevision | Unreachable] = []
    for name in ASKED:
        try:
            return _find(system, cache, name, wanted, tell)
        except (UnknownRevision, Unreachable) as failure:
            failures.append(failure)
    message = "; ".join(map(str, failures))
    hint = " ".join(failure.hint for failure in failures if failure.hint)
    if any(isinstance(failure, UnknownRevision) for failure in failures):
        raise UnknownRevision(message, hint=hint)
    raise Unreachable(message, hint=hint)


def fetch(system: System, cache: Path, revision: Revision, progress: Callable[[str], None]) -> Code:
    """The code of a revision, in the cache. Raises Unreachable, UsageError."""
    if revision.source not in SOURCES:
        raise _no_source(revision.source)
    return SOURCES[revision.source].fetch(system, cache, revision, progress)


def newest(offered: Offers) -> Revision:
    """The newest that runs here; of equal ones the first. Raises UnknownRevision, Unreachable."""
    runnable = [revision for revision in offered.revisions if revision.runs_here]
    if runnable:
        return max(runnable, key=lambda revision: pythons.numbers(revision.version))
    if offered.revisions or not offered.unreachable:
        raise UnknownRevision("there is no LAVA that runs here")
    raise Unreachable("no source can be used: " + "; ".join(offered.unreachable))


def _latest(system: System, cache: Path, wanted: Wanted, tell: Callable[[str], None]) -> Revision:
    offered = offers(system, cache, wanted.place)
    found = newest(offered)
    for line in offered.unreachable:
        tell(f"not reached: {line}")
    return found


def _find(
    system: System, cache: Path, source: str, wanted: Wanted, tell: Callable[[str], None]
) -> Revision:
    if source == debian.SOURCE:
        return debian.find(system, cache, wanted.revision)
    if source == git.SOURCE:
        return git.find(system, cache, wanted.revision, wanted.place, tell)
    if source == directory.SOURCE:
        return directory.find(system, cache, wanted.place)
    raise _no_source(source)


def _no_source(name: str) -> UsageError:
    return UsageError(
        f"there is no source {name!r}",
        hint=f"There is: {', '.join(ASKED)}, a URL of a git repository, a directory.",
    )
