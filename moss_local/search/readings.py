"""What a metadata string reads as besides its characters: a decimal, a moment, a place.

Metadata values are strings, so every comparison that is not one of strings begins here. All
evaluators of filters read through these functions; that is why they agree to the last digit.

Rules of this file: values in, values out, and no string raises. What is not of a form gives None:
the document then does not match, as if the field were of another kind.
What holds: tests/moss_local/test_search_readings.py.
Source of the distance: the haversine formula, on a sphere of the mean radius of GRS 80.
"""

from __future__ import annotations

import math
import re
from calendar import monthrange
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_FLOOR, Context, Decimal

EARTH_RADIUS_M = 6_371_008.8
"""Metres. A sphere is up to 0.5 % off the ellipsoid; radii of search are rounder than that."""

MAX_DECIMAL_CHARS = 1024
"""Longer runs of digits are compared as strings: nobody counts with them, and each comparison of
two would take as long as they are."""

_DECIMAL = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)")

_ISO = re.compile(
    r"(?P<year>[0-9]{4})(?:-(?P<month>[0-9]{2})(?:-(?P<day>[0-9]{2})"
    r"(?:[Tt ](?P<hour>[0-9]{2}):(?P<minute>[0-9]{2})"
    r"(?::(?P<second>[0-9]{2})(?:[.,](?P<fraction>[0-9]{1,9}))?)?"
    r"(?P<zone>[Zz]|[+-][0-9]{2}(?::?[0-9]{2})?)?)?)?)?"
)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_DAY_US = 86_400_000_000

# Which unit a number of the clock is in: 1e11 seconds are in the year 5138, and 1e11 milliseconds
# were in 1973, so that each unit covers 1973 to 5138.
_EPOCH_UNITS = tuple((Decimal(10) ** power, 17 - power) for power in (11, 14, 17, 20))
_EXACT = Context(prec=2 * MAX_DECIMAL_CHARS, rounding=ROUND_FLOOR)


def decimal_of(text: str) -> Decimal | None:
    """Return the number that a plain decimal is: sign, digits, one point; no exponent, no space."""
    if len(text) > MAX_DECIMAL_CHARS or _DECIMAL.fullmatch(text) is None:
        return None
    return Decimal(text)


def moments_of(text: str) -> tuple[int, int] | None:
    """Return the first moment that a time covers and the first after it, in µs since 1970 UTC.

    `2024`, `2024-05` and `2024-05-17` cover a year, a month, a day; `2024-05-17T10:30`, with
    seconds and a fraction or without, one microsecond. Without an offset it is UTC. Any other plain
    decimal is a time since 1970 in seconds, milliseconds, microseconds or nanoseconds, whichever
    its size says.
    """
    iso = _ISO.fullmatch(text)
    if iso is not None:
        return _iso_moments(iso)
    number = decimal_of(text)
    return None if number is None else _epoch_moments(number)


def day_moments(day: date) -> tuple[int, int]:
    """Return the moments of a whole day in UTC, as in `moments_of`."""
    start = (day - _EPOCH.date()).days * _DAY_US
    return start, start + _DAY_US


def instant(moment: datetime) -> int:
    """Return µs since 1970 of a moment that knows its offset."""
    return (moment - _EPOCH) // _MICROSECOND


def place_of(text: str) -> tuple[float, float] | None:
    """Return latitude and longitude in degrees out of `lat,lng`, two plain decimals in range."""
    parts = [decimal_of(part.strip()) for part in text.split(",", 2)]
    if len(parts) != 2 or parts[0] is None or parts[1] is None:
        return None
    return checked_place(parts[0], parts[1])


def checked_place(latitude: Decimal, longitude: Decimal) -> tuple[float, float] | None:
    """Return the two as floats if there is such a place on earth."""
    if latitude.copy_abs() > 90 or longitude.copy_abs() > 180:
        return None
    return float(latitude), float(longitude)


def distance_m(a: tuple[float, float], b: tuple[float, float]) -> float:
    """Return the metres between two places, given as latitude and longitude in degrees."""
    lat_a, lng_a, lat_b, lng_b = map(math.radians, (*a, *b))
    chord = (
        math.sin((lat_b - lat_a) / 2) ** 2
        + math.cos(lat_a) * math.cos(lat_b) * math.sin((lng_b - lng_a) / 2) ** 2
    )
    return 2 * EARTH_RADIUS_M * math.asin(math.sqrt(min(chord, 1.0)))


def sort_key(value: str | None) -> tuple[int, Decimal, str]:
    """Return what orders values of a field: numbers by size, then text, then no value at all."""
    if value is None:
        return 2, _ZERO, ""
    number = decimal_of(value)
    return (1, _ZERO, value) if number is None else (0, number, "")


def _iso_moments(iso: re.Match[str]) -> tuple[int, int] | None:
    year, month, day = int(iso["year"]), int(iso["month"] or 1), int(iso["day"] or 1)
    if year < 1 or not 1 <= month <= 12 or not 1 <= day <= monthrange(year, month)[1]:
        return None
    start, end = day_moments(date(year, month, day))
    if iso["month"] is None:
        return start, start + (365 + (monthrange(year, 2)[1] == 29)) * _DAY_US
    if iso["day"] is None:
        return start, start + monthrange(year, month)[1] * _DAY_US
    if iso["hour"] is None:
        return start, end
    hour, minute, second = int(iso["hour"]), int(iso["minute"]), int(iso["second"] or 0)
    offset = _offset_minutes(iso["zone"])
    if hour > 23 or minute > 59 or second > 59 or offset is None:
        return None
    micros = int((iso["fraction"] or "0").ljust(6, "0")[:6])
    start += ((hour * 60 + minute - offset) * 60 + second) * 1_000_000 + micros
    return start, start + 1


def _offset_minutes(zone: str | None) -> int | None:
    if zone is None or zone in "Zz":
        return 0
    digits = zone[1:].replace(":", "").ljust(4, "0")
    hours, minutes = int(digits[:2]), int(digits[2:])
    if hours > 23 or minutes > 59:
        return None
    return (hours * 60 + minutes) * (-1 if zone[0] == "-" else 1)


def _epoch_moments(number: Decimal) -> tuple[int, int] | None:
    # Not abs(): arithmetic on decimals rounds to 28 digits, and only comparing is exact.
    size = number.copy_abs()
    for below, shift in _EPOCH_UNITS:
        if size < below:
            start = math.floor(_EXACT.scaleb(number, shift))
            return start, start + 1
    return None


_ZERO = Decimal(0)
