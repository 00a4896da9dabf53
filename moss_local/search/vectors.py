"""How near each document's vector is to a query's: from a matrix in memory, or from the file.

sqlite-vec's wheels are built without SIMD and scan 7 to 20 times slower than one matrix product,
so vec0 is where vectors live and `ResidentVectors` is what queries read: unit-length float32 rows
beside their row ids, filled by one bulk read and then kept current. Additions, updates and
deletions of any process are followed without a rebuild. `StoredVectors` reads vec0 at every query,
for a process that may not spend the memory.

What holds (tests/moss_local/test_search_vectors.py): after any sequence of writes from two
connections it equals what a fresh read gives.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any, Protocol

import apsw
import numpy as np
from numpy.typing import NDArray

from moss_local.search.follower import Follower
from moss_local.storage.encoding import unit_rows
from moss_local.storage.state import State

PART_CHUNKS = 32
"""Chunks of vec0 read at a time, of 64 vectors: bounds the memory beside the matrix itself."""

_CHUNKS = """
SELECT c.rowids, c.validity, v.vectors FROM vec_chunks AS c
JOIN vec_vector_chunks00 AS v ON v.rowid = c.chunk_id ORDER BY c.chunk_id
"""


class Vectors(Protocol):
    """Where the vectors of a file can be compared with a query's."""

    def follow(self, conn: apsw.Connection, state: State) -> None:
        """Become what the current transaction sees; `state` was read in it."""
        ...

    def cosines(
        self, conn: apsw.Connection, unit: NDArray[np.float32], rowids: NDArray[np.int32]
    ) -> NDArray[np.float32]:
        """Return the cosine of each row's vector to one of unit length; NaN where it has none."""
        ...


class ResidentVectors(Follower):
    """The vectors of one file in memory."""

    def __init__(self) -> None:
        super().__init__()
        self._count = 0
        self._rows: NDArray[np.float32] = np.empty((0, 0), np.float32)
        self._rowids: NDArray[np.int64] = np.empty(0, np.int64)
        # Row ids are small and dense, so where each one stands is an array: -1 means nowhere.
        self._places: NDArray[np.int32] = np.empty(0, np.int32)

    def __len__(self) -> int:
        return self._count

    def cosines(
        self, conn: apsw.Connection, unit: NDArray[np.float32], rowids: NDArray[np.int32]
    ) -> NDArray[np.float32]:
        """See `Vectors`."""
        # One more than there are vectors: place -1 is what has none.
        found = np.empty(self._count + 1, np.float32)
        if self._count:
            np.dot(self._rows[: self._count], unit, out=found[:-1])
        found[-1] = np.nan
        return found[self._places_of(rowids)]

    def _places_of(self, rowids: NDArray[np.int32]) -> NDArray[np.int32]:
        if int(rowids.max(initial=-1)) < self._places.size:
            return self._places[rowids]
        result = np.full(rowids.shape, -1, np.int32)
        inside = rowids < self._places.size
        result[inside] = self._places[rowids[inside]]
        return result

    def _size(self) -> int:
        return self._count

    def _fits(self, state: State) -> bool:
        dim = 0 if state.space is None else state.space.dim
        return bool(self._rows.shape[1] == dim)

    def _clear(self, dim: int, capacity: int = 0) -> None:
        self._count = 0
        self._rows = np.empty((capacity, dim), np.float32)
        self._rowids = np.empty(capacity, np.int64)
        self._places = np.empty(0, np.int32)

    def _load(self, conn: apsw.Connection, state: State) -> None:
        if state.space is None:
            self._clear(0)
            return
        rowids, rows = read_all(conn, state.space.dim)
        self._count = len(rowids)
        self._rows, self._rowids = rows, rowids
        self._places = np.full(int(rowids.max(initial=0)) + 1, -1, np.int32)
        self._places[rowids] = np.arange(self._count, dtype=np.int32)

    def _catch_up(self, conn: apsw.Connection, state: State, since: int) -> None:
        changes: list[Any] = conn.execute(
            "SELECT rowid, vector FROM document WHERE changed > ? ORDER BY changed", (since,)
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


class StoredVectors:
    """The vectors of one file as vec0 keeps them, read and compared part by part at every query."""

    def __init__(self) -> None:
        self._dim = 0

    def follow(self, conn: apsw.Connection, state: State) -> None:
        """See `Vectors`."""
        self._dim = 0 if state.space is None else state.space.dim

    def cosines(
        self, conn: apsw.Connection, unit: NDArray[np.float32], rowids: NDArray[np.int32]
    ) -> NDArray[np.float32]:
        """See `Vectors`."""
        found = np.full(int(rowids.max(initial=0)) + 1, np.nan, np.float32)
        if self._dim:
            for ids, rows in _read_parts(conn, self._dim):
                found[ids] = unit_rows(rows) @ unit
        return found[rowids]


def read_all(conn: apsw.Connection, dim: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the row ids and the vectors, scaled to unit length, of the whole file."""
    count = conn.execute("SELECT count(*) FROM vec_rowids").get
    rowids = np.empty(count, np.int64)
    rows = np.empty((count, dim), np.float32)
    filled = 0
    for ids, part in _read_parts(conn, dim):
        if filled + ids.size <= count:
            rowids[filled : filled + ids.size] = ids
            rows[filled : filled + ids.size] = unit_rows(part)
        filled += ids.size
    if filled != count:
        raise apsw.CorruptError(f"vec0 names {count} rows and holds {filled}")
    return rowids, rows


def _read_parts(
    conn: apsw.Connection, dim: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Yield row ids and vectors of the whole file, some thousand at a time.

    Reads vec0's own tables chunk by chunk: 5.0 µs a vector against 7.6 µs through the virtual
    table. That these tables mean what is assumed here is held by a test that compares with a plain
    SELECT; sqlite-vec promises to keep its stored format readable.
    """
    chunks = conn.execute(_CHUNKS)
    while part := list(islice(chunks, PART_CHUNKS)):
        rowids = np.frombuffer(b"".join(chunk[0] for chunk in part), "<i8")
        # One bit a place, the lowest bit of each byte first; a place without it is free.
        bits = np.frombuffer(b"".join(chunk[1] for chunk in part), np.uint8)
        valid = np.unpackbits(bits, bitorder="little").view(np.bool_)
        rows = np.frombuffer(b"".join(chunk[2] for chunk in part), "<f4").reshape(-1, dim)
        yield (rowids, rows) if valid.all() else (rowids[valid], rows[valid])


def _grown(array: NDArray[Any], capacity: int) -> NDArray[Any]:
    result = np.empty((capacity, *array.shape[1:]), array.dtype)
    result[: len(array)] = array
    return result
