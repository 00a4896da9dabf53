"""The index API: 10 000 vectors created and loaded, refreshed under queries, 1 000 indexes listed.

    python -m benchmarks.bench_indexes [INDEXES]

The listing is of a real S3 server on this machine (seaweedfs), by a device that has none of them.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from moss_local import DocumentInfo, MossClient, QueryOptions
from tests.keys import KEY
from tests.seaweed import SeaweedServer

DOCUMENTS = 10_000
DIM = 384
REFRESHES = 20
AT_ONCE = 8


def documents(count: int, *, first: int = 0) -> list[DocumentInfo]:
    rng = np.random.default_rng(first)
    rows = rng.standard_normal((count, DIM)).astype(np.float32)
    return [
        DocumentInfo(f"d{first + n}", f"document number {first + n}", embedding=row.tolist())
        for n, row in enumerate(rows)
    ]


async def big(store: str, directory: Path) -> None:
    async with (
        MossClient("bench", KEY, store=store, data_dir=directory / "a") as writer,
        MossClient("bench", KEY, store=store, data_dir=directory / "b") as reader,
    ):
        given = documents(DOCUMENTS)
        started = time.perf_counter()
        await writer.create_index("big", given)
        print(f"create_index of {DOCUMENTS} given vectors: {time.perf_counter() - started:.2f} s")
        started = time.perf_counter()
        await reader.load_index("big")
        print(f"load_index on another device: {time.perf_counter() - started:.2f} s")
        options = QueryOptions(embedding=given[0].embedding)
        started = time.perf_counter()
        await reader.query("big", "document", options)
        print(f"first query: {(time.perf_counter() - started) * 1000:.1f} ms")
        taken: list[float] = []
        done = asyncio.Event()

        async def ask() -> None:
            while not done.is_set():
                begun = time.perf_counter()
                found = await reader.query("big", "document", options)
                taken.append((time.perf_counter() - begun) * 1000)
                assert len(found.docs) == 5
                await asyncio.sleep(0.001)

        asking = asyncio.ensure_future(ask())
        for number in range(REFRESHES):
            await writer.add_docs("big", documents(50, first=DOCUMENTS + 50 * number))
            await reader.load_index("big")
        done.set()
        await asking
        assert (await reader.get_index("big")).doc_count == DOCUMENTS + 50 * REFRESHES
        print(
            f"{REFRESHES} refreshes of 50 documents under {len(taken)} queries, none failed:"
            f" median {np.median(taken):.1f} ms, worst {max(taken):.0f} ms"
        )


async def many(store: str, directory: Path, count: int) -> None:
    async with MossClient("many", KEY, store=store, data_dir=directory / "c") as client:
        gate = asyncio.Semaphore(AT_ONCE)

        async def create(number: int) -> None:
            async with gate:
                await client.create_index(f"index {number:04}", documents(2, first=number))

        started = time.perf_counter()
        await create(0)
        await asyncio.gather(*[create(number) for number in range(1, count)])
        print(f"{count} indexes created: {time.perf_counter() - started:.0f} s")
    async with MossClient("many", KEY, store=store, data_dir=directory / "d") as other:
        for turn in ("first", "second"):
            started = time.perf_counter()
            found = await other.list_indexes()
            seconds = time.perf_counter() - started
            assert [each.doc_count for each in found] == [2] * count
            print(f"list_indexes of {count} in a bucket, {turn} time here: {seconds:.2f} s")


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    with SeaweedServer() as server, tempfile.TemporaryDirectory() as directory:
        os.environ.update(server.env)
        asyncio.run(big(server.url("bench", "big"), Path(directory)))
        asyncio.run(many(server.url("bench", "many"), Path(directory), count))


if __name__ == "__main__":
    main()
