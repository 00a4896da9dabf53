"""Superseded versions: when they are kept, why, how many, and how they come back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from moss_local.storage import history
from moss_local.storage.documents import Document
from moss_local.storage.edits import delete_documents, put_documents
from moss_local.storage.file import SessionFile, open_session_file
from moss_local.storage.history import StoredVersion, find_version, read_history
from moss_local.storage.replica import SqliteReplica
from moss_local.storage.rows import get_documents, purge_tombstones
from moss_sync import (
    InvalidArgumentError,
    MossError,
    Record,
    Seen,
    Snapshot,
    VectorSpace,
    Version,
    content_digest,
)

BUILT_IN = VectorSpace("moss-minilm", "f0", 2, "f2")
CUSTOM = VectorSpace("custom", "f1", 2, "f4")
OTHER, THIRD = b"other-dv", b"third-dv"
FUTURE = 1 << 50
"""A stamp above every one that these tests make."""


@pytest.fixture
def file(tmp_path: Path) -> Iterator[SessionFile]:
    opened = open_session_file(tmp_path / "s.sqlite3", session="s", durability="normal")
    yield opened
    opened.close()


def put(
    file: SessionFile,
    id: str,
    text: str,
    vector: Sequence[float] = (1, 2),
    space: VectorSpace = BUILT_IN,
) -> None:
    document = Document(id, text, {"k": text}, f"<{text}>", np.array(vector, np.float32))
    with file.writing() as conn:
        put_documents(conn, [document], space=space, now_ms=1)


def delete(file: SessionFile, *ids: str) -> None:
    with file.writing() as conn:
        delete_documents(conn, ids, now_ms=1)


def record(
    id: str, text: str | None, hlc: int, seq: int | None = None, dev: bytes = OTHER
) -> Record:
    deleted = text is None
    version = Version(hlc, dev, content_digest(id, deleted=deleted, text=text or ""))
    vector = None if deleted else np.array([1, 0], "<f2").tobytes()
    return Record(id, version, deleted=deleted, text=text or "", vector=vector, commit_seq=seq)


def merge(file: SessionFile, *records: Record, applied: int = 1) -> None:
    seen = Seen(applied, b"h" * 32, None, b"")
    SqliteReplica(file).merge(Snapshot(records, applied, space=BUILT_IN), seen)


def settled(file: SessionFile) -> None:
    """Make everything count as pushed."""
    with file.writing() as conn:
        conn.execute("UPDATE document SET dirty = 0, commit_seq = 1")


def versions(file: SessionFile, id: str | None = None) -> list[StoredVersion]:
    with file.reading() as conn:
        return read_history(conn, id)


def told(file: SessionFile, id: str | None = None) -> list[tuple[str | None, str | None]]:
    """Return (text, reason), the current one first; the text of a deletion is None."""
    return [(None if each.deleted else each.text, each.reason) for each in versions(file, id)]


# -- what is kept, and why -------------------------------------------------------------------


def test_an_edit_and_a_deletion_keep_what_they_replace(file: SessionFile) -> None:
    put(file, "a", "one")
    put(file, "a", "two")
    delete(file, "a")
    put(file, "a", "three")
    assert told(file, "a") == [
        ("three", None),
        (None, "edited"),
        ("two", "deleted"),
        ("one", "edited"),
    ]
    assert told(file, "unknown") == []


def test_a_version_comes_with_everything_that_it_had(file: SessionFile) -> None:
    put(file, "a", "one")
    with file.reading() as conn:
        [before] = get_documents(conn)
    put(file, "a", "two")
    kept = versions(file, "a")[1]
    assert (kept.id, kept.text, kept.metadata, kept.payload) == ("a", "one", {"k": "one"}, "<one>")
    assert (kept.version.hlc, kept.version.dev, kept.written_ms) == (before.hlc, before.dev, 1)
    assert not kept.deleted


def test_an_unpushed_version_that_loses_to_another_device_was_lost(file: SessionFile) -> None:
    put(file, "a", "mine")
    merge(file, record("a", "theirs", FUTURE, 1))
    assert told(file, "a") == [("theirs", None), ("mine", "lost")]


def test_an_unpushed_version_that_loses_to_a_deletion_was_lost(file: SessionFile) -> None:
    put(file, "a", "mine")
    merge(file, record("a", None, FUTURE, 1))
    assert told(file, "a") == [(None, None), ("mine", "lost")]


def test_a_pushed_version_is_replaced_or_deleted_by_another_device(file: SessionFile) -> None:
    put(file, "a", "one")
    put(file, "b", "two")
    settled(file)
    merge(file, record("a", "theirs", FUTURE, 2), record("b", None, FUTURE, 2))
    assert told(file, "a") == [("theirs", None), ("one", "replaced")]
    assert told(file, "b") == [(None, None), ("two", "deleted")]


def test_a_version_that_arrives_and_loses_was_lost(file: SessionFile) -> None:
    put(file, "a", "mine")
    merge(file, record("a", "theirs", 1, 1))
    assert told(file, "a") == [("mine", None), ("theirs", "lost")]
    lost = versions(file, "a")[1]
    assert lost.version.dev == OTHER


def test_what_was_deleted_so_long_ago_that_the_deletion_is_forgotten_is_kept(
    file: SessionFile,
) -> None:
    put(file, "a", "deleted elsewhere")
    put(file, "b", "still there")
    put(file, "c", "deleted here")
    delete(file, "c")
    settled(file)
    put(file, "d", "never pushed")
    snapshot = Snapshot(
        [record("b", "still there", FUTURE, 9)], 9, tomb_seq=8, full=True, space=BUILT_IN
    )
    SqliteReplica(file).merge(snapshot, Seen(9, b"h" * 32, None, b""))
    with file.reading() as conn:
        assert [stored.id for stored in get_documents(conn)] == ["b", "d"]
    assert told(file, "a") == [("deleted elsewhere", "deleted")]
    assert told(file, "c") == [("deleted here", "deleted")]


def test_of_several_versions_that_arrive_at_once_all_are_kept(file: SessionFile) -> None:
    put(file, "a", "mine")
    merge(
        file,
        record("a", "low", 1, 1),
        record("a", "top", FUTURE, 1),
        record("a", "middle", FUTURE - 1, 1),
        record("b", "x", 2, 1),
        record("b", None, 3, 1),
    )
    assert told(file, "a") == [
        ("top", None),
        ("mine", "lost"),
        ("middle", "replaced"),
        ("low", "replaced"),
    ]
    assert told(file, "b") == [(None, None), ("x", "deleted")]


def test_what_was_applied_before_is_no_news_when_it_comes_again(file: SessionFile) -> None:
    merge(file, record("a", "one", 1, 1))
    put(file, "a", "two")
    with file.writing() as conn:
        conn.execute("DELETE FROM history")
    merge(file, record("a", "one", 1, 1), applied=2)
    assert told(file, "a") == [("two", None)]
    merge(file, record("a", "other", 2, 3, THIRD), applied=3)
    assert told(file, "a") == [("two", None), ("other", "lost")]


def test_a_version_that_is_kept_already_stays_as_it_is_when_it_comes_again(
    file: SessionFile,
) -> None:
    put(file, "a", "one")
    put(file, "a", "two")
    [_, kept] = versions(file, "a")
    merge(file, Record("a", kept.version, text="one", metadata={"k": "one"}, payload="<one>"))
    assert versions(file, "a")[1] == kept
    assert kept.reason == "edited"


def test_the_same_content_again_is_no_other_version(file: SessionFile) -> None:
    put(file, "a", "one")
    put(file, "a", "one")
    merge(file, Record("a", Version(FUTURE, OTHER, versions(file, "a")[0].version.digest)))
    assert told(file, "a") == [("", None)]


def test_a_content_that_comes_back_is_kept_once_as_its_newest_version(file: SessionFile) -> None:
    for text in ("one", "two", "one", "three"):
        put(file, "a", text)
    assert told(file, "a") == [("three", None), ("one", "edited"), ("two", "edited")]


def test_new_documents_leave_no_trace_in_the_history(file: SessionFile) -> None:
    put(file, "a", "one")
    merge(file, record("b", "two", 1, 1))
    with file.reading() as conn:
        assert conn.execute("SELECT count(*) FROM history").get == 0


def test_the_history_of_all_documents_has_the_current_ones_of_those_that_have_any(
    file: SessionFile,
) -> None:
    put(file, "a", "one")
    put(file, "b", "alone")
    put(file, "c", "two")
    delete(file, "c")
    put(file, "a", "three")
    assert told(file) == [("three", None), ("one", "edited"), (None, None), ("two", "deleted")]
    assert [each.id for each in versions(file)] == ["a", "a", "c", "c"]


def test_an_id_that_no_document_can_have_is_refused(file: SessionFile) -> None:
    with pytest.raises(InvalidArgumentError), file.reading() as conn:
        read_history(conn, "")


# -- tokens and vectors ----------------------------------------------------------------------


def test_every_version_has_a_token_of_its_own_by_which_it_is_found(file: SessionFile) -> None:
    for text in ("one", "two", "three"):
        put(file, "a", text)
    all = versions(file, "a")
    assert len({each.token for each in all}) == 3
    for each in all:
        assert len(each.token) == 2 * history.TOKEN_BYTES
        with file.reading() as conn:
            assert find_version(conn, BUILT_IN, "a", each.token) == each
            assert find_version(conn, BUILT_IN, "b", each.token) is None


def test_vectors_are_kept_where_the_caller_brought_them(file: SessionFile) -> None:
    put(file, "a", "one", (1, 2), CUSTOM)
    put(file, "a", "one", (3, 4), CUSTOM)
    put(file, "a", "two", (5, 6), CUSTOM)
    with file.reading() as conn:
        found = [find_version(conn, CUSTOM, "a", each.token) for each in read_history(conn, "a")]
    vectors = [np.frombuffer(each.vector or b"", "<f4").tolist() for each in found if each]
    assert vectors == [[5, 6], [3, 4], [1, 2]]


def test_vectors_that_follow_from_the_text_are_not_kept(file: SessionFile) -> None:
    put(file, "a", "one")
    put(file, "a", "two")
    with file.reading() as conn:
        assert conn.execute("SELECT vector FROM history").fetchall() == [(None,)]
        for each in read_history(conn, "a"):
            found = find_version(conn, BUILT_IN, "a", each.token)
            assert found is not None
            assert found.vector is None


# -- bounds ----------------------------------------------------------------------------------


def test_of_one_document_the_contents_replaced_last_are_kept(file: SessionFile) -> None:
    put(file, "b", "old")
    put(file, "b", "new")
    for i in range(20):
        put(file, "a", f"{i}")
    kept = history.KEPT_PER_DOCUMENT
    assert [text for text, _ in told(file, "a")] == [f"{i}" for i in range(19, 18 - kept, -1)]
    assert len(told(file, "b")) == 2
    merge(file, record("a", "late", 0, 1))
    assert len(told(file, "a")) == kept + 1
    assert told(file, "a")[:3] == [("19", None), ("late", "lost"), ("18", "edited")]


def test_stamps_of_a_clock_that_was_wrong_push_nothing_out(file: SessionFile) -> None:
    for i in range(12):
        put(file, "a", f"{i}")
    with file.writing() as conn:  # what is done when the clock is found to be ahead
        conn.execute("UPDATE history SET hlc = hlc + ?", (FUTURE,))
    put(file, "a", "3")
    put(file, "a", "4")
    put(file, "a", "now")
    assert [text for text, _ in told(file, "a")][:4] == ["now", "4", "3", "11"]


def test_what_is_kept_of_a_document_that_is_gone_altogether_is_still_there(
    file: SessionFile,
) -> None:
    put(file, "a", "one")
    delete(file, "a")
    settled(file)
    with file.writing() as conn:
        assert purge_tombstones(conn, commit_seq=1) == 1
    assert told(file, "a") == told(file) == [("one", "deleted")]


def test_of_a_session_what_was_replaced_last_is_kept(
    file: SessionFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "KEPT_VERSIONS", 5)
    put(file, "old", "one")
    with file.writing() as conn:
        first = [Document(f"{i}", "one") for i in range(9)]
        put_documents(conn, first, space=None, now_ms=1)
        put_documents(conn, [Document(each.id, "two") for each in first], space=None, now_ms=1)
    assert [each.id for each in versions(file) if each.reason] == ["8", "7", "6", "5", "4"]
    # Written before all of them, replaced after all of them.
    put(file, "old", "two")
    kept = {each.id for each in versions(file) if each.reason}
    assert kept == {"old", "8", "7", "6", "5"}
    merge(file, *(record(f"{i}", "late", 0, 1) for i in range(9)))
    assert len([each for each in versions(file) if each.reason]) == 5


def test_the_bytes_of_a_session_are_bounded_and_the_last_replaced_is_always_there(
    file: SessionFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "KEPT_BYTES", 10_000)
    for i in range(10):
        with file.writing() as conn:
            document = Document(f"{i}", "é" * 800, {"k": "v" * 300}, "p" * 100)
            put_documents(conn, [document], space=None, now_ms=1)
            put_documents(conn, [Document(f"{i}", "")], space=None, now_ms=1)
    # 2 000 bytes and the few of the metadata's own.
    assert [each.id for each in versions(file) if each.reason] == ["9", "8", "7", "6"]


# -- crashes ---------------------------------------------------------------------------------


def test_a_transaction_that_fails_leaves_neither_the_change_nor_a_history(
    file: SessionFile,
) -> None:
    put(file, "a", "one")

    def cut() -> None:
        with file.writing() as conn:
            put_documents(conn, [Document("a", "two")], space=None, now_ms=1)
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError):
        cut()
    assert told(file, "a") == [("one", None)]


@pytest.mark.parametrize("table", ["history", "document"])
def test_a_change_that_cannot_be_kept_does_not_happen(file: SessionFile, table: str) -> None:
    put(file, "a", "one")
    moment = "INSERT ON history" if table == "history" else "UPDATE ON document"
    with file.writing() as conn:
        conn.execute(
            f"CREATE TRIGGER broken BEFORE {moment} BEGIN SELECT RAISE(ABORT, 'broken'); END"
        )
    with pytest.raises(MossError, match="SQLite failed"):
        put(file, "a", "two")
    with pytest.raises(MossError, match="SQLite failed"):
        merge(file, record("a", "theirs", FUTURE, 1))
    with file.writing() as conn:
        conn.execute("DROP TRIGGER broken")
    assert told(file, "a") == [("one", None)]
