"""Whether one document matches a filter: the plain reading of the grammar, one value at a time.

This is what a filter means. The evaluators that are fast (over resident columns, and in SQL) are
held to it, and use it for the values on which a shortcut could err.

Rules of this file: values in, values out; nothing here raises.
"""

from __future__ import annotations

from collections.abc import Mapping

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
    Order,
    Ordered,
    Test,
)
from moss_local.search.readings import decimal_of, distance_m, moments_of, place_of


def matches(filter: Filter, metadata: Mapping[str, str] | None) -> bool:
    """Return whether a document with this metadata matches."""
    match filter:
        case AllOf(parts):
            return all(matches(part, metadata) for part in parts)
        case AnyOf(parts):
            return any(matches(part, metadata) for part in parts)
        case Not(part):
            return not matches(part, metadata)
        case Has(field, tests):
            value = None if metadata is None else metadata.get(field)
            return value is not None and all(passes(test, value) for test in tests)


def passes(test: Test, value: str) -> bool:
    """Return whether one value passes."""
    match test:
        case Equal(wanted_value, wanted):
            return (value == wanted_value) is wanted
        case Among(values, wanted):
            return (value in values) is wanted
        case Ordered(order, bound, number):
            own = None if number is None else decimal_of(value)
            if own is None or number is None:
                return _compare(order, (value > bound) - (value < bound))
            return _compare(order, (own > number) - (own < number))
        case Near(place, radius_m):
            own_place = place_of(value)
            return own_place is not None and distance_m(own_place, place) <= radius_m
        case Contains(folded):
            return folded in value.casefold()
        case During(start_us, end_us):
            moments = moments_of(value)
            return (
                moments is not None
                and (start_us is None or start_us <= moments[0])
                and (end_us is None or moments[0] < end_us)
            )


def _compare(order: Order, sign: int) -> bool:
    match order:
        case "$gt":
            return sign > 0
        case "$gte":
            return sign >= 0
        case "$lt":
            return sign < 0
        case "$lte":
            return sign <= 0
