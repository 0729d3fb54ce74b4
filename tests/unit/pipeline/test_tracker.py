"""The prefix tracker: its mark never passes anything unfinished, and reaches everything that is finished."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.pipeline.tracker import PrefixTracker


def test_finished_in_order_the_mark_follows():
    tracker: PrefixTracker[str] = PrefixTracker()
    tracker.begin(3)
    tracker.begin(7)

    assert ["a"] == tracker.finish(3, "a")
    assert 3 == tracker.mark
    assert ["b"] == tracker.finish(7, "b")
    assert 7 == tracker.mark


def test_finished_out_of_order_the_mark_waits_for_the_first():
    tracker: PrefixTracker[str] = PrefixTracker(2)
    tracker.begin(3)
    tracker.begin(7)

    assert [] == tracker.finish(7, "b")
    assert 2 == tracker.mark
    assert 2 == len(tracker)
    assert ["a", "b"] == tracker.finish(3, "a")
    assert 7 == tracker.mark
    assert 0 == len(tracker)


def test_none_and_false_are_results():
    tracker: PrefixTracker[bool | None] = PrefixTracker()
    tracker.begin(1)
    tracker.begin(2)

    assert [None] == tracker.finish(1, None)
    assert [False] == tracker.finish(2, False)


def test_passing_over_moves_the_mark_only_when_all_before_is_finished():
    tracker: PrefixTracker[bool] = PrefixTracker()
    tracker.pass_over(5)
    assert 5 == tracker.mark

    tracker.begin(6)
    tracker.pass_over(9)
    tracker.pass_over(8)
    assert 5 == tracker.mark

    tracker.finish(6, True)
    assert 9 == tracker.mark


def test_positions_must_rise_and_finish_once():
    tracker: PrefixTracker[bool] = PrefixTracker(4)
    tracker.begin(5)
    tracker.begin(8)

    with pytest.raises(AssertionError):
        tracker.begin(8)
    tracker.finish(8, True)
    with pytest.raises(AssertionError):
        tracker.finish(8, True)
    with pytest.raises(KeyError):
        tracker.finish(6, True)


@settings(max_examples=10_000, deadline=None)
@given(st.binary(max_size=40))
@pytest.mark.slow
def test_the_mark_is_the_highest_finished_prefix(steps):
    """Against a model that keeps everything."""
    tracker: PrefixTracker[int] = PrefixTracker()
    known: dict[int, bool] = {}
    top, folded = -1, []
    for each in steps:
        step, number = ("begin", "finish", "finish", "pass")[each % 4], each // 4
        if step == "begin":
            top += 1 + number % 3
            tracker.begin(top)
            known[top] = False
        elif step == "pass":
            top += 1 + number % 3
            tracker.pass_over(top)
            known[top] = True
        elif still_open := [position for position, done in known.items() if not done]:
            position = still_open[number % len(still_open)]
            folded += tracker.finish(position, position)
            known[position] = True
        first_open = min((position for position, done in known.items() if not done), default=None)

        assert tracker.mark == max(
            (position for position in known if first_open is None or position < first_open), default=-1
        )
        assert len(tracker) <= len(known)
        assert folded == sorted(folded)
        if first_open is None:
            assert 0 == len(tracker)
