"""What a text query costs while others keep the machine busy: a bulk load, and each other.

    python -m benchmarks.bench_busy [TEXTS]

Real messages of chitchat-dataset, one session of `moss-minilm`, from Python as users call it. Idle
and busy are asked in one process run; a query's time is that of `await session.query(...)`.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from benchmarks.texts import first
from moss_local import DocumentInfo, MossClient, QueryOptions, SessionIndex

STORED = 1000
QUERIES = 300
PAUSE_S = 0.02
"""Between two queries: somebody who listens, not a loop."""
CALLERS = (1, 2, 4, 8)


def shown(taken: list[float]) -> str:
    ms = sorted(1000 * each for each in taken)
    return (
        f"p50 {statistics.median(ms):.1f} ms, p95 {ms[int(len(ms) * 0.95)]:.1f} ms,"
        f" worst {ms[-1]:.0f} ms ({len(ms)} queries)"
    )


async def timed(query: Callable[[], Awaitable[object]], taken: list[float]) -> None:
    started = time.perf_counter()
    await query()
    taken.append(time.perf_counter() - started)


async def measure(texts: list[str], load: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with MossClient(
            "bench", "key", store="memory://busy", data_dir=Path(folder)
        ) as client:
            session = await client.session("stored")
            await session.add_docs(
                [DocumentInfo(f"{n}", text) for n, text in enumerate(texts[:STORED])]
            )
            questions = texts[STORED : STORED + QUERIES]
            options = QueryOptions(top_k=5)
            await session.query(questions[0], options)

            idle: list[float] = []
            for question in questions:
                await timed(lambda text=question: session.query(text, options), idle)  # type: ignore[misc]  # bound at once
                await asyncio.sleep(PAUSE_S)
            print(f"nobody else: {shown(idle)}")

            other = await client.session("loaded")
            documents = [DocumentInfo(f"{n}", text) for n, text in enumerate(texts[-load:])]
            started = time.perf_counter()
            loading = asyncio.ensure_future(other.add_docs(documents))
            busy: list[float] = []
            place = 0
            while not loading.done():
                question = questions[place % QUERIES]
                await timed(lambda text=question: session.query(text, options), busy)  # type: ignore[misc]  # bound at once
                place += 1
                await asyncio.sleep(PAUSE_S)
            seconds = time.perf_counter() - started
            print(f"during a bulk load of {load} texts: {shown(busy)}; load {load / seconds:.0f}/s")
            started = time.perf_counter()
            await other.add_docs([DocumentInfo(f"again {doc.id}", doc.text) for doc in documents])
            print(f"the same load alone: {load / (time.perf_counter() - started):.0f}/s")
            await at_once(session, questions, options)


async def at_once(session: SessionIndex, questions: list[str], options: QueryOptions) -> None:
    for callers in CALLERS:
        taken: list[float] = []

        async def ask(begin: int, step: int = callers, into: list[float] = taken) -> None:
            for question in questions[begin::step]:
                await timed(lambda text=question: session.query(text, options), into)  # type: ignore[misc]  # bound at once

        started = time.perf_counter()
        await asyncio.gather(*(ask(begin) for begin in range(callers)))
        rate = len(taken) / (time.perf_counter() - started)
        print(f"{callers} callers without a pause: {shown(taken)}; {rate:.0f} queries/s")


def main() -> None:
    load = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    texts = first(STORED + QUERIES + load)
    asyncio.run(measure(texts, load))


if __name__ == "__main__":
    main()
