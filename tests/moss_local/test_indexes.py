"""The index API: indexes created, changed, read, loaded, refreshed and deleted."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from moss_local import (
    AlreadyExistsError,
    DocumentInfo,
    GetDocumentsOptions,
    InvalidArgumentError,
    JobStatus,
    MossClient,
    MossError,
    MutationOptions,
    NetworkError,
    NotFoundError,
    QueryOptions,
)
from moss_local.indexes import Indexes
from moss_sync import UnauthorizedError
from tests.keys import KEY

Story = Callable[[MossClient], Coroutine[Any, Any, None]]

FACTS = [
    DocumentInfo("refund", "Refunds take five days.", {"topic": "money"}),
    DocumentInfo("hours", "We are open from nine to five.", {"topic": "time"}),
]


def vectors(*ids: str) -> list[DocumentInfo]:
    """Documents with vectors of their own: nothing is embedded."""
    return [
        DocumentInfo(id, f"text of {id}", embedding=[1.0, float(place), 0.0])
        for place, id in enumerate(ids)
    ]


BY_VECTOR = QueryOptions(embedding=[1.0, 0.0, 0.0])


@pytest.fixture
def client_of(tmp_path: Path) -> Callable[[str], MossClient]:
    """Makes clients of one project: one device for each name, all with one store."""
    store = f"memory://{uuid4().hex}"

    def made(device: str = "a") -> MossClient:
        return MossClient("p", KEY, store=store, data_dir=tmp_path / device)

    return made


@pytest.fixture
def tell(client_of: Callable[[str], MossClient]) -> Callable[[Story], None]:
    def told(story: Story) -> None:
        async def inside() -> None:
            async with client_of("a") as client:
                await story(client)

        asyncio.run(inside())

    return told


def test_an_index_is_created_loaded_and_asked(tell: Callable[[Story], None]) -> None:
    async def story(client: MossClient) -> None:
        made = await client.create_index("faq", FACTS)
        assert (made.index_name, made.doc_count) == ("faq", 2)
        assert await client.load_index("faq") == "faq"
        found = await client.query("faq", "When do I get my money back?", QueryOptions(top_k=1))
        assert [doc.id for doc in found.docs] == ["refund"]
        assert found.index_name == "faq"
        assert type(found.time_taken_ms) is int
        only = QueryOptions(filter={"field": "topic", "condition": {"$eq": "time"}})
        assert [doc.id for doc in (await client.query("faq", "refund", only)).docs] == ["hours"]

    tell(story)


def test_what_is_told_of_an_index_is_what_the_store_has(tell: Callable[[Story], None]) -> None:
    async def story(client: MossClient) -> None:
        await client.create_index("faq", vectors("a", "b"))
        info = await client.get_index("faq")
        assert (info.name, info.status, info.doc_count) == ("faq", "Ready", 2)
        assert info.model.id == "custom"
        assert info.created_at.endswith("Z")
        assert "faq" not in info.id
        added = await client.add_docs("faq", vectors("b", "c", "d"))
        assert added.doc_count == 3  # of this call
        now = await client.get_index("faq")
        assert now.doc_count == 4
        assert int(now.version) > int(info.version)
        assert (await client.delete_docs("faq", ["a", "nobody"])).doc_count == 1
        assert (await client.get_index("faq")).doc_count == 3
        assert [each.name for each in await client.list_indexes()] == ["faq"]
        assert [each.doc_count for each in await client.list_indexes()] == [3]

    tell(story)


def test_documents_are_read_without_loading_all_or_in_the_order_asked_for(
    tell: Callable[[Story], None],
) -> None:
    async def story(client: MossClient) -> None:
        await client.create_index("faq", vectors("b", "a", "c"))
        assert [doc.id for doc in await client.get_docs("faq")] == ["a", "b", "c"]
        wanted = GetDocumentsOptions(doc_ids=["c", "nobody", "a"])
        assert [doc.id for doc in await client.get_docs("faq", wanted)] == ["c", "a"]

    tell(story)


def test_a_name_that_is_taken_is_refused_with_these_words(tell: Callable[[Story], None]) -> None:
    async def story(client: MossClient) -> None:
        await client.create_index("faq", vectors("a"))
        for wait in (True, False):
            with pytest.raises(RuntimeError, match="already exists") as caught:
                await client.create_index("faq", vectors("b"), wait=wait)  # type: ignore[call-overload]  # either
            assert isinstance(caught.value, AlreadyExistsError)
        assert [doc.id for doc in await client.get_docs("faq")] == ["a"]
        session = await client.session("pushed")
        await session.push_index()
        with pytest.raises(AlreadyExistsError):
            await client.create_index("pushed", vectors("a"))

    tell(story)


def test_an_unknown_index_is_not_found_whatever_is_asked_of_it(
    tell: Callable[[Story], None],
) -> None:
    async def story(client: MossClient) -> None:
        for call in (
            client.get_index("nobody"),
            client.get_docs("nobody"),
            client.add_docs("nobody", vectors("a")),
            client.delete_docs("nobody", ["a"]),
            client.delete_index("nobody"),
            client.load_index("nobody"),
        ):
            with pytest.raises(NotFoundError, match="no index 'nobody'") as caught:
                await call
            assert caught.value.code == "NOT_FOUND"
        assert await client.list_indexes() == []
        assert (await client.local_sessions()).sessions == ()

    tell(story)


def test_a_session_that_was_never_pushed_is_no_index_yet(tell: Callable[[Story], None]) -> None:
    async def story(client: MossClient) -> None:
        session = await client.session("call", "custom")
        await session.add_docs(vectors("a"))
        with pytest.raises(NotFoundError):
            await client.load_index("call")
        assert await client.list_indexes() == []
        await session.push_index()
        assert (await client.get_index("call")).doc_count == 1

    tell(story)


def test_what_is_not_loaded_is_not_asked_and_the_error_names_load_index(
    tell: Callable[[Story], None],
) -> None:
    async def story(client: MossClient) -> None:
        await client.create_index("faq", vectors("a"))
        for call in (
            client.query("faq", "a", BY_VECTOR),
            client.query_multi_index(["faq"], "a", BY_VECTOR),
            client.was_served_stale("faq"),
            client.unload_index("faq"),
        ):
            with pytest.raises(NotFoundError, match="load_index"):
                await call
        await client.unload_indexes(["faq", "nobody"])
        await client.load_index("faq")
        await client.unload_index("faq")
        with pytest.raises(NotFoundError):
            await client.query("faq", "a", BY_VECTOR)

    tell(story)


def test_documents_with_vectors_make_a_custom_index_unless_a_model_is_named(
    tell: Callable[[Story], None],
) -> None:
    async def story(client: MossClient) -> None:
        await client.create_index("own", vectors("a"))
        assert (await client.get_index("own")).model.id == "custom"
        await client.load_index("own")
        with pytest.raises(InvalidArgumentError, match="embedding"):
            await client.query("own", "")
        await client.create_index("ours", FACTS)
        assert (await client.get_index("ours")).model.id == "moss-minilm"
        mixed = [*vectors("a"), DocumentInfo("b", "no vector")]
        with pytest.raises(ValueError, match="'b'"):
            await client.create_index("mixed", mixed)
        assert [each.name for each in await client.list_indexes()] == ["ours", "own"]
        await client.create_index("mixed", vectors("a"))

    tell(story)


def test_of_an_id_that_comes_twice_the_last_counts_and_it_counts_once(
    tell: Callable[[Story], None],
) -> None:
    async def story(client: MossClient) -> None:
        first, last = vectors("a")[0], vectors("a")[0]
        last.text = "the last"
        assert (await client.create_index("faq", [first, last])).doc_count == 1
        assert (await client.add_docs("faq", [last, first, last])).doc_count == 1
        assert [doc.text for doc in await client.get_docs("faq")] == ["the last"]
        kept = await client.add_docs("faq", [first, *vectors("b")], MutationOptions(upsert=False))
        assert kept.doc_count == 1
        assert [doc.text for doc in await client.get_docs("faq")] == ["the last", "text of b"]

    tell(story)


def test_two_clients_of_a_project_see_each_others_indexes_at_once(
    client_of: Callable[[str], MossClient],
) -> None:
    async def story() -> None:
        # The first two share a device, the third meets them in the store only.
        async with client_of("a") as a, client_of("a") as b, client_of("c") as c:
            await a.create_index("faq", vectors("one"))
            for client in (a, b, c):
                await client.load_index("faq")
            await c.add_docs("faq", vectors("two"))
            for client in (a, b, c):
                assert (await client.get_index("faq")).doc_count == 2
                assert [each.doc_count for each in await client.list_indexes()] == [2]
                await client.load_index("faq")
                found = await client.query("faq", "", BY_VECTOR)
                assert {doc.id for doc in found.docs} == {"one", "two"}
            await b.delete_index("faq")
            for client in (a, b, c):
                assert await client.list_indexes() == []
                with pytest.raises(NotFoundError):
                    await client.load_index("faq")

    asyncio.run(story())


def test_a_deleted_index_is_gone_and_its_name_is_free_for_another_model(
    tell: Callable[[Story], None],
) -> None:
    async def story(client: MossClient) -> None:
        await client.create_index("faq", vectors("a"))
        await client.load_index("faq")
        assert await client.delete_index("faq") is True
        with pytest.raises(NotFoundError):
            await client.query("faq", "", BY_VECTOR)
        with pytest.raises(NotFoundError):
            await client.delete_index("faq")
        with pytest.raises(NotFoundError):
            await client.session("faq", create=False)
        assert (await client.local_sessions()).sessions == ()
        await client.create_index("faq", FACTS)
        info = await client.get_index("faq")
        assert (info.doc_count, info.model.id) == (2, "moss-minilm")
        assert {doc.id for doc in await client.get_docs("faq")} == {"refund", "hours"}

    tell(story)


def test_several_indexes_are_loaded_and_unloaded_at_once_and_failures_are_told_by_name(
    tell: Callable[[Story], None],
) -> None:
    async def story(client: MossClient) -> None:
        names = [f"i{n}" for n in range(12)]
        for name in names:
            await client.create_index(name, vectors(name))
        outcome = await client.load_indexes([*names, "nobody", "i0"])
        assert outcome.loaded == names
        assert outcome.failed_codes == {"nobody": "NOT_FOUND"}
        assert "nobody" in outcome.failed["nobody"]
        found = await client.query_multi_index(names, "", BY_VECTOR)
        assert len(found.docs) == 10
        assert {doc.index_name for doc in found.docs} <= set(names)
        await client.unload_indexes(names)
        with pytest.raises(NotFoundError):
            await client.query("i3", "", BY_VECTOR)
        with pytest.raises(InvalidArgumentError, match="at least one index name"):
            await client.query_multi_index([], "x")

    tell(story)


def test_a_job_is_followed_to_its_end_and_pushes_are_jobs_too(
    tell: Callable[[Story], None],
) -> None:
    async def story(client: MossClient) -> None:
        handle = await client.create_index("faq", FACTS, wait=False)
        assert (await handle.status()).job_id == handle.job_id
        done = await handle.wait()
        assert done.status.value == JobStatus.COMPLETED == "completed"
        assert (done.progress, done.error, done.current_phase) == (100.0, None, None)
        assert done.completed_at is not None
        assert (await client.get_index("faq")).doc_count == 2
        session = await client.session("call")
        await session.add_docs(vectors_of_text("hello"))
        pushed = await session.push_index()
        for job_id in (pushed.job_id, (await client.add_docs("faq", FACTS)).job_id):
            status = await client.wait_for_job(job_id, poll_interval_seconds=0.1)
            assert (status.status.value, status.progress) == ("completed", 100.0)
        for unknown in ("job-none", "push-none-1", pushed.job_id + "00"):
            with pytest.raises(NotFoundError):
                await client.get_job_status(unknown)

    tell(story)


def vectors_of_text(*texts: str) -> list[DocumentInfo]:
    return [DocumentInfo(text, text) for text in texts]


def test_a_job_that_fails_says_why_and_one_that_takes_long_goes_on(
    tell: Callable[[Story], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(client: MossClient) -> None:
        bad = [*vectors("a"), DocumentInfo("b", "no vector")]
        handle = await client.create_index("bad", bad, wait=False)
        with pytest.raises(RuntimeError, match=f"Moss job {handle.job_id} failed: .*'b'") as caught:
            await handle.wait()
        assert getattr(caught.value, "code", None) == "INVALID_ARGUMENT"
        failed = await handle.status()
        assert failed.status.value == "failed"
        assert "'b'" in str(failed.error)

        gate = asyncio.Event()
        create = Indexes._create

        async def slow(self: Indexes, *rest: Any) -> Any:
            while not gate.is_set():
                await asyncio.sleep(0)
            return await create(self, *rest)

        monkeypatch.setattr(Indexes, "_create", slow)
        running = await client.create_index("slow", vectors("a"), wait=False)
        with pytest.raises(TimeoutError):
            await client.wait_for_job(running.job_id, timeout_seconds=0.01)
        gate.set()
        assert (await running.wait()).status.value == "completed"
        assert (await client.get_index("slow")).doc_count == 1

    tell(story)


def test_a_client_serves_many_event_loops_and_threads(
    client_of: Callable[[str], MossClient],
) -> None:
    client = client_of("a")
    asyncio.run(client.create_index("faq", vectors("a")))
    asyncio.run(client.load_index("faq", auto_refresh=True))
    trouble: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for each in range(3):
                asyncio.run(client.add_docs("faq", vectors(f"{number}-{each}")))
                asyncio.run(client.load_index("faq"))
                found = asyncio.run(client.query("faq", "", QueryOptions([1.0, 0.0, 0.0], 50)))
                assert f"{number}-{each}" in {doc.id for doc in found.docs}
        except BaseException as error:
            trouble.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert trouble == []
    assert asyncio.run(client.get_index("faq")).doc_count == 13
    asyncio.run(client.close())


def test_a_closed_client_refuses_everything(client_of: Callable[[str], MossClient]) -> None:
    async def story() -> None:
        client = client_of("a")
        await client.create_index("faq", vectors("a"))
        await client.load_index("faq", auto_refresh=True)
        await client.close()
        await client.close()
        calls = [
            client.create_index("x", vectors("a")),
            client.add_docs("faq", vectors("a")),
            client.delete_docs("faq", ["a"]),
            client.get_docs("faq"),
            client.get_index("faq"),
            client.list_indexes(),
            client.delete_index("faq"),
            client.load_index("faq"),
            client.load_indexes(["faq"]),
            client.unload_index("faq"),
            client.unload_indexes(["faq"]),
            client.was_served_stale("faq"),
            client.query("faq", "x"),
            client.query_multi_index(["faq"], "x"),
            client.get_job_status("push-x-1"),
            client.wait_for_job("push-x-1"),
        ]
        for call in calls:
            with pytest.raises(RuntimeError, match="MossClient is closed") as caught:
                await call
            assert not isinstance(caught.value, MossError)

    asyncio.run(story())


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (lambda client: client.create_index("", vectors("a")), "empty"),
        (lambda client: client.create_index("x", "notes.txt"), "not JSON"),
        (lambda client: client.create_index("x", ["a"]), "item 0"),
        (lambda client: client.load_index("x", polling_interval_in_seconds=-1), "polling"),
        (lambda client: client.load_index("x", cache_path=3), "cache_path"),
        (lambda client: client.load_indexes("x"), "list of names"),
        (lambda client: client.query_multi_index("x", "q"), "list of names"),
        (lambda client: client.delete_docs("x", "a"), "no index"),
        (lambda client: client.wait_for_job("push-x-1", timeout_seconds=-1), "timeout_seconds"),
    ],
)
def test_wrong_arguments_are_named(
    tell: Callable[[Story], None],
    wrong: Callable[[Any], Coroutine[Any, Any, object]],
    named: str,
) -> None:
    async def story(client: MossClient) -> None:
        with pytest.raises(MossError, match=named):
            await wrong(client)

    tell(story)


def test_a_wrong_key_is_refused(client_of: Callable[[str], MossClient], tmp_path: Path) -> None:
    async def story() -> None:
        async with client_of("a") as client:
            await client.create_index("faq", vectors("a"))
            store = client._settings.store
            async with MossClient("p", "other", store=store, data_dir=tmp_path / "b") as other:
                for call in (other.list_indexes(), other.create_index("x", vectors("a"))):
                    with pytest.raises(UnauthorizedError):
                        await call

    asyncio.run(story())


class Away:
    """A store that can be gone for a while."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.away = False

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.inner, name)
        if not asyncio.iscoroutinefunction(found) or name == "close":
            return found

        async def call(*args: Any, **kwargs: Any) -> Any:
            if self.away:
                raise NetworkError("the store is away")
            return await found(*args, **kwargs)

        return call


def test_where_the_store_is_away_what_is_here_is_served_and_said_to_be_stale(
    client_of: Callable[[str], MossClient],
) -> None:
    async def story() -> None:
        async with client_of("b") as other:
            await other.create_index("faq", vectors("a"))
            await other.create_index("new", vectors("a"))
        client = client_of("a")
        client._store = store = Away(client._store)  # type: ignore[assignment]  # stands in for it
        async with client:
            await client.load_index("faq")
            assert await client.was_served_stale("faq") is False
            await client.unload_index("faq")
            store.away = True
            await client.load_index("faq")
            assert await client.was_served_stale("faq") is True
            assert len((await client.query("faq", "", BY_VECTOR)).docs) == 1
            for call in (
                client.load_index("new"),
                client.get_index("faq"),
                client.add_docs("faq", vectors("b")),
                client.create_index("third", vectors("a")),
            ):
                with pytest.raises(NetworkError) as caught:
                    await call
                assert caught.value.code == "NETWORK"
            store.away = False
            await client.load_index("faq")
            assert await client.was_served_stale("faq") is False
            # Nothing of what was refused is there.
            assert [doc.id for doc in await client.get_docs("faq")] == ["a"]
            assert [each.name for each in await client.list_indexes()] == ["faq", "new"]

    asyncio.run(story())


def test_an_index_whose_publishing_failed_is_published_by_calling_again(
    client_of: Callable[[str], MossClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        client = client_of("a")
        client._store = store = Away(client._store)  # type: ignore[assignment]  # stands in for it
        async with client:
            await client.create_index("first", vectors("a"))
            real = store.inner.compare_and_swap

            async def lost(*args: Any, **kwargs: Any) -> Any:
                store.away = True
                raise NetworkError("the store is away")

            monkeypatch.setattr(store.inner, "compare_and_swap", lost)
            with pytest.raises(NetworkError):
                await client.create_index("faq", vectors("a", "b"))
            monkeypatch.setattr(store.inner, "compare_and_swap", real)
            store.away = False
            assert (await client.create_index("faq", vectors("a", "b"))).doc_count == 2
            assert (await client.get_index("faq")).doc_count == 2

    asyncio.run(story())


class Steps:
    """A clock whose sleepers wake when they are told to."""

    def __init__(self) -> None:
        self.slept: list[float] = []
        self.sleeping = threading.Event()
        self._wake: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self._wake, self._loop = asyncio.Event(), asyncio.get_running_loop()
        self.sleeping.set()
        await self._wake.wait()

    async def step(self) -> None:
        """Wake the sleeper, and return once it sleeps again."""
        await asyncio.to_thread(self.sleeping.wait, 30)
        self.sleeping.clear()
        assert self._loop is not None
        assert self._wake is not None
        self._loop.call_soon_threadsafe(self._wake.set)
        assert await asyncio.to_thread(self.sleeping.wait, 30)


def test_auto_refresh_brings_in_what_others_change_without_interrupting_queries(
    client_of: Callable[[str], MossClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        async with client_of("b") as other, client_of("a") as client:
            await other.create_index("faq", vectors("a"))
            steps = Steps()
            monkeypatch.setattr(client._index()._clock, "sleep", steps.sleep)
            await client.load_index("faq", True, 0)
            ids: set[str] = set()
            asked = 0
            done = asyncio.Event()

            async def ask() -> None:
                nonlocal asked
                while not done.is_set():
                    found = await client.query("faq", "", BY_VECTOR)
                    now = {doc.id for doc in found.docs}
                    assert ids <= now  # what was there once stays
                    ids.update(now)
                    asked += 1
                    await asyncio.sleep(0)

            asking = asyncio.ensure_future(ask())
            for id in ("b", "c"):
                await other.add_docs("faq", vectors(id))
                await steps.step()
            while "c" not in ids:
                await asyncio.sleep(0)
            done.set()
            await asking
            assert asked >= 3
            assert set(steps.slept) == {1.0}  # never more often than once a second

    asyncio.run(story())


def test_a_plain_reload_ends_the_refreshing_and_a_deleted_index_unloads_itself(
    client_of: Callable[[str], MossClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        async with client_of("b") as other, client_of("a") as client:
            await other.create_index("faq", vectors("a"))
            steps = Steps()
            monkeypatch.setattr(client._index()._clock, "sleep", steps.sleep)
            await client.load_index("faq", auto_refresh=True, polling_interval_in_seconds=5)
            poller = client._index()._loaded["faq"].poller
            assert poller is not None
            await client.load_index("faq")
            assert poller.cancelled()
            assert client._index()._loaded["faq"].poller is None
            await client.load_index("faq", auto_refresh=True)
            again = client._index()._loaded["faq"].poller
            assert again is not None
            await other.delete_index("faq")
            await asyncio.to_thread(steps.sleeping.wait, 30)
            assert steps._loop is not None
            assert steps._wake is not None
            steps._loop.call_soon_threadsafe(steps._wake.set)
            await asyncio.wrap_future(again)
            with pytest.raises(NotFoundError):
                await client.query("faq", "", BY_VECTOR)

    asyncio.run(story())
