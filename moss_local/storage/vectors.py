"""The vectors of a session's documents: which are lacking, and what becomes of all at a move.

A session of a built-in model has a vector of every document, once this device has made those that
came without one: written by somebody without the model, or from before the session was moved to
another. Until then they are found by their words. What is lacking is read off the rows, so whoever
is cut off while making vectors goes on where that was.
What holds (tests/moss_local/test_reembed.py): vectors of two spaces are never in one file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import apsw

from moss_local.storage.encoding import from_bytes
from moss_local.storage.rows import read_vectors
from moss_local.storage.schema import create_vectors
from moss_local.storage.state import State, read_state, set_space, update_state
from moss_sync import VectorSpace, Version


@dataclass(frozen=True, slots=True)
class Unembedded:
    """A document without a vector.

    Attributes:
        digest: Of its content: a vector is of exactly this.
    """

    rowid: int
    text: str
    digest: bytes


def move_space(conn: apsw.Connection, state: State, space: VectorSpace) -> None:
    """Forget every vector, and go on in another space."""
    if state.space is not None:
        conn.execute("DROP TABLE vec")
        conn.execute("UPDATE document SET vector = 0 WHERE vector = 1")
    set_space(conn, space)
    create_vectors(conn, space.dim)


def count_unembedded(conn: apsw.Connection) -> int:
    """Return how many documents have no vector."""
    return cast(
        int, conn.execute("SELECT count(*) FROM document WHERE deleted = 0 AND vector = 0").get
    )


def read_unembedded(conn: apsw.Connection, *, limit: int) -> list[Unembedded]:
    """Return documents without a vector, those changed first coming first."""
    rows: Any = conn.execute(
        "SELECT rowid, text, digest FROM document WHERE deleted = 0 AND vector = 0"
        " ORDER BY changed LIMIT ?",
        (limit,),
    )
    return [Unembedded(*row) for row in rows]


def fill_in(
    conn: apsw.Connection, space: VectorSpace, vectors: Sequence[tuple[int, bytes, bytes]]
) -> int:
    """Give documents the vectors that they lack; return how many still lacked them.

    The documents' versions stay what they are, and nothing is to be pushed.

    Args:
        vectors: (row id, digest of the content, vector in the space's dtype).
    """
    state = read_state(conn)
    if state.space != space:
        return 0  # the session was moved again meanwhile
    wanted = [
        (rowid, vector)
        for rowid, digest, vector in vectors
        if conn.execute(
            "SELECT 1 FROM document WHERE rowid = ? AND digest = ? AND deleted = 0 AND vector = 0",
            (rowid, digest),
        ).get
    ]
    if not wanted:
        return 0
    rows = from_bytes(space, [vector for _, vector in wanted])
    conn.executemany(
        "INSERT INTO vec (rowid, embedding) VALUES (?, ?)",
        ((rowid, row.tobytes()) for (rowid, _), row in zip(wanted, rows, strict=True)),
    )
    conn.executemany(
        "UPDATE document SET vector = 1, changed = ? WHERE rowid = ?",
        ((state.local_seq + place, rowid) for place, (rowid, _) in enumerate(wanted, 1)),
    )
    update_state(conn, local_seq=state.local_seq + len(wanted))
    return len(wanted)


def vectors_of(
    conn: apsw.Connection, wanted: Mapping[str, Version], space: VectorSpace
) -> dict[str, bytes]:
    """Return, by id, the vectors of exactly these versions; none of another space."""
    if read_state(conn).space != space:
        return {}
    found: Any = conn.executemany(
        "SELECT rowid, id FROM document WHERE id = ? AND hlc = ? AND dev = ? AND digest = ?"
        " AND vector = 1",
        ((id, *version) for id, version in wanted.items()),
    )
    ids: dict[int, str] = dict(found)
    return {ids[rowid]: vector for rowid, vector in read_vectors(conn, list(ids), space).items()}
