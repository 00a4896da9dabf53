"""Every decision of the protocol, by itself: what is believed, sent, fetched and merged."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moss_sync import plan
from moss_sync.errors import (
    BlobCorruptError,
    ForkDetectedError,
    LostCommitError,
    StaleReadError,
)
from moss_sync.manifest import (
    INLINE_EACH_BYTES,
    INLINE_TOTAL_BYTES,
    Device,
    Entry,
    Inline,
    Manifest,
    decode,
    encode,
    tip_of,
)
from moss_sync.marks import continued
from moss_sync.plan import Author
from moss_sync.replica import FIRST_LIFE, Life, Pending, ReplicaState, Seen
from moss_sync.tiers import Compaction, with_compaction
from tests.moss_sync.manifests import (
    INC,
    REPO,
    SPACE,
    A,
    B,
    author,
    carrying,
    entry,
    hash_of,
    history,
    inline_push,
    pushed,
    segment_push,
    state,
)
from tests.strategies import SID, manifests

# -- what is believed ------------------------------------------------------------------------


def seen(seq: int, branch: str = "main") -> Seen:
    return Seen(seq, hash_of(seq, branch), "etag", b"")


def check(
    before: Seen | None,
    current: Manifest,
    mark: bytes | None = None,
    *,
    dev: bytes = A,
    acked_n: int = 0,
    acked_seq: int = 0,
    life: Life = FIRST_LIFE,
) -> None:
    # Its row, where it has one, is its own: n is what it knows of.
    row = current.device(dev)
    n = max(acked_n, 0 if row is None else row.n)
    of = state(dev, n=n, acked_n=acked_n, acked_seq=acked_seq, seen=before, life=life)
    known = None if before is None else history(before.seq)
    plan.check_history(current, mark or hash_of(current.seq), of, known)


def test_a_device_that_has_seen_nothing_believes_what_it_is_shown() -> None:
    check(None, history(3))


@pytest.mark.parametrize("ahead", [0, 1, 2, 31, 32, 60])
def test_any_number_of_further_commits_of_the_same_history_is_believed(ahead: int) -> None:
    check(seen(5), history(5 + ahead), acked_n=5)


def test_an_older_manifest_than_before_is_a_stale_read() -> None:
    with pytest.raises(StaleReadError, match="commit 4 of session 'conv-123', after 5"):
        check(seen(5), history(4))


@pytest.mark.parametrize("ahead", [0, 1, 2, 31, 32, 61])
def test_another_history_is_a_fork_as_far_back_as_the_marks_reach(ahead: int) -> None:
    current = history(5 + ahead)
    with pytest.raises(ForkDetectedError, match="at commit 5"):
        check(seen(5, "another"), current)


def test_an_acknowledged_push_that_is_gone_is_a_lost_commit() -> None:
    current = history(40)
    check(seen(5), current, acked_n=40)
    with pytest.raises(LostCommitError, match="push 41"):
        check(seen(5), current, acked_n=41)


def test_a_device_that_vanished_from_the_table_has_lost_its_commits() -> None:
    # The bucket went back to a state before this device's first push, and others went on.
    current = history(60)
    with pytest.raises(LostCommitError, match="push 1 of this device"):
        check(seen(5), current, dev=B, acked_n=1)
    check(seen(5), current, dev=B, acked_n=0)


def test_a_device_that_may_have_been_retired_has_lost_nothing() -> None:
    forgotten = replace(history(60), retired=6)
    check(seen(5), forgotten, dev=B, acked_n=1, acked_seq=6)
    with pytest.raises(LostCommitError):
        check(seen(5), forgotten, dev=B, acked_n=1, acked_seq=7)


def test_a_manifest_of_another_session_or_repository_is_refused() -> None:
    current = history(1)
    plan.check_place(current, repo_id=REPO, sid=SID, name="conv-123")
    for repo_id, sid, session in (
        (bytes(16), SID, "conv-123"),
        (REPO, "t" * 26, "conv-123"),
        (REPO, SID, "conv-124"),
    ):
        with pytest.raises(BlobCorruptError, match=f"'{session}'"):
            plan.check_place(current, repo_id=repo_id, sid=sid, name=session)


# -- whether this file is a copy -------------------------------------------------------------


def device(n: int, *, inc: bytes = INC, tip: bytes = b"t" * 16) -> Device:
    return Device(n, 0, 0, inc, tip)


COPIES: dict[str, tuple[ReplicaState, Device | None, bool]] = {
    "a device that never pushed": (state(n=0), None, False),
    "its own last push": (state(n=3, acked_n=3), device(3), False),
    "a push further than it ever went": (state(n=3), device(4), True),
    "another incarnation": (state(n=3, acked_n=3), device(3, inc=b"incarn-2"), True),
    "a push of its own that is not in yet": (
        state(n=4, acked_n=3, pending=inline_push(4)),
        device(3),
        False,
    ),
    "its own push, which it does not know is in": (
        state(n=4, acked_n=3, pending=inline_push(4)),
        device(4, tip=tip_of(b"body")),
        False,
    ),
    "another push under the number of its own": (
        state(n=4, pending=inline_push(4)),
        device(4, tip=tip_of(b"other")),
        True,
    ),
    "numbers that it gave up": (state(n=9, acked_n=3), device(3), False),
    "a push under a number that it gave up": (state(n=9, acked_n=3), device(4), True),
}


@pytest.mark.parametrize(("own", "listed", "copy"), COPIES.values(), ids=COPIES)
def test_a_file_is_a_copy_when_another_one_pushed_as_it(
    own: ReplicaState, listed: Device | None, copy: bool
) -> None:
    current = replace(history(1, B), devs={} if listed is None else {A: listed})
    assert plan.is_copy(current, own) is copy


# -- was it me? ------------------------------------------------------------------------------


def test_a_push_that_is_not_in_is_not_committed() -> None:
    assert plan.committed_at(history(3, B), A, inline_push(1)) is None
    assert plan.committed_at(history(3, A), A, inline_push(4)) is None


@pytest.mark.parametrize("push", [inline_push(1), segment_push(1)])
def test_a_push_is_found_by_its_own_entry_after_any_number_of_later_commits(
    push: Pending,
) -> None:
    current = pushed(history(3, B), state(n=1, applied_seq=3, pending=push), push)
    for at in range(3, 6):
        current = pushed(current, state(B, n=at, acked_n=at), inline_push(at + 1, at))
        assert plan.committed_at(current, A, push) == plan.Found(4, 1003)
    assert plan.committed_at(current, B, inline_push(6)) == plan.Found(7, 1006)


@pytest.mark.parametrize("push", [inline_push(1), segment_push(1)])
def test_a_push_that_was_merged_away_is_found_with_its_own_commit_and_time(push: Pending) -> None:
    current = pushed(None, state(n=1, pending=push), push)
    merged = Compaction(current.entries, current.inline)
    output = entry(kind="b", lo=0, hi=1, lvl=1, base=1)
    who = author(state(B, applied_seq=1), parent=current)
    after = with_compaction(current, who, merged, [output], tomb_hlc=0)
    assert after is not None
    assert after.seq == 2
    assert plan.committed_at(after, A, push) == plan.Found(1, current.ct)


def test_another_devices_segment_of_the_same_number_is_not_ones_own() -> None:
    theirs = segment_push(1, dev=B)
    current = pushed(None, state(B, n=1, pending=theirs), theirs)
    assert plan.committed_at(current, A, segment_push(1)) is None


# -- what may be sent ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("base", "applied", "may"),
    [(5, 5, True), (6, 4, True), (4, 5, False), (5, 3, False), (0, 0, False)],
)
def test_a_push_prepared_below_a_floor_is_prepared_anew(base: int, applied: int, may: bool) -> None:
    current = replace(history(9), gc_floor=5, tomb_seq=4)
    assert plan.may_commit(current, inline_push(1, base), applied) is may
    assert plan.may_commit(None, inline_push(1, base), applied) is (base == 0)


def test_a_payload_rides_in_the_manifest_up_to_exactly_its_limits() -> None:
    assert plan.fits_inline(None, INLINE_EACH_BYTES)
    assert not plan.fits_inline(None, INLINE_EACH_BYTES + 1)
    full = carrying(INLINE_EACH_BYTES, INLINE_EACH_BYTES)
    assert plan.fits_inline(full, INLINE_TOTAL_BYTES - full.inline_bytes)
    nearly = carrying(INLINE_EACH_BYTES, INLINE_EACH_BYTES, 1)
    assert plan.fits_inline(nearly, INLINE_EACH_BYTES - 1)
    assert not plan.fits_inline(nearly, INLINE_EACH_BYTES)


# -- what must be fetched --------------------------------------------------------------------


def test_everything_after_what_was_applied_is_fetched_but_ones_own_pushes() -> None:
    own, theirs = entry(lo=4, hi=5), entry(dev=B, lo=5, hi=6)
    merged_by_me = entry(kind="b", lo=0, hi=4, lvl=1)
    old = entry(dev=B, lo=1, hi=2)
    mine = Inline(A, 9, 6, 7, 0, b"")
    other = Inline(B, 9, 6, 7, 0, b"")
    past = Inline(B, 8, 1, 3, 0, b"")
    current = replace(
        history(7), entries=(old, merged_by_me, own, theirs), inline=(past, mine, other)
    )
    wanted = plan.to_fetch(current, applied_seq=3, dev=A)
    assert wanted.entries == (merged_by_me, theirs)
    assert wanted.inline == (other,)
    assert plan.to_fetch(current, applied_seq=7, dev=A) == plan.Fetch((), (), full=False)
    everything = plan.to_fetch(current, applied_seq=0, dev=b"device-C")
    assert everything == plan.Fetch(current.entries, current.inline, full=False)


def test_a_device_id_inside_anothers_name_is_not_ones_own() -> None:
    # The base of this name, 16 hexadecimal digits too, spells the device's id.
    lookalike = entry(dev=B, lo=0, hi=1, base=int.from_bytes(A, "big"))
    current = replace(history(1), entries=(lookalike,))
    assert plan.to_fetch(current, applied_seq=0, dev=A).entries == (lookalike,)


# -- the next manifest -----------------------------------------------------------------------


def test_the_first_push_makes_the_first_manifest() -> None:
    push = inline_push(1)
    first = pushed(None, state(n=1, pending=push, space=SPACE), push, now_ms=77)
    assert (first.seq, first.ct, first.prev, first.marks) == (1, 77, bytes(32), b"")
    assert (first.repo_id, first.sid, first.name, first.by) == (REPO, SID, "conv-123", A)
    assert first.inline == (Inline(A, 1, 0, 1, 77, b"body"),)
    assert first.devs == {A: Device(1, 0, 77, INC, push.tip, seq=1)}
    assert first.space == SPACE
    assert decode(encode(first), what="it") == first


def test_a_segment_is_listed_with_what_its_author_knows_of_it() -> None:
    push = segment_push(3, base=2)
    parent = history(4, B)
    after = pushed(parent, state(n=3, applied_seq=2, pending=push, space=SPACE), push, now_ms=2000)
    assert push.key is not None
    assert after.entries == (
        Entry(push.key.split("/", 2)[2], 9000, 2, 1, 4, 5, 2, 0, 2000, 1, 5, "00ff", 9000),
    )
    assert after.devs[A] == Device(3, 2, 2000, INC, push.tip, seq=5)
    assert after.devs[B] == parent.devs[B]


@settings(max_examples=60)
@given(parent=manifests(), now_ms=st.integers(0, 2**40))
def test_a_commit_keeps_everything_that_it_does_not_change(parent: Manifest, now_ms: int) -> None:
    parent = replace(parent, seq=min(parent.seq, 2**40))
    push = segment_push(1)
    after = pushed(parent, state(n=1, pending=push, space=SPACE), push, now_ms=now_ms)
    assert after.seq == parent.seq + 1
    assert after.ct == max(parent.ct + 1, now_ms)
    assert after.prev == hash_of(parent.seq)
    assert after.marks[:8] == hash_of(parent.seq)[:8]
    assert after.marks == continued(parent.seq, parent.marks, hash_of(parent.seq), after.seq)
    assert after.entries[:-1] == parent.entries
    assert after.inline == parent.inline
    assert {**after.devs, A: None} == {**parent.devs, A: None}
    before = parent.device(A)
    if before is not None:
        assert (after.devs[A].label, after.devs[A].extra) == (before.label, before.extra)
    kept = ["extra", "features_r", "features_w", "gen", "tomb_seq", "repairs"]
    kept += ["tomb_hlc", "name", "sid", "repo_id"]
    assert {key: getattr(after, key) for key in kept} == {key: getattr(parent, key) for key in kept}
    assert after.space == (parent.space or SPACE)


def test_time_in_the_manifest_rises_with_every_commit_whatever_the_clocks_say() -> None:
    first = pushed(None, state(n=1), inline_push(1), now_ms=9000)
    second = pushed(first, state(n=2), inline_push(2), now_ms=10)
    assert (second.ct, second.inline[-1].ct, second.devs[A].last_ct) == (9001, 9001, 9001)


def test_a_manifest_with_a_parent_takes_the_parents_hash() -> None:
    parent = history(1)
    nobody = Author(state(n=2), 0, None, bytes(16), 1)
    with pytest.raises(ValueError):
        plan.with_push(parent, nobody, inline_push(2), repo_id=REPO, sid=SID)
