"""The source "git": tags, branches and commits of a repository, upstream's or another."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING

from lava_deploy.errors import UnknownRevision, Unreachable
from lava_deploy.model import LATEST, Offers, Revision
from lava_deploy.sources import pythons, repositories, trees

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from lava_deploy.model import Code
    from lava_deploy.sources.repositories import Answer
    from lava_deploy.system import System

SOURCE = "git"
HOUR = 3600
RELEASE = re.compile(r"\d{4}\.\d{2}(\.\d+)?")
COMMIT = re.compile(r"[0-9a-f]{7,40}")
# What git calls the commit of an annotated tag. The tags of releases are such.
TAG = re.compile(r"refs/tags/(.+)\^\{\}")


def offers(system: System, cache: Path, url: str, *, refresh: bool = False) -> Offers:
    """The releases that run here, the newest first, by an answer of the last hour or a new one."""
    answer = repositories.ask(system, cache, url, 0 if refresh else HOUR)
    python = pythons.here(system)
    found = [
        _revision(url, version, f"tag {version}", commit, python)
        for version, commit in releases(answer.commits).items()
    ]
    # Upstream has had a tag a month for many years.
    usable = tuple(revision for revision in found if revision.runs_here)
    return Offers(usable, (answer.failure,) if answer.failure else ())


def releases(commits: Mapping[str, str]) -> dict[str, str]:
    """The commits of releases by their version, the newest first."""
    tags = {tag[1]: commit for name, commit in commits.items() if (tag := TAG.fullmatch(name))}
    versions = sorted(filter(RELEASE.fullmatch, tags), key=pythons.numbers, reverse=True)
    return {version: tags[version] for version in versions}


def find(
    system: System, cache: Path, wanted: str, url: str, progress: Callable[[str], None]
) -> Revision:
    """The revision of a tag, branch or commit; `latest` is the newest release that runs here.

    Only a tag is taken from an answer of the last hour. Where the repository does not answer now,
    a branch is what it was, and `progress` is told. Raises UnknownRevision, also for a revision
    that this host's Python cannot run; Unreachable.
    """
    if wanted == LATEST:
        return _latest(system, cache, url)
    for age in (HOUR, 0):
        answer = repositories.ask(system, cache, url, age)
        what, commit = _named(answer.commits, wanted)
        if what.startswith("tag"):
            break
    if answer.failure and commit:
        progress(f"not reached: {answer.failure}")
    if not commit and COMMIT.fullmatch(wanted):
        copy = repositories.obtain(system, cache, url, wanted, progress)
        commit = repositories.resolve(system, copy, f"{wanted}^{{commit}}")
        what = f"commit {commit[:10]}"
    if not commit:
        raise _unknown(url, wanted, answer)
    version = wanted if wanted in releases(answer.commits) else ""
    if not version:
        copy = repositories.obtain(system, cache, url, commit, progress)
        version = repositories.version(system, copy, commit)
    revision = _revision(url, version, what, commit, pythons.here(system))
    if revision.why_not:
        raise UnknownRevision(f"LAVA {version} does not run here: {revision.why_not}")
    return revision


def fetch(system: System, cache: Path, revision: Revision, progress: Callable[[str], None]) -> Code:
    """The code of a revision. Raises Unreachable, CommandFailed, UnknownRevision."""
    copy = repositories.obtain(system, cache, revision.place, revision.locator, progress)
    return trees.code(system, cache, copy, revision, progress)


def _latest(system: System, cache: Path, url: str) -> Revision:
    for refresh in (False, True):
        offered = offers(system, cache, url, refresh=refresh)
        if offered.revisions:
            return offered.revisions[0]
    if offered.unreachable:
        raise Unreachable(offered.unreachable[0])
    raise UnknownRevision(
        f"{url} has no release that runs here", hint="A branch can be named: master."
    )


def _named(commits: Mapping[str, str], wanted: str) -> tuple[str, str]:
    """What a name stands for, in words, and its commit; '' if nothing has it."""
    kinds = {
        f"refs/tags/{wanted}^{{}}": f"tag {wanted}",
        f"refs/tags/{wanted}": f"tag {wanted}",
        f"refs/heads/{wanted}": f"branch {wanted}",
        wanted: wanted,
    }
    for name, words in kinds.items():
        if name in commits:
            commit = commits[name]
            return (words if words.startswith("tag") else f"{words} at {commit[:10]}"), commit
    return "", ""


def _revision(url: str, version: str, what: str, commit: str, python: tuple[int, int]) -> Revision:
    why_not = pythons.why_not(version, python)
    return Revision(version, SOURCE, f"{url} {what}", commit, not why_not, why_not, url)


def _unknown(url: str, wanted: str, answer: Answer) -> UnknownRevision | Unreachable:
    if not answer.commits:
        return Unreachable(answer.failure or f"{url}: there is no commit yet")
    names = [re.sub(r"^refs/(heads|tags)/|\^\{\}$", "", name) for name in answer.commits]
    near = difflib.get_close_matches(wanted, names, n=1, cutoff=0)
    missed = f"; not reached: {answer.failure}" if answer.failure else ""
    hint = f"The nearest there is {near[0]}." if near else ""
    return UnknownRevision(f"{url} has no tag, branch or commit {wanted}{missed}", hint=hint)
