"""Clocks, dates and file times that are wrong by any amount, as a user meets them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from moss_local import ClockError, DocumentInfo, MossClient, SessionIndex
from moss_sync.clock import SystemClock
from moss_sync.stores import durable
from tests.keys import KEY

VECTOR = [1.0, 0.0, 0.0, 0.0]
YEAR_MS = 365 * 24 * 3600 * 1000
YEAR_9999_MS = 253_402_300_799_000
CLOCKS = {
    "before 1970": -1,
    "1970": 0,
    "2100": 4_102_444_800_000,
    "9999": YEAR_9999_MS,
    "the end of numbers": 2**63,
}


async def add(session: SessionIndex, id: str) -> None:
    await session.add_docs([DocumentInfo(id, f"text of {id}", embedding=VECTOR)])


async def order(session: SessionIndex) -> list[str]:
    return [document.id for document in await session.thread()]


def says(monkeypatch: pytest.MonkeyPatch, wall_ms: int) -> None:
    """Let the clock of every client that is made from now on say this."""

    class Wrong(SystemClock):
        def wall_ms(self) -> int:
            return wall_ms

    monkeypatch.setattr("moss_local.project.SystemClock", Wrong)


def folder_says(monkeypatch: pytest.MonkeyPatch, mtime_ms: Callable[[int], int]) -> None:
    """Let the file system give such times to the files that are written."""

    def write_file(fd: int, data: bytes) -> int:
        return mtime_ms(durable.write_file(fd, data))

    monkeypatch.setattr("moss_sync.stores.folder.write_file", write_file)


def device(tmp_path: Path, commit: Any, name: str) -> MossClient:
    return MossClient("p", KEY, store=tmp_path / "store", data_dir=tmp_path / name, commit=commit)


@pytest.mark.parametrize("ahead_ms", [10 * YEAR_MS, YEAR_9999_MS, 2**62])
@pytest.mark.parametrize("commit", ["cas", "log"])
def test_file_times_of_the_future_stop_commits_by_name_until_they_are_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ahead_ms: int, commit: Any
) -> None:
    client = partial(device, tmp_path, commit)

    async def story() -> None:
        async with client("one") as a, client("two") as b:
            one, two = await a.session("conv", "custom"), await b.session("conv", "custom")
            await add(one, "before")
            await one.push_index()
            folder_says(monkeypatch, lambda mtime_ms: mtime_ms + ahead_ms)
            refused: ClockError | None = None
            for number in range(4):
                await add(one, f"meanwhile-{number}")
                try:
                    await one.push_index()
                except ClockError as error:
                    refused = error
            assert refused is not None
            assert (refused.code, refused.retryable) == ("CLOCK", True)
            assert refused.hint is not None
            assert "clock" in refused.hint
            state = one.sync_state
            assert (state.status, state.code) == ("offline", "CLOCK")
            assert state.pending > 0
            folder_says(monkeypatch, lambda mtime_ms: mtime_ms)
            await one.push_index()
            await two.pull()
            await add(two, "last")
            await two.push_index()
            await one.pull()
            expected = ["before", *(f"meanwhile-{number}" for number in range(4)), "last"]
            assert await order(one) == await order(two) == expected

    asyncio.run(story())


@pytest.mark.parametrize("wall_ms", CLOCKS.values(), ids=CLOCKS.keys())
@pytest.mark.parametrize("commit", ["cas", "log"])
def test_a_device_with_any_clock_stops_nobody_and_what_is_written_last_comes_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wall_ms: int, commit: Any
) -> None:
    client = partial(device, tmp_path, commit)

    async def story() -> None:
        async with client("right") as a:
            right = await a.session("conv", "custom")
            await add(right, "a")
            await right.push_index()
            with pytest.MonkeyPatch.context() as patch:
                says(patch, wall_ms)
                async with client("wrong") as b:
                    wrong = await b.session("conv", "custom")
                    await add(wrong, "b")
                    await add(wrong, "c")
                    assert await order(wrong) == ["a", "b", "c"]
                    await wrong.push_index()  # the folder's times correct it
            await right.pull()
            await add(right, "d")
            await right.push_index()
            async with client("wrong") as b:
                mended = await b.session("conv", "custom")
                await add(mended, "e")
                await mended.push_index()
                await right.pull()
                assert await order(right) == await order(mended) == ["a", "b", "c", "d", "e"]

    asyncio.run(story())


@pytest.mark.parametrize("wall_ms", CLOCKS.values(), ids=CLOCKS.keys())
def test_without_any_store_a_device_with_any_clock_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wall_ms: int
) -> None:
    says(monkeypatch, wall_ms)

    async def story() -> None:
        async with MossClient("p", KEY, store="memory://no-time", data_dir=tmp_path) as client:
            session = await client.session("conv", "custom", auto_load_on_init=False)
            for id in ("a", "b", "c"):
                await add(session, id)
            await session.delete_docs(["b"])
            assert await order(session) == ["a", "c"]
            assert [version.deleted for version in await session.history("b")] == [True, False]

    asyncio.run(story())


@pytest.mark.parametrize("date_ms", [YEAR_9999_MS, 10 * YEAR_MS + 1_800_000_000_000])
def test_a_date_header_of_the_future_stops_commits_by_name_until_it_is_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, s3_url: str, date_ms: int
) -> None:
    def client(name: str) -> MossClient:
        return MossClient("p", KEY, store=s3_url, data_dir=tmp_path / name)

    async def story() -> None:
        async with client("one") as a, client("two") as b:
            one = await a.session("conv", "custom")
            await add(one, "before")
            await one.push_index()
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("moss_sync.stores.s3._date_ms", lambda headers: date_ms)
                for _ in range(3):
                    await one.pull()
                await add(one, "meanwhile")
                with pytest.raises(ClockError):
                    await one.push_index()
                await add(one, "still")
                two = await b.session("conv", "custom")
                assert await order(two) == ["before"]
            await one.push_index()
            await two.pull()
            assert await order(one) == await order(two) == ["before", "meanwhile", "still"]

    asyncio.run(story())


def test_repair_brings_a_session_back_from_2100_and_says_by_how_much(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def client(name: str) -> MossClient:
        return MossClient("p", KEY, store=f"memory://{tmp_path.name}", data_dir=tmp_path / name)

    async def story() -> None:
        with pytest.MonkeyPatch.context() as patch:
            says(patch, CLOCKS["2100"])
            async with client("wrong") as b:
                wrong = await b.session("conv", "custom")
                await add(wrong, "a")
                await wrong.push_index()
                await add(wrong, "b")
                await wrong.push_index()
        async with client("right") as a, client("wrong") as b:
            right, wrong = await a.session("conv", "custom"), await b.session("conv", "custom")
            await add(right, "c")
            await right.push_index()
            report = await right.repair()
            assert report.rebuilt
            assert report.set_back_ms > 50 * YEAR_MS
            await wrong.pull()
            await add(wrong, "d")
            await wrong.push_index()
            await right.pull()
            now = SystemClock().wall_ms()
            for session in (right, wrong):
                assert await order(session) == ["a", "b", "c", "d"]
                for document in await session.thread():
                    assert document.written_ms < now + 3_600_000
            again = await right.repair()
            assert (again.rebuilt, again.set_back_ms) == (False, 0)

    asyncio.run(story())
