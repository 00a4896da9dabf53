"""Whether a session's file is whole: what SQLite says, and that its four tables agree."""

from __future__ import annotations

from pathlib import Path

import apsw
import sqlite_vec

from moss_local.storage.file import open_session_file
from moss_local.storage.paths import session_path
from moss_local.storage.replica import SqliteReplica
from moss_sync import manifest
from moss_sync.replica import ReplicaState
from tests.processes.jobs import Where


def path_of(where: Where, session: str) -> Path:
    return session_path(Path(where["data_dir"]), where["project_id"], session)


def audit(path: Path) -> dict[str, str]:
    """Return the text of each document; the file is read as SQLite sees it, not by the library."""
    conn = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        conn.enable_load_extension(True)
        conn.load_extension(sqlite_vec.loadable_path())
        assert conn.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert conn.execute("PRAGMA foreign_key_check").fetchall() == []
        if not conn.execute("SELECT 1 FROM sqlite_schema WHERE name = 'state'").fetchall():
            return {}  # its creator died before the first transaction, which makes all tables
        conn.execute("BEGIN")
        live, with_vector = "SELECT rowid FROM document WHERE deleted = 0", "vector = 1"
        rows = set(conn.execute(live))
        assert set(conn.execute("SELECT rowid FROM keyword")) == rows
        if conn.execute("SELECT model_dim FROM state").get is not None:
            vectors = set(conn.execute("SELECT rowid FROM vec"))
            assert vectors == set(conn.execute(f"SELECT rowid FROM document WHERE {with_vector}"))
            assert vectors == rows
        else:
            assert rows == set()
        ((counted, changes),) = conn.execute("SELECT live, local_seq FROM state")
        assert counted == len(rows)
        assert changes >= (conn.execute("SELECT max(changed) FROM document").get or 0)
        texts = dict(conn.execute("SELECT id, text FROM document WHERE deleted = 0"))
        conn.execute("ROLLBACK")
        # FTS5's own check of its index; it is written as an insert and changes nothing.
        conn.execute("INSERT INTO keyword (keyword) VALUES ('integrity-check')")
        return texts
    finally:
        conn.close()


def replica_state(where: Where, session: str) -> ReplicaState:
    file = open_session_file(path_of(where, session), session=session, create=False)
    try:
        return SqliteReplica(file).state()
    finally:
        file.close()


def assert_settled(state: ReplicaState) -> None:
    """Assert that nothing is left to push, and that the manifest, where there is one, says so."""
    assert (state.dirty, state.pending, state.acked_n) == (0, None, state.n)
    if state.seen is None:
        return  # a log
    known = manifest.decode(state.seen.plain, what="the manifest").device(state.dev)
    assert (0 if known is None else known.n) == state.n
