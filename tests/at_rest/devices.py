"""A device of one project, in clear and encrypted, as the tests of this folder use it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from moss_local import DocumentInfo, MossClient, SessionIndex
from tests.keys import KEY

DIM = 16


@dataclass(frozen=True)
class Device:
    """A data directory, and a store beside it."""

    root: Path
    project: str = "insurance"

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def directory(self) -> Path:
        """Where the session files are."""
        (found,) = [each for each in self.data.iterdir() if each.name.startswith("insurance-")]
        return found

    def client(self, key: str = KEY, *, at_rest: bool | str | None = None) -> MossClient:
        store = self.root / "store"
        return MossClient(self.project, key, store=store, data_dir=self.data, at_rest=at_rest)

    def session_files(self) -> list[Path]:
        return sorted(self.directory.glob("*.sqlite3"))

    def everything(self) -> dict[Path, bytes]:
        """Every byte that this device has written, by file; not the store's."""
        return {path: path.read_bytes() for path in self.data.rglob("*") if path.is_file()}


def vector(text: str) -> list[float]:
    """Return a vector of the text's own."""
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])
    return [float(x) for x in np.random.default_rng(seed).normal(size=DIM).astype("f4")]


def document(id: str, text: str) -> DocumentInfo:
    return DocumentInfo(id, text, metadata={"topic": f"topic-of-{id}"}, embedding=vector(text))


async def opened(client: MossClient, name: str = "conv") -> SessionIndex:
    return await client.session(name, "custom", auto_load_on_init=False, warm_up=False)


async def texts(client: MossClient, name: str = "conv") -> dict[str, str]:
    async with await opened(client, name) as session:
        return {each.id: each.text for each in await session.get_docs()}


async def add(client: MossClient, *documents: DocumentInfo, name: str = "conv") -> None:
    async with await opened(client, name) as session:
        await session.add_docs(list(documents))
