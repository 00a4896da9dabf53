"""All documents of a session out of its file and into another: exports, imports and snapshots.

The caller opens the transaction. What comes in is written as edits of this device, as if each had
been given to `add_docs`: it wins over what was there, goes to the history, and is pushed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import apsw

from moss_local.storage.documents import Document, read_metadata
from moss_local.storage.edits import delete_documents, put_documents
from moss_local.storage.encoding import from_bytes, to_bytes
from moss_local.storage.rows import find, read_vectors
from moss_local.storage.state import read_state
from moss_sync import VectorSpace, content_digest

BATCH = 1000
"""Documents read at a time."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What taking documents over has done.

    Attributes:
        documents: How many there were to take.
        added, updated: Ids that were not there, and ids that were and have changed.
        deleted: Documents that were there and are not among those taken, where those replace all.
    """

    documents: int
    added: int
    updated: int
    deleted: int


def count_contents(conn: apsw.Connection) -> tuple[int, int]:
    """Return how many documents there are, and how many of them have a vector."""
    row = conn.execute("SELECT count(*), total(vector) FROM document WHERE deleted = 0").fetchone()
    docs, vectors = row if row is not None else (0, 0)
    return docs, int(vectors)


def read_contents(conn: apsw.Connection) -> Iterator[Document]:
    """Yield every document with its vector, in the order in which they were written."""
    space = read_state(conn).space
    rows: Any = conn.execute(
        "SELECT rowid, id, text, metadata, payload, vector FROM document WHERE deleted = 0"
        " ORDER BY hlc, dev"
    )
    while batch := list(islice(rows, BATCH)):
        wanted = [row[0] for row in batch if row[5]]
        vectors = read_vectors(conn, wanted, space) if space is not None and wanted else {}
        for rowid, id, text, metadata, payload, _ in batch:
            vector = None
            if space is not None and rowid in vectors:
                vector = from_bytes(space, [vectors[rowid]])[0]
            yield Document(id, text, read_metadata(metadata), payload, vector)


def take_over(
    conn: apsw.Connection,
    batches: Iterable[Sequence[Document]],
    *,
    space: VectorSpace | None,
    now_ms: int,
    replace: bool,
) -> Taken:
    """Write documents; a document that is there already, just so, is left as it is.

    Args:
        space: What the vectors are of; vectors that a document lacks are not asked for.
        replace: Delete every other document of the session.
    Raises:
        InvalidArgumentError: naming the document that cannot be stored.
        ModelMismatchError: the session holds vectors of another space.
    """
    documents = added = updated = 0
    ids: set[str] = set()
    for batch in batches:
        changed = _changed(conn, batch, space)
        counts = put_documents(conn, changed, space=space, now_ms=now_ms)
        added, updated = added + counts.added, updated + counts.updated
        documents += len(batch)
        ids.update(document.id for document in batch)
    deleted = 0
    if replace:
        rows: Any = conn.execute("SELECT id FROM document WHERE deleted = 0")
        deleted = delete_documents(conn, [id for (id,) in rows if id not in ids], now_ms=now_ms)
    return Taken(documents, added, updated, deleted)


def _changed(
    conn: apsw.Connection, batch: Sequence[Document], space: VectorSpace | None
) -> list[Document]:
    found = find(conn, {document.id for document in batch})
    own = space if space is not None and space.dtype == "f4" else None
    changed: list[Document] = []
    for document in batch:
        known = found.get(document.id)
        if known is not None and not known.deleted:
            vector = None
            if own is not None and document.vector is not None:
                vector = to_bytes(own, document.vector[None])[0]
            digest = content_digest(
                document.id,
                deleted=False,
                text=document.text,
                metadata=document.metadata,
                payload=document.payload,
                own_vector=vector,
            )
            if digest == known.version.digest:
                continue
        changed.append(document)
    return changed
