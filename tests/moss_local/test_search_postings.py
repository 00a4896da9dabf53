"""The resident postings are what the full-text index holds, scored as FTS5 scores it."""

from __future__ import annotations

import secrets
import tempfile
from pathlib import Path
from typing import Any

import apsw
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from moss_local.search.bm25 import Bm25
from moss_local.search.keywords import prepare_text, query_terms
from moss_local.search.postings import (
    Postings,
    ResidentPostings,
    StoredPostings,
    index_tokenizer,
)
from moss_local.storage.documents import Document
from moss_local.storage.edits import delete_documents, put_documents
from moss_local.storage.file import SessionFile, open_session_file
from moss_local.storage.rows import purge_tombstones
from moss_local.storage.state import read_state
from tests.strategies import texts

FTS5 = Bm25(k1=1.2, b=0.75, idf_power=1.0)
"""The parameters of FTS5's own bm25()."""

WORDS = (
    *("refund", "refunds", "Café", "cafe\u0301", "the", "a\0b", '"OR"', "退款", "客户要求退款"),
    *("東京タワー", "คืนเงิน", "हिन्दी", "مَرْحَبًا", "환불을", "ВОЗВРАТ", "x" * 40_000, "\u20e3", "½"),
)
sentences = st.lists(st.sampled_from(WORDS) | texts, max_size=6).map(" ".join)


def put(file: SessionFile, documents: dict[str, str]) -> None:
    with file.writing() as conn:
        rows = [Document(id, text) for id, text in documents.items()]
        put_documents(conn, rows, space=None, now_ms=1)


def delete(file: SessionFile, ids: list[str]) -> None:
    with file.writing() as conn:
        delete_documents(conn, ids, now_ms=1)


def purge(file: SessionFile) -> None:
    with file.writing() as conn:
        conn.execute("UPDATE document SET dirty = 0, commit_seq = 1 WHERE deleted = 1")
        purge_tombstones(conn, commit_seq=1)


def words_and_terms(conn: apsw.Connection, query: str) -> tuple[list[str], list[bytes]]:
    """Return words that are one term each, no term twice, and those terms."""
    tokenize = index_tokenizer(conn)
    found: dict[bytes, str] = {}
    for word in prepare_text(query.replace('"', " ")).split():
        of_word = tokenize(word)
        if len(of_word) == 1 and of_word[0]:
            found.setdefault(of_word[0], word)
    return list(found.values()), list(found)


def by_fts5(conn: apsw.Connection, words: list[str]) -> dict[int, float]:
    if not words:
        return {}
    expression = " OR ".join(f'"{word}"' for word in words)
    rows: list[Any] = conn.execute(
        "SELECT rowid, -bm25(keyword) FROM keyword WHERE keyword MATCH ?", (expression,)
    ).fetchall()
    return dict(rows)


def scores(postings: Postings, conn: apsw.Connection, terms: list[bytes]) -> dict[int, float]:
    postings.follow(conn, read_state(conn))
    size = (conn.execute("SELECT max(rowid) FROM document").get or 0) + 3
    found = postings.scores(conn, terms, np.arange(size, dtype=np.int64))
    return {int(rowid): float(found[rowid]) for rowid in np.flatnonzero(found)}


def check(resident: ResidentPostings, file: SessionFile, query: str) -> None:
    """Hold both kinds of postings to FTS5's own scores of the query's words."""
    with file.reading() as conn:
        read_state(conn)
        words, terms = words_and_terms(conn, query)
        expected = pytest.approx(by_fts5(conn, words), rel=1e-4)
        assert scores(resident, conn, terms) == expected
        assert scores(StoredPostings(FTS5), conn, terms) == expected


def second_view(path: Path) -> SessionFile:
    """Return another file object on the path: other connections, as of another process."""
    return SessionFile(
        path, session="s", durability="normal", busy_ms=1000, token=secrets.token_bytes
    )


ids = st.sampled_from([f"d{i}" for i in range(9)])
steps = st.lists(
    st.tuples(st.just("put"), st.dictionaries(ids, sentences, min_size=1), st.booleans())
    | st.tuples(st.just("delete"), st.lists(ids, min_size=1, unique=True), st.booleans())
    | st.tuples(st.just("purge"), st.none(), st.booleans())
    | st.tuples(st.just("look"), sentences, st.booleans()),
    max_size=12,
)


@settings(deadline=None)
@given(steps=steps, bulk=st.lists(sentences, max_size=60), merge=st.sampled_from([0, 3, 1000]))
def test_after_any_writes_through_two_connections_the_scores_are_fts5_s(
    steps: list[tuple[str, Any, bool]], bulk: list[str], merge: int
) -> None:
    with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        patch.setattr("moss_local.search.postings.MERGE_DOCUMENTS", merge)
        path = Path(directory) / "s.sqlite3"
        first = open_session_file(path, session="s", durability="normal")
        second = second_view(path)
        resident = ResidentPostings(FTS5)
        if bulk:  # so that few changes are followed one by one
            put(first, {f"bulk{i}": text for i, text in enumerate(bulk)})
            check(resident, first, bulk[0])
        for step, given, which in steps:
            file = second if which else first
            if step == "put":
                put(file, given)
            elif step == "delete":
                delete(file, given)
            elif step == "purge":
                purge(file)
            else:
                check(resident, file, given)
        everything = " ".join(WORDS)
        check(resident, first, everything)
        check(ResidentPostings(FTS5), second, everything)
        second.release()
        first.close()


@pytest.mark.parametrize("merge", [0, 5, 1000])
def test_small_changes_are_followed_without_reading_the_index_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, merge: int
) -> None:
    file = open_session_file(tmp_path / "s.sqlite3", session="s", durability="normal")
    put(file, {f"{i}": f"refund {i % 7} the {'late ' * (i % 3)}" for i in range(100)})
    resident = ResidentPostings(FTS5)
    check(resident, file, "the refund 3 late")

    def refuse(conn: apsw.Connection) -> None:
        raise AssertionError("read anew")

    monkeypatch.setattr("moss_local.search.postings._read_index", refuse)
    monkeypatch.setattr("moss_local.search.postings.MERGE_DOCUMENTS", merge)
    for round in range(4):
        put(file, {f"new{round}": "a late late refund", "3": f"the {round}", "4": ""})
        delete(file, ["5", f"{90 + round}", f"new{round - 1}"])
        put(file, {"5": "again 3"})
        check(resident, file, "the refund 3 late again a")
    delete(file, ["0"])
    purge(file)
    with pytest.raises(AssertionError, match="read anew"):
        check(resident, file, "refund")
    monkeypatch.undo()
    check(resident, file, "refund")  # what was interrupted is read again
    file.close()


@example(text="x" * 40_000, query="x" * 40_000)
@example(text="the " * 70_000, query="the")
@settings(deadline=None, max_examples=30)
@given(text=sentences, query=sentences)
def test_a_document_of_any_size_is_scored_alike_by_both(text: str, query: str) -> None:
    with tempfile.TemporaryDirectory() as directory:
        file = open_session_file(Path(directory) / "s.sqlite3", session="s", durability="normal")
        put(file, {"a": text, "b": "other words", "c": "and others"})
        resident = ResidentPostings()
        with file.reading() as conn:
            scores(resident, conn, [])
        put(file, {"d": text})  # followed, where "a" was read
        with file.reading() as conn:
            read_state(conn)
            terms = query_terms(query, index_tokenizer(conn))
            found = scores(resident, conn, terms)
            assert found == pytest.approx(scores(StoredPostings(), conn, terms))
            assert found == pytest.approx(scores(ResidentPostings(), conn, terms))
            assert found.get(1) == pytest.approx(found.get(4))
        file.close()


def test_a_rare_word_says_more_than_a_common_one(tmp_path: Path) -> None:
    file = open_session_file(tmp_path / "s.sqlite3", session="s", durability="normal")
    put(file, {f"{i}": "what is the status of it" for i in range(20)})
    put(file, {"rare": "refund"})
    with file.reading() as conn:
        read_state(conn)
        terms = query_terms("what is the status of the refund", index_tokenizer(conn))
        found = scores(ResidentPostings(), conn, terms)
    assert found[21] > 100 * max(score for rowid, score in found.items() if rowid < 21)
    assert len(found) == 21
    file.close()
