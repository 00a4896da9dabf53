"""The three evaluators of filters judge each other: plain reading, resident columns, SQL."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from moss_local.search.columns import ResidentColumns
from moss_local.search.filter_sql import StoredColumns
from moss_local.search.filters import Filter, parse_filter
from moss_local.search.matching import matches
from moss_local.storage.documents import Document
from moss_local.storage.edits import delete_documents, put_documents
from moss_local.storage.file import SessionFile, open_session_file
from moss_local.storage.rows import get_documents
from moss_local.storage.state import read_state
from tests.strategies import FIELDS, VALUES, filters, tagged, texts

NOW_MS = 1_715_941_800_000
IDS = "abcdefgh"


@contextmanager
def scratch_file() -> Iterator[SessionFile]:
    with tempfile.TemporaryDirectory() as directory:
        file = open_session_file(Path(directory) / "s.sqlite3", session="s", durability="normal")
        try:
            yield file
        finally:
            file.close()


def put(file: SessionFile, documents: dict[str, dict[str, str] | None]) -> None:
    with file.writing() as conn:
        given = [Document(id, "text", metadata) for id, metadata in documents.items()]
        put_documents(conn, given, space=None, now_ms=1)


def delete(file: SessionFile, ids: list[str]) -> None:
    with file.writing() as conn:
        delete_documents(conn, ids, now_ms=1)


def by_id(file: SessionFile, columns: ResidentColumns | StoredColumns, filter: Filter) -> set[str]:
    with file.reading() as conn:
        columns.follow(conn, read_state(conn))
        mask = columns.mask(conn, filter)
        rows: list[Any] = conn.execute(
            "SELECT rowid, id FROM document WHERE deleted = 0"
        ).fetchall()
        found = {id for rowid, id in rows if mask[rowid]}
        assert len(found) == np.count_nonzero(mask)
        return found


def plainly(file: SessionFile, filter: Filter) -> set[str]:
    with file.reading() as conn:
        return {d.id for d in get_documents(conn) if matches(filter, d.metadata)}


steps = st.lists(
    st.dictionaries(st.sampled_from(IDS), tagged, max_size=6)
    | st.lists(st.sampled_from(IDS), max_size=3),
    min_size=1,
    max_size=4,
)


@settings(deadline=None)
@given(steps=steps, wanted=st.lists(filters(), min_size=1, max_size=4))
def test_all_evaluators_agree_whatever_is_written_between(
    steps: list[dict[str, dict[str, str] | None] | list[str]], wanted: list[dict[str, Any]]
) -> None:
    parsed = [parse_filter(filter, now_ms=NOW_MS) for filter in wanted]
    with scratch_file() as file:
        resident, stored = ResidentColumns(), StoredColumns()
        for step in steps:
            if isinstance(step, dict):
                put(file, step)
            else:
                delete(file, step)
            for filter in parsed:
                expected = plainly(file, filter)
                assert by_id(file, resident, filter) == expected
                assert by_id(file, stored, filter) == expected


@settings(deadline=None)
@given(filter=filters(), spare=st.lists(texts, max_size=5))
def test_all_evaluators_agree_on_every_value_at_once(
    filter: dict[str, Any], spare: list[str]
) -> None:
    parsed = parse_filter(filter, now_ms=NOW_MS)
    with scratch_file() as file:
        put(
            file,
            {
                f"{field}-{n}": {field: value, "a": str(n)}
                for field in FIELDS[:3]
                for n, value in enumerate([*VALUES, *spare])
            },
        )
        expected = plainly(file, parsed)
        assert by_id(file, ResidentColumns(), parsed) == expected
        assert by_id(file, StoredColumns(), parsed) == expected
