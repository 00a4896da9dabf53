"""One file, many connections, threads and processes: nothing is lost, and errors say what to do."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import apsw
import numpy as np
import pytest

from moss_local.errors import DiskFullError, FileBusyError, FileCorruptError
from moss_local.storage import file as file_module
from moss_local.storage.documents import Document
from moss_local.storage.edits import put_documents
from moss_local.storage.file import SessionFile, open_session_file
from moss_local.storage.rows import count_documents, get_documents
from moss_local.storage.state import read_state
from moss_sync import InvalidArgumentError, NotFoundError, PermissionDeniedError, VectorSpace

SPACE = VectorSpace("moss-minilm", "f0", 384, "f2")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "project" / "s.sqlite3"


@pytest.fixture
def file(path: Path) -> Iterator[SessionFile]:
    opened = open_session_file(path, session="s", busy_ms=200)
    yield opened
    opened.close()


def put(file: SessionFile, *ids: str) -> None:
    with file.writing() as conn:
        put_documents(conn, [Document(id, f"text of {id}") for id in ids], space=None, now_ms=1)


def count(file: SessionFile) -> int:
    with file.reading() as conn:
        return count_documents(conn)


def test_a_block_that_raises_leaves_nothing_behind(file: SessionFile) -> None:
    put(file, "kept")

    def fail() -> None:
        with file.writing() as conn:
            put_documents(conn, [Document("lost", "x")], space=None, now_ms=1)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert count(file) == 1
    put(file, "next")
    assert count(file) == 2


def test_a_process_killed_inside_a_transaction_leaves_the_last_commit(path: Path) -> None:
    script = """
import os, signal, sys
from pathlib import Path
from moss_local.storage.documents import Document
from moss_local.storage.edits import put_documents
from moss_local.storage.file import open_session_file
file = open_session_file(Path(sys.argv[1]), session="s")
with file.writing() as conn:
    put_documents(conn, [Document("kept", "x")], space=None, now_ms=1)
with file.writing() as conn:
    lost = [Document(f"lost {i}", "y" * 5000) for i in range(2000)]
    put_documents(conn, lost, space=None, now_ms=2)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", script, str(path)], check=False)
    assert done.returncode == -9
    file = open_session_file(path, session="s")
    with file.reading() as conn:
        assert [document.id for document in get_documents(conn)] == ["kept"]
        assert conn.pragma("integrity_check") == "ok"
    file.close()


WRITER = """
import sys
from pathlib import Path
from moss_local.storage.documents import Document
from moss_local.storage.edits import put_documents
from moss_local.storage.file import open_session_file
file = open_session_file(Path(sys.argv[1]), session="s")
print("ready", flush=True)
sys.stdin.readline()
for i in range(int(sys.argv[3])):
    with file.writing() as conn:
        put_documents(conn, [Document(f"{sys.argv[2]}-{i}", "x")], space=None, now_ms=i)
file.close()
"""


def start_writer(path: Path, name: str, rounds: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), name, str(rounds)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_processes_that_create_and_fill_one_file_at_once_lose_nothing(path: Path) -> None:
    writers = [start_writer(path, name, 50) for name in "ab"]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    for writer in writers:
        writer.communicate()
        assert writer.returncode == 0
    file = open_session_file(path, session="s")
    with file.reading() as conn:
        documents = get_documents(conn)
        state = read_state(conn)
        assert conn.pragma("integrity_check") == "ok"
    assert {document.id for document in documents} == {f"{n}-{i}" for n in "ab" for i in range(50)}
    # One identity, one clock: no two writes have one stamp.
    assert {document.dev for document in documents} == {state.dev}
    assert len({document.hlc for document in documents}) == 100
    assert (state.live, state.local_seq) == (100, 100)
    file.close()


def test_threads_share_one_file(file: SessionFile) -> None:
    errors: list[BaseException] = []

    def work(name: str) -> None:
        try:
            for i in range(20):
                put(file, f"{name}-{i}")
                assert count(file) > i
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcdef"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert count(file) == 120


def test_a_reader_sees_one_moment_while_others_write(file: SessionFile) -> None:
    put(file, "a")
    with file.reading() as conn:
        assert count_documents(conn) == 1
        put(file, "b")
        assert count_documents(conn) == 1
    assert count(file) == 2


def test_a_lost_race_for_the_write_lock_waits_and_then_says_so(
    file: SessionFile, path: Path
) -> None:
    other = apsw.Connection(str(path))
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(FileBusyError) as caught:
        put(file, "a")
    assert caught.value.retryable
    assert caught.value.hint
    assert count(file) == 0  # reading goes on meanwhile
    other.execute("ROLLBACK")
    other.close()
    put(file, "a")
    assert count(file) == 1


def test_a_thread_that_waits_too_long_for_another_is_told_so(file: SessionFile) -> None:
    with file.writing(), pytest.raises(FileBusyError), file.writing():
        pass


def test_a_full_disk_is_an_error_and_loses_nothing_acknowledged(file: SessionFile) -> None:
    put(file, "kept")
    with file.writing() as conn:
        conn.pragma("max_page_count", conn.pragma("page_count"))

    def fill() -> None:
        with file.writing() as conn:
            documents = [Document("big", "x" * 500_000)]
            put_documents(conn, documents, space=None, now_ms=1)

    with pytest.raises(DiskFullError) as caught:
        fill()
    assert caught.value.retryable
    with file.reading() as conn:
        assert [document.id for document in get_documents(conn)] == ["kept"]
    fill()  # a fresh connection has no such limit
    assert count(file) == 2


def test_a_damaged_page_is_an_error_that_says_so(file: SessionFile, path: Path) -> None:
    put(file, *(f"{i}" for i in range(2000)))
    file.release()
    data = bytearray(path.read_bytes())
    data[2048 * 20 :] = b"\x55" * (len(data) - 2048 * 20)
    path.write_bytes(data)
    with pytest.raises(FileCorruptError), file.reading() as conn:
        get_documents(conn)


def test_files_are_for_their_owner_only(file: SessionFile, path: Path) -> None:
    put(file, "a")
    with file.reading():
        modes = {
            name: stat.S_IMODE(os.stat(path.parent / name).st_mode)
            for name in os.listdir(path.parent)
        }
    assert modes == dict.fromkeys(["s.sqlite3", "s.sqlite3-wal", "s.sqlite3-shm"], 0o600)
    for directory in (path.parent, path.parent.parent):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_a_place_that_cannot_hold_files_is_an_error_that_says_so(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("no directory")
    with pytest.raises(PermissionDeniedError):
        open_session_file(tmp_path / "plain" / "s.sqlite3", session="s")
    (tmp_path / "directory").mkdir()
    with pytest.raises(PermissionDeniedError):
        open_session_file(tmp_path / "directory", session="s")


def test_a_session_of_one_turn_takes_less_than_200_kb(file: SessionFile, path: Path) -> None:
    vector = np.ones(384, np.float32)
    document = Document("turn-1", "Customer reported a duplicate $49.99 charge.", vector=vector)
    with file.writing() as conn:
        put_documents(conn, [document], space=SPACE, now_ms=1)
    file.release()
    assert os.listdir(path.parent) == ["s.sqlite3"]
    assert path.stat().st_size <= 200_000


def test_owners_of_one_path_share_one_file_until_the_last_gives_it_back(
    file: SessionFile, path: Path
) -> None:
    again = open_session_file(path.parent / ".." / path.parent.name / path.name, session="s")
    assert again is file
    again.close()
    put(file, "a")
    last = open_session_file(path, session="s")
    assert last.derived(dict, dict) is file.derived(dict, dict)
    last.close()


def test_a_closed_file_refuses_to_work(path: Path) -> None:
    file = open_session_file(path, session="s")
    file.close()
    with pytest.raises(InvalidArgumentError, match="closed"):
        put(file, "a")


def test_what_is_released_comes_back_when_needed(file: SessionFile) -> None:
    put(file, "a")
    first = file.derived(dict, dict)
    assert file.release()
    assert count(file) == 1
    assert file.derived(dict, dict) is not first
    with file.reading():
        assert not file.release()


def test_no_more_than_64_files_keep_their_connections(tmp_path: Path) -> None:
    descriptors = Path("/proc/self/fd")
    before = len(os.listdir(descriptors))
    files = [
        open_session_file(tmp_path / f"{i}.sqlite3", session=f"{i}", durability="normal")
        for i in range(file_module.MAX_OPEN_FILES + 40)
    ]
    assert len(os.listdir(descriptors)) - before <= 3 * file_module.MAX_OPEN_FILES
    put(files[0], "a")  # long closed, and back
    assert count(files[0]) == 1
    for file in files:
        file.close()
    assert len(os.listdir(descriptors)) <= before


def test_a_file_says_which_session_it_holds_and_is_held_to_it(
    file: SessionFile, path: Path, tmp_path: Path
) -> None:
    assert open_session_file(path).session == "s"
    file.close()
    with pytest.raises(InvalidArgumentError):
        open_session_file(path, session="other")
    file.release()
    copy = tmp_path / "copy.sqlite3"
    copy.write_bytes(path.read_bytes())
    with pytest.raises(FileCorruptError, match="holds session 's'"):
        open_session_file(copy, session="other")


def test_a_file_that_must_exist_is_not_created(tmp_path: Path) -> None:
    for options in ({"create": False, "session": "s"}, {}):
        with pytest.raises(NotFoundError):
            open_session_file(tmp_path / "s.sqlite3", **options)  # type: ignore[arg-type]  # mixed
    assert os.listdir(tmp_path) == []


def test_of_several_owners_the_strongest_durability_counts(path: Path) -> None:
    weak = open_session_file(path, session="s", durability="normal")
    with weak.writing() as conn:
        assert conn.pragma("synchronous") == 1
    strong = open_session_file(path, session="s")
    assert strong is weak
    with weak.writing() as conn:
        assert conn.pragma("synchronous") == 2
    weak.close()
    strong.close()


def test_a_process_forks_between_the_transactions_of_its_other_threads(
    file: SessionFile, path: Path
) -> None:
    """A child of a process that is in the middle of one could not use the file any more."""
    script = """
import os, sys, threading
from pathlib import Path
from moss_local.storage.documents import Document
from moss_local.storage.edits import put_documents
from moss_local.storage.file import open_session_file
from moss_local.storage.state import read_state
file = open_session_file(Path(sys.argv[1]), session="s")
def put(id):
    with file.writing() as conn:
        put_documents(conn, [Document(id, "x")], space=None, now_ms=1)
over, busy = threading.Event(), threading.Barrier(5)
def work(tag):
    number = 0
    busy.wait()
    while not over.is_set():
        put(f"{tag}-{number % 10}")
        with file.reading() as conn:
            read_state(conn)
        number += 1
threads = [threading.Thread(target=work, args=(tag,), daemon=True) for tag in "abcd"]
for thread in threads:
    thread.start()
busy.wait()
for number in range(30):
    child = os.fork()
    if not child:
        put(f"child-{number}")
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, number
over.set()
for thread in threads:
    thread.join()
"""
    subprocess.run([sys.executable, "-c", script, str(path)], check=True, timeout=60)
    with file.reading() as conn:
        children = conn.execute("SELECT count(*) FROM document WHERE id LIKE 'child-%'").get
        assert (children, conn.pragma("integrity_check")) == (30, "ok")


def test_a_forked_child_and_its_parent_both_go_on(file: SessionFile, path: Path) -> None:
    script = """
import os, sys
from pathlib import Path
from moss_local.storage.documents import Document
from moss_local.storage.edits import put_documents
from moss_local.storage.file import open_session_file
file = open_session_file(Path(sys.argv[1]), session="s")
def put(id):
    with file.writing() as conn:
        put_documents(conn, [Document(id, "x")], space=None, now_ms=1)
put("before")
child = os.fork()
inherited = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")
             if os.path.exists(f"/proc/self/fd/{fd}")]
assert not any(".sqlite3" in name for name in inherited), inherited
for i in range(20):
    put(f"{'parent' if child else 'child'}-{i}")
if child:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    subprocess.run([sys.executable, "-c", script, str(path)], check=True)
    assert count(file) == 41
    with file.reading() as conn:
        assert conn.pragma("integrity_check") == "ok"
