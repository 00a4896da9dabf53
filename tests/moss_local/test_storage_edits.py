"""Documents put and deleted by this device."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moss_local.storage.documents import Document
from moss_local.storage.edits import PutCounts, delete_documents, put_documents
from moss_local.storage.file import SessionFile, open_session_file
from moss_local.storage.rows import count_documents, get_documents, purge_tombstones
from moss_local.storage.state import read_state
from moss_sync import InvalidArgumentError, ModelMismatchError, VectorSpace

SPACE = VectorSpace("tiny", "f0", 2, "f2")
OWN = VectorSpace("custom", "custom-2", 2, "f4")


@pytest.fixture
def file(tmp_path: Path) -> Iterator[SessionFile]:
    opened = open_session_file(tmp_path / "s.sqlite3", session="s", durability="normal")
    yield opened
    opened.close()


def put(file: SessionFile, *documents: Document, now_ms: int = 1, **options: Any) -> PutCounts:
    options.setdefault("space", SPACE)
    with file.writing() as conn:
        return put_documents(conn, documents, now_ms=now_ms, **options)


def texts(file: SessionFile) -> dict[str, str]:
    with file.reading() as conn:
        documents = get_documents(conn)
        assert count_documents(conn) == len(documents)
    return {document.id: document.text for document in documents}


def vec(*values: float) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.array(values, np.float32)


def test_a_put_counts_what_was_not_there_and_what_was(file: SessionFile) -> None:
    assert put(file, Document("a", "1"), Document("b", "1")) == PutCounts(2, 0)
    assert put(file, Document("b", "2"), Document("c", "1")) == PutCounts(1, 1)
    assert texts(file) == {"a": "1", "b": "2", "c": "1"}


def test_without_upsert_what_is_there_stays_and_counts_in_neither(file: SessionFile) -> None:
    put(file, Document("a", "1"))
    assert put(file, Document("a", "2"), Document("b", "1"), upsert=False) == PutCounts(1, 0)
    assert texts(file) == {"a": "1", "b": "1"}


def test_an_id_that_comes_twice_is_as_if_put_twice(file: SessionFile) -> None:
    assert put(file, Document("a", "1"), Document("b", "1"), Document("a", "2")) == PutCounts(2, 1)
    assert texts(file) == {"a": "2", "b": "1"}
    twice = [Document("c", "1"), Document("c", "2")]
    assert put(file, *twice, upsert=False) == PutCounts(1, 0)
    assert texts(file)["c"] == "1"


def test_ids_that_differ_in_case_or_form_alone_are_different_documents(file: SessionFile) -> None:
    ids = ["a", "A", "é", "e\u0301", "ﬁ", "fi", "a ", "a\0"]
    put(file, *(Document(id, repr(id)) for id in ids))
    assert texts(file) == {id: repr(id) for id in ids}


def test_the_same_document_again_is_a_write_that_beats_whatever_came_before_it(
    file: SessionFile,
) -> None:
    # It must win over a deletion elsewhere that has not arrived here yet.
    document = Document("a", "1", {"k": "v"}, "p", vec(1, 2))
    put(file, document)
    with file.reading() as conn:
        before = get_documents(conn)[0].hlc
    assert put(file, document) == PutCounts(0, 1)
    with file.reading() as conn:
        [stored] = get_documents(conn)
    assert stored.hlc > before
    assert stored.dirty


def test_none_and_empty_are_kept_apart(file: SessionFile) -> None:
    put(file, Document("a", ""), Document("b", "", {}, ""))
    with file.reading() as conn:
        a, b = get_documents(conn)
    assert (a.metadata, a.payload) == (None, None)
    assert (b.metadata, b.payload) == ({}, "")


def test_a_delete_counts_what_was_there(file: SessionFile) -> None:
    put(file, Document("a", "1", vector=vec(1, 0)), Document("b", "1"))
    with file.writing() as conn:
        assert delete_documents(conn, ["a", "nothing", "a"], now_ms=2) == 1
        assert delete_documents(conn, ["a"], now_ms=3) == 0
    assert texts(file) == {"b": "1"}
    with file.reading() as conn:
        assert conn.execute("SELECT count(*) FROM vec").get == 0
        assert conn.execute("SELECT count(*) FROM keyword").get == 1
    assert put(file, Document("a", "again")) == PutCounts(1, 0)
    assert texts(file) == {"a": "again", "b": "1"}


def test_documents_come_back_in_the_order_asked_for(file: SessionFile) -> None:
    put(file, *(Document(id, "x") for id in "cab"))
    with file.reading() as conn:
        asked = get_documents(conn, ["b", "nothing", "a", "b"])
        assert [document.id for document in asked] == ["b", "a", "b"]
        assert [document.id for document in get_documents(conn)] == ["a", "b", "c"]
        assert get_documents(conn, []) == []


BAD = [
    Document("", "x"),
    Document("é" * 513, "x"),
    Document("\ud800", "x"),
    Document("bad", "\udfff"),
    Document("bad", "x" * (1024 * 1024 + 1)),
    Document("bad", "x", {"k": "\ud800"}),
    Document("bad", "x", {"\ud800": "v"}),
    Document("bad", "x", {"k": 1}),  # type: ignore[dict-item]  # what people pass
    Document("bad", "x", {"a": "v" * 600_000, "b": "v" * 600_000}),
    Document("bad", "x", None, "\ud800"),
    Document("bad", None),  # type: ignore[arg-type]  # what people pass
    Document(3, "x"),  # type: ignore[arg-type]  # what people pass
    Document("bad", "x", vector=vec(1, 2, 3)),
    Document("bad", "x", vector=vec(0, 0)),
    Document("bad", "x", vector=vec(1, float("nan"))),
    Document("bad", "x", vector=vec(1, float("inf"))),
    Document("bad", "x", vector=np.array([1e300, 0])),
    Document("bad", "x", vector=np.ones((2, 1), np.float32)),
]


@pytest.mark.parametrize("bad", BAD)
def test_one_bad_document_of_many_stores_none_and_is_named(
    file: SessionFile, bad: Document
) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        put(file, Document("good", "x", vector=vec(1, 0)), bad)
    if isinstance(bad.id, str) and bad.id == "bad":
        assert "'bad'" in str(caught.value)
    assert texts(file) == {}
    with file.reading() as conn:
        assert read_state(conn).space is None


def test_what_is_just_within_the_limits_is_stored(file: SessionFile) -> None:
    put(file, Document("é" * 512, "x" * 1024 * 1024, {"k": "v" * (1024 * 1024 - 1)}))
    assert len(texts(file)) == 1


@pytest.mark.parametrize(
    "other",
    [
        VectorSpace("tiny", "f1", 2, "f2"),
        VectorSpace("tiny", "f0", 3, "f2"),
        VectorSpace("other", "f1", 2, "f4"),
    ],
)
def test_vectors_of_another_model_are_refused_before_anything_is_written(
    file: SessionFile, other: VectorSpace
) -> None:
    put(file, Document("a", "1", vector=vec(1, 0)))
    document = Document("b", "1", vector=np.ones(other.dim, np.float32))
    with pytest.raises(ModelMismatchError, match="tiny"):
        put(file, Document("a", "2"), document, space=other)
    assert texts(file) == {"a": "1"}


def test_a_faster_graph_of_the_same_space_is_welcome(file: SessionFile) -> None:
    put(file, Document("a", "1", vector=vec(1, 0)))
    put(file, Document("b", "1", vector=vec(1, 0)), space=VectorSpace("tiny-2", "f0", 2, "f2"))
    assert len(texts(file)) == 2


def test_a_vector_needs_a_named_space(file: SessionFile) -> None:
    with pytest.raises(InvalidArgumentError, match="no vector space"):
        put(file, Document("a", "1", vector=vec(1, 0)), space=None)


def test_local_writes_are_dirty_and_say_who_wrote_them_and_when(file: SessionFile) -> None:
    put(file, Document("a", "1"), now_ms=1_700_000_000_000)
    with file.reading() as conn:
        (document,) = get_documents(conn)
        assert document.dirty
        assert document.dev == read_state(conn).dev
        assert document.written_ms == 1_700_000_000_000


def test_purging_tombstones_takes_only_clean_ones_of_old_commits(file: SessionFile) -> None:
    put(file, *(Document(id, "x") for id in "abcd"))
    with file.writing() as conn:
        delete_documents(conn, "abc", now_ms=2)
        conn.execute("UPDATE document SET dirty = 0, commit_seq = 5 WHERE id IN ('a', 'd')")
        conn.execute("UPDATE document SET dirty = 0, commit_seq = 6 WHERE id = 'b'")
        assert purge_tombstones(conn, commit_seq=5) == 1
        rows = [row[0] for row in conn.execute("SELECT id FROM document ORDER BY id")]
        assert rows == ["b", "c", "d"]
        state = read_state(conn)
        assert state.journal_floor == state.local_seq
        assert purge_tombstones(conn, commit_seq=5) == 0
