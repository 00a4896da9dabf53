"""One client for everybody: event loops, threads and tasks by the dozen, and calls cut off."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from moss_local import DocumentInfo, GetDocumentsOptions, MossClient, QueryOptions, SessionIndex
from moss_local.storage.file import SessionFile, open_session_file
from tests.processes.audit import assert_settled, audit, path_of, replica_state
from tests.processes.documents import document, documents, text_of, vector_of, word_of
from tests.processes.jobs import Where, client_at


def options(id: str) -> QueryOptions:
    return QueryOptions(embedding=vector_of(id), top_k=1)


async def add_and_find(session: SessionIndex, tag: str, count: int) -> None:
    for number in range(count):
        id = f"{tag}.{number}"
        assert await session.add_docs([document(id)]) == (1, 0)
        found = await session.query(word_of(id), options(id))
        assert [each.id for each in found.docs] == [id]


def test_one_client_serves_one_event_loop_after_another(device: Callable[..., Where]) -> None:
    client = client_at(device("laptop"))
    session = asyncio.run(client.session("s", "custom"))
    for number in range(5):
        asyncio.run(add_and_find(session, f"loop-{number}", 2))
        assert asyncio.run(session.push_index()).doc_count == 2 * (number + 1)
    again = asyncio.run(client.session("s"))
    assert asyncio.run(again.pull()).received == 0
    assert again.doc_count == 10
    asyncio.run(client.close())


def test_one_session_serves_the_event_loops_of_many_threads_at_once(
    device: Callable[..., Where],
) -> None:
    threads, each = 8, 6
    with client_at(device("laptop")) as client:
        session = asyncio.run(client.session("s", "custom"))
        together = threading.Barrier(threads)

        def work(number: int) -> None:
            together.wait()
            asyncio.run(add_and_find(session, f"thread-{number}", each))
            asyncio.run(session.push_index())
            asyncio.run(add_and_find(session, f"thread-{number}-again", each))
            asyncio.run(session.sync())

        with ThreadPoolExecutor(threads) as pool:
            for done in [pool.submit(work, number) for number in range(threads)]:
                done.result()
        assert session.doc_count == 2 * threads * each
        assert session.sync_state.status == "synced"

    async def everything(client: MossClient) -> int:
        return (await client.session("s")).doc_count

    with client_at(device("phone")) as client:
        assert asyncio.run(everything(client)) == 2 * threads * each


def test_twenty_tasks_add_query_delete_and_push_on_one_session(
    device: Callable[..., Where],
) -> None:
    async def work(session: SessionIndex, tag: str) -> None:
        await add_and_find(session, tag, 5)
        assert await session.delete_docs([f"{tag}.0"]) == 1
        await session.push_index()

    async def main(client: MossClient) -> None:
        session = await client.session("s", "custom")
        async with asyncio.TaskGroup() as tasks:
            for number in range(20):
                tasks.create_task(work(session, f"task-{number}"))
        wanted = {f"task-{t}.{d}" for t in range(20) for d in range(1, 5)}
        assert {known.id for known in await session.get_docs()} == wanted
        assert session.doc_count == len(wanted)

    where = device("laptop")
    with client_at(where) as client:
        asyncio.run(main(client))
    assert len(audit(path_of(where, "s"))) == 80
    assert_settled(replica_state(where, "s"))


def test_two_clients_of_one_process_see_each_other_at_once(device: Callable[..., Where]) -> None:
    async def main(one: MossClient, two: MossClient) -> None:
        mine = await one.session("s", "custom")
        theirs = await two.session("s")
        await mine.add_docs([document("a")])
        assert theirs.doc_count == 1
        assert (await theirs.query("", options("a"))).docs[0].id == "a"
        await theirs.delete_docs(["a"])
        assert (await mine.query("", options("a"))).docs == []

    where = device("laptop")
    with client_at(where) as one, client_at(where) as two:
        asyncio.run(main(one, two))


def test_clients_of_many_projects_derive_their_keys_at_once(device: Callable[..., Where]) -> None:
    clients = 8
    together = threading.Barrier(clients)

    def work(number: int) -> None:
        where = device(f"laptop-{number}", key=f"key {number}")
        together.wait()
        with client_at(where) as client:
            session = asyncio.run(client.session("s", "custom", auto_load_on_init=False))
            asyncio.run(add_and_find(session, "doc", 1))

    with ThreadPoolExecutor(clients) as pool:
        for done in [pool.submit(work, number) for number in range(clients)]:
            done.result()


# -- calls that are cut off ----------------------------------------------------------------------


async def cut_off(call: Awaitable[Any], seconds: float) -> bool:
    """Await a call for that long at most; return whether it was cut off."""
    try:
        await asyncio.wait_for(call, seconds)
    except TimeoutError:
        return True
    return False


@pytest.fixture
def chance() -> random.Random:
    seed = random.SystemRandom().getrandbits(32)
    print(f"seed {seed}")
    return random.Random(seed)


def test_calls_cut_off_at_random_moments_lose_nothing_that_was_acknowledged(
    device: Callable[..., Where], chance: random.Random
) -> None:
    acknowledged: set[str] = set()
    doubtful: set[str] = set()
    cuts = {"add": 0, "push": 0, "pull": 0}

    async def add(session: SessionIndex, number: int) -> None:
        ids = [f"doc.{number}.{i}" for i in range(chance.randrange(1, 20))]
        was_cut = await cut_off(session.add_docs(documents(ids)), chance.uniform(0, 0.006))
        cuts["add"] += was_cut
        (doubtful if was_cut else acknowledged).update(ids)

    async def main(client: MossClient) -> None:
        session = await client.session("s", "custom")
        for number in range(60):
            await add(session, number)
            cuts["push"] += await cut_off(session.push_index(), chance.uniform(0, 0.02))
            cuts["pull"] += await cut_off(session.pull(), chance.uniform(0, 0.004))
        # Three at once on one session, each cut off when it happens.
        await asyncio.gather(
            *(cut_off(session.sync(), chance.uniform(0, 0.03)) for _ in range(10)),
            *(add(session, number) for number in range(100, 110)),
        )
        there = {known.id for known in await session.get_docs()}
        assert acknowledged <= there <= acknowledged | doubtful
        for id in sorted(acknowledged)[:: max(1, len(acknowledged) // 20)]:
            found = await session.query(word_of(id), options(id))
            assert [each.id for each in found.docs] == [id]
        await session.push_index()

    where = device("laptop")
    with client_at(where) as client:
        asyncio.run(main(client))
    print(cuts)
    assert cuts["add"] > 0
    assert cuts["push"] > 0

    texts = audit(path_of(where, "s"))
    assert_settled(replica_state(where, "s"))
    # A call is whole or not there, also one whose answer nobody waited for.
    batches: dict[str, set[str]] = {}
    for id in acknowledged | doubtful:
        batches.setdefault(id.rsplit(".", 1)[0], set()).add(id)
    assert all(ids <= texts.keys() or not ids & texts.keys() for ids in batches.values())

    async def elsewhere(client: MossClient) -> dict[str, str]:
        session = await client.session("s")
        return {known.id: known.text for known in await session.get_docs()}

    with client_at(device("phone")) as client:
        assert asyncio.run(elsewhere(client)) == texts == {id: text_of(id) for id in texts}


def test_calls_cut_off_while_they_embed_leave_the_model_and_the_session_usable(
    device: Callable[..., Where], chance: random.Random
) -> None:
    cuts = {"query": 0, "add": 0}

    async def main(client: MossClient) -> None:
        session = await client.session("s")
        await session.add_docs([DocumentInfo("refund", "Agent confirmed a refund.")])
        kept = {"refund"}
        for number in range(20):
            query = session.query("status of the refund")
            cuts["query"] += await cut_off(query, chance.uniform(0, 0.003))
            id = f"turn-{number}"
            add = session.add_docs([DocumentInfo(id, f"The weather was fine on day {number}.")])
            was_cut = await cut_off(add, chance.uniform(0, 0.012))
            cuts["add"] += was_cut
            if not was_cut:
                kept.add(id)
        found = await session.query("status of the refund", QueryOptions(top_k=1))
        assert [each.id for each in found.docs] == ["refund"]
        assert kept <= {known.id for known in await session.get_docs()}

    where = device("laptop")
    with client_at(where) as client:
        asyncio.run(main(client))
    audit(path_of(where, "s"))
    assert cuts["query"] > 0
    assert cuts["add"] > 0


def test_opening_a_session_can_be_cut_off_and_done_again(
    device: Callable[..., Where], chance: random.Random
) -> None:
    async def main(client: MossClient) -> None:
        cuts = 0
        for number in range(30):
            opening = client.session(f"s-{number % 3}", "custom")
            cuts += await cut_off(opening, chance.uniform(0, 0.03))
        assert cuts > 0
        for number in range(3):
            session = await client.session(f"s-{number}", "custom")
            await session.add_docs([document("a")])
            await session.push_index()
            one = GetDocumentsOptions(doc_ids=["a"])
            assert [known.id for known in await session.get_docs(one)] == ["a"]

    where = device("laptop")
    with client_at(where) as client:
        asyncio.run(main(client))
    for number in range(3):
        assert_settled(replica_state(where, f"s-{number}"))


def test_opening_that_is_cut_off_leaves_no_file_open(
    device: Callable[..., Where], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut off while a thread opens the file, which a thread cannot be kept from finishing."""
    opening, go_on, opened = threading.Event(), threading.Event(), threading.Event()

    def slow(*args: Any, **options: Any) -> SessionFile:
        opening.set()
        go_on.wait()
        file = open_session_file(*args, **options)
        opened.set()
        return file

    async def main(client: MossClient) -> None:
        await (await client.session("s", "custom")).close()
        monkeypatch.setattr("moss_local.storage.place.open_session_file", slow)
        task = asyncio.create_task(client.session("s", "custom"))
        await asyncio.to_thread(opening.wait)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        monkeypatch.undo()
        go_on.set()
        await asyncio.to_thread(opened.wait)
        path = path_of(where, "s")
        while path.with_name(path.name + "-wal").exists():  # until its last owner has closed it
            await asyncio.sleep(0.001)

    where = device("laptop")
    with client_at(where) as client:
        asyncio.run(asyncio.wait_for(main(client), 60))


def test_closing_that_is_cut_off_is_done_all_the_same(device: Callable[..., Where]) -> None:
    async def main(client: MossClient) -> None:
        session = await client.session("s", "custom")
        await session.add_docs([document("a")])
        task = asyncio.create_task(session.close())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        path = path_of(where, "s")
        while path.with_name(path.name + "-wal").exists():
            await asyncio.sleep(0.001)

    where = device("laptop")
    with client_at(where) as client:
        asyncio.run(asyncio.wait_for(main(client), 60))


GIVES_UP = """
import asyncio, sys
from moss_local import DocumentInfo, MossClient

async def main():
    client = MossClient("p", "k", store="memory://here", data_dir=sys.argv[1])
    session = await client.session("s")
    begun, loop = asyncio.Event(), asyncio.get_running_loop()
    turns = [DocumentInfo(str(n), f"turn {n} " + "word " * 200) for n in range(20_000)]
    add = asyncio.create_task(
        session.add_docs(turns, progress=lambda *_: loop.call_soon_threadsafe(begun.set))
    )
    await begun.wait()
    add.cancel()
    await asyncio.wait([add])
    print(add.cancelled(), session.doc_count)

asyncio.run(main())
"""


def test_a_program_that_gives_a_bulk_load_up_can_end(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", GIVES_UP, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,  # embedding all of it takes minutes
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "True 0\n", "")
