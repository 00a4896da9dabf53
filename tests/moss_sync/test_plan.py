"""Every decision of the protocol, by itself: what is believed, sent, fetched and merged."""

from __future__ import annotations

from dataclasses import replace
from hashlib import blake2b

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moss_sync import layout, plan
from moss_sync.errors import (
    BlobCorruptError,
    ForkDetectedError,
    LostCommitError,
    StaleReadError,
)
from moss_sync.manifest import (
    INLINE_EACH_BYTES,
    INLINE_TOTAL_BYTES,
    RING_LENGTH,
    Device,
    Entry,
    Inline,
    Manifest,
    decode,
    encode,
    tip_of,
)
from moss_sync.packing import pack
from moss_sync.plan import Author, Compaction
from moss_sync.record import VectorSpace
from moss_sync.replica import Pending, ReplicaState, Seen
from moss_sync.segment import MAX_SEGMENT_BYTES
from tests.strategies import NAME_KEY, SID, manifests

A, B = b"device-A", b"device-B"
INC = b"incarn-1"
REPO = b"repository-id-16"
SPACE = VectorSpace("moss-minilm", "00ff", 384, "f2")


def hash_of(seq: int, branch: str = "main") -> bytes:
    """Return a hash for the manifest of a commit: one for each commit of each history."""
    return blake2b(f"{branch} {seq}".encode(), digest_size=32).digest()


def name(*, kind: str = "s", base: int = 0, dev: bytes = A, number: int = 1, token: int = 0) -> str:
    return str(
        layout.new_name(
            NAME_KEY,
            SID,
            kind=kind,
            base=base,
            dev=dev,
            number=number,
            random=token.to_bytes(10, "big"),
        )
    )


def state(
    dev: bytes = A,
    *,
    n: int = 0,
    acked_n: int = 0,
    applied_seq: int = 0,
    pending: Pending | None = None,
    space: VectorSpace | None = None,
) -> ReplicaState:
    return ReplicaState(
        "conv-123", dev, INC, REPO, n, acked_n, applied_seq, None, pending, space, 0
    )


def payload(size: int, *, plain: int | None = None) -> bytes:
    """Bytes of this size that say, as packed ones do, how many they were before."""
    return pack(bytes(size if plain is None else plain))[:18].ljust(size, b"\0")[:size]


def inline_push(n: int = 1, base: int = 0, body: bytes = b"body") -> Pending:
    return Pending(n, base, None, tip_of(body), body, 1, 0, 100, 5)


def segment_push(n: int = 1, base: int = 0, size: int = 9000, dev: bytes = A) -> Pending:
    stem = name(base=base, dev=dev, number=n, token=n)
    return Pending(
        n, base, f"prefix/{SID}/{stem}", tip_of(stem.encode()), bytes(size), 2, 1, size, 5
    )


def author(of: ReplicaState, *, parent: Manifest | None, now_ms: int = 1000) -> Author:
    prev = None if parent is None else hash_of(parent.seq)
    return Author(of, now_ms, prev, b"commit-id-of-16b")


def pushed(
    parent: Manifest | None, of: ReplicaState, pending: Pending, *, now_ms: int = 1000
) -> Manifest:
    return plan.with_push(
        parent, author(of, parent=parent, now_ms=now_ms), pending, repo_id=REPO, sid=SID
    )


def history(commits: int, dev: bytes = A) -> Manifest:
    """Return the manifest after that many inline pushes of one device."""
    current: Manifest | None = None
    for at in range(commits):
        done = replace(state(dev, n=at, acked_n=at, applied_seq=at))
        # Emptied each time, so that there is always room.
        current = replace(pushed(current, done, inline_push(at + 1, at)), inline=())
    assert current is not None
    return current


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
) -> None:
    plan.check_history(before, current, mark or hash_of(current.seq), dev=dev, acked_n=acked_n)


def test_a_device_that_has_seen_nothing_believes_what_it_is_shown() -> None:
    check(None, history(3))


@pytest.mark.parametrize("ahead", [0, 1, 2, RING_LENGTH - 1, RING_LENGTH, RING_LENGTH + 1, 60])
def test_any_number_of_further_commits_of_the_same_history_is_believed(ahead: int) -> None:
    check(seen(5), history(5 + ahead), acked_n=5)


def test_an_older_manifest_than_before_is_a_stale_read() -> None:
    with pytest.raises(StaleReadError, match="commit 4 of session 'conv-123', after 5"):
        check(seen(5), history(4))


@pytest.mark.parametrize("ahead", [0, 1, 2, RING_LENGTH - 1, RING_LENGTH])
def test_another_history_is_a_fork_as_far_back_as_the_ring_reaches(ahead: int) -> None:
    current = history(5 + ahead)
    with pytest.raises(ForkDetectedError, match="at commit 5"):
        check(seen(5, "another"), current)


@pytest.mark.parametrize("ahead", [2, RING_LENGTH])
def test_a_ring_that_leaves_out_what_was_seen_is_a_fork(ahead: int) -> None:
    current = history(5 + ahead)
    gap = tuple(mark for mark in current.ring if mark[0] != 5)
    for ring in (gap, ()):
        with pytest.raises(ForkDetectedError):
            check(seen(5), replace(current, ring=ring))


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


def test_a_device_that_may_have_been_retired_below_a_floor_has_lost_nothing() -> None:
    check(seen(5), replace(history(60), gc_floor=6), dev=B, acked_n=1)


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
    "its own last push": (state(n=3), device(3), False),
    "a push further than it ever went": (state(n=3), device(4), True),
    "another incarnation": (state(n=3), device(3, inc=b"incarn-2"), True),
    "a push of its own that is not in yet": (state(n=4, pending=inline_push(4)), device(3), False),
    "its own push, which it does not know is in": (
        state(n=4, pending=inline_push(4)),
        device(4, tip=tip_of(b"body")),
        False,
    ),
    "another push under the number of its own": (
        state(n=4, pending=inline_push(4)),
        device(4, tip=tip_of(b"other")),
        True,
    ),
    "numbers that it gave up": (state(n=9), device(3), False),
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
        assert plan.committed_at(current, A, push) == 4
    assert plan.committed_at(current, B, inline_push(6)) == 7


@pytest.mark.parametrize("push", [inline_push(1), segment_push(1)])
def test_a_push_that_was_compacted_away_is_committed_no_later_than_the_manifest(
    push: Pending,
) -> None:
    current = pushed(None, state(n=1, pending=push), push)
    merged = Compaction(current.entries, current.inline)
    output = entry(kind="b", lo=0, hi=1, lvl=1)
    after = plan.with_compaction(current, author(state(B), parent=current), merged, output)
    assert after is not None
    assert plan.committed_at(after, A, push) == after.seq == 2


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
    assert plan.may_commit(None, inline_push(1, base), applied) is True


def carrying(*sizes: int) -> Manifest:
    items = tuple(Inline(B, at + 1, 0, 1, 0, payload(size)) for at, size in enumerate(sizes))
    return replace(history(1, B), inline=items)


def test_a_payload_rides_in_the_manifest_up_to_exactly_its_limits() -> None:
    assert plan.fits_inline(None, INLINE_EACH_BYTES)
    assert not plan.fits_inline(None, INLINE_EACH_BYTES + 1)
    full = carrying(INLINE_EACH_BYTES, INLINE_EACH_BYTES)
    assert plan.fits_inline(full, INLINE_TOTAL_BYTES - full.inline_bytes)
    nearly = carrying(INLINE_EACH_BYTES, INLINE_EACH_BYTES, 1)
    assert plan.fits_inline(nearly, INLINE_EACH_BYTES - 1)
    assert not plan.fits_inline(nearly, INLINE_EACH_BYTES)


# -- what must be fetched --------------------------------------------------------------------


def entry(
    *,
    kind: str = "s",
    dev: bytes = A,
    lo: int,
    hi: int,
    lvl: int = 0,
    size: int = 9000,
    base: int = 0,
    bmin: int | None = None,
    token: int | None = None,
) -> Entry:
    return Entry(
        name(kind=kind, base=base, dev=dev, number=lvl or hi, token=hi if token is None else token),
        size,
        1,
        0,
        lo,
        hi,
        base if bmin is None else bmin,
        lvl,
        1000,
    )


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
    assert plan.to_fetch(current, applied_seq=7, dev=A) == plan.Fetch((), ())
    everything = plan.to_fetch(current, applied_seq=0, dev=b"device-C")
    assert everything == plan.Fetch(current.entries, current.inline)


def test_a_device_id_inside_anothers_name_is_not_ones_own() -> None:
    # The base of this name, 16 hexadecimal digits too, spells the device's id.
    lookalike = entry(dev=B, lo=0, hi=1, base=int.from_bytes(A, "big"))
    current = replace(history(1), entries=(lookalike,))
    assert plan.to_fetch(current, applied_seq=0, dev=A).entries == (lookalike,)


# -- the next manifest -----------------------------------------------------------------------


def test_the_first_push_makes_the_first_manifest() -> None:
    push = inline_push(1)
    first = pushed(None, state(n=1, pending=push, space=SPACE), push, now_ms=77)
    assert (first.seq, first.ct, first.prev, first.ring) == (1, 77, bytes(32), ())
    assert (first.repo_id, first.sid, first.name, first.by) == (REPO, SID, "conv-123", A)
    assert first.inline == (Inline(A, 1, 0, 1, 77, b"body"),)
    assert first.devs == {A: Device(1, 0, 77, INC, push.tip)}
    assert first.space == SPACE
    assert decode(encode(first), what="it") == first


def test_a_segment_is_listed_with_what_its_author_knows_of_it() -> None:
    push = segment_push(3, base=2)
    parent = history(4, B)
    after = pushed(parent, state(n=3, applied_seq=2, pending=push, space=SPACE), push, now_ms=2000)
    assert push.key is not None
    assert after.entries == (
        Entry(push.key.split("/", 2)[2], 9000, 2, 1, 4, 5, 2, 0, 2000, 5, "00ff", 9000),
    )
    assert after.devs[A] == Device(3, 2, 2000, INC, push.tip)
    assert after.devs[B] == parent.devs[B]


@settings(max_examples=60)
@given(parent=manifests(), now_ms=st.integers(0, 2**40))
def test_a_commit_keeps_everything_that_it_does_not_change(parent: Manifest, now_ms: int) -> None:
    parent = replace(parent, seq=min(parent.seq, 2**40))
    push = segment_push(1)
    after = pushed(parent, state(n=1, pending=push, space=SPACE), push, now_ms=now_ms)
    assert after.seq == parent.seq + 1
    assert after.ct == max(parent.ct, now_ms)
    assert after.prev == hash_of(parent.seq)
    assert after.ring == (*parent.ring, (parent.seq, hash_of(parent.seq)[:16]))[-RING_LENGTH:]
    assert after.entries[:-1] == parent.entries
    assert after.inline == parent.inline
    assert {**after.devs, A: None} == {**parent.devs, A: None}
    before = parent.device(A)
    if before is not None:
        assert (after.devs[A].label, after.devs[A].extra) == (before.label, before.extra)
    kept = ["extra", "features_r", "features_w", "gen", "deleted", "gc_floor", "tomb_seq"]
    kept += ["tomb_hlc", "name", "sid", "repo_id"]
    assert {key: getattr(after, key) for key in kept} == {key: getattr(parent, key) for key in kept}
    assert after.space == (parent.space or SPACE)


def test_the_ring_holds_the_last_of_any_number_of_commits_in_order() -> None:
    current = history(100)
    assert [seq for seq, _ in current.ring] == list(range(100 - RING_LENGTH, 100))
    assert all(mark == hash_of(seq)[:16] for seq, mark in current.ring)


def test_time_in_the_manifest_never_falls() -> None:
    first = pushed(None, state(n=1), inline_push(1), now_ms=9000)
    second = pushed(first, state(n=2), inline_push(2), now_ms=10)
    assert (second.ct, second.inline[-1].ct, second.devs[A].last_ct) == (9000, 9000, 9000)


def test_a_manifest_with_a_parent_takes_the_parents_hash() -> None:
    parent = history(1)
    nobody = Author(state(n=2), 0, None, bytes(16))
    with pytest.raises(ValueError):
        plan.with_push(parent, nobody, inline_push(2), repo_id=REPO, sid=SID)


# -- compaction ------------------------------------------------------------------------------


def test_a_compaction_covers_all_of_its_inputs_and_is_as_old_as_the_oldest() -> None:
    merged = Compaction(
        (entry(lo=4, hi=5, bmin=3), entry(kind="b", lo=1, hi=3, bmin=1, lvl=2)),
        (Inline(B, 1, 2, 7, 0, b""),),
    )
    assert (merged.covers, merged.bmin, merged.level) == ((1, 7), 1, 3)
    only_inline = Compaction((), (Inline(B, 1, 2, 7, 0, b""), Inline(A, 1, 1, 4, 0, b"")))
    assert (only_inline.covers, only_inline.bmin, only_inline.level) == ((3, 7), 1, 1)


def test_a_compaction_takes_its_inputs_off_the_list_and_puts_its_output_on() -> None:
    old, young, kept = entry(lo=0, hi=1), entry(lo=2, hi=3), entry(dev=B, lo=1, hi=2)
    first, second = Inline(A, 9, 3, 4, 0, b"x"), Inline(B, 9, 4, 5, 0, b"y")
    parent = replace(history(5), entries=(old, kept, young), inline=(first, second))
    merged = Compaction((old, young), (first,))
    output = entry(kind="b", lo=0, hi=4, lvl=1, token=99)
    after = plan.with_compaction(parent, author(state(), parent=parent), merged, output)
    assert after is not None
    assert after.entries == (kept, output)
    assert after.inline == (second,)
    assert (after.seq, after.devs, after.space) == (6, parent.devs, parent.space)
    assert decode(encode(after), what="it") == after


def test_a_compaction_whose_input_somebody_else_has_merged_is_given_up() -> None:
    one, two = entry(lo=0, hi=1), entry(lo=1, hi=2)
    item = Inline(A, 3, 2, 3, 0, b"x")
    parent = replace(history(3), entries=(one, two), inline=(item,))
    merged = Compaction((one, two), (item,))
    output = entry(kind="b", lo=0, hi=3, lvl=1, token=99)
    who = author(state(), parent=parent)
    for changed in (
        replace(parent, entries=(one,)),
        replace(parent, entries=()),
        replace(parent, inline=()),
        replace(parent, inline=(replace(item, n=4),)),
    ):
        assert plan.with_compaction(changed, who, merged, output) is None
    assert plan.with_compaction(parent, who, merged, output) is not None


def test_a_compaction_prepared_below_the_floor_is_given_up() -> None:
    one, two = entry(lo=0, hi=1), entry(lo=1, hi=2)
    output = entry(kind="b", lo=0, hi=2, lvl=1, base=2)
    for floor, done in ((2, True), (3, False)):
        parent = replace(history(3), entries=(one, two), gc_floor=floor)
        after = plan.with_compaction(
            parent, author(state(), parent=parent), Compaction((one, two), ()), output
        )
        assert (after is not None) is done


def test_a_small_session_of_few_entries_is_left_alone() -> None:
    few = tuple(entry(lo=at, hi=at + 1) for at in range(plan.SMALL_SESSION_ENTRIES))
    assert plan.plan_compaction(replace(history(9), entries=few)) is None
    assert plan.plan_compaction(carrying(8000, plan.SPILL_BYTES - 8000)) is None
    assert plan.plan_compaction(carrying(8000, plan.SPILL_BYTES - 7999)) is not None
    assert plan.plan_compaction(history(1)) is None


class Simulated:
    """A session in sizes only: pushes of given sizes, compacted after each as long as there is
    something to do.

    Attributes:
        live: The most that all documents together come to: past it a push replaces old text.
    """

    def __init__(self, live: int = 2**63) -> None:
        self.current = replace(history(1), inline=())
        self.live = live
        self.pushed = self.rewritten = 0
        self.most_small = self.most = self.highest = 0

    def push(self, size: int) -> None:
        at = self.current.seq
        self.pushed += size
        seq = at + 1
        if plan.fits_inline(self.current, size):
            item = Inline(A, seq, at, seq, 0, payload(size))
            self.current = replace(self.current, seq=seq, inline=(*self.current.inline, item))
        else:
            new = entry(lo=at, hi=seq, size=size, base=at, token=seq)
            self.current = replace(self.current, seq=seq, entries=(*self.current.entries, new))
        for _ in range(3):
            merged = plan.plan_compaction(self.current)
            if merged is None:
                break
            self.compact(merged)
        assert plan.plan_compaction(self.current) is None
        self.observe()

    def compact(self, merged: Compaction) -> None:
        parent = self.current
        size = sum(each.bytes for each in merged.entries)
        size += sum(len(item.payload) for item in merged.inline)
        self.rewritten += size
        self.highest = max(self.highest, merged.level)
        lo, hi = merged.covers
        output = entry(
            kind="b",
            lo=lo,
            hi=hi,
            size=min(size, self.live),
            base=parent.seq,
            bmin=merged.bmin,
            lvl=merged.level,
            token=parent.seq,
        )
        after = plan.with_compaction(parent, author(state(), parent=parent), merged, output)
        assert after is not None
        assert after.seq == parent.seq + 1
        assert output.bytes <= MAX_SEGMENT_BYTES
        assert min(each.bmin for each in after.entries) == min(
            [each.bmin for each in parent.entries] + [item.base for item in parent.inline]
        )
        self.current = after

    def observe(self) -> None:
        total = sum(each.bytes for each in self.current.entries) + self.current.inline_bytes
        count = len(self.current.entries)
        self.most = max(self.most, count)
        if total <= plan.SMALL_SESSION_BYTES:
            self.most_small = max(self.most_small, count)


def test_ten_thousand_turns_pushed_one_by_one_stay_few_entries_and_little_work() -> None:
    # Below 4 MiB a byte is rewritten about log2(4 MiB / 12 KiB) = 8.4 times at most; measured: 6.1
    # bytes written a byte pushed when 4 MiB are reached, 4.1 after 10 MB.
    session = Simulated()
    for at in range(10_000):
        session.push(900 + at * 7919 % 201)
        if at == 4000:
            assert session.rewritten < 8 * session.pushed
    assert session.most_small <= plan.SMALL_SESSION_ENTRIES
    assert session.rewritten < 6 * session.pushed
    assert session.most <= 64


@pytest.mark.parametrize("size", [100, 5000, 8192, 8193, 60_000])
def test_pushes_of_any_size_keep_a_small_session_in_few_entries(size: int) -> None:
    session = Simulated()
    for _ in range(min(3000, plan.SMALL_SESSION_BYTES // size)):
        session.push(size)
    assert session.most_small <= plan.SMALL_SESSION_ENTRIES
    assert session.rewritten < 8 * session.pushed


def test_documents_written_again_and_again_never_outgrow_the_level_of_a_name() -> None:
    # Their session stays small for ever, and every merge takes in the output of one before.
    session = Simulated(live=20_000)
    for _ in range(6000):
        session.push(1000)
    assert session.most <= plan.SMALL_SESSION_ENTRIES
    assert session.highest == plan.MAX_LEVEL <= layout.MAX_LEVEL


def test_a_large_session_takes_few_entries_a_level() -> None:
    session = Simulated()
    for _ in range(3000):
        session.push(30_000)
    assert session.most <= 64
    assert session.rewritten < 5 * session.pushed


def test_large_entries_in_front_do_not_keep_small_ones_behind_them_apart() -> None:
    session = Simulated()
    for _ in range(20):
        session.push(12 * 1024 * 1024)
    for _ in range(1000):
        session.push(9000)
    assert session.most <= 20 + 3 * (plan.MAX_AT_LEVEL + 1)


@settings(max_examples=30)
@given(
    sizes=st.lists(st.sampled_from([10, 1000, 8192, 8193, 10**6, 5 * 10**6, 2**24]), max_size=60)
)
def test_compaction_comes_to_an_end_whatever_was_pushed(sizes: list[int]) -> None:
    session = Simulated()
    for size in sizes:
        session.push(size)
    assert session.most_small <= plan.SMALL_SESSION_ENTRIES
    covered = [(each.lo, each.hi) for each in session.current.entries]
    covered += [(item.seq - 1, item.seq) for item in session.current.inline]
    assert all(lo < hi <= session.current.seq for lo, hi in covered)


def test_what_would_be_too_large_to_read_is_not_merged_however_well_it_compresses() -> None:
    # Each of these is 9 MB of the same words: three together would be past what a reader accepts.
    entries = tuple(
        replace(entry(lo=at, hi=at + 1, size=9000, base=at, token=at + 1), plain=9_000_000)
        for at in range(8)
    )
    merged = plan.plan_compaction(replace(history(8), inline=(), entries=entries))
    assert merged is not None
    assert len(merged.entries) == 3
    items = tuple(Inline(A, at, 0, at, 0, payload(7000, plain=30_000_000)) for at in (1, 2))
    spilled = plan.plan_compaction(replace(history(8), inline=items, entries=()))
    assert spilled is not None
    assert spilled.inline == items[:1]
