"""Devices with a session that is pushed in part, and what befalls its file."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from moss_local import (
    DocumentInfo,
    MossClient,
    QueryOptions,
    SessionIndex,
)
from moss_local.storage.place import Place
from moss_local.types import Repaired
from moss_sync.layout import Layout
from moss_sync.stores import open_store
from tests.keys import KEY

PUSHED = {f"p{n}": f"pushed {n} " + "filling " * 60 for n in range(40)}


KEPT = {f"k{n}": f"kept here only {n} " + "filling " * 60 for n in range(40)}


ASKED = QueryOptions(embedding=[1.0, 2.0, 3.0], alpha=0.5)


class Device:
    """A device that has pushed some documents and not yet some others."""

    def __init__(self, root: Path, name: str = "one", model: str = "custom") -> None:
        self.data, self.store, self.model = root / name, root / "store", model

    def client(self) -> MossClient:
        return MossClient("p", KEY, store=self.store, data_dir=self.data)

    @property
    def directory(self) -> Path:
        (found,) = [each for each in self.data.iterdir() if each.name.startswith("p-")]
        return found

    @property
    def path(self) -> Path:
        return Place(self.directory).path("conv")

    def vector(self, id: str, n: int) -> list[float] | None:
        return [1.0, float(len(id)), float(n)] if self.model == "custom" else None

    @asynccontextmanager
    async def session(self) -> AsyncIterator[SessionIndex]:
        async with (
            self.client() as client,
            await client.session("conv", self.model, warm_up=False) as session,
        ):
            yield session

    async def add(self, documents: dict[str, str], *, push: bool = False) -> None:
        infos = [
            DocumentInfo(id, text, {"n": id}, self.vector(id, n))
            for n, (id, text) in enumerate(documents.items())
        ]
        async with self.session() as session:
            await session.add_docs(infos)
            if push:
                await session.push_index()

    async def held(self) -> dict[str, str]:
        async with self.session() as session:
            found = {each.id: each.text for each in await session.get_docs()}
            asked = ASKED if self.model == "custom" else None
            assert not found or (await session.query("filling", asked)).docs
            return found

    async def repair(self) -> Repaired:
        async with self.client() as client:
            return await client.repair_session("conv")

    def checkpoint(self) -> None:
        """Bring the log into the file, so that what is damaged is all there is."""
        from moss_local.storage.file import open_session_file

        file = open_session_file(self.path)
        file.rewrite()
        file.close()


def made(root: Path, model: str) -> Device:
    device = Device(root, model=model)
    asyncio.run(device.add(PUSHED, push=True))
    asyncio.run(device.add(KEPT))
    device.checkpoint()
    return device


async def empty(url: Path) -> None:
    """Delete every blob of a store."""
    store, layout = open_store(str(url)), Layout.of("p")
    for place in (layout.prefix, layout.manifests):
        for listed in await store.keys(place):
            await store.delete(listed.key)
    await store.close()


def damage(path: Path, seed: int, share: float) -> None:
    """Overwrite some pages, never the first one, with what is no page."""
    rng = random.Random(seed)
    whole = bytearray(path.read_bytes())
    pages = range(1, len(whole) // 2048)
    for page in rng.sample(pages, max(1, int(len(pages) * share))):
        whole[page * 2048 : (page + 1) * 2048] = rng.randbytes(2048)
    path.write_bytes(whole)


def overwrite(path: Path, at: int, content: bytes) -> None:
    """Write into a file as a failing disk would: no longer, no shorter, no other file."""
    with path.open("rb+") as file:
        file.seek(at)
        file.write(content)


class CutOff(BaseException):
    """The moment at which the program ends."""


def cut_off_before_it_is_written_again(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    def cut_off(*_: object) -> None:
        raise CutOff

    with monkeypatch.context() as patch:
        patch.setattr("moss_local.writer.take_over", cut_off)
        with pytest.raises(CutOff):
            asyncio.run(device.repair())
