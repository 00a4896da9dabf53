"""Local writes: documents put and deleted by this device, stamped by its clock.

The caller opens the transaction; each function is all of it or, by raising, none. Everything is
checked before the first row is written.
What holds (tests/properties/test_storage.py): a write is stamped above everything this file has
seen, so an edit always beats the version it replaces, whatever the wall clock says.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import apsw
import numpy as np

from moss_local.storage.documents import Document, check_document, check_id
from moss_local.storage.encoding import check_vector, to_bytes
from moss_local.storage.rows import Found, check_space, find, write_records
from moss_local.storage.state import State, read_state, update_state
from moss_sync import InvalidArgumentError, Record, VectorSpace, Version, content_digest
from moss_sync.hlc import LAST_OBSERVED, tick


@dataclass(frozen=True, slots=True)
class PutCounts:
    """What a put did: ids that were not there, and ids that were."""

    added: int
    updated: int


def put_documents(
    conn: apsw.Connection,
    documents: Sequence[Document],
    *,
    space: VectorSpace | None,
    now_ms: int,
    upsert: bool = True,
) -> PutCounts:
    """Add or replace documents, in order.

    An id that comes twice is as if put twice. The very same document again is a write like any
    other: it says "now, this", and must win over a deletion elsewhere that has not arrived yet.

    Args:
        space: What the vectors are of; may be None when no document has one.
        now_ms: The wall clock, corrected by the store's where that is known.
        upsert: False leaves a document that is already there alone and counts it in neither.
    Raises:
        InvalidArgumentError: naming the document; none of them is stored.
        ModelMismatchError: the session holds vectors of another space; none is stored.
    """
    state = read_state(conn)
    vectors = _checked(state, documents, space)
    own = space is not None and space.dtype == "f4"
    found = find(conn, {document.id for document in documents})
    live = {id for id, known in found.items() if not known.deleted}
    written: dict[str, Record] = {}
    hlc, added, updated = state.hlc, 0, 0
    for document, vector in zip(documents, vectors, strict=True):
        id = document.id
        if id not in live:
            live.add(id)
            added += 1
        elif upsert:
            updated += 1
        else:
            continue
        digest = content_digest(
            id,
            deleted=False,
            text=document.text,
            metadata=document.metadata,
            payload=document.payload,
            own_vector=vector if own else None,
        )
        before = written.pop(id, None)  # it goes to the end, where the last write belongs
        stored = found.get(id)
        if before is not None:
            last: Version | None = before.version
        else:
            last = stored.version if stored is not None else None
        stamp, hlc = _stamped(hlc, now_ms, last.hlc if last is not None else 0)
        written[id] = Record(
            id,
            Version(stamp, state.dev, digest),
            text=document.text,
            metadata=document.metadata,
            payload=document.payload,
            vector=vector,
        )
    _write(conn, state, hlc, list(written.values()), found, space)
    return PutCounts(added, updated)


def delete_documents(conn: apsw.Connection, ids: Iterable[str], *, now_ms: int) -> int:
    """Delete documents and return how many there were; unknown ids are ignored.

    Raises:
        InvalidArgumentError: an id that no document can have; none is deleted.
    """
    given = list(ids)
    for id in given:
        check_id(id)
    state = read_state(conn)
    wanted = dict.fromkeys(given)
    found = {id: known for id, known in find(conn, wanted).items() if not known.deleted}
    hlc = state.hlc
    tombstones = []
    for id, known in found.items():
        stamp, hlc = _stamped(hlc, now_ms, known.version.hlc)
        version = Version(stamp, state.dev, content_digest(id, deleted=True))
        tombstones.append(Record(id, version, deleted=True))
    _write(conn, state, hlc, tombstones, found, None)
    return len(tombstones)


def _stamped(hlc: int, now_ms: int, seen: int) -> tuple[int, int]:
    """Return the stamp of a write that replaces a version stamped `seen`, and the clock after it.

    A version with a stamp that moves no clock (`hlc.observe`) moves none when it is replaced.
    """
    stamp = tick(hlc, now_ms, seen)
    return stamp, stamp if seen <= LAST_OBSERVED else tick(hlc, now_ms)


def _write(
    conn: apsw.Connection,
    state: State,
    hlc: int,
    records: Sequence[Record],
    found: dict[str, Found],
    space: VectorSpace | None,
) -> None:
    if not records:
        return
    write_records(conn, state, records, found, space=space, dirty=True)
    update_state(conn, hlc=hlc)


def _checked(
    state: State, documents: Sequence[Document], space: VectorSpace | None
) -> list[bytes | None]:
    """Check everything and return each document's vector in the space's dtype."""
    for document in documents:
        check_document(document)
    embedded = [document for document in documents if document.vector is not None]
    vectors: list[bytes | None] = [None] * len(documents)
    if not embedded:
        return vectors
    if space is None:
        raise InvalidArgumentError(
            f"document {embedded[0].id!r} has a vector and no vector space was named"
        )
    check_space(state, space)
    rows = [
        check_vector(
            document.vector, dim=space.dim, what=f"the embedding of document {document.id!r}"
        )
        for document in embedded
        if document.vector is not None
    ]
    encoded = iter(to_bytes(space, np.stack(rows)))
    return [next(encoded) if document.vector is not None else None for document in documents]
