"""Filters in SQL: for a process that may not keep columns in memory, and for single documents.

A condition becomes one look into the document's metadata; equality and lists are SQL's own, the
other operators a function that is registered for the statement and asks `matching.passes`, so that
SQLite's idea of numbers, text and NUL characters has no say.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import apsw
import numpy as np
from numpy.typing import NDArray

from moss_local.search.columns import values_of
from moss_local.search.filters import AllOf, Among, AnyOf, Equal, Filter, Has, Not, Test
from moss_local.search.matching import passes
from moss_local.storage.state import State

_FUNCTION = "moss_passes"


class StoredColumns:
    """A file's metadata, read from its tables at every question. See `columns.Columns`."""

    def follow(self, conn: apsw.Connection, state: State) -> None:
        """There is nothing to bring up to date."""

    def mask(self, conn: apsw.Connection, filter: Filter) -> NDArray[np.bool_]:
        """See `columns.Columns`."""
        with clause(conn, filter) as (sql, parameters):
            rows: list[Any] = conn.execute(
                f"SELECT rowid FROM document WHERE deleted = 0 AND {sql}", parameters
            ).fetchall()
        result = np.zeros(_rows(conn), np.bool_)
        result[np.fromiter((row[0] for row in rows), np.int64, len(rows))] = True
        return result

    def codes(self, conn: apsw.Connection, field: str) -> NDArray[np.int32]:
        """See `columns.Columns`."""
        result = np.full(_rows(conn), -1, np.int32)
        code_of: dict[str, int] = {}
        for rowid, value in values_of(conn, field):
            result[rowid] = code_of.setdefault(value, len(code_of))
        return result


@contextmanager
def clause(conn: apsw.Connection, filter: Filter) -> Iterator[tuple[str, tuple[str | int, ...]]]:
    """Give a condition on `document` and its parameters, to be used inside the block only."""
    tests: list[Test] = []
    parameters: list[str | int] = []
    sql = _node(filter, tests, parameters)
    if not tests:
        yield sql, tuple(parameters)
        return

    def asked(*arguments: Any) -> bool:
        number, value = arguments
        return passes(tests[number], value)

    conn.create_scalar_function(_FUNCTION, asked, 2, deterministic=True)
    try:
        yield sql, tuple(parameters)
    finally:
        conn.create_scalar_function(_FUNCTION, None, 2)


def _node(filter: Filter, tests: list[Test], parameters: list[str | int]) -> str:
    match filter:
        case AllOf(parts):
            return _joined("AND", [_node(part, tests, parameters) for part in parts])
        case AnyOf(parts):
            return _joined("OR", [_node(part, tests, parameters) for part in parts])
        case Not(part):
            return f"NOT {_node(part, tests, parameters)}"
        case Has(field, conditions):
            parameters.append(field)
            # EXISTS is never NULL, so NOT and OR mean what they say.
            asked = ["key = ?", *(_test(test, tests, parameters) for test in conditions)]
            where = _joined("AND", asked)
            return f"EXISTS (SELECT 1 FROM json_each(document.metadata) WHERE {where})"


def _joined(operator: str, parts: list[str]) -> str:
    """Return the parts in a balanced tree: SQLite takes expressions of up to 1 000 levels only."""
    if len(parts) == 1:
        return parts[0]
    half = len(parts) // 2
    return f"({_joined(operator, parts[:half])} {operator} {_joined(operator, parts[half:])})"


def _test(test: Test, tests: list[Test], parameters: list[str | int]) -> str:
    match test:
        case Equal(value, wanted):
            parameters.append(value)
            return "value = ?" if wanted else "value <> ?"
        case Among(values, wanted):
            parameters.append(json.dumps(sorted(values)))
            return f"value {'IN' if wanted else 'NOT IN'} (SELECT value FROM json_each(?))"
        case _:
            parameters.append(len(tests))
            tests.append(test)
            return f"{_FUNCTION}(?, value)"


def _rows(conn: apsw.Connection) -> int:
    return (conn.execute("SELECT max(rowid) FROM document").get or 0) + 1
