"""Repairs in which a session's time may fall, and what becomes of the stamps of before.

Rules of this file: values in, values out.
A commit from the future drives all later stamps into the future with it. A repair that finds the
session there lets its time fall, and every stamp of before falls with it, alike on every device: to
the time of the repair, and there in the order of the commits that carried them. So what was written
after something had been seen still comes after it; among versions that nobody had seen of each
other, the later commit wins. Every repair says its time, because it may not know of the commits
that have carried a device's stamps past it; in a session whose times are right it changes none.
What holds: tests/moss_sync/test_hostile_clocks.py. Source: docs/design/0016-time.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from moss_sync.hlc import stamp_limit
from moss_sync.merge import cut
from moss_sync.record import Record

MAX_SETBACKS = 32
"""That a manifest remembers. A blob that was never rewritten through more of them is read with the
stamps of the one before those."""


class Setback(NamedTuple):
    """A repair, and how late it says that all is that was committed before.

    Attributes:
        repairs: How often the session had been repaired with it.
        seq: Its commit; commit_ms: the time of that.
    """

    repairs: int
    seq: int
    commit_ms: int


def lowered(stamp: int, committed: int, setbacks: Iterable[Setback]) -> int:
    """Return what a stamp has become by these repairs; doing it again changes nothing.

    Args:
        committed: The commit that carried it. Later ones than a repair are not touched by it.
    """
    for each in setbacks:
        if committed <= each.seq:
            highest = stamp_limit(each.commit_ms) - each.seq + committed
            stamp = min(stamp, max(0, highest))
    return stamp


def with_lowered(records: Sequence[Record], setbacks: Sequence[Setback]) -> list[Record]:
    """Return committed records with the stamps that they have since these repairs."""
    if not setbacks:
        return list(records)
    return [
        record
        if record.commit_seq is None
        else cut(record, lowered(record.version.hlc, record.commit_seq, setbacks))
        for record in records
    ]


def remembered(setbacks: Iterable[Setback]) -> tuple[Setback, ...]:
    """Return these, each once and in order: the last MAX_SETBACKS."""
    return tuple(sorted(set(setbacks))[-MAX_SETBACKS:])


def since(setbacks: Iterable[Setback], repairs: int) -> tuple[Setback, ...]:
    """Return those that a file has yet to go through that has gone through so many repairs."""
    return tuple(each for each in setbacks if each.repairs > repairs)
