"""One agent of the demo: a process of its own with a data directory of its own.

Reads one JSON object a line from stdin, does it with the public API, answers with one a line on
stdout. The first says who it is: {"project", "key", "store", "data_dir", "session"}; the key comes
this way because arguments and environments of processes can be seen by others.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from functools import partial
from time import perf_counter
from typing import Any

from moss_local.client import MossClient
from moss_local.session import SessionIndex
from moss_local.types import DocumentInfo, QueryOptions
from moss_sync import MossError, SyncReport

MODEL_RUNTIME = "onnxruntime"
"""Until this module is loaded, the process cannot have embedded anything."""

Answer = dict[str, Any]


async def serve() -> None:
    """Open the session, then do what is asked until stdin ends."""
    hello = _read()
    if hello is None:
        return
    async with MossClient(
        hello["project"], hello["key"], store=hello["store"], data_dir=hello["data_dir"]
    ) as client:
        session = await _opened(client, hello["session"])
        if session is None:
            return
        while (request := _read()) is not None:
            await _answer(partial(_VERBS[request["do"]], session, request))


async def _opened(client: MossClient, name: str) -> SessionIndex | None:
    opened: list[SessionIndex] = []

    async def work() -> Answer:
        opened.append(await client.session(name, warm_up=False))
        session = opened[0]
        state = session.sync_state
        return {
            "documents": session.doc_count,
            "device": session.device_id,
            "state": str(state.status),
            "reason": state.reason,
            "model_loaded": MODEL_RUNTIME in sys.modules,
            **_report(session.last_report),
        }

    await _answer(work)
    return opened[0] if opened else None


async def _add(session: SessionIndex, request: Answer) -> Answer:
    added, updated = await session.add_docs(
        [DocumentInfo(id, text, {"speaker": speaker}) for id, speaker, text in request["turns"]]
    )
    return {"added": added, "updated": updated, "pending": session.sync_state.pending}


async def _query(session: SessionIndex, request: Answer) -> Answer:
    found = await session.query(request["text"], QueryOptions(top_k=request["top_k"]))
    return {"hits": [[hit.id, hit.score, hit.text] for hit in found.docs]}


async def _push(session: SessionIndex, request: Answer) -> Answer:
    return _report((await session.push_index()).report)


async def _pull(session: SessionIndex, request: Answer) -> Answer:
    return _report(await session.pull())


async def _sync(session: SessionIndex, request: Answer) -> Answer:
    return _report(await session.sync())


async def _thread(session: SessionIndex, request: Answer) -> Answer:
    thread = await session.thread()
    return {
        "turns": [
            [turn.id, (turn.metadata or {}).get("speaker"), turn.text, turn.dev.hex(), turn.hlc]
            for turn in thread
        ],
        "pending": session.sync_state.pending,
    }


_VERBS: dict[str, Callable[[SessionIndex, Answer], Awaitable[Answer]]] = {
    "add": _add,
    "query": _query,
    "push": _push,
    "pull": _pull,
    "sync": _sync,
    "thread": _thread,
}


def _report(report: SyncReport | None) -> Answer:
    return {"report": None if report is None else asdict(report)}


async def _answer(work: Callable[[], Awaitable[Answer]]) -> None:
    started = perf_counter()
    try:
        answer = await work()
    except MossError as error:
        answer = {"error": error.code, "message": str(error), **_report(error.report)}
    answer["ms"] = (perf_counter() - started) * 1000
    print(json.dumps(answer), flush=True)


def _read() -> Answer | None:
    line = sys.stdin.readline()
    return json.loads(line) if line else None


if __name__ == "__main__":
    try:
        asyncio.run(serve())
    except KeyboardInterrupt:  # Ctrl-C reaches the whole group; the demo itself says so
        sys.exit(130)
