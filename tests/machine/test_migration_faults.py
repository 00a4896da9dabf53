"""A file of an older version on a disk that fails: it is migrated or as it was, and backed up."""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest

from moss_local.errors import DiskFullError
from moss_local.storage import schema
from moss_local.storage.checkup import check_file
from moss_local.storage.connection import backup_path
from moss_local.storage.documents import Document
from moss_local.storage.edits import put_documents
from moss_local.storage.file import open_session_file
from tests.machine.faulty_disk import Fault, disk_in_place

SESSION = "conv-123 · Gespräch"
FIRST_CHANGES = 60
OLD = len(schema.MIGRATIONS)


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A file of today's version."""
    path = tmp_path_factory.mktemp("old") / "old.sqlite3"
    file = open_session_file(path, session=SESSION)
    with file.writing() as conn:
        turns = [Document(f"turn-{n}", f"Turn {n}: {'退款 ' * 40 * n}") for n in range(12)]
        put_documents(conn, turns, space=None, now_ms=1)
    file.close()
    return path.read_bytes()


@pytest.fixture(autouse=True)
def next_version(old: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """The code of the version that comes next, which writes to every document."""

    def upgrade(conn: apsw.Connection) -> None:
        conn.execute("ALTER TABLE document ADD COLUMN extra TEXT; UPDATE document SET extra = id")

    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, upgrade))


def old_file(folder: Path, content: bytes) -> Path:
    folder.mkdir()
    path = folder / "old.sqlite3"
    path.write_bytes(content)
    return path


def documents(path: Path) -> dict[str, str]:
    conn = apsw.Connection(f"file:{path}?immutable=1", flags=apsw.SQLITE_OPEN_READONLY | 0x40)
    found = dict(conn.execute("SELECT id, text FROM document WHERE deleted = 0").fetchall())
    conn.close()
    return found


@pytest.mark.parametrize("fault", ["full", "io"])
@pytest.mark.parametrize("lasting", [True, False])
def test_a_fault_at_any_change_leaves_it_as_it_was_or_migrated(
    tmp_path: Path, old: bytes, fault: Fault, lasting: bool
) -> None:
    expected = documents(old_file(tmp_path / "pattern", old))
    refused = 0
    for change in range(FIRST_CHANGES):
        path = old_file(tmp_path / f"{change}", old)
        with disk_in_place() as disk:
            disk.break_at(change, fault, lasting=lasting)
            try:
                open_session_file(path, session=SESSION).close()
            except DiskFullError:
                refused += 1
            disk.mend()
            file = open_session_file(path, session=SESSION)
            with file.writing() as conn:
                assert conn.pragma("user_version") == OLD + 1
                assert check_file(conn) == []
                query = "SELECT id, text FROM document WHERE deleted = 0"
                assert dict(conn.execute(query).fetchall()) == expected
            file.close()
        assert not backup_path(path).exists()
    kind = f"{fault}, {'lasting' if lasting else 'once'}"
    print(f"migration, disk fault ({kind}): {FIRST_CHANGES} tried, {refused} refused, 0 lost")
    assert refused > 20


def test_the_backup_is_whole_and_there_until_the_migration_is_committed(
    tmp_path: Path, old: bytes
) -> None:
    path = old_file(tmp_path / "one", old)
    before = documents(path)
    versions = []

    class Stopped(BaseException):
        pass

    def stop(*_: object, **__: object) -> None:
        versions.append(apsw.Connection(str(backup_path(path))).pragma("user_version"))
        raise Stopped

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("moss_local.storage.connection.schema.migrate", stop)
        with pytest.raises(Stopped):
            open_session_file(path, session=SESSION)
    assert versions == [OLD]
    assert documents(backup_path(path)) == before
    assert documents(path) == before
    open_session_file(path, session=SESSION).close()  # which begins anew, and ends it
    assert not backup_path(path).exists()


def test_a_backup_that_was_left_behind_is_deleted_by_the_next_who_opens_the_file(
    tmp_path: Path, old: bytes
) -> None:
    path = old_file(tmp_path / "one", old)
    open_session_file(path, session=SESSION).close()
    backup_path(path).write_bytes(b"what was left")
    open_session_file(path, session=SESSION).close()
    assert not backup_path(path).exists()
