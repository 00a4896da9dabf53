"""Files that are there, encrypted and decrypted: nothing is lost, whenever it is cut off."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import apsw
import pytest

from moss_local import (
    AtRestError,
    FileBusyError,
    FileCorruptError,
    PermissionDeniedError,
    UnauthorizedError,
)
from moss_local.settings import load_credentials, save_credentials
from moss_local.storage import ciphers, connection, conversion
from moss_local.storage.conversion import PLAIN_HEADER
from moss_local.storage.place import Secrets, find_place
from tests.at_rest.devices import Device, add, document, opened, texts
from tests.keys import KEY
from tests.moss_local.cli_harness import Cli

SESSIONS = {"conv": {"a": "alpha", "b": "beta"}, "nächste": {"c": "gamma"}}


async def fill(device: Device) -> None:
    async with device.client() as client:
        for name, held in SESSIONS.items():
            await add(client, *[document(id, text) for id, text in held.items()], name=name)


async def held(device: Device) -> dict[str, dict[str, str]]:
    async with device.client() as client:
        return {name: await texts(client, name) for name in SESSIONS}


def plain_files(device: Device) -> int:
    return sum(path.read_bytes().startswith(PLAIN_HEADER) for path in device.session_files())


def test_there_and_back_with_history_pushes_and_identity(tmp_path: Path) -> None:
    device = Device(tmp_path)

    async def story() -> None:
        await fill(device)
        async with device.client() as client:
            async with await opened(client) as session:
                await session.push_index()
                await session.add_docs([document("b", "beta, revised")])  # not pushed yet
            before = (await client.local_sessions()).sessions
            with pytest.raises(AtRestError, match=r"2 session files .* not encrypted yet"):
                await opened(device.client(at_rest=True))
            assert await client.encrypt_at_rest() == 2
            assert await client.encrypt_at_rest() == 0
            assert plain_files(device) == 0
            assert not any("conv" in path.name for path in device.directory.iterdir())
            inside = (await client.local_sessions()).sessions
            assert [each.device_id for each in inside] == [each.device_id for each in before]
            assert inside[0].sync_state.pending == before[0].sync_state.pending == 1
            async with await opened(client) as session:
                assert [each.text for each in await session.history("b")]
                await session.push_index()
                assert session.sync_state.pending == 0
            assert await client.decrypt_at_rest() == 2
            assert await client.decrypt_at_rest() == 0
        assert plain_files(device) == 2
        assert await held(device) == SESSIONS | {"conv": {"a": "alpha", "b": "beta, revised"}}

    asyncio.run(story())


def stored(device: Device) -> dict[str, dict[str, str]]:
    """Return what the files hold, without a client."""
    place = find_place(device.directory, Secrets(KEY))
    found = {}
    for path in place.files():
        file = place.open_file(path)
        with file.reading() as conn:
            found[file.session] = dict(conn.execute("SELECT id, text FROM document").fetchall())
        file.close()
    return found


def stored_unless_cut_off(device: Device) -> dict[str, dict[str, str]] | None:
    try:
        return stored(device)
    except AtRestError as error:
        if "cut off" not in str(error):
            raise
        return None


class CutOff(BaseException):
    """The moment at which the machine stops."""


@contextmanager
def cut_off_at(moment: int) -> Iterator[Callable[[], bool]]:
    """Stop before the so manieth change of the file system; yields whether it came to that."""
    count = 0
    names = ("replace", "rename", "unlink", "fsync", "open", "link")
    real: dict[str, Any] = {name: getattr(os, name) for name in names}

    def stopping(name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal count
            count += 1
            if count == moment:
                raise CutOff(name)
            if count > moment and name in ("unlink", "replace", "rename"):
                raise CutOff(name)  # a stopped machine cleans nothing up
            return real[name](*args, **kwargs)

        return call

    for name in names:
        setattr(os, name, stopping(name))
    try:
        yield lambda: count >= moment
    finally:
        for name in names:
            setattr(os, name, real[name])


@pytest.mark.parametrize("way", ["encrypt", "decrypt"])
@pytest.mark.parametrize("end", ["encrypt", "decrypt"])
def test_cut_off_at_any_moment_either_way_ends_it_and_nothing_is_lost(
    tmp_path: Path, way: str, end: str
) -> None:
    given = Secrets(KEY)
    template = Device(tmp_path / "template")
    asyncio.run(fill(template))
    if way == "decrypt":
        conversion.encrypt(template.directory, given)
    moment, cut = 0, True
    while cut:
        moment += 1
        device = Device(tmp_path / str(moment))
        shutil.copytree(template.root, device.root)
        with cut_off_at(moment) as was_cut:
            with suppress(CutOff):
                getattr(conversion, way)(device.directory, given)
            cut = was_cut()
        if (found := stored_unless_cut_off(device)) is not None:
            assert found == SESSIONS, moment
        getattr(conversion, end)(device.directory, given)
        assert stored(device) == SESSIONS, moment
        assert plain_files(device) == (0 if end == "encrypt" else 2)
        assert len(device.session_files()) == 2
        assert not list(device.directory.glob(".conv*"))
    assert moment > 15


HOLDER = """
import sys
from pathlib import Path
from moss_local.storage.file import open_session_file
file = open_session_file(Path(sys.argv[1]))
print("open", flush=True)
sys.stdin.readline()
"""


def test_a_session_that_is_open_elsewhere_stops_it_and_stays_as_it_was(tmp_path: Path) -> None:
    device = Device(tmp_path)
    asyncio.run(fill(device))

    async def encrypt() -> int:
        async with device.client() as client:
            return await client.encrypt_at_rest()

    async def encrypt_while_open_here() -> None:
        async with device.client() as client, await opened(client):
            with pytest.raises(FileBusyError, match="is open"):
                await client.encrypt_at_rest()
            async with device.client() as other:
                with pytest.raises(FileBusyError, match="open in this process"):
                    await other.encrypt_at_rest()

    asyncio.run(encrypt_while_open_here())
    command = [sys.executable, "-c", HOLDER, str(device.session_files()[0])]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdin is not None
        assert holder.stdout.readline().strip() == b"open"
        with pytest.raises(FileBusyError, match="open in another process"):
            asyncio.run(encrypt())
        assert asyncio.run(held(device)) == SESSIONS  # nobody is locked out
        holder.stdin.write(b"\n")
        holder.stdin.flush()
        assert holder.wait() == 0
    assert asyncio.run(encrypt()) == 2
    assert asyncio.run(held(device)) == SESSIONS


def test_who_had_it_open_before_is_told_and_writes_nothing_in_the_clear(tmp_path: Path) -> None:
    device = Device(tmp_path)

    async def story() -> None:
        await fill(device)
        async with device.client() as early:
            assert await texts(early)
            async with device.client() as client:
                await client.encrypt_at_rest()
            with pytest.raises(AtRestError, match="encrypted meanwhile"):
                await opened(early)
        assert plain_files(device) == 0
        assert len(device.session_files()) == 2
        assert await held(device) == SESSIONS

    asyncio.run(story())


def test_a_damaged_file_stops_it_and_the_others_go_on_once_it_is_away(tmp_path: Path) -> None:
    device = Device(tmp_path)
    asyncio.run(fill(device))
    path = device.session_files()[0]
    whole = path.read_bytes()
    path.write_bytes(whole[:5000] + bytes(20_000) + whole[25_000:])

    async def encrypt() -> int:
        async with device.client() as client:
            return await client.encrypt_at_rest()

    with pytest.raises(FileCorruptError):
        asyncio.run(encrypt())
    assert path.exists()
    path.rename(tmp_path / "aside")
    assert asyncio.run(encrypt()) == 1


def test_damaged_files_that_a_repair_moved_aside_stop_it_either_way(tmp_path: Path) -> None:
    """They would stay readable where everything is said to be encrypted; and nobody finds them."""
    device = Device(tmp_path)
    asyncio.run(fill(device))
    path = device.session_files()[0]

    async def convert(*, back: bool) -> int:
        async with device.client() as client:
            return await (client.decrypt_at_rest() if back else client.encrypt_at_rest())

    for back in (False, True):
        aside = device.session_files()[0].parent / f"{path.name}.damaged-1"
        aside.write_bytes(b"something confidential")
        with pytest.raises(AtRestError, match="moved aside"):
            asyncio.run(convert(back=back))
        aside.unlink()
        assert asyncio.run(convert(back=back)) > 0


@pytest.mark.parametrize("damaged", ["emptied", "emptied, with a log", "no version", "log only"])
def test_a_lost_or_emptied_file_stops_it_and_stays(tmp_path: Path, damaged: str) -> None:
    device = Device(tmp_path)
    asyncio.run(fill(device))
    path = device.session_files()[0]
    log = path.with_name(path.name + "-wal")
    if damaged == "no version":
        conn = apsw.Connection(str(path))
        conn.execute("PRAGMA journal_mode = delete").fetchall()
        conn.execute("PRAGMA user_version = 0")
        conn.close()
    else:
        path.write_bytes(b"")
        if damaged != "emptied":
            log.write_bytes(b"what was written last")
        if damaged == "log only":
            path.unlink()
    before = {each: each.read_bytes() for each in (path, log) if each.exists()}

    async def encrypt() -> int:
        async with device.client() as client:
            return await client.encrypt_at_rest()

    for _ in range(2):
        with pytest.raises(FileCorruptError):
            asyncio.run(encrypt())
        assert {each: each.read_bytes() for each in (path, log) if each.exists()} == before


@pytest.mark.parametrize("back", [False, True])
def test_a_copy_of_a_file_beside_it_replaces_no_session(tmp_path: Path, back: bool) -> None:
    device = Device(tmp_path)
    asyncio.run(fill(device))

    async def convert(*, back: bool) -> int:
        async with device.client() as client:
            return await (client.decrypt_at_rest() if back else client.encrypt_at_rest())

    if back:
        asyncio.run(convert(back=False))
    paths = device.session_files()
    copy = paths[0].with_name("zz-backup.sqlite3")
    copy.write_bytes(paths[0].read_bytes())
    told = "has not the name of a session's file" if back else "holds session"
    with pytest.raises(FileCorruptError, match=told):
        asyncio.run(convert(back=back))
    assert copy.exists()
    copy.unlink()
    asyncio.run(convert(back=back))
    assert len(device.session_files()) == len(paths)


def test_what_a_repair_has_kept_stops_it(tmp_path: Path) -> None:
    device = Device(tmp_path)
    asyncio.run(fill(device))
    path = device.session_files()[0]
    kept = path.with_name(f".salvage-{path.name}")
    kept.write_bytes(b"something confidential")

    async def encrypt() -> int:
        async with device.client() as client:
            return await client.encrypt_at_rest()

    with pytest.raises(AtRestError, match="salvage"):
        asyncio.run(encrypt())
    assert kept.exists()


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """A device that is set up and has pushed a session."""
    monkeypatch.chdir(tmp_path)
    made = Cli(("--data-dir", "one"))
    made("init", "--project", "acme", "--store", "./shared").ok()
    made("add", "conv", "something confidential").ok()
    made("push", "conv").ok()
    return made


def project_key() -> str:
    kept = load_credentials()
    assert kept is not None
    return kept.project_key


def test_the_command_line(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def readable() -> bool:
        return "something confidential" in cli("show", "conv").ok().stdout

    status = cli("at-rest", "--json").ok().json()
    assert (status["encrypted"], status["opened_by"]) == (False, None)
    assert "moss-local at-rest on" in cli("doctor", "--local").ok().stdout
    assert cli("at-rest", "on", "--json").ok().json()["sessions_converted"] == 1
    assert cli("at-rest", "--json").ok().json()["opened_by"] == ["project"]
    assert "encryption at rest: on" in cli("doctor", "--local").ok().stdout
    assert readable()
    cli("rotate-key").ok()
    assert readable()
    monkeypatch.setenv("MOSS_OLD_AT_REST_KEY", project_key())
    monkeypatch.setenv("MOSS_AT_REST_KEY", "from the keyring")
    assert cli("at-rest", "change-key", "--json").ok().json()["opened_by"] == ["app"]
    assert readable()
    cli("rotate-key").ok()  # is none of the app key's business
    assert readable()
    monkeypatch.delenv("MOSS_AT_REST_KEY")
    refused = cli("show", "conv")
    assert refused.code == AtRestError.exit_code
    assert "MOSS_AT_REST_KEY" in refused.stderr
    assert cli("doctor", "--local").code == 1
    monkeypatch.setenv("MOSS_AT_REST_KEY", "from the keyring")
    assert cli("at-rest", "off", "--json").ok().json()["encrypted"] is False
    monkeypatch.delenv("MOSS_AT_REST_KEY")
    assert readable()


def test_a_damaged_one_is_named_by_its_session(cli: Cli) -> None:
    cli("at-rest", "on").ok()
    (path,) = Path("one").rglob("*.sqlite3")
    path.write_bytes(b"\0" * 4096 + path.read_bytes()[4096:])
    told = cli("status", "conv")
    assert told.code == FileCorruptError.exit_code
    assert "damaged" in told.stderr


@pytest.mark.parametrize("how", ["join", "change-key"])
def test_a_device_that_takes_over_a_new_key_opens_its_files_with_it(
    cli: Cli, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Cli(("--data-dir", "two"))
    other("pull", "conv").ok()
    other("at-rest", "on").ok()
    old = load_credentials()
    assert old is not None
    cli("rotate-key").ok()
    new = project_key()
    if how == "join":
        save_credentials(old)  # the other device has credentials of its own
        monkeypatch.setenv("MOSS_NEW_PROJECT_KEY", new)
        other("rotate-key", "--join").ok()
    else:
        refused = other("show", "conv")
        assert refused.code == UnauthorizedError.exit_code
        assert "moss-local at-rest change-key" in refused.stderr
        monkeypatch.setenv("MOSS_OLD_AT_REST_KEY", old.project_key)
        other("at-rest", "change-key").ok()
    assert project_key() == new
    assert "something confidential" in other("show", "conv").ok().stdout


def test_the_copy_before_a_migration_is_encrypted_too(tmp_path: Path) -> None:
    device = Device(tmp_path)
    asyncio.run(fill(device))
    conversion.encrypt(device.directory, Secrets(KEY))
    place = find_place(device.directory, Secrets(KEY))
    path = place.path("conv")
    connection._back_up(path, place.key_of(path))
    copy = connection.backup_path(path)
    assert b"alpha" not in copy.read_bytes()
    assert not copy.read_bytes().startswith(PLAIN_HEADER)
    conn = connection.connect(copy, durability="full", busy_ms=0, key=place.key_of(path))
    found = dict(conn.execute("SELECT id, text FROM document").fetchall())
    assert (conn.pragma("integrity_check"), found) == ("ok", SESSIONS["conv"])
    conn.close()


def test_a_copy_that_fails_does_not_tell_the_key(tmp_path: Path) -> None:
    key = bytes(range(32))
    conn = apsw.Connection(":memory:")
    conn.execute("CREATE TABLE t (x)")
    with pytest.raises(apsw.Error) as said:
        ciphers.copy_into(conn, tmp_path / "missing" / "x", key)
    told = "".join(traceback.format_exception(said.value, chain=True))
    assert key.hex() not in told
    assert said.value.__cause__ is None
    assert said.value.__suppress_context__


def test_an_old_file_that_cannot_be_deleted_costs_neither_the_key_nor_a_document(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where another program looks at it: the new form is there, and the old one is marked."""
    device = Device(tmp_path)
    asyncio.run(fill(device))
    real = os.unlink

    def refuses(path: Any, *args: Any, **options: Any) -> None:
        if str(path).endswith(".sqlite3"):
            raise PermissionError(13, "Permission denied", str(path))
        real(path, *args, **options)

    for way, plain in (("encrypt", 0), ("decrypt", 2)):
        with monkeypatch.context() as patch:
            patch.setattr(os, "unlink", refuses)
            with pytest.raises(PermissionDeniedError):
                getattr(conversion, way)(device.directory, Secrets(KEY))
        getattr(conversion, way)(device.directory, Secrets(KEY))
        assert stored(device) == SESSIONS
        assert plain_files(device) == plain
