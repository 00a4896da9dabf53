"""Processes that push to one session, or swap one blob, at one moment.

Each opens what it needs, says that it is ready, and waits for a `Gate` that opens for all. What it
sends to the store from there on is counted by itself; the moments are of the system's monotonic
clock, which all processes of a machine share.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moss_local import MossError
from moss_local.storage.paths import project_path
from moss_sync import SyncReport
from moss_sync.channel import CONFLICT_BACKOFF_S, MAX_BACKOFF_S
from moss_sync.clock import SystemClock
from moss_sync.engine import SyncEngine
from moss_sync.race import Race
from moss_sync.stores.base import Blob, Swapped
from moss_sync.stores.url import open_store
from tests.processes.documents import document
from tests.processes.jobs import Where, client_at
from tests.processes.nursery import Nursery


class Gate:
    """A named pipe: opening it to read waits until somebody has opened it to write."""

    def __init__(self, path: Path) -> None:
        self._path = path
        os.mkfifo(path)

    def open(self) -> int:
        """Let everybody pass; return what to close when they are done."""
        return os.open(self._path, os.O_WRONLY)


def wait_at(gate: str, ready: str) -> None:
    """The waiting side of a Gate."""
    Path(ready).touch()
    os.close(os.open(gate, os.O_RDONLY))


def race(
    nursery: Nursery, folder: Path, job: str, arguments: Sequence[dict[str, Any]], *, seconds: float
) -> list[dict[str, Any]]:
    """Run a job of this module in as many processes as there are arguments, all from one gate."""
    folder.mkdir()
    gate = Gate(folder / "gate")
    ready = [folder / f"{i}.ready" for i in range(len(arguments))]
    answers = [folder / f"{i}.json" for i in range(len(arguments))]
    processes = [
        nursery.start(f"racing.{job}", **each, gate=folder / "gate", ready=r, answer=a)
        for each, r, a in zip(arguments, ready, answers, strict=True)
    ]
    deadline = time.monotonic() + seconds
    while late := [p for p, path in zip(processes, ready, strict=True) if not path.exists()]:
        assert time.monotonic() < deadline, late[0].log.read_text()
        time.sleep(0.01)
    opened = gate.open()
    for process in processes:
        process.finish(seconds)
    os.close(opened)
    return [json.loads(path.read_text()) for path in answers]


async def acquainted(
    nursery: Nursery, folder: Path, store: str, session: str, count: int
) -> list[Where]:
    """Return devices that know the repository of a session with one document in it.

    The first has made both; the others get what it remembers of the store, and no file of its
    session, so that fifty of them need not derive one key each.
    """
    wheres: list[Where] = [
        {
            "project_id": "project",
            "project_key": "a key",
            "store": store,
            "data_dir": str(folder / f"device-{i}"),
        }
        for i in range(count + 1)
    ]
    async with client_at(wheres[0]) as client:
        index = await client.session(session, "custom")
        await index.add_docs([document("before")])
        await index.push_index()
    known = project_path(Path(wheres[0]["data_dir"]), "project")
    for where in wheres[1:]:
        place = project_path(Path(where["data_dir"]), "project")
        place.mkdir(parents=True)
        for path in known.glob("repository-*"):
            shutil.copy(path, place / path.name)
    nursery.learn_key(wheres[0])
    return wheres[1:]


@dataclass
class Sent:
    """What the pushes of a process have asked of its store; a compaction's swaps are not theirs."""

    swaps: int = 0
    won: int = 0
    lists: int = 0


def counted() -> Sent:
    """Count from now on."""
    sent = Sent()
    swap, waiting = SyncEngine._swap, SyncEngine._waiting

    async def counting_swap(self: SyncEngine, *args: Any) -> Any:
        sent.swaps += 1
        answer = await swap(self, *args)
        sent.won += answer is not None
        return answer

    async def counting_waiting(self: SyncEngine, *args: Any) -> Any:
        sent.lists += 1
        return await waiting(self, *args)

    for name, counting in (("_swap", counting_swap), ("_waiting", counting_waiting)):
        setattr(SyncEngine, name, counting)  # in this process only
    return sent


def push_at_once(
    where: Where, session: str, id: str, gate: str, ready: str, adopt: bool = True
) -> dict[str, Any]:
    """Add one document, wait at the gate, push; return how it went."""
    if not adopt:
        Race.crowded = property(lambda self: False)  # type: ignore[method-assign, assignment]  # in this process only
    return asyncio.run(_push_at_once(where, session, id, gate, ready))


async def _push_at_once(
    where: Where, session: str, id: str, gate: str, ready: str
) -> dict[str, Any]:
    sent = counted()
    async with client_at(where) as client:
        index = await client.session(session, "custom")
        await index.add_docs([document(id)])
        wait_at(gate, ready)
        error: MossError | None = None
        begun = time.monotonic()
        try:
            report = (await index.push_index()).report
        except MossError as failed:
            error, report = failed, failed.report or SyncReport()
        return {
            "id": id,
            "begun": begun,
            "ended": time.monotonic(),
            "error": None if error is None else str(error),
            "sent": report.sent,
            "adopted": report.adopted,
            "lost": report.lost_races,
            "requests": report.requests,
            "swaps": sent.swaps,
            "won": sent.won,
            "lists": sent.lists,
        }


def swap_at_once(url: str, key: str, gate: str, ready: str) -> dict[str, Any]:
    """Wait at the gate, then replace one blob by compare-and-swap, again until it was done."""
    return asyncio.run(_swap_at_once(url, key, gate, ready))


async def _swap_at_once(url: str, key: str, gate: str, ready: str) -> dict[str, Any]:
    clock, store, swaps = SystemClock(), open_store(url), 0
    try:
        blob = await store.get(key)
        await store.compare_and_swap(f"{key}-{os.getpid()}", b"a connection", etag=None)
        wait_at(gate, ready)
        begun = time.monotonic()
        while True:
            assert isinstance(blob, Blob)
            answer = await store.compare_and_swap(key, os.urandom(2048), etag=blob.etag)
            swaps += 1
            if isinstance(answer, Swapped):
                return {"begun": begun, "ended": time.monotonic(), "swaps": swaps}
            longest = min(MAX_BACKOFF_S, CONFLICT_BACKOFF_S * 2.0 ** (swaps - 1))
            await clock.sleep(longest * clock.uniform(0.5, 1.0))
            blob = await store.get(key)
    finally:
        await store.close()
