"""What one search costs, and what the shortlist misses, on 100 000 real messages.

    python -m benchmarks.bench_search [--sizes 1000 10000 100000]

Times are of `search`: a vector and a text in, five documents out, in one read transaction; then of
`session.query` as awaited. Every kind of query is asked in turn, round after round, so that
whatever else the machine does falls on all of them; an exact product of the same matrix in numpy is
asked in between as a yardstick. Recall compares with an exact scan, over 1 000 questions none of
which is among the documents; "blended" compares the whole order with the one without a shortlist.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from benchmarks.vectors import Corpus, corpus
from moss_local import DocumentInfo, MossClient, QueryOptions
from moss_local.search import shortlist
from moss_local.search.filters import parse_filter
from moss_local.search.query import search
from moss_local.storage.documents import Document
from moss_local.storage.edits import put_documents
from moss_local.storage.file import SessionFile, open_session_file
from moss_sync import VectorSpace
from tests.keys import KEY

SPACE = VectorSpace("moss-minilm", "bench", 384, "f2")
BATCH = 10_000
ROUNDS = 200
COMMON = "what is the status of the refund for my card"
DEPTH = 10
TENTH = parse_filter({"field": "tenth", "condition": {"$eq": "4"}}, now_ms=0)
FEW = parse_filter({"field": "thousandth", "condition": {"$eq": "4"}}, now_ms=0)


def resident_bytes() -> int:
    """Return the memory of this process that is in use."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def shown(samples: list[float]) -> str:
    p50, p95 = np.percentile(np.array(samples) * 1e3, [50, 95])
    return f"p50 {p50:7.3f} ms   p95 {p95:7.3f} ms"


def in_turn(work: Mapping[str, Callable[[int], object]], rounds: int) -> None:
    """Print what each costs, asked one after the other, round after round."""
    times: dict[str, list[float]] = {name: [] for name in work}
    for each in work.values():
        each(0)
    for round in range(rounds):
        for name, each in work.items():
            started = perf_counter()
            each(round)
            times[name].append(perf_counter() - started)
    for name, samples in times.items():
        print(f"  {name:34}{shown(samples)}", flush=True)


def filled(path: Path, data: Corpus, count: int) -> SessionFile:
    file = open_session_file(path, session=f"{count}")
    for first in range(0, count, BATCH):
        documents = [
            Document(
                f"turn-{i}",
                data.texts[i],
                {"tenth": f"{i % 10}", "thousandth": f"{i % 1000}"},
                vector=data.vectors[i],
            )
            for i in range(first, min(first + BATCH, count))
        ]
        with file.writing() as conn:
            put_documents(conn, documents, space=SPACE, now_ms=1_700_000_000_000)
    return file


def times(file: SessionFile, data: Corpus, count: int, rounds: int) -> None:
    matrix = np.ascontiguousarray(data.vectors[:count])

    def ask(**how: Any) -> Callable[[int], object]:
        def one(round: int) -> object:
            text = how.get("text", data.questions[round])
            vector = data.asked[round] if how.get("alpha") != 0.0 else None
            return search(file, **{**how, "text": text, "vector": vector})

        return one

    def add_and_ask(round: int) -> object:
        with file.writing() as conn:
            document = Document(f"new-{round}", data.questions[round], vector=data.asked[round])
            put_documents(conn, [document], space=SPACE, now_ms=1_700_000_000_000)
        started = perf_counter()
        search(file, text=data.questions[round], vector=data.asked[round])
        after.append(perf_counter() - started)
        return None

    after: list[float] = []
    kinds = {
        "numpy, exact product alone": lambda round: matrix @ data.asked[round],
        "vectors only": ask(alpha=1.0),
        "words only": ask(alpha=0.0),
        "blended": ask(),
        "blended, nine common words": ask(text=COMMON),
        "blended, a filter of 10 %": ask(filter=TENTH),
        "blended, a filter of 0.1 %": ask(filter=FEW),
    }
    in_turn(kinds, rounds)
    for round in range(min(rounds, 100)):
        add_and_ask(round)
    print(f"  {'blended, right after adding a turn':34}{shown(after)}")
    small = [_seconds(lambda i=i: ask(low_memory=True)(i)) for i in range(10)]
    print(f"  {'blended, low_memory':34}{shown(small)}")


def _seconds(work: Callable[[], object]) -> float:
    started = perf_counter()
    work()
    return perf_counter() - started


def recall(file: SessionFile, data: Corpus) -> None:
    questions = len(data.questions)

    def found(alpha: float, i: int) -> set[str]:
        hits = search(file, text=data.questions[i], vector=data.asked[i], alpha=alpha, top_k=DEPTH)
        return {hit.id for hit in hits}

    short = {alpha: [found(alpha, i) for i in range(questions)] for alpha in (1.0, 0.5)}
    usual, shortlist.SHORTLIST_FROM = shortlist.SHORTLIST_FROM, 1 << 60
    for alpha, name in ((1.0, "vectors only"), (0.5, "blended")):
        shares = [len(found(alpha, i) & short[alpha][i]) / DEPTH for i in range(questions)]
        print(f"  recall@{DEPTH}, {name:22}{np.mean(shares):.4f} over {questions} questions")
    shortlist.SHORTLIST_FROM = usual


async def awaited(folder: Path, data: Corpus, count: int, rounds: int) -> None:
    client = MossClient("bench", KEY, store="memory://b", data_dir=folder)
    session = await client.session(f"{count}", auto_load_on_init=False, warm_up=False)
    for first in range(0, count, BATCH):
        await session.add_docs(
            DocumentInfo(f"turn-{i}", data.texts[i], embedding=data.vectors[i])
            for i in range(first, min(first + BATCH, count))
        )

    async def timed(work: Callable[[int], Awaitable[object]]) -> list[float]:
        samples = []
        for round in range(rounds + 1):
            started = perf_counter()
            await work(round)
            samples.append(perf_counter() - started)
        return samples[1:]

    given = await timed(
        lambda i: session.query(data.questions[i], QueryOptions(embedding=data.asked[i]))
    )
    print(f"  {'session.query, vector given':34}{shown(given)}")
    text = await timed(lambda i: session.query(data.questions[i]))
    print(f"  {'session.query, text':34}{shown(text)}", flush=True)
    await client.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--no-recall", action="store_true")
    chosen = parser.parse_args()
    data = corpus()
    for count in chosen.sizes:
        print(f"{count:,} documents")
        with tempfile.TemporaryDirectory() as name:
            file = filled(Path(name) / "s.sqlite3", data, count)
            before = resident_bytes()
            started = perf_counter()
            search(file, text=COMMON, vector=data.asked[0])
            first = perf_counter() - started
            held = (resident_bytes() - before) / count
            print(f"  {'first query (fills the memory)':34}    {first * 1e3:7.1f} ms")
            print(f"  {'memory':34}    {held:7.0f} bytes a document", flush=True)
            if not chosen.no_recall:
                recall(file, data)
            times(file, data, count, chosen.rounds)
            file.close()
        with tempfile.TemporaryDirectory() as name:
            asyncio.run(awaited(Path(name), data, count, chosen.rounds))


if __name__ == "__main__":
    main()
