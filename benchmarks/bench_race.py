"""Fifty processes that push one turn each to one session at one moment, on a real S3 server.

    python -m benchmarks.bench_race [--processes 50] [--rounds 3]

Every process has its session open and its connections made before the gate opens. Beside it: the
same without adoption, and as many processes that replace one blob by bare compare-and-swaps, each
until it has won, with the same back-off: what the server alone allows. Times run from the gate; the
median of the rounds, and all of them. The processes share the machine's cores with the server.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import tempfile
from pathlib import Path
from typing import Any

from moss_sync.stores.url import open_store
from tests.processes.documents import text_of
from tests.processes.jobs import client_at
from tests.processes.nursery import Nursery
from tests.processes.racing import acquainted, race
from tests.seaweed import SeaweedServer

WAIT_S = 300.0


def took(results: list[dict[str, Any]], *, winners: bool = False) -> float:
    """Return seconds from the gate to the last success.

    Args:
        winners: To the last that won a compare-and-swap: then everybody is committed, and those
            that others have committed have yet to look.
    """
    ends = [r["ended"] for r in results if not winners or r["won"]]
    return float(max(ends) - min(r["begun"] for r in results))


def total(results: list[dict[str, Any]], what: str) -> int:
    return sum(result[what] for result in results)


def told(rounds: list[list[dict[str, Any]]], *, winners: bool = False) -> str:
    each = [took(results, winners=winners) for results in rounds]
    rest = ", ".join(f"{seconds:.1f}" for seconds in each)
    return f"{statistics.median(each):.1f} s (of {rest})"


def pushes(
    nursery: Nursery, folder: Path, url: str, processes: int, *, adopt: bool
) -> list[dict[str, Any]]:
    wheres = asyncio.run(acquainted(nursery, folder / "devices", url, "race", processes))
    results = race(
        nursery,
        folder / "race",
        "push_at_once",
        [
            {"where": where, "session": "race", "id": f"turn-{i}", "adopt": adopt}
            for i, where in enumerate(wheres)
        ],
        seconds=WAIT_S,
    )
    late = {**wheres[0], "data_dir": str(folder / "late")}
    for failed in (result for result in results if result["error"] is not None):
        print(f"FAILED {failed['id']}: {failed['error']}")
    asyncio.run(check(late, [result["id"] for result in results if result["error"] is None]))
    return results


async def check(where: dict[str, str], ids: list[str]) -> None:
    """Assert that a device that joins now has everything that was committed."""
    async with client_at(where) as client:
        index = await client.session("race", "custom")
        found = {known.id: known.text for known in await index.get_docs()}
    assert {id: found.get(id) for id in ids} == {id: text_of(id) for id in ids}


def swaps(nursery: Nursery, folder: Path, url: str, processes: int) -> list[dict[str, Any]]:
    folder.mkdir()
    asyncio.run(put(url, "one"))
    return race(
        nursery,
        folder / "race",
        "swap_at_once",
        [{"url": url, "key": "one"}] * processes,
        seconds=WAIT_S,
    )


async def put(url: str, key: str) -> None:
    store = open_store(url)
    await store.put(key, b"at first")
    await store.close()


def main() -> None:
    parser = argparse.ArgumentParser(description="fifty processes push at one moment")
    parser.add_argument("--processes", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    count: int = chosen.processes
    with tempfile.TemporaryDirectory() as name, SeaweedServer() as server:
        os.environ.update(server.env)
        place = Path(name)
        nursery = Nursery(place)
        print(f"| {count} processes on SeaweedFS | figure |\n|---|---|")
        for kind, adopt in (("pushes", True), ("pushes without adoption", False)):
            rounds = [
                pushes(
                    nursery,
                    place / f"{adopt}-{i}",
                    server.url("bench", f"{adopt}-{i}"),
                    count,
                    adopt=adopt,
                )
                for i in range(chosen.rounds)
            ]
            print(f"| {kind}: until all are committed | {told(rounds, winners=True)} |")
            print(f"| &nbsp;&nbsp;until all of them know | {told(rounds)} |")
            for what, of in (
                ("compare-and-swaps won, of those sent", ("won", "swaps")),
                ("listings", ("lists",)),
                ("committed by others", ("adopted",)),
                ("requests", ("requests",)),
            ):
                figures = [" of ".join(str(total(r, one)) for one in of) for r in rounds]
                print(f"| &nbsp;&nbsp;{what} | {', '.join(figures)} |")
            failed = sum(result["error"] is not None for r in rounds for result in r)
            print(f"| &nbsp;&nbsp;failures | {failed} of {count * len(rounds)} |", flush=True)
        raw = [
            swaps(nursery, place / f"raw-{i}", server.url("bench", f"raw-{i}"), count)
            for i in range(chosen.rounds)
        ]
        print(f"| bare compare-and-swaps: until all have won | {told(raw)} |")
        print(f"| &nbsp;&nbsp;sent | {', '.join(str(total(r, 'swaps')) for r in raw)} |")
        nursery.close()


if __name__ == "__main__":
    main()
