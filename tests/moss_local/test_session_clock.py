"""Writes are stamped by the store's time as soon as the store has told it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from moss_local import DocumentInfo, MossClient, SessionIndex
from moss_sync.clock import SystemClock
from tests.keys import KEY

VECTOR = [1.0, 0.0, 0.0, 0.0]
YEAR_MS = 365 * 24 * 3600 * 1000
NEAR_MS = 10 * 60 * 1000


@pytest.fixture
def client(tmp_path: Path, s3_url: str) -> Callable[[str], MossClient]:
    return lambda name: MossClient("p", KEY, store=s3_url, data_dir=tmp_path / name)


async def add(session: SessionIndex, id: str, text: str) -> None:
    await session.add_docs([DocumentInfo(id, text, embedding=VECTOR)])


@pytest.mark.parametrize("off_ms", [YEAR_MS, -YEAR_MS])
def test_a_clock_that_is_a_year_off_stamps_as_the_store_says(
    client: Callable[[str], MossClient], monkeypatch: pytest.MonkeyPatch, off_ms: int
) -> None:
    class Wrong(SystemClock):
        def wall_ms(self) -> int:
            return super().wall_ms() + off_ms

    async def story() -> None:
        async with client("right") as a:
            right = await a.session("conv", "custom")
            await add(right, "a", "as the right clock has it")
            await add(right, "b", "to be deleted")
            await right.push_index()
            monkeypatch.setattr("moss_local.project.SystemClock", Wrong)
            async with client("wrong") as b:
                wrong = await b.session("conv", "custom")
                await add(wrong, "c", "by the wrong clock")
                await wrong.delete_docs(["b"])
                now = time.time() * 1000
                [written] = [d for d in await wrong.thread() if d.id == "c"]
                assert abs(written.written_ms - now) < NEAR_MS
                [deletion] = [v for v in await wrong.history("b") if v.deleted]
                assert abs(deletion.written_ms - now) < NEAR_MS

    asyncio.run(story())


def test_before_any_answer_the_devices_own_clock_counts(tmp_path: Path) -> None:
    async def story() -> None:
        async with MossClient("p", KEY, store="memory://no-time", data_dir=tmp_path) as client:
            session = await client.session("conv", "custom", auto_load_on_init=False)
            await add(session, "a", "text")
            [written] = await session.thread()
            assert abs(written.written_ms - time.time() * 1000) < NEAR_MS

    asyncio.run(story())
