"""The file as a replica: what each verb promises to the sync engine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
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
    Life,
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
from moss_sync.hlc import MAX_STAMP, from_ms
from moss_sync.replica import Aside, Correction

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


def save(replica: SqliteReplica, prepared: Pending, versions: list[tuple[str, Version]]) -> None:
    replica.save_pending(prepared, versions, dev=replica.state().dev)


def committed(
    replica: SqliteReplica,
    n: int = 1,
    *,
    commit_seq: int = 8,
    limit: int = MAX_STAMP,
    applied_seq: int | None = None,
) -> Committed:
    return Committed(replica.state().dev, n, commit_seq, limit, applied_seq)


def stored(replica: SqliteReplica) -> dict[str, tuple[str | None, int, bool]]:
    """Return (text, or None for a tombstone, stamp, dirty) of everything in the file."""
    with replica.file.reading() as conn:
        rows = conn.execute("SELECT id, text, hlc, dirty, deleted FROM document").fetchall()
    return {id: (None if gone else text, hlc, bool(new)) for id, text, hlc, new, gone in rows}


def found(replica: SqliteReplica, word: str) -> list[str]:
    """Return the ids of the documents that the keyword index finds; all counts agree."""
    with replica.file.reading() as conn:
        rows = conn.execute(
            "SELECT id FROM document WHERE rowid IN"
            " (SELECT rowid FROM keyword WHERE keyword MATCH ?) ORDER BY id",
            (word,),
        ).fetchall()
        live = conn.execute("SELECT count(*) FROM document WHERE vector").get
        # Without a vector space there is no table either.
        if replica.state().space is None:
            assert live == 0
        else:
            assert conn.execute("SELECT count(*) FROM vec").get == live
        assert (
            read_state(conn).live
            == conn.execute("SELECT count(*) FROM document WHERE NOT deleted").get
        )
    return [id for (id,) in rows]


def aside(replica: SqliteReplica) -> list[tuple[str, str, str, bool]]:
    """Return (reason, id, text, whether its vector was kept) of what is in the quarantine."""
    with replica.file.reading() as conn:
        rows = conn.execute("SELECT reason, id, text, vector NOT NULL FROM quarantine ORDER BY id")
        return [(reason, id, text, bool(vector)) for reason, id, text, vector in rows]


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
    save(replica, pending(4), versions)
    assert replica.state().pending == pending(4)
    assert replica.state().n == 4
    with pytest.raises(MossError):
        save(replica, pending(5), versions)
    replica.abandon_pending()
    state = replica.state()
    assert (state.pending, state.n, state.acked_n, state.dirty) == (None, 4, 0, 1)


def test_settling_clears_what_was_pushed_and_not_what_changed_since(
    replica: SqliteReplica,
) -> None:
    put(replica, "a", "1")
    put(replica, "b", "1")
    save(replica, pending(), [(r.id, r.version) for r in dirty(replica)])
    put(replica, "b", "2")
    put(replica, "c", "1")
    done = committed(replica, applied_seq=8)
    for _ in range(2):  # repeating it changes nothing
        replica.settle(done, SEEN)
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
    save(replica, pending(), [("a", other)])
    replica.settle(committed(replica))
    assert replica.state().pending is None
    assert dirty(replica) == [record]


def test_settling_another_push_leaves_the_pending_one(replica: SqliteReplica) -> None:
    put(replica, "a", "1")
    save(replica, pending(2), [(r.id, r.version) for r in dirty(replica)])
    replica.settle(committed(replica))
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


def test_an_equal_version_lowers_its_commit_and_need_not_be_pushed_any_more(
    replica: SqliteReplica,
) -> None:
    put(replica, "a", "1")
    (mine,) = dirty(replica)
    for seq, expected in ((9, 9), (5, 5), (7, 5)):
        again = Record("a", mine.version, text="1", vector=mine.vector, commit_seq=seq)
        assert merge(replica, again) == MergeCounts()
        assert dirty(replica) == []
        with replica.file.reading() as conn:
            assert conn.execute("SELECT commit_seq FROM document").get == expected


def test_a_merge_raises_the_clock_above_all_it_has_met(replica: SqliteReplica) -> None:
    merge(replica, theirs("a", "x", 2**40))
    put(replica, "b", "mine", now_ms=0)
    (mine,) = dirty(replica)
    assert mine.version.hlc > 2**40
    replica.merge(Snapshot([], applied_seq=8, tomb_hlc=2**50), SEEN)
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


# -- wrong clocks ----------------------------------------------------------------------------


def test_stamps_of_a_wrong_clock_are_corrected(replica: SqliteReplica) -> None:
    merge(replica, theirs("seen", "x", from_ms(2000)))
    put(replica, "right", "1", now_ms=2100)
    for id in "abc":
        put(replica, id, "1", now_ms=10**9)
    correction = Correction(above=from_ms(3000), to=from_ms(2000) + 1)
    assert replica.restamp(correction) == 3
    stamps = {id: hlc for id, (_, hlc, _) in stored(replica).items()}
    assert stamps["seen"] == from_ms(2000)
    assert stamps["right"] == from_ms(2100)
    assert [stamps[id] for id in "abc"] == [from_ms(2000) + 1] * 3
    assert replica.state().hlc == from_ms(3000)
    assert replica.state().dirty == 4
    assert replica.restamp(correction) == 0


def test_another_identity_corrects_the_stamps_of_a_wrong_clock(replica: SqliteReplica) -> None:
    merge(replica, theirs("seen", "x", 7))
    put(replica, "right", "1", now_ms=10)
    put(replica, "a", "1", now_ms=10**9)
    was = replica.state().dev
    replica.renew_identity(
        b"d" * 8, b"i" * 8, was=was, aside="nothing", correction=Correction(from_ms(10**8), 9)
    )
    stamps = {id: hlc for id, (_, hlc, _) in stored(replica).items()}
    assert stamps == {"seen": 7, "right": from_ms(10), "a": 9}
    assert replica.state().hlc == from_ms(10**8)


def test_settling_cuts_what_was_pushed_to_what_its_commit_allows(replica: SqliteReplica) -> None:
    put(replica, "a", "1", now_ms=10**9)
    put(replica, "b", "1", now_ms=5)
    save(replica, pending(), [(r.id, r.version) for r in dirty(replica)])
    put(replica, "c", "1", now_ms=10**9)
    before = stored(replica)
    limit = before["a"][1] - 1
    replica.settle(committed(replica, limit=limit))
    after = stored(replica)
    assert after["a"] == ("1", limit, False)
    assert after["b"][1] == min(limit, before["b"][1])
    assert after["c"] == before["c"]


# -- what was forgotten ----------------------------------------------------------------------


def test_clean_tombstones_below_the_floor_are_forgotten_and_others_stay(
    replica: SqliteReplica,
) -> None:
    merge(replica, their_tombstone("old", 3), replace(their_tombstone("young", 3), commit_seq=9))
    put(replica, "mine", "1")
    with replica.file.writing() as conn:
        delete_documents(conn, ["mine"], now_ms=1)
    replica.merge(Snapshot([], applied_seq=9, tomb_seq=8, space=SPACE), replace(SEEN, seq=9))
    assert set(stored(replica)) == {"young", "mine"}


def test_a_put_beats_a_deletion_that_was_forgotten_in_the_same_pull(
    replica: SqliteReplica,
) -> None:
    # The store has forgotten the deletion, so a device without it has put the document again.
    merge(replica, replace(their_tombstone("again", 2**40), commit_seq=3))
    again = replace(theirs("again", "word", 2**30), commit_seq=9)
    replica.merge(Snapshot([again], applied_seq=9, tomb_seq=8, space=SPACE), replace(SEEN, seq=9))
    assert found(replica, "word") == ["again"]


def full(*records: Record, tomb_hlc: int = 0) -> Snapshot:
    return Snapshot(records, applied_seq=9, tomb_seq=8, tomb_hlc=tomb_hlc, full=True, space=SPACE)


def test_a_full_snapshot_takes_away_what_it_does_not_hold_and_nobody_has_changed_here(
    replica: SqliteReplica,
) -> None:
    merge(replica, theirs("gone", "word", 3), theirs("kept", "word", 3))
    put(replica, "new", "word")
    counts = replica.merge(full(theirs("kept", "word", 3)), replace(SEEN, seq=9))
    assert counts == MergeCounts()
    assert found(replica, "word") == ["kept", "new"]
    assert replica.state().applied_seq == 9


def test_a_change_that_met_a_forgotten_deletion_survives_above_it(replica: SqliteReplica) -> None:
    merge(replica, theirs("edited", "old", 3), theirs("deleted", "old", 3))
    put(replica, "edited", "mine")
    with replica.file.writing() as conn:
        delete_documents(conn, ["deleted"], now_ms=1)
    put(replica, "late", "mine", now_ms=10**6)
    floor = from_ms(10**5)
    counts = replica.merge(full(tomb_hlc=floor), replace(SEEN, seq=9))
    assert counts == MergeCounts(reasserted=2)
    after = stored(replica)
    assert after["edited"][0] == "mine"
    assert after["deleted"][0] is None
    assert after["edited"][1] > floor
    assert after["deleted"][1] > floor
    assert after["late"][1] == from_ms(10**6)
    assert all(new for _, _, new in after.values())
    put(replica, "next", "x", now_ms=0)
    assert stored(replica)["next"][1] > max(hlc for _, hlc, _ in after.values())


def test_a_change_that_the_snapshot_knows_of_is_merged_as_always(replica: SqliteReplica) -> None:
    put(replica, "a", "mine")
    replica.merge(full(theirs("a", "newer", 2**40), tomb_hlc=2**50), replace(SEEN, seq=9))
    assert stored(replica)["a"] == ("newer", 2**40, False)


def test_a_late_full_snapshot_leaves_what_another_task_has_committed_since(
    replica: SqliteReplica,
) -> None:
    # Two tasks read the same manifest. One resyncs and then pushes; the other comes after it.
    replica.merge(full(), replace(SEEN, seq=9))
    put(replica, "a", "word")
    save(replica, pending(), [(r.id, r.version) for r in dirty(replica)])
    replica.settle(committed(replica, commit_seq=12))
    assert replica.state().applied_seq == 9
    replica.merge(full(), replace(SEEN, seq=9))
    assert found(replica, "word") == ["a"]


def test_a_late_snapshot_does_not_bring_back_what_another_task_has_seen_deleted_and_forgotten(
    replica: SqliteReplica,
) -> None:
    late = Snapshot([theirs("a", "word", 3)], applied_seq=7, space=SPACE)
    merge(replica, theirs("a", "word", 3))
    replica.merge(full(), replace(SEEN, seq=9))
    assert replica.merge(late, SEEN) == MergeCounts()
    assert found(replica, "word") == []
    assert replica.state().applied_seq == 9


def test_who_follows_the_changes_learns_that_documents_went_without_a_trace(
    replica: SqliteReplica,
) -> None:
    merge(replica, theirs("gone", "word", 3))
    with replica.file.reading() as conn:
        known = read_state(conn).local_seq
    replica.merge(full(), replace(SEEN, seq=9))
    with replica.file.reading() as conn:
        assert read_state(conn).journal_floor > known


# -- another identity, another life ----------------------------------------------------------


def test_another_device_starts_its_numbers_anew_and_keeps_its_changes(
    replica: SqliteReplica,
) -> None:
    put(replica, "a", "1")
    save(replica, pending(3), [(r.id, r.version) for r in dirty(replica)])
    was = replica.state().dev
    assert replica.renew_identity(b"d" * 8, b"i" * 8, was=was, aside="nothing") == 0
    state = replica.state()
    assert (state.dev, state.inc) == (b"d" * 8, b"i" * 8)
    assert (state.n, state.acked_n, state.acked_seq, state.pending) == (0, 0, 0, None)
    assert state.dirty == 1
    assert replica.renew_identity(b"e" * 8, b"j" * 8, was=was, aside="dirty") == 0
    assert replica.state().dev == b"d" * 8


def test_what_the_device_of_before_prepared_or_committed_is_left_aside(
    replica: SqliteReplica,
) -> None:
    put(replica, "a", "1")
    versions = [(r.id, r.version) for r in dirty(replica)]
    was = replica.state().dev
    late = committed(replica, 5)
    replica.renew_identity(b"d" * 8, b"i" * 8, was=was, aside="nothing")
    replica.save_pending(pending(5), versions, dev=was)
    replica.settle(late, SEEN)
    state = replica.state()
    assert (state.pending, state.n, state.acked_n, state.dirty) == (None, 0, 0, 1)


@pytest.mark.parametrize(
    ("which", "moved", "left"),
    [("nothing", [], ["p", "q"]), ("pending", ["p"], ["q"]), ("dirty", ["p", "q"], [])],
)
def test_changes_that_may_have_been_deleted_since_are_set_aside(
    replica: SqliteReplica, which: Aside, moved: list[str], left: list[str]
) -> None:
    merge(replica, theirs("clean", "word", 3))
    put(replica, "p", "word")
    save(replica, pending(), [(r.id, r.version) for r in dirty(replica)])
    put(replica, "q", "word")
    was = replica.state().dev
    assert replica.renew_identity(b"d" * 8, b"i" * 8, was=was, aside=which) == len(moved)
    assert aside(replica) == [("device", id, "word", True) for id in moved]
    assert found(replica, "word") == ["clean", *left]


def test_a_session_that_was_deleted_leaves_and_its_unpushed_changes_are_set_aside(
    replica: SqliteReplica,
) -> None:
    merge(replica, theirs("clean", "word", 3))
    put(replica, "mine", "word")
    deleted = replace(SEEN, seq=1, life=Life(0, 1))
    assert replica.start_life(deleted, b"d" * 8, b"i" * 8, keep="nothing", joint=7) == 1
    assert found(replica, "word") == []
    assert aside(replica) == [("deleted", "mine", "word", True)]
    state = replica.state()
    assert (state.life, state.seen, state.applied_seq, state.n) == (Life(0, 1), deleted, 0, 0)
    assert state.space is None  # who creates it again may use another model
    put(replica, "new", "word")
    assert replica.start_life(deleted, b"e" * 8, b"i" * 8, keep="nothing", joint=7) == 0
    assert found(replica, "word") == ["new"]


def test_what_was_committed_unaware_of_a_deletion_of_the_session_is_set_aside(
    replica: SqliteReplica,
) -> None:
    merge(
        replica,
        replace(theirs("before", "word", 3), commit_seq=4),
        replace(theirs("after", "word", 4), commit_seq=5),
        replace(their_tombstone("gone", 4), commit_seq=5),
    )
    deleted = replace(SEEN, seq=9, life=Life(1, 1))
    assert replica.start_life(deleted, b"d" * 8, b"i" * 8, keep="nothing", joint=4) == 1
    assert aside(replica) == [("repaired", "after", "word", True)]
    assert stored(replica) == {}


def test_a_session_that_was_put_together_anew_gets_all_that_the_device_holds(
    replica: SqliteReplica,
) -> None:
    merge(replica, theirs("a", "1", 3), their_tombstone("b", 4))
    start_anew(replica, joint=7)
    assert {record.id: record.deleted for record in dirty(replica)} == {"a": False, "b": True}
    assert {record.id: record.version.hlc for record in dirty(replica)} == {"a": 3, "b": 4}
    assert replica.state().known_seq == 7


def start_anew(replica: SqliteReplica, *, joint: int, repairs: int = 1) -> Seen:
    repaired = replace(SEEN, seq=20 * repairs, life=Life(repairs, 0))
    assert replica.start_life(repaired, b"d" * 8, b"i" * 8, keep="all", joint=joint) == 0
    return repaired


def whole(*records: Record, tomb_seq: int, tomb_hlc: int) -> Snapshot:
    """All that a repaired session holds."""
    return Snapshot(list(records), 20, tomb_seq=tomb_seq, tomb_hlc=tomb_hlc, full=True, space=SPACE)


def test_after_a_repair_what_may_have_been_deleted_is_set_aside_and_edits_stay(
    replica: SqliteReplica,
) -> None:
    listed = theirs("listed", "word", 3)
    merge(replica, listed, theirs("doubtful", "word", 4), theirs("young", "word", 9), applied_seq=7)
    merge(replica, their_tombstone("gone", 5), applied_seq=7)
    put(replica, "mine", "word", now_ms=0)
    repaired = start_anew(replica, joint=7)
    counts = replica.merge(whole(listed, tomb_seq=8, tomb_hlc=8), repaired)
    assert (counts.quarantined, counts.reasserted) == (1, 0)
    assert aside(replica) == [("repaired", "doubtful", "word", True)]
    assert [record.id for record in dirty(replica)] == ["young", "gone", "mine"]


def test_who_had_applied_what_is_forgotten_offers_all_of_it_as_it_is(
    replica: SqliteReplica,
) -> None:
    merge(replica, theirs("lost", "word", 4), applied_seq=7)
    repaired = start_anew(replica, joint=7)
    counts = replica.merge(whole(tomb_seq=7, tomb_hlc=8), repaired)
    assert (counts.quarantined, counts.reasserted) == (0, 0)
    assert [(record.id, record.version.hlc) for record in dirty(replica)] == [("lost", 4)]


@pytest.mark.parametrize("joint", [0, 3])
def test_what_was_applied_of_a_history_that_has_parted_says_nothing(
    replica: SqliteReplica, joint: int
) -> None:
    merge(replica, theirs("doubtful", "word", 4), applied_seq=7)
    repaired = start_anew(replica, joint=joint)
    assert replica.merge(whole(tomb_seq=7, tomb_hlc=8), repaired).quarantined == 1
    assert stored(replica) == {}


def test_what_is_still_held_when_the_session_is_repaired_again_is_held_and_never_stamped_anew(
    replica: SqliteReplica,
) -> None:
    merge(replica, theirs("held", "word", 4), applied_seq=7)
    start_anew(replica, joint=7)
    again = start_anew(replica, joint=20, repairs=2)
    assert replica.state().known_seq == 7
    counts = replica.merge(whole(tomb_seq=15, tomb_hlc=8), again)
    assert (counts.quarantined, counts.reasserted) == (1, 0)


def test_an_edit_of_a_held_document_is_an_edit(replica: SqliteReplica) -> None:
    merge(replica, theirs("a", "word", 4), applied_seq=7)
    repaired = start_anew(replica, joint=0)
    put(replica, "a", "changed", now_ms=0)
    counts = replica.merge(whole(tomb_seq=8, tomb_hlc=2**40), repaired)
    assert (counts.quarantined, counts.reasserted) == (0, 1)
    assert found(replica, "changed") == ["a"]


def test_records_of_others_are_set_aside_once_and_not_where_they_are_shown(
    replica: SqliteReplica,
) -> None:
    shown, other = theirs("shown", "word", 3), theirs("other", "word", 4)
    merge(replica, shown)
    assert replica.set_aside([shown, other]) == 1
    assert replica.set_aside([shown, other]) == 0
    assert aside(replica) == [("repaired", "other", "word", True)]


def test_the_records_of_a_file_are_all_but_its_edits(replica: SqliteReplica) -> None:
    merge(replica, theirs("a", "word", 4), their_tombstone("b", 5))
    put(replica, "mine", "word")
    for _ in range(2):
        records = {record.id: record for record in replica.records()}
        assert {id: record.deleted for id, record in records.items()} == {"a": False, "b": True}
        assert records["a"].vector is not None
        start_anew(replica, joint=0)


def test_what_was_fetched_in_an_earlier_life_is_left_aside(replica: SqliteReplica) -> None:
    first = replace(SEEN, seq=1, life=Life(0, 1))
    replica.start_life(first, b"d" * 8, b"i" * 8, keep="dirty", joint=0)
    assert merge(replica, theirs("late", "x", 3)) == MergeCounts()
    replica.set_seen(SEEN, applied_seq=7)
    state = replica.state()
    assert (stored(replica), state.seen, state.applied_seq) == ({}, first, 0)
    now = replace(SEEN, seq=2, life=Life(0, 1))
    replica.merge(Snapshot([theirs("new", "x", 3)], applied_seq=2, space=SPACE), now)
    assert set(stored(replica)) == {"new"}
    assert replica.state().seen == now


def test_the_time_of_the_last_exchange_is_kept(replica: SqliteReplica) -> None:
    replica.set_exchanged(1000)
    with replica.file.reading() as conn:
        assert read_state(conn).exchanged_ms is None  # the store had nothing of it
    replica.set_seen(SEEN)
    replica.set_exchanged(1234)
    with replica.file.reading() as conn:
        assert read_state(conn).exchanged_ms == 1234
