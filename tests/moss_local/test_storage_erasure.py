"""What was deleted and scrubbed is nowhere in the bytes on disk."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from moss_local.errors import FileBusyError
from moss_local.search.query import search
from moss_local.storage.checkup import check_file
from moss_local.storage.documents import Document
from moss_local.storage.edits import delete_documents, put_documents
from moss_local.storage.encoding import unit_rows
from moss_local.storage.erasure import purge_history, scrub
from moss_local.storage.file import SessionFile, open_session_file
from moss_local.storage.history import read_history
from moss_local.storage.rows import get_documents
from moss_sync import InvalidArgumentError, VectorSpace

BUILT_IN = VectorSpace("moss-minilm", "f0", 64, "f2")
CUSTOM = VectorSpace("custom", "f1", 64, "f4")
SECRET = np.random.default_rng(7).standard_normal(64).astype(np.float32)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "s.sqlite3"


@pytest.fixture
def file(path: Path) -> Iterator[SessionFile]:
    opened = open_session_file(path, session="s", busy_ms=200)
    yield opened
    opened.close()


def put(
    file: SessionFile, id: str, text: str, vector: NDArray[np.float32], space: VectorSpace
) -> None:
    document = Document(id, text, {"key": f"{text} meta"}, f"{text} payload", vector)
    with file.writing() as conn:
        put_documents(conn, [document], space=space, now_ms=1)


def remains(path: Path, *needles: bytes) -> list[tuple[str, bytes]]:
    """Return which of the needles stand in which of the file's parts."""
    parts = {part.name: part.read_bytes().lower() for part in path.parent.iterdir()}
    return [(name, each) for name, data in parts.items() for each in needles if each in data]


@pytest.mark.parametrize("space", [BUILT_IN, CUSTOM], ids=lambda space: str(space.id))
@pytest.mark.parametrize("others", [0, 150])
def test_no_byte_of_an_erased_document_is_left_in_the_file_or_its_log(
    file: SessionFile, path: Path, space: VectorSpace, others: int
) -> None:
    chance = np.random.default_rng(1)
    stored = SECRET
    if space is BUILT_IN:
        stored = unit_rows(SECRET[None])[0].astype("<f2").astype("<f4")
    # In lower case, as words lie in the index; a vector in pieces, as it may lie across pages.
    words, vector = {b"zebrafish", b"brafish"}, stored.tobytes().lower()
    pieces = {vector[start : start + 32] for start in range(0, len(vector), 32)}
    for i in range(others):
        put(file, f"a{i}", f"ordinary {i}", chance.standard_normal(64).astype(np.float32), space)
    put(file, "x", "Zebrafish " * 400, chance.standard_normal(64).astype(np.float32), space)
    put(file, "x", "Something else", chance.standard_normal(64).astype(np.float32), space)
    put(file, "x", "The zebrafish again", SECRET, space)
    for i in range(others):
        put(file, f"b{i}", f"ordinary {i}", chance.standard_normal(64).astype(np.float32), space)
    before = {each for _, each in remains(path, *words, *pieces)}
    assert words < before

    with file.writing() as conn:
        assert delete_documents(conn, ["x"], now_ms=2) == 1
        kept = len(read_history(conn, "x")) - 1
        assert kept == 3
        assert purge_history(conn, ["x", "x", "unknown"]) == kept
        [tombstone] = read_history(conn, "x")
    assert tombstone.deleted
    scrub(file)

    assert remains(path, *words, *pieces) == []
    with file.writing() as conn:
        assert check_file(conn) == []
        assert len(get_documents(conn)) == 2 * others
    if others:
        put(file, "new", "A new one", SECRET, space)
        assert [hit.id for hit in search(file, vector=SECRET, top_k=1)] == ["new"]
        assert "a7" in [hit.id for hit in search(file, text="ordinary 7", alpha=0.0, top_k=2)]


def test_edits_that_were_set_aside_are_erased_with_the_history(
    file: SessionFile, path: Path
) -> None:
    with file.writing() as conn:
        for id in "xy":
            conn.execute(
                "INSERT INTO quarantine (reason, id, hlc, dev, digest, deleted, text)"
                " VALUES ('copy', ?, 1, x'00', x'00', 0, ?)",
                (id, f"zebrafish {id}"),
            )
    with file.writing() as conn:
        assert purge_history(conn, ["x"]) == 1
    scrub(file)
    assert remains(path, b"zebrafish x") == []
    assert remains(path, b"zebrafish y") != []


def test_an_id_that_no_document_can_have_stops_a_purge_before_it_begins(file: SessionFile) -> None:
    put(file, "x", "one", SECRET, CUSTOM)
    put(file, "x", "two", SECRET, CUSTOM)
    with pytest.raises(InvalidArgumentError), file.writing() as conn:
        purge_history(conn, ["x", ""])
    with file.reading() as conn:
        assert len(read_history(conn, "x")) == 2


READER = """
import sys, apsw
conn = apsw.Connection(sys.argv[1])
conn.execute("BEGIN")
conn.execute("SELECT count(*) FROM document").get
print("reading", flush=True)
sys.stdin.readline()
"""


def test_a_reader_of_an_older_moment_stops_a_scrub_with_a_word_and_the_next_one_succeeds(
    file: SessionFile, path: Path
) -> None:
    put(file, "x", "zebrafish", SECRET, CUSTOM)
    command = [sys.executable, "-c", READER, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as reader:
        assert reader.stdout is not None
        assert reader.stdin is not None
        assert reader.stdout.readline().strip() == b"reading"
        with file.writing() as conn:
            delete_documents(conn, ["x"], now_ms=2)
            purge_history(conn, ["x"])
        with pytest.raises(FileBusyError, match="read by another process"):
            scrub(file)
        reader.stdin.write(b"\n")
        reader.stdin.flush()
        assert reader.wait() == 0
    scrub(file)
    assert remains(path, b"zebrafish") == []
