"""Resident columns: as new as the transaction that asks, and no larger than they must be."""

from __future__ import annotations

import math
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moss_local.search import columns as module
from moss_local.search.columns import (
    MAX_COLUMNS,
    MAX_TABLES,
    NEW_VALUES,
    UNSORTED_VALUES,
    Column,
    ResidentColumns,
)
from moss_local.search.filter_sql import StoredColumns
from moss_local.search.filters import MAX_CONDITIONS, parse_filter
from moss_local.search.matching import matches
from moss_local.search.readings import distance_m, place_of
from moss_local.storage.documents import Document
from moss_local.storage.edits import delete_documents, put_documents
from moss_local.storage.file import SessionFile, open_session_file
from moss_local.storage.rows import purge_tombstones
from moss_local.storage.state import read_state


@pytest.fixture
def file(tmp_path: Path) -> Iterator[SessionFile]:
    opened = open_session_file(tmp_path / "s.sqlite3", session="s", durability="normal")
    yield opened
    opened.close()


def put(file: SessionFile, documents: dict[str, dict[str, str] | None]) -> None:
    with file.writing() as conn:
        given = [Document(id, "text", metadata) for id, metadata in documents.items()]
        put_documents(conn, given, space=None, now_ms=1)


def condition(field: str, **operators: Any) -> dict[str, Any]:
    return {"field": field, "condition": {f"${name}": value for name, value in operators.items()}}


def ask(
    file: SessionFile, columns: ResidentColumns | StoredColumns, filter: dict[str, Any]
) -> set[str]:
    with file.reading() as conn:
        columns.follow(conn, read_state(conn))
        mask = columns.mask(conn, parse_filter(filter, now_ms=0))
        rows: list[Any] = conn.execute(
            "SELECT rowid, id FROM document WHERE deleted = 0"
        ).fetchall()
        return {id for rowid, id in rows if mask[rowid]}


def test_columns_follow_additions_changes_and_deletions(file: SessionFile) -> None:
    columns = ResidentColumns()
    wanted = condition("x", eq="1")
    put(file, {f"other-{n}": None for n in range(100)})
    put(file, {"a": {"x": "1"}, "b": {"x": "2"}})
    assert ask(file, columns, wanted) == {"a"}
    put(file, {"b": {"x": "1"}, "c": {"x": "1", "y": "1"}})
    assert ask(file, columns, wanted) == {"a", "b", "c"}
    put(file, {"a": {"y": "1"}, "b": None})
    assert ask(file, columns, wanted) == {"c"}
    with file.writing() as conn:
        delete_documents(conn, ["c"], now_ms=2)
    assert ask(file, columns, wanted) == set()
    assert "c" not in ask(file, columns, {"$not": wanted})
    put(file, {"c": {"x": "1"}})
    assert ask(file, columns, wanted) == {"c"}


def test_a_purge_and_a_bulk_load_are_followed_too(file: SessionFile) -> None:
    columns = ResidentColumns()
    put(file, {f"d{n}": {"x": str(n)} for n in range(50)})
    assert len(ask(file, columns, condition("x", lt=10))) == 10
    with file.writing() as conn:
        delete_documents(conn, ["d1"], now_ms=2)
        conn.execute("UPDATE document SET dirty = 0, commit_seq = 1")
        purge_tombstones(conn, commit_seq=1)
    assert len(ask(file, columns, condition("x", lt=10))) == 9
    put(file, {f"e{n}": {"x": str(n)} for n in range(500)})
    assert len(ask(file, columns, condition("x", lt=10))) == 19


def test_only_the_fields_that_are_asked_for_are_resident(file: SessionFile) -> None:
    columns = ResidentColumns()
    put(file, {"a": {f"f{n}": "1" for n in range(MAX_COLUMNS + 5)}})
    assert columns.fields == []
    ask(file, columns, condition("f1", eq="1"))
    assert columns.fields == ["f1"]
    for n in range(MAX_COLUMNS + 5):
        assert ask(file, columns, condition(f"f{n}", eq="1")) == {"a"}
        ask(file, columns, condition("f1", eq="1"))
    assert len(columns.fields) == MAX_COLUMNS
    assert columns.fields[-1] == "f1"


def test_values_that_no_document_has_any_more_do_not_pile_up(
    file: SessionFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SPARE_VALUES", 20)
    columns = ResidentColumns()
    put(file, {f"d{n}": {"x": "same"} for n in range(20)})
    changes = 100
    for n in range(changes):
        put(file, {"d0": {"x": f"value {n}"}})
        assert ask(file, columns, condition("x", eq=f"value {n}")) == {"d0"}
    with file.reading() as conn:
        assert len(columns._column(conn, "x").values) < changes


def test_a_broken_catch_up_is_made_good_by_the_next_one(
    file: SessionFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    columns = ResidentColumns()
    put(file, {f"d{n}": {"x": "1"} for n in range(20)})
    ask(file, columns, condition("x", eq="1"))
    put(file, {"d3": {"x": "2"}, "d4": {"x": "2"}})
    real = module.json.loads

    def once(text: str) -> Any:
        monkeypatch.setattr(module.json, "loads", real)
        raise KeyboardInterrupt

    monkeypatch.setattr(module.json, "loads", once)
    with pytest.raises(KeyboardInterrupt):
        ask(file, columns, condition("x", eq="2"))
    assert ask(file, columns, condition("x", eq="2")) == {"d3", "d4"}


def test_codes_are_equal_where_values_are(file: SessionFile) -> None:
    put(file, {"a": {"x": "1"}, "b": {"x": "2"}, "c": {"y": "1"}, "d": {"x": "1"}})
    for columns in (ResidentColumns(), StoredColumns()):
        with file.reading() as conn:
            columns.follow(conn, read_state(conn))
            codes = columns.codes(conn, "x")
            rowid_of: dict[Any, Any] = dict(conn.execute("SELECT id, rowid FROM document"))
            a, b, c, d = (codes[rowid_of[id]] for id in "abcd")
            assert a == d != b
            assert c == -1


def test_a_filter_as_wide_as_allowed_runs_in_sql_too(file: SessionFile) -> None:
    put(file, {"a": {"x": str(MAX_CONDITIONS - 1)}, "b": {"x": "none"}})
    wide = {"$or": [condition("x", eq=n) for n in range(MAX_CONDITIONS)]}
    assert ask(file, StoredColumns(), wide) == {"a"}
    assert ask(file, ResidentColumns(), wide) == {"a"}


def filled(values: list[str]) -> Column:
    column = Column(0)
    for rowid, value in enumerate(values):
        column.set(rowid, value)
    return column


@pytest.mark.parametrize("operators", [{"lt": "v2"}, {"contains": "7"}, {"gte": "v3", "ne": "v5"}])
def test_what_was_computed_about_values_grows_with_them(operators: dict[str, Any]) -> None:
    tree: Any = parse_filter(condition("x", **operators), now_ms=0)
    column, known = Column(0), [f"v{n * 7919 % 1000}" for n in range(2000)]
    rng = np.random.default_rng(5)
    while len(column.values) < 1000:
        start = len(column.codes)
        for _ in range(int(rng.choice([1, 3, NEW_VALUES + 1, UNSORTED_VALUES + 1]))):
            column.set(start, known[start % len(known)])
            start += 1
        live = column.codes >= 0
        mask = module.where(tree, live, lambda _: column)
        expected = [
            code >= 0 and matches(tree, {"x": column.values[code]}) for code in column.codes
        ]
        assert mask.tolist() == expected


def test_the_outcomes_that_are_kept_are_few() -> None:
    column = filled(["a", "b"])
    for n in range(3 * MAX_TABLES):
        tree: Any = parse_filter(condition("x", contains=str(n)), now_ms=0)
        module.where(tree, column.codes >= 0, lambda _: column)
    assert len(column._tables) == MAX_TABLES


def test_the_rim_of_a_circle_and_equal_floats_are_decided_exactly() -> None:
    rng = np.random.default_rng(7)
    points = [(float(lat), float(lng)) for lat, lng in rng.uniform((-90, -180), (90, 180), (40, 2))]
    points += [(-lat, lng - 180 if lng > 0 else lng + 180) for lat, lng in points[:10]]
    points += [(lat + 1e-7, lng) for lat, lng in points[:10]]
    column = filled([f"{lat:.12f},{lng:.12f}" for lat, lng in points])
    live = column.codes >= 0
    center = place_of(column.values[0])
    assert center is not None
    for value in column.values:
        place = place_of(value)
        assert place is not None
        radius = distance_m(place, center)
        for around in (radius, math.nextafter(radius, 0), math.nextafter(radius, math.inf)):
            near = f"{column.values[0]},{Decimal(round(around, 300)):f}"
            tree: Any = parse_filter(condition("x", near=near), now_ms=0)
            mask = module.where(tree, live, lambda _: column)
            expected = [matches(tree, {"x": other}) for other in column.values]
            assert mask[: len(column.values)].tolist() == expected

    digits = [f"9007199254740992.{n:03}" for n in range(50)]  # all of them one and the same float
    column = filled(digits)
    for n in range(50):
        tree = parse_filter(condition("x", gte=digits[n], lt=digits[-1]), now_ms=0)
        mask = module.where(tree, column.codes >= 0, lambda _: column)
        assert np.flatnonzero(mask).tolist() == list(range(n, 49))
