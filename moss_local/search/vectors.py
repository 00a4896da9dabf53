"""The resident vectors of a file: a matrix in memory that is as new as the transaction that asks.

sqlite-vec's wheels are built without SIMD and scan 7 to 20 times slower than one matrix product,
so vec0 is where vectors live and this is what queries read: unit-length float32 rows beside their
row ids, filled by one bulk read and then kept current by the local sequence number, which is read
inside the query's own transaction. Additions, updates and deletions of any process are followed
without a rebuild; below the journal's floor, or when a bulk load changed much of it, it is read
anew.

What holds (tests/moss_local/test_search_vectors.py): after any sequence of writes from two
connections it equals what a fresh read gives.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import apsw
import numpy as np
from numpy.typing import NDArray

from moss_local.storage.encoding import unit_rows
from moss_local.storage.state import State, read_state
from moss_sync import InvalidArgumentError

RELOAD_SHARE = 0.25
"""Past this share of changed rows one bulk read is not slower than following them one by one."""

UNIT_BATCH = 4096
"""Rows scaled at a time while loading: bounds the memory beside the matrix itself."""

_CHUNKS = """
SELECT c.rowids, c.validity, v.vectors FROM vec_chunks AS c
JOIN vec_vector_chunks00 AS v ON v.rowid = c.chunk_id ORDER BY c.chunk_id
"""


@dataclass(frozen=True, slots=True)
class Scan:
    """Every vector of one moment, scored. `rowids` and `cosines` are aligned."""

    rowids: NDArray[np.int64]
    cosines: NDArray[np.float32]
    _places: NDArray[np.int32]

    def places(self, rowids: NDArray[np.int64]) -> NDArray[np.int32]:
        """Return where each row id stands in the arrays, -1 where it has no vector."""
        result = np.full(rowids.shape, -1, np.int32)
        inside = rowids < self._places.size
        result[inside] = self._places[rowids[inside]]
        return result


class ResidentVectors:
    """The vectors of one file in memory.

    Used by one thread at a time, from the start of its read transaction until it has its scores:
    whoever comes later sees a moment at least as new as what is resident then. Scans are bound by
    memory, so taking turns costs little.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._owner: tuple[bytes, bytes] | None = None
        self._seq = 0
        self._count = 0
        self._rows: NDArray[np.float32] = np.empty((0, 0), np.float32)
        self._rowids: NDArray[np.int64] = np.empty(0, np.int64)
        # Row ids are small and dense, so where each one stands is an array: -1 means nowhere.
        self._places: NDArray[np.int32] = np.empty(0, np.int32)

    def __len__(self) -> int:
        return self._count

    def scan(self, conn: apsw.Connection, unit: NDArray[np.float32]) -> Scan:
        """Return the cosine of every vector to one of unit length, as `conn` sees the file.

        To be the first that reads in the transaction: this is where its moment is fixed.

        Raises:
            InvalidArgumentError: `unit` has another dimension than the session's vectors.
        """
        with self._lock:
            state = read_state(conn)
            if state.space is not None and unit.size != state.space.dim:
                raise InvalidArgumentError(
                    f"the query's embedding has {unit.size} dimensions;"
                    f" session {state.session!r} has {state.space.dim}"
                )
            self._follow(conn, state)
            if not self._count:
                empty = np.empty(0, np.int64)
                return Scan(empty, empty.astype(np.float32), empty.astype(np.int32))
            return Scan(
                self._rowids[: self._count].copy(),
                self._rows[: self._count] @ unit,
                self._places.copy(),
            )

    def _follow(self, conn: apsw.Connection, state: State) -> None:
        """Become what the current transaction sees; `state` was read in it."""
        owner = (state.dev, state.inc)
        if state.space is None:
            self._clear(0)
        elif (
            self._owner != owner
            or self._seq < state.journal_floor
            or self._seq > state.local_seq  # the file was replaced by an older copy
            or self._rows.shape[1] != state.space.dim
            or state.local_seq - self._seq > RELOAD_SHARE * max(self._count, 1)
        ):
            self._load(conn, state.space.dim)
        elif self._seq < state.local_seq:
            self._catch_up(conn)
        self._owner, self._seq = owner, state.local_seq

    def _clear(self, dim: int, capacity: int = 0) -> None:
        self._count = 0
        self._rows = np.empty((capacity, dim), np.float32)
        self._rowids = np.empty(capacity, np.int64)
        self._places = np.empty(0, np.int32)

    def _load(self, conn: apsw.Connection, dim: int) -> None:
        rowids, rows = read_all(conn, dim)
        self._count = len(rowids)
        self._rows, self._rowids = rows, rowids
        self._places = np.full(int(rowids.max(initial=0)) + 1, -1, np.int32)
        self._places[rowids] = np.arange(self._count, dtype=np.int32)

    def _catch_up(self, conn: apsw.Connection) -> None:
        changes: list[Any] = conn.execute(
            "SELECT rowid, vector FROM document WHERE changed > ? ORDER BY changed", (self._seq,)
        ).fetchall()
        gone = [rowid for rowid, vector in changes if not vector]
        new = [rowid for rowid, vector in changes if vector]
        for rowid in gone:
            self._remove(rowid)
        if new:
            found: list[Any] = conn.executemany(
                "SELECT rowid, embedding FROM vec WHERE rowid = ?", ((rowid,) for rowid in new)
            ).fetchall()
            data = np.frombuffer(b"".join(row[1] for row in found), "<f4")
            rows = unit_rows(data.reshape(len(found), -1))
            for (rowid, _), row in zip(found, rows, strict=True):
                self._set(rowid, row)

    def _set(self, rowid: int, row: NDArray[np.float32]) -> None:
        place = int(self._places[rowid]) if rowid < self._places.size else -1
        if place < 0:
            place = self._count
            self._reserve(place + 1, rowid + 1)
            self._count += 1
            self._rowids[place] = rowid
            self._places[rowid] = place
        self._rows[place] = row

    def _remove(self, rowid: int) -> None:
        place = int(self._places[rowid]) if rowid < self._places.size else -1
        if place < 0:
            return
        last = self._count - 1
        moved = self._rowids[last]
        self._rows[place] = self._rows[last]
        self._rowids[place] = moved
        self._places[moved] = place
        self._places[rowid] = -1
        self._count = last

    def _reserve(self, rows: int, places: int) -> None:
        if rows > self._rowids.size:
            capacity = max(64, 2 * self._rowids.size, rows)
            self._rows = _grown(self._rows, capacity)
            self._rowids = _grown(self._rowids, capacity)
        if places > self._places.size:
            size = self._places.size
            self._places = _grown(self._places, max(64, 2 * size, places))
            self._places[size:] = -1


def read_all(conn: apsw.Connection, dim: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the row ids and the vectors, scaled to unit length, of the whole file.

    Reads vec0's own tables chunk by chunk: 5.0 µs a vector against 7.6 µs through the virtual
    table. That these tables mean what is assumed here is held by a test that compares with a plain
    SELECT; sqlite-vec promises to keep its stored format readable.
    """
    count = conn.execute("SELECT count(*) FROM vec_rowids").get
    rowids = np.empty(count, np.int64)
    rows = np.empty((count, dim), np.float32)
    filled = 0
    for ids, validity, vectors in conn.execute(_CHUNKS):
        ids = np.frombuffer(ids, "<i8")
        # One bit a place, the lowest bit of each byte first; a place without it is free.
        valid = np.unpackbits(np.frombuffer(validity, np.uint8), bitorder="little").view(np.bool_)
        chunk = np.frombuffer(vectors, "<f4").reshape(ids.size, dim)
        if not valid.all():
            ids, chunk = ids[valid], chunk[valid]
        rowids[filled : filled + ids.size] = ids
        rows[filled : filled + ids.size] = chunk
        filled += ids.size
    if filled != count:
        raise apsw.CorruptError(f"vec0 names {count} rows and holds {filled}")
    for start in range(0, count, UNIT_BATCH):
        rows[start : start + UNIT_BATCH] = unit_rows(rows[start : start + UNIT_BATCH])
    return rowids, rows


def _grown(array: NDArray[Any], capacity: int) -> NDArray[Any]:
    result = np.empty((capacity, *array.shape[1:]), array.dtype)
    result[: len(array)] = array
    return result
