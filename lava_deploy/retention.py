"""Which snapshots are kept for how long."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from lava_deploy.errors import UsageError
from lava_deploy.snapshot import time_of

DEFAULT = "7d,4w,12m"
# What of a time makes it one of a period: strftime(3), with the weeks of ISO 8601.
PERIODS = {"d": "%Y-%m-%d", "w": "%G-%V", "m": "%Y-%m", "y": "%Y"}
RULE = re.compile(r"(\d{1,6})([dwmy])")


@dataclass(frozen=True)
class Policy:
    """For each kind of period, the shortest first, how many keep a snapshot: ("d", 7)."""

    rules: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Candidate:
    """A snapshot that may go; `sequence` tells which is newer, `id` which day it is of, in UTC."""

    id: str
    sequence: int
    good: bool
    kept: bool


def parse(text: str) -> Policy:
    """The policy in a text like `7d,4w,12m`: days, weeks, months and years, at least one of them.

    Raises UsageError with all faults.
    """
    counts: dict[str, int] = {}
    found = []
    for word in text.split(","):
        rule = RULE.fullmatch(word.strip())
        if not rule or int(rule[1]) == 0:
            found.append(f"{word.strip()!r} is no number of d, w, m or y")
        elif rule[2] in counts:
            found.append(f"{rule[2]} stands there twice")
        else:
            counts[rule[2]] = int(rule[1])
    if found:
        hint = f"Days, weeks, months, years, as in {DEFAULT}."
        raise UsageError(f"what to keep, {text!r}: {'; '.join(found)}", hint=hint)
    return Policy(tuple((period, counts[period]) for period in PERIODS if period in counts))


def to_go(policy: Policy, candidates: Iterable[Candidate]) -> list[str]:
    """The ids of what is not to be kept, the oldest first.

    Borg's rules: of each of the last so many days that have a good snapshot, its newest one is
    kept; likewise of weeks, of which those do not count whose newest one a rule before has kept;
    and so on. The newest good one and those marked are always kept. A broken one keeps no period;
    it goes once there is a newer good one.
    """
    newest_first = sorted(candidates, key=lambda one: (one.sequence, one.id), reverse=True)
    good = [one for one in newest_first if one.good]
    staying = {one.id for one in _kept(policy, good)} | {one.id for one in good[:1]}
    newer = newest_first[: newest_first.index(good[0])] if good else newest_first
    staying |= {one.id for one in newest_first if one.kept} | {one.id for one in newer}
    return [one.id for one in reversed(newest_first) if one.id not in staying]


def _kept(policy: Policy, good: Sequence[Candidate]) -> set[Candidate]:
    """Those that keep a period; `good` has the newest first."""
    kept: set[Candidate] = set()
    for period, count in policy.rules:
        free = [one for one in _newest_of_each(PERIODS[period], good) if one not in kept]
        kept |= {*free[:count]}
    return kept


def _newest_of_each(period: str, newest_first: Iterable[Candidate]) -> Iterator[Candidate]:
    seen = set()
    for one in newest_first:
        its = time_of(one.id).strftime(period)
        if its not in seen:
            seen.add(its)
            yield one
