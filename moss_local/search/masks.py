"""Filters over columns: which rows match, by looking at each distinct value once.

Rules of this file: values in, values out. Where a shortcut in floating point could err, at equal
floats and at the rim of a circle, the value itself is asked with `matching.passes`.
"""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from moss_local.search.filters import (
    AllOf,
    Among,
    AnyOf,
    Contains,
    During,
    Equal,
    Filter,
    Has,
    Near,
    Not,
    Ordered,
    Test,
)
from moss_local.search.matching import passes
from moss_local.search.readings import EARTH_RADIUS_M

Mask = NDArray[np.bool_]

NO_TIME = np.iinfo(np.int64).min
"""Stands in a column's times where the value is no time."""

RIM_M = 1.0
"""Metres from the radius within which a distance is computed again, exactly as `matching` does:
cosines, and haversines towards the other side of the earth, lose half of their digits, 0.2 m."""


class Readable(Protocol):
    """A column as this file needs it: codes by row into values, and what the values read as."""

    @property
    def codes(self) -> NDArray[np.int32]: ...
    @property
    def values(self) -> Sequence[str]: ...
    def code(self, value: str) -> int: ...
    def numbers(self) -> NDArray[np.float64]: ...
    def times(self) -> NDArray[np.int64]: ...
    def places(self) -> NDArray[np.float64]: ...
    def folded(self) -> Sequence[str]: ...
    def below(self, bound: str, *, inclusive: bool) -> Mask: ...
    def table(self, tests: tuple[Test, ...], make: Callable[[], Mask]) -> Mask: ...


def where(filter: Filter, live: Mask, column: Callable[[str], Readable]) -> Mask:
    """Return which rows match.

    Args:
        live: Which rows are documents at all.
        column: Gives the column of a field, of the length of `live` or longer.
    """
    match filter:
        case AllOf(parts):
            return _joined(np.logical_and, parts, live, column)
        case AnyOf(parts):
            return _joined(np.logical_or, parts, live, column)
        case Not(part):
            return live & ~where(part, live, column)
        case Has(field, tests):
            found = column(field)
            return _has(found, tests)[: live.size]


def _joined(
    join: np.ufunc, parts: Iterable[Filter], live: Mask, column: Callable[[str], Readable]
) -> Mask:
    first, *rest = parts
    result = where(first, live, column)
    for part in rest:
        join(result, where(part, live, column), out=result)
    return result


def _has(column: Readable, tests: tuple[Test, ...]) -> Mask:
    codes = column.codes
    if not tests:
        return codes >= 0
    table = column.table(tests, lambda: _table(column, tests))
    passing = np.flatnonzero(table)
    if passing.size == 0:
        return np.zeros(codes.shape, np.bool_)
    if passing.size == table.size:
        return codes >= 0
    result: Mask
    if passing.size == 1:
        result = codes == passing[0]
    elif passing.size == table.size - 1:
        result = (codes >= 0) & (codes != np.flatnonzero(~table)[0])
    else:
        # The code -1 reads the last place: a value that nobody has.
        result = np.append(table, False)[codes]
    return result


def _table(column: Readable, tests: tuple[Test, ...]) -> Mask:
    result = _passing(column, tests[0])
    for test in tests[1:]:
        result &= _passing(column, test)
    return result


def _passing(column: Readable, test: Test) -> Mask:
    """Return which values of the column pass."""
    match test:
        case Equal(value, wanted):
            return _named(column, (value,), wanted)
        case Among(values, wanted):
            return _named(column, values, wanted)
        case Ordered():
            return _ordered(column, test)
        case Near():
            return _near(column, test)
        case Contains(folded):
            texts = column.folded()
            found = map(operator.contains, texts, itertools.repeat(folded))
            return np.fromiter(found, np.bool_, len(texts))
        case During(start_us, end_us):
            times = column.times()
            result: Mask = times != NO_TIME
            if start_us is not None:
                result &= times >= start_us
            if end_us is not None:
                result &= times < end_us
            return result


def _named(column: Readable, values: Iterable[str], wanted: bool) -> Mask:
    result = np.full(len(column.values), not wanted, np.bool_)
    for value in values:
        code = column.code(value)
        if code >= 0:
            result[code] = wanted
    return result


def _ordered(column: Readable, test: Ordered) -> Mask:
    if test.number is None:
        return _by_code_point(column, test)
    numbers, bound = column.numbers(), float(test.number)
    result: Mask = numbers > bound if test.order in ("$gt", "$gte") else numbers < bound
    _ask(column, test, np.flatnonzero(numbers == bound), result)
    text = np.isnan(numbers)
    if text.any():
        result |= text & _by_code_point(column, test)
    return result


def _by_code_point(column: Readable, test: Ordered) -> Mask:
    match test.order:
        case "$lt":
            return column.below(test.bound, inclusive=False)
        case "$lte":
            return column.below(test.bound, inclusive=True)
        case "$gt":
            return ~column.below(test.bound, inclusive=True)
        case "$gte":
            return ~column.below(test.bound, inclusive=False)


def _near(column: Readable, test: Near) -> Mask:
    # The cosine of the angle at the centre of the earth falls with the distance.
    cosines = column.places() @ unit_place(test.place)
    inner = (test.radius_m - RIM_M) / EARTH_RADIUS_M
    outer = (test.radius_m + RIM_M) / EARTH_RADIUS_M
    result: Mask = cosines >= (math.cos(min(inner, math.pi)) if inner > 0 else math.inf)
    rim = cosines >= (math.cos(outer) if outer < math.pi else -math.inf)
    _ask(column, test, np.flatnonzero(rim & ~result), result)
    return result


def unit_place(place: tuple[float, float]) -> NDArray[np.float64]:
    """Return a place in degrees as a point on the sphere of radius 1."""
    lat, lng = map(math.radians, place)
    return np.array([math.cos(lat) * math.cos(lng), math.cos(lat) * math.sin(lng), math.sin(lat)])


def _ask(column: Readable, test: Test, codes: NDArray[np.intp], result: Mask) -> None:
    """Decide single values as they stand."""
    for code in codes:
        result[code] = passes(test, column.values[code])
