"""The feed of what others change: nothing missed, nothing of one's own, resumable."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from moss_local import Changes, DocumentInfo, InvalidArgumentError, MossClient, SessionIndex
from moss_local import changes as module
from moss_local.changes import OwnWrites
from moss_local.storage.rows import purge_tombstones
from tests.keys import KEY


def doc(id: str, text: str = "text") -> DocumentInfo:
    return DocumentInfo(id, text, embedding=[1.0, 0.0])


@asynccontextmanager
async def device(path: Path, store: str) -> AsyncIterator[SessionIndex]:
    async with (
        MossClient("p", KEY, store=store, data_dir=path) as client,
        await client.session("s", "custom") as session,
    ):
        yield session


Story = Callable[[SessionIndex, SessionIndex], Coroutine[Any, Any, None]]


@pytest.fixture
def two(tmp_path: Path) -> Callable[[Story], None]:
    """Run a story with a session on two devices."""

    def tell(story: Story) -> None:
        async def told() -> None:
            store = f"memory://{uuid4().hex}"
            async with device(tmp_path / "a", store) as a, device(tmp_path / "b", store) as b:
                await asyncio.wait_for(story(a, b), 60)

        asyncio.run(told())

    return tell


async def hand_over(giver: SessionIndex, taker: SessionIndex) -> None:
    await giver.push_index()
    await taker.pull()


def test_what_a_pull_brings_is_told_by_id(two: Callable[[Story], None]) -> None:
    async def story(a: SessionIndex, b: SessionIndex) -> None:
        await a.add_docs([doc("1"), doc("2"), doc("3")])
        await hand_over(a, b)
        feed = b.changes()
        await a.add_docs([doc("2", "other"), doc("4")])
        await a.delete_docs(["3"])
        await hand_over(a, b)
        batch = await anext(feed)
        assert (set(batch.updated), batch.deleted, batch.reset) == ({"2", "4"}, ("3",), False)

    two(story)


def test_own_writes_are_left_out_and_other_objects_are_not(tmp_path: Path) -> None:
    async def story() -> None:
        store = f"memory://{uuid4().hex}"
        async with device(tmp_path, store) as one, device(tmp_path, store) as two:
            ones, twos = one.changes(), two.changes()
            await one.add_docs([doc("of one")])
            await two.add_docs([doc("of two")])
            await one.add_docs([doc("of one, later")])
            assert (await anext(ones)).updated == ("of two",)
            first = await anext(twos)
            assert first.updated == ("of one", "of one, later")
            await two.delete_docs(["of one"])
            assert (await anext(ones)).deleted == ("of one",)

    asyncio.run(asyncio.wait_for(story(), 60))


def test_nothing_is_missed_between_the_call_and_the_first_look_nor_between_two(
    two: Callable[[Story], None],
) -> None:
    async def story(a: SessionIndex, b: SessionIndex) -> None:
        feed = b.changes()
        seen: list[str] = []
        for number in range(5):
            await a.add_docs([doc(f"{number}.{each}") for each in range(3)])
            await hand_over(a, b)
            if number % 2 == 0:
                seen += (await anext(feed)).updated
        assert sorted(seen) == sorted(f"{n}.{each}" for n in range(5) for each in range(3))

    two(story)


def test_a_feed_waits_and_is_woken_by_a_write_of_this_process(tmp_path: Path) -> None:
    async def story() -> None:
        store = f"memory://{uuid4().hex}"
        async with device(tmp_path, store) as one, device(tmp_path, store) as two:
            waiting = asyncio.create_task(anext(one.changes()))
            await asyncio.sleep(0)
            await two.add_docs([doc("x")])
            assert (await waiting).updated == ("x",)

    original, module.POLL_S = module.POLL_S, 3600.0
    try:
        asyncio.run(asyncio.wait_for(story(), 60))
    finally:
        module.POLL_S = original


def test_a_long_list_comes_in_bounded_batches_and_whole(
    two: Callable[[Story], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BATCH", 10)

    async def story(a: SessionIndex, b: SessionIndex) -> None:
        feed = b.changes()
        await a.add_docs([doc(f"{number:03}") for number in range(95)])
        await hand_over(a, b)
        batches = [await anext(feed) for _ in range(10)]
        assert [len(batch.updated) for batch in batches] == [10] * 9 + [5]
        assert len({id for batch in batches for id in batch.updated}) == 95

    two(story)


def test_a_cursor_resumes_where_its_batch_ended_also_in_another_object(
    two: Callable[[Story], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BATCH", 2)

    async def story(a: SessionIndex, b: SessionIndex) -> None:
        begin = b.changes().cursor
        await a.add_docs([doc("1"), doc("2"), doc("3")])
        await hand_over(a, b)
        first = await anext(b.changes(since=begin))
        rest = await anext(b.changes(since=first.cursor))
        assert {*first.updated, *rest.updated} == {"1", "2", "3"}
        assert (len(first.updated), len(rest.updated)) == (2, 1)

    two(story)


def test_a_call_that_is_cut_off_has_taken_nothing(two: Callable[[Story], None]) -> None:
    async def story(a: SessionIndex, b: SessionIndex) -> None:
        feed = b.changes()
        await a.add_docs([doc("1")])
        await hand_over(a, b)
        taken: list[str] = []
        for steps in range(12):
            task = asyncio.create_task(anext(feed))
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            [outcome] = await asyncio.gather(task, return_exceptions=True)
            if isinstance(outcome, Changes):
                taken += outcome.updated
        if not taken:
            taken += (await anext(feed)).updated
        assert taken == ["1"]

    two(story)


def test_purged_deletions_and_places_in_other_copies_are_a_reset(
    two: Callable[[Story], None],
) -> None:
    async def story(a: SessionIndex, b: SessionIndex) -> None:
        start, elsewhere = b.changes().cursor, a.changes().cursor
        await a.add_docs([doc("1"), doc("2")])
        await a.delete_docs(["1"])
        await hand_over(a, b)
        with b._file.writing() as conn:
            assert purge_tombstones(conn, commit_seq=10**6) == 1
        batch = await anext(b.changes(since=start))
        assert (batch.updated, batch.deleted, batch.reset) == ((), (), True)
        assert (await anext(b.changes(since=elsewhere))).reset
        ahead = start.rpartition("-")[0] + "-99999"
        assert (await anext(b.changes(since=ahead))).reset
        # And from there on it goes on as ever.
        feed = b.changes(since=batch.cursor)
        await a.add_docs([doc("3")])
        await hand_over(a, b)
        assert (await anext(feed)) == Changes(("3",), (), False, feed.cursor)

    two(story)


def test_a_feed_ends_when_its_session_is_closed(two: Callable[[Story], None]) -> None:
    async def story(a: SessionIndex, b: SessionIndex) -> None:
        feed = a.changes()
        waiting = asyncio.create_task(anext(feed))
        await asyncio.sleep(0)
        await a.close()
        with pytest.raises(StopAsyncIteration):
            await waiting
        assert [batch async for batch in feed] == []
        with pytest.raises(InvalidArgumentError, match="closed"):
            a.changes()

    two(story)


@pytest.mark.parametrize("wrong", ["", "7", "x-", "-7", "a-b", "a-7 ", "a-²", 7, "a-" + "9" * 30])
def test_what_is_no_cursor_is_refused(two: Callable[[Story], None], wrong: Any) -> None:
    async def story(a: SessionIndex, b: SessionIndex) -> None:
        with pytest.raises(InvalidArgumentError, match="no place"):
            a.changes(since=wrong)

    two(story)


def test_own_writes_that_were_undone_are_not_remembered(two: Callable[[Story], None]) -> None:
    """Their numbers are given again, to whoever writes next."""

    async def story(a: SessionIndex, b: SessionIndex) -> None:
        own = OwnWrites()
        feed = a.changes()
        a._local.own = feed._own = own

        def fail() -> None:
            with own.writing(a._file) as conn:
                conn.execute("UPDATE state SET local_seq = local_seq + 5")
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            fail()
        await b.add_docs([doc("1")])
        await hand_over(b, a)
        assert (await anext(feed)).updated == ("1",)

    two(story)
