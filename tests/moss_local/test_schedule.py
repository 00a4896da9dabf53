"""The schedule of the background by itself: any order of edits, successes and failures."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from moss_local.schedule import (
    FIRST_RETRY_S,
    LONGEST_RETRY_S,
    LONGEST_UNPUSHED_S,
    QUIET_S,
    Schedule,
)

gaps = st.floats(0.001, 20.0)
chances = st.floats(0.0, 1.0)


@given(edits=st.lists(gaps, min_size=1, max_size=50))
def test_changes_leave_after_a_quiet_moment_and_never_later_than_the_longest_wait(
    edits: list[float],
) -> None:
    schedule = Schedule(math.inf, pulled=0.0)
    first = now = 0.0
    schedule.edited(now)
    for gap in edits:
        due = schedule.next()
        assert due <= first + LONGEST_UNPUSHED_S
        assert due == min(now + QUIET_S, first + LONGEST_UNPUSHED_S)
        now += gap
        if now >= due:
            assert schedule.due(due) == "push"
            schedule.succeeded("push", due)
            assert schedule.due(math.inf) != "push"
            first = now
        schedule.edited(now)


@given(failures=st.lists(chances, min_size=1, max_size=30), asked=st.floats(0.0, 500.0))
def test_failures_are_retried_ever_more_rarely_up_to_a_bound(
    failures: list[float], asked: float
) -> None:
    schedule = Schedule(1.0, pulled=0.0)
    now = 1.0
    for number, chance in enumerate(failures):
        schedule.failed(now, chance=chance)
        wait = schedule.next() - now
        assert min(FIRST_RETRY_S * 2**number, LONGEST_RETRY_S) / 2 <= wait + 1e-9
        assert wait <= LONGEST_RETRY_S + 1e-9
        assert schedule.due(schedule.next() - 0.01) is None
        now = schedule.next()
        assert schedule.due(now) == "pull"
    schedule.failed(now, chance=0.5, asked=asked)
    assert schedule.next() >= now + asked


@given(failures=st.integers(1, 100), chance=chances)
def test_after_a_success_nothing_of_earlier_failures_is_left(failures: int, chance: float) -> None:
    schedule = Schedule(30.0, pulled=0.0)
    for _ in range(failures):
        schedule.failed(1.0, chance=chance)
    schedule.succeeded("pull", 2.0)
    assert schedule == Schedule(30.0, pulled=2.0)


@given(chance=chances, asked=st.floats(0.0, 500.0), edited=st.booleans())
def test_a_failure_never_hastens_anything(chance: float, asked: float, edited: bool) -> None:
    schedule = Schedule(30.0, pulled=0.0)
    if edited:
        schedule.edited(5.0)
    before = schedule.next()
    schedule.failed(6.0, chance=chance, asked=asked)
    assert schedule.next() >= before


def test_a_way_that_may_be_open_again_is_used_for_all_that_waits() -> None:
    schedule = Schedule(30.0, pulled=0.0)
    schedule.failed(1.0, chance=0.0)
    schedule.edited(1.0)
    assert schedule.due(schedule.next()) == "sync"


def test_what_is_due_at_once_is_done_in_one_exchange() -> None:
    schedule = Schedule(30.0, pulled=0.0)
    schedule.edited(28.5)
    assert schedule.due(30.4) == "pull"
    assert schedule.due(30.5) == "sync"
    schedule.succeeded("sync", 31.0)
    assert schedule.next() == 61.0
