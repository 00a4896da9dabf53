"""What lies in a folder store and is not the store's stands in the way of one session at most."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from moss_sync import BlobCorruptError, ForeignFileError
from moss_sync.commit import Commit
from moss_sync.directory import list_sessions
from moss_sync.layout import session_id
from moss_sync.stores import FolderStore
from tests.devices import Device

LONG = random.Random(1).randbytes(9_000).hex()
"""Too long for the manifest: a push of it is a blob of its own."""


def link(path: Path) -> None:
    path.symlink_to(path.parent)


def pipe(path: Path) -> None:
    os.mkfifo(path)


def folder(path: Path) -> None:
    path.mkdir()


PLANTS = (link, pipe, folder)


@asynccontextmanager
async def two_sessions(root: Path, commit: Commit) -> AsyncIterator[tuple[Device, Device]]:
    """Give a device of each of two sessions, both pushed."""
    store = FolderStore(root / "store")
    devices = [
        Device(root / f"{name}.sqlite3", store, seed=n, session=name, commit=commit)
        for n, name in enumerate(("one", "other"))
    ]
    for device in devices:
        device.put("turn-1", LONG)
        await exchange(device)
    yield devices[0], devices[1]
    for device in devices:
        device.close()
    await store.close()


async def exchange(device: Device) -> None:
    await (device.log if await device.repository.mode() == "log" else device.engine).sync()


async def sid_of(device: Device, session: str) -> str:
    keys = await device.repository.keys()
    assert keys is not None
    return session_id(keys.names, session)


async def newcomer(root: Path, session: str, commit: Commit) -> dict[str, str]:
    """Return what a device reads that has never been there."""
    store = FolderStore(root / "store")
    device = Device(root / "new.sqlite3", store, seed=7, session=session, commit=commit)
    try:
        await exchange(device)
        return device.texts
    finally:
        device.close()
        await store.close()


@pytest.mark.parametrize("plant", PLANTS)
@pytest.mark.parametrize("commit", ["cas", "log"])
def test_a_listing_names_what_stands_in_the_place_of_a_session_and_lists_the_others(
    tmp_path: Path, plant: Callable[[Path], None], commit: Commit
) -> None:
    async def story() -> None:
        async with two_sessions(tmp_path, commit) as (one, other):
            (manifest,) = (tmp_path / "store").glob(f"*/m/{await sid_of(one, 'one')}*")
            manifest.unlink()
            plant(manifest)
            found = await list_sessions(other.repository)
            assert [each.name for each in found.sessions] == ["other"]
            (error,) = found.unreadable
            assert isinstance(error, ForeignFileError)
            assert manifest.name in str(error)
            assert "mv -- " in str(error.hint)
            other.put("turn-2", "more")
            await exchange(other)
            assert await newcomer(tmp_path, "other", commit) == {"turn-1": LONG, "turn-2": "more"}
            if commit == "cas":
                with pytest.raises(ForeignFileError, match=manifest.name):
                    await exchange(one)
            # Out of the way again, the session goes on.
            manifest.rename(tmp_path / "away")
            one.put("turn-2", "more")
            if commit == "cas":
                await one.engine.repair()
            await exchange(one)
            assert one.texts == {"turn-1": LONG, "turn-2": "more"}

    asyncio.run(story())


@pytest.mark.parametrize("plant", [*PLANTS[:2], Path.touch])
@pytest.mark.parametrize("commit", ["cas", "log"])
@pytest.mark.parametrize("level", [0, 1])
def test_a_session_whose_folder_is_none_is_named_and_the_others_go_on(
    tmp_path: Path, plant: Callable[[Path], None], commit: Commit, level: int
) -> None:
    async def story() -> None:
        async with two_sessions(tmp_path, commit) as (one, other):
            (blob, *_) = (tmp_path / "store").glob(f"*/{await sid_of(one, 'one')}/[sl]/*")
            place = blob.parents[level]
            place.rename(tmp_path / "away")
            plant(place)
            one.put("turn-2", LONG)
            with pytest.raises(ForeignFileError, match=f"'[^']*{place.name}' in the store"):
                await exchange(one)
            other.put("turn-2", "more")
            await exchange(other)
            place.unlink()
            (tmp_path / "away").rename(place)
            await exchange(one)
            assert await newcomer(tmp_path, "one", commit) == {"turn-1": LONG, "turn-2": LONG}

    asyncio.run(story())


@pytest.mark.parametrize("plant", PLANTS)
@pytest.mark.parametrize("commit", ["cas", "log"])
def test_what_stands_in_the_place_of_a_blob_or_of_the_keys_is_named(
    tmp_path: Path, plant: Callable[[Path], None], commit: Commit
) -> None:
    async def story() -> None:
        async with two_sessions(tmp_path, commit):
            for path in (tmp_path / "store").glob("*/fmt"):
                kept = path.read_bytes()
                path.unlink()
                plant(path)
                with pytest.raises(BlobCorruptError, match="fmt' in the store"):
                    await newcomer(tmp_path, "one", commit)
                path.rename(tmp_path / "away")
                path.write_bytes(kept)

    asyncio.run(story())
