"""Filters on metadata: the grammar, checked, as a small typed tree.

A filter is `{"field": name, "condition": {operator: value, ...}}`, or `{"$and": [...]}`,
`{"$or": [...]}`, `{"$not": filter}`, nested. All operators of a condition must hold. A document
without the field matches no condition on it, `$ne` and `$nin` included; `$exists` alone can ask
for that. docs/filters.md says what each operator does.

Rules of this file: values in, values out. The wall clock, which `{"$within": "last 7 days"}`
needs, is an argument. Whatever is wrong is refused with the path to it, as in
`filter.$and[2].$gte`: a filter that is quietly not applied shows people what they must not see.

What holds (tests/moss_local/test_search_filters.py, tests/properties/test_filters.py): no value
raises anything but InvalidArgumentError; all evaluators of the tree agree.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Literal, TypeAlias

from moss_local.search.readings import (
    checked_place,
    day_moments,
    decimal_of,
    instant,
    moments_of,
)
from moss_sync import InvalidArgumentError

MAX_DEPTH = 16
"""Levels of $and, $or and $not. People write three; a program that writes more has a loop."""

MAX_CONDITIONS = 1024
"""Conditions in one filter, and operators in all of them: each costs a pass over the documents."""

MAX_VALUES = 65_536
"""Values of $in and $nin in one filter, together."""

CLOCK_SKEW_US = 5 * 60 * 1_000_000
"""`last 7 days` goes on for five minutes: the newest turn may come from a clock that is ahead."""

Order = Literal["$gt", "$gte", "$lt", "$lte"]


@dataclass(frozen=True, slots=True)
class Equal:
    """The value is, or is not, exactly this string."""

    value: str
    wanted: bool


@dataclass(frozen=True, slots=True)
class Among:
    """The value is, or is not, exactly one of these strings."""

    values: frozenset[str]
    wanted: bool


@dataclass(frozen=True, slots=True)
class Ordered:
    """The value stands in this order to the bound.

    As numbers where both are plain decimals (`number` is the bound's), else by code point.
    """

    order: Order
    bound: str
    number: Decimal | None


@dataclass(frozen=True, slots=True)
class Near:
    """The value is a place at most so many metres from this one."""

    place: tuple[float, float]
    radius_m: float


@dataclass(frozen=True, slots=True)
class Contains:
    """The value has this text in it; both case-folded, `folded` already."""

    folded: str


@dataclass(frozen=True, slots=True)
class During:
    """The value is a time whose first moment is in start ≤ t < end, µs since 1970; None: open."""

    start_us: int | None
    end_us: int | None


Test: TypeAlias = Equal | Among | Ordered | Near | Contains | During


@dataclass(frozen=True, slots=True)
class Has:
    """The document has the field, and its value passes every test."""

    field: str
    tests: tuple[Test, ...] = ()


@dataclass(frozen=True, slots=True)
class AllOf:
    """Every part matches."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """At least one part matches."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """The part does not match."""

    part: Filter


Filter: TypeAlias = Has | AllOf | AnyOf | Not

OPERATORS = (
    "$eq",
    "$ne",
    "$gt",
    "$gte",
    "$lt",
    "$lte",
    "$in",
    "$nin",
    "$near",
    "$exists",
    "$contains",
    "$after",
    "$before",
    "$within",
)
_JOINERS = ("$and", "$or", "$not")

_ONE = '{"field": "...", "condition": {"$eq": "..."}}'
_SPAN = re.compile(r"(?:last\s+)?(\d{1,6})\s*([a-z]+)", re.ASCII | re.IGNORECASE)
_UNITS_S = {
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), 1),
    **dict.fromkeys(("m", "min", "mins", "minute", "minutes"), 60),
    **dict.fromkeys(("h", "hour", "hours"), 3600),
    **dict.fromkeys(("d", "day", "days"), 86_400),
    **dict.fromkeys(("w", "week", "weeks"), 7 * 86_400),
}


def parse_filter(value: object, *, now_ms: int) -> Filter:
    """Return the tree of a filter as a caller writes it.

    Args:
        now_ms: The wall clock, which spans such as "last 7 days" end at.
    Raises:
        InvalidArgumentError: it is no filter; the message begins with the path to what is wrong.
    """
    return _Parser(now_ms).node(value, "filter", 0)


def plain(value: object, path: str) -> str:
    """Return a filter's value as the string that metadata holds for it.

    A string stays. A whole number prints without decimals, whether int or float; other numbers in
    full, never with an exponent; booleans as documents from JSON hold them, `true` and `false`.
    """
    if isinstance(value, str):
        return _sound(value, path)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        try:
            return str(value)
        except ValueError:  # Python's limit of 4 300 digits
            raise _refused(path, "has a number of too many digits") from None
    if isinstance(value, float):
        if not math.isfinite(value):
            raise _refused(path, f"is {value}; a number must be finite")
        return str(int(value)) if value.is_integer() else format(Decimal(repr(value)), "f")
    raise _refused(path, f"takes a string or a number, not {_kind(value)}")


class _Parser:
    """One filter being read: what has been counted so far, and when."""

    def __init__(self, now_ms: int) -> None:
        self._now_us = now_ms * 1000
        self._tests = 0
        self._values = 0
        self._readers: dict[str, Callable[[object, str], Test]] = {
            "$eq": lambda value, path: Equal(plain(value, path), True),
            "$ne": lambda value, path: Equal(plain(value, path), False),
            "$in": lambda value, path: Among(self._strings(value, path), True),
            "$nin": lambda value, path: Among(self._strings(value, path), False),
            "$gt": lambda value, path: _ordered("$gt", value, path),
            "$gte": lambda value, path: _ordered("$gte", value, path),
            "$lt": lambda value, path: _ordered("$lt", value, path),
            "$lte": lambda value, path: _ordered("$lte", value, path),
            "$near": _near,
            "$contains": _contains,
            "$after": lambda value, path: During(_moments(value, path)[1], None),
            "$before": lambda value, path: During(None, _moments(value, path)[0]),
            "$within": self._within,
        }

    def node(self, value: object, path: str, depth: int) -> Filter:
        if depth > MAX_DEPTH:
            raise _refused(path, f"is nested deeper than {MAX_DEPTH} levels")
        if not isinstance(value, Mapping):
            raise _refused(path, f"is {_kind(value)}, not a dict", hint=f"write {_ONE}")
        keys = list(value)
        joiners = [key for key in keys if key in _JOINERS]
        if len(joiners) == 1 and len(keys) == 1:
            key = joiners[0]
            below = f"{path}.{key}"
            if key == "$not":
                return Not(self.node(value[key], below, depth + 1))
            parts = self._parts(value[key], below, depth)
            return AllOf(parts) if key == "$and" else AnyOf(parts)
        if joiners:
            raise _refused(
                path,
                f"has {' and '.join(repr(key) for key in keys[:4])} in one dict",
                hint='put each into a dict of its own: {"$and": [{...}, {...}]}',
            )
        return self._condition(value, path)

    def _parts(self, value: object, path: str, depth: int) -> tuple[Filter, ...]:
        if not isinstance(value, list | tuple):
            raise _refused(path, f"takes a list of filters, not {_kind(value)}")
        if not value:
            raise _refused(path, "is empty", hint="leave the filter out to match every document")
        return tuple(
            self.node(part, f"{path}[{place}]", depth + 1) for place, part in enumerate(value)
        )

    def _condition(self, value: Mapping[Any, object], path: str) -> Filter:
        for key in value:
            if key not in ("field", "condition"):
                raise _refused(path, f"has the key {key!r:.60}", hint=_meant(key, value[key]))
        for key in ("field", "condition"):
            if key not in value:
                raise _refused(path, f"lacks the key {key!r}", hint=f"write {_ONE}")
        field, condition = value["field"], value["condition"]
        if not isinstance(field, str):
            raise _refused(f"{path}.field", f"is {_kind(field)}, not the name of a field")
        _sound(field, f"{path}.field")
        if not isinstance(condition, Mapping):
            raise _refused(
                f"{path}.condition",
                f"is {_kind(condition)}, not a dict",
                hint='write {"$eq": ...}',
            )
        if not condition:
            raise _refused(f"{path}.condition", "is empty", hint=f"operators: {_listed()}")
        tests: list[Test] = []
        exists = True
        for operator, operand in condition.items():
            below = f"{path}.{operator}"
            self._count(path)
            if operator == "$exists":
                if not isinstance(operand, bool):
                    raise _refused(below, f"takes True or False, not {_kind(operand)}")
                exists = operand
            elif operator in self._readers:
                tests.append(self._readers[operator](operand, below))
            else:
                raise _refused(
                    f"{path}.condition",
                    f"has no operator {operator!r:.60}",
                    hint=_nearest(operator) or f"operators: {_listed()}",
                )
        if exists:
            return Has(field, tuple(tests))
        missing = Not(Has(field))
        # Not there, and of some value: it cannot be both, and that is what was asked.
        return AllOf((missing, Has(field, tuple(tests)))) if tests else missing

    def _count(self, path: str) -> None:
        self._tests += 1
        if self._tests > MAX_CONDITIONS:
            raise _refused(
                path,
                f"makes it more than {MAX_CONDITIONS} conditions",
                hint="name many values of one field with $in",
            )

    def _strings(self, value: object, path: str) -> frozenset[str]:
        if isinstance(value, str) or not isinstance(value, list | tuple | Set):
            raise _refused(path, f"takes a list of values, not {_kind(value)}")
        self._values += len(value)
        if self._values > MAX_VALUES:
            raise _refused(path, f"makes it more than {MAX_VALUES} values")
        return frozenset(plain(item, f"{path}[{place}]") for place, item in enumerate(value))

    def _within(self, value: object, path: str) -> Test:
        if isinstance(value, str) and (span := _SPAN.fullmatch(value.strip())):
            seconds = _UNITS_S.get(span[2].lower())
            if seconds is not None:
                length = int(span[1]) * seconds * 1_000_000
                return During(self._now_us - length, self._now_us + CLOCK_SKEW_US)
        if not isinstance(value, list | tuple):
            return During(*_moments(value, path, hint=_SPANS))
        if len(value) != 2:
            raise _refused(path, f"takes two times, from and to, not {len(value)}")
        first, last = value
        start = None if first is None else _moments(first, f"{path}[0]")[0]
        end = None if last is None else _moments(last, f"{path}[1]")[1]
        if start is not None and end is not None and end <= start:
            raise _refused(path, "ends before it begins")
        return During(start, end)


def _ordered(order: Order, value: object, path: str) -> Ordered:
    bound = plain(value, path)
    return Ordered(order, bound, decimal_of(bound))


def _near(value: object, path: str) -> Near:
    shape = 'takes one string "lat,lng,radiusMeters"'
    if not isinstance(value, str):
        raise _refused(path, f"{shape}, not {_kind(value)}")
    parts = [decimal_of(part.strip()) for part in value.split(",", 3)]
    numbers = [part for part in parts if part is not None]
    if len(parts) != 3 or len(numbers) != 3:
        raise _refused(path, f"{shape}, not {value!r:.60}")
    place = checked_place(numbers[0], numbers[1])
    if place is None:
        raise _refused(path, "names no place: latitudes go to 90, longitudes to 180")
    if numbers[2] < 0:
        raise _refused(path, "has a negative radius")
    return Near(place, float(numbers[2]))


def _contains(value: object, path: str) -> Contains:
    if not isinstance(value, str):
        raise _refused(path, f"takes a string, not {_kind(value)}")
    return Contains(_sound(value, path).casefold())


_TIMES = "write 2024-05-17, 2024-05-17T10:30:00Z, or the seconds since 1970"
_SPANS = 'write "last 7 days", or [from, to], or one day such as 2024-05-17'


def _moments(value: object, path: str, *, hint: str = _TIMES) -> tuple[int, int]:
    if isinstance(value, datetime):
        if value.utcoffset() is None:
            raise _refused(
                path, "is a datetime without a time zone", hint="write value.astimezone()"
            )
        start = instant(value)
        return start, start + 1
    if isinstance(value, date):
        return day_moments(value)
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        text = plain(value, path)
        moments = moments_of(text.strip())
        if moments is not None:
            return moments
        raise _refused(path, f"is no time: {text!r:.60}", hint=hint)
    raise _refused(path, f"takes a time, not {_kind(value)}", hint=hint)


def _sound(text: str, path: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise _refused(
            path, f"holds half of a surrogate pair at character {error.start}"
        ) from error
    return text


def _meant(key: object, value: object) -> str:
    """Return what was probably meant by a key that is none."""
    if isinstance(key, str) and not key.startswith("$"):
        condition = "{...}" if isinstance(value, Mapping) else '{"$eq": ...}'
        return f'write {{"field": "{key:.60}", "condition": {condition}}}'
    return _nearest(key, _JOINERS) or f"write {_ONE}"


def _nearest(key: object, known: tuple[str, ...] = OPERATORS) -> str | None:
    close = difflib.get_close_matches(str(key)[:60], known, 1, cutoff=0.7)
    return f"did you mean {close[0]}?" if close else None


def _listed() -> str:
    return " ".join(OPERATORS)


def _kind(value: object) -> str:
    if value is None:
        return "None"
    name = type(value).__name__
    return f"an {name}" if name[0] in "aeiou" else f"a {name}"


def _refused(path: str, what: str, *, hint: str | None = None) -> InvalidArgumentError:
    return InvalidArgumentError(f"{path} {what}", hint=hint)
