"""Hybrid logical clocks: one total order for writes made on machines whose clocks disagree.

A stamp is an integer: 48 bits of milliseconds since 1970 above 16 bits of counter. The counter
carries into the milliseconds, so it cannot overflow.

Rules of this file: values in, values out. Wall time is an argument, never read here.
What holds (tests/properties/test_hlc.py): `tick` returns a stamp greater than the last one and
than every one the writer has seen, whatever the wall clock says; `encode` keeps that order.
Source: Kulkarni et al. 2014, "Logical Physical Clocks"; SYNC-PROTOCOL 2.8.
"""

from __future__ import annotations

from moss_sync.errors import ClockError
from moss_sync.times import MAX_DRIFT_MS, MAX_TIME_MS

COUNTER_BITS = 16
STAMP_BYTES = 8

MAX_STAMP = 2**63 - 1
"""SQLite's and most languages' integers end here, in the year 6429."""

LAST_STAMP = 2**62
"""The highest stamp that a write gets, of the year 4199. Wall clocks count until the year 3000 only
(`MAX_TIME_MS`), so 2^60 stamps, and more, are left for the writes that come after."""

LAST_OBSERVED = 2**61
"""The highest stamp of another device that moves a clock, of the year 3084: no commit and no push
can have a time as late. Where stamps are not cut, as in a log, one write at the end of all stamps
would leave nobody a stamp for the next document."""


def from_ms(wall_ms: int, counter: int = 0) -> int:
    """Return the stamp of a moment; one before 1970 or past `MAX_STAMP` is cut to the range."""
    return min(max(wall_ms, 0) << COUNTER_BITS | counter, MAX_STAMP)


def to_ms(stamp: int) -> int:
    """Return the milliseconds since 1970 that a stamp says."""
    return stamp >> COUNTER_BITS


def stamp_limit(commit_ms: int) -> int:
    """Return the highest stamp that a record committed at `commit_ms` keeps."""
    return from_ms(commit_ms + MAX_DRIFT_MS)


def tick(last: int, wall_ms: int, seen: int = 0) -> int:
    """Return the stamp of a local write.

    Args:
        last: The highest stamp that this clock has issued or observed.
        wall_ms: What the wall clock says, corrected where a correction is known; past the year 3000
            it counts as that.
        seen: The stamp of the version that the write replaces; 0 when there is none.
    Raises:
        ClockError: the version to replace stands at the end of all stamps, where only a broken
            program can have put it.
    """
    stamp = max(last + 1, from_ms(min(wall_ms, MAX_TIME_MS)), seen + 1)
    if stamp > LAST_STAMP:
        raise ClockError(
            "no later version of this document can be written: its stamp is the last that there is",
            hint="write it under another id",
        )
    return stamp


def observe(last: int, seen: int) -> int:
    """Return the clock after it has met a stamp; one past LAST_OBSERVED does not move it.

    A version with such a stamp still wins, and an edit of it is stamped above it: `tick` is told.
    """
    return last if seen > LAST_OBSERVED else max(last, seen)


def encode(stamp: int) -> bytes:
    """Return 8 bytes that sort as the stamps do."""
    return stamp.to_bytes(STAMP_BYTES, "big")


def decode(data: bytes) -> int:
    """Return the stamp that `encode` wrote."""
    return int.from_bytes(data, "big")
