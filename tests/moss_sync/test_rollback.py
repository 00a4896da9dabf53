"""A store that takes commits back, and other devices that go on from there: who notices."""

from __future__ import annotations

import asyncio

import pytest

from moss_sync import ForkDetectedError
from tests.moss_sync.world import World


def test_a_rollback_under_many_commits_is_a_fork_to_who_has_seen_more(world: World) -> None:
    """Three commits are hidden; 191 are made on top of what is left. A ring of 32 forgot it all."""

    async def story() -> None:
        writer, reader, other = (world.device() for _ in range(3))
        for number in range(18):
            writer.put(f"turn-{number}", "text")
            await writer.engine.push()
        await other.engine.pull()
        left = dict(world.store.inner._content.blobs)
        for number in range(18, 21):  # an odd number: its own mark is short-lived
            writer.put(f"turn-{number}", "text")
            await writer.engine.push()
        await reader.engine.pull()
        world.store.inner._content.blobs.clear()
        world.store.inner._content.blobs.update(left)
        for number in range(64 * 3 - 1):
            other.put("note", f"version {number}")
            await other.engine.push()
            await other.engine.compact()
            if number in (3, 30, 31, 60, 190):
                for device in (reader, writer):
                    with pytest.raises(ForkDetectedError, match="repair conv-123"):
                        await device.engine.pull()
        assert len(reader.texts) == 21
        current = await other.manifest()
        assert current.seq >= 18 + 191
        assert len(current.marks) <= 500

    asyncio.run(story())


def test_a_device_that_returns_after_very_many_commits_of_its_own_history_is_let_in(
    world: World,
) -> None:
    async def story() -> None:
        writer, away = world.device(), world.device()
        writer.put("first", "text")
        await writer.engine.push()
        await away.engine.pull()
        for number in range(150):
            writer.put("note", f"version {number}")
            await writer.engine.push()
        await away.engine.sync()
        assert away.texts == writer.texts

    asyncio.run(story())
