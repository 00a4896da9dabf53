"""The laws of the merge: order, grouping and repetition of delivery never change the result."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from moss_sync.merge import lowest_commit, newest, wins
from moss_sync.record import Record, Version, content_digest


@st.composite
def records(draw: st.DrawFn) -> Record:
    """A version of one of few documents, by one of few devices: collisions are the point.

    One write owns its version: the digest in it is that of the content.
    """
    id = draw(st.sampled_from("abc"))
    deleted = draw(st.booleans())
    text = "" if deleted else draw(st.sampled_from(["x", "y"]))
    return Record(
        id,
        Version(
            draw(st.integers(0, 3)),
            draw(st.sampled_from([b"device-A", b"device-B"])),
            content_digest(id, deleted=deleted, text=text),
        ),
        deleted=deleted,
        text=text,
        commit_seq=draw(st.none() | st.integers(1, 3)),
    )


histories = st.lists(records(), max_size=12)


@given(history=histories, data=st.data())
def test_order_and_repetition_of_delivery_never_change_the_result(
    history: list[Record], data: st.DataObject
) -> None:
    repeats = data.draw(st.lists(st.sampled_from(history)) if history else st.just([]))
    delivered = data.draw(st.permutations(history + repeats))
    assert newest(delivered) == newest(history)


@given(a=histories, b=histories)
def test_merging_is_commutative(a: list[Record], b: list[Record]) -> None:
    assert newest(a + b) == newest(b + a)


@given(a=histories, b=histories, c=histories)
def test_merging_is_associative(a: list[Record], b: list[Record], c: list[Record]) -> None:
    left = newest([*newest(a + b).values(), *c])
    right = newest([*a, *newest(b + c).values()])
    assert left == right == newest(a + b + c)


@given(history=histories)
def test_merging_is_idempotent(history: list[Record]) -> None:
    once = newest(history)
    assert newest(once.values()) == once
    assert newest(history + history) == once


@given(history=histories)
def test_what_is_left_of_an_id_is_its_greatest_version_and_its_lowest_commit(
    history: list[Record],
) -> None:
    for id, record in newest(history).items():
        versions = [other for other in history if other.id == id]
        assert record.version == max(other.version for other in versions)
        commits = [
            other.commit_seq
            for other in versions
            if other.version == record.version and other.commit_seq is not None
        ]
        assert record.commit_seq == min(commits, default=None)


@given(a=records(), b=records())
def test_of_two_versions_at_most_one_wins_and_equal_ones_are_the_same(a: Record, b: Record) -> None:
    assert not (wins(a, b) and wins(b, a))
    assert (wins(a, b) or wins(b, a)) == (a.version != b.version)


def test_a_commit_that_is_not_known_gives_way_to_one_that_is() -> None:
    assert lowest_commit(None, None) is None
    assert lowest_commit(None, 4) == lowest_commit(4, None) == 4
    assert lowest_commit(5, 4) == 4
