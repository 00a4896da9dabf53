"""What the processes of the nursery do. Each function is one process, from its start to its end.

Arguments and results are JSON. `where` says which device: the arguments of a `MossClient`.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from moss_local import (
    DocumentInfo,
    GetDocumentsOptions,
    MossClient,
    MossError,
    NetworkError,
    QueryOptions,
    SessionIndex,
    schedule,
)
from moss_local.storage.paths import project_path
from moss_local.storage.project_cache import ProjectCache
from moss_sync import key_check
from moss_sync.derivation import derived
from moss_sync.floors import Policy
from moss_sync.repository import remembered
from moss_sync.stores.url import open_store
from tests.devices import Device, QuickClock
from tests.processes.documents import document, documents, vector_of, word_of
from tests.processes.ledger import IDLE, OPENING, PUSHING, WRITING, Ledger, Mark, Revisions

Where = dict[str, str]


def import_everything() -> None:
    """Import what the library imports on first use. Uses nothing of it."""
    import aiobotocore.session
    import filelock

    import moss_sync.probe
    import moss_sync.stores.folder
    import moss_sync.stores.s3

    _ = (aiobotocore, filelock, moss_sync)


def client_at(where: Where) -> MossClient:
    return MossClient(
        where["project_id"],
        where["project_key"],
        store=where["store"],
        data_dir=where["data_dir"],
        cache_path=where["data_dir"] + "-cache",
        commit="log" if where.get("commit") == "log" else None,
    )


def learn_key(where: Where) -> None:
    """Derive the key that a device uses into the cache of a pure function; touches nothing else."""
    cache = ProjectCache(project_path(Path(where["data_dir"]), where["project_id"]))
    saved = cache.load("key")
    if saved is not None:
        known = remembered(saved)
        assert known is not None
        derived(where["project_key"], key_check.decode(known).current.kdf)


# -- to be killed --------------------------------------------------------------------------------


def write_for_ever(
    where: Where, session: str, tag: str, ledger: str, mark: str, push: bool, seed: int
) -> None:
    """Add, replace and delete documents of its own, and push now and then, until killed."""
    shown = Mark(Path(mark))
    shown.watch_connections()
    asyncio.run(
        _write_for_ever(where, session, tag, Ledger(Path(ledger)), shown, push, random.Random(seed))
    )


async def _write_for_ever(
    where: Where,
    session: str,
    tag: str,
    ledger: Ledger,
    mark: Mark,
    push: bool,
    chance: random.Random,
) -> None:
    mark.call = OPENING
    index = await client_at(where).session(session, "custom", auto_load_on_init=False)
    mine: Revisions = {}
    while True:
        mark.call = WRITING
        wish = chance.random()
        if mine and wish < 0.1:
            gone = chance.sample(sorted(mine), k=min(len(mine), 3))
            ledger.begin("delete", gone)
            count = await index.delete_docs(gone)
            assert count == len(gone)
            for id in gone:
                del mine[id]
        else:
            put = {f"{tag}.{len(mine)}.{i}": 0 for i in range(chance.randrange(1, 100))}
            for id in chance.sample(sorted(mine), k=min(len(mine), chance.randrange(4))):
                put[id] = mine[id] + 1
            ledger.begin("put", list(put.items()))
            await index.add_docs([document(id, revision) for id, revision in put.items()])
            mine |= put
        mark.call = IDLE
        ledger.acknowledged(None)
        if push and chance.random() < 0.4:
            mark.call = PUSHING
            ledger.begin("push", None)
            result = await index.push_index()
            mark.call = IDLE
            ledger.acknowledged(result.report.seq)


def push_through_outages(where: Where, session: str, tag: str, ledger: str, enough: str) -> None:
    """Add and push again and again, whatever becomes of the store, until there is a file `enough`.

    What could not be pushed goes with the next push that can be; the last one is tried until it is
    through.
    """
    asyncio.run(_push_through_outages(where, session, tag, Ledger(Path(ledger)), Path(enough)))


async def _push_through_outages(
    where: Where, session: str, tag: str, ledger: Ledger, enough: Path
) -> None:
    async with client_at(where) as client:
        index = await client.session(session, "custom")
        for number in itertools.count():
            last = enough.exists()
            put = {f"{tag}.{number}": 0}
            ledger.begin("put", list(put.items()))
            await index.add_docs([document(id, revision) for id, revision in put.items()])
            ledger.acknowledged(None)
            ledger.begin("push", None)
            while True:
                try:
                    result = await index.push_index()
                except NetworkError as error:
                    print(f"{tag}, push {number}: {error}", flush=True)
                    await asyncio.sleep(0.1)
                    if last:
                        continue
                    ledger.refused()
                else:
                    ledger.acknowledged(result.report.seq)
                break
            if last:
                return


# -- several at one file -------------------------------------------------------------------------


def add_batches(where: Where, session: str, tag: str, batches: int, size: int) -> None:
    """Add `batches` times `size` documents, counting that each call added exactly its own."""
    asyncio.run(_add_batches(where, session, tag, batches, size))


async def _add_batches(where: Where, session: str, tag: str, batches: int, size: int) -> None:
    async with client_at(where) as client:
        index = await client.session(session, "custom", auto_load_on_init=False)
        before = 0
        for batch in range(batches):
            counts = await index.add_docs(documents(f"{tag}.{batch}.{i}" for i in range(size)))
            assert counts == (size, 0)
            assert index.doc_count >= before + size
            before = index.doc_count


def watch(where: Where, session: str, total: int) -> dict[str, Any]:
    """Read, without ever opening the session again, until all `total` documents are there."""
    return asyncio.run(_watch(where, session, total))


async def _watch(where: Where, session: str, total: int) -> dict[str, Any]:
    counts: list[int] = []
    async with client_at(where) as client:
        index = await client.session(session, "custom", auto_load_on_init=False)
        found_with_index_open: set[str] = set()
        while not counts or counts[-1] < total:
            counts.append(index.doc_count)
            ids = [known.id for known in await index.get_docs()]
            assert len(ids) == len(set(ids))
            assert len(ids) >= counts[-1], "a document that was counted is not there"
            if ids:
                newest = max(ids, key=_batch)
                found = await index.query("", _nearest(newest))
                assert found.docs[0].id == newest
                assert found.docs[0].score > 0.999
                found_with_index_open.add(newest)
                by_word = await index.query(word_of(newest), _nearest(newest, alpha=0.0))
                assert [each.id for each in by_word.docs] == [newest]
            await asyncio.sleep(0.002)
        return {"counts": counts, "found": sorted(found_with_index_open)}


def _batch(id: str) -> int:
    return int(id.split(".")[1])


def _nearest(id: str, *, alpha: float = 1.0) -> QueryOptions:
    return QueryOptions(embedding=vector_of(id), alpha=alpha, top_k=3)


# -- forking -------------------------------------------------------------------------------------


def fork_and_go_on(where: Where, inherit: bool) -> None:
    """Use the library, fork children that use it too, and go on using it."""
    client = client_at(where)
    asyncio.run(_add_and_push(client, "before"))
    for number in range(3):
        pid = os.fork()
        if pid == 0:
            signal.alarm(20)  # a child that waits for a thread of its parent waits for ever
            mine = client if inherit else client_at(where)
            asyncio.run(_add_and_push(mine, f"child-{number}"))
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        assert status == 0
    asyncio.run(_add_and_push(client, "after"))
    asyncio.run(client.close())


async def _add_and_push(client: MossClient, id: str) -> None:
    index = await client.session("s", "custom")
    before = index.doc_count
    assert await index.add_docs([document(id)]) == (1, 0)
    assert (await index.push_index()).doc_count == before + 1


# -- exchanging in the background ----------------------------------------------------------------


def _hurry() -> None:
    """The debounce and the patience, a hundred times shorter."""
    for name in ("QUIET_S", "LONGEST_UNPUSHED_S", "FIRST_RETRY_S", "LONGEST_RETRY_S"):
        setattr(schedule, name, getattr(schedule, name) / 100)


def follow(where: Where, tag: str, other: str, rounds: int) -> list[Any]:
    """Answer each document of the other process with one of one's own; never push or pull."""
    _hurry()
    return asyncio.run(asyncio.wait_for(_follow(where, tag, other, rounds), 50))


async def _follow(where: Where, tag: str, other: str, rounds: int) -> list[Any]:
    async with client_at(where) as client:
        index = await client.session("s", "custom", auto_sync=0.1)
        feed = index.changes()
        seen = {known.id for known in await index.get_docs()}  # pulled by opening
        for number in range(rounds):
            await index.add_docs([document(f"{tag}.{number}")])
            while f"{other}.{number}" not in seen:
                seen.update((await anext(feed)).updated)
        end = await index.close()
        return [end.status, end.pending]


def fork_in_the_background(where: Where) -> None:
    """Fork, again and again, while a session is exchanged; children go on with it."""
    _hurry()
    client = client_at(where)
    index = asyncio.run(client.session("s", "custom", auto_sync=0.1))
    for number in range(5):
        asyncio.run(index.add_docs(documents([f"parent-{number}.{i}" for i in range(50)])))
        pid = os.fork()
        if pid == 0:
            signal.alarm(30)
            asyncio.run(_add_and_be_synced(index, f"child-{number}"))
            asyncio.run(_exchange_once_more(index))
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        assert status == 0
    asyncio.run(_add_and_be_synced(index, "after"))
    assert asyncio.run(client.close()) is None


async def _exchange_once_more(index: SessionIndex) -> None:
    """Its parent pushes for it as well; this is what the child does itself."""
    before = index.last_report
    while index.last_report is before:
        await asyncio.sleep(0.005)


async def _add_and_be_synced(index: SessionIndex, id: str) -> None:
    """Nobody pushes but the background."""
    assert await index.add_docs([document(id)]) == (1, 0)
    while index.sync_state.status != "synced":
        await asyncio.sleep(0.005)


# -- one exchange, not to its end ----------------------------------------------------------------


def exchange(
    path: str, url: str, cache: str, session: str, seed: int, policy: dict[str, int], verb: str
) -> None:
    """Open a file whose repository is known, and push, pull, compact or repair."""
    asyncio.run(_exchange(path, url, cache, session, seed, policy, verb))


async def _exchange(
    path: str, url: str, cache: str, session: str, seed: int, policy: dict[str, int], verb: str
) -> None:
    store = open_store(url)
    device = Device(
        Path(path),
        store,
        clock=QuickClock(seed),
        session=session,
        cache=ProjectCache(Path(cache)),
        policy=Policy(**policy),
    )
    await getattr(device.engine, verb)()
    device.close()
    await store.close()


# -- one step after another ----------------------------------------------------------------------


def act(where: Where, steps: Sequence[Sequence[Any]]) -> list[Any]:
    """Do the steps, each a verb and its arguments; return each one's answer, or its error."""
    return asyncio.run(_act(where, steps))


async def _act(where: Where, steps: Sequence[Sequence[Any]]) -> list[Any]:
    answers: list[Any] = []
    async with client_at(where) as client:
        index: SessionIndex | None = None
        for verb, *args in steps:
            try:
                if verb == "open":
                    name, model, pull = args
                    index = await client.session(name, model, auto_load_on_init=pull)
                    answers.append(index.model_id)
                else:
                    assert index is not None, "there is no open session"
                    answers.append(await _step(index, verb, *args))
            except MossError as error:
                kinds = [kind.__name__ for kind in type(error).__mro__]
                answers.append({"code": error.code, "kinds": kinds, "text": str(error)})
    return answers


async def _step(index: SessionIndex, verb: str, *args: Any) -> Any:
    match verb:
        case "add":
            return await index.add_docs(documents(args))
        case "add vectors of":
            return await index.add_docs(
                [DocumentInfo(id="odd", text="odd", embedding=[1.0] * args[0])]
            )
        case "delete":
            return await index.delete_docs(args)
        case "push":
            return (await index.push_index()).report.sent
        case "pull":
            return (await index.pull()).received
        case "sync":
            report = await index.sync()
            return [report.received, report.sent]
        case "state":
            state = index.sync_state
            return [state.status, state.pending, state.last_exchange_ms is not None, state.reason]
        case "ids":
            return [known.id for known in await index.get_docs(GetDocumentsOptions())]
        case "texts":
            return {known.id: known.text for known in await index.get_docs()}
        case _:
            raise AssertionError(f"no such step: {verb}")
