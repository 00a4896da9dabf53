"""What holds of a session's file: it obeys the merge laws, and its clock never goes back."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from moss_local.storage.documents import Document
from moss_local.storage.edits import delete_documents, put_documents
from moss_local.storage.file import SessionFile, open_session_file
from moss_local.storage.replica import SqliteReplica
from moss_local.storage.rows import get_documents
from moss_local.storage.state import read_state
from moss_sync import Record, Seen, Snapshot, VectorSpace, Version, content_digest
from moss_sync.merge import newest

SPACE = VectorSpace("tiny", "f0", 2, "f2")
ROUNDS = settings(max_examples=25, deadline=None)

texts = st.text(max_size=20)


@contextmanager
def scratch_file() -> Iterator[SessionFile]:
    with tempfile.TemporaryDirectory() as directory:
        file = open_session_file(
            Path(directory) / "s.sqlite3", session="scratch", durability="normal"
        )
        try:
            yield file
        finally:
            file.close()


@st.composite
def records(draw: st.DrawFn) -> Record:
    id = draw(st.sampled_from("abc"))
    deleted = draw(st.booleans())
    text = "" if deleted else draw(st.sampled_from(["x", "y"]))
    # The vector follows from the text, as a built-in model's does.
    vector = None if deleted else np.array([1, ord(text)], "<f2").tobytes()
    digest = content_digest(id, deleted=deleted, text=text)
    version = Version(draw(st.integers(0, 3)), draw(st.sampled_from([b"A" * 8, b"B" * 8])), digest)
    commit_seq = draw(st.none() | st.integers(1, 3))
    return Record(id, version, deleted=deleted, text=text, vector=vector, commit_seq=commit_seq)


histories = st.lists(records(), max_size=10)


def merge_all(batches: Iterable[Sequence[Record]]) -> list[object]:
    """Return everything that a file holds after merging the batches, clock included."""
    with scratch_file() as file:
        replica = SqliteReplica(file)
        for batch in batches:
            replica.merge(Snapshot(batch, applied_seq=1, space=SPACE), Seen(1, b"h", None, b""))
        with file.reading() as conn:
            rows: list[object] = list(
                conn.execute(
                    "SELECT id, hlc, dev, digest, deleted, text, vector, commit_seq, dirty"
                    " FROM document ORDER BY id"
                )
            )
            rows += list(
                conn.execute(
                    "SELECT id, embedding FROM document JOIN vec ON vec.rowid = document.rowid"
                    " ORDER BY id"
                )
            )
            rows += list(
                conn.execute(
                    "SELECT id FROM document WHERE rowid IN"
                    " (SELECT rowid FROM keyword WHERE keyword MATCH 'x OR y') ORDER BY id"
                )
            )
            state = read_state(conn)
        return [*rows, state.hlc, state.live]


@ROUNDS
@given(history=histories, data=st.data())
def test_order_grouping_and_repetition_of_delivery_never_change_a_file(
    history: list[Record], data: st.DataObject
) -> None:
    repeats = data.draw(st.lists(st.sampled_from(history), max_size=5) if history else st.just([]))
    delivered = data.draw(st.permutations(history + repeats))
    cut = data.draw(st.integers(0, len(delivered)))
    assert merge_all([delivered[:cut], delivered[cut:]]) == merge_all([history])


@ROUNDS
@given(history=histories)
def test_merging_into_a_file_leaves_what_the_pure_merge_leaves(history: list[Record]) -> None:
    with scratch_file() as file:
        SqliteReplica(file).merge(
            Snapshot(history, applied_seq=1, space=SPACE), Seen(1, b"h", None, b"")
        )
        with file.reading() as conn:
            live = {document.id: document.text for document in get_documents(conn)}
    expected = newest(history)
    assert live == {id: record.text for id, record in expected.items() if not record.deleted}


@ROUNDS
@given(
    edits=st.lists(
        st.tuples(st.sampled_from("abc"), st.none() | texts, st.integers(0, 2**45)),
        max_size=12,
    ),
    floor=st.integers(0, 2**40),
)
def test_every_local_write_is_stamped_above_all_before_it_whatever_the_wall_clock_says(
    edits: list[tuple[str, str | None, int]], floor: int
) -> None:
    with scratch_file() as file:
        replica = SqliteReplica(file)
        replica.merge(Snapshot([], applied_seq=1, tomb_hlc=floor), Seen(1, b"h", None, b""))
        highest = floor
        for id, text, wall_ms in edits:
            with file.writing() as conn:
                if text is None:
                    changed = delete_documents(conn, [id], now_ms=wall_ms) > 0
                else:
                    put_documents(conn, [Document(id, text)], space=None, now_ms=wall_ms)
                    changed = True
                row = conn.execute("SELECT hlc FROM document WHERE id = ?", (id,)).fetchone()
                state = read_state(conn)
            if changed:
                assert row is not None
                assert row[0] > highest
                assert state.hlc == row[0]
                highest = row[0]
            else:
                assert state.hlc == highest


@ROUNDS
@given(
    documents=st.lists(
        st.builds(
            Document,
            id=st.text(min_size=1, max_size=12),
            text=st.text(max_size=60),
            metadata=st.none() | st.dictionaries(st.text(max_size=8), st.text(max_size=8)),
            payload=st.none() | st.text(max_size=30),
        ),
        max_size=8,
        unique_by=lambda document: document.id,
    )
)
def test_every_legal_character_comes_back_as_it_went_in(documents: list[Document]) -> None:
    with scratch_file() as file:
        with file.writing() as conn:
            put_documents(conn, documents, space=None, now_ms=0)
        with file.reading() as conn:
            stored = get_documents(conn, [document.id for document in documents])
            in_order = [document.id for document in get_documents(conn)]
        dirty = SqliteReplica(file).dirty(max_bytes=2**30, max_records=100)
    for document, back, record in zip(documents, stored, dirty, strict=True):
        expected = (document.id, document.text, document.metadata, document.payload)
        assert (back.id, back.text, back.metadata, back.payload) == expected
        assert (record.id, record.text, record.metadata, record.payload) == expected
        if document.metadata is not None and back.metadata is not None:
            assert list(back.metadata) == list(document.metadata)
    assert in_order == sorted(document.id for document in documents)
