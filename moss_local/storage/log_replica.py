"""A session's file as the exchange by log sees it: `moss_sync`'s LogReplica over `SessionFile`.

Each verb is one transaction; what each promises stands in `moss_sync.log_replica`. A record came
with the push (`dev`, `commit_seq`) of its row.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import apsw

from moss_local.storage.aside import remove_rows
from moss_local.storage.replica import SqliteReplica
from moss_local.storage.rows import CLEAN, HELD
from moss_local.storage.state import read_state, update_state
from moss_sync.coverage import Floor, below
from moss_sync.hlc import observe, tick

STAMPED_ANEW = 1 << 20
"""Stamps above the limit that are left alone: those that were given when it stood where it does,
16 ms at the most."""


class SqliteLogReplica(SqliteReplica):
    """One session's file, as a replica of a log. Blocking; safe from any thread."""

    def recall(self) -> bytes | None:
        """Return what `remember` kept, or None."""
        with self.file.reading() as conn:
            return _recalled(conn)

    def remember(self, change: Callable[[bytes | None], bytes]) -> None:
        """Replace what is kept by `change` of it."""
        with self.file.writing() as conn:
            conn.execute(
                "INSERT INTO log_view (one, plain) VALUES (1, ?)"
                " ON CONFLICT (one) DO UPDATE SET plain = excluded.plain",
                (change(_recalled(conn)),),
            )
            # What merging has put there names no commit: a log has none, and no checkpoints.
            conn.execute("DELETE FROM seen")

    def known(self, ids: Collection[str]) -> set[str]:
        """Return those of the ids of which there is a record here."""
        with self.file.reading() as conn:
            rows: Any = conn.executemany(
                "SELECT id FROM document WHERE id = ?", ((id,) for id in ids)
            )
            return {id for (id,) in rows}

    def forget(
        self, whole: Floor, keep: Collection[str], *, tomb_limit: int, now_ms: int
    ) -> tuple[int, int]:
        """Take over that of all pushes up to `whole` only records of ids in `keep` are left."""
        with self.file.writing() as conn:
            state = read_state(conn)
            rows: Any = conn.execute(
                "SELECT rowid, id, deleted, dirty, dev, commit_seq, hlc FROM document ORDER BY hlc"
            )
            absent = [row for row in rows if row[1] not in keep]
            late = [row[0] for row in absent if row[3] and row[6] <= tomb_limit]
            # Above what it replaces by itself; above `tomb_limit` so that no deletion that was
            # forgotten, and may still lie on a device that has not heard so, wins.
            hlc = observe(state.hlc, tomb_limit) if late else state.hlc
            for rowid in late:
                hlc = tick(hlc, now_ms)
                conn.execute("UPDATE document SET hlc = ? WHERE rowid = ?", (hlc, rowid))
            update_state(conn, hlc=hlc)
            gone = [
                row
                for row in absent
                if not row[3] and row[5] is not None and below(row[4], row[5], whole)
            ]
            remove_rows(conn, [row[0] for row in gone])
        return sum(not row[2] for row in gone), len(late)

    def offer(self) -> None:
        """Let all that is held here go with the next push once more; no version changes by that."""
        with self.file.writing() as conn:
            conn.execute(f"UPDATE document SET dirty = {HELD} WHERE dirty = {CLEAN}")

    def discipline(self, limit: int, high: int) -> int:
        """Stamp dirty versions above `limit` anew; take over dirty records of another identity."""
        lowest = max(limit, high)
        with self.file.reading() as conn:
            if _disciplined(conn, lowest):
                return 0
        with self.file.writing() as conn:
            state = read_state(conn)
            update_state(conn, hlc=min(state.hlc, lowest))
            if conn.execute("SELECT 1 FROM pending").get is not None:
                return 0  # what is in it must not fall below what others are about to see
            conn.execute("UPDATE document SET dev = ?1 WHERE dirty > 0 AND dev != ?1", (state.dev,))
            rows: list[Any] = conn.execute(
                "SELECT rowid FROM document WHERE dirty > 0 AND hlc > ? ORDER BY hlc", (lowest,)
            ).fetchall()
            conn.executemany(
                "UPDATE document SET hlc = min(hlc, ?) WHERE rowid = ?",
                ((lowest + place, rowid) for place, (rowid,) in enumerate(rows, 1)),
            )
            update_state(conn, hlc=min(state.hlc, lowest + len(rows)))
        return len(rows)

    def become(self, dev: bytes, inc: bytes, *, was: bytes, since: int) -> None:
        """Go on as another device: this file turned out to be a copy of one that is in use."""
        with self.file.writing() as conn:
            if read_state(conn).dev != was:
                return
            conn.execute("DELETE FROM pending")
            conn.execute(
                "UPDATE document SET dev = ?1, dirty = 1, commit_seq = NULL"
                " WHERE dirty > 0 OR (dev = ?2 AND commit_seq >= ?3)",
                (dev, was, since),
            )
            update_state(conn, dev=dev, inc=inc, n=0, acked_n=0, acked_seq=0)


def _recalled(conn: apsw.Connection) -> bytes | None:
    row: Any = conn.execute("SELECT plain FROM log_view").fetchone()
    return None if row is None else row[0]


def _disciplined(conn: apsw.Connection, lowest: int) -> bool:
    """Return whether there is nothing to set right: the common case, and no write."""
    state = read_state(conn)
    wrong: Any = conn.execute(
        "SELECT 1 FROM document WHERE dirty > 0 AND (hlc > ?2 OR dev != ?1) LIMIT 1",
        (state.dev, lowest + STAMPED_ANEW),
    ).get
    return wrong is None and state.hlc <= lowest + STAMPED_ANEW
