"""Encrypted files: nothing readable is on the disk, and nobody opens them without the key."""

from __future__ import annotations

import asyncio
import random
import stat
from pathlib import Path

import numpy as np
import pytest

from moss_local import (
    AtRestError,
    CiphersMissingError,
    FileCorruptError,
    NetworkError,
    QueryOptions,
    UnauthorizedError,
)
from moss_local.storage import ciphers
from tests.at_rest.devices import Device, add, document, opened, texts, vector
from tests.keys import KEY, NEW_KEY

NEEDLES = ("pomegranate", "marmalade-id", "topic-of-marmalade", "confidential-session")


def found_in(held: dict[Path, bytes]) -> dict[str, list[str]]:
    """Return which needles are readable, and where."""
    raw = np.asarray(vector("pomegranate"), "f4")
    patterns = {needle: needle.encode() for needle in NEEDLES}
    patterns |= {"vector": raw[:4].tobytes()}
    found: dict[str, list[str]] = {}
    for path, data in held.items():
        for name, pattern in patterns.items():
            if pattern in data or pattern in path.name.encode():
                found.setdefault(name, []).append(path.name)
    return found


async def live_through(device: Device, at_rest: bool | None) -> list[dict[str, list[str]]]:
    """Add, search, delete, push and rewrite; return what was readable at each moment."""
    seen = []
    name = "confidential-session"
    async with device.client(at_rest=at_rest) as client:
        session = await opened(client, name)
        await session.add_docs([document("marmalade-id", "pomegranate")])
        # More than SQLite's cache holds, in one transaction: it spills before it commits.
        fill = [document(f"fill-{n}", f"pomegranate {n} " + "filler " * 200) for n in range(3000)]
        await session.add_docs(fill)
        seen.append(found_in(device.everything()))  # file and log, while they are open
        options = QueryOptions(embedding=vector("pomegranate"), top_k=3)
        await session.query("pomegranate", options)
        await session.query("", options)
        await session.add_docs([document("marmalade-id", "pomegranate, revised")])
        await session.delete_docs([f"fill-{n}" for n in range(1000)])
        await session.push_index()
        await session.forget(["fill-2000"])  # writes the file anew
        seen.append(found_in(device.everything()))
        await session.close()
        await client.local_sessions()
    seen.append(found_in(device.everything()))
    return seen


def test_nothing_readable_is_in_file_log_or_cache(tmp_path: Path) -> None:
    for found in asyncio.run(live_through(Device(tmp_path), True)):
        assert found == {}


def test_without_encryption_the_same_search_finds_what_it_looks_for(tmp_path: Path) -> None:
    found = asyncio.run(live_through(Device(tmp_path), None))[0]
    assert {*NEEDLES, "vector"} <= set(found)


def test_a_killed_writer_leaves_nothing_readable_and_loses_nothing(tmp_path: Path) -> None:
    from tests.at_rest.killed import kill_while_writing

    device = Device(tmp_path)
    acknowledged = kill_while_writing(device.root, after=40)
    assert found_in(device.everything()) == {}
    held = asyncio.run(texts(device.client()))
    assert set(acknowledged) <= set(held)


def test_another_project_key_opens_nothing_and_changes_nothing(tmp_path: Path) -> None:
    device = Device(tmp_path)

    async def story() -> None:
        async with device.client(at_rest=True) as client:
            await add(client, document("a", "alpha"))
        before = device.everything()
        other = device.client(NEW_KEY)
        with pytest.raises(UnauthorizedError, match="does not open this project"):
            await opened(other)
        with pytest.raises(UnauthorizedError):
            await other.local_sessions()
        await other.close()
        after = device.everything()
        assert {path: after[path] for path in before} == before
        async with device.client() as client:  # nothing need be said: the project key opens them
            assert await texts(client) == {"a": "alpha"}

    asyncio.run(story())


def test_a_key_of_the_apps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device(tmp_path)

    async def story() -> None:
        async with device.client(at_rest="from the keyring") as client:
            await add(client, document("a", "alpha"))
        for wrong in (None, True):
            with pytest.raises(AtRestError, match="a key of the app's") as said:
                await opened(device.client(at_rest=wrong))
            assert "MOSS_AT_REST_KEY" in (said.value.hint or "")
        with pytest.raises(UnauthorizedError, match="does not open them"):
            await opened(device.client(at_rest="another"))
        async with device.client(KEY, at_rest="from the keyring") as client:
            assert await texts(client) == {"a": "alpha"}
        monkeypatch.setenv("MOSS_AT_REST_KEY", "from the keyring")
        async with device.client() as client:
            assert await texts(client) == {"a": "alpha"}
        monkeypatch.delenv("MOSS_AT_REST_KEY")
        async with device.client(at_rest="from the keyring") as client:
            assert await client.change_at_rest_key()  # to the project key
        async with device.client() as client:
            assert await texts(client) == {"a": "alpha"}
            assert await client.change_at_rest_key("another")
        with pytest.raises(UnauthorizedError):
            await opened(device.client(at_rest="from the keyring"))
        async with device.client(at_rest="another") as client:
            assert await texts(client) == {"a": "alpha"}

    asyncio.run(story())


def test_the_key_is_in_no_file(tmp_path: Path) -> None:
    device = Device(tmp_path)
    asyncio.run(
        add(device.client("a-rather-long-key", at_rest="and-the-app-has-one"), document("a", "b"))
    )
    for path, data in device.everything().items():
        assert b"a-rather-long-key" not in data, path
        assert b"and-the-app-has-one" not in data, path


def test_files_are_for_their_owner_only(tmp_path: Path) -> None:
    device = Device(tmp_path)

    async def story() -> None:
        async with device.client(at_rest=True) as client:
            async with await opened(client):
                for path in device.everything():
                    assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
            await client.decrypt_at_rest()
            await client.encrypt_at_rest()
        for path in device.everything():
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path

    asyncio.run(story())


def test_a_changed_page_is_noticed(tmp_path: Path) -> None:
    device = Device(tmp_path)
    asyncio.run(add(device.client(at_rest=True), *[document(str(n), "x" * 500) for n in range(50)]))
    (path,) = device.session_files()
    whole = path.read_bytes()
    for place in range(40, len(whole), len(whole) // 23):
        changed = bytearray(whole)
        changed[place] ^= 1
        path.write_bytes(changed)

        async def read_all() -> None:
            async with device.client() as client:
                await texts(client)
                async with await opened(client) as session:
                    await session.query("x", QueryOptions(embedding=vector("x")))

        try:
            asyncio.run(read_all())
        except FileCorruptError:
            continue
        # A page that nothing read; the check reads all of them.
        file = open_whole(device)
        assert file, place


def open_whole(device: Device) -> list[str]:
    """Return what the checks of the file find."""
    from moss_local.storage.checkup import check_file
    from moss_local.storage.place import Secrets, find_place

    place = find_place(device.directory, Secrets(KEY))
    try:
        file = place.open_file(device.session_files()[0])
    except FileCorruptError as error:
        return [str(error)]
    try:
        with file.writing() as conn:
            return check_file(conn)
    except FileCorruptError as error:
        return [str(error)]
    finally:
        file.close()


def test_without_ciphers_the_error_has_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = Device(tmp_path)
    asyncio.run(add(device.client(at_rest=True), document("a", "alpha")))
    before = device.everything()
    monkeypatch.setattr(ciphers, "available", lambda: False)
    with pytest.raises(CiphersMissingError) as said:
        asyncio.run(texts(device.client()))
    assert "pip install --force-reinstall --no-deps apsw-sqlite3mc" in (said.value.hint or "")
    after = device.everything()
    assert {path: after[path] for path in before} == before


def test_a_rotation_of_the_project_key_takes_the_files_along(tmp_path: Path) -> None:
    device = Device(tmp_path)

    async def story() -> None:
        async with device.client(at_rest=True) as client:
            session = await opened(client)
            await session.add_docs([document("a", "alpha")])
            await session.push_index()
            await client.rotate_key(NEW_KEY)  # the session is open, and stays so
            await session.add_docs([document("b", "beta")])
            await session.close()
        async with device.client(NEW_KEY) as client:
            assert await texts(client) == {"a": "alpha", "b": "beta"}
        with pytest.raises(UnauthorizedError):
            await opened(device.client(KEY))

    asyncio.run(story())


def test_a_rotation_that_failed_locks_nobody_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = Device(tmp_path)

    async def lost(*_: object) -> int:
        raise NetworkError("no answer")

    async def story() -> None:
        async with device.client(at_rest=True) as client:
            async with await opened(client) as session:
                await session.add_docs([document("a", "alpha")])
                await session.push_index()
            with monkeypatch.context() as patch:
                patch.setattr("moss_local.project.rotate", lost)
                with pytest.raises(NetworkError):
                    await client.rotate_key(NEW_KEY)
        for key in (KEY, NEW_KEY):  # which one counts is not known
            from moss_local.storage.place import Secrets, find_place

            assert find_place(device.directory, Secrets(key)).keys is not None
        async with device.client(KEY) as client:
            await client.rotate_key(NEW_KEY)
        async with device.client(NEW_KEY) as client:
            assert await texts(client) == {"a": "alpha"}
        with pytest.raises(UnauthorizedError):
            find_place(device.directory, Secrets(KEY))

    asyncio.run(story())


def test_a_damaged_encrypted_file_is_repaired(tmp_path: Path) -> None:
    """Of the unpushed, unlike in a clear file, only what SQLite still finds a way to is kept."""
    pushed = {f"p{n}": f"pushed {n} " + "filler " * 100 for n in range(30)}
    kept = {f"k{n}": f"kept {n} " + "filler " * 100 for n in range(30)}

    async def fill(device: Device) -> None:
        async with device.client(at_rest=True) as client, await opened(client) as session:
            await session.add_docs([document(id, text) for id, text in pushed.items()])
            await session.push_index()
            await session.add_docs([document(id, text) for id, text in kept.items()])

    async def repair(device: Device) -> dict[str, str]:
        async with device.client() as client:
            done = await client.repair_session("conv")
            assert done.error is None
            return await texts(client)

    mostly_kept = 0
    for seed in range(4):
        device = Device(tmp_path / str(seed))
        asyncio.run(fill(device))
        (path,) = device.session_files()
        changed = bytearray(path.read_bytes())
        for page in random.Random(seed).sample(range(1, len(changed) // 2048), 3):
            changed[page * 2048 + 100] ^= 0xFF
        path.write_bytes(changed)
        found = asyncio.run(repair(device))
        assert pushed.items() <= found.items() <= (pushed | kept).items()
        mostly_kept += len(found) >= len(pushed) + len(kept) // 2
        assert found_in(device.everything()) == {}
        (path,) = device.session_files()
        assert not path.read_bytes().startswith(b"SQLite")
    assert mostly_kept >= 2
