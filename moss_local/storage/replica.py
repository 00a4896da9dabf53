"""A session's file as the sync engine sees it: `moss_sync.Replica` over `SessionFile`.

Each verb is one transaction. What each promises stands in `moss_sync.replica`; what is here is how.
What holds (tests/properties/test_storage.py): merging records in any order, any grouping and any
repetition leaves the same documents.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import replace
from functools import reduce
from typing import Any, cast

import apsw

from moss_local.errors import FileCorruptError
from moss_local.storage import digests
from moss_local.storage.aside import remove_rows, set_aside
from moss_local.storage.documents import read_metadata
from moss_local.storage.file import SessionFile
from moss_local.storage.held import (
    hold_all,
    leave_all_but_edits,
    leave_deleted,
    lower_stamps,
    read_records,
    set_aside_held,
    set_aside_records,
)
from moss_local.storage.history import keep_losers, keep_superseded
from moss_local.storage.rejections import forget_rejected, note_rejected
from moss_local.storage.rows import (
    EDITED,
    Found,
    check_space,
    establish_space,
    find,
    forget_space,
    purge_tombstones,
    read_vectors,
    write_records,
)
from moss_local.storage.state import State, read_state, update_state
from moss_local.storage.vectors import fill_in, move_space, vectors_of
from moss_sync import (
    Committed,
    InvalidArgumentError,
    Life,
    MergeCounts,
    MossError,
    Pending,
    Record,
    ReplicaState,
    Seen,
    Snapshot,
    StoreChangedError,
    VectorSpace,
    Version,
)
from moss_sync.errors import other_store_hint
from moss_sync.hlc import MAX_STAMP, observe
from moss_sync.merge import lowest_commit, newest
from moss_sync.replica import Aside, Correction, Keep
from moss_sync.setbacks import Setback

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
                acked_seq=state.acked_seq,
                life=state.life,
                applied_seq=state.applied_seq,
                seen=read_seen(conn, state.life),
                pending=_read_pending(conn),
                space=state.space,
                dirty=cast(int, conn.execute("SELECT count(*) FROM document WHERE dirty > 0").get),
                hlc=state.hlc,
                known_seq=max(state.applied_seq, state.known_seq),
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
                    hint=other_store_hint(),
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

    def vectors(self, wanted: Mapping[str, Version], space: VectorSpace) -> dict[str, bytes]:
        """Return, by id, the vectors that are here of exactly these versions."""
        with self.file.reading() as conn:
            return vectors_of(conn, wanted, space)

    def restamp(self, correction: Correction) -> int:
        """Correct the stamps of dirty versions; return of how many."""
        with self.file.writing() as conn:
            return _correct(conn, correction)

    def save_pending(
        self, pending: Pending, versions: Sequence[tuple[str, Version]], *, dev: bytes
    ) -> None:
        """Keep a prepared push and which version of which id it carries; raises `n` to its n."""
        with self.file.writing() as conn:
            state = read_state(conn)
            if state.dev != dev:
                return
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
            if state.dev != committed.dev:
                return
            conn.execute(
                "UPDATE document SET dirty = 0, commit_seq = min(ifnull(commit_seq, ?1), ?1),"
                " hlc = min(document.hlc, ?3)"
                " FROM pending_doc AS p WHERE p.n = ?2 AND document.id = p.id"
                " AND document.hlc = p.hlc AND document.dev = p.dev AND document.digest = p.digest",
                (committed.commit_seq, committed.n, committed.limit),
            )
            conn.execute("DELETE FROM pending WHERE n = ?", (committed.n,))
            update_state(conn, n=max(state.n, committed.n), acked_n=max(state.acked_n, committed.n))
            if committed.n >= state.acked_n:
                update_state(conn, acked_seq=committed.commit_seq)
            if seen is not None:
                _go_on(conn, state, seen, committed.applied_seq)

    def merge(self, snapshot: Snapshot, seen: Seen) -> MergeCounts:
        """Merge a pull: last writer wins by `Version`, in one transaction with the sync state."""
        records = newest(snapshot.records)
        stamps = [snapshot.tomb_hlc, *(record.version.hlc for record in records.values())]
        if max(stamps) > MAX_STAMP:
            raise InvalidArgumentError("a record is stamped past the end of the clock")
        with self.file.writing() as conn:
            state = read_state(conn)
            if seen.life != state.life:
                return MergeCounts()
            if _is_late(state, snapshot) or _is_behind(conn, state, snapshot, seen):
                return MergeCounts()
            if _leaves(state, snapshot):
                move_space(conn, state, cast(VectorSpace, snapshot.space))
                state = read_state(conn)
            _check_vectors(state, snapshot)
            purge_tombstones(conn, commit_seq=snapshot.tomb_seq)
            reasserted = quarantined = 0
            if _must_resync(state, snapshot):
                quarantined = set_aside_held(conn, records, snapshot.tomb_hlc)
                reasserted = _resync(conn, records, snapshot.tomb_hlc)
                state = read_state(conn)
            found = find(conn, records)
            won, equal = _sort_out(records, found)
            if snapshot.space is not None:
                establish_space(conn, state, snapshot.space)
                state = read_state(conn)
            keep_losers(conn, state, snapshot.records, records, found)
            write_records(conn, state, won, found, space=state.space, dirty=False)
            conn.executemany("UPDATE document SET commit_seq = ?, dirty = 0 WHERE rowid = ?", equal)
            if state.space is not None:
                fill_in(conn, state.space, _lacking(records, found))
            forget_rejected(conn, records)
            news = note_rejected(conn, snapshot.rejected)
            update_state(conn, hlc=reduce(observe, stamps, state.hlc))
            _go_on(conn, state, seen, snapshot.applied_seq)
        counts = _counts(won, found, reasserted, quarantined)
        return replace(counts, rejected=tuple(news))

    def set_seen(self, seen: Seen, *, applied_seq: int | None = None, tomb_seq: int = 0) -> None:
        """Store a newly verified manifest that needed no merge."""
        with self.file.writing() as conn:
            if tomb_seq:
                purge_tombstones(conn, commit_seq=tomb_seq)
            _go_on(conn, read_state(conn), seen, applied_seq)

    def renew_identity(
        self,
        dev: bytes,
        inc: bytes,
        *,
        was: bytes,
        aside: Aside,
        correction: Correction | None = None,
    ) -> int:
        """Go on as another device; return how many dirty records were set aside."""
        with self.file.writing() as conn:
            if read_state(conn).dev != was:
                return 0
            moved = 0
            if aside != "nothing":
                rows = _dirty_rows(conn, only_pending=aside == "pending")
                moved = set_aside(conn, rows, reason="device")
            if correction is not None:
                _correct(conn, correction)
            _become(conn, dev, inc)
        return moved

    def start_life(
        self,
        seen: Seen,
        dev: bytes,
        inc: bytes,
        *,
        keep: Keep,
        joint: int,
        setbacks: Sequence[Setback] = (),
        correction: Correction | None = None,
        present: Set[tuple[str, bytes]] = frozenset(),
    ) -> int:
        """Go on in the life of the session that `seen` is of; return how many it set aside."""
        with self.file.writing() as conn:
            state = read_state(conn)
            if state.life == seen.life:
                return 0
            moved = known_seq = 0
            if keep == "nothing":
                moved = leave_deleted(conn, joint=joint)
                forget_space(conn, state)  # who creates it again may use another model
            elif keep == "edits":
                moved = leave_all_but_edits(conn, present)
            elif keep == "all":
                known_seq = max(state.applied_seq, state.known_seq)
                lower_stamps(conn, setbacks, known_seq)
                hold_all(conn)
                known_seq = min(joint, known_seq)
            if correction is not None:
                _correct(conn, correction)
            _become(conn, dev, inc)
            conn.execute("DELETE FROM seen")
            conn.execute("DELETE FROM rejected")
            _write_seen(conn, seen)
            repairs, gen = seen.life
            update_state(conn, repairs=repairs, gen=gen, applied_seq=0, known_seq=known_seq)
        return moved

    def records(self) -> list[Record]:
        """Return every record that is no unpushed edit, with its content and vector."""
        with self.file.reading() as conn:
            return read_records(conn, read_state(conn))

    def set_aside(self, records: Sequence[Record]) -> int:
        """Put records into the quarantine that may not be shown and must not be lost."""
        with self.file.writing() as conn:
            return set_aside_records(conn, records)

    def set_exchanged(self, wall_ms: int) -> None:
        """Remember when the last exchange with the store succeeded.

        One that found nothing of the session there, and put nothing there, was none.
        """
        with self.file.writing() as conn:
            if read_state(conn).exchanged_ms is not None or _is_in_store(conn):
                update_state(conn, exchanged_ms=wall_ms)


def _is_in_store(conn: apsw.Connection) -> bool:
    """Return whether this file knows of anything of its session there; a log has no manifest."""
    return bool(
        conn.execute(
            "SELECT EXISTS (SELECT 1 FROM seen)"
            " OR EXISTS (SELECT 1 FROM document WHERE commit_seq IS NOT NULL)"
        ).get
    )


def _resync(conn: apsw.Connection, records: Mapping[str, Record], tomb_hlc: int) -> int:
    """Forget what the whole session no longer holds; return how many changes were stamped anew.

    A clean record that is not in the snapshot was deleted, and goes to the history. An edit has
    never been there: it stays, and is stamped above every deletion that was forgotten, deletes as
    well as puts. Held records are seen to by `set_aside_held`.
    """
    rows: Any = conn.execute("SELECT rowid, id, dirty, hlc, deleted FROM document ORDER BY hlc")
    absent = [row for row in rows if row[1] not in records]
    late = [rowid for rowid, _, dirty, hlc, _ in absent if dirty == EDITED and hlc <= tomb_hlc]
    state = read_state(conn)
    hlc = max(state.hlc, tomb_hlc)
    conn.executemany(
        "UPDATE document SET hlc = ? WHERE rowid = ?",
        ((stamp, rowid) for stamp, rowid in enumerate(late, hlc + 1)),
    )
    update_state(conn, hlc=hlc + len(late))
    gone = [(rowid, deleted) for rowid, _, dirty, _, deleted in absent if not dirty]
    keep_superseded(
        conn, state.space, [(rowid, "deleted") for rowid, deleted in gone if not deleted]
    )
    remove_rows(conn, [rowid for rowid, _ in gone])
    return len(late)


def _correct(conn: apsw.Connection, correction: Correction) -> int:
    # They need not differ from each other, only from what they replace. (`dirty > 0` lets SQLite
    # use the partial index.)
    conn.execute(
        f"UPDATE document SET hlc = ? WHERE dirty > 0 AND dirty = {EDITED} AND hlc > ?",
        (correction.to, correction.above),
    )
    corrected = conn.changes()
    update_state(conn, hlc=min(read_state(conn).hlc, correction.above))
    return corrected


def _dirty_rows(conn: apsw.Connection, *, only_pending: bool = False) -> list[int]:
    rows: list[Any] = conn.execute(
        "SELECT document.rowid FROM document JOIN pending_doc USING (id, hlc, dev, digest)"
        " WHERE dirty > 0"
        if only_pending
        else "SELECT rowid FROM document WHERE dirty > 0"
    ).fetchall()
    return [rowid for (rowid,) in rows]


def _become(conn: apsw.Connection, dev: bytes, inc: bytes) -> None:
    conn.execute("DELETE FROM pending")
    update_state(conn, dev=dev, inc=inc, n=0, acked_n=0, acked_seq=0)


def _go_on(conn: apsw.Connection, state: State, seen: Seen, applied_seq: int | None) -> None:
    """Store how far the exchange has come, unless it was of another life of the session."""
    if seen.life != state.life:
        return
    _write_seen(conn, seen)
    update_state(conn, applied_seq=max(state.applied_seq, applied_seq or 0))


def _sort_out(
    records: dict[str, Record], found: dict[str, Found]
) -> tuple[list[Record], list[tuple[int | None, int]]]:
    """Return the records that win here, and (commit, row id) of those that are here already.

    What the store has in this very version need not be pushed, whoever pushed it.
    """
    won: list[Record] = []
    equal: list[tuple[int | None, int]] = []
    for record in records.values():
        known = found.get(record.id)
        if known is None or record.version > known.version:
            won.append(record)
        elif record.version == known.version:
            seq = lowest_commit(known.commit_seq, record.commit_seq)
            if seq != known.commit_seq or known.dirty:
                equal.append((seq, known.rowid))
    return won, equal


def _is_late(state: State, snapshot: Snapshot) -> bool:
    """Return whether another task or process of this file has applied more meanwhile.

    Everything in the snapshot has been here then, and tombstones of what has been deleted since may
    be forgotten again.
    """
    return state.applied_seq > snapshot.applied_seq


def _must_resync(state: State, snapshot: Snapshot) -> bool:
    """Return whether deletions may have been missed that the session has forgotten.

    Not if another task or process of this file has resynced meanwhile: what it has pushed since is
    not in the snapshot, and nobody has deleted it. Nor if this file had applied them before the
    session was repaired: what it holds besides is what the store has lost.
    """
    known = max(state.applied_seq, state.known_seq)
    return snapshot.full and known < snapshot.tomb_seq


def _is_behind(conn: apsw.Connection, state: State, snapshot: Snapshot, seen: Seen) -> bool:
    """Return whether another process has moved the file to a space of after the snapshot."""
    newest_seen = conn.execute("SELECT seq FROM seen").get
    return (
        state.space is not None
        and snapshot.space is not None
        and state.space != snapshot.space
        and newest_seen is not None
        and newest_seen > seen.seq
    )


def _leaves(state: State, snapshot: Snapshot) -> bool:
    """Return whether the session has left the space of the vectors here."""
    return (
        state.space is not None
        and snapshot.space is not None
        and state.space != snapshot.space
        and state.space.fingerprint in snapshot.former
    )


def _lacking(
    records: Mapping[str, Record], found: Mapping[str, Found]
) -> list[tuple[int, bytes, bytes]]:
    """Return (row id, digest, vector) of versions that are here without their vectors."""
    return [
        (known.rowid, record.version.digest, record.vector)
        for id, record in records.items()
        if record.vector is not None
        and (known := found.get(id)) is not None
        and not known.vector
        and known.version == record.version
    ]


def _counts(
    won: Sequence[Record], found: dict[str, Found], reasserted: int, quarantined: int
) -> MergeCounts:
    received = deleted = superseded = 0
    for record in won:
        known = found.get(record.id)
        received += not record.deleted
        if known is not None:
            deleted += record.deleted and not known.deleted
            superseded += known.dirty and not known.held
    return MergeCounts(received, deleted, superseded, reasserted, quarantined)


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
        " commit_seq FROM document WHERE dirty > 0 AND changed > ? ORDER BY changed LIMIT ?",
        (after, limit),
    ).fetchall()
    with_vector = [row[1] for row in rows if row[2]]
    vectors: dict[int, bytes] = {}
    if with_vector:
        if state.space is None:
            raise FileCorruptError(f"session {state.session!r} has vectors of no known space")
        vectors = read_vectors(conn, with_vector, state.space)
    if digests.follow(conn, state):
        own = vectors if state.space is not None and state.space.dtype == "f4" else {}
        for _, rowid, vector, id, _, _, digest, deleted, *content, _ in rows:
            row = (id, digest, deleted, vector, *content)
            if not digests.is_as_written(row, own.get(rowid)):
                # It must not travel to others: what they have may be right.
                raise apsw.CorruptError(f"document {id!r} is not what was written")
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


def read_seen(conn: apsw.Connection, life: Life) -> Seen | None:
    """Return the newest manifest that this device has verified, of this life of the session."""
    row: Any = conn.execute("SELECT seq, hash, etag, plain FROM seen").fetchone()
    if row is None:
        return None
    seq, hash, etag, plain = row
    return Seen(seq, hash, etag, plain, life)


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
