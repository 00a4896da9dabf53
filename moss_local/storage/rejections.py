"""What has arrived and does not count: told once, remembered up to a bound, shown by status.

Rules of this file: plain functions over a connection; the caller opens the transaction. Losing any
of it loses no document: a record that is read again is only told again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

import apsw

from moss_sync.limits import Rejected, document
from moss_sync.replica import KEPT_REJECTED


def note_rejected(conn: apsw.Connection, found: Sequence[Rejected]) -> list[Rejected]:
    """Remember records that do not count; return those that were not known."""
    news = [
        each
        for each in {each.mark: each for each in found}.values()
        if conn.execute("SELECT 1 FROM rejected WHERE mark = ?", (each.mark,)).get is None
    ]
    room = KEPT_REJECTED - count_rejected(conn)
    conn.executemany(
        "INSERT INTO rejected (mark, what, reason) VALUES (?, ?, ?)",
        [(each.mark, each.what, each.reason) for each in news[: max(0, room)]],
    )
    return news


def forget_rejected(conn: apsw.Connection, ids: Iterable[str]) -> None:
    """Forget what was told of documents of which a version has arrived that counts."""
    if count_rejected(conn):
        conn.executemany("DELETE FROM rejected WHERE what = ?", ((document(id),) for id in ids))


def count_rejected(conn: apsw.Connection) -> int:
    """Return how many are remembered; KEPT_REJECTED may be more."""
    return cast(int, conn.execute("SELECT count(*) FROM rejected").get)


def read_rejected(conn: apsw.Connection) -> list[Rejected]:
    """Return those that are remembered, in the order in which they were read."""
    rows: Any = conn.execute("SELECT what, reason, mark FROM rejected ORDER BY number")
    return [Rejected(*row) for row in rows]
