"""`auto_sync` and `close` of the real session on a real file, over a store that can be cut off.

Nothing here waits for a time: feeds of changes and a wrapped store say when something happened.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import weakref
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from moss_local import (
    BlobCorruptError,
    DocumentInfo,
    ForkDetectedError,
    HistoryError,
    InvalidArgumentError,
    MossClient,
    MossError,
    NetworkError,
    SessionIndex,
    schedule,
)
from moss_sync.stores import open_store as really_open
from moss_sync.stores.base import BlobStore
from tests.keys import KEY


class Cut:
    """A store that can be cut off: every request then fails with `error`, or hangs."""

    def __init__(self, inside: BlobStore) -> None:
        self._inside = inside
        self.error: MossError | None = None
        self.hangs = False

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inside, name)
        if name not in ("get", "put", "compare_and_swap", "keys", "delete"):
            return found

        async def request(*args: Any, **options: Any) -> Any:
            while self.hangs:
                await asyncio.sleep(0.005)
            if self.error is not None:
                raise self.error
            return await found(*args, **options)

        return request


@pytest.fixture
def cut(monkeypatch: pytest.MonkeyPatch) -> Callable[[MossClient], Cut]:
    """Return the store of a client, which can be cut off."""
    opened: dict[int, Cut] = {}

    def wrapped(url: Any) -> Any:
        store = Cut(really_open(url))
        opened[id(store)] = store
        return store

    monkeypatch.setattr("moss_local.client.open_store", wrapped)

    def of(client: MossClient) -> Cut:
        store = client._store
        assert isinstance(store, Cut)
        return store

    return of


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """The debounce and the patience, a hundred times shorter."""
    for name in ("QUIET_S", "LONGEST_UNPUSHED_S", "FIRST_RETRY_S", "LONGEST_RETRY_S"):
        monkeypatch.setattr(schedule, name, getattr(schedule, name) / 100)


@pytest.fixture
def url() -> str:
    return f"memory://{uuid4().hex}"


def doc(id: str) -> DocumentInfo:
    return DocumentInfo(id, f"text of {id}", embedding=[1.0, 0.0])


def run(story: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(story, 60))


async def until(holds: Callable[[], bool]) -> None:
    while not holds():
        await asyncio.sleep(0.005)


def is_status(session: SessionIndex, status: str) -> Callable[[], bool]:
    return lambda: session.sync_state.status == status


def test_two_devices_follow_each_other(tmp_path: Path, url: str) -> None:
    async def story() -> None:
        async with (
            MossClient("p", KEY, store=url, data_dir=tmp_path / "a") as one,
            MossClient("p", KEY, store=url, data_dir=tmp_path / "b") as two,
        ):
            mine = await one.session("s", "custom", auto_sync=0.1)
            theirs = await two.session("s", "custom", auto_sync=0.1)
            here, there = mine.changes(), theirs.changes()
            for number in range(5):
                await mine.add_docs([doc(f"mine-{number}")])
                assert (await anext(there)).updated == (f"mine-{number}",)
                await theirs.add_docs([doc(f"theirs-{number}")])
                assert (await anext(here)).updated == (f"theirs-{number}",)
            await theirs.delete_docs(["mine-0"])
            assert (await anext(here)).deleted == ("mine-0",)
            await until(is_status(theirs, "synced"))

    run(story())


def test_it_goes_on_when_the_callers_loop_has_ended(tmp_path: Path, url: str) -> None:
    client = MossClient("p", KEY, store=url, data_dir=tmp_path / "a")
    session = asyncio.run(client.session("s", "custom", auto_sync=0.1))
    asyncio.run(session.add_docs([doc("of the first loop")]))

    async def elsewhere() -> None:
        async with MossClient("p", KEY, store=url, data_dir=tmp_path / "b") as other:
            follower = await other.session("s", "custom", auto_sync=0.1)
            await until(lambda: follower.doc_count == 1)

    run(elsewhere())
    run(until(is_status(session, "synced")))
    asyncio.run(client.close())


def test_a_store_that_goes_away_shows_and_its_return_is_noticed(
    tmp_path: Path, url: str, cut: Callable[[MossClient], Cut]
) -> None:
    async def story() -> None:
        async with MossClient("p", KEY, store=url, data_dir=tmp_path) as client:
            session = await client.session("s", "custom", auto_sync=0.1)
            cut(client).error = NetworkError("the cable is out")
            await session.add_docs([doc("a")])
            await until(is_status(session, "offline"))
            state = session.sync_state
            assert (state.pending, state.code, state.reason) == (1, "NETWORK", "the cable is out")
            await session.add_docs([doc("b")])
            cut(client).error = None
            await until(is_status(session, "synced"))
            assert session.sync_state.reason is None

    run(story())


def test_history_that_contradicts_stops_it_with_code_and_hint_and_a_success_starts_it_again(
    tmp_path: Path, url: str, cut: Callable[[MossClient], Cut]
) -> None:
    async def story() -> None:
        async with MossClient("p", KEY, store=url, data_dir=tmp_path) as client:
            session = await client.session("s", "custom", auto_sync=0.1)
            await session.add_docs([doc("a")])
            await until(is_status(session, "synced"))
            cut(client).error = ForkDetectedError("another history", hint="moss-local repair s")
            await until(is_status(session, "stopped"))
            await session.add_docs([doc("b")])
            assert session.sync_state.hint == "moss-local repair s"
            assert session.sync_state.code == "FORK_DETECTED"
            assert str(session.sync_state) == "stopped(another history), 1 pending"
            with pytest.raises(ForkDetectedError):
                await session.push_index()
            cut(client).error = None
            assert session.sync_state.status == "stopped"
            await session.pull()
            await session.add_docs([doc("c")])
            await until(is_status(session, "synced"))

    run(story())


def test_an_exchange_under_way_shows(
    tmp_path: Path, url: str, cut: Callable[[MossClient], Cut]
) -> None:
    async def story() -> None:
        async with MossClient("p", KEY, store=url, data_dir=tmp_path) as client:
            session = await client.session("s", "custom")
            await session.add_docs([doc("a")])
            cut(client).hangs = True
            push = asyncio.create_task(session.push_index())
            await until(is_status(session, "syncing"))
            assert str(session.sync_state) == "syncing, 1 pending"
            push.cancel()
            cut(client).hangs = False
            await until(is_status(session, "pending"))

    run(story())


# -- closing -------------------------------------------------------------------------------------


def test_closing_pushes_first_and_says_how_it_stands(tmp_path: Path, url: str) -> None:
    async def story() -> None:
        async with MossClient("p", KEY, store=url, data_dir=tmp_path) as client:
            session = await client.session("s", "custom", auto_sync=3600)
            await session.add_docs([doc("a")])
            end = await session.close()
            assert (end.status, end.pending) == ("synced", 0)
            assert session.sync_state == end == await session.close()
        async with MossClient("p", KEY, store=url, data_dir=tmp_path / "b") as other:
            assert (await other.session("s", "custom")).doc_count == 1

    run(story())


@pytest.mark.parametrize("way", ["close", "async with", "with", "client"])
def test_closing_without_a_store_says_what_is_left_and_leaves_it_in_the_file(
    tmp_path: Path,
    url: str,
    cut: Callable[[MossClient], Cut],
    caplog: pytest.LogCaptureFixture,
    way: str,
) -> None:
    async def story() -> None:
        client = MossClient("p", KEY, store=url, data_dir=tmp_path)
        session = await client.session("s", "custom", auto_sync=3600)
        await session.add_docs([doc("a"), doc("b")])
        cut(client).error = NetworkError("the cable is out")
        if way == "close":
            await session.close()
        elif way == "async with":
            async with session:
                pass
        elif way == "with":
            with session:
                pass
        await client.close()
        end = session.sync_state
        assert (end.status, end.pending, end.reason) == ("offline", 2, "the cable is out")

    with caplog.at_level(logging.WARNING, "moss_local"):
        run(story())
    [record] = caplog.records
    assert "'s'" in record.message
    assert "2 changes not pushed (the cable is out)" in record.message

    async def later() -> None:
        async with MossClient("p", KEY, store=url, data_dir=tmp_path) as client:
            session = await client.session("s", "custom")
            assert (await session.push_index()).report.sent == 2

    run(later())


def test_closing_ends_in_time_when_the_store_hangs(
    tmp_path: Path, url: str, cut: Callable[[MossClient], Cut]
) -> None:
    async def story() -> None:
        client = MossClient("p", KEY, store=url, data_dir=tmp_path)
        session = await client.session("s", "custom", auto_sync=3600)
        cut(client).hangs = True
        await session.add_docs([doc("a")])
        end = await session.close(timeout=0.05)
        assert end.pending == 1
        cut(client).hangs = False
        await client.close()

    run(story())


def test_without_auto_sync_closing_sends_nothing_and_says_so(tmp_path: Path, url: str) -> None:
    async def story() -> None:
        async with MossClient("p", KEY, store=url, data_dir=tmp_path) as client:
            session = await client.session("s", "custom")
            await session.add_docs([doc("a")])
            end = await session.close()
            assert (end.status, end.pending, end.reason) == ("pending", 1, None)

    run(story())


@pytest.mark.parametrize("wrong", [-1, float("nan"), float("inf"), "5"])
def test_a_time_to_close_in_that_is_none_is_refused(tmp_path: Path, url: str, wrong: Any) -> None:
    async def story() -> None:
        async with MossClient("p", KEY, store=url, data_dir=tmp_path) as client:
            session = await client.session("s", "custom")
            with pytest.raises(InvalidArgumentError, match="time to close"):
                await session.close(timeout=wrong)
            assert session.doc_count == 0

    run(story())


def test_a_wrong_interval_is_refused_before_anything_is_made(tmp_path: Path, url: str) -> None:
    async def story() -> None:
        async with MossClient("p", KEY, store=url, data_dir=tmp_path) as client:
            with pytest.raises(InvalidArgumentError, match="auto_sync"):
                await client.session("s", "custom", auto_sync=0)

    run(story())
    assert list(tmp_path.rglob("*.sqlite3")) == []


def test_a_client_that_is_forgotten_takes_its_background_with_it(tmp_path: Path, url: str) -> None:
    client = MossClient("p", KEY, store=url, data_dir=tmp_path)
    session = asyncio.run(client.session("s", "custom", auto_sync=3600))
    background = weakref.ref(session._exchange._auto)
    del client, session
    # It is held by its own task only, so it is gone once that has ended.
    run(until(lambda: gc.collect() >= 0 and background() is None))


# -- opening when the store is not to be trusted -------------------------------------------------


@pytest.fixture
def errors() -> list[MossError]:
    return [
        HistoryError("older than seen", hint="moss-local repair s"),
        BlobCorruptError("flipped"),
    ]


def test_a_session_opens_on_what_is_here_when_the_store_cannot_be_trusted(
    tmp_path: Path,
    url: str,
    cut: Callable[[MossClient], Cut],
    errors: list[MossError],
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def story(error: MossError) -> None:
        async with MossClient("p", KEY, store=url, data_dir=tmp_path) as client:
            session = await client.session("s", "custom")
            await session.add_docs([doc("a")])
            await session.push_index()
        async with MossClient("p", KEY, store=url, data_dir=tmp_path) as client:
            cut(client).error = error
            session = await client.session("s", "custom")
            assert session.doc_count == 1
            state = session.sync_state
            assert (state.status, state.reason) == ("stopped", str(error))
            assert (state.code, state.hint) == (error.code, error.hint)
            with pytest.raises(type(error)):
                await session.pull()

    for error in errors:
        caplog.clear()
        run(story(error))
        assert "opened as it is on this device" in caplog.text


def test_a_device_that_has_nothing_of_the_session_is_told_instead(
    tmp_path: Path, url: str, cut: Callable[[MossClient], Cut], errors: list[MossError]
) -> None:
    async def story(error: MossError) -> None:
        async with MossClient("p", KEY, store=url, data_dir=tmp_path / uuid4().hex) as client:
            await (await client.session("other", "custom")).sync()
            cut(client).error = error
            with pytest.raises(type(error)):
                await client.session("s", "custom")

    for error in errors:
        run(story(error))
