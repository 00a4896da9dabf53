"""What holds of hybrid logical clocks, whatever the wall clocks say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moss_sync import ClockError, hlc
from moss_sync.limits import MAX_SEQ
from moss_sync.times import MAX_TIME_MS, latest

stamps = st.integers(0, hlc.LAST_STAMP - 1)
wall_times = st.integers(-(2**70), 2**70)


@given(last=stamps, wall_ms=wall_times, seen=stamps)
def test_a_write_is_stamped_above_the_clock_and_above_the_version_it_replaces(
    last: int, wall_ms: int, seen: int
) -> None:
    stamp = hlc.tick(last, wall_ms, seen)
    assert stamp > last
    assert stamp > seen
    assert stamp <= hlc.LAST_STAMP


@given(last=stamps, ahead_ms=st.integers(1, 2**30))
def test_a_clock_that_lags_behind_the_wall_jumps_to_it(last: int, ahead_ms: int) -> None:
    wall_ms = min(hlc.to_ms(last) + ahead_ms, MAX_TIME_MS)
    stamp = hlc.tick(last, wall_ms)
    assert hlc.to_ms(stamp) >= wall_ms
    assert stamp == max(last + 1, hlc.from_ms(wall_ms))


@given(walls=st.lists(wall_times, max_size=20))
def test_a_wall_clock_that_jumps_back_never_takes_the_stamps_with_it(walls: list[int]) -> None:
    issued = [0]
    for wall_ms in walls:
        issued.append(hlc.tick(issued[-1], wall_ms))
    assert issued == sorted(set(issued))


@given(a=stamps, b=stamps)
def test_encoded_stamps_sort_as_the_stamps_do(a: int, b: int) -> None:
    assert (hlc.encode(a) < hlc.encode(b)) == (a < b)
    assert hlc.decode(hlc.encode(a)) == a


@given(a=stamps, b=stamps, c=stamps)
def test_observing_is_order_free_and_repetition_changes_nothing(a: int, b: int, c: int) -> None:
    assert hlc.observe(hlc.observe(a, b), c) == hlc.observe(hlc.observe(a, c), b)
    assert hlc.observe(hlc.observe(a, b), b) == hlc.observe(a, b) >= a


@given(last=stamps, seen=st.integers(0, hlc.MAX_STAMP))
def test_a_stamp_that_no_clock_can_have_given_moves_no_clock(last: int, seen: int) -> None:
    moved = hlc.observe(last, seen)
    assert moved == (last if seen > hlc.LAST_OBSERVED else max(last, seen))


def test_every_time_that_can_be_committed_moves_a_clock() -> None:
    assert hlc.stamp_limit(latest(MAX_SEQ)) < hlc.LAST_OBSERVED - 2**56


@given(wall_ms=st.integers(0, 2**47 - 1), counter=st.integers(0, 2**16 - 1))
def test_a_stamp_says_its_milliseconds(wall_ms: int, counter: int) -> None:
    assert hlc.to_ms(hlc.from_ms(wall_ms, counter)) == wall_ms


def test_the_counter_carries_into_the_milliseconds() -> None:
    assert hlc.tick(hlc.from_ms(7, 2**16 - 1), 0) == hlc.from_ms(8)


@given(walls=st.lists(st.integers(MAX_TIME_MS - 10, 2**70), min_size=2, max_size=50))
def test_no_wall_clock_makes_two_stamps_equal_nor_ends_the_room_for_more(walls: list[int]) -> None:
    issued = [0]
    for wall_ms in walls:
        issued.append(hlc.tick(issued[-1], wall_ms))
    assert issued == sorted(set(issued))
    assert issued[-1] < hlc.LAST_STAMP - 2**60


def test_the_last_stamp_that_there_is_is_told_by_name() -> None:
    with pytest.raises(ClockError, match="last"):
        hlc.tick(0, 0, seen=hlc.LAST_STAMP)
