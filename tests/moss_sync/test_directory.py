"""The list of sessions that a store gives: what is in it, what hides nothing, what it writes."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

import pytest

from moss_sync import BlobCorruptError, BlobMissingError, NetworkError, UnauthorizedError
from moss_sync.commit import Commit
from moss_sync.directory import Known, find_session, find_session_by_id, has_session, list_sessions
from moss_sync.stores import BlobStore, FolderStore, MemoryStore
from moss_sync.traffic import metered
from tests.devices import Device
from tests.keys import OTHER_KEY

T = TypeVar("T")

NAMES = ["conv-123", "Conv-123", "../x", "con", "ünïcode 🙂", "a/b"]


async def filled(store: BlobStore, directory: Path, names: list[str]) -> Device:
    """Push one document of each session; return the last device."""
    for number, name in enumerate(names):
        device = Device(directory / f"{number}.sqlite3", store, seed=number, session=name)
        device.put("turn-1", f"hello {name}")
        await device.engine.push()
        device.close()
    return device


def test_every_session_is_listed_under_its_name(tmp_path: Path) -> None:
    async def run() -> None:
        device = await filled(MemoryStore(), tmp_path, NAMES)
        found = await list_sessions(device.repository)
        assert [session.name for session in found.sessions] == sorted(NAMES)
        assert found.unreadable == ()
        for session in found.sessions:
            assert (session.commits, session.devices, session.model_id) == (1, 1, "custom")
            assert session.bytes > 0
            assert session.committed_ms > 1_700_000_000_000

    asyncio.run(run())


def test_a_listing_costs_one_request_and_one_for_each_session(tmp_path: Path) -> None:
    async def run() -> None:
        device = await filled(MemoryStore(), tmp_path, NAMES)
        with metered() as meter:
            await list_sessions(device.repository)
        assert meter.requests == 1 + len(NAMES)

    asyncio.run(run())


def test_what_has_not_changed_since_a_listing_is_not_read_again(tmp_path: Path) -> None:
    async def run() -> None:
        store = MemoryStore()
        device = await filled(store, tmp_path, NAMES)
        known: Known = {}
        first = await list_sessions(device.repository, known)
        with metered() as meter:
            assert await list_sessions(device.repository, known) == first
        assert meter.requests == 1
        writer = Device(tmp_path / "w", store, session="con", seed=99)
        writer.put("turn-2", "more")
        await writer.engine.push()
        with metered() as meter:
            now = await list_sessions(device.repository, known)
        assert meter.requests == 2
        assert {each.name: each.documents for each in now.sessions}["con"] == 2
        await writer.engine.delete()
        for _ in range(2):
            left = {each.name for each in (await list_sessions(device.repository, known)).sessions}
            assert left == set(NAMES) - {"con"}
        writer.close()

    asyncio.run(run())


def test_more_sessions_than_a_page_are_all_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("moss_sync.stores.listing.PAGE", 2)

    async def run() -> None:
        device = await filled(MemoryStore(), tmp_path, NAMES)
        found = await list_sessions(device.repository)
        assert len(found.sessions) == len(NAMES)

    asyncio.run(run())


def test_a_damaged_manifest_hides_no_other_session(tmp_path: Path) -> None:
    async def run() -> None:
        store = MemoryStore()
        device = await filled(store, tmp_path, ["a", "b", "c"])
        manifests = device.repository.layout.manifests
        first, second, _ = await store.keys(manifests)
        await store.put(first.key, b"rubbish")
        # A sealed manifest under another session's key is as wrong as rubbish.
        blob = await store.get(second.key)
        await store.put(manifests + "a" * 26, blob.data)  # type: ignore[union-attr]  # it is there
        found = await list_sessions(device.repository)
        assert len(found.sessions) == 2
        assert [type(error) for error in found.unreadable] == [BlobCorruptError] * 2

    asyncio.run(run())


def test_an_empty_store_has_no_sessions_and_stays_empty(tmp_path: Path) -> None:
    async def run() -> None:
        folder = tmp_path / "store"
        device = Device(tmp_path / "x.sqlite3", FolderStore(folder))
        assert (await list_sessions(device.repository)).sessions == ()
        assert not await has_session(device.repository, "conv-123")
        assert not folder.exists()
        await device.repository.store.close()
        device.close()

    asyncio.run(run())


def test_a_session_is_found_by_its_exact_name_only(tmp_path: Path) -> None:
    async def run() -> None:
        device = await filled(MemoryStore(), tmp_path, NAMES)
        for name in NAMES:
            assert await has_session(device.repository, name)
        for name in ("conv-12", "conv-1234", "CONV-123", "x", "ünïcode"):
            assert not await has_session(device.repository, name)

    asyncio.run(run())


def test_the_manifest_tells_how_many_documents_there_are_where_it_can(tmp_path: Path) -> None:
    async def run() -> None:
        device = Device(tmp_path / "a.sqlite3", MemoryStore(), session="s")
        device.put("turn-1", "one")
        device.put("turn-2", "two")
        await device.engine.push()
        device.put("turn-1", "one, mended")
        device.delete("turn-2")
        device.put("turn-3", "three")
        await device.engine.push()
        told = await find_session(device.repository, "s")
        assert told is not None
        assert (told.documents, told.commits, told.deleted) == (2, 2, False)
        assert told.first_ms is not None
        assert told.first_ms < told.committed_ms
        assert told.model_version == "test-space"
        assert await find_session_by_id(device.repository, told.session_id) == told
        # Segments beside each other may hold the same document: only reading them tells.
        for name in ("big-1", "big-2"):
            device.put(name, "".join(random.Random(name).choices("abcdefgh ", k=200_000)))
            await device.engine.push()
        assert (await list_sessions(device.repository)).sessions[0].documents is None
        device.close()

    asyncio.run(run())


@pytest.mark.parametrize("commit", ["cas", "log"])
def test_one_session_is_found_by_name_among_others(tmp_path: Path, commit: Commit) -> None:
    async def run() -> None:
        store = MemoryStore()
        for name in NAMES:
            device = Device(tmp_path / uuid4().hex, store, session=name, commit=commit)
            device.put("turn-1", "hello")
            await (device.log if commit == "log" else device.engine).push()
            device.close()
        for name in NAMES:
            found = await find_session(device.repository, name)
            assert found is not None
            assert found.name == name
            by_id = await find_session_by_id(device.repository, found.session_id)
            assert by_id is not None
            assert by_id.name == name
        assert await find_session(device.repository, "nobody") is None

    asyncio.run(run())


def test_a_deleted_session_is_found_as_such_and_not_listed(tmp_path: Path) -> None:
    async def run() -> None:
        device = Device(tmp_path / "a.sqlite3", MemoryStore(), session="s")
        device.put("turn-1", "one")
        await device.engine.push()
        await device.engine.delete()
        found = await find_session(device.repository, "s")
        assert found is not None
        assert (found.deleted, found.documents) == (True, 0)
        assert (await list_sessions(device.repository)).sessions == ()
        device.close()

    asyncio.run(run())


def test_a_wrong_key_lists_nothing(tmp_path: Path) -> None:
    async def run() -> None:
        store = MemoryStore()
        await filled(store, tmp_path, ["a"])
        stranger = Device(tmp_path / "stranger.sqlite3", store, key=OTHER_KEY)
        with pytest.raises(UnauthorizedError):
            await list_sessions(stranger.repository)
        stranger.close()

    asyncio.run(run())


def test_listing_a_store_that_has_lost_its_keys_makes_no_new_ones(tmp_path: Path) -> None:
    async def run() -> None:
        store = MemoryStore()
        known = await filled(store, tmp_path, ["a"])
        await store.delete(known.repository.layout.fmt)
        before = [each.key for each in await store.keys(known.repository.layout.prefix)]
        stranger = Device(tmp_path / "stranger.sqlite3", store, seed=99)
        for work in (list_sessions(stranger.repository), has_session(stranger.repository, "a")):
            with pytest.raises(BlobMissingError, match="not their keys") as caught:
                await work
            assert "moss-local repair" in (caught.value.hint or "")
        assert [each.key for each in await store.keys(known.repository.layout.prefix)] == before
        # Who has opened it before needs no fmt for that.
        assert [each.name for each in (await list_sessions(known.repository)).sessions] == ["a"]
        stranger.close()

    asyncio.run(run())


# -- a store that is gone is not an empty one ------------------------------------------------


async def refused(work: Awaitable[T]) -> None:
    with pytest.raises(NetworkError, match="does not hold the store"):
        await work


@pytest.mark.parametrize("mount_point_stays", [False, True])
def test_a_folder_whose_disk_is_unmounted_is_unreachable_and_not_empty(
    tmp_path: Path, mount_point_stays: bool
) -> None:
    async def run() -> None:
        folder, away = tmp_path / "store", tmp_path / "away"
        device = Device(tmp_path / "x.sqlite3", FolderStore(folder))
        device.put("turn-1", "hello")
        await device.engine.push()
        folder.rename(away)
        if mount_point_stays:
            folder.mkdir()

        # In this process, and in one that remembers the repository from before.
        later = Device(tmp_path / "x.sqlite3", FolderStore(folder))
        later.repository._cache = device.cache
        for each in (device, later):
            each.put("turn-2", "written offline")
            await refused(each.engine.pull())
            await refused(each.engine.push())
            await refused(list_sessions(each.repository))
            await refused(has_session(each.repository, "conv-123"))
        assert folder.exists() == mount_point_stays
        assert not mount_point_stays or not any(folder.iterdir())

        if mount_point_stays:
            folder.rmdir()
        away.rename(folder)
        await device.engine.push()
        assert device.replica.state().dirty == 0
        for each in (device, later):
            await each.repository.store.close()
            each.close()

    asyncio.run(run())


def test_a_store_is_still_made_by_the_first_push(tmp_path: Path) -> None:
    async def run() -> None:
        folder = tmp_path / "not there yet"
        device = Device(tmp_path / "x.sqlite3", FolderStore(folder))
        device.put("turn-1", "hello")
        assert (await device.engine.push()).sent == 1
        assert folder.is_dir()
        await device.repository.store.close()
        device.close()

    asyncio.run(run())
