"""The order of a thread and its speakers, whoever wrote them and however."""

from __future__ import annotations

import secrets
import tempfile
from pathlib import Path
from typing import Any

import apsw
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moss_local.search.keywords import query_terms
from moss_local.search.postings import index_tokenizer
from moss_local.search.turns import ResidentTurns
from moss_local.storage.documents import Document
from moss_local.storage.edits import delete_documents, put_documents
from moss_local.storage.file import SessionFile, open_session_file
from moss_local.storage.state import read_state


def put(file: SessionFile, documents: list[Document], now_ms: int = 1) -> None:
    with file.writing() as conn:
        put_documents(conn, documents, space=None, now_ms=now_ms)


def order(turns: ResidentTurns, conn: apsw.Connection) -> list[str]:
    turns.follow(conn, read_state(conn))
    rows: list[Any] = conn.execute("SELECT rowid, id FROM document").fetchall()
    names: dict[int, str] = dict(rows)
    return [names[rowid] for rowid in turns.rowids.tolist()]


def named(turns: ResidentTurns, conn: apsw.Connection, query: str) -> list[str] | None:
    ids = order(turns, conn)
    mark = turns.spoken_by_named(query_terms(query, index_tokenizer(conn)))
    return None if mark is None else [id for id, own in zip(ids, mark, strict=True) if own]


@pytest.fixture
def file(tmp_path: Path) -> Any:
    opened = open_session_file(tmp_path / "s.sqlite3", session="s", durability="normal")
    yield opened
    opened.close()


def test_turns_stand_in_the_order_of_writing_unless_they_say_when(file: SessionFile) -> None:
    when = ("2024-05-01T10:00:00Z", "2024-05-01T11:00:00+02:00", "2024-05-01 09:30", "tomorrow?")
    put(file, [Document(f"{i}", "x", {"when": said}) for i, said in enumerate(when)])
    put(file, [Document("first", "x"), Document("second", "x")])
    with file.reading() as conn:
        # What says no moment that can be read has that of its writing: here, 1970.
        assert order(ResidentTurns(), conn) == ["3", "first", "second", "1", "2", "0"]


@pytest.mark.parametrize("when", ["", "x", "0000-00-00", "9999-12-31T23:59:59+23:59", "1600-01-01"])
def test_no_when_raises(file: SessionFile, when: str) -> None:
    put(file, [Document("a", "x", {"when": when}), Document("b", "x")])
    with file.reading() as conn:
        assert sorted(order(ResidentTurns(), conn)) == ["a", "b"]


def test_a_speaker_is_who_the_metadata_says_else_the_name_before_a_colon(
    file: SessionFile,
) -> None:
    put(
        file,
        [
            Document("a", "Caroline: I went there"),
            Document("b", "hello", {"who": "caroline"}),
            Document("c", "Renée Dupont: no"),
            Document("d", "https://example.org is no name"),
            Document("e", "Renée: but this is by another", {"who": "Agent 7"}),
            Document("f", "nobody said this"),
            Document("g", "one two three four five: too long for a name"),
        ],
    )
    with file.reading() as conn:
        turns = ResidentTurns()
        assert named(turns, conn, "what did CAROLINE say?") == ["a", "b"]
        assert named(turns, conn, "was it dupont, renee?") == ["c"]
        assert named(turns, conn, "renee") is None
        assert named(turns, conn, "caroline and renee dupont") == ["a", "b", "c"]
        assert named(turns, conn, "caroline, agent 7 and renee dupont") is None
        assert named(turns, conn, "https") is None
        assert named(turns, conn, "one two three four five") is None
        assert named(turns, conn, "") is None


texts = st.sampled_from(["Ann: x", "Bob: y", "Ann Lee: z", "no name", "客户: 退款", ": x", ""])
metadata = st.none() | st.fixed_dictionaries(
    {},
    optional={
        "who": st.sampled_from(["Ann", "bob", "", "!"]),
        "when": st.sampled_from(["2024-01-01", "2023-01-01T00:00:00Z", "later"]),
    },
)
ids = st.sampled_from([f"d{i}" for i in range(9)])
writes = st.lists(
    st.tuples(st.just("put"), st.lists(st.builds(Document, ids, texts, metadata), min_size=1))
    | st.tuples(st.just("delete"), st.lists(ids, min_size=1, unique=True))
    | st.tuples(st.just("look"), st.none()),
    max_size=12,
)


@settings(deadline=None)
@given(steps=writes, bulk=st.integers(0, 60))
def test_after_any_writes_through_two_connections_it_equals_a_fresh_read(
    steps: list[tuple[str, Any]], bulk: int
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "s.sqlite3"
        first = open_session_file(path, session="s", durability="normal")
        second = SessionFile(
            path, session="s", durability="normal", busy_ms=1000, token=secrets.token_bytes
        )
        turns = ResidentTurns()
        if bulk:
            put(first, [Document(f"bulk{i}", "Ann: x") for i in range(bulk)])
        for number, (step, given) in enumerate([("look", None), *steps, ("look", None)]):
            file = second if number % 2 else first
            if step == "put":
                put(file, given, number)
            elif step == "delete":
                with file.writing() as conn:
                    delete_documents(conn, given, now_ms=number)
            else:
                with file.reading() as conn:
                    read_state(conn)
                    fresh = ResidentTurns()
                    assert order(turns, conn) == order(fresh, conn)
                    for query in ("ann", "bob", "ann lee", "ann bob", "客户"):
                        assert named(turns, conn, query) == named(fresh, conn, query)
        second.release()
        first.close()
