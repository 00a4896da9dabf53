"""A session's file as the sync engine sees it: `moss_sync.Replica` over `SessionFile`.

Each verb is one transaction. What each promises stands in `moss_sync.replica`; what is here is how.
What holds (tests/properties/test_storage.py): merging records in any order, any grouping and any
repetition leaves the same documents.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import apsw

from moss_local.errors import FileCorruptError
from moss_local.storage.documents import read_metadata
from moss_local.storage.file import SessionFile
from moss_local.storage.history import keep_losers
from moss_local.storage.rows import (
    Found,
    check_space,
    establish_space,
    find,
    read_vectors,
    write_records,
)
from moss_local.storage.state import State, read_state, update_state
from moss_sync import (
    Committed,
    InvalidArgumentError,
    MergeCounts,
    MossError,
    Pending,
    Record,
    ReplicaState,
    Seen,
    Snapshot,
    StoreChangedError,
    Version,
)
from moss_sync.hlc import MAX_STAMP
from moss_sync.merge import lowest_commit, newest

DIRTY_BATCH = 256
"""Dirty rows read at a time: a limit of bytes usually ends the reading long before the last one."""


class SqliteReplica:
    """One session's file, as a replica. Blocking; safe from any thread."""

    def __init__(self, file: SessionFile) -> None:
        self.file = file

    def state(self) -> ReplicaState:
        """Read the state; never writes."""
        with self.file.reading() as conn:
            state = read_state(conn)
            return ReplicaState(
                name=state.session,
                dev=state.dev,
                inc=state.inc,
                repo_id=state.repo_id,
                n=state.n,
                acked_n=state.acked_n,
                applied_seq=state.applied_seq,
                seen=_read_seen(conn),
                pending=_read_pending(conn),
                space=state.space,
                dirty=cast(int, conn.execute("SELECT count(*) FROM document WHERE dirty = 1").get),
            )

    def attach(self, repo_id: bytes) -> None:
        """Remember the repository that this file belongs to."""
        with self.file.writing() as conn:
            state = read_state(conn)
            if state.repo_id is None:
                update_state(conn, repo_id=repo_id)
            elif state.repo_id != repo_id:
                raise StoreChangedError(
                    f"session {state.session!r} has been exchanged with another store before",
                    hint="name the store that it belongs to, or another data directory",
                )

    def dirty(self, *, max_bytes: int, max_records: int) -> list[Record]:
        """Return dirty records, those changed first coming first."""
        result: list[Record] = []
        size = 0
        with self.file.reading() as conn:
            state = read_state(conn)
            after = 0
            while len(result) < max_records:
                batch = _read_dirty(conn, state, after, min(DIRTY_BATCH, max_records - len(result)))
                for changed, record in batch:
                    size += _content_bytes(record)
                    if result and size > max_bytes:
                        return result
                    result.append(record)
                    after = changed
                if not batch:
                    break
        return result

    def save_pending(self, pending: Pending, versions: Sequence[tuple[str, Version]]) -> None:
        """Keep a prepared push and which version of which id it carries; raises `n` to its n."""
        with self.file.writing() as conn:
            state = read_state(conn)
            if conn.execute("SELECT 1 FROM pending").get is not None:
                raise MossError(f"session {state.session!r} has a prepared push already")
            conn.execute(
                "INSERT INTO pending (n, base, key, tip, docs, tombs, plain, hlc_max, body)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    pending.n,
                    pending.base,
                    pending.key,
                    pending.tip,
                    pending.docs,
                    pending.tombs,
                    pending.plain,
                    pending.hlc_max,
                    pending.body,
                ),
            )
            conn.executemany(
                "INSERT INTO pending_doc (id, n, hlc, dev, digest) VALUES (?, ?, ?, ?, ?)",
                ((id, pending.n, *version) for id, version in versions),
            )
            update_state(conn, n=max(state.n, pending.n))

    def abandon_pending(self) -> None:
        """Forget the pending push without clearing a dirty mark; its n is never used again."""
        with self.file.writing() as conn:
            conn.execute("DELETE FROM pending")

    def settle(self, committed: Committed, seen: Seen | None = None) -> None:
        """The push `committed.n` is in: clear its dirty marks where the version is unchanged."""
        with self.file.writing() as conn:
            state = read_state(conn)
            conn.execute(
                "UPDATE document SET dirty = 0, commit_seq = min(ifnull(commit_seq, ?1), ?1)"
                " FROM pending_doc AS p WHERE p.n = ?2 AND document.id = p.id"
                " AND document.hlc = p.hlc AND document.dev = p.dev AND document.digest = p.digest",
                (committed.commit_seq, committed.n),
            )
            conn.execute("DELETE FROM pending WHERE n = ?", (committed.n,))
            update_state(
                conn,
                n=max(state.n, committed.n),
                acked_n=max(state.acked_n, committed.n),
                applied_seq=max(state.applied_seq, committed.applied_seq or 0),
            )
            if seen is not None:
                _write_seen(conn, seen)

    def merge(self, snapshot: Snapshot, seen: Seen) -> MergeCounts:
        """Merge a pull: last writer wins by `Version`, in one transaction with the sync state."""
        records = newest(snapshot.records)
        hlc_max = max((record.version.hlc for record in records.values()), default=0)
        if max(hlc_max, snapshot.clock_floor) > MAX_STAMP:
            raise InvalidArgumentError("a record is stamped past the end of the clock")
        with self.file.writing() as conn:
            state = read_state(conn)
            found = find(conn, records)
            won, equal = _sort_out(records, found)
            _check_vectors(state, snapshot)
            if snapshot.space is not None:
                establish_space(conn, state, snapshot.space)
                state = read_state(conn)
            keep_losers(conn, state, snapshot.records, records, found)
            write_records(conn, state, won, found, space=state.space, dirty=False)
            conn.executemany("UPDATE document SET commit_seq = ? WHERE rowid = ?", equal)
            update_state(
                conn,
                hlc=max(state.hlc, snapshot.clock_floor, hlc_max),
                applied_seq=max(state.applied_seq, snapshot.applied_seq),
            )
            _write_seen(conn, seen)
        return _counts(won, found)

    def set_seen(self, seen: Seen, *, applied_seq: int | None = None) -> None:
        """Store a newly verified manifest that needed no merge."""
        with self.file.writing() as conn:
            applied = max(read_state(conn).applied_seq, applied_seq or 0)
            update_state(conn, applied_seq=applied)
            _write_seen(conn, seen)

    def renew_identity(self, dev: bytes, inc: bytes) -> None:
        """Go on as another device: this file turned out to be a copy of one that is in use."""
        with self.file.writing() as conn:
            conn.execute("DELETE FROM pending")
            update_state(conn, dev=dev, inc=inc, n=0, acked_n=0)

    def set_exchanged(self, wall_ms: int) -> None:
        """Remember when the last exchange with the store succeeded."""
        with self.file.writing() as conn:
            update_state(conn, exchanged_ms=wall_ms)


def _sort_out(
    records: dict[str, Record], found: dict[str, Found]
) -> tuple[list[Record], list[tuple[int | None, int]]]:
    """Return the records that win here, and (commit, row id) of those that are here already."""
    won: list[Record] = []
    equal: list[tuple[int | None, int]] = []
    for record in records.values():
        known = found.get(record.id)
        if known is None or record.version > known.version:
            won.append(record)
        elif record.version == known.version:
            seq = lowest_commit(known.commit_seq, record.commit_seq)
            if seq != known.commit_seq:
                equal.append((seq, known.rowid))
    return won, equal


def _counts(won: Sequence[Record], found: dict[str, Found]) -> MergeCounts:
    received = deleted = superseded = 0
    for record in won:
        known = found.get(record.id)
        received += not record.deleted
        if known is not None:
            deleted += record.deleted and not known.deleted
            superseded += known.dirty
    return MergeCounts(received, deleted, superseded)


def _check_vectors(state: State, snapshot: Snapshot) -> None:
    space = snapshot.space if snapshot.space is not None else state.space
    if space is not None:
        check_space(state, space)
    for record in snapshot.records:
        if record.vector is None:
            continue
        if space is None:
            raise InvalidArgumentError(f"record {record.id!r} has a vector of no known space")
        if len(record.vector) != space.vector_bytes:
            raise InvalidArgumentError(
                f"record {record.id!r} has a vector of {len(record.vector)} bytes;"
                f" those of {space.id!r} have {space.vector_bytes}"
            )


def _read_dirty(
    conn: apsw.Connection, state: State, after: int, limit: int
) -> list[tuple[int, Record]]:
    """Return (local sequence number, record) of the next dirty rows past `after`."""
    rows: list[Any] = conn.execute(
        "SELECT changed, rowid, vector, id, hlc, dev, digest, deleted, text, metadata, payload,"
        " commit_seq FROM document WHERE dirty = 1 AND changed > ? ORDER BY changed LIMIT ?",
        (after, limit),
    ).fetchall()
    with_vector = [row[1] for row in rows if row[2]]
    vectors: dict[int, bytes] = {}
    if with_vector:
        if state.space is None:
            raise FileCorruptError(f"session {state.session!r} has vectors of no known space")
        vectors = read_vectors(conn, with_vector, state.space)
    return [_record(row, vectors) for row in rows]


def _record(row: Any, vectors: Mapping[int, bytes]) -> tuple[int, Record]:
    changed, rowid, _, id, hlc, dev, digest, deleted, text, metadata, payload, commit_seq = row
    record = Record(
        id,
        Version(hlc, dev, digest),
        deleted=bool(deleted),
        text=text,
        metadata=read_metadata(metadata),
        payload=payload,
        vector=vectors.get(rowid),
        commit_seq=commit_seq,
    )
    return changed, record


def _content_bytes(record: Record) -> int:
    size = len(record.id.encode()) + len(record.text.encode()) + len(record.vector or b"")
    if record.payload is not None:
        size += len(record.payload.encode())
    for key, value in (record.metadata or {}).items():
        size += len(key.encode()) + len(value.encode())
    return size


def _read_seen(conn: apsw.Connection) -> Seen | None:
    row: Any = conn.execute("SELECT seq, hash, etag, plain FROM seen").fetchone()
    return None if row is None else Seen(*row)


def _write_seen(conn: apsw.Connection, seen: Seen) -> None:
    # Two processes may pull one session at once; the older of their manifests changes nothing.
    conn.execute(
        "INSERT INTO seen (one, seq, hash, etag, plain) VALUES (1, ?, ?, ?, ?)"
        " ON CONFLICT (one) DO UPDATE SET seq = excluded.seq, hash = excluded.hash,"
        " etag = excluded.etag, plain = excluded.plain WHERE excluded.seq >= seen.seq",
        (seen.seq, seen.hash, seen.etag, seen.plain),
    )


def _read_pending(conn: apsw.Connection) -> Pending | None:
    row: Any = conn.execute(
        "SELECT n, base, key, tip, body, docs, tombs, plain, hlc_max FROM pending"
    ).fetchone()
    return None if row is None else Pending(*row)
