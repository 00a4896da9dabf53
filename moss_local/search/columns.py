"""Metadata in memory, a column for each field that is asked for, so that a filter is a mask.

A column holds a code for each document and each distinct value once; what a value reads as (a
number, a time, a place) is found out once a value and kept as an array. A column is read from the
file when a query first uses its field, and then follows the file's changes. Everything is by row
id, which are small and dense.

A filter over 100 000 documents costs 0.02 to 0.2 ms this way, and 20 to 200 ms in SQL.

What holds (tests/moss_local/test_search_columns.py, tests/properties/test_filters.py): after any
writes of two connections every filter finds what the plain reading of it finds.
"""

from __future__ import annotations

import json
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Protocol

import apsw
import numpy as np
from numpy.typing import NDArray

from moss_local.search.filters import Filter, Test
from moss_local.search.follower import Follower
from moss_local.search.masks import NO_TIME, unit_place, where
from moss_local.search.matching import passes
from moss_local.search.readings import decimal_of, moments_of, place_of
from moss_local.storage.state import State

MAX_COLUMNS = 32
"""Fields that are resident at once; the least recently used goes. Four bytes a document each, and
about 150 a distinct value."""

MAX_TABLES = 8
"""Conditions of one field whose outcome is kept: an agent asks with the same filter all day."""

SPARE_VALUES = 1024
"""A column is read anew when it knows so many values more than twice the documents there are: the
values of changed and deleted documents are not taken back one by one."""

NEW_VALUES = 64
"""So many values that came since are asked one by one; more, and a condition is decided anew."""

UNSORTED_VALUES = 256
"""So many values may come after the sorted ones before all are sorted again (1 ms for 10 000)."""


_NOWHERE = np.full(3, np.nan)


class Columns(Protocol):
    """Where a file's metadata can be asked; arrays are by row id, up to the last document's."""

    def follow(self, conn: apsw.Connection, state: State) -> None:
        """Become what the current transaction sees; `state` was read in it."""
        ...

    def mask(self, conn: apsw.Connection, filter: Filter) -> NDArray[np.bool_]:
        """Return which documents match."""
        ...

    def codes(self, conn: apsw.Connection, field: str) -> NDArray[np.int32]:
        """Return a number for each document's value of a field, -1 where it has none.

        Equal numbers are equal values; a copy, so the caller may keep it.
        """
        ...


class Column:
    """One field: `codes` by row id into `values`, -1 where a document has no value.

    The arrays about values cover all of them when they are asked for, and grow with them.
    """

    def __init__(self, rows: int) -> None:
        self.codes: NDArray[np.int32] = np.full(rows, -1, np.int32)
        self.values: list[str] = []
        self._code_of: dict[str, int] = {}
        self._numbers: NDArray[np.float64] = np.empty(0, np.float64)
        self._times: NDArray[np.int64] = np.empty(0, np.int64)
        self._places: NDArray[np.float64] = np.empty((0, 3), np.float64)
        self._folded: list[str] = []
        self._sorted: NDArray[np.int32] = np.empty(0, np.int32)
        self._tables: OrderedDict[tuple[Test, ...], NDArray[np.bool_]] = OrderedDict()

    def set(self, rowid: int, value: str | None) -> None:
        """Give a document its value, or take it."""
        if rowid >= self.codes.size:
            self.codes = _grown(self.codes, rowid + 1, -1)
        if value is None:
            self.codes[rowid] = -1
            return
        code = self._code_of.get(value)
        if code is None:
            code = self._code_of[value] = len(self.values)
            self.values.append(value)
        self.codes[rowid] = code

    def code(self, value: str) -> int:
        """Return the code of a value, -1 if no document ever had it."""
        return self._code_of.get(value, -1)

    def numbers(self) -> NDArray[np.float64]:
        """Return each value as a float, NaN where it is no plain decimal.

        Rounding keeps order: only values whose floats are equal can be in another order.
        """
        new = self.values[len(self._numbers) :]
        if new:
            read = (decimal_of(value) for value in new)
            more = np.fromiter((np.nan if n is None else float(n) for n in read), np.float64)
            self._numbers = np.concatenate([self._numbers, more])
        return self._numbers

    def times(self) -> NDArray[np.int64]:
        """Return the first moment of each value in µs since 1970, NO_TIME where it is no time."""
        new = self.values[len(self._times) :]
        if new:
            read = (moments_of(value) for value in new)
            more = np.fromiter((NO_TIME if m is None else m[0] for m in read), np.int64)
            self._times = np.concatenate([self._times, more])
        return self._times

    def places(self) -> NDArray[np.float64]:
        """Return each value as a point on the unit sphere, shape (values, 3), NaN if it is none."""
        new = self.values[len(self._places) :]
        if new:
            read = (place_of(value) for value in new)
            more = np.array([_NOWHERE if place is None else unit_place(place) for place in read])
            self._places = np.concatenate([self._places, more])
        return self._places

    def folded(self) -> list[str]:
        """Return each value case-folded."""
        self._folded += [_folded(value) for value in self.values[len(self._folded) :]]
        return self._folded

    def below(self, bound: str, *, inclusive: bool) -> NDArray[np.bool_]:
        """Return which values stand before `bound` by code point, or at it if `inclusive`."""
        count, known = len(self.values), len(self._sorted)
        if count - known > max(UNSORTED_VALUES, known // 8):
            order = sorted(range(count), key=self.values.__getitem__)
            self._sorted, known = np.array(order, np.int32), count
        result = np.zeros(count, np.bool_)
        find = bisect_right if inclusive else bisect_left
        ordered: Any = self._sorted  # what bisect asks of a sequence, an array can do
        result[self._sorted[: find(ordered, bound, key=self.values.__getitem__)]] = True
        for code in range(known, count):
            value = self.values[code]
            result[code] = value < bound or (inclusive and value == bound)
        return result

    def table(
        self, tests: tuple[Test, ...], make: Callable[[], NDArray[np.bool_]]
    ) -> NDArray[np.bool_]:
        """Return which values pass all tests, of which `make` makes the outcome if it must."""
        table = self._tables.pop(tests, None)
        new = self.values[len(table) :] if table is not None else ()
        if table is None or len(new) > NEW_VALUES:
            table = make()
        elif new:
            more = [all(passes(test, value) for test in tests) for value in new]
            table = np.append(table, np.array(more, np.bool_))
        self._tables[tests] = table
        if len(self._tables) > MAX_TABLES:
            self._tables.popitem(last=False)
        return table


class ResidentColumns(Follower):
    """The columns of one file in memory."""

    def __init__(self) -> None:
        super().__init__()
        self._live: NDArray[np.bool_] = np.zeros(0, np.bool_)
        self._count = 0
        self._columns: OrderedDict[str, Column] = OrderedDict()

    def mask(self, conn: apsw.Connection, filter: Filter) -> NDArray[np.bool_]:
        """See `Columns`."""
        return where(filter, self._live, lambda field: self._column(conn, field))

    def codes(self, conn: apsw.Connection, field: str) -> NDArray[np.int32]:
        """See `Columns`."""
        return self._column(conn, field).codes.copy()

    @property
    def fields(self) -> list[str]:
        """What is resident, the least recently used first."""
        return list(self._columns)

    def _column(self, conn: apsw.Connection, field: str) -> Column:
        column = self._columns.get(field)
        if column is None:
            column = Column(self._live.size)
            for rowid, value in values_of(conn, field):
                column.set(rowid, value)
            self._columns[field] = column
        elif column.codes.size < self._live.size:
            column.codes = _grown(column.codes, self._live.size, -1)
        self._columns.move_to_end(field)
        if len(self._columns) > MAX_COLUMNS:
            self._columns.popitem(last=False)
        return column

    def _size(self) -> int:
        return self._count

    def _load(self, conn: apsw.Connection, state: State) -> None:
        self._columns.clear()
        rowids = live_rowids(conn)
        self._count = rowids.size
        self._live = np.zeros(int(rowids.max(initial=0)) + 1, np.bool_)
        self._live[rowids] = True

    def _catch_up(self, conn: apsw.Connection, state: State, since: int) -> None:
        changes: list[Any] = conn.execute(
            "SELECT rowid, deleted, metadata FROM document WHERE changed > ? ORDER BY changed",
            (since,),
        ).fetchall()
        last = max((rowid for rowid, _, _ in changes), default=0)
        if last >= self._live.size:
            self._live = _grown(self._live, last + 1, False)
        for rowid, deleted, metadata in changes:
            self._live[rowid] = not deleted
            if self._columns:
                given = {} if deleted or metadata is None else json.loads(metadata)
                for field, column in self._columns.items():
                    column.set(rowid, given.get(field))
        self._count = state.live
        for field in self.fields:
            if len(self._columns[field].values) > 2 * self._count + SPARE_VALUES:
                del self._columns[field]


def live_rowids(conn: apsw.Connection) -> NDArray[np.int64]:
    """Return the row ids of all documents, ascending."""
    rows: list[Any] = conn.execute(
        "SELECT rowid FROM document WHERE deleted = 0 ORDER BY rowid"
    ).fetchall()
    return np.fromiter((row[0] for row in rows), np.int64, len(rows))


def values_of(conn: apsw.Connection, field: str) -> Any:
    """Return row id and value of every document that has the field."""
    return conn.execute(
        "SELECT document.rowid, item.value FROM document, json_each(document.metadata) AS item"
        " WHERE document.deleted = 0 AND item.key = ?",
        (field,),
    )


def _folded(value: str) -> str:
    folded = value.casefold()
    return value if folded == value else folded  # the same string need not be kept twice


def _grown(array: NDArray[Any], size: int, fill: object) -> NDArray[Any]:
    """Return a longer array with room to spare, so that growing one by one stays cheap."""
    result = np.full(max(64, size + size // 8), fill, array.dtype)
    result[: array.size] = array
    return result
