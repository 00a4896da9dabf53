"""Which entries are merged into which, what may be dropped, and what a commit may replace."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moss_sync import layout, plan, tiers
from moss_sync.floors import DEFAULT_POLICY
from moss_sync.manifest import Inline, decode, encode
from moss_sync.segment import MAX_SEGMENT_BYTES
from moss_sync.tiers import Compaction, plan_compaction, with_compaction
from tests.moss_sync.manifests import A, B, author, carrying, entry, history, payload, state


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
    after = with_compaction(
        parent, author(state(applied_seq=parent.seq), parent=parent), merged, [output], tomb_hlc=0
    )
    assert after is not None
    assert after.entries == (kept, output)
    assert after.inline == (second,)
    mine = replace(parent.devs[A], acked_seq=5, last_ct=after.ct)
    assert (after.seq, after.devs, after.space) == (6, {A: mine}, parent.space)
    assert decode(encode(after), what="it") == after


def test_a_compaction_whose_input_somebody_else_has_merged_is_given_up() -> None:
    one, two = entry(lo=0, hi=1), entry(lo=1, hi=2)
    item = Inline(A, 3, 2, 3, 0, b"x")
    parent = replace(history(3), entries=(one, two), inline=(item,))
    merged = Compaction((one, two), (item,))
    output = entry(kind="b", lo=0, hi=3, lvl=1, token=99)
    who = author(state(applied_seq=parent.seq), parent=parent)
    for changed in (
        replace(parent, entries=(one,)),
        replace(parent, entries=()),
        replace(parent, inline=()),
        replace(parent, inline=(replace(item, n=4),)),
    ):
        assert with_compaction(changed, who, merged, [output], tomb_hlc=0) is None
    assert with_compaction(parent, who, merged, [output], tomb_hlc=0) is not None


def test_a_compaction_prepared_below_the_floor_is_given_up() -> None:
    one, two = entry(lo=0, hi=1), entry(lo=1, hi=2)
    output = entry(kind="b", lo=0, hi=2, lvl=1, base=2)
    for floor, done in ((2, True), (3, False)):
        parent = replace(history(3), entries=(one, two), gc_floor=floor)
        after = with_compaction(
            parent,
            author(state(applied_seq=parent.seq), parent=parent),
            Compaction((one, two), ()),
            [output],
            tomb_hlc=0,
        )
        assert (after is not None) is done


def test_a_purge_raises_the_collection_floor_with_that_of_the_tombstones() -> None:
    """What was authored before a purge can be committed by nobody after it, however soon."""
    old, young = entry(lo=0, hi=1), entry(lo=1, hi=2, bmin=1)
    parent = replace(history(3), entries=(old, young), inline=())
    output = entry(kind="b", lo=0, hi=2, lvl=1, base=3, token=99)
    after = with_compaction(
        parent,
        author(state(applied_seq=parent.seq), parent=parent),
        Compaction((old, young), (), purge=2),
        [output],
        tomb_hlc=7,
    )
    assert after is not None
    assert (parent.gc_floor, after.gc_floor, after.tomb_seq) == (0, 2, 2)


def test_a_small_session_of_few_entries_is_left_alone() -> None:
    few = tuple(entry(lo=at, hi=at + 1) for at in range(DEFAULT_POLICY.small_session_entries))
    assert plan_compaction(replace(history(9), entries=few), DEFAULT_POLICY, 1000) is None
    inline = carrying(8000, DEFAULT_POLICY.spill_bytes - 8000)
    assert plan_compaction(inline, DEFAULT_POLICY, 1000) is None
    assert (
        plan_compaction(carrying(8000, DEFAULT_POLICY.spill_bytes - 7999), DEFAULT_POLICY, 1000)
        is not None
    )
    assert plan_compaction(history(1), DEFAULT_POLICY, 1000) is None


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
            merged = plan_compaction(self.current, DEFAULT_POLICY, 1000)
            if merged is None:
                break
            self.compact(merged)
        assert plan_compaction(self.current, DEFAULT_POLICY, 1000) is None
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
        after = with_compaction(
            parent,
            author(state(applied_seq=parent.seq), parent=parent),
            merged,
            [output],
            tomb_hlc=0,
        )
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
        if total <= DEFAULT_POLICY.small_session_bytes:
            self.most_small = max(self.most_small, count)


def test_ten_thousand_turns_pushed_one_by_one_stay_few_entries_and_little_work() -> None:
    # Below 4 MiB a byte is rewritten about log2(4 MiB / 12 KiB) = 8.4 times at most; measured: 6.1
    # bytes written a byte pushed when 4 MiB are reached, 4.1 after 10 MB.
    session = Simulated()
    for at in range(10_000):
        session.push(900 + at * 7919 % 201)
        if at == 4000:
            assert session.rewritten < 8 * session.pushed
    assert session.most_small <= DEFAULT_POLICY.small_session_entries
    assert session.rewritten < 6 * session.pushed
    assert session.most <= 64


@pytest.mark.parametrize("size", [100, 5000, 8192, 8193, 60_000])
def test_pushes_of_any_size_keep_a_small_session_in_few_entries(size: int) -> None:
    session = Simulated()
    for _ in range(min(3000, DEFAULT_POLICY.small_session_bytes // size)):
        session.push(size)
    assert session.most_small <= DEFAULT_POLICY.small_session_entries
    assert session.rewritten < 8 * session.pushed


def test_documents_written_again_and_again_never_outgrow_the_level_of_a_name() -> None:
    # Their session stays small for ever, and every merge takes in the output of one before.
    session = Simulated(live=20_000)
    for _ in range(6000):
        session.push(1000)
    assert session.most <= DEFAULT_POLICY.small_session_entries
    assert session.highest == tiers.MAX_LEVEL <= layout.MAX_LEVEL


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
    assert session.most <= 20 + 3 * (DEFAULT_POLICY.max_at_level + 1)


@settings(max_examples=30)
@given(
    sizes=st.lists(st.sampled_from([10, 1000, 8192, 8193, 10**6, 5 * 10**6, 2**24]), max_size=60)
)
def test_compaction_comes_to_an_end_whatever_was_pushed(sizes: list[int]) -> None:
    session = Simulated()
    for size in sizes:
        session.push(size)
    assert session.most_small <= DEFAULT_POLICY.small_session_entries
    covered = [(each.lo, each.hi) for each in session.current.entries]
    covered += [(item.seq - 1, item.seq) for item in session.current.inline]
    assert all(lo < hi <= session.current.seq for lo, hi in covered)


def test_what_would_be_too_large_to_read_is_not_merged_however_well_it_compresses() -> None:
    # Each of these is 9 MB of the same words: three together would be past what a reader accepts.
    entries = tuple(
        replace(entry(lo=at, hi=at + 1, size=9000, base=at, token=at + 1), plain=9_000_000)
        for at in range(8)
    )
    merged = plan_compaction(replace(history(8), inline=(), entries=entries), DEFAULT_POLICY, 1000)
    assert merged is not None
    assert len(merged.entries) == 3
    items = tuple(Inline(A, at, 0, at, 0, payload(7000, plain=30_000_000)) for at in (1, 2))
    spilled = plan_compaction(replace(history(8), inline=items, entries=()), DEFAULT_POLICY, 1000)
    assert spilled is not None
    assert spilled.inline == items[:1]
