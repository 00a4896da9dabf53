"""Plugs the session file into the simulator: the real SQLite, killed at any of its statements.

Files live in memory where the system offers a place for that. A fresh file is a byte copy of one
that was made in the ordinary way, under another identity.
What holds: tests/simulation.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import apsw
import numpy as np

from moss_local.storage.checkup import check_file
from moss_local.storage.documents import Document, read_metadata
from moss_local.storage.edits import delete_documents, put_documents
from moss_local.storage.file import SessionFile, open_session_file
from moss_local.storage.quarantine import read_quarantine
from moss_local.storage.replica import SqliteReplica
from moss_local.storage.rows import read_vectors
from moss_local.storage.state import read_state
from moss_sync import Life, Record, VectorSpace, Version
from moss_sync.testing.copies import LocalCopy, Look, Row

SPACE = VectorSpace("custom", "simulated", 2, "f4")

MEMORY_PLACES = ("/dev/shm",)
"""Where files cost no disk; the system's folder for temporary files elsewhere."""

_by_path: dict[str, SqliteCopy] = {}


def _trace_new_connection(conn: apsw.Connection) -> None:
    copy = _by_path.get(conn.filename)
    if copy is not None:
        conn.exec_trace = copy._before_statement


class SqliteCopies:
    """A `moss_sync.testing.Copies` of SQLite files in a folder of its own.

    Args:
        step: Called before every SQL statement; what it raises kills the copy there.
        vectors: Whether documents carry vectors.
    """

    def __init__(self, step: Callable[[], None], *, vectors: bool = False) -> None:
        place = next((place for place in MEMORY_PLACES if os.path.isdir(place)), None)
        self.directory = Path(tempfile.mkdtemp(prefix="moss-sim-", dir=place)).resolve()
        self.step = step
        self.armed = 0
        self.vectors = vectors
        self._made = 0
        if _trace_new_connection not in apsw.connection_hooks:
            apsw.connection_hooks.append(_trace_new_connection)

    def fresh(self, session: str, *, dev: bytes, inc: bytes) -> SqliteCopy:
        path = self.path()
        path.write_bytes(_template(session).replace(_DEV, dev).replace(_INC, inc))
        return SqliteCopy(self, path)

    def path(self) -> Path:
        """Return the path of a file that is yet to be made."""
        self._made += 1
        return self.directory / f"{self._made}.sqlite3"

    def close(self) -> None:
        shutil.rmtree(self.directory)


_DEV, _INC = b"--dev---", b"--inc---"
"""The identity of the template; these bytes stand in it once each."""

_templates: dict[str, bytes] = {}


def _template(session: str) -> bytes:
    """Return the bytes of a file as it is right after its creation."""
    if session not in _templates:
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "template.sqlite3"
            identity = iter((_DEV, _INC))
            open_session_file(path, session=session, token=lambda size: next(identity)).close()
            _templates[session] = path.read_bytes()
    return _templates[session]


class SqliteCopy:
    """One device's file."""

    def __init__(self, copies: SqliteCopies, path: Path) -> None:
        self._copies = copies
        self._left: list[tuple[str, bytes]] | None = None
        self.path = path
        _by_path[os.fspath(path)] = self
        self.file: SessionFile = open_session_file(path, durability="normal")
        self.replica = SqliteReplica(self.file)

    def put(self, id: str, text: str, *, now_ms: int) -> None:
        vector, space = None, None
        if self._copies.vectors:
            vector, space = np.array([len(text), 1 + text.count("1")], np.float32), SPACE
        with self.file.writing() as conn:
            put_documents(conn, [Document(id, text, vector=vector)], space=space, now_ms=now_ms)

    def delete(self, id: str, *, now_ms: int) -> None:
        with self.file.writing() as conn:
            delete_documents(conn, [id], now_ms=now_ms)

    def look(self) -> Look:
        with self.file.reading() as conn:
            found: Any = conn.execute(
                "SELECT id, hlc, dev, digest, deleted, dirty, commit_seq FROM document"
            )
            rows = {
                id: Row(Version(hlc, dev, digest), bool(deleted), bool(dirty), seq)
                for id, hlc, dev, digest, deleted, dirty, seq in found
            }
            state: Any = conn.execute(
                "SELECT repairs, gen, applied_seq, (SELECT etag FROM seen),"
                " (SELECT count(*) FROM quarantine) FROM state"
            ).fetchone()
        repairs, gen, applied_seq, etag, set_aside = state
        return Look(rows, Life(repairs, gen), applied_seq, etag, set_aside)

    def records(self) -> Mapping[str, Record]:
        with self.file.reading() as conn:
            rows: list[Any] = conn.execute(
                "SELECT rowid, id, hlc, dev, digest, text, metadata, payload, vector FROM document"
                " WHERE deleted = 0"
            ).fetchall()
            space = read_state(conn).space
            with_vector = [row[0] for row in rows if row[8]]
            vectors = {} if space is None else read_vectors(conn, with_vector, space)
        return {
            id: Record(
                id,
                Version(hlc, dev, digest),
                text=text,
                metadata=read_metadata(metadata),
                payload=payload,
                vector=vectors.get(rowid),
            )
            for rowid, id, hlc, dev, digest, text, metadata, payload, _ in rows
        }

    def quarantined(self) -> list[tuple[str, str, bool]]:
        with self.file.reading() as conn:
            found = read_quarantine(conn)
        return [(each.edit.id, each.edit.text, each.edit.deleted) for each in found]

    def problems(self) -> list[str]:
        with self.file.writing() as conn:
            return check_file(conn)

    def copied(self) -> LocalCopy:
        path = self._copies.path()
        _write(path, self._on_disk())
        return SqliteCopy(self._copies, path)

    def killed(self) -> LocalCopy:
        path = self._copies.path()
        _write(path, self._left if self._left is not None else self._on_disk())
        self.close()
        return SqliteCopy(self._copies, path)

    def revived(self) -> None:
        # What the killed process had open dies with it, with any transaction that was running.
        self.file.release()
        self._left = None

    def close(self) -> None:
        self._left = []  # what closing still does to this file, nobody counts
        self.file.close()
        del _by_path[os.fspath(self.path)]
        for suffix, _ in self._on_disk():
            os.unlink(f"{self.path}{suffix}")

    def _before_statement(self, cursor: object, sql: str, bindings: object) -> bool:
        # Once killed, it only unwinds: SQLite undoes in memory what no longer reaches the file.
        if self._copies.armed and self._left is None:
            try:
                self._copies.step()
            except BaseException:
                self._left = self._on_disk()
                raise
        return True

    def _on_disk(self) -> list[tuple[str, bytes]]:
        """Return the file and its log; the index of the log is made anew by whoever opens them."""
        found = []
        for suffix in ("", "-wal"):
            path = Path(f"{self.path}{suffix}")
            if path.exists():
                found.append((suffix, path.read_bytes()))
        return found


def _write(path: Path, content: list[tuple[str, bytes]]) -> None:
    for suffix, data in content:
        Path(f"{path}{suffix}").write_bytes(data)
