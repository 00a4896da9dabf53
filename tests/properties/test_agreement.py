"""One schedule, one end: whatever store, however many devices, in batches or one by one.

Each generated schedule is run seven times: by one device write by write and in batches, and by
three devices, in memory, in a folder, in an S3 bucket and by log instead of by manifest. All of
them share one clock that only rises, so that "later" means the same in every run; a deletion is
preceded by a meeting of all devices, because a device cannot delete what it has never seen.
`make agreement` runs 500 schedules, the normal tests the first of them.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from moss_local.storage.documents import Document
from moss_local.storage.edits import put_documents
from moss_sync.commit import Commit
from moss_sync.engine import SyncEngine
from moss_sync.log_engine import LogEngine
from moss_sync.repository import Repository
from moss_sync.stores import open_store
from moss_sync.stores.base import BlobStore
from tests.devices import PROJECT_KEY, SPACE, Device, MemoryCache, QuickClock, run_here

SCHEDULES = int(os.environ.get("SCHEDULES", "12"))
DEVICES = 3
IDS = "abcdefg"

Ends = dict[str, tuple[str, str | None]]


@dataclass(frozen=True)
class Step:
    """A write of one device: a put, a deletion where `text` is None; then perhaps an exchange."""

    device: int
    id: str
    text: str | None
    vector: tuple[float, ...]
    syncs: bool


def schedule(seed: int) -> list[Step]:
    """Return 8 to 24 writes to few ids by several devices."""
    chance = random.Random(seed)
    return [
        Step(
            chance.randrange(DEVICES),
            chance.choice(IDS),
            None if chance.random() < 0.25 else f"{seed} {at} {'x' * chance.randrange(40)}",
            tuple(chance.uniform(-1, 1) for _ in range(SPACE.dim)),
            chance.random() < 0.4,
        )
        for at in range(chance.randrange(8, 25))
    ]


class Fleet:
    """Repositories over one store: their keys are derived once and serve every schedule."""

    def __init__(
        self,
        open_one: Callable[[], BlobStore],
        directory: Path,
        devices: int,
        commit: Commit,
    ) -> None:
        self.directory = directory
        self.commit = commit
        self.clock = QuickClock()
        self.stores = [open_one() for _ in range(devices + 1)]  # one more: who comes fresh
        self.repositories = [
            Repository(
                store,
                "project",
                PROJECT_KEY,
                cache=MemoryCache(),
                clock=self.clock,
                run=run_here,
                commit=commit,
            )
            for store in self.stores
        ]

    def device(self, seed: int, number: int) -> Device:
        clock = QuickClock(seed * 10 + number)
        clock.wall_ms = self.clock.wall_ms  # type: ignore[method-assign]  # one time for all
        path = self.directory / f"{seed}-{number}.sqlite3"
        return Device(
            path,
            self.stores[number],
            session=f"schedule {seed}",
            clock=clock,
            repository=self.repositories[number],
        )

    def engine(self, device: Device) -> SyncEngine | LogEngine:
        return device.engine if self.commit == "cas" else device.log

    async def run(self, seed: int, steps: Sequence[Step], *, batches: bool) -> Ends:
        """Do the steps, let everybody meet, and return what a fresh device then reads."""
        devices = [self.device(seed, number) for number in range(len(self.stores) - 1)]
        waiting: list[list[Document]] = [[] for _ in devices]

        def write(number: int) -> None:
            if waiting[number]:
                with devices[number].file.writing() as conn:
                    now_ms = devices[number].clock.wall_ms()
                    put_documents(conn, waiting[number], space=SPACE, now_ms=now_ms)
                waiting[number] = []

        async def meet() -> None:
            for number in range(len(devices)):
                write(number)
            for device in [*devices, *devices]:
                await self.engine(device).sync()

        for step in steps:
            number = step.device % len(devices)
            device = devices[number]
            if step.text is None:
                await meet()
                device.delete(step.id)
                await meet()
                continue
            # Of two devices' waiting batches the later write would be stamped first.
            for other in range(len(devices)):
                if other != number:
                    write(other)
            vector = np.array(step.vector, np.float32)
            waiting[number].append(Document(step.id, step.text, vector=vector))
            if not batches:
                write(number)
                if step.syncs:
                    await self.engine(device).sync()
        await meet()
        ends = [state(device) for device in devices]
        fresh = self.device(seed, len(devices))
        await self.engine(fresh).pull()
        ends.append(state(fresh))
        for device in [*devices, fresh]:
            device.close()
        assert all(end == ends[0] for end in ends), f"schedule {seed}: devices differ"
        return {id: (text, vector) for id, (text, vector, _) in ends[0].items()}


def state(device: Device) -> dict[str, tuple[str, str | None, tuple[int, bytes, bytes]]]:
    """Return text, vector and version of every document."""
    with device.file.reading() as conn:
        rows = conn.execute(
            "SELECT id, text, hlc, dev, digest,"
            " (SELECT hex(embedding) FROM vec WHERE vec.rowid = document.rowid AND vector)"
            " FROM document WHERE deleted = 0"
        ).fetchall()
    return {id: (text, vector, (hlc, dev, digest)) for id, text, hlc, dev, digest, vector in rows}


def expected(steps: Sequence[Step]) -> dict[str, str]:
    """Return what the steps leave, one after the other."""
    texts: dict[str, str] = {}
    for step in steps:
        if step.text is None:
            texts.pop(step.id, None)
        else:
            texts[step.id] = step.text
    return texts


@pytest.fixture
def runs(tmp_path: Path, s3_url: str) -> dict[str, tuple[Fleet, bool]]:
    def fleet(name: str, url: str, devices: int, commit: Commit = "cas") -> Fleet:
        directory = tmp_path / name
        directory.mkdir()
        return Fleet(lambda: open_store(url), directory, devices, commit)

    return {
        "one": (fleet("one", f"memory://{tmp_path.name}-one", 1), False),
        "one in batches": (fleet("one-batch", f"memory://{tmp_path.name}-batch", 1), True),
        "three": (fleet("three", f"memory://{tmp_path.name}-three", DEVICES), False),
        "three in batches": (fleet("three-b", f"memory://{tmp_path.name}-three-b", DEVICES), True),
        "folder": (fleet("folder", (tmp_path / "store").as_uri(), DEVICES), False),
        "s3": (fleet("s3", s3_url, DEVICES), False),
        "log": (fleet("log", (tmp_path / "log-store").as_uri(), DEVICES, "log"), False),
    }


def test_a_schedule_ends_alike_on_every_store_with_one_device_or_three_in_batches_or_not(
    runs: dict[str, tuple[Fleet, bool]],
) -> None:
    seen: Counter[str] = Counter()

    async def story() -> None:
        for seed in range(SCHEDULES):
            steps = schedule(seed)
            ends = {
                name: await fleet.run(seed, steps, batches=batches)
                for name, (fleet, batches) in runs.items()
            }
            texts = {id: text for id, (text, _) in ends["one"].items()}
            assert texts == expected(steps), f"schedule {seed}"
            for name, end in ends.items():
                assert end == ends["one"], f"schedule {seed}, {name}"
            seen["writes"] += len(steps)
            seen["deletions"] += sum(step.text is None for step in steps)
            seen["documents"] += len(texts)
        for fleet, _ in runs.values():
            for store in fleet.stores:
                await store.close()

    asyncio.run(story())
    print(f"{SCHEDULES} schedules agreed: {dict(seen)}")
    assert min(seen.values()) > SCHEDULES
