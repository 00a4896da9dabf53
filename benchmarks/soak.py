"""Load: many sessions, many tasks, many processes, many documents, and that nothing leaks.

    make soak                     # everything, about two hours
    make soak ARGS="tasks --share 0.1"

Each scenario says what it did, its latencies (median, p95, worst), and what the process held
before and after (memory, descriptors, threads); it ends with 1 if something was lost, or held on
to. `--share` makes it smaller. Real messages of chitchat-dataset; vectors are random and given, so
that what is measured is the store and not the model. Linux, for /proc.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import itertools
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.texts import first
from moss_local import DocumentInfo, GetDocumentsOptions, MossClient, QueryOptions, SessionIndex

DIM = 64
BATCH = 5000
MB = 1024 * 1024

TEXTS = first(20_000)


@dataclass(frozen=True)
class Held:
    """What the process holds."""

    rss: int
    descriptors: int
    threads: int

    @classmethod
    def now(cls) -> Held:
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        files = len(list(Path("/proc/self/fd").iterdir()))
        return cls(pages * os.sysconf("SC_PAGE_SIZE"), files, threading.active_count())

    def __str__(self) -> str:
        return f"{self.rss // MB} MB, {self.descriptors} descriptors, {self.threads} threads"


class Latency:
    """Seconds that calls took, by what they were."""

    def __init__(self) -> None:
        self.taken: dict[str, list[float]] = {}

    async def of(self, what: str, call: Awaitable[object]) -> object:
        started = time.perf_counter()
        try:
            return await call
        finally:
            self.taken.setdefault(what, []).append(time.perf_counter() - started)

    def show(self) -> None:
        for what, seconds in sorted(self.taken.items()):
            ms = sorted(1000 * each for each in seconds)
            p50, p95 = ms[len(ms) // 2], ms[int(len(ms) * 0.95)]
            print(
                f"  {what:<10} {len(ms):>8} x  p50 {p50:.1f}  p95 {p95:.1f}  worst {ms[-1]:.0f} ms"
            )


def vectors(count: int, seed: int = 7) -> list[list[float]]:
    return np.random.default_rng(seed).normal(size=(count, DIM)).astype("f4").tolist()  # type: ignore[no-any-return]


VECTORS = vectors(256)


def document(id: str, n: int) -> DocumentInfo:
    return DocumentInfo(id, TEXTS[n % len(TEXTS)], {"n": str(n % 10)}, VECTORS[n % len(VECTORS)])


def asked(n: int) -> QueryOptions:
    return QueryOptions(embedding=VECTORS[n % len(VECTORS)], top_k=5)


@asynccontextmanager
async def client_at(folder: Path, device: str = "one") -> AsyncIterator[MossClient]:
    async with MossClient(
        "soak", "key", store=folder / "store", data_dir=folder / device
    ) as client:
        yield client


async def opened(client: MossClient, name: str = "s", *, pull: bool = False) -> SessionIndex:
    return await client.session(name, "custom", auto_load_on_init=pull, warm_up=False)


def require(true: bool, said: str) -> None:
    if not true:
        raise SystemExit(f"FAILED: {said}")


async def sessions(folder: Path, share: float) -> None:
    """1 000 sessions open in one process, used round and round."""
    count, rounds = max(10, int(1000 * share)), 4
    latency, before = Latency(), Held.now()
    async with client_at(folder) as client:
        held = [await latency.of("open", opened(client, f"s{n}")) for n in range(count)]
        every = [each for each in held if isinstance(each, SessionIndex)]
        steady: list[Held] = []
        for turn in range(rounds):
            for n, session in enumerate(every):
                await latency.of("add", session.add_docs([document(f"d{turn}", n + turn)]))
                await latency.of("query", session.query(TEXTS[n], asked(n)))
            steady.append(Held.now())
            print(f"  round {turn + 1}: {steady[-1]}")
        counts = [len(await session.get_docs()) for session in every]
        require(counts == [rounds] * count, "documents were lost")
        for session in every:
            await latency.of("close", session.close())
    after = Held.now()
    latency.show()
    print(f"  before {before}; after {after}")
    require(after.descriptors <= before.descriptors + 8, "descriptors stay open")
    require(after.threads <= before.threads + 12, "threads are left")
    require(steady[-1].rss < steady[0].rss * 1.3 + 30 * MB, "memory grows by the round")


async def tasks(folder: Path, share: float) -> None:
    """64 tasks on one session for two minutes: everybody gets on, nothing is lost."""
    seconds, count = max(5.0, 120 * share), 64
    latency, wrote = Latency(), [0] * count
    async with client_at(folder) as client:
        session = await opened(client)
        await session.add_docs([document(f"base{n}", n) for n in range(5000)])
        end = time.monotonic() + seconds
        steady: list[Held] = []

        async def work(task: int) -> None:
            rng = random.Random(task)
            while time.monotonic() < end:
                kind = rng.random()
                if kind < 0.3:
                    doc = document(f"t{task}-{wrote[task]}", rng.randrange(10_000))
                    await latency.of("add", session.add_docs([doc]))
                    wrote[task] += 1
                elif kind < 0.4:
                    ids = [f"base{rng.randrange(5000)}" for _ in range(5)]
                    await latency.of("get", session.get_docs(GetDocumentsOptions(ids)))
                else:
                    text = TEXTS[rng.randrange(len(TEXTS))]
                    await latency.of("query", session.query(text, asked(rng.randrange(256))))

        async def watch() -> None:
            while time.monotonic() < end:
                await asyncio.sleep(seconds / 6)
                steady.append(Held.now())

        await asyncio.gather(watch(), *(work(task) for task in range(count)))
        there = {each.id for each in await session.get_docs()}
        expected = {f"t{task}-{n}" for task in range(count) for n in range(wrote[task])}
        require(expected <= there, "acknowledged documents are not there")
        await session.close()
    latency.show()
    print(f"  {sum(wrote)} documents by {count} tasks, of each {min(wrote)} to {max(wrote)}")
    print(f"  {steady[0]}; at the end {steady[-1]}")
    require(min(wrote) > 0, "a task was starved")
    require(steady[-1].descriptors <= steady[0].descriptors + 16, "descriptors grow")
    require(steady[-1].threads <= steady[0].threads + 8, "threads grow")


WORKER_SECONDS = 600.0


async def worker(folder: Path, number: int, seconds: float) -> None:
    """One of the processes: prints what it has been told is written."""
    latency, end, steady = Latency(), time.monotonic() + seconds, []
    rng = random.Random(number)
    async with client_at(folder) as client:
        session = await opened(client)
        for n in itertools.count():
            if time.monotonic() >= end:
                break
            await latency.of("add", session.add_docs([document(f"w{number}-{n}", n)]))
            print(n, flush=True)
            for _ in range(3):
                text = TEXTS[rng.randrange(len(TEXTS))]
                await latency.of("query", session.query(text, asked(n)))
            if n % 200 == 50:
                steady.append(Held.now())
            await asyncio.sleep(0.05)
        await session.close()
    print("--", flush=True)
    latency.show()
    if steady:
        print(f"  {steady[0]}; at the end {steady[-1]}")
        require(steady[-1].descriptors <= steady[0].descriptors + 4, "descriptors grow")
        require(steady[-1].rss <= steady[0].rss * 1.5 + 60 * MB, "memory grows")


async def processes(folder: Path, share: float) -> None:
    """8 processes on one file for ten minutes, one of them killed every ten seconds."""
    seconds, count = max(15.0, WORKER_SECONDS * share), 8
    async with client_at(folder) as client:
        await (await opened(client)).close()
    command = [sys.executable, "-m", "benchmarks.soak", "--worker", str(folder)]
    workers = [
        subprocess.Popen([*command, str(n), str(seconds)], stdout=subprocess.PIPE, text=True)
        for n in range(count)
    ]
    killed, rng, end = [], random.Random(1), time.monotonic() + seconds
    told: dict[int, list[str]] = {n: [] for n in range(count)}

    def read(number: int, worker: subprocess.Popen[str]) -> None:
        assert worker.stdout is not None
        told[number] = worker.stdout.read().splitlines()

    readers: list[threading.Thread] = []
    started = list(enumerate(workers))

    def listen(number: int, worker: subprocess.Popen[str]) -> None:
        readers.append(threading.Thread(target=read, args=(number, worker)))
        readers[-1].start()

    for number, each in started:
        listen(number, each)
    alive = dict(started)
    while time.monotonic() < end - 12:
        await asyncio.sleep(10)
        number = rng.choice(sorted(alive))
        alive.pop(number).kill()
        killed.append(number)
        following = count + len(killed) - 1
        left = max(5.0, end - time.monotonic())
        alive[following] = subprocess.Popen(
            [*command, str(following), str(left)], stdout=subprocess.PIPE, text=True
        )
        told[following] = []
        listen(following, alive[following])
    for reader in readers:
        await asyncio.to_thread(reader.join)
    failed = [number for number, each in alive.items() if each.wait() != 0]
    acknowledged: set[str] = set()
    for number, lines in told.items():
        numbers = list(itertools.takewhile(str.isdigit, lines))
        acknowledged |= {f"w{number}-{n}" for n in numbers}
    async with client_at(folder) as client, await opened(client) as session:
        there = {each.id for each in await session.get_docs()}
    print(f"  {len(acknowledged)} acknowledged writes, {len(killed)} kills; {len(there)} are there")
    for number in sorted(alive)[:2]:
        print("\n".join(told[number][-5:]))
    require(not failed, f"workers ended with an error: {failed}")
    require(acknowledged <= there, f"{len(acknowledged - there)} acknowledged writes are lost")


async def round_of(client: MossClient, which: str, count: int, changed: int) -> None:
    started = time.monotonic()
    done = await client.sync_sessions(at_once=16)
    took = time.monotonic() - started
    print(f"  synced {len(done)} {which}: {took:.1f} s, {1000 * took / count:.2f} ms each")
    require(len(done) == count and not any(each.error for each in done), "sessions failed")
    moved = sum(each.report.sent + each.report.received > 0 for each in done)
    require(moved == changed, f"{moved} sessions had something, not {changed}")


async def project(folder: Path, share: float) -> None:
    """100 000 sessions in a project: made and pushed, listed, all synced here and elsewhere."""
    count, at_once = max(50, int(100_000 * share)), 16
    latency = Latency()

    async def each(work: Callable[[int], Awaitable[None]], numbers: Sequence[int]) -> float:
        started, left = time.monotonic(), iter(numbers)

        async def run() -> None:
            for n in left:
                await work(n)

        await asyncio.gather(*(run() for _ in range(at_once)))
        return time.monotonic() - started

    before = Held.now()
    async with client_at(folder) as client:

        async def make(n: int) -> None:
            async with await opened(client, f"customer {n}") as session:
                await session.add_docs([document("d", n)])
                await latency.of("push", session.push_index())

        took = await each(make, range(count))
        print(f"  made and pushed {count}: {took:.0f} s, {1000 * took / count:.1f} ms each")
        for turn in ("first", "again"):
            started = time.monotonic()
            listed = await client.stored_sessions()
            took = time.monotonic() - started
            print(f"  listed {len(listed.sessions)}, {turn}: {took:.1f} s")
            require(len(listed.sessions) == count, "sessions are not listed")
        started = time.monotonic()
        here = await client.local_sessions()
        print(f"  listed {len(here.sessions)} on the device: {time.monotonic() - started:.1f} s")
        require(len(here.sessions) == count, "sessions are not on the device")
        await round_of(client, "with nothing new", count, 0)
        some = random.Random(1).sample(range(count), max(50, count // 100))
        for n in some:
            async with await opened(client, f"customer {n}") as session:
                await session.add_docs([document("later", n)])
        await round_of(client, f"with {len(some)} to push", count, len(some))
    async with client_at(folder, "two") as client:
        await round_of(client, "by another device, from nothing", count, count)
        await round_of(client, "there again", count, 0)
        for n in some:
            async with await opened(client, f"customer {n}") as session:
                require(len(await session.get_docs()) == 2, f"customer {n} lacks a document")
    after = Held.now()
    latency.show()
    print(f"  before {before}; after {after}")
    require(after.descriptors <= before.descriptors + 8, "descriptors stay open")


async def load(session: SessionIndex, count: int) -> float:
    started, rng = time.monotonic(), np.random.default_rng(3)
    for at in range(0, count, BATCH):
        rows = rng.normal(size=(min(BATCH, count - at), DIM)).astype("f4").tolist()
        await session.add_docs(
            [
                DocumentInfo(str(at + n), TEXTS[(at + n) % len(TEXTS)], {"n": str(n % 10)}, row)
                for n, row in enumerate(rows)
            ]
        )
    return time.monotonic() - started


async def ask(session: SessionIndex, latency: Latency, times: int) -> None:
    for n in range(times):
        await latency.of("by vector", session.query("", asked(n)))
        await latency.of("blended", session.query(TEXTS[n * 7], asked(n)))


async def million(folder: Path, share: float) -> None:
    """One session of 1 000 000 documents with given vectors, on this device only."""
    count, latency = max(1000, int(1_000_000 * share)), Latency()
    async with client_at(folder) as client:
        async with await opened(client) as session:
            took = await load(session, count)
            print(f"  loaded {count}: {took:.0f} s, {count / took:.0f} documents/s; {Held.now()}")
        started = time.monotonic()
        async with await opened(client) as session:
            await session.query(TEXTS[0], asked(0))
            print(f"  opened, first query: {time.monotonic() - started:.1f} s; {Held.now()}")
            await ask(session, latency, 50)
            await latency.of("add one", session.add_docs([document("new", 1)]))
    size = sum(path.stat().st_size for path in folder.rglob("*.sqlite3"))
    latency.show()
    print(f"  file {size // MB} MB, {size // count} bytes a document; dim {DIM}")


async def synced(folder: Path, share: float) -> None:
    """One session of 200 000 documents, pushed, pulled elsewhere, and a turn in it exchanged."""
    count, latency = max(1000, int(200_000 * share)), Latency()
    async with client_at(folder) as one, client_at(folder, "two") as two:
        mine = await opened(one)
        print(f"  loaded {count}: {await load(mine, count):.0f} s")
        started = time.monotonic()
        await mine.push_index()
        print(f"  pushed: {time.monotonic() - started:.1f} s; {Held.now()}")
        started = time.monotonic()
        theirs = await opened(two, pull=True)
        print(f"  pulled elsewhere: {time.monotonic() - started:.1f} s; {Held.now()}")
        for n in range(30):
            await mine.add_docs([document(f"turn {n}", n)])
            await latency.of("push", mine.push_index())
            await latency.of("pull", theirs.pull())
        found = {each.id for each in await theirs.get_docs()}
        require(len(found) == count + 30, "the other device lacks documents")
        await ask(theirs, latency, 20)
        await mine.close()
        await theirs.close()
    size = sum(path.stat().st_size for path in (folder / "store").rglob("*") if path.is_file())
    latency.show()
    print(f"  store {size // MB} MB, {size // count} bytes a document")


SCENARIOS = {each.__name__: each for each in (sessions, tasks, processes, project, million, synced)}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("scenario", nargs="*", help=f"of {', '.join(SCENARIOS)}; none: all")
    parser.add_argument("--share", type=float, default=1.0, help="of the full size")
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        folder, number, seconds = given.worker
        asyncio.run(worker(Path(folder), int(number), float(seconds)))
        return
    for name in given.scenario or SCENARIOS:
        if name not in SCENARIOS:
            parser.error(f"there is no scenario {name!r}: {', '.join(SCENARIOS)}")
        print(f"{name}: {SCENARIOS[name].__doc__} (share {given.share:g})", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            asyncio.run(SCENARIOS[name](Path(folder), given.share))


if __name__ == "__main__":
    main()
