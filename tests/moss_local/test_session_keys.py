"""Checkpoints, rotation and rewriting through the public API."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from moss_local import (
    ContentionError,
    DocumentInfo,
    InvalidArgumentError,
    MossClient,
    NotFoundError,
    StaleReadError,
    UnauthorizedError,
)

VECTOR = [1.0, 0.0, 0.0, 0.0]


def client(directory: Path, device: str, key: str = "the old key") -> MossClient:
    return MossClient("acme", key, store=directory / "store", data_dir=directory / device)


async def written(opened: MossClient, text: str) -> str:
    """Add a document, push it, and return the checkpoint after it."""
    async with await opened.session("conv", "custom") as session:
        await session.add_docs([DocumentInfo(text, text, embedding=VECTOR)])
        await session.push_index()
        return session.checkpoint()


def test_a_session_opened_with_a_checkpoint_refuses_a_store_of_yesterday(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with client(tmp_path, "laptop") as laptop:
            async with await laptop.session("other", "custom", auto_load_on_init=False) as unknown:
                with pytest.raises(NotFoundError, match="never exchanged"):
                    unknown.checkpoint()
            await written(laptop, "one")
            [path] = (tmp_path / "store").glob("*/m/*")
            yesterday = path.read_bytes()
            newest = await written(laptop, "two")
        async with client(tmp_path, "phone") as phone:
            session = await phone.session("conv", "custom", checkpoint=newest)
            assert (session.doc_count, session.checkpoint()) == (2, newest)
        path.write_bytes(yesterday)
        async with client(tmp_path, "third") as third:
            with pytest.raises(StaleReadError, match="the checkpoint is of commit 2"):
                await third.session("conv", "custom", checkpoint=newest)
            with pytest.raises(InvalidArgumentError, match="is not a checkpoint"):
                await third.session("conv", "custom", checkpoint="yesterday")

    asyncio.run(scenario())


def test_a_client_rotates_its_key_and_its_open_sessions_go_on(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with client(tmp_path, "laptop") as laptop:
            with pytest.raises(NotFoundError):
                await laptop.rotate_key("the new key")
            await written(laptop, "one")
            assert await laptop.check_key() == 1
            async with await laptop.session("conv", "custom") as session:
                assert await laptop.rotate_key("the new key") == 2
                await session.add_docs([DocumentInfo("two", "two", embedding=VECTOR)])
                await session.push_index()
            assert await laptop.check_key() == 2
            [done] = await laptop.rewrite_sessions()
            assert (done.session, done.error) == ("conv", None)
            assert await laptop.rotate_key() == 3
            with pytest.raises(InvalidArgumentError, match="is the one that the project has"):
                await laptop.rotate_key("the new key")
        async with client(tmp_path, "laptop", "the new key") as laptop:
            assert (await laptop.session("conv")).doc_count == 2
        async with client(tmp_path, "phone") as phone:
            with pytest.raises(UnauthorizedError, match="rotated to"):
                await phone.check_key()
            with pytest.raises(UnauthorizedError, match="rotated to"):
                await phone.session("conv", "custom")

    asyncio.run(scenario())


def test_of_many_clients_that_rotate_at_once_one_does_and_none_is_left_without_a_key(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        clients = [client(tmp_path, f"device-{number}") for number in range(4)]
        await written(clients[0], "one")
        for each in clients[1:]:
            async with await each.session("conv", "custom"):
                pass
        results = await asyncio.gather(
            *(each.rotate_key(f"key {number}") for number, each in enumerate(clients)),
            return_exceptions=True,
        )
        won = [number for number, result in enumerate(results) if result == 2]
        assert len(won) == 1
        assert all(
            isinstance(result, UnauthorizedError | ContentionError)
            for number, result in enumerate(results)
            if number not in won
        )
        async with client(tmp_path, "fresh", f"key {won[0]}") as fresh:
            assert (await fresh.session("conv", "custom")).doc_count == 1
        for each in clients:
            await each.close()

    asyncio.run(scenario())
