"""The file as a replica: what each verb promises to the sync engine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from moss_local.storage.documents import Document
from moss_local.storage.edits import delete_documents, put_documents
from moss_local.storage.file import SessionFile, open_session_file
from moss_local.storage.replica import SqliteReplica
from moss_local.storage.rows import get_documents
from moss_local.storage.state import read_state
from moss_sync import (
    Committed,
    InvalidArgumentError,
    MergeCounts,
    ModelMismatchError,
    MossError,
    Pending,
    Record,
    Replica,
    Seen,
    Snapshot,
    StoreChangedError,
    VectorSpace,
    Version,
    content_digest,
)

SPACE = VectorSpace("tiny", "f0", 2, "f2")
OTHER = b"other-dv"
SEEN = Seen(7, b"h" * 32, '"etag"', b"plain")


@pytest.fixture
def file(tmp_path: Path) -> Iterator[SessionFile]:
    opened = open_session_file(tmp_path / "s.sqlite3", session="s", durability="normal")
    yield opened
    opened.close()


@pytest.fixture
def replica(file: SessionFile) -> SqliteReplica:
    return SqliteReplica(file)


def put(replica: SqliteReplica, id: str, text: str, now_ms: int = 1) -> None:
    document = Document(id, text, vector=np.array([1, 2], np.float32))
    with replica.file.writing() as conn:
        put_documents(conn, [document], space=SPACE, now_ms=now_ms)


def theirs(id: str, text: str, hlc: int, *, commit_seq: int = 7) -> Record:
    version = Version(hlc, OTHER, content_digest(id, deleted=False, text=text))
    vector = np.array([1, 0], "<f2").tobytes()
    return Record(id, version, text=text, vector=vector, commit_seq=commit_seq)


def their_tombstone(id: str, hlc: int) -> Record:
    version = Version(hlc, OTHER, content_digest(id, deleted=True))
    return Record(id, version, deleted=True, commit_seq=7)


def dirty(replica: SqliteReplica) -> list[Record]:
    return replica.dirty(max_bytes=2**30, max_records=10**6)


def pending(n: int = 1) -> Pending:
    return Pending(n, 0, "key", b"t" * 16, b"body", 1, 0, 9, 5)


def merge(replica: SqliteReplica, *records: Record, applied_seq: int = 7) -> MergeCounts:
    return replica.merge(Snapshot(records, applied_seq=applied_seq, space=SPACE), SEEN)


def test_it_is_a_replica(replica: SqliteReplica) -> None:
    typed: Replica = replica  # the type checker holds every verb to the protocol
    state = typed.state()
    assert (state.name, len(state.dev), len(state.inc)) == ("s", 8, 8)
    assert (state.n, state.acked_n, state.applied_seq, state.dirty) == (0, 0, 0, 0)
    assert (state.repo_id, state.seen, state.pending, state.space) == (None, None, None, None)


def test_a_file_belongs_to_one_repository(replica: SqliteReplica) -> None:
    replica.attach(b"r" * 16)
    replica.attach(b"r" * 16)
    with pytest.raises(StoreChangedError):
        replica.attach(b"q" * 16)
    assert replica.state().repo_id == b"r" * 16


def test_dirty_records_come_in_the_order_of_their_changes(replica: SqliteReplica) -> None:
    for id in "abc":
        put(replica, id, "1")
    put(replica, "a", "2")
    with replica.file.writing() as conn:
        delete_documents(conn, ["b"], now_ms=1)
    records = dirty(replica)
    assert [(record.id, record.deleted) for record in records] == [
        ("c", False),
        ("a", False),
        ("b", True),
    ]
    assert replica.state().dirty == 3
    assert records[2].vector is None
    assert records[0].vector is not None
    stored = np.frombuffer(records[0].vector, "<f2").astype(np.float64)
    assert np.allclose(stored, np.array([1, 2]) / np.sqrt(5), atol=1e-3)


def test_dirty_stops_before_the_limit_and_returns_at_least_one(replica: SqliteReplica) -> None:
    for id in "abc":
        put(replica, id, "é" * 100)  # 200 bytes, an id of 1 and a vector of 4
    assert [r.id for r in replica.dirty(max_bytes=1, max_records=9)] == ["a"]
    assert [r.id for r in replica.dirty(max_bytes=409, max_records=9)] == ["a"]
    assert [r.id for r in replica.dirty(max_bytes=410, max_records=9)] == ["a", "b"]
    assert [r.id for r in replica.dirty(max_bytes=10**6, max_records=2)] == ["a", "b"]


def test_dirty_reads_on_past_one_batch(replica: SqliteReplica) -> None:
    with replica.file.writing() as conn:
        documents = [Document(f"{i:04}", "x") for i in range(1000)]
        put_documents(conn, documents, space=None, now_ms=1)
    assert [record.id for record in dirty(replica)] == [f"{i:04}" for i in range(1000)]


def test_a_pending_push_survives_and_there_is_only_one(replica: SqliteReplica) -> None:
    put(replica, "a", "1")
    versions = [(record.id, record.version) for record in dirty(replica)]
    replica.save_pending(pending(4), versions)
    assert replica.state().pending == pending(4)
    assert replica.state().n == 4
    with pytest.raises(MossError):
        replica.save_pending(pending(5), versions)
    replica.abandon_pending()
    state = replica.state()
    assert (state.pending, state.n, state.acked_n, state.dirty) == (None, 4, 0, 1)


def test_settling_clears_what_was_pushed_and_not_what_changed_since(
    replica: SqliteReplica,
) -> None:
    put(replica, "a", "1")
    put(replica, "b", "1")
    replica.save_pending(pending(), [(r.id, r.version) for r in dirty(replica)])
    put(replica, "b", "2")
    put(replica, "c", "1")
    committed = Committed(1, commit_seq=8, applied_seq=8)
    for _ in range(2):  # repeating it changes nothing
        replica.settle(committed, SEEN)
        state = replica.state()
        assert (state.pending, state.n, state.acked_n, state.applied_seq) == (None, 1, 1, 8)
        assert state.seen == SEEN
        assert [record.id for record in dirty(replica)] == ["b", "c"]
    with replica.file.reading() as conn:
        rows = conn.execute("SELECT id, commit_seq FROM document ORDER BY id").fetchall()
    assert rows == [("a", 8), ("b", None), ("c", None)]


@pytest.mark.parametrize(
    "pushed",
    [
        Version(1, b"", b""),
        Version(0, b"another!", b""),
        Version(0, b"", b"content!"),
    ],
)
def test_settling_clears_nothing_when_any_part_of_the_version_differs(
    replica: SqliteReplica, pushed: Version
) -> None:
    put(replica, "a", "1")
    (record,) = dirty(replica)
    hlc, dev, digest = record.version
    other = Version(hlc + pushed.hlc, pushed.dev or dev, pushed.digest or digest)
    replica.save_pending(pending(), [("a", other)])
    replica.settle(Committed(1, commit_seq=8))
    assert replica.state().pending is None
    assert dirty(replica) == [record]


def test_settling_another_push_leaves_the_pending_one(replica: SqliteReplica) -> None:
    put(replica, "a", "1")
    replica.save_pending(pending(2), [(r.id, r.version) for r in dirty(replica)])
    replica.settle(Committed(1, commit_seq=8))
    state = replica.state()
    assert (state.pending, state.acked_n, state.applied_seq) == (pending(2), 1, 0)
    assert state.dirty == 1


def test_a_merge_counts_what_others_did(replica: SqliteReplica) -> None:
    put(replica, "lost", "1")
    put(replica, "gone", "1")
    put(replica, "kept", "1", now_ms=2**40)
    counts = merge(
        replica,
        theirs("new", "x", 2**30),
        theirs("lost", "x", 2**30),
        theirs("kept", "x", 2**30),
        their_tombstone("gone", 2**30),
        their_tombstone("unknown", 2**30),
    )
    assert counts == MergeCounts(received=2, deleted=1, superseded=2)
    with replica.file.reading() as conn:
        live = {document.id: document.text for document in get_documents(conn)}
        stones = conn.execute("SELECT id FROM document WHERE deleted = 1 ORDER BY id").fetchall()
        assert read_state(conn).live == 3
    assert live == {"kept": "1", "lost": "x", "new": "x"}
    assert stones == [("gone",), ("unknown",)]
    assert [record.id for record in dirty(replica)] == ["kept"]
    state = replica.state()
    assert (state.applied_seq, state.seen) == (7, SEEN)


def test_a_merged_record_leaves_with_the_bytes_it_came_with(replica: SqliteReplica) -> None:
    vectors = [
        np.frombuffer(bytes([low, high]) * 2, "<f2") for low in (0, 1, 255) for high in (60, 3)
    ]
    records = [
        Record(
            f"{i}",
            Version(9, OTHER, content_digest(f"{i}", deleted=False, text="x\0é")),
            text="x\0é",
            metadata={"b": "\0", "a": "é"},
            payload="\0",
            vector=vector.tobytes(),
            commit_seq=3,
        )
        for i, vector in enumerate(vectors)
    ]
    merge(replica, *records)
    with replica.file.writing() as conn:
        conn.execute("UPDATE document SET dirty = 1")
    assert dirty(replica) == records


def test_an_equal_version_only_lowers_its_commit(replica: SqliteReplica) -> None:
    put(replica, "a", "1")
    (mine,) = dirty(replica)
    for seq, expected in ((9, 9), (5, 5), (7, 5)):
        again = Record("a", mine.version, text="1", vector=mine.vector, commit_seq=seq)
        assert merge(replica, again) == MergeCounts()
        (mine,) = dirty(replica)
        assert mine.commit_seq == expected


def test_a_merge_raises_the_clock_above_all_it_has_met(replica: SqliteReplica) -> None:
    merge(replica, theirs("a", "x", 2**40))
    put(replica, "b", "mine", now_ms=0)
    (mine,) = dirty(replica)
    assert mine.version.hlc > 2**40
    replica.merge(Snapshot([], applied_seq=8, clock_floor=2**50), SEEN)
    put(replica, "c", "mine", now_ms=0)
    assert dirty(replica)[-1].version.hlc > 2**50


def test_a_merge_of_other_vectors_changes_nothing(replica: SqliteReplica) -> None:
    put(replica, "a", "1")
    before = replica.state(), dirty(replica)
    other = VectorSpace("other", "f9", 2, "f2")
    with pytest.raises(ModelMismatchError):
        replica.merge(Snapshot([theirs("b", "x", 9)], applied_seq=9, space=other), SEEN)
    short = Record("b", Version(9, OTHER, b"d" * 8), vector=b"\0\0", commit_seq=9)
    with pytest.raises(InvalidArgumentError):
        merge(replica, short)
    assert (replica.state(), dirty(replica)) == before


def test_vectors_of_no_known_space_are_refused(replica: SqliteReplica) -> None:
    with pytest.raises(InvalidArgumentError):
        replica.merge(Snapshot([theirs("b", "x", 9)], applied_seq=9), SEEN)
    assert replica.state().seen is None


def test_the_first_snapshot_says_which_vectors_the_session_holds(replica: SqliteReplica) -> None:
    merge(replica, their_tombstone("a", 3))
    assert replica.state().space == SPACE
    put(replica, "b", "x")
    assert merge(replica, theirs("c", "x", 4)) == MergeCounts(received=1)


def test_a_stamp_that_no_clock_can_follow_is_refused(replica: SqliteReplica) -> None:
    with pytest.raises(InvalidArgumentError):
        merge(replica, theirs("a", "x", 2**63))
    assert replica.state().seen is None


def test_an_older_manifest_never_replaces_a_newer_one(replica: SqliteReplica) -> None:
    replica.set_seen(SEEN)
    replica.set_seen(Seen(6, b"g" * 32, None, b"older"))
    assert replica.state().seen == SEEN
    same = Seen(7, b"h" * 32, '"other etag"', b"plain")
    replica.set_seen(same)
    assert replica.state().seen == same


def test_the_time_of_the_last_exchange_is_kept(replica: SqliteReplica) -> None:
    replica.set_exchanged(1234)
    with replica.file.reading() as conn:
        assert read_state(conn).exchanged_ms == 1234
