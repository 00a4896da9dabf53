"""The grammar of filters: what each operator finds, and what is refused and how."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moss_local.search.filters import (
    MAX_CONDITIONS,
    MAX_DEPTH,
    MAX_VALUES,
    OPERATORS,
    parse_filter,
)
from moss_local.search.matching import matches
from moss_sync import InvalidArgumentError
from tests.strategies import filters, metadata

NOW = datetime(2024, 5, 17, 10, 30, tzinfo=UTC)
NOW_MS = int(NOW.timestamp() * 1000)


def found(filter: object, metadata: Mapping[str, str] | None) -> bool:
    return matches(parse_filter(filter, now_ms=NOW_MS), metadata)


def holds(value: str, **condition: Any) -> bool:
    """Say whether a condition, written as eq=..., holds for a value of the field x."""
    operators = {f"${name}": operand for name, operand in condition.items()}
    return found({"field": "x", "condition": operators}, {"x": value, "other": "1"})


def has(field: str, **condition: Any) -> dict[str, Any]:
    return {"field": field, "condition": {f"${name}": value for name, value in condition.items()}}


@pytest.mark.parametrize(
    ("stored", "asked", "equal"),
    [
        ("a", "a", True),
        ("a", "A", False),
        ("", "", True),
        ("10", 10, True),
        ("10", 10.0, True),
        ("10.0", 10.0, False),
        ("10.0", "10.0", True),
        ("0.1", 0.1, True),
        ("0.0000001", 1e-7, True),
        ("1" + "0" * 22, 1e22, True),
        ("9007199254740993", 9007199254740993, True),
        ("-0", -0.0, False),
        ("0", -0.0, True),
        ("true", True, True),
        ("false", False, True),
        ("1", True, False),
        ("é", "e\u0301", False),
        ("a\0b", "a\0b", True),
        ("a\0b", "a", False),
    ],
)
def test_equality_is_of_exact_strings(stored: str, asked: object, equal: bool) -> None:
    assert holds(stored, eq=asked) is equal
    assert holds(stored, ne=asked) is not equal
    assert holds(stored, **{"in": ["no", asked]}) is equal
    assert holds(stored, nin=["no", asked]) is not equal


@pytest.mark.parametrize(
    ("smaller", "greater"),
    [
        ("8", "10"),
        ("-10", "-8"),
        ("-1", "0.5"),
        (".5", "0.51"),
        ("9007199254740992", "9007199254740993"),
        ("0." + "1" * 50, "0." + "1" * 49 + "2"),
        ("+1", "2"),
        ("9", "1" + "0" * 400),
        # One of them is no number: as strings.
        ("10", "8a"),
        ("1e3", "9"),
        ("Apple", "apple"),
        ("apple", "banana"),
        ("", "0"),
        ("z", "é"),
        ("\uffff", "\U00010000"),
        ("2024-05-17", "2024-05-18T00:00"),
    ],
)
def test_order_is_of_numbers_where_both_are_and_else_of_strings(smaller: str, greater: str) -> None:
    assert holds(smaller, lt=greater)
    assert holds(smaller, lte=greater)
    assert not holds(smaller, gt=greater)
    assert not holds(smaller, gte=greater)
    assert holds(greater, gt=smaller)
    assert not holds(greater, lte=smaller)


def test_equal_numbers_are_equal_in_order_however_they_are_written() -> None:
    for stored, asked in [("5.0", 5), ("05", "5"), ("-0", 0), ("1" * 60 + ".", "1" * 60)]:
        assert holds(stored, gte=asked, lte=asked)
        assert not holds(stored, gt=asked)
        assert not holds(stored, lt=asked)


def test_all_operators_of_a_condition_must_hold() -> None:
    assert [n for n in range(8) if holds(str(n), gte=2, lt=6, ne=4, nin=[5])] == [2, 3]
    assert not holds("3", eq="3", ne="3")


def test_no_value_is_in_an_empty_list() -> None:
    assert not holds("3", **{"in": []})
    assert holds("3", nin=[])
    assert holds("b", **{"in": {"a", "b"}})
    assert holds("b", **{"in": ("a", "b")})


@pytest.mark.parametrize(
    "condition",
    [
        {"eq": "1"},
        {"ne": "1"},
        {"gt": "1"},
        {"gte": ""},
        {"lt": "1"},
        {"lte": "1"},
        {"in": ["1"]},
        {"nin": ["1"]},
        {"near": "0,0,1000000000"},
        {"contains": ""},
        {"after": "1970"},
        {"before": "9999"},
        {"within": [None, None]},
    ],
)
def test_a_document_without_the_field_is_found_by_no_operator(condition: dict[str, Any]) -> None:
    for document in (None, {}, {"y": "1"}):
        assert not found(has("x", **condition), document)
        assert not found(has("x", exists=False, **condition), document)


def test_exists_tells_whether_the_field_is_there() -> None:
    assert found(has("x", exists=True), {"x": ""})
    assert not found(has("x", exists=False), {"x": ""})
    for document in (None, {}, {"y": "1"}):
        assert not found(has("x", exists=True), document)
        assert found(has("x", exists=False), document)
    assert not found(has("x", exists=False, eq="1"), {"x": "1"})


def test_and_or_and_not_are_what_they_say_at_any_depth() -> None:
    both = {"$and": [has("a", eq=1), has("b", eq=2)]}
    either = {"$or": [has("a", eq=1), has("b", eq=2)]}
    assert found(both, {"a": "1", "b": "2"})
    assert not found(both, {"a": "1"})
    assert found(either, {"b": "2"})
    assert not found(either, {"a": "2"})
    assert found({"$not": both}, {"a": "1"})
    assert found({"$not": has("a", eq=1)}, None)
    assert found({"$and": [{"$not": either}, {"$or": [has("c", gt=3), both]}]}, {"c": "4"})


@pytest.mark.parametrize(
    ("stored", "asked", "inside"),
    [
        ("Refund issued", "refund", True),
        ("Refund issued", "D ISS", True),
        ("refund", "refunds", False),
        ("STRASSE", "straße", True),
        ("退款已处理", "退款", True),
        ("anything", "", True),
        ('["vip","beta"]', '"vip"', True),
    ],
)
def test_contains_looks_for_text_whatever_its_case(stored: str, asked: str, inside: bool) -> None:
    assert holds(stored, contains=asked) is inside


def test_near_measures_along_the_surface() -> None:
    alexanderplatz, grunewald = "52.5219,13.4132", "52.4846,13.2635"  # about 10.9 km
    assert holds(alexanderplatz, near=f"{grunewald},12000")
    assert not holds(alexanderplatz, near=f"{grunewald},10000")
    assert holds(alexanderplatz, near=f"{alexanderplatz},0")
    assert not holds("Berlin", near="0,0,100000000")


@pytest.mark.parametrize(
    ("stored", "condition"),
    [
        ("2024-05-17T10:29:59Z", {"before": "2024-05-17T10:30:00Z"}),
        ("2024-05-17T10:30:00.000001Z", {"after": "2024-05-17T10:30:00Z"}),
        ("2024-05-18", {"after": "2024-05-17"}),
        ("2024-05-16T23:59:59", {"before": "2024-05-17"}),
        ("2024-05-17T23:59:59.999", {"within": "2024-05-17"}),
        ("2024-05-31T23:00-00:30", {"within": "2024-05"}),
        ("2024", {"within": "2024"}),
        ("1715941800", {"within": "2024-05-17"}),
        ("1715941800000", {"after": 1715941799, "before": 1715941801.5}),
        ("2024-05-31", {"within": ["2024-05-17", "2024-05-31"]}),
        ("2024-05-17", {"within": ["2024-05-17", None]}),
        ("1969-12-31", {"within": [None, 0]}),
        ("2024-05-17T12:30+02:00", {"within": ["2024-05-17T10:30Z", "2024-05-17T10:30Z"]}),
        ("2024-05-17T10:30Z", {"within": ["2024-05-17T10:30Z", "2024-05-17T10:30Z"]}),
        ("2024-05-17T10:25Z", {"within": "10 minutes"}),
        ("2024-05-10T10:31Z", {"within": "last 7 days"}),
        ("2024-05-10T10:31Z", {"within": "Last 1W"}),
        ("2024-05-17T10:32Z", {"within": "30s"}),  # written by a clock that is ahead
        ("2024-05-17", {"within": date(2024, 5, 17)}),
        ("2024-05-17T10:31Z", {"after": NOW}),
        ("2024-05-17T10:29Z", {"before": NOW.astimezone(timezone(timedelta(hours=-7)))}),
    ],
)
def test_times_read_as_they_are_said(stored: str, condition: dict[str, Any]) -> None:
    assert holds(stored, **condition)
    assert not found({"$not": has("x", **condition)}, {"x": stored})


@pytest.mark.parametrize(
    ("stored", "condition"),
    [
        ("2024-05-17T10:30:00Z", {"before": "2024-05-17T10:30:00Z"}),
        ("2024-05-17T10:30:00Z", {"after": "2024-05-17T10:30:00Z"}),
        ("2024-05-17T23:59", {"after": "2024-05-17"}),
        ("2024-05-17", {"before": "2024-05-17"}),
        ("2024-06-01", {"within": "2024-05"}),
        ("2024-05-10T10:29Z", {"within": "last 7 days"}),
        ("2024-05-17T10:36Z", {"within": "30s"}),
        ("not a time", {"within": [None, None]}),
        ("soon", {"after": "1970"}),
        ("", {"before": "9999"}),
    ],
)
def test_times_outside_and_what_is_no_time_are_not_found(
    stored: str, condition: dict[str, Any]
) -> None:
    assert not holds(stored, **condition)


DEEP: dict[str, Any] = has("x", eq=1)
for _ in range(MAX_DEPTH + 1):
    DEEP = {"$not": DEEP}

LOOP: dict[str, Any] = {}
LOOP["$and"] = [LOOP]


@pytest.mark.parametrize(
    ("filter", "message", "hint"),
    [
        (None, "filter is None, not a dict", '"field"'),
        ("x", "filter is a str, not a dict", '"field"'),
        ([], "filter is a list", '"field"'),
        ({}, "filter lacks the key 'field'", '"field"'),
        ({"field": "x"}, "filter lacks the key 'condition'", '"field"'),
        ({"condition": {"$eq": 1}}, "filter lacks the key 'field'", '"field"'),
        ({"price": {"$lt": 5}}, "filter has the key 'price'", '{"field": "price"'),
        ({"price": 5}, "filter has the key 'price'", '{"$eq": ...}'),
        ({"$nor": []}, "filter has the key '$nor'", "did you mean $or?"),
        ({1: 2}, "filter has the key 1", '"field"'),
        ({**has("x", eq=1), "limit": 3}, "filter has the key 'limit'", '"field"'),
        ({**has("x", eq=1), "$and": []}, "filter has 'field' and 'condition' and '$and'", "$and"),
        ({"$and": [has("x", eq=1)], "$or": []}, "filter has '$and' and '$or'", "of its own"),
        ({"$and": {}}, "filter.$and takes a list of filters, not a dict", None),
        ({"$or": []}, "filter.$or is empty", "leave the filter out"),
        ({"$not": [has("x", eq=1)]}, "filter.$not is a list, not a dict", '"field"'),
        ({"field": 3, "condition": {"$eq": 1}}, "filter.field is an int", None),
        ({"field": "x\ud800", "condition": {"$eq": 1}}, "filter.field holds half of a surr", None),
        ({"field": "x", "condition": 3}, "filter.condition is an int, not a dict", "$eq"),
        ({"field": "x", "condition": {}}, "filter.condition is empty", "$contains"),
        (has("x", regex="a"), "filter.condition has no operator '$regex'", "operators: $eq"),
        (has("x", gth=1), "filter.condition has no operator '$gth'", "did you mean $gt?"),
        ({"field": "x", "condition": {"eq": 1}}, "filter.condition has no operator 'eq'", "$eq?"),
        ({"field": "x", "condition": {None: 1}}, "filter.condition has no operator None", None),
        (has("x", eq=None), "filter.$eq takes a string or a number, not None", None),
        (has("x", gt=[1]), "filter.$gt takes a string or a number, not a list", None),
        (has("x", eq=float("nan")), "filter.$eq is nan; a number must be finite", None),
        (has("x", lt=float("-inf")), "filter.$lt is -inf; a number must be finite", None),
        (has("x", eq=10**5000), "filter.$eq has a number of too many digits", None),
        (has("x", eq="\udfff"), "filter.$eq holds half of a surrogate pair at char", None),
        (has("x", **{"in": "abc"}), "filter.$in takes a list of values, not a str", None),
        (has("x", **{"in": {"a": 1}}), "filter.$in takes a list of values, not a dict", None),
        (has("x", nin=["a", None]), "filter.$nin[1] takes a string or a number, not None", None),
        (has("x", **{"in": ["a"] * (MAX_VALUES + 1)}), "filter.$in makes it more than", None),
        (has("x", exists=1), "filter.$exists takes True or False, not an int", None),
        (has("x", contains=3), "filter.$contains takes a string, not an int", None),
        (has("x", contains="\ud800"), "filter.$contains holds half", None),
        (has("x", near=[1, 2, 3]), 'filter.$near takes one string "lat,lng,radius', None),
        (has("x", near="1,2"), "filter.$near takes one string", None),
        (has("x", near="1,2,3,4"), "filter.$near takes one string", None),
        (has("x", near="1,2,ten"), "filter.$near takes one string", None),
        (has("x", near="91,2,3"), "filter.$near names no place", None),
        (has("x", near="1,2,-3"), "filter.$near has a negative radius", None),
        (has("x", after="soon"), "filter.$after is no time: 'soon'", "2024-05-17"),
        (has("x", after=True), "filter.$after takes a time, not a bool", "2024-05-17"),
        (has("x", before=None), "filter.$before takes a time, not None", "2024-05-17"),
        (has("x", before=datetime(2024, 5, 17)), "filter.$before is a datetime wit", "astimezone"),  # noqa: DTZ001
        (has("x", within="7 fortnights"), "filter.$within is no time", "last 7 days"),
        (has("x", within=["2024"]), "filter.$within takes two times, from and to, not 1", None),
        (has("x", within=["2024", "2023"]), "filter.$within ends before it begins", None),
        (has("x", within=["2024", "then"]), "filter.$within[1] is no time", "2024-05-17"),
        (DEEP, f"filter{'.$not' * (MAX_DEPTH + 1)} is nested deeper than {MAX_DEPTH}", None),
        (LOOP, "filter.$and[0].$and[0]", None),
        (
            {"$or": [has("x", eq=1)] * (MAX_CONDITIONS + 1)},
            f"filter.$or[{MAX_CONDITIONS}] makes it more than {MAX_CONDITIONS} conditions",
            "$in",
        ),
        (
            {"$and": [has("x", eq=1), has("x", eq=1), has("x", lt=0, gte={})]},
            "filter.$and[2].$gte takes a string or a number, not a dict",
            None,
        ),
    ],
)
def test_a_wrong_filter_is_refused_with_the_path_to_what_is_wrong(
    filter: object, message: str, hint: str | None
) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        parse_filter(filter, now_ms=NOW_MS)
    assert str(caught.value).startswith(message)
    if hint is None:
        assert "..." not in (caught.value.hint or "")
    else:
        assert hint in (caught.value.hint or "")


def test_as_deep_and_as_wide_as_the_limits_is_allowed() -> None:
    assert isinstance(DEEP["$not"], dict)
    assert found(DEEP["$not"], {"x": "1"}) is (MAX_DEPTH % 2 == 0)
    assert found({"$or": [has("x", eq=n) for n in range(MAX_CONDITIONS)]}, {"x": "1023"})
    assert holds("7", **{"in": range_of_strings(MAX_VALUES)})


def range_of_strings(count: int) -> list[str]:
    return [str(n) for n in range(count)]


JSON_LIKE: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["field", "condition", "$and", "$or", "$not", *OPERATORS])
            | st.text(max_size=4),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)


@given(JSON_LIKE)
def test_whatever_comes_is_a_filter_or_is_refused(value: object) -> None:
    try:
        parsed = parse_filter(value, now_ms=NOW_MS)
    except InvalidArgumentError as error:
        said = str(error)
    else:
        said = f"filter {matches(parsed, {'x': '1'})}"
    assert said.startswith("filter")


@given(filters(), metadata)
def test_every_filter_that_is_one_decides_every_document(
    filter: dict[str, Any], metadata: dict[str, str] | None
) -> None:
    assert found(filter, metadata) is not found({"$not": filter}, metadata)
    assert found({"$and": [filter, filter]}, metadata) is found(filter, metadata)
    assert found({"$or": [filter, {"$not": filter}]}, metadata)
