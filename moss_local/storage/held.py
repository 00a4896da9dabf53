"""Records that are held: not changed here, but offered again since the session was repaired.

What others hold of a session that was put together anew is not known, so each file offers all that
it has. A held record is pushed like an edit, and unlike an edit it never overrules a deletion: one
that is not in the session and may have been deleted goes to the quarantine.

The caller opens the transaction.
What holds: tests/moss_local/test_storage_replica.py, tests/moss_sync/test_repair.py.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence, Set
from typing import Any

import apsw

from moss_local.storage.aside import remove_rows, set_aside
from moss_local.storage.documents import metadata_json, read_metadata
from moss_local.storage.rows import CLEAN, EDITED, HELD, read_vectors
from moss_local.storage.state import State
from moss_sync import Record, Version
from moss_sync.replica import MAY_BE_DELETED
from moss_sync.setbacks import Setback, lowered


def hold_all(conn: apsw.Connection) -> None:
    """Offer everything again; edits stay edits."""
    conn.execute(f"UPDATE document SET dirty = {HELD} WHERE dirty = {CLEAN}")
    conn.execute("UPDATE document SET commit_seq = NULL")


def lower_stamps(conn: apsw.Connection, setbacks: Sequence[Setback], known_seq: int) -> None:
    """Let the stamps of all that is no edit fall, as a repair has let the session's time fall.

    Args:
        known_seq: The commit up to which all was applied here: a record of which it is not known
            which commit carried it was carried by that one at the latest.
    """
    if not setbacks:
        return
    first = setbacks[0].seq
    rows: list[Any] = conn.execute(
        f"SELECT rowid, hlc, ifnull(commit_seq, ?) FROM document WHERE dirty != {EDITED}",
        (known_seq,),
    ).fetchall()
    conn.executemany(
        "UPDATE document SET hlc = ? WHERE rowid = ?",
        (
            (fallen, rowid)
            for rowid, hlc, committed in rows
            if (fallen := lowered(hlc, min(committed, first), setbacks)) != hlc
        ),
    )


def set_aside_held(conn: apsw.Connection, present: Collection[str], tomb_hlc: int) -> int:
    """Set aside held documents that may have been deleted by a tombstone that is forgotten.

    Args:
        present: Ids that the session still knows; nothing that is forgotten has beaten those.
        tomb_hlc: The highest stamp of what is forgotten.
    """
    rows: Any = conn.execute(
        f"SELECT rowid, id FROM document WHERE dirty = {HELD} AND deleted = 0 AND hlc <= ?",
        (tomb_hlc,),
    )
    doubtful = [rowid for rowid, id in rows if id not in present]
    return set_aside(conn, doubtful, reason=MAY_BE_DELETED)


def leave_all_but_edits(conn: apsw.Connection, present: Set[tuple[str, bytes]]) -> int:
    """Take every record but edits out of a session; return how many were set aside.

    Args:
        present: Id and digest of what the session has: that comes back with the next pull.
    """
    rows: list[Any] = conn.execute(
        f"SELECT rowid, id, digest, deleted FROM document WHERE dirty != {EDITED}"
    ).fetchall()
    strange = [
        rowid for rowid, id, digest, deleted in rows if not deleted and (id, digest) not in present
    ]
    moved = set_aside(conn, strange, reason=MAY_BE_DELETED)
    gone = set(strange)
    remove_rows(conn, [rowid for rowid, *_ in rows if rowid not in gone])
    return moved


def leave_deleted(conn: apsw.Connection, *, joint: int) -> int:
    """Take every record out of a session that was deleted; return how many were set aside.

    What was committed up to `joint` was in it when it was deleted, and is gone.
    """
    edits: list[Any] = conn.execute(f"SELECT rowid FROM document WHERE dirty > {CLEAN}").fetchall()
    moved = set_aside(conn, [rowid for (rowid,) in edits], reason="deleted")
    later: list[Any] = conn.execute(
        "SELECT rowid FROM document WHERE deleted = 0 AND commit_seq > ?", (joint,)
    ).fetchall()
    moved += set_aside(conn, [rowid for (rowid,) in later], reason=MAY_BE_DELETED)
    rest: list[Any] = conn.execute("SELECT rowid FROM document").fetchall()
    remove_rows(conn, [rowid for (rowid,) in rest])
    return moved


def read_records(conn: apsw.Connection, state: State) -> list[Record]:
    """Return every record that is no unpushed edit."""
    rows: list[Any] = conn.execute(
        "SELECT rowid, vector, id, hlc, dev, digest, deleted, text, metadata, payload, commit_seq"
        f" FROM document WHERE dirty != {EDITED} ORDER BY rowid"
    ).fetchall()
    with_vector = [row[0] for row in rows if row[1]]
    vectors = {} if state.space is None else read_vectors(conn, with_vector, state.space)
    return [
        Record(
            id,
            Version(hlc, dev, digest),
            deleted=bool(deleted),
            text=text,
            metadata=read_metadata(metadata),
            payload=payload,
            vector=vectors.get(rowid),
            commit_seq=commit_seq,
        )
        for rowid, _, id, hlc, dev, digest, deleted, text, metadata, payload, commit_seq in rows
    ]


def set_aside_records(conn: apsw.Connection, records: Sequence[Record]) -> int:
    """Put records of others into the quarantine; see `moss_sync.Replica.set_aside`."""
    before = conn.total_changes()
    conn.executemany(
        "INSERT INTO quarantine (reason, id, hlc, dev, digest, deleted, text, metadata, payload,"
        " vector) SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10"
        " WHERE NOT EXISTS (SELECT 1 FROM quarantine WHERE id = ?2 AND digest = ?5)"
        " AND NOT EXISTS (SELECT 1 FROM document"
        " WHERE id = ?2 AND (hlc, dev, digest) = (?3, ?4, ?5))",
        (
            (
                MAY_BE_DELETED,
                record.id,
                *record.version,
                record.deleted,
                record.text,
                metadata_json(record.metadata),
                record.payload,
                record.vector,
            )
            for record in records
        ),
    )
    return conn.total_changes() - before
