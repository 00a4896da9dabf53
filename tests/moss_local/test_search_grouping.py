"""Sorting by a field and putting documents together: pure, over any documents."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from moss_local.search.grouping import by_parent, in_order, whole
from tests.strategies import tagged


@dataclass(frozen=True)
class Doc:
    id: str
    text: str
    metadata: dict[str, str] | None = None
    payload: str | None = None


def docs(*values: str | None) -> list[Doc]:
    return [
        Doc(f"d{n}", f"text {n}", None if value is None else {"x": value})
        for n, value in enumerate(values)
    ]


def test_numbers_sort_by_size_then_text_then_what_has_no_value() -> None:
    unsorted = docs("b", None, "10", "9", "a", "-1.5", "9.0")
    assert [d.id for d in in_order(unsorted, "x")] == ["d5", "d3", "d6", "d2", "d4", "d0", "d1"]


def test_descending_is_the_other_way_round_with_what_has_no_value_still_last() -> None:
    unsorted = docs("b", None, "10", "9", "a", "-1.5", "9.0", None)
    ordered = [d.id for d in in_order(unsorted, "x", ascending=False)]
    assert ordered == ["d0", "d4", "d2", "d3", "d6", "d5", "d1", "d7"]


@given(st.lists(tagged, max_size=8), st.booleans())
def test_sorting_keeps_every_document_and_does_not_depend_on_the_order_before(
    metadata: list[dict[str, str] | None], ascending: bool
) -> None:
    some = [Doc(f"d{n}", "", given) for n, given in enumerate(metadata)]
    ordered = in_order(some, "a", ascending=ascending)
    assert sorted(d.id for d in ordered) == [d.id for d in some]
    assert in_order(reversed(some), "a", ascending=ascending) == ordered


def test_a_group_is_its_texts_in_order_and_what_all_of_it_share() -> None:
    members = [
        Doc("b", "second", {"parent": "p", "n": "2", "who": "Ana"}, "same"),
        Doc("c", "tenth", {"parent": "p", "n": "10", "who": "Ana"}, "same"),
        Doc("a", "first", {"parent": "p", "n": "1", "who": "Ana", "more": "x"}, "same"),
        Doc("d", "somewhere", {"parent": "p", "who": "Ana"}, "same"),
    ]
    group = whole(members, "n")
    assert group.text == "first\nsecond\ntenth\nsomewhere"
    assert group.metadata == {"parent": "p", "who": "Ana"}
    assert group.payload == "same"
    assert whole([*members, Doc("e", "", {"parent": "p"}, "other")], "n").payload is None
    assert whole(members[:1], "n").metadata == members[0].metadata


def test_groups_stand_where_their_first_document_does_and_the_rest_stands_alone() -> None:
    some = [
        Doc("a", "", {"p": "one"}),
        Doc("b", ""),
        Doc("c", "", {"p": "two"}),
        Doc("d", "", {"p": "one"}),
        Doc("e", "", {"other": "one"}),
    ]
    assert by_parent(
        some,
        "p",
        alone=lambda document: document.id,
        together=lambda parent, members: f"{parent}:{''.join(d.id for d in members)}",
    ) == ["one:ad", "b", "two:c", "e"]
