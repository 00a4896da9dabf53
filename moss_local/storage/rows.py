"""Documents in and out of the tables: plain functions over a connection.

The caller opens the transaction. Local writes and merged records go through one path,
`write_records`, so a document lies in the file in the same way whoever wrote it, and its four
places (row, vector, keywords, counters) never disagree.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import apsw
import numpy as np
from numpy.typing import NDArray

from moss_local.search.keywords import prepare_text
from moss_local.storage.documents import StoredDocument, check_id, metadata_json, read_metadata
from moss_local.storage.encoding import from_bytes, narrowed
from moss_local.storage.history import Reason, keep_superseded
from moss_local.storage.schema import create_vectors
from moss_local.storage.state import State, read_state, set_space, update_state
from moss_sync import InvalidArgumentError, ModelMismatchError, Record, VectorSpace, Version
from moss_sync.limits import MAX_DIMENSIONS

CLEAN, EDITED, HELD = 0, 1, 2
"""What `document.dirty` says; what is above CLEAN is to be pushed. See `held`."""

VECTOR_BATCH = 1024
"""Vectors converted at a time while writing: bounds the memory beside the caller's own."""


@dataclass(frozen=True, slots=True)
class Found:
    """What the file knows of an id, without its content.

    Attributes:
        dirty: It is to be pushed; held: and was not changed here, see `held`.
    """

    rowid: int
    version: Version
    deleted: bool
    vector: bool
    dirty: bool
    commit_seq: int | None
    held: bool


def get_documents(
    conn: apsw.Connection,
    ids: Sequence[str] | None = None,
    *,
    where: tuple[str, Sequence[str | int]] = ("1", ()),
) -> list[StoredDocument]:
    """Return documents in the order of `ids`, unknown ones left out; None: all, in order of id.

    Args:
        where: Of all, only those for which this condition on `document` holds, with the values of
            its parameters.
    """
    select = "SELECT id, text, metadata, payload, hlc, dev, dirty FROM document WHERE deleted = 0"
    if ids is None:
        condition, parameters = where
        rows: Iterator[Any] = conn.execute(
            f"{select} AND {condition} ORDER BY id", tuple(parameters)
        )
    else:
        for id in ids:
            check_id(id)
        rows = conn.executemany(f"{select} AND id = ?", ((id,) for id in ids))
    return [_stored(row) for row in rows]


def count_documents(conn: apsw.Connection) -> int:
    """Return how many documents there are."""
    return read_state(conn).live


def purge_tombstones(conn: apsw.Connection, *, commit_seq: int) -> int:
    """Forget clean tombstones that were committed at or before `commit_seq`; return how many.

    Raises `journal_floor`: who knows the file only up to an earlier change reads it anew.
    """
    conn.execute(
        "DELETE FROM document WHERE deleted = 1 AND dirty = 0 AND commit_seq <= ?", (commit_seq,)
    )
    purged = conn.changes()
    if purged:
        update_state(conn, journal_floor=read_state(conn).local_seq)
    return purged


def find(conn: apsw.Connection, ids: Iterable[str]) -> dict[str, Found]:
    """Return what is known of each id, tombstones included; unknown ids are left out."""
    rows = conn.executemany(
        "SELECT id, rowid, hlc, dev, digest, deleted, vector, dirty, commit_seq "
        "FROM document WHERE id = ?",
        ((id,) for id in ids),
    )
    return {
        id: Found(
            rowid,
            Version(hlc, dev, digest),
            bool(deleted),
            bool(vector),
            bool(dirty),
            commit_seq,
            dirty == HELD,
        )
        for id, rowid, hlc, dev, digest, deleted, vector, dirty, commit_seq in rows
    }


def check_space(state: State, space: VectorSpace | None) -> VectorSpace:
    """Return `space` if its vectors may be written into this session.

    Raises:
        InvalidArgumentError: no space was named, or its vectors are too long.
        ModelMismatchError: the session holds vectors of another space.
    """
    if space is None:
        raise InvalidArgumentError(f"session {state.session!r}: vectors without a vector space")
    if space.dim > MAX_DIMENSIONS:
        raise InvalidArgumentError(
            f"model {space.id!r} has {space.dim} dimensions, more than {MAX_DIMENSIONS}"
        )
    known = state.space
    if known is not None and (known.fingerprint, known.dim, known.dtype) != (
        space.fingerprint,
        space.dim,
        space.dtype,
    ):
        raise ModelMismatchError(state.session, stored=known.id, wanted=_shown(known, space))
    return space


def establish_space(conn: apsw.Connection, state: State, space: VectorSpace) -> None:
    """Write down the session's vector space and make its table, if that has not happened yet."""
    check_space(state, space)
    if state.space is None:
        set_space(conn, space)
        create_vectors(conn, space.dim)


def forget_space(conn: apsw.Connection, state: State) -> None:
    """Let a session without documents take vectors of any space again."""
    if state.space is not None:
        conn.execute("DROP TABLE vec")
        update_state(conn, model_id=None, model_fingerprint=None, model_dim=None, model_dtype=None)


def write_records(
    conn: apsw.Connection,
    state: State,
    records: Sequence[Record],
    found: Mapping[str, Found],
    *,
    space: VectorSpace | None,
    dirty: bool,
) -> None:
    """Store the given versions, one per id, whatever was there before; that goes to the history.

    Args:
        state: As read in this transaction, before.
        found: What `find` said of the ids.
        space: What the records' vectors are of; checked here and established by the first.
    """
    if any(record.vector is not None for record in records):
        space = check_space(state, space)
        establish_space(conn, state, space)
    next_rowid = (conn.execute("SELECT max(rowid) FROM document").get or 0) + 1
    inserts, updates = [], []
    superseded: list[tuple[int, Reason]] = []
    rowids: list[int] = []
    live = state.live
    for changed, record in enumerate(records, state.local_seq + 1):
        known = found.get(record.id)
        if known is None:
            rowid, next_rowid = next_rowid, next_rowid + 1
        else:
            rowid = known.rowid
            live -= not known.deleted
            if known.version.digest != record.version.digest:
                superseded.append((rowid, _reason(known, record, dirty)))
        live += not record.deleted
        rowids.append(rowid)
        hlc, dev, digest = record.version
        row = (
            hlc,
            dev,
            digest,
            record.deleted,
            record.vector is not None,
            dirty,
            changed,
            record.commit_seq,
            record.text,
            metadata_json(record.metadata),
            record.payload,
        )
        if known is None:
            inserts.append((*row, rowid, record.id))
        else:
            updates.append((*row, rowid))
    keep_superseded(conn, state.space, superseded)
    conn.executemany(
        "INSERT INTO document (hlc, dev, digest, deleted, vector, dirty, changed, commit_seq, text,"
        " metadata, payload, rowid, id) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        inserts,
    )
    conn.executemany(
        "UPDATE document SET hlc = ?, dev = ?, digest = ?, deleted = ?, vector = ?, dirty = ?,"
        " changed = ?, commit_seq = ?, text = ?, metadata = ?, payload = ? WHERE rowid = ?",
        updates,
    )
    _write_keywords(conn, records, rowids, found)
    _write_vectors(conn, records, rowids, found, space)
    update_state(conn, local_seq=state.local_seq + len(records), live=live)


def _reason(known: Found, record: Record, local: bool) -> Reason:
    """Return why `record` replaces what is known."""
    if known.dirty and not known.held and not local:
        return "lost"  # nobody else has seen it, so who wrote the winner had not either
    if record.deleted:
        return "deleted"
    return "edited" if local else "replaced"


def _write_keywords(
    conn: apsw.Connection,
    records: Sequence[Record],
    rowids: Sequence[int],
    found: Mapping[str, Found],
) -> None:
    conn.executemany(
        "DELETE FROM keyword WHERE rowid = ?",
        [(known.rowid,) for record in records if (known := _live(found, record.id))],
    )
    conn.executemany(
        "INSERT INTO keyword (rowid, text) VALUES (?, ?)",
        (
            (rowid, prepare_text(record.text))
            for rowid, record in zip(rowids, records, strict=True)
            if not record.deleted
        ),
    )


def _write_vectors(
    conn: apsw.Connection,
    records: Sequence[Record],
    rowids: Sequence[int],
    found: Mapping[str, Found],
    space: VectorSpace | None,
) -> None:
    gone: list[tuple[int]] = []
    changed: list[tuple[int, bytes]] = []
    new: list[tuple[int, bytes]] = []
    for rowid, record in zip(rowids, records, strict=True):
        known = found.get(record.id)
        had = known is not None and known.vector
        if record.vector is not None:
            (changed if had else new).append((rowid, record.vector))
        elif had:
            gone.append((rowid,))
    if gone:
        conn.executemany("DELETE FROM vec WHERE rowid = ?", gone)
    if changed and space is not None:
        conn.executemany("UPDATE vec SET embedding = ?2 WHERE rowid = ?1", _floats(changed, space))
    if new and space is not None:
        # In the order of row ids: vec0 fills its chunks in the order of insertion.
        conn.executemany(
            "INSERT INTO vec (rowid, embedding) VALUES (?1, ?2)", _floats(sorted(new), space)
        )


def _floats(
    vectors: Sequence[tuple[int, bytes]], space: VectorSpace
) -> Iterator[tuple[int, bytes]]:
    """Yield row ids with the float32 bytes that vec0 wants."""
    for start in range(0, len(vectors), VECTOR_BATCH):
        batch = vectors[start : start + VECTOR_BATCH]
        rows = from_bytes(space, [vector for _, vector in batch])
        for (rowid, _), row in zip(batch, rows, strict=True):
            yield rowid, row.tobytes()


def check_rowids(conn: apsw.Connection, rowids: NDArray[np.integer[Any]]) -> None:
    """Refuse row ids that no document can have.

    An index of a damaged file may hold any, and what is kept by row id would be as large as the
    largest.

    Raises:
        apsw.CorruptError: there is one.
    """
    highest = conn.execute("SELECT max(rowid) FROM document").get or 0
    if rowids.size and (rowids.min() < 1 or rowids.max() > highest):
        raise apsw.CorruptError("an index holds a row of no document")


def read_vectors(
    conn: apsw.Connection, rowids: Sequence[int], space: VectorSpace
) -> dict[int, bytes]:
    """Return the vectors of rows that have one, in the space's dtype.

    Raises:
        apsw.CorruptError: one holds what was never written; it must not travel to others.
    """
    rows = conn.executemany(
        "SELECT rowid, embedding FROM vec WHERE rowid = ?", ((rowid,) for rowid in rowids)
    )
    found: dict[int, bytes] = {}
    for rowid, embedding in rows:
        vector = narrowed(space, embedding)
        if vector is None:
            raise apsw.CorruptError("a vector holds a value that is not finite")
        found[rowid] = vector
    return found


def _live(found: Mapping[str, Found], id: str) -> Found | None:
    known = found.get(id)
    return known if known is not None and not known.deleted else None


def _stored(row: Any) -> StoredDocument:
    id, text, metadata, payload, hlc, dev, dirty = row
    return StoredDocument(id, text, read_metadata(metadata), payload, hlc, dev, bool(dirty))


def _shown(known: VectorSpace, space: VectorSpace) -> str:
    if space.id != known.id:
        return space.id
    return f"{space.id} of {space.dim} dimensions ({space.fingerprint[:12]}, {space.dtype})"
