"""Whether a session's file is whole: SQLite's own checks, and that its four places agree.

The caller opens a write transaction: FTS5's check is spelled as an INSERT and writes nothing.
What holds: tests/moss_local/test_storage_checkup.py.
"""

from __future__ import annotations

from typing import cast

import apsw

from moss_local.storage import digests
from moss_local.storage.encoding import narrowed
from moss_local.storage.state import read_state

MAX_FINDINGS = 5
"""Lines of SQLite's own report that are passed on; a broken page can give thousands."""


def check_file(conn: apsw.Connection) -> list[str]:
    """Return what is wrong with the file, in words; an empty list if nothing is.

    Raises:
        apsw.CorruptError: it is too damaged to be read to the end.
    """
    found = [
        f"SQLite: {row[0]}"
        for row in conn.execute(f"PRAGMA integrity_check({MAX_FINDINGS})")
        if row[0] != "ok"
    ]
    found += [f"SQLite: {row}" for row in conn.execute("PRAGMA foreign_key_check").fetchall()]
    try:
        conn.execute("INSERT INTO keyword (keyword) VALUES ('integrity-check')")
    except apsw.CorruptError:
        found.append("the keyword index is damaged")
    found += disagreements(conn)
    if found:
        return found  # where to look for the rest is not sure
    if altered := sum(1 for _ in digests.altered(conn, read_state(conn))):
        found.append(f"not what was written: {_plural(altered, 'document')}")
    return found


def disagreements(conn: apsw.Connection) -> list[str]:
    """Return where the file's own tables do not agree; reads only."""
    found = []
    state = read_state(conn)
    live = _count(conn, "SELECT count(*) FROM document WHERE deleted = 0")
    if live != state.live:
        found.append(f"{_plural(live, 'document')}, and the file counts {state.live}")
    found += _differences(
        conn,
        "SELECT rowid FROM document WHERE deleted = 0",
        "SELECT id FROM keyword_docsize",
        "the keyword index",
    )
    vectors = "SELECT rowid FROM vec" if state.space is not None else "SELECT 0 WHERE 0"
    found += _differences(
        conn, "SELECT rowid FROM document WHERE vector = 1", vectors, "the vector table"
    )
    stray = _count(conn, "SELECT count(*) FROM document WHERE dirty = 0 AND commit_seq IS NULL")
    if stray:
        found.append(f"neither pushed nor to be pushed: {_plural(stray, 'change')}")
    if state.space is not None:
        rows = conn.execute("SELECT embedding FROM vec")
        broken = sum(narrowed(state.space, row) is None for (row,) in rows)
        if broken:
            found.append(f"not finite in the vector table: {_plural(broken, 'vector')}")
    return found


def _differences(conn: apsw.Connection, documents: str, index: str, what: str) -> list[str]:
    found = []
    lacking = _count(conn, f"SELECT count(*) FROM ({documents} EXCEPT {index})")
    if lacking:
        found.append(f"{what} lacks {_plural(lacking, 'document')}")
    left = _count(conn, f"SELECT count(*) FROM ({index} EXCEPT {documents})")
    if left:
        found.append(f"{what} holds {_plural(left, 'row')} of no document")
    return found


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _count(conn: apsw.Connection, query: str) -> int:
    return cast(int, conn.execute(query).get)
