"""What a session costs, as users call it: open, add, query, push, pull, on disk and on the wire.

Run it with `python -m benchmarks.bench_session`; SeaweedFS is started for the S3 figures. Times are
medians (and 95th percentiles) of one run on one machine; requests and bytes do not depend on it.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable
from itertools import count
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks.texts import first
from moss_local import DocumentInfo, MossClient, QueryOptions, SessionIndex
from moss_local.embedding.models import open_embedder, resolve_model
from tests.keys import KEY
from tests.seaweed import SeaweedServer

rows: list[tuple[str, str]] = []


def say(what: str, figure: str) -> None:
    rows.append((what, figure))
    print(f"| {what} | {figure} |", flush=True)


def ms(samples: list[float]) -> str:
    ordered = sorted(samples)
    p95 = ordered[min(len(ordered) - 1, round(0.95 * len(ordered)))]
    return f"p50 {statistics.median(ordered):.2f} ms, p95 {p95:.2f} ms"


async def timed(times: int, work: Callable[[], Awaitable[Any]]) -> list[float]:
    samples = []
    for _ in range(times):
        started = perf_counter()
        await work()
        samples.append((perf_counter() - started) * 1000)
    return samples


def documents(texts: list[str], start: int = 0) -> list[DocumentInfo]:
    return [DocumentInfo(f"turn-{start + i:06}", text) for i, text in enumerate(texts)]


def client(place: Path, store: str) -> MossClient:
    return MossClient("bench", KEY, store=store, data_dir=place)


def import_time() -> None:
    def wall(program: str) -> float:
        samples = []
        for _ in range(11):
            started = perf_counter()
            subprocess.run([sys.executable, "-c", program], check=True)
            samples.append((perf_counter() - started) * 1000)
        return statistics.median(samples)

    base, ours = wall("import asyncio"), wall("import asyncio, moss_local")
    say("import moss_local, above import asyncio", f"{ours - base:.0f} ms (median of 11)")


def demo_time() -> None:
    program = Path(sys.executable).parent / "moss-local"
    started = perf_counter()
    subprocess.run([str(program), "demo"], check=True, stdout=subprocess.DEVNULL)
    say("`moss-local demo`, after set-up", f"{perf_counter() - started:.1f} s wall")


async def local(place: Path, texts: list[str]) -> None:
    here = client(place, f"memory://{place.name}")
    session = await here.session("one-turn")
    await session.add_docs(documents(texts[:1]))
    await session.close()
    size = sum(path.stat().st_size for path in place.rglob("*.sqlite3*") if path.is_file())
    say("a session of one turn on disk, closed", f"{size / 1000:.0f} KB")

    vectors = open_embedder(resolve_model("moss-minilm"))
    for size in (100, 1000, 10_000):
        session = await here.session(f"size-{size}")
        await session.add_docs(documents(texts[:size]))
        queries = iter(texts[20_000:])
        await session.query("warm up")

        async def ask(session: SessionIndex = session, queries: Any = queries) -> None:
            await session.query(next(queries))

        whole = await timed(300, ask)
        given = [vectors.embed([text])[0] for text in texts[30_000:30_300]]
        embeds = iter(texts[31_000:])

        async def embed(embeds: Any = embeds) -> None:
            await asyncio.to_thread(vectors.embed, [next(embeds)])

        alone = await timed(300, embed)
        pairs = iter(zip(texts[30_000:], given, strict=False))

        async def ask_given(session: SessionIndex = session, pairs: Any = pairs) -> None:
            text, vector = next(pairs)
            await session.query(text, QueryOptions(embedding=vector))

        rest = await timed(300, ask_given)
        say(f"text query, {size} documents, blended, top 5, awaited", ms(whole))
        say("&nbsp;&nbsp;of which embedding (in a thread)", ms(alone))
        say("&nbsp;&nbsp;of which the rest (query with the vector given)", ms(rest))
        await session.close()

    number = count()
    session = await here.session("size-1000")

    async def add() -> None:
        await session.add_docs([DocumentInfo(f"new-{next(number)}", texts[next(number)])])

    say("add_docs of one turn, durable, with embedding", ms(await timed(200, add)))
    vector = vectors.embed(["some text"])[0]

    async def add_given() -> None:
        place = next(number)
        await session.add_docs([DocumentInfo(f"new-{place}", texts[place], embedding=vector)])

    say("add_docs of one turn, durable, vector given", ms(await timed(200, add_given)))
    bulk = await here.session("bulk")
    many = vectors.embed(texts[:10_000])
    batch = [
        DocumentInfo(f"turn-{i}", text, embedding=vector)
        for i, (text, vector) in enumerate(zip(texts, many, strict=False))
    ]
    started = perf_counter()
    await bulk.add_docs(batch)
    say(
        "add_docs of 10 000 given vectors",
        f"{10_000 / (perf_counter() - started):,.0f} documents/s",
    )
    await session.close()
    await bulk.close()

    async def reopen() -> None:
        opened = await here.session("size-1000", auto_load_on_init=False)
        await opened.close()

    say("open an existing session of 1 000 (warm process, no pull)", ms(await timed(30, reopen)))
    await here.close()


def cost(report: Any) -> str:
    return (
        f"{report.requests} requests, {report.bytes_sent:,} B sent, "
        f"{report.bytes_received:,} B received, {report.elapsed_ms:.0f} ms"
    )


async def exchange(place: Path, store: str, kind: str, texts: list[str]) -> None:
    a, b = client(place / "a", store), client(place / "b", store)
    session = await a.session("conversation", auto_load_on_init=False)
    await session.add_docs(documents(texts[:1000]))
    pushed = (await session.push_index()).report
    say(f"{kind}: first attach and push of 1 000", cost(pushed))
    await asyncio.sleep(1)
    await session.add_docs(documents(texts[1000:1001], start=1000))
    say(f"{kind}: push of one new turn into 1 001", cost((await session.push_index()).report))
    say(f"{kind}: pull, nothing new", cost(await session.pull()))
    other = await b.session("conversation", auto_load_on_init=False)
    cold = await other.pull()
    per = cold.bytes_received / other.doc_count
    say(f"{kind}: cold open of 1 001 pushed at once", f"{cost(cold)}, {per:.0f} B a document")
    turns = await a.session("turn-by-turn", auto_load_on_init=False)
    started = perf_counter()
    for number in range(1000):
        await turns.add_docs(documents(texts[number : number + 1], start=number))
        await turns.push_index()
    spent = perf_counter() - started
    say(f"{kind}: 1 000 turns added and pushed one by one", f"{spent:.0f} s")
    await turns.close()
    cold_turns = await b.session("turn-by-turn", auto_load_on_init=False)
    report = await cold_turns.pull()
    per = report.bytes_received / cold_turns.doc_count
    say(f"{kind}: cold open of 1 000 pushed one by one", f"{cost(report)}, {per:.0f} B a document")
    await a.close()
    await b.close()


def main() -> None:
    texts = first(60_000)
    print("| what | figure |\n|---|---|")
    import_time()
    demo_time()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        asyncio.run(local(place / "local", texts))
        asyncio.run(exchange(place / "f", str(place / "store"), "folder", texts))
        with SeaweedServer() as server:
            os.environ.update(server.env)
            asyncio.run(exchange(place / "s", server.url("test", "bench"), "S3", texts))


if __name__ == "__main__":
    main()
