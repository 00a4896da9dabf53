"""The limits of time: how far a clock, a commit or a store's answer may be ahead of the others.

Rules of this file: values in, values out. Times are milliseconds since 1970.
What holds: tests/moss_sync/test_hostile_clocks.py. Source: docs/design/0016-time.md.
"""

from __future__ import annotations

from datetime import date, timedelta

from moss_sync.errors import BlobCorruptError

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS

MAX_DRIFT_MS = MINUTE_MS
"""How far a stamp may be past the time of its commit. Clocks that are kept by NTP are right within
a second; a minute forgives one that is set by hand."""

ANSWER_AHEAD_MS = DAY_MS
"""How far a store's answer may set a device's clock forward. Nobody signs an answer. A day covers a
clock that was set in the wrong time zone or with day and month of the next, and what a wrong answer
can add to a session's time then passes by within a day."""

MAX_TIME_MS = 32_503_680_000_000
"""The first millisecond of the year 3000: the last time that a first commit may have. As a stamp it
is below 2^61, so that three quarters of all stamps are left above it, and no clock gets to its
end."""

EARLIEST_MS = 1_577_836_800_000
"""The first millisecond of the year 2020. A clock that stands before it was never set: machines
without a battery start in 1970."""


def latest(number: int) -> int:
    """Return the last time that commit `number` may have (in a log: push `number` of a device).

    It rises with every commit, so one more than the time before can always be committed.
    """
    return MAX_TIME_MS + number


def bounded(wall_ms: int) -> int:
    """Return what a wall clock says, or the nearest that can be stored: 0 to MAX_TIME_MS."""
    return min(max(0, wall_ms), MAX_TIME_MS)


def check_time(time_ms: int, number: int, *, what: str) -> None:
    """Refuse a time that nothing of this number can have.

    Raises:
        BlobCorruptError: it is past `latest(number)`.
    """
    if time_ms > latest(number):
        raise BlobCorruptError(f"{what} has a time past the year 3000, the last that can be stored")


def is_ahead(commit_ms: int, now_ms: int) -> bool:
    """Return whether a commit's time cannot be right, as somebody sees it who believes `now_ms`."""
    return now_ms >= EARLIEST_MS and commit_ms > now_ms + ANSWER_AHEAD_MS


def shown(time_ms: int) -> str:
    """Return a time as people write it, whatever it is."""
    days, rest_ms = divmod(time_ms, DAY_MS)
    try:
        day = date(1970, 1, 1) + timedelta(days=days)
    except OverflowError:
        return f"{time_ms} ms after 1970"
    return f"{day} {rest_ms // HOUR_MS:02}:{rest_ms // MINUTE_MS % 60:02} UTC"
