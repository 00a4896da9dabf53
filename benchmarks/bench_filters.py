"""What a filter costs: a filtered query against the same query without one, in one process.

    python -m benchmarks.bench_filters [--documents 100000] [--rounds 60]

Texts are real chat messages (the extra `bench`), vectors are random, of 384 dimensions, and given
with the query, so that no embedding blurs the ratio; queries are `await session.query(...)` of two
words, blended, top 5 with documents. Every round asks each filter and no filter in another order;
a ratio is of medians over all rounds. Bounds of ranges and times are new at every round, as they
are where "the last hour" moves on, so that no outcome that was kept can help.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import texts
from moss_local import DocumentInfo, MossClient, QueryOptions, SessionIndex
from moss_local.search.columns import ResidentColumns
from moss_local.search.filter_sql import StoredColumns
from moss_local.search.filters import parse_filter
from moss_local.storage.state import read_state
from tests.keys import KEY

DIM = 384
BEGIN = datetime(2024, 1, 1, tzinfo=UTC)
SHARES = (0.001, 0.1, 0.9)

Make = Callable[[float, float], dict[str, Any]]
"""Makes a filter that lets a share of the documents through; the second number moves its bounds."""


def where(field: str, **operators: Any) -> dict[str, Any]:
    return {
        "field": field,
        "condition": {f"${name.rstrip('_')}": value for name, value in operators.items()},
    }


def moment(share: float) -> str:
    return (BEGIN + timedelta(days=365 * share)).isoformat()


FILTERS: dict[str, Make] = {
    "$eq, one of few values": lambda share, _: where("kind", eq=f"share {share}"),
    "$lt, all values differ": lambda share, move: where("number", gte=move, lt=share + move),
    "$within, all values differ": lambda share, move: where(
        "when", within=[moment(move), moment(share + move)]
    ),
    "$gte of strings": lambda share, move: where("when", gte=moment(1 - share + move)),
    "$contains, all values differ": lambda share, _: where("letters", contains=f"{share}"),
    "$and of three": lambda share, move: {
        "$and": [
            where("number", lt=share + move),
            where("kind", exists=True),
            {"$not": where("when", before=moment(0))},
        ]
    },
}


def documents(count: int, rng: np.random.Generator) -> list[DocumentInfo]:
    vectors = rng.standard_normal((count, DIM)).astype(np.float32)
    numbers = rng.random(count)
    kinds = np.full(count, "share 0.9", object)
    kinds[rng.random(count) < 0.1] = "share 0.1"
    kinds[rng.random(count) < 0.001] = "share 0.001"
    lower = rng.random(count)
    given = texts.first(count)
    return [
        DocumentInfo(
            f"turn-{n}",
            given[n],
            {
                "kind": kinds[n],
                "number": f"{numbers[n]:.9f}",
                "when": moment(float(numbers[n])),
                "letters": " ".join(f"{s}" for s in SHARES if lower[n] < s) + f" #{n}",
            },
            vectors[n],  # type: ignore[arg-type]  # a row is a sequence of floats
        )
        for n in range(count)
    ]


async def measure(session: SessionIndex, rounds: int, rng: np.random.Generator) -> None:
    asked: dict[str, tuple[float, Make | None]] = {"no filter": (1.0, None)}
    for name, make in FILTERS.items():
        for share in SHARES:
            asked[f"{name} {100 * share:g} %"] = (share, make)
    times: dict[str, list[float]] = {name: [] for name in asked}
    counts: dict[str, int] = {}
    for number in range(-3, rounds):  # three to warm up
        vector = rng.standard_normal(DIM).astype(np.float32).tolist()
        move = float(rng.random()) * 0.0005
        for name in rng.permutation(list(asked)):
            share, make = asked[name]
            options = QueryOptions(
                embedding=vector, filter=None if make is None else make(share, move)
            )
            start = time.perf_counter()
            found = await session.query("going home", options)
            if number >= 0:
                times[name].append((time.perf_counter() - start) * 1e3)
            counts[name] = len(found.docs)
    plain = statistics.median(times["no filter"])
    print(f"{'no filter':40} {plain:7.2f} ms")
    for name, own in times.items():
        median = statistics.median(own)
        if name != "no filter":
            print(f"{name:40} {median:7.2f} ms  {median / plain:5.2f} x  {counts[name]} found")


def alone(session: SessionIndex) -> None:
    """Print what columns cost by themselves: first use, memory, and the same in SQL."""
    print("\nwithout the query: first use of a field, again, in SQL; memory of its column")
    for field, filter in [
        ("kind", where("kind", eq="share 0.1")),
        ("number", where("number", lt=0.1)),
        ("when", where("when", before=moment(0.1))),
    ]:
        parsed = parse_filter(filter, now_ms=0)
        with session._file.reading() as conn:
            columns, stored = ResidentColumns(), StoredColumns()
            columns.follow(conn, read_state(conn))
            first = timed(lambda: columns.mask(conn, parsed))  # noqa: B023  # called at once
            again = timed(lambda: columns.mask(conn, parsed))  # noqa: B023  # the same
            in_sql = timed(lambda: stored.mask(conn, parsed))  # noqa: B023  # the same
            tracemalloc.start()
            columns = ResidentColumns()
            columns.follow(conn, read_state(conn))
            columns.mask(conn, parsed)
            size = tracemalloc.get_traced_memory()[0] / session.doc_count
            tracemalloc.stop()
        print(
            f"{field:10} {first:7.1f} ms {again:7.3f} ms {in_sql:7.1f} ms"
            f" {size:7.0f} bytes a document"
        )


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return (time.perf_counter() - start) * 1e3


async def run(count: int, rounds: int, directory: Path) -> None:
    rng = np.random.default_rng(1)
    client = MossClient("bench", KEY, store="memory://bench", data_dir=directory)
    async with client, await client.session("filters", "custom") as session:
        await session.add_docs(documents(count, rng))
        print(f"{count:,} documents, {rounds} rounds")
        await measure(session, rounds, rng)
        alone(session)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=60)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(run(options.documents, options.rounds, Path(directory)))


if __name__ == "__main__":
    main()
