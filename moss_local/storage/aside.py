"""Taking documents out of a session's tables: for good, or into the quarantine.

The caller opens the transaction. Unlike a deletion this leaves no tombstone: nobody else is told,
because it is this copy that was mistaken about what the session holds.
"""

from __future__ import annotations

from collections.abc import Sequence

import apsw

from moss_local.storage.rows import read_vectors
from moss_local.storage.state import read_state, update_state


def remove_rows(conn: apsw.Connection, rowids: Sequence[int]) -> None:
    """Remove documents and tombstones with all that belongs to them.

    Raises `journal_floor` past every reader: a removal leaves nothing that they could follow.
    """
    if not rowids:
        return
    rows = [(rowid,) for rowid in rowids]
    state = read_state(conn)
    gone = 0
    for rowid in rowids:
        deleted, vector = conn.execute(
            "SELECT deleted, vector FROM document WHERE rowid = ?", (rowid,)
        ).get
        gone += not deleted
        if vector:
            conn.execute("DELETE FROM vec WHERE rowid = ?", (rowid,))
    conn.executemany("DELETE FROM keyword WHERE rowid = ?", rows)
    conn.executemany("DELETE FROM document WHERE rowid = ?", rows)
    changed = state.local_seq + 1
    update_state(conn, live=state.live - gone, local_seq=changed, journal_floor=changed)


def set_aside(conn: apsw.Connection, rowids: Sequence[int], *, reason: str) -> int:
    """Move documents and tombstones to the quarantine; return how many."""
    space = read_state(conn).space
    vectors = {} if space is None else read_vectors(conn, rowids, space)
    conn.executemany(
        "INSERT INTO quarantine (reason, id, hlc, dev, digest, deleted, text, metadata, payload,"
        " vector) SELECT ?2, id, hlc, dev, digest, deleted, text, metadata, payload, ?3"
        " FROM document WHERE rowid = ?1",
        ((rowid, reason, vectors.get(rowid)) for rowid in rowids),
    )
    remove_rows(conn, rowids)
    return len(rowids)
