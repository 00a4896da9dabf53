"""What holds of the history of a session: nothing that was there is lost before the bound."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from moss_local.storage import history
from moss_local.storage.documents import Document
from moss_local.storage.edits import delete_documents, put_documents
from moss_local.storage.file import SessionFile
from moss_local.storage.history import StoredVersion, find_version, read_history
from moss_local.storage.replica import SqliteReplica
from moss_local.storage.rows import get_documents
from moss_sync import Record, Seen, Snapshot, VectorSpace
from tests.properties.test_storage import SPACE, records, scratch_file

ROUNDS = settings(max_examples=40, deadline=None)
CUSTOM = VectorSpace("custom", "f1", 2, "f4")
CONTENTS = ["x", "y", None]
"""None is a deletion. Fewer than the bound, so that nothing may be missing."""

puts = st.tuples(st.sampled_from("abc"), st.sampled_from(CONTENTS))
steps = st.lists(puts | st.lists(records(), min_size=1, max_size=4), max_size=12)


def contents(file: SessionFile) -> dict[str, list[StoredVersion]]:
    with file.reading() as conn:
        return {id: read_history(conn, id) for id in "abc"}


def edit(file: SessionFile, id: str, text: str | None) -> None:
    with file.writing() as conn:
        if text is None:
            delete_documents(conn, [id], now_ms=1)
        else:
            put_documents(conn, [Document(id, text)], space=None, now_ms=1)


def merge(file: SessionFile, batch: Iterable[Record], seq: int) -> None:
    arrived = [replace(record, commit_seq=seq) for record in batch]
    SqliteReplica(file).merge(Snapshot(arrived, seq, space=SPACE), Seen(seq, b"h", None, b""))


@ROUNDS
@given(steps=steps)
def test_every_content_that_was_ever_here_is_the_current_one_or_kept(
    steps: list[tuple[str, str | None] | list[Record]],
) -> None:
    ever: dict[str, set[tuple[bool, str]]] = {id: set() for id in "abc"}
    with scratch_file() as file:
        for seq, step in enumerate(steps, 1):
            if isinstance(step, tuple):
                edit(file, *step)
                with file.reading() as conn:
                    live = {stored.id: stored.text for stored in get_documents(conn)}
                if step[1] is not None or ever[step[0]]:
                    ever[step[0]].add((step[1] is None, step[1] or ""))
                assert live.get(step[0]) == step[1]
            else:
                merge(file, step, seq)
                for record in step:
                    ever[record.id].add((record.deleted, record.text))
        found = contents(file)
    for id, versions in found.items():
        assert {(each.deleted, each.text) for each in versions} == ever[id]
        assert [each.reason is None for each in versions] == [i == 0 for i in range(len(versions))]
        assert len({each.token for each in versions}) == len(versions)


@ROUNDS
@given(batch=st.lists(records(), max_size=8), data=st.data())
def test_what_is_kept_does_not_depend_on_how_versions_arrive(
    batch: list[Record], data: st.DataObject
) -> None:
    def all_of(batches: list[list[Record]]) -> dict[str, set[tuple[bool, str]]]:
        with scratch_file() as file:
            for seq, each in enumerate(batches, 1):
                merge(file, each, seq)
            return {
                id: {(each.deleted, each.text) for each in versions}
                for id, versions in contents(file).items()
            }

    shuffled = data.draw(st.permutations(batch))
    cut = data.draw(st.integers(0, len(batch)))
    assert all_of([shuffled[:cut], shuffled[cut:]]) == all_of([batch])


@ROUNDS
@given(texts=st.lists(st.text(max_size=5), min_size=1, max_size=25))
def test_of_a_document_that_is_edited_for_ever_the_last_contents_are_kept(
    texts: list[str],
) -> None:
    with scratch_file() as file:
        for text in texts:
            edit(file, "a", text)
        kept = [each.text for each in contents(file)["a"]]
    last = list(dict.fromkeys(reversed(texts)))
    if len(last) <= history.KEPT_PER_DOCUMENT:
        # The current content may be kept as an older version of itself too.
        assert list(dict.fromkeys(kept)) == last
    assert kept[0] == texts[-1]
    assert len(kept) <= history.KEPT_PER_DOCUMENT + 1


documents = st.builds(
    Document,
    id=st.just("a"),
    text=st.text(max_size=40),
    metadata=st.none() | st.dictionaries(st.text(max_size=8), st.text(max_size=8)),
    payload=st.none() | st.text(max_size=30),
    vector=st.sampled_from([[1, 2], [3, 4]]).map(lambda each: np.array(each, np.float32)),
)


@ROUNDS
@given(first=documents, second=documents)
def test_a_kept_version_put_again_is_the_document_that_it_was(
    first: Document, second: Document
) -> None:
    with scratch_file() as file:
        for document in (first, second):
            with file.writing() as conn:
                put_documents(conn, [document], space=CUSTOM, now_ms=1)
        with file.writing() as conn:
            oldest = read_history(conn, "a")[-1]
            found = find_version(conn, CUSTOM, "a", oldest.token)
            assert found is not None
            assert found.vector is not None
            vector = np.frombuffer(found.vector, "<f4")
            again = Document("a", found.text, found.metadata, found.payload, vector)
            put_documents(conn, [again], space=CUSTOM, now_ms=1)
            [back] = get_documents(conn)
            now = find_version(conn, CUSTOM, "a", read_history(conn, "a")[0].token)
    assert (back.text, back.metadata, back.payload) == (first.text, first.metadata, first.payload)
    assert first.vector is not None
    assert now is not None
    assert now.vector == first.vector.tobytes()
