"""A folder in which somebody puts older files back, as users meet it: noticed, and mended."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from moss_local import (
    DocumentInfo,
    ForkDetectedError,
    MossClient,
    SessionIndex,
    StaleReadError,
)
from tests.keys import KEY
from tests.moss_sync.world import noise

VECTOR = [1.0, 0.0, 0.0, 0.0]


class Folder:
    """A folder that several devices exchange by, and copies of it."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.store = directory, directory / "store"
        self._copies = 0

    def client(self, name: str) -> MossClient:
        return MossClient(
            "proj",
            KEY,
            data_dir=self.directory / name,
            store=str(self.store),
        )

    def copied(self) -> Path:
        self._copies += 1
        return Path(shutil.copytree(self.store, self.directory / f"copy-{self._copies}"))

    def put_back(self, copy: Path) -> None:
        """Put every file of a copy in its old place; what was written since stays."""
        shutil.copytree(copy, self.store, dirs_exist_ok=True)

    def lose_blobs(self) -> None:
        """Remove what was pushed, so that a repair finds something to mend."""
        lost = [path for path in self.store.rglob("s/*") if path.is_file()]
        assert lost
        for path in lost:
            path.unlink()


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


async def opened(client: MossClient) -> SessionIndex:
    return await client.session("conv-123", "custom", auto_load_on_init=False)


async def put(session: SessionIndex, id: str, text: str) -> None:
    await session.add_docs([DocumentInfo(id, text, embedding=VECTOR)])


async def ids(session: SessionIndex) -> set[str]:
    return {doc.id for doc in await session.get_docs()}


def test_an_older_manifest_under_many_pushes_of_others_is_named(folder: Folder) -> None:
    async def story() -> None:
        async with folder.client("a") as a, folder.client("b") as b, folder.client("c") as c:
            writer, reader, other = [await opened(client) for client in (a, b, c)]
            for number in range(4):
                await put(writer, f"turn-{number}", "text")
                await writer.push_index()
            await other.pull()
            before = folder.copied()
            await put(writer, "turn-4", "text")
            await writer.push_index()
            await reader.pull()
            folder.put_back(before)
            for number in range(40):  # a ring of 32 would have forgotten it
                await put(other, "note", f"version {number}")
                await other.push_index()
            for session in (reader, writer):
                with pytest.raises(ForkDetectedError) as caught:
                    await session.pull()
                assert "moss-local repair conv-123" in (caught.value.hint or "")
            await reader.repair()
            for session in (writer, other, reader):
                await session.sync()
            for session in (writer, other, reader):
                assert await ids(session) == {*(f"turn-{n}" for n in range(5)), "note"}

    asyncio.run(story())


@pytest.mark.parametrize("repairer", ["who saw the deletion", "who did not"])
def test_a_deleted_session_does_not_come_back_by_old_files_and_a_repair(
    folder: Folder, repairer: str
) -> None:
    async def story() -> None:
        async with folder.client("a") as a, folder.client("b") as b:
            one, away = await opened(a), await opened(b)
            await put(one, "secret", noise(1, 9000))
            await one.push_index()
            await away.pull()
            before = folder.copied()
            await a.delete_session("conv-123")
            one = await opened(a)
            await one.sync()
            assert await ids(one) == set()
            folder.put_back(before)
            if repairer == "who did not":
                folder.lose_blobs()
                assert (await away.repair()).rebuilt
                with pytest.raises(StaleReadError):
                    await one.pull()
            await one.repair()
            for session in (away, one):
                await session.sync()
                assert await ids(session) == set()
        async with folder.client("new") as client:
            session = await opened(client)
            await session.sync()
            assert await ids(session) == set()

    asyncio.run(story())


def test_a_forgotten_document_stays_forgotten_when_another_device_repairs(folder: Folder) -> None:
    async def story() -> None:
        async with folder.client("a") as a, folder.client("b") as b:
            one, away = await opened(a), await opened(b)
            await put(one, "secret", noise(1, 9000))
            await put(one, "kept", "text")
            await one.push_index()
            await away.pull()
            before = folder.copied()
            await one.forget(["secret"])
            folder.put_back(before)
            folder.lose_blobs()
            assert (await away.repair()).rebuilt
            for session in (one, away, one):
                await session.sync()
            for session in (one, away):
                assert await ids(session) == {"kept"}

    asyncio.run(story())
