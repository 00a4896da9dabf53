"""What holds of stamps when a repair lets a session's time fall, whatever they were."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from moss_sync.hlc import LAST_STAMP, stamp_limit
from moss_sync.setbacks import MAX_SETBACKS, Setback, lowered, remembered
from moss_sync.times import MAX_TIME_MS

stamps = st.integers(0, 2**20) | st.integers(0, LAST_STAMP)
commits = st.integers(0, 100)
setback = st.builds(
    Setback, st.integers(0, 20), st.integers(1, 90), st.integers(0, 9) | st.integers(0, MAX_TIME_MS)
)
setbacks = st.lists(setback, max_size=4)


@given(stamp=stamps, committed=commits, setbacks=setbacks)
def test_to_lower_a_stamp_again_changes_nothing_and_it_never_rises(
    stamp: int, committed: int, setbacks: list[Setback]
) -> None:
    once = lowered(stamp, committed, setbacks)
    assert 0 <= once <= stamp
    assert lowered(once, committed, setbacks) == once
    assert lowered(once, committed, reversed(setbacks)) == once


@given(stamp=stamps, committed=commits, setbacks=setbacks)
def test_no_stamp_of_before_stays_past_what_the_repair_allows(
    stamp: int, committed: int, setbacks: list[Setback]
) -> None:
    after = lowered(stamp, committed, setbacks)
    for each in setbacks:
        assert committed > each.seq or after <= stamp_limit(each.commit_ms)


@given(data=st.data(), each=setback)
def test_what_was_written_after_something_was_seen_still_comes_after_it(
    data: st.DataObject, each: Setback
) -> None:
    first, second = sorted(data.draw(st.tuples(stamps, stamps)))
    before, after = sorted(data.draw(st.tuples(commits, commits)))
    if first < second and before < after:
        assert lowered(first, before, [each]) < lowered(second, after, [each]) or (
            stamp_limit(each.commit_ms) < each.seq  # no repair has such a time
        )


@given(setbacks=st.lists(setback, max_size=20))
def test_the_last_few_are_remembered_and_doing_so_again_changes_nothing(
    setbacks: list[Setback],
) -> None:
    kept = remembered(setbacks)
    assert len(kept) <= MAX_SETBACKS
    assert remembered(kept) == kept
    assert set(kept) <= set(setbacks)
