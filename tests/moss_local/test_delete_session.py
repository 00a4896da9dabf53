"""A session deleted for everybody, and a file deleted here."""

from __future__ import annotations

import asyncio
import secrets
import subprocess
import sys
from pathlib import Path

import pytest

from moss_local import (
    DocumentInfo,
    FileBusyError,
    MossClient,
    NetworkError,
    NotFoundError,
    SessionIndex,
)
from moss_local.storage import file as storage_file
from moss_local.storage.connection import connect, mark_removed, take_alone
from moss_local.storage.file import open_session_file, remove_session_file
from moss_local.storage.schema import BeingDeletedError
from moss_local.storage.state import read_state
from tests.moss_local.bucket import Bucket
from tests.moss_local.cli_harness import Cli
from tests.moss_sync.world import noise

VECTOR = [1.0, 0.0, 0.0, 0.0]


async def opened(client: MossClient, name: str = "conv") -> SessionIndex:
    return await client.session(name, "custom", auto_load_on_init=False)


async def add(session: SessionIndex, *ids: str) -> None:
    await session.add_docs(
        [DocumentInfo(id, f"{id} {noise(len(id), 9000)}", embedding=VECTOR) for id in ids]
    )


async def ids(session: SessionIndex) -> list[str]:
    return [doc.id for doc in await session.get_docs()]


async def names(client: MossClient) -> list[str]:
    return [each.name for each in (await client.stored_sessions()).sessions]


def files(directory: Path) -> list[str]:
    return sorted(p.name for p in directory.rglob("*") if "sqlite3" in p.name)


def test_a_deleted_session_is_gone_from_the_store_from_here_and_from_everywhere(
    bucket: Bucket, tmp_path: Path
) -> None:
    async def story() -> None:
        async with bucket.client(tmp_path / "one") as a, bucket.client(tmp_path / "two") as b:
            one, two = await opened(a), await opened(b)
            await add(one, "a", "bb")
            await one.push_index()
            await two.pull()
            await add(two, "mine")
            await a.delete_session("conv")
            with pytest.raises(Exception, match="is closed"):
                await one.get_docs()
            assert files(tmp_path / "one") == []
            assert await names(a) == []
            assert await bucket.texts(a) == set()
            with pytest.raises(NotFoundError):
                await a.session("conv", create=False)

            report = await two.sync()
            assert report.quarantined == 1
            assert await ids(two) == []
            [edit] = await two.quarantined()
            assert (edit.id, edit.reason) == ("mine", "deleted")
            [known] = (await b.local_sessions()).sessions
            assert (known.deleted, known.set_aside) == (True, 1)

            again = await opened(a)
            await add(again, "new")
            await again.push_index()
            await two.restore_quarantined(edit.number)
            await two.sync()
            await again.pull()
            assert await ids(two) == await ids(again) == ["mine", "new"]
            assert await names(a) == ["conv"]

    asyncio.run(story())


def test_a_session_that_is_only_in_the_store_or_only_here_is_deleted_too(tmp_path: Path) -> None:
    bucket = Bucket(str(tmp_path / "store"))

    async def story() -> None:
        async with bucket.client(tmp_path / "one") as a, bucket.client(tmp_path / "two") as b:
            session = await opened(a, "never pushed")
            await add(session, "a")
            await a.delete_session("never pushed")
            assert files(tmp_path / "one") == []
            assert not (tmp_path / "store").exists()
            await add(await opened(a, "pushed"), "a")
            await (await opened(a, "pushed")).push_index()
            await b.delete_session("pushed")
            assert files(tmp_path / "two") == []
            assert await names(a) == []
            for local_only in (False, True):
                with pytest.raises(NotFoundError, match="'unknown'"):
                    await a.delete_session("unknown", local_only=local_only)

    asyncio.run(story())


def test_only_this_devices_file_is_deleted_on_demand(tmp_path: Path) -> None:
    bucket = Bucket(str(tmp_path / "store"))

    async def story() -> None:
        async with bucket.client(tmp_path / "one") as a:
            one = await opened(a)
            await add(one, "a")
            await one.push_index()
            await add(one, "bb")
            await a.delete_session("conv", local_only=True)
            assert files(tmp_path / "one") == []
            back = await a.session("conv")
            assert await ids(back) == ["a"]

    asyncio.run(story())


def test_without_the_store_nothing_is_deleted(tmp_path: Path) -> None:
    bucket = Bucket(str(tmp_path / "store"))

    async def story() -> None:
        async with bucket.client(tmp_path / "one") as a:
            one = await opened(a)
            await add(one, "a")
            await one.push_index()
            (tmp_path / "store").rename(tmp_path / "away")
            with pytest.raises(NetworkError):
                await a.delete_session("conv")
            assert await ids(await opened(a)) == ["a"]

    asyncio.run(story())


HOLDER = """
import sys
from pathlib import Path
from moss_local.storage.file import open_session_file
file = open_session_file(Path(sys.argv[1]))
print("open", flush=True)
sys.stdin.readline()
"""


def test_a_file_that_another_process_has_open_stays(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite3"
    open_session_file(path, session="s").close()
    command = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdin is not None
        assert holder.stdout.readline().strip() == b"open"
        with pytest.raises(FileBusyError, match="open in another process"):
            remove_session_file(path, busy_ms=50)
        open_session_file(path).close()  # and is as it was
        holder.stdin.write(b"\n")
        holder.stdin.flush()
        assert holder.wait() == 0
    file = open_session_file(path)
    with pytest.raises(FileBusyError, match="open in this process"):
        remove_session_file(path)
    file.close()
    remove_session_file(path)
    assert list(tmp_path.iterdir()) == []
    remove_session_file(path)


def test_a_deletion_that_was_cut_off_is_ended_by_whoever_opens_the_session(
    tmp_path: Path,
) -> None:
    path = tmp_path / "s.sqlite3"
    file = open_session_file(path, session="s")
    with file.reading() as conn:
        before = read_state(conn).dev
    file.close()
    conn = connect(path, durability="full", busy_ms=0)
    assert take_alone(conn)
    mark_removed(conn)
    with pytest.raises(FileBusyError):  # as long as somebody is at it
        open_session_file(path, session="s", busy_ms=20)
    conn.close()
    with pytest.raises(FileBusyError, match="is being deleted"):
        open_session_file(path)
    file = open_session_file(path, session="s")
    with file.reading() as conn:
        assert read_state(conn).dev != before
    file.close()
    remove_session_file(path)
    assert list(tmp_path.iterdir()) == []


def test_a_session_that_was_made_anew_meanwhile_is_not_deleted_with_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s.sqlite3"
    real = storage_file._open
    meanwhile: list[bytes] = []

    def slow(*args: object, **kwargs: object) -> object:
        if not meanwhile:
            # What was opened was being deleted; before that is acted on, somebody is faster.
            made = real(path, "s", "full", 50, secrets.token_bytes, None)
            with made.reading() as conn:
                meanwhile.append(read_state(conn).dev)
            made.close()
            raise BeingDeletedError("it is being deleted")
        return real(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(storage_file, "_open", slow)
    file = open_session_file(path, session="s")
    with file.reading() as conn:
        assert read_state(conn).dev == meanwhile[0]
    file.close()


def test_a_damaged_file_can_be_deleted(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite3"
    path.write_bytes(b"no database at all" * 500)
    remove_session_file(path)
    assert not path.exists()


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    monkeypatch.chdir(tmp_path)
    made = Cli()
    made("init", "--project", "acme", "--store", "./shared").ok()
    made("add", "conv", "first", "--id", "t1").ok()
    made("push", "conv").ok()
    made.on("other")("pull", "conv").ok()
    made.on("other")("add", "conv", "not pushed", "--id", "t2").ok()
    return made


def test_the_command_deletes_and_other_devices_are_told(cli: Cli) -> None:
    other = cli.on("other")
    asked = cli("delete", "conv")
    assert (asked.code, "--yes" in asked.stderr) == (2, True)
    assert cli("delete", "conv", "--yes").ok().stdout == "conv: deleted for everybody\n"
    assert "there are no sessions" in cli("sessions").ok().stderr
    assert cli("delete", "conv", "-y").code == 3
    told = other("sync", "conv").ok()
    assert "1 set aside" in told.stdout
    assert "moss-local quarantine conv" in told.stderr
    assert "deleted, 1 set aside" in other("sessions").ok().stdout
    assert ", 1 set aside" in other("status").ok().stdout
    assert other("status", "--json").ok().json()["sessions"][0]["set_aside"] == 1
    other("quarantine", "conv", "--discard", "1").ok()
    assert "there are no sessions" in other("sessions").ok().stderr


def test_the_command_deletes_here_only(cli: Cli) -> None:
    other = cli.on("other")
    done = other("delete", "conv", "--local-only", "--yes").ok()
    assert done.stdout == "conv: deleted on this device\n"
    [listed] = other("sessions", "--json").ok().json()["sessions"]
    assert (listed["here"], listed["in_store"]) == (False, True)
