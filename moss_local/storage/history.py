"""What was replaced here, kept for a while so that it can be read and put back.

A version goes to the history in the transaction that replaces it, whoever wrote the replacement: an
edit here, a deletion, or another device's version that won a merge. One that arrives and loses goes
there too, so that of two concurrent edits both can be read. The store never sees any of it.

Of one document each different content is kept once, as its newest version: saving the same again
and again pushes nothing else out. Vectors are kept only where the caller brought them ("custom");
others are made again from the text.

Order is that of replacement, not of stamps: where a clock was wrong, a document's stamps are cut
later, and those of its history are not.
What holds (tests/properties/test_history.py): the current version and the history together have
every content that a document ever had here, what was replaced last first, up to the bounds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Literal, Protocol

import apsw

from moss_local.storage.documents import check_id, metadata_json, read_metadata
from moss_local.storage.state import State
from moss_sync import Record, VectorSpace, Version
from moss_sync.hlc import encode, to_ms

KEPT_PER_DOCUMENT = 8
"""Contents: an agent that rewrites its one summary for ever keeps the last few of them."""

KEPT_VERSIONS = 2000
"""In a session. Adding up their sizes at each replacement then takes about 0.1 ms."""

KEPT_BYTES = 16 * 1024 * 1024
"""In a session: texts, metadata, payloads and vectors. The largest document has a fifth of it, so
the version replaced last is always there."""

TOKEN_BYTES = 5
"""Of a version's name: 40 bits, of which a document has nine at most."""

Reason = Literal["edited", "deleted", "replaced", "lost"]
"""Why a version is not the current one: an edit on this device replaced it; a deletion did; another
device's edit did; or it lost against a concurrent change, one whose writer had not seen it."""


class Known(Protocol):
    """What the file knows of an id."""

    @property
    def version(self) -> Version: ...


@dataclass(frozen=True, slots=True)
class StoredVersion:
    """One version of a document, or of its deletion, as it lies in the file.

    Attributes:
        reason: Why it is not the current one; None if it is.
        vector: Little-endian float32, where the caller brought it; None for a built-in model.
    """

    id: str
    version: Version
    deleted: bool
    text: str
    metadata: dict[str, str] | None
    payload: str | None
    reason: Reason | None
    vector: bytes | None = None

    @property
    def token(self) -> str:
        """What it is called among the versions of its document: 10 hex digits."""
        hlc, dev, digest = self.version
        return blake2b(encode(hlc) + dev + digest, digest_size=TOKEN_BYTES).hexdigest()

    @property
    def written_ms(self) -> int:
        """When it was written, in milliseconds since 1970, by its writer's clock."""
        return to_ms(self.version.hlc)


# A content that is replaced again counts as replaced just now.
_AGAIN = """
ON CONFLICT (id, digest) DO UPDATE SET number = (SELECT max(number) + 1 FROM history),
  hlc = excluded.hlc, dev = excluded.dev, reason = excluded.reason
"""


def keep_superseded(
    conn: apsw.Connection, space: VectorSpace | None, versions: Sequence[tuple[int, Reason]]
) -> None:
    """Copy the current versions of these rows into the history; call it before they change.

    Args:
        space: The session's vector space, as it is until now.
        versions: Row ids of `document`, each with the reason; what counts as replaced last, last.
    """
    if not versions:
        return
    last = versions[-KEPT_VERSIONS:]
    vector = "(SELECT embedding FROM vec WHERE rowid = ?1)" if _has_own_vectors(space) else "NULL"
    conn.executemany(
        "INSERT INTO history (id, hlc, dev, digest, deleted, reason, text, metadata, payload,"
        f" vector) SELECT id, hlc, dev, digest, deleted, ?2, text, metadata, payload, {vector}"
        f" FROM document WHERE rowid = ?1 {_AGAIN}",
        last,
    )
    _limit_documents(
        conn, "(SELECT id FROM document WHERE rowid = ?)", [(rowid,) for rowid, _ in last]
    )
    _limit_session(conn)


def keep_losers(
    conn: apsw.Connection,
    state: State,
    records: Iterable[Record],
    newest: Mapping[str, Record],
    found: Mapping[str, Known],
) -> None:
    """Put what arrives and does not win into the history; call it before the winners are written.

    What was committed up to what this file has applied has been here before, and is left out.

    Args:
        records: What arrived; several versions of one id may occur.
        newest: The winner of each id among them.
        found: What `rows.find` says of the ids.
    """
    lost: list[tuple[Record, Reason]] = []
    for record in records:
        if record.commit_seq is not None and record.commit_seq <= state.applied_seq:
            continue
        arrived, known = newest[record.id], found.get(record.id)
        winner, local = arrived.version, known.version if known is not None else None
        reason: Reason = "deleted" if arrived.deleted else "replaced"
        if local is not None and local > winner:
            winner, reason = local, "lost"
        # The local version is kept by who replaces it.
        if record.version not in (winner, local) and record.version.digest != winner.digest:
            lost.append((record, reason))
    if not lost:
        return
    lost.sort(key=lambda each: each[0].version)
    own = _has_own_vectors(state.space)
    conn.executemany(
        "INSERT INTO history (id, hlc, dev, digest, deleted, reason, text, metadata, payload,"
        f" vector) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) {_AGAIN}"
        " WHERE (excluded.hlc, excluded.dev) > (hlc, dev)",
        (
            (
                record.id,
                *record.version,
                record.deleted,
                reason,
                record.text,
                metadata_json(record.metadata),
                record.payload,
                record.vector if own else None,
            )
            for record, reason in lost[-KEPT_VERSIONS:]
        ),
    )
    _limit_documents(conn, "?", {(record.id,) for record, _ in lost})
    _limit_session(conn)


def read_history(conn: apsw.Connection, id: str | None = None) -> list[StoredVersion]:
    """Return the current version of a document, then those kept of it, replaced last first.

    Args:
        id: None takes every document that has a history, in the order of their last replacements.
    """
    current, kept = "id IN (SELECT id FROM history)", "1"
    given: tuple[str, ...] = ()
    if id is not None:
        check_id(id)
        current = kept = "id = ?1"
        given = (id,)
    last = "(SELECT max(number) FROM history AS its WHERE its.id = {table}.id) AS last"
    # NULL numbers, of current versions, come first.
    rows: Any = conn.execute(
        "SELECT id, hlc, dev, digest, deleted, text, metadata, payload, NULL AS reason,"
        f" NULL AS number, {last.format(table='document')} FROM document WHERE {current}"
        " UNION ALL SELECT id, hlc, dev, digest, deleted, text, metadata, payload, reason,"
        f" number, {last.format(table='history')} FROM history WHERE {kept}"
        " ORDER BY last DESC, number DESC NULLS FIRST",
        given,
    )
    return [_stored(row) for row in rows]


def find_version(
    conn: apsw.Connection, space: VectorSpace | None, id: str, token: str
) -> StoredVersion | None:
    """Return one version of a document with the vector that the caller brought, if it is kept."""
    found = next((each for each in read_history(conn, id) if each.token == token), None)
    if found is None:
        return None
    vector = None
    if found.reason is not None:
        query = "SELECT vector FROM history WHERE id = ? AND digest = ?"
        vector = conn.execute(query, (id, found.version.digest)).get
    elif _has_own_vectors(space):
        query = "SELECT embedding FROM vec WHERE rowid = (SELECT rowid FROM document WHERE id = ?)"
        vector = conn.execute(query, (id,)).get
    fields = (found.deleted, found.text, found.metadata, found.payload, found.reason)
    return StoredVersion(id, found.version, *fields, vector)


def _has_own_vectors(space: VectorSpace | None) -> bool:
    return space is not None and space.dtype == "f4"


def _limit_documents(conn: apsw.Connection, id: str, given: Iterable[tuple[int | str]]) -> None:
    """Keep the last contents of each document, which the SQL `id` names by `given`."""
    conn.executemany(
        f"DELETE FROM history WHERE number IN (SELECT number FROM history WHERE id = {id}"
        f" ORDER BY number DESC LIMIT -1 OFFSET {KEPT_PER_DOCUMENT:d})",
        given,
    )


def _limit_session(conn: apsw.Connection) -> None:
    """Keep what was replaced last."""
    count, size = conn.execute("SELECT count(*), total(bytes) FROM history").fetchone()  # type: ignore[misc]  # one row
    if count <= KEPT_VERSIONS and size <= KEPT_BYTES:
        return
    last = 0
    for number, freed in conn.execute("SELECT number, bytes FROM history ORDER BY number"):
        if count <= KEPT_VERSIONS and size <= KEPT_BYTES:
            break
        count, size, last = count - 1, size - freed, number
    conn.execute("DELETE FROM history WHERE number <= ?", (last,))


def _stored(row: Any) -> StoredVersion:
    id, hlc, dev, digest, deleted, text, metadata, payload, reason, *_ = row
    version = Version(hlc, dev, digest)
    return StoredVersion(id, version, bool(deleted), text, read_metadata(metadata), payload, reason)
