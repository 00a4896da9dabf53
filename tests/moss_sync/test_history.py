"""How two states of a session stand to each other, and what a repair builds on."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moss_sync.history import Relation, Side, relate, undoes
from moss_sync.manifest import Inline, Manifest
from moss_sync.marks import continued
from moss_sync.plan import Author
from moss_sync.record import Record, Version
from moss_sync.repair import (
    Foundation,
    foundation,
    is_doubtful,
    missing_of,
    since_the_deletion,
    sort_out,
    with_repair,
)
from tests.moss_sync.manifests import A, B, entry, hash_of, history, state


@lru_cache(maxsize=512)
def side(
    seq: int,
    *,
    fork: int = 10**9,
    branch: str = "main",
    repairs: int = 0,
    gen: int = 0,
    tomb: int = 0,
) -> Side:
    """A state whose history is of another branch from commit `fork` on."""
    marks = b""
    for at in range(1, seq):
        marks = continued(at, marks, hash_of(at, branch if at >= fork else "main"), at + 1)
    own, before = (hash_of(at, branch if at >= fork else "main") for at in (seq, seq - 1))
    manifest = replace(
        history(1),
        seq=seq,
        marks=marks,
        prev=before if seq > 1 else bytes(32),
        repairs=repairs,
        gen=gen,
        gc_floor=tomb,
        tomb_seq=tomb,
        inline=(),
    )
    return Side(manifest, own)


def repaired(on: Foundation) -> Side:
    author = Author(state(), 1000, None, b"commit-id-of-16b", epoch=1)
    manifest = with_repair(on, author, lost=frozenset())
    return Side(manifest, hash_of(manifest.seq, "repaired"))


def put(id: str, hlc: int, *, seq: int | None = None, deleted: bool = False) -> Record:
    return Record(id, Version(hlc, A, bytes(8)), deleted=deleted, commit_seq=seq)


# -- relations ---------------------------------------------------------------------------------


@settings(deadline=None, max_examples=50)
@given(seq=st.integers(1, 150), ahead=st.integers(0, 60))
def test_a_state_is_the_beginning_of_what_went_on_from_it(seq: int, ahead: int) -> None:
    assert relate(side(seq), side(seq + ahead)) == Relation(parted=False, joint=seq)


@settings(deadline=None, max_examples=50)
@given(fork=st.integers(2, 40), more=st.integers(0, 20), other=st.integers(0, 20))
def test_states_that_went_on_from_one_commit_have_parted_there(
    fork: int, more: int, other: int
) -> None:
    one, two = sorted(
        (side(fork + more), side(fork + other, fork=fork, branch="other")),
        key=lambda each: each.order,
    )
    assert relate(one, two) == Relation(parted=True, joint=fork - 1)


def test_a_repair_goes_on_from_what_it_builds_on_for_everybody_who_was_part_of_it() -> None:
    base, other = side(20), side(30, fork=11, branch="other")
    found = foundation(other, base)
    assert found is not None
    after = repaired(found)
    assert after.manifest.seq == 31
    assert relate(side(30, fork=11, branch="other"), after) == Relation(parted=False, joint=30)
    assert relate(base, after) == Relation(parted=True, joint=10)
    assert relate(side(7), after) == Relation(parted=False, joint=7)


def test_what_comes_later_in_order_with_a_lower_number_has_not_known_of_the_other() -> None:
    """Its author would have taken a higher one, even where no mark of both is known."""
    found = relate(side(100), side(31, repairs=1))
    assert found == Relation(parted=True, joint=30)


# -- what a device refuses ---------------------------------------------------------------------


def test_a_repair_that_undoes_a_deletion_of_the_session_is_seen_as_one() -> None:
    assert undoes(side(30, repairs=1), side(20, gen=1))
    assert not undoes(side(30, repairs=1, gen=1), side(20, gen=1))


def test_a_repair_by_who_did_not_know_of_forgotten_deletions_is_seen_as_one() -> None:
    seen = side(100, tomb=50)
    stale = side(40, fork=31, branch="other", repairs=1)
    assert undoes(stale, seen)
    assert not undoes(stale, side(100, tomb=30))  # what was forgotten is of before they parted
    found = foundation(stale, seen)
    assert found is not None
    assert not undoes(repaired(found), seen)
    assert not undoes(repaired(found), stale)


# -- what a repair builds on -------------------------------------------------------------------


@pytest.mark.parametrize("shown_first", [True, False])
def test_of_a_state_and_its_beginning_only_the_later_one_counts(shown_first: bool) -> None:
    both = (side(20), side(30, tomb=9))
    found = foundation(*(both if shown_first else both[::-1]))
    assert found == Foundation(both[1], None, 30, (both[1],))


def test_two_that_have_parted_are_both_listed_with_the_higher_floors() -> None:
    one, two = side(20, tomb=8), side(30, fork=11, branch="other", tomb=9)
    one = replace(one, manifest=replace(one.manifest, tomb_hlc=99, entries=(entry(lo=1, hi=12),)))
    two = replace(two, manifest=replace(two.manifest, entries=(entry(lo=1, hi=14, dev=B),)))
    found = foundation(one, two)
    assert found is not None
    assert (found.base, found.other, found.joint, found.anew) == (two, one, 10, False)
    after = repaired(found).manifest
    assert {item.name for item in after.entries} == {
        item.name for each in (one, two) for item in each.manifest.entries
    }
    assert (after.seq, after.tomb_seq, after.tomb_hlc, after.gc_floor) == (31, 9, 99, 31)


@pytest.mark.parametrize(("mine", "theirs"), [(12, 0), (0, 12), (12, 12)])
def test_where_one_has_forgotten_deletions_since_nothing_is_listed_again(
    mine: int, theirs: int
) -> None:
    one, two = side(20, tomb=mine), side(30, fork=11, branch="other", tomb=theirs)
    found = foundation(one, two)
    assert found is not None
    assert (found.anew, found.listed) == (True, ())
    assert found.base == (one if mine and not theirs else two)
    after = repaired(found).manifest
    assert (after.entries, after.inline) == ((), ())
    assert after.tomb_seq == after.gc_floor == after.seq == 31


def test_a_push_that_is_another_one_on_the_other_side_is_written_anew() -> None:
    def pushed(given: Side, payload: bytes) -> Side:
        item = Inline(A, 3, 0, 12, 0, payload)
        return replace(given, manifest=replace(given.manifest, inline=(item,)))

    one, two = side(20), side(30, fork=11, branch="other")
    same = foundation(pushed(one, b"same"), pushed(two, b"same"))
    other = foundation(pushed(one, b"one"), pushed(two, b"two"))
    assert same is not None
    assert other is not None
    assert (same.anew, other.anew) == (False, True)
    assert len(repaired(same).manifest.inline) == 1


def test_a_generation_before_a_deletion_is_not_listed_again_whatever_else_is_higher() -> None:
    deleted = side(20, gen=1, tomb=20)
    for other in (side(19), side(40, fork=20, branch="other"), side(40, repairs=3)):
        found = foundation(other, deleted)
        assert found is not None
        after = repaired(found).manifest
        assert found.listed == (deleted,)
        assert (after.gen, after.repairs) == (1, other.manifest.repairs + 1)
        assert after.seq > max(20, other.manifest.seq)
    parted = foundation(side(40, fork=20, branch="other"), deleted)
    assert parted is not None
    assert parted.discarded is not None
    rows = [put("before", 5, seq=19), put("after", 5, seq=20), put("t", 5, seq=20, deleted=True)]
    assert [record.id for record in since_the_deletion(parted, rows)] == ["after"]


# -- records -----------------------------------------------------------------------------------


def test_what_the_other_side_may_have_deleted_and_forgotten_is_set_aside() -> None:
    forgetful = side(30, fork=11, branch="other", tomb=12)
    forgetful = replace(forgetful, manifest=replace(forgetful.manifest, tomb_hlc=50))
    found = foundation(forgetful, side(20))
    assert found is not None
    theirs = [put("both", 10), put("of theirs", 9)]
    mine = [put("both", 12), put("old", 50), put("young", 51), put("t", 3, deleted=True)]
    result = sort_out(found, {0: theirs, 1: mine})
    assert {record.id for record in result.kept} == {"both", "of theirs", "young", "t"}
    assert {record.id: record.version.hlc for record in result.kept}["both"] == 12
    assert [record.id for record in result.aside] == ["old"]


@given(
    hlc=st.integers(0, 9), forgotten=st.integers(0, 9), present=st.booleans(), deleted=st.booleans()
)
def test_a_document_is_doubtful_only_if_a_forgotten_deletion_could_have_beaten_it(
    hlc: int, forgotten: int, present: bool, deleted: bool
) -> None:
    record = put("a", hlc, deleted=deleted)
    doubtful = is_doubtful(record, present=present, forgotten=forgotten)
    assert doubtful == (not present and not deleted and hlc <= forgotten)


def test_what_a_device_holds_of_lost_blobs_is_what_the_readable_ones_do_not_have() -> None:
    held = [put("same", 5), put("newer", 7), put("older", 3), put("lost", 1)]
    readable = [put("same", 5), put("newer", 6), put("older", 4), put("theirs", 1)]
    assert {record.id for record in missing_of(held, readable)} == {"newer", "lost"}


def test_there_is_nothing_to_build_on_where_nobody_knows_anything() -> None:
    assert foundation(None, None) is None
    assert isinstance(side(1).manifest, Manifest)
