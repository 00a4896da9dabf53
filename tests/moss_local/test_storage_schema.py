"""Files of other versions, of other programs, and files that are none."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import apsw
import pytest

from moss_local.errors import FileBusyError, FileCorruptError
from moss_local.search import keywords
from moss_local.storage import schema
from moss_local.storage.connection import begin_file, check_not_lost, connect, prepare
from moss_local.storage.documents import Document
from moss_local.storage.edits import put_documents
from moss_local.storage.file import open_session_file
from moss_local.storage.rows import get_documents
from moss_local.storage.state import read_state, update_state
from moss_sync import UnsupportedFormatError

NEWEST = len(schema.MIGRATIONS)


def make_file(path: Path) -> Path:
    file = open_session_file(path, session="s")
    with file.writing() as conn:
        put_documents(conn, [Document("a", "hello world")], space=None, now_ms=1)
    file.close()
    return path


def test_a_file_of_a_newer_version_is_refused_untouched(tmp_path: Path) -> None:
    path = make_file(tmp_path / "s.sqlite3")
    conn = apsw.Connection(str(path))
    conn.pragma("user_version", 99)
    conn.close()
    before = path.read_bytes()
    with pytest.raises(UnsupportedFormatError, match="schema version 99"):
        open_session_file(path, session="s")
    assert path.read_bytes() == before


def test_a_newer_file_whose_log_is_not_written_back_is_refused_untouched(tmp_path: Path) -> None:
    path = make_file(tmp_path / "s.sqlite3")
    writer = apsw.Connection(str(path))
    writer.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    writer.pragma("user_version", 99)
    writer.close()
    log = path.with_name("s.sqlite3-wal")
    before = path.read_bytes(), log.read_bytes()
    with pytest.raises(UnsupportedFormatError):
        open_session_file(path, session="s")
    assert (path.read_bytes(), log.read_bytes()) == before


def test_another_programs_database_is_refused_untouched(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite3"
    conn = apsw.Connection(str(path))
    conn.execute("CREATE TABLE theirs (a)")
    conn.close()
    before = path.read_bytes()
    with pytest.raises(FileCorruptError, match="another program"):
        open_session_file(path, session="s")
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"hello", b"x" * 5000, b"SQLite format 3\0" + b"\xff" * 4080])
def test_a_file_that_is_no_database_is_refused_untouched(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "s.sqlite3"
    path.write_bytes(content)
    with pytest.raises(FileCorruptError):
        open_session_file(path, session="s")
    assert path.read_bytes() == content


def test_an_empty_file_left_by_a_crash_becomes_a_session(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite3"
    begin_file(path, hint="")
    with pytest.raises(FileBusyError, match="being created"):
        open_session_file(path)
    file = open_session_file(path, session="s")
    assert file.session == "s"
    file.close()
    assert [each.name for each in tmp_path.iterdir()] == ["s.sqlite3"]


def test_a_file_that_was_emptied_is_told_from_one_that_is_being_created(tmp_path: Path) -> None:
    path = make_file(tmp_path / "s.sqlite3")
    path.write_bytes(b"")
    for session in ("s", None):
        with pytest.raises(FileCorruptError, match="is empty") as refused:
            open_session_file(path, session=session)
        assert refused.value.hint is not None
        assert "moss-local repair" in refused.value.hint
    assert [(each.name, each.stat().st_size) for each in tmp_path.iterdir()] == [("s.sqlite3", 0)]


def test_who_creates_it_in_the_same_moment_has_not_lost_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s.sqlite3"
    exists, looked = Path.exists, []

    def slow(each: Path) -> bool:
        found = exists(each)
        if each == path and not looked:
            looked.append(each)
            path.write_bytes(b"its first page")
            path.with_name("s.sqlite3-wal").write_bytes(b"its log")
        return found

    monkeypatch.setattr(Path, "exists", slow)
    check_not_lost(path, hint="")
    looked.clear()
    begin_file(path, hint="")


def test_a_file_of_ours_without_a_version_is_damaged(tmp_path: Path) -> None:
    path = make_file(tmp_path / "s.sqlite3")
    conn = apsw.Connection(str(path))
    conn.execute("PRAGMA user_version = 0")
    conn.close()
    for session in ("s", None):
        with pytest.raises(FileCorruptError):
            open_session_file(path, session=session)


def test_a_new_file_that_cannot_be_made_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s.sqlite3"
    begin_file(path, hint="")

    def broken(conn: apsw.Connection) -> None:
        conn.execute("CREATE VIRTUAL TABLE x USING no_such_module")

    monkeypatch.setattr(schema, "MIGRATIONS", (broken,))
    conn = connect(path, durability="full", busy_ms=100)
    with pytest.raises(apsw.SQLError, match="no such module"):
        prepare(conn, path, session="s", token=bytes, wait=lambda: False)
    conn.close()


def test_a_file_that_is_gone_and_left_its_log_is_not_created_anew(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite3"
    path.with_name("s.sqlite3-wal").write_bytes(b"what was written last")
    for create in (True, False):
        with pytest.raises(FileCorruptError, match="is gone"):
            open_session_file(path, session="s", create=create)
    assert path.with_name("s.sqlite3-wal").read_bytes() == b"what was written last"


def test_a_migration_runs_once_and_keeps_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_file(tmp_path / "s.sqlite3")
    runs: list[int] = []

    def second(conn: apsw.Connection) -> None:
        runs.append(1)
        conn.execute("ALTER TABLE document ADD COLUMN extra TEXT")

    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, second))
    for _ in range(2):
        file = open_session_file(path, session="s")
        with file.reading() as conn:
            assert conn.pragma("user_version") == NEWEST + 1
            assert conn.execute("SELECT id, extra FROM document").fetchall() == [("a", None)]
        file.close()
    assert runs == [1]


def test_a_migration_that_fails_leaves_the_old_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_file(tmp_path / "s.sqlite3")

    def second(conn: apsw.Connection) -> None:
        conn.execute("ALTER TABLE document ADD COLUMN extra TEXT")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, second))
        with pytest.raises(KeyboardInterrupt):
            open_session_file(path, session="s")
    file = open_session_file(path, session="s")
    with file.reading() as conn:
        assert conn.pragma("user_version") == NEWEST
        columns = [row[1] for row in conn.execute("PRAGMA table_info(document)")]
        assert [stored.id for stored in get_documents(conn)] == ["a"]
    assert "extra" not in columns
    file.close()


def test_who_comes_second_to_create_a_file_finds_it_done(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite3"
    begin_file(path, hint="")
    conn = connect(path, durability="full", busy_ms=100)
    assert not schema.current(conn, str(path))
    file = open_session_file(path, session="first")
    with file.reading() as theirs:
        identity = read_state(theirs).dev
    conn.execute("BEGIN IMMEDIATE")
    schema.migrate(conn, str(path), session="second", dev=b"2" * 8, inc=b"2" * 8)
    conn.execute("COMMIT")
    state = read_state(conn)
    assert (state.session, state.dev) == ("first", identity)
    conn.close()
    file.close()


def test_a_creation_that_fails_leaves_a_file_that_can_be_created_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s.sqlite3"
    begin_file(path, hint="")

    (create,) = schema.MIGRATIONS

    def broken(conn: apsw.Connection) -> None:
        create(conn)
        raise OSError("power cut")

    conn = connect(path, durability="full", busy_ms=100)
    with monkeypatch.context() as patch:
        patch.setattr(schema, "MIGRATIONS", (broken,))
        with pytest.raises(OSError, match="power cut"):
            prepare(conn, path, session="s", token=bytes, wait=lambda: False)
    conn.close()
    make_file(path)


def test_texts_prepared_by_another_version_are_indexed_anew_at_open(tmp_path: Path) -> None:
    path = make_file(tmp_path / "s.sqlite3")
    file = open_session_file(path, session="s")
    with file.writing() as conn:
        conn.execute("DELETE FROM keyword")
        update_state(conn, keyword_version=keywords.KEYWORD_VERSION - 1)
    file.close()
    file = open_session_file(path, session="s")
    with file.reading() as conn:
        assert conn.execute("SELECT rowid FROM keyword WHERE keyword MATCH 'hello'").get == 1
        assert read_state(conn).keyword_version == keywords.KEYWORD_VERSION
    file.close()


def test_documents_begin_where_a_repair_looks_for_them(tmp_path: Path) -> None:
    """Also after vectors were made and all was rewritten."""
    path = tmp_path / "x.sqlite3"
    file = open_session_file(path, session="s")

    def root() -> int:
        with file.reading() as conn:
            query = "SELECT rootpage FROM sqlite_schema WHERE name = 'document'"
            return cast(int, conn.execute(query).get)

    assert root() == schema.DOCUMENT_ROOT
    with file.writing() as conn:
        schema.create_vectors(conn, 3)
        schema.reindex(conn)
    file.rewrite()
    assert root() == schema.DOCUMENT_ROOT
    file.close()
