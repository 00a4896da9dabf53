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
from typing import Any, Protocol, TypeVar

import apsw
import numpy as np
from numpy.typing import NDArray

from moss_local.search.follower import Follower
from moss_local.storage.encoding import unit_rows
from moss_local.storage.rows import check_rowids
from moss_local.storage.state import State
from moss_sync import VectorSpace

S = TypeVar("S", np.float32, np.uint16)

PART_CHUNKS = 32
"""Chunks of vec0 read at a time, of 64 vectors: bounds the memory beside the matrix itself."""

SAMPLE = 256
"""Vectors to which the estimates of a query are fitted."""

SIGN_ROWS = 4096
"""Rows whose signs are packed at a time."""

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
        self, conn: apsw.Connection, unit: NDArray[np.float32], rowids: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Return the cosine of each row's vector to one of unit length; NaN where it has none."""
        ...


class ResidentVectors(Follower):
    """The vectors of one file in memory."""

    def __init__(self) -> None:
        super().__init__()
        self._count = 0
        self._space: VectorSpace | None = None
        self._rows: NDArray[np.float32] = np.empty((0, 0), np.float32)
        self._rowids: NDArray[np.int64] = np.empty(0, np.int64)
        # Row ids are small and dense, so where each one stands is an array: -1 means nowhere.
        self._places: NDArray[np.int32] = np.empty(0, np.int32)
        # One bit a dimension, packed into columns of 64; made when they are first asked for.
        self._bits: NDArray[np.uint64] | None = None
        self._last: tuple[NDArray[np.int64], NDArray[np.int64] | None] | None = None

    def __len__(self) -> int:
        return self._count

    def cosines(
        self, conn: apsw.Connection, unit: NDArray[np.float32], rowids: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """See `Vectors`."""
        # One more than there are vectors: place -1 is what has none.
        found = np.empty(self._count + 1, np.float32)
        if self._count:
            found[:-1] = _cosines(self._rows[: self._count], unit)
        found[-1] = np.nan
        return self._aligned(found, rowids)

    def cosines_of_few(
        self, unit: NDArray[np.float32], rowids: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Return what `cosines` does, reading the vectors of these rows only.

        There is at least one vector.
        """
        places = self._places_of(rowids)
        found = _cosines(self._rows[places], unit)
        found[places < 0] = np.nan
        return found

    def estimates(
        self, conn: apsw.Connection, unit: NDArray[np.float32], rowids: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Return each row's cosine as its vector's signs tell it; NaN where it has no vector.

        The share of dimensions whose signs differ grows with the angle. How much so depends on the
        model and on the query, so it is fitted to the exact cosines of a sample. Spread about the
        exact ones: 0.05.
        Source: Charikar 2002, "Similarity Estimation Techniques from Rounding Algorithms".
        """
        if self._count < 2:
            return self.cosines(conn, unit, rowids)
        differing = self._differing(unit)
        by_angle = np.cos(np.pi / unit.size * np.arange(unit.size + 1))
        sample = np.arange(0, self._count, max(1, self._count // SAMPLE))
        exact = _cosines(self._rows[sample], unit)
        guess = by_angle[differing[sample]]
        slope = np.cov(guess, exact)[0, 1] / max(float(guess.var(ddof=1)), 1e-9)
        scale = slope * (by_angle - guess.mean()) + exact.mean()
        scale = np.append(scale, np.nan).astype(np.float32)
        return self._aligned(scale.take(differing), rowids)

    def agreeing(self, unit: NDArray[np.float32], rowids: NDArray[np.int64]) -> NDArray[np.int16]:
        """Return in how many dimensions each row's vector has the sign of `unit`; -1: it has none.

        The order of `estimates`, for two thirds of its time.
        """
        result = self._aligned(self._differing(unit), rowids).view(np.int16)
        return np.subtract(unit.size, result, dtype=np.int16)

    def _differing(self, unit: NDArray[np.float32]) -> NDArray[np.uint16]:
        """Return, by place, how many signs differ; place -1, what has no vector: one more than all.

        Few enough for 15 bits: a vector has at most 8 192 components.
        """
        if self._bits is None:
            self._bits = _sign_bits(self._rows)
        asked = _sign_bits(unit[None, :])
        differing = np.zeros(self._count + 1, np.uint16)
        mixed = np.empty(self._count, np.uint64)
        ones = np.empty(self._count, np.uint8)
        for column, word in zip(self._bits, asked, strict=True):
            np.bitwise_xor(column[: self._count], word[0], out=mixed)
            np.bitwise_count(mixed, out=ones)
            differing[:-1] += ones
        differing[-1] = unit.size + 1
        return differing

    def _aligned(self, by_place: NDArray[S], rowids: NDArray[np.int64]) -> NDArray[S]:
        """Return the element of each row's vector, the last one for what has none.

        Where the vectors stand is kept: queries ask for all turns in their order, again and again.
        """
        if self._last is None or self._last[0] is not rowids:
            places = self._places_of(rowids)
            in_order = places.size == self._count and bool((places == np.arange(self._count)).all())
            self._last = (rowids, None if in_order else places)
        kept = self._last[1]
        return by_place[:-1] if kept is None else by_place.take(kept)

    def _places_of(self, rowids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return where each row's vector stands, -1 where it has none."""
        result = np.full(rowids.shape, -1, np.int64)
        inside = rowids < self._places.size
        result[inside] = self._places[rowids[inside]]
        return result

    def _size(self) -> int:
        return self._count

    def _fits(self, state: State) -> bool:
        return self._space == state.space

    def _clear(self, dim: int, capacity: int = 0) -> None:
        self._count = 0
        self._rows = np.empty((capacity, dim), np.float32)
        self._rowids = np.empty(capacity, np.int64)
        self._places = np.empty(0, np.int32)
        self._bits = self._last = None

    def _load(self, conn: apsw.Connection, state: State) -> None:
        self._space = state.space
        if state.space is None:
            self._clear(0)
            return
        rowids, rows = read_all(conn, state.space.dim)
        self._count = len(rowids)
        self._rows, self._rowids, self._bits, self._last = rows, rowids, None, None
        self._places = np.full(int(rowids.max(initial=0)) + 1, -1, np.int32)
        self._places[rowids] = np.arange(self._count, dtype=np.int32)

    def _catch_up(self, conn: apsw.Connection, state: State, since: int) -> None:
        changes: list[Any] = conn.execute(
            "SELECT rowid, vector FROM document WHERE changed > ? ORDER BY changed", (since,)
        ).fetchall()
        self._last = None
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
        if self._bits is not None:
            self._bits[:, place] = _sign_bits(row[None, :])[:, 0]

    def _remove(self, rowid: int) -> None:
        place = int(self._places[rowid]) if rowid < self._places.size else -1
        if place < 0:
            return
        last = self._count - 1
        moved = self._rowids[last]
        self._rows[place] = self._rows[last]
        self._rowids[place] = moved
        if self._bits is not None:
            self._bits[:, place] = self._bits[:, last]
        self._places[moved] = place
        self._places[rowid] = -1
        self._count = last

    def _reserve(self, rows: int, places: int) -> None:
        if rows > self._rowids.size:
            capacity = max(64, 2 * self._rowids.size, rows)
            self._rows = _grown(self._rows, capacity)
            self._rowids = _grown(self._rowids, capacity)
            if self._bits is not None:
                self._bits = np.ascontiguousarray(_grown(self._bits.T, capacity).T)
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
        self, conn: apsw.Connection, unit: NDArray[np.float32], rowids: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """See `Vectors`."""
        found = np.full(int(rowids.max(initial=0)) + 1, np.nan, np.float32)
        if self._dim:
            for ids, rows in _read_parts(conn, self._dim):
                found[ids] = _cosines(unit_rows(rows), unit)
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
        data = np.frombuffer(b"".join(chunk[2] for chunk in part), "<f4")
        if not rowids.size == valid.size == data.size / dim:
            raise apsw.CorruptError("a part of the vector table has not the size that it must have")
        rows = data.reshape(-1, dim)
        if not valid.all():
            rowids, rows = rowids[valid], rows[valid]
        check_rowids(conn, rowids)
        yield rowids, rows


def _cosines(rows: NDArray[np.float32], unit: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the dot product of each row with `unit`, on this thread alone.

    A matrix product would be spread over all cores: 1.3 times as fast on an idle machine, and 15
    times as slow (0.7 ms against 11 ms for 10 000 rows) when the other cores are busy, such as with
    embedding.
    """
    result: NDArray[np.float32] = np.vecdot(rows, unit)
    return result


def _sign_bits(rows: NDArray[np.float32]) -> NDArray[np.uint64]:
    """Return which components are positive, shape (words of 64 dimensions, rows)."""
    words = -(-rows.shape[1] // 64)
    result = np.empty((words, len(rows)), np.uint64)
    padded = np.zeros((min(len(rows), SIGN_ROWS), words * 8), np.uint8)
    for start in range(0, len(rows), SIGN_ROWS):
        signs = np.packbits(rows[start : start + SIGN_ROWS] > 0, axis=1)
        padded[: len(signs), : signs.shape[1]] = signs
        result[:, start : start + len(signs)] = padded[: len(signs)].view(np.uint64).T
    return result


def _grown(array: NDArray[Any], capacity: int) -> NDArray[Any]:
    result = np.empty((capacity, *array.shape[1:]), array.dtype)
    result[: len(array)] = array
    return result
