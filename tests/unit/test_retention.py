"""Which snapshots are kept for how long."""

from datetime import UTC, datetime, timedelta

import pytest

from lava_deploy import retention
from lava_deploy.errors import UsageError
from lava_deploy.model import STAMP
from lava_deploy.retention import Candidate, Policy

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)  # a Wednesday


def taken(*days_ago: float, broken: tuple[int, ...] = (), kept: tuple[int, ...] = ()) -> list:
    """Snapshots in the order in which they were made; `broken` and `kept` are places in it."""
    return [
        Candidate(
            (NOON - timedelta(days=ago)).strftime(STAMP),
            sequence,
            good=sequence not in broken,
            kept=sequence in kept,
        )
        for sequence, ago in enumerate(days_ago)
    ]


def gone(policy: str, candidates: list) -> list[int]:
    """The places of those that go."""
    places = {one.id: one.sequence for one in candidates}
    return [places[id] for id in retention.to_go(retention.parse(policy), reversed(candidates))]


def test_a_policy_is_read_in_any_order_and_its_shortest_period_comes_first():
    assert retention.parse("12m, 7d,4w,1y") == Policy((("d", 7), ("w", 4), ("m", 12), ("y", 1)))


def test_all_faults_of_a_policy_are_told_together():
    with pytest.raises(UsageError) as refused:
        retention.parse("7d,0w,3x,,2d,-1m")
    assert str(refused.value) == (
        "what to keep, '7d,0w,3x,,2d,-1m': '0w' is no number of d, w, m or y; "
        "'3x' is no number of d, w, m or y; '' is no number of d, w, m or y; "
        "d stands there twice; '-1m' is no number of d, w, m or y"
    )


def test_the_newest_of_each_day_is_kept():
    assert gone("2d", taken(1.3, 1.1, 0.2, 0.1)) == [0, 2]


def test_days_without_a_snapshot_do_not_count():
    assert gone("3d", taken(300, 200, 100, 0)) == [0]


def test_a_week_is_that_of_iso_8601():
    # Sunday and Monday are of two weeks
    assert gone("2w", taken(4, 3, 2, 1)) == [0, 2]
    assert retention.to_go(
        retention.parse("5w"),
        [
            Candidate("2026-12-31T12-00-00Z", 1, good=True, kept=False),
            Candidate("2027-01-01T12-00-00Z", 2, good=True, kept=False),
        ],
    ) == ["2026-12-31T12-00-00Z"]


def test_what_a_shorter_period_keeps_does_not_count_for_a_longer_one():
    # the two days are of this week; the two weeks are those before
    daily = [*range(20, -1, -1)]
    kept = {0, 1, 3, 10}
    assert gone("2d,2w", taken(*daily)) == [
        place for place, ago in enumerate(daily) if ago not in kept
    ]


def test_years_of_nightly_snapshots_come_down_to_so_many_as_the_policy_says():
    candidates = taken(*range(1000, -1, -1))
    assert len(candidates) - len(gone("7d,4w,12m", candidates)) == 7 + 4 + 12


def test_pruning_again_takes_nothing_more():
    candidates = taken(*range(400, -1, -1))
    ids = {*retention.to_go(retention.parse("7d,4w,12m"), candidates)}
    left = [one for one in candidates if one.id not in ids]
    assert retention.to_go(retention.parse("7d,4w,12m"), left) == []


def test_the_last_good_one_is_kept_whatever_is_newer():
    assert gone("1d", taken(400, 3, 2, 1, broken=(1, 2, 3))) == []
    assert retention.to_go(Policy(()), taken(2, 1)) == [taken(2, 1)[0].id]


def test_marked_ones_are_kept_good_or_broken():
    assert gone("1d", taken(4, 3, 2, 1, broken=(1,), kept=(0, 1))) == [2]


def test_a_broken_one_keeps_no_day_and_goes_once_a_newer_good_one_is_there():
    assert gone("9d", taken(1.1, 1.0, 0, broken=(1,))) == [1]
    assert gone("9d", taken(1.1, 1.0, broken=(1,))) == []


def test_broken_ones_alone_all_stay():
    assert gone("1d", taken(3, 2, 1, broken=(0, 1, 2))) == []


def test_after_the_clock_went_back_the_newest_is_the_one_made_last():
    # made at first by a clock a year ahead
    assert gone("1d", taken(-365, 2, 1)) == [0, 1]


def test_without_snapshots_none_goes():
    assert retention.to_go(retention.parse(retention.DEFAULT), []) == []
