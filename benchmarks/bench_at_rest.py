"""What encryption at rest costs: the same work on files in clear and on encrypted ones, in turns.

    make bench-at-rest

Needs an `apsw` with ciphers (docs/at-rest.md). Real messages of chitchat-dataset with vectors of
384 numbers that are given, so that no model's time hides the file's. Prints medians and the ratio
of encrypted to clear.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np

from benchmarks.texts import first
from moss_local import DocumentInfo, MossClient, QueryOptions, SessionIndex
from moss_local.storage import ciphers

STORED = 10_000
TURNS = 200
QUERIES = 200
OPENINGS = 15
DIM = 384


async def opened(client: MossClient) -> SessionIndex:
    return await client.session("s", "custom", auto_load_on_init=False)


async def each(work: list[Callable[[], Awaitable[object]]]) -> float:
    """Return the median milliseconds of one."""
    taken = []
    for one in work:
        started = time.perf_counter()
        await one()
        taken.append(time.perf_counter() - started)
    return 1000 * statistics.median(taken)


async def measure(folder: Path, at_rest: bool | None, low_memory: bool) -> dict[str, float]:
    rng = np.random.default_rng(7)
    vectors = rng.normal(size=(STORED + TURNS, DIM)).astype("f4").tolist()
    texts = first(STORED + TURNS)
    documents = [
        DocumentInfo(str(n), text, embedding=vector)
        for n, (text, vector) in enumerate(zip(texts, vectors, strict=True))
    ]

    def client() -> MossClient:
        return MossClient(
            "bench",
            "key",
            store="memory://at-rest",
            data_dir=folder,
            low_memory=low_memory,
            at_rest=at_rest,
        )

    took = {}
    async with client() as one:
        session = await opened(one)
        started = time.perf_counter()
        await session.add_docs(documents[:STORED])
        took[f"load {STORED} at once"] = 1000 * (time.perf_counter() - started)
        took["add one"] = await each(
            [lambda d=d: session.add_docs([d]) for d in documents[STORED:]]  # type: ignore[misc]  # bound at once
        )
        options = [QueryOptions(embedding=vectors[n], top_k=10) for n in range(QUERIES)]
        await session.query(texts[0], options[0])
        took["query, texts and vectors"] = await each(
            [lambda n=n: session.query(texts[n], options[n]) for n in range(QUERIES)]  # type: ignore[misc]  # bound at once
        )
        await session.close()

        async def open_and_ask() -> None:
            async with await opened(one) as again:
                await again.query(texts[0], options[0])

        took["open and first query"] = await each([open_and_ask] * OPENINGS)
    took["bytes"] = sum(path.stat().st_size for path in folder.rglob("*.sqlite3"))
    return took


async def main() -> None:
    if not ciphers.available():
        raise SystemExit("the installed apsw has no ciphers: make bench-at-rest")
    for low_memory in (False, True):
        rounds: dict[str, dict[bool | None, list[float]]] = {}
        for at_rest in (None, True, True, None, None, True):
            with tempfile.TemporaryDirectory() as folder:
                for what, ms in (await measure(Path(folder), at_rest, low_memory)).items():
                    rounds.setdefault(what, {None: [], True: []})[at_rest].append(ms)
        print(f"\nlow_memory={low_memory}: median of three rounds, ms (bytes: bytes)")
        for what, taken in rounds.items():
            clear, sealed = statistics.median(taken[None]), statistics.median(taken[True])
            ratio = f"{sealed / clear:.2f} x"
            print(f"  {what:<26} clear {clear:>12.2f}  encrypted {sealed:>12.2f}  {ratio}")


if __name__ == "__main__":
    asyncio.run(main())
