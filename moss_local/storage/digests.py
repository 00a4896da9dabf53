"""Whether documents say what was written: SQLite does not notice a changed byte of a text.

A version carries a digest of its content. It follows from what is in the file but for one case:
documents of callers' own vectors, of a session that was moved to a model since, whose vectors are
forgotten. Nothing can be said of a session of which it is not known that it never was.
What holds: tests/moss_local/test_storage_checkup.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import apsw

from moss_local.storage.documents import read_metadata
from moss_local.storage.rows import read_vectors
from moss_local.storage.state import State
from moss_sync import MossError, content_digest, manifest

BATCH = 512


def follow(conn: apsw.Connection, state: State) -> bool:
    """Return whether each digest follows from what is in the file."""
    if state.space is not None and state.space.dtype == "f4":
        return True
    plain = conn.execute("SELECT plain FROM seen").get
    try:
        return bool(plain) and not manifest.decode(plain, what="the remembered manifest").former
    except MossError:  # damaged, or of a newer version: whoever needs it says so
        return False


def altered(conn: apsw.Connection, state: State) -> Iterator[str]:
    """Yield the ids of documents that say something else than was written, if that is known."""
    if not follow(conn, state):
        return
    after = -(2**63)
    while rows := _next(conn, after):
        after = rows[-1][0]
        own: dict[int, bytes] = {}
        if state.space is not None and state.space.dtype == "f4":
            own = read_vectors(conn, [row[0] for row in rows if row[4]], state.space)
        yield from (row[1] for row in rows if not is_as_written(row[1:], own.get(row[0])))


def _next(conn: apsw.Connection, after: int) -> list[Any]:
    return conn.execute(
        "SELECT rowid, id, digest, deleted, vector, text, metadata, payload FROM document"
        " WHERE rowid > ? ORDER BY rowid LIMIT ?",
        (after, BATCH),
    ).fetchall()


def is_as_written(row: tuple[Any, ...], own_vector: bytes | None) -> bool:
    """Return whether (id, digest, deleted, vector, text, metadata, payload) is what was written."""
    id, digest, deleted, _, text, metadata, payload = row
    if deleted:
        return bool(digest == content_digest(id, deleted=True))
    whole = content_digest(
        id,
        deleted=False,
        text=text,
        metadata=read_metadata(metadata),
        payload=payload,
        own_vector=own_vector,
    )
    return bool(digest == whole)
