"""The resident vectors are what the file holds, whoever wrote it and however."""

from __future__ import annotations

import secrets
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import apsw
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from moss_local.search.vectors import ResidentVectors, StoredVectors, Vectors, read_all
from moss_local.storage.documents import Document
from moss_local.storage.edits import delete_documents, put_documents
from moss_local.storage.file import SessionFile, open_session_file
from moss_local.storage.rows import purge_tombstones
from moss_local.storage.state import State, read_state
from moss_sync import VectorSpace

DIM = 3
SPACE = VectorSpace("custom", "custom-3", DIM, "f4")
QUERY = np.array([1, 0, 0], np.float32)


def put(file: SessionFile, ids: list[str], seed: int, *, with_vector: bool = True) -> None:
    rng = np.random.default_rng(seed)
    documents = [
        Document(id, "x", vector=rng.standard_normal(DIM).astype("f4") if with_vector else None)
        for id in ids
    ]
    with file.writing() as conn:
        put_documents(conn, documents, space=SPACE, now_ms=seed)


def delete(file: SessionFile, ids: list[str]) -> None:
    with file.writing() as conn:
        delete_documents(conn, ids, now_ms=0)


def purge(file: SessionFile) -> None:
    with file.writing() as conn:
        conn.execute("UPDATE document SET dirty = 0, commit_seq = 1 WHERE deleted = 1")
        purge_tombstones(conn, commit_seq=1)


def by_brute_force(conn: apsw.Connection) -> dict[int, float]:
    """Return row id to cosine, from plain SQL and plain numpy in float64."""
    result = {}
    for rowid, embedding in conn.execute(
        "SELECT d.rowid, v.embedding FROM document AS d JOIN vec AS v ON v.rowid = d.rowid"
        " WHERE d.deleted = 0"
    ):
        vector = np.frombuffer(embedding, "<f4").astype(np.float64)
        result[rowid] = float(vector @ QUERY / np.linalg.norm(vector))
    return result


def cosines(
    vectors: Vectors, conn: apsw.Connection, rowids: NDArray[np.int64]
) -> NDArray[np.float32]:
    vectors.follow(conn, read_state(conn))
    return vectors.cosines(conn, QUERY, rowids)


def check(resident: ResidentVectors, file: SessionFile) -> None:
    """Hold it, and the reading without memory, to what plain SQL says of every row and beyond."""
    with file.reading() as conn:
        has_table = conn.execute("SELECT 1 FROM sqlite_schema WHERE name = 'vec'").get
        expected = by_brute_force(conn) if has_table else {}
        rowids = np.arange((conn.execute("SELECT max(rowid) FROM document").get or 0) + 3)[
            ::-1
        ].copy()
        every = [expected.get(rowid, np.nan) for rowid in rowids.tolist()]
        for vectors in (resident, StoredVectors()):
            found = cosines(vectors, conn, rowids.astype(np.int64))
            assert found.tolist() == pytest.approx(every, abs=1e-6, nan_ok=True)
        followed, fresh = (
            each.estimates(conn, QUERY, rowids) for each in (resident, followed_to(conn))
        )
        assert followed.tolist() == pytest.approx(fresh.tolist(), abs=1e-5, nan_ok=True)
        assert np.isnan(followed).tolist() == np.isnan(every).tolist()
        if expected:
            few = resident.cosines_of_few(QUERY, rowids[1::2])
            assert few.tolist() == pytest.approx(every[1::2], abs=1e-6, nan_ok=True)
    assert len(resident) == len(expected)


def followed_to(conn: apsw.Connection) -> ResidentVectors:
    fresh = ResidentVectors()
    fresh.follow(conn, read_state(conn))
    return fresh


def second_view(path: Path) -> SessionFile:
    """Return another file object on the path: other connections, as of another process."""
    return SessionFile(
        path, session="s", durability="normal", busy_ms=1000, token=secrets.token_bytes
    )


ids = st.lists(st.sampled_from([f"d{i}" for i in range(12)]), min_size=1, max_size=12, unique=True)
steps = st.lists(
    st.tuples(
        st.sampled_from(["put", "put", "put", "text", "delete", "purge", "look"]),
        ids,
        st.booleans(),
    ),
    max_size=12,
)


@settings(max_examples=60, deadline=None)
@given(steps=steps, bulk=st.sampled_from([0, 70, 200]))
def test_after_any_writes_through_two_connections_it_equals_brute_force(
    steps: list[tuple[str, list[str], bool]], bulk: int
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "s.sqlite3"
        first = open_session_file(path, session="s", durability="normal")
        second = second_view(path)
        resident = ResidentVectors()
        if bulk:  # so that few changes are followed one by one
            put(first, [f"bulk{i}" for i in range(bulk)], 1)
            check(resident, first)
        for seed, (step, ids, which) in enumerate(steps):
            file = second if which else first
            if step == "put":
                put(file, ids, seed)
            elif step == "text":
                put(file, ids, seed, with_vector=False)
            elif step == "delete":
                delete(file, ids)
            elif step == "purge":
                purge(file)
            else:
                check(resident, file)
        check(resident, first)
        check(ResidentVectors(), second)
        second.release()
        first.close()


def test_small_changes_are_followed_without_reading_everything_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = open_session_file(tmp_path / "s.sqlite3", session="s", durability="normal")
    put(file, [f"{i}" for i in range(100)], 1)
    resident = ResidentVectors()
    check(resident, file)

    def refuse(conn: apsw.Connection, state: State) -> None:
        raise AssertionError("read anew")

    monkeypatch.setattr(resident, "_load", refuse)
    put(file, ["new", "3"], 2)
    delete(file, ["5", "99", "new"])
    put(file, ["5"], 3)
    check(resident, file)
    delete(file, ["0"])
    purge(file)
    with pytest.raises(AssertionError, match="read anew"):
        check(resident, file)
    file.close()


def test_the_bulk_read_equals_a_plain_select(tmp_path: Path) -> None:
    file = open_session_file(tmp_path / "s.sqlite3", session="s", durability="normal")
    put(file, [f"{i}" for i in range(300)], 1)
    delete(file, [f"{i}" for i in range(0, 300, 3)] + [f"{i}" for i in range(64, 140)])
    put(file, ["1", "2"], 2)
    put(file, [f"again{i}" for i in range(30)], 3)
    with file.reading() as conn:
        rowids, rows = read_all(conn, DIM)
        select: list[Any] = conn.execute("SELECT rowid, embedding FROM vec").fetchall()
    plain: dict[int, bytes] = dict(select)
    assert sorted(rowids.tolist()) == sorted(plain)
    for rowid, row in zip(rowids.tolist(), rows, strict=True):
        vector = np.frombuffer(plain[rowid], "<f4")
        assert row == pytest.approx(vector / np.linalg.norm(vector), abs=1e-6)
    file.close()


def test_another_process_s_writes_are_seen_by_the_next_query(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite3"
    file = open_session_file(path, session="s", durability="normal")
    put(file, [f"{i}" for i in range(50)], 1)
    resident = ResidentVectors()
    check(resident, file)
    script = """
import sys
from pathlib import Path
from moss_local.storage.edits import delete_documents
from moss_local.storage.file import open_session_file
file = open_session_file(Path(sys.argv[1]), session="s")
with file.writing() as conn:
    delete_documents(conn, ["3", "49"], now_ms=5)
file.close()
"""
    subprocess.run([sys.executable, "-c", script, str(path)], check=True)
    check(resident, file)
    assert len(resident) == 48
    file.close()


def test_a_file_replaced_by_an_older_copy_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite3"
    file = open_session_file(path, session="s", durability="normal")
    put(file, ["a", "b", "c"], 1)
    file.release()
    old = path.read_bytes()
    resident = ResidentVectors()
    put(file, ["a", "d"], 2)
    check(resident, file)
    file.release()
    path.write_bytes(old)
    check(resident, file)
    file.close()


def test_vectors_of_any_length_are_compared_by_direction(tmp_path: Path) -> None:
    file = open_session_file(tmp_path / "s.sqlite3", session="s", durability="normal")
    rows = [(1e-30, 0, 0), (1e30, 1e30, 0), (3e38, 0, 0), (1e-45, 0, 0), (-2, 0, 0)]
    vectors: list[NDArray[np.float32]] = [np.array(row, np.float32) for row in rows]
    with file.writing() as conn:
        documents = [Document(f"{i}", "x", vector=vector) for i, vector in enumerate(vectors)]
        put_documents(conn, documents, space=SPACE, now_ms=1)
    with file.reading() as conn:
        for vectors in (ResidentVectors(), StoredVectors()):
            found = cosines(vectors, conn, np.arange(1, 6, dtype=np.int64))
            assert found == pytest.approx([1, 2**-0.5, 1, 1, -1], abs=1e-6)
    file.close()


def test_a_peer_s_vector_without_a_direction_is_similar_to_nothing(tmp_path: Path) -> None:
    file = open_session_file(tmp_path / "s.sqlite3", session="s", durability="normal")
    put(file, ["a", "b", "c"], 1)
    with file.writing() as conn:
        for rowid, value in ((1, float("nan")), (2, 0.0)):
            embedding = np.full(DIM, value, np.float32).tobytes()
            conn.execute("UPDATE vec SET embedding = ? WHERE rowid = ?", (embedding, rowid))
    with file.reading() as conn:
        for vectors in (ResidentVectors(), StoredVectors()):
            found = cosines(vectors, conn, np.arange(1, 4, dtype=np.int64))
            assert found[:2].tolist() == [0, 0]
            assert found[2] != 0
    file.close()


def test_the_signs_tell_who_is_near(tmp_path: Path) -> None:
    file = open_session_file(tmp_path / "s.sqlite3", session="s", durability="normal")
    rng = np.random.default_rng(1)
    rows = rng.standard_normal((900, 200)).astype("f4")
    rows[300:600] += rows[:300]  # so that some are near one another
    space = VectorSpace("custom", "custom-200", 200, "f4")
    with file.writing() as conn:
        documents = [Document(f"{i}", "x", vector=row) for i, row in enumerate(rows)]
        put_documents(conn, documents, space=space, now_ms=1)
    with file.reading() as conn:
        vectors = followed_to(conn)
        rowids = np.arange(1, 901)
        for row in rows[:20]:
            unit = row / np.linalg.norm(row)
            error = vectors.estimates(conn, unit, rowids) - vectors.cosines(conn, unit, rowids)
            assert abs(float(error.mean())) < 0.01
            assert float(error.std()) < 0.1
    file.close()
