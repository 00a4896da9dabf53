"""A coverage is a set of pushes, whatever it was made of; a floor is a set that begins at 1."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moss_sync.coverage import (
    Coverage,
    below,
    coverage_of,
    floor_fields,
    floor_of,
    highest,
    joined,
    reaches,
)

DEVS = (b"device-A", b"device-B")

pushes = st.sets(st.tuples(st.sampled_from(DEVS), st.integers(1, 8)))
floors = st.dictionaries(st.sampled_from(DEVS), st.integers(0, 5))


def made(of: set[tuple[bytes, int]]) -> Coverage:
    return Coverage().plus(*(Coverage.of(dev, n) for dev, n in of))


def members(floor: dict[bytes, int]) -> set[tuple[bytes, int]]:
    return {(dev, n) for dev, top in floor.items() for n in range(1, top + 1)}


@given(a=pushes, b=pushes)
def test_joining_coverages_joins_the_sets(
    a: set[tuple[bytes, int]], b: set[tuple[bytes, int]]
) -> None:
    union = made(a).plus(made(b))
    assert union == made(a | b)
    assert union.total == len(a | b)
    for dev in DEVS:
        for n in range(10):
            assert union.has(dev, n) == ((dev, n) in a | b)


@given(of=pushes)
def test_gaps_prefix_and_top_are_those_of_the_set(of: set[tuple[bytes, int]]) -> None:
    coverage = made(of)
    lacking = {(dev, n) for dev, first, last in coverage.gaps() for n in range(first, last + 1)}
    for dev in DEVS:
        mine = {n for d, n in of if d == dev}
        assert coverage.top(dev) == max(mine, default=0)
        assert {n for d, n in lacking if d == dev} == set(range(1, coverage.top(dev))) - mine
        prefix = coverage.prefix(dev)
        assert set(range(1, prefix + 1)) <= mine
        assert prefix + 1 not in mine
    assert members(coverage.floor()) <= of


@given(of=pushes)
def test_a_coverage_survives_its_plain_form(of: set[tuple[bytes, int]]) -> None:
    assert coverage_of(made(of).fields()) == made(of)


@pytest.mark.parametrize(
    "spans", [[[0, 1]], [[2, 1]], [[1, 2], [3, 4]], [[3, 4], [1, 1]], [[1]], [[1, 2], [2, 3]], [1]]
)
def test_ranges_in_another_form_than_the_one_are_refused(spans: object) -> None:
    with pytest.raises((ValueError, TypeError)):
        coverage_of({DEVS[0]: spans})


@given(a=floors, b=floors)
def test_floors_are_ordered_and_joined_as_the_sets_they_stand_for(
    a: dict[bytes, int], b: dict[bytes, int]
) -> None:
    assert reaches(a, b) == (members(b) <= members(a))
    assert members(joined([a, b])) == members(a) | members(b)
    assert {push for push in members(a) | members(b) if below(*push, a)} == members(a)
    assert members(floor_of(floor_fields(a))) == members(a)


@given(several=st.lists(floors))
def test_of_floors_those_are_kept_that_no_other_reaches(several: list[dict[bytes, int]]) -> None:
    kept = highest(several)
    for floor in several:
        assert not members(floor) or any(reaches(each, floor) for each in kept)
    for i, floor in enumerate(kept):
        assert not any(reaches(each, floor) for j, each in enumerate(kept) if i != j)
