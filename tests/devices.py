"""Devices for tests of the exchange: the real engine and the real SQLite file over any store."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np

from moss_local.storage.documents import Document
from moss_local.storage.edits import delete_documents, put_documents
from moss_local.storage.file import open_session_file
from moss_local.storage.log_replica import SqliteLogReplica
from moss_local.storage.rows import get_documents
from moss_sync import VectorSpace
from moss_sync.channel import View
from moss_sync.checkpoint import Checkpoint
from moss_sync.commit import Commit
from moss_sync.engine import SyncEngine
from moss_sync.floors import DEFAULT_POLICY, Policy
from moss_sync.log_engine import LogEngine
from moss_sync.log_plan import DEFAULT_POLICY as DEFAULT_LOG_POLICY
from moss_sync.log_plan import LogPolicy
from moss_sync.manifest import Manifest
from moss_sync.repository import Repository, RepositoryCache
from moss_sync.stores.base import Blob, BlobStore
from tests.keys import KEY

SPACE = VectorSpace("custom", "test-space", 4, "f4")
PROJECT, PROJECT_KEY = "project", KEY


START_MS = time.time_ns() // 1_000_000
"""When the clocks of tests begin: now, because folders and servers tell the time too."""


class QuickClock:
    """A clock that moves when it is read or waited on; one seed gives its chance and its tokens."""

    def __init__(self, seed: int = 0, start_ms: int = START_MS) -> None:
        self.random = random.Random(seed)
        self.now_ms = start_ms
        self.slept: list[float] = []

    def wall_ms(self) -> int:
        self.now_ms += 1
        return self.now_ms

    def monotonic(self) -> float:
        return self.wall_ms() / 1000

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now_ms += int(seconds * 1000)
        await asyncio.sleep(0)

    def token(self, size: int) -> bytes:
        return self.random.randbytes(size)

    def uniform(self, low: float, high: float) -> float:
        return self.random.uniform(low, high)


class MemoryCache:
    """A RepositoryCache that is not a disk."""

    def __init__(self) -> None:
        self.held: dict[str, bytes] = {}

    def load(self, name: str) -> bytes | None:
        return self.held.get(name)

    def save(self, name: str, data: bytes) -> None:
        self.held[name] = data


async def run_here(fn: Callable[..., Any], *args: Any) -> Any:
    """A runner that does not leave the thread."""
    return fn(*args)


class Device:
    """One device of one session: `engine` exchanges by manifest, `log` by log."""

    def __init__(
        self,
        path: Path,
        store: BlobStore,
        *,
        seed: int = 0,
        session: str = "conv-123",
        key: str = PROJECT_KEY,
        clock: QuickClock | None = None,
        space: VectorSpace = SPACE,
        cache: RepositoryCache | None = None,
        checkpoint: Checkpoint | None = None,
        policy: Policy = DEFAULT_POLICY,
        commit: Commit = "cas",
        log_policy: LogPolicy = DEFAULT_LOG_POLICY,
        project: str = PROJECT,
        repository: Repository | None = None,
    ) -> None:
        self.path = path
        self.clock = clock or QuickClock(seed)
        self.space = space
        self.cache = MemoryCache() if cache is None else cache
        # No power is cut here, and waiting for the disk is most of what a test would do.
        self.file = open_session_file(path, session=session, durability="normal")
        self.replica = SqliteLogReplica(self.file)
        self.repository = repository or Repository(
            store, project, key, cache=self.cache, clock=self.clock, run=run_here, commit=commit
        )
        lock = asyncio.Lock()

        @asynccontextmanager
        async def exclusive() -> AsyncIterator[None]:
            async with lock:
                yield

        self.engine = SyncEngine(
            self.repository,
            self.replica,
            session,
            clock=self.clock,
            run=run_here,
            exclusive=exclusive,
            accepts=lambda space: None,
            checkpoint=checkpoint,
            policy=policy,
        )
        self.log = LogEngine(
            self.repository,
            self.replica,
            session,
            clock=self.clock,
            run=run_here,
            exclusive=exclusive,
            accepts=lambda space: None,
            policy=log_policy,
        )

    def put(self, id: str, text: str, vector: Sequence[float] | None = (1.0, 0, 0, 0)) -> None:
        document = Document(
            id, text, vector=None if vector is None else np.array(vector, np.float32)
        )
        with self.file.writing() as conn:
            put_documents(conn, [document], space=self.space, now_ms=self.clock.wall_ms())

    def delete(self, *ids: str) -> int:
        with self.file.writing() as conn:
            return delete_documents(conn, ids, now_ms=self.clock.wall_ms())

    @property
    def texts(self) -> dict[str, str]:
        with self.file.reading() as conn:
            return {stored.id: stored.text for stored in get_documents(conn)}

    async def manifest(self) -> Manifest:
        """The newest manifest in the store, whatever this device has seen."""
        return (await self.view())[0]

    async def view(self) -> View:
        """The newest manifest in the store, and how a device would remember it."""
        channel, keys = self.engine._channel, await self.repository.attach()
        sid = channel.sid(keys)
        answer = await self.repository.store.get(self.repository.layout.manifest(sid))
        assert isinstance(answer, Blob)
        return await channel._opened(keys, sid, answer)

    def close(self) -> None:
        self.file.close()
