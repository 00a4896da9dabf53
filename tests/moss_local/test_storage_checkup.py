"""What the check of a file finds: nothing in a whole one, and each thing that was broken."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import apsw
import numpy as np
import pytest

from moss_local.errors import FileCorruptError
from moss_local.storage.checkup import check_file
from moss_local.storage.documents import Document
from moss_local.storage.edits import delete_documents, put_documents
from moss_local.storage.file import open_session_file
from moss_local.storage.rows import read_vectors
from moss_sync import VectorSpace
from moss_sync.record import VectorType

SPACE = VectorSpace("custom", "test", 4, "f4")


def findings(path: Path, breaking: Callable[[apsw.Connection], object] = lambda conn: None) -> str:
    """Make a file of three documents and a tombstone, break it, and return what is found."""
    file = open_session_file(path, session="conv-123")
    try:
        with file.writing() as conn:
            documents = [
                Document(f"turn-{n}", f"text {n}", vector=np.ones(4, np.float32)) for n in range(4)
            ]
            put_documents(conn, documents, space=SPACE, now_ms=1)
            delete_documents(conn, ["turn-3"], now_ms=2)
            put_documents(conn, [Document("bare", "no vector")], space=None, now_ms=3)
        with file.writing() as conn:
            breaking(conn)
            return "; ".join(check_file(conn))
    finally:
        file.close()


def test_a_whole_file_has_no_findings(tmp_path: Path) -> None:
    assert findings(tmp_path / "a.sqlite3") == ""


def test_a_file_without_vectors_has_no_findings(tmp_path: Path) -> None:
    file = open_session_file(tmp_path / "a.sqlite3", session="conv-123")
    with file.writing() as conn:
        assert check_file(conn) == []
    file.close()


@pytest.mark.parametrize(
    ("statement", "finding"),
    [
        ("DELETE FROM vec WHERE rowid = 2", "the vector table lacks 1 document"),
        ("UPDATE document SET vector = 0 WHERE rowid = 2", "holds 1 row of no document"),
        ("DELETE FROM keyword WHERE rowid = 1", "the keyword index lacks 1 document"),
        ("INSERT INTO keyword (rowid, text) VALUES (99, 'x')", "holds 1 row of no document"),
        ("UPDATE state SET live = 7", "4 documents, and the file counts 7"),
        ("DELETE FROM keyword_data WHERE id > 1", "the keyword index is damaged"),
    ],
)
def test_each_disagreement_is_found(tmp_path: Path, statement: str, finding: str) -> None:
    assert finding in findings(tmp_path / "a.sqlite3", lambda conn: conn.execute(statement))


@pytest.mark.parametrize(("dtype", "value"), [("f2", 1e6), ("f2", np.nan), ("f4", np.inf)])
def test_a_vector_that_is_not_finite_is_found_and_never_handed_on(
    tmp_path: Path, dtype: VectorType, value: float
) -> None:
    space = VectorSpace("model", "test", 4, dtype)
    file = open_session_file(tmp_path / "a.sqlite3", session="conv-123")
    broken = np.array([0.5, value, 0.5, 0.5], np.float32).tobytes()
    try:
        with file.writing() as conn:
            documents = [
                Document(f"turn-{n}", f"text {n}", vector=np.ones(4, np.float32)) for n in range(2)
            ]
            put_documents(conn, documents, space=space, now_ms=1)
            assert check_file(conn) == []
            conn.execute("UPDATE vec SET embedding = ? WHERE rowid = 2", (broken,))
            assert "not finite in the vector table: 1 vector" in "; ".join(check_file(conn))
        with file.reading() as conn:
            assert read_vectors(conn, [1], space).keys() == {1}
        with pytest.raises(FileCorruptError, match="damaged"), file.reading() as conn:
            read_vectors(conn, [1, 2], space)
    finally:
        file.close()


def test_the_check_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite3"
    findings(path)
    file = open_session_file(path)
    tables = ("keyword_data", "keyword_idx", "keyword_docsize", "document", "state", "vec_rowids")
    with file.writing() as conn:
        before = [conn.execute(f"SELECT * FROM {table}").fetchall() for table in tables]
        check_file(conn)
        assert before == [conn.execute(f"SELECT * FROM {table}").fetchall() for table in tables]
    file.close()
