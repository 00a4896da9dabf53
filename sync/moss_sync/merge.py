"""Last writer wins, as pure functions: which of two versions stays, and what is left of many.

Rules of this file: values in, values out.
What holds (tests/properties/test_merge.py): `newest` is commutative, associative and idempotent;
order and repetition of delivery never change the result.
Source: SYNC-PROTOCOL 2.6 and 2.8.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from moss_sync.record import Record


def wins(a: Record, b: Record) -> bool:
    """Return whether `a` replaces `b`, another version of the same document."""
    return a.version > b.version


def cut(record: Record, limit: int) -> Record:
    """Return the record with no stamp above `limit` (hlc)."""
    version = record.version
    if version.hlc <= limit:
        return record
    return replace(record, version=version._replace(hlc=limit))


def lowest_commit(a: int | None, b: int | None) -> int | None:
    """Return the earlier of two commits that carried one version; None is "not known to be in"."""
    if a is None or b is None:
        return b if a is None else a
    return min(a, b)


def newest(records: Iterable[Record]) -> dict[str, Record]:
    """Return the winner of each id. Equal versions are one record, known by its lowest commit."""
    result: dict[str, Record] = {}
    for record in records:
        known = result.get(record.id)
        if known is None or wins(record, known):
            result[record.id] = record
        elif record.version == known.version:
            seq = lowest_commit(known.commit_seq, record.commit_seq)
            # One that was read from before the session was moved to another model has none.
            vector = max(known.vector or b"", record.vector or b"") or None
            if (seq, vector) != (known.commit_seq, known.vector):
                result[record.id] = replace(known, commit_seq=seq, vector=vector)
    return result
