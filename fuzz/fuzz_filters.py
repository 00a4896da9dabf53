"""Filters: InvalidArgumentError, or three evaluators that agree: plain reading of one document
after the other, resident columns, and SQL."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from fuzz.shapes import scratch, text_of
from moss_local.search.columns import ResidentColumns
from moss_local.search.filter_sql import StoredColumns
from moss_local.search.filters import parse_filter
from moss_local.search.matching import matches
from moss_local.storage.documents import Document
from moss_local.storage.edits import put_documents
from moss_local.storage.file import SessionFile, open_session_file
from moss_local.storage.rows import get_documents
from moss_local.storage.state import read_state
from moss_sync import InvalidArgumentError

NOW_MS = 1_715_941_800_000
FIELDS = ("a", "b", "", 'quo"te', "dot.ted", "$[0]", "ключ")
VALUES = (
    *("", "0", "-0", "5", "05", "5.0", "+5", "10", "-10", "1e3", "10 ", ".5", "true", "refund"),
    *("9007199254740993", "1" + "0" * 400, "2024", "2024-05-17", "2024-05-17T10:30:00Z"),
    *("52.5219,13.4132", "0,180", "91,0", "Straße", "返金", "a\0b"),
)


@cache
def stored() -> tuple[SessionFile, ResidentColumns, StoredColumns]:
    file = open_session_file(scratch() / "filters.sqlite3", session="s", durability="normal")
    documents = [Document("none", "text"), Document("empty", "text", {})]
    for place, value in enumerate(VALUES):
        metadata = {FIELDS[place % len(FIELDS)]: value, FIELDS[(place + 3) % len(FIELDS)]: "5"}
        documents.append(Document(f"d{place}", "text", metadata))
    with file.writing() as conn:
        put_documents(conn, documents, space=None, now_ms=1)
    return file, ResidentColumns(), StoredColumns()


def one(data: bytes) -> None:
    try:
        value = json.loads(text_of(data))
    except (ValueError, RecursionError):
        return
    try:
        wanted = parse_filter(value, now_ms=NOW_MS)
    except InvalidArgumentError:
        return
    file, *columns = stored()
    with file.reading() as conn:
        plainly = {d.id for d in get_documents(conn) if matches(wanted, d.metadata)}
        rows: list[Any] = conn.execute("SELECT rowid, id FROM document").fetchall()
        for each in columns:
            each.follow(conn, read_state(conn))
            mask = each.mask(conn, wanted)
            assert {id for rowid, id in rows if mask[rowid]} == plainly, type(each).__name__
