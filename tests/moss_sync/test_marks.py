"""Marks of commits before: which histories they tell apart, for how long, at what cost."""

from __future__ import annotations

from hashlib import blake2b

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moss_sync.marks import (
    LONG_BYTES,
    LONG_MARKS,
    REACH,
    Past,
    compare,
    continued,
    marked,
    marks_size,
)


def hash_of(seq: int, branch: str) -> bytes:
    return blake2b(f"{branch} {seq}".encode(), digest_size=32).digest()


def past(seq: int, *, fork: int = 10**9, branch: str = "main") -> Past:
    """What the manifest of commit `seq` says, of a history of its own from commit `fork` on."""
    marks = b"".join(
        hash_of(at, branch if at >= fork else "main")[: LONG_BYTES if place < LONG_MARKS else 2]
        for place, at in enumerate(marked(seq))
    )
    before, own = (hash_of(at, branch if at >= fork else "main") for at in (seq - 1, seq))
    return Past.of(seq, marks, prev=before, hash=own)


def notices(seen: int, hidden: int, since: int) -> bool:
    """Whether a device that saw commit `seen` has a mark to compare, of the commits hidden from it.

    After `since` commits on top of what was left when the newest `hidden` ones were taken away.
    """
    shown = seen - hidden + since
    if shown <= seen:
        return True  # a commit that it has seen already, or an older one
    told = marked(shown)
    known = {seen, *marked(seen)}
    return any(seen - hidden < at <= seen and at in known for at in told)


def test_every_rollback_is_noticed_until_64_times_as_many_commits_were_made() -> None:
    for hidden in range(1, 9):
        for seen in range(hidden, hidden + 17):
            for since in range(1, 64 * hidden):
                assert notices(seen, hidden, since), (seen, hidden, since)


@settings(max_examples=400, deadline=None)
@given(data=st.data(), hidden=st.integers(1, 60_000))
def test_so_is_any_longer_one_as_far_as_marks_reach(data: st.DataObject, hidden: int) -> None:
    seen = data.draw(st.integers(hidden, 10**7))
    last = min(64 * hidden - 1, REACH)
    since = data.draw(st.integers(1, last) | st.just(last))
    assert notices(seen, hidden, since)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), hidden=st.integers(1, 400))
def test_two_histories_that_part_are_told_apart_by_what_both_remember(
    data: st.DataObject, hidden: int
) -> None:
    seen = data.draw(st.integers(hidden, 2000))
    since = data.draw(st.integers(hidden, min(64 * hidden - 1, 4000)))
    shown = seen - hidden + since
    found = compare(past(seen), past(shown, fork=seen - hidden + 1, branch="other"))
    assert found.forked
    assert found.agreed == found.joint <= seen - hidden
    same = compare(past(seen), past(shown))
    assert not same.forked
    assert same.joint in (0, min(seen, shown))


def test_a_manifest_has_marks_of_all_the_newest_commits_and_only_of_earlier_ones() -> None:
    for seq in (1, 2, 5, 33, 62, 63, 100, 4097, 10**6, 2**40):
        numbers = marked(seq)
        assert list(numbers) == sorted(set(numbers), reverse=True)
        assert all(max(1, seq - REACH) <= number < seq for number in numbers)
        assert set(range(max(1, seq - 62), seq)) <= set(numbers)


def test_marks_never_pass_one_and_a_half_kilobytes() -> None:
    for near in (*(2**power for power in range(41)), 10_000, 100_000, REACH, 2 * REACH):
        assert all(marks_size(seq) <= 1500 for seq in range(max(1, near - 70), near + 70))
    assert marks_size(301) <= 500
    assert marks_size(10_000) <= 1110


@given(seq=st.integers(1, 3000), length=st.integers(1, 40))
@settings(max_examples=100, deadline=None)
def test_each_commit_makes_its_marks_of_those_of_the_one_before(seq: int, length: int) -> None:
    def made(at: int) -> bytes:
        return b"".join(
            hash_of(number, "main")[: LONG_BYTES if place < LONG_MARKS else 2]
            for place, number in enumerate(marked(at))
        )

    marks = made(seq)
    for at in range(seq, seq + length):
        marks = continued(at, marks, hash_of(at, "main"), at + 1)
    assert marks == made(seq + length)


@pytest.mark.parametrize("leap", [1, 2, 40, 5000])
def test_numbers_that_a_history_left_out_differ_from_those_of_every_other(leap: int) -> None:
    before = past(50)
    marks = b"".join(
        hash_of(at, "main")[: LONG_BYTES if place < LONG_MARKS else 2]
        for place, at in enumerate(marked(50))
    )
    after = continued(50, marks, before.hashes[50], 50 + leap)
    prev = before.hashes[50] if leap == 1 else bytes(32)
    repaired = Past.of(50 + leap, after, prev=prev, hash=hash_of(50 + leap, "repaired"))
    assert not compare(before, repaired).forked
    for seen in {51, 50 + leap // 2, 50 + leap - 1, 50 + leap} - {50}:
        found = compare(past(seen), repaired)
        assert found.joint <= 50
        assert found.forked or (leap > 64 and seen == 51)


def test_histories_that_have_no_number_in_common_are_taken_for_one_that_is_far_behind() -> None:
    found = compare(past(1), past(200))
    assert (found.agreed, found.differs, found.joint) == (0, None, 0)
