"""Documents fetched by filter, sorted, grouped and limited, from one session's file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from moss_local.options import choose_get
from moss_local.search.fetch import fetch
from moss_local.storage.documents import Document
from moss_local.storage.edits import put_documents
from moss_local.storage.file import SessionFile, open_session_file
from moss_local.types import GetDocumentsOptions, ParentGrouping
from moss_sync import InvalidArgumentError

CALLS = {
    "call-1#0": {"call": "1", "n": "0", "who": "Ana"},
    "call-1#10": {"call": "1", "n": "10", "who": "Bo"},
    "call-1#9": {"call": "1", "n": "9", "who": "Ana"},
    "call-2#0": {"call": "2", "n": "0", "who": "Ana"},
    "note": None,
    "plan": {"n": "x"},
}


@pytest.fixture
def file(tmp_path: Path) -> Iterator[SessionFile]:
    opened = open_session_file(tmp_path / "s.sqlite3", session="s", durability="normal")
    with opened.writing() as conn:
        documents = [Document(id, f"text of {id}", given) for id, given in CALLS.items()]
        put_documents(conn, documents, space=None, now_ms=1)
    yield opened
    opened.close()


def ids(file: SessionFile, **options: Any) -> list[str]:
    choice = choose_get(GetDocumentsOptions(**options), now_ms=0)
    return [document.id for document in fetch(file, choice)]


ANA = {"field": "who", "condition": {"$eq": "Ana"}}


def test_without_options_all_come_in_the_order_of_their_ids(file: SessionFile) -> None:
    assert ids(file) == sorted(CALLS)
    assert [document.id for document in fetch(file, choose_get(None, now_ms=0))] == sorted(CALLS)


def test_a_filter_narrows_all_and_named_documents_alike(file: SessionFile) -> None:
    assert ids(file, filter=ANA) == ["call-1#0", "call-1#9", "call-2#0"]
    assert ids(file, filter={"$not": ANA}) == ["call-1#10", "note", "plan"]
    named = ["note", "call-2#0", "unknown", "call-1#10", "call-1#0"]
    assert ids(file, doc_ids=named, filter=ANA) == ["call-2#0", "call-1#0"]
    assert ids(file, doc_ids=[], filter=ANA) == []


def test_sorting_is_by_number_then_text_and_ids_are_an_order_already(file: SessionFile) -> None:
    assert ids(file, sort_by="n") == [
        "call-1#0",
        "call-2#0",
        "call-1#9",
        "call-1#10",
        "plan",
        "note",
    ]
    assert ids(file, sort_by="n", ascending=False, filter=ANA) == [
        "call-1#9",
        "call-1#0",
        "call-2#0",
    ]
    assert ids(file, doc_ids=["plan", "call-1#0"], sort_by="n") == ["plan", "call-1#0"]


def test_groups_are_of_everything_that_matches(file: SessionFile) -> None:
    by = ParentGrouping("call", "n")
    choice = choose_get(GetDocumentsOptions(group_by=by), now_ms=0)
    first, second, note, plan = fetch(file, choice)
    assert (first.id, second.id, note.id, plan.id) == ("1", "2", "note", "plan")
    assert first.text == "text of call-1#0\ntext of call-1#9\ntext of call-1#10"
    assert first.metadata == {"call": "1"}
    assert second.metadata == CALLS["call-2#0"]
    assert (note.text, note.metadata) == ("text of note", None)
    choice = choose_get(GetDocumentsOptions(group_by=by, filter=ANA), now_ms=0)
    assert [found.text for found in fetch(file, choice)] == [
        "text of call-1#0\ntext of call-1#9",
        "text of call-2#0",
    ]
    assert ids(file, group_by=by, sort_by="n", ascending=False) == ["plan", "1", "2", "note"]


def test_the_limit_counts_what_comes_back(file: SessionFile) -> None:
    assert ids(file, limit=2) == ["call-1#0", "call-1#10"]
    assert ids(file, limit=0) == []
    assert ids(file, limit=1, sort_by="n", ascending=False) == ["plan"]
    assert ids(file, limit=3, group_by=ParentGrouping("call", "n")) == ["1", "2", "note"]
    assert len(ids(file, limit=100)) == len(CALLS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"filter": {"who": "Ana"}}, "filter has the key 'who'"),
        ({"filter": {"$and": [ANA, {"field": "n"}]}}, "filter.$and[1] lacks the key 'condition'"),
        ({"filter": []}, "filter is a list"),
        ({"sort_by": 3}, "sort_by is the name of a field"),
        ({"ascending": "yes"}, "ascending is True or False"),
        ({"group_by": ("call", "n")}, "group_by is a ParentGrouping"),
        ({"group_by": ParentGrouping("call", None)}, "group_by.order_field"),  # type: ignore[arg-type]  # on purpose
        ({"limit": -1}, "limit is an int from 0"),
        ({"limit": True}, "limit is an int from 0"),
        ({"doc_ids": "call-1#0"}, "doc_ids is a list"),
    ],
)
def test_a_wrong_option_is_refused_by_name(
    file: SessionFile, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        ids(file, **options)
    assert str(caught.value).startswith(message)
