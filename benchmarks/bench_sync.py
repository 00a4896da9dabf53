"""What the exchange costs as a session grows and ages: requests, bytes, blobs, round trips.

    python -m benchmarks.bench_sync [--turns 10000] [--sizes 100 10000 100000]

Real messages with random vectors of 384 half floats, in real session files, over a store in memory
with a virtual clock: the days that collection and purge wait for pass at once. Requests, bytes and
blobs are the same on any machine and any store; times are this machine's, and say what they
include. The cold open is repeated on SeaweedFS with the very blobs that had come about.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import statistics
import tempfile
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from time import perf_counter

import numpy as np

from benchmarks.texts import first
from moss_local.storage.documents import Document
from moss_local.storage.edits import put_documents
from moss_sync import SyncReport, VectorSpace
from moss_sync.stores import MemoryStore
from moss_sync.stores.base import Blob, BlobStore, Conflict, ETag, Listed, NotModified, Swapped
from moss_sync.stores.url import open_store
from moss_sync.times import DAY_MS, HOUR_MS, MINUTE_MS
from tests.devices import Device, QuickClock
from tests.seaweed import SeaweedServer

SPACE = VectorSpace("moss-minilm", "bench", 384, "f2")
START_MS = 1_780_000_000_000


def say(what: str, figure: str) -> None:
    print(f"| {what} | {figure} |", flush=True)


def cost(report: SyncReport) -> str:
    return (
        f"{report.requests} requests, {report.bytes_sent:,} B sent, "
        f"{report.bytes_received:,} B received"
    )


class World:
    """A store in memory, one clock for all, and devices with numbered turns to write."""

    def __init__(self, folder: Path, texts: Sequence[str]) -> None:
        self.clock = QuickClock(start_ms=START_MS)
        self.store = MemoryStore(time_ms=lambda: self.clock.now_ms)
        self.rng = np.random.default_rng(1)
        self._folder, self._texts = folder, texts
        self._turns, self._devices = count(), count()

    def device(self, store: BlobStore | None = None) -> Device:
        path = self._folder / f"{next(self._devices)}.sqlite3"
        return Device(path, store or self.store, clock=self.clock, space=SPACE)

    def write(self, device: Device, turns: int = 1) -> list[str]:
        """Add turns to a device; return their ids."""
        numbers = [next(self._turns) for _ in range(turns)]
        vectors = self.rng.standard_normal((turns, SPACE.dim)).astype(np.float32)
        documents = [
            Document(f"turn-{n:06}", self._texts[n % len(self._texts)], vector=vector)
            for n, vector in zip(numbers, vectors, strict=True)
        ]
        with device.file.writing() as conn:
            put_documents(conn, documents, space=SPACE, now_ms=self.clock.wall_ms())
        return [document.id for document in documents]

    def pass_ms(self, milliseconds: int) -> None:
        self.clock.now_ms += milliseconds

    @property
    def blobs(self) -> dict[str, int]:
        """The size of every blob that the store holds."""
        return {key: len(data) for key, (data, _) in self.store._content.blobs.items()}

    @property
    def manifest_bytes(self) -> int:
        return next(size for key, size in self.blobs.items() if "/m/" in key)


async def tidy(device: Device) -> None:
    """What an open session does in the background after a push."""
    while await device.engine.compact():
        pass


async def one_turn_into(folder: Path, texts: Sequence[str], size: int) -> None:
    world = World(folder, texts)
    one, two = world.device(), world.device()
    for begin in range(0, size, 10_000):
        world.write(one, min(10_000, size - begin))
    await one.engine.push()
    await tidy(one)
    await two.engine.pull()
    world.write(two)
    await two.engine.push()  # its first: it looks the probe's verdict up
    await one.engine.pull()
    world.write(one)
    started = perf_counter()
    report = await one.engine.push()
    spent = (perf_counter() - started) * 1000
    say(f"push of one turn into {size:,}", f"{cost(report)}, {spent:.0f} ms without a network")
    world.write(two)
    say(f"&nbsp;&nbsp;after another device has pushed ({size:,})", cost(await two.engine.push()))
    say(f"&nbsp;&nbsp;pull of one turn ({size:,})", cost(await one.engine.pull()))
    one.close()
    two.close()


async def long_life(folder: Path, texts: Sequence[str], turns: int) -> World:
    """Five devices take turns at random, one a minute: about a week."""
    world = World(folder, texts)
    devices = [world.device() for _ in range(5)]
    chance = random.Random(1)
    sent, requests, peak_blobs, peak_manifest, sizes = 0, 0, 0, 0, []
    started = perf_counter()
    for turn in range(turns):
        device = chance.choice(devices)
        world.pass_ms(MINUTE_MS)
        await device.engine.pull()
        world.write(device)
        report = await device.engine.push()
        sent, requests = sent + report.bytes_sent, requests + report.requests
        await tidy(device)
        if turn % 10 == 0:
            peak_blobs = max(peak_blobs, len(world.blobs))
            sizes.append(world.manifest_bytes)
            peak_manifest = max(peak_manifest, sizes[-1])
    spent = perf_counter() - started
    say(f"{turns:,} one-turn pushes by 5 devices: requests a push", f"{requests / turns:.2f}")
    say("&nbsp;&nbsp;bytes sent a push", f"{sent / turns:,.0f}")
    say("&nbsp;&nbsp;pull, add, push and compaction, one turn", f"{spent / turns * 1000:.0f} ms")
    say("&nbsp;&nbsp;blobs in the store, most at any time", f"{peak_blobs}")
    say(
        "&nbsp;&nbsp;manifest, median and most",
        f"{statistics.median(sizes):,.0f} B, {peak_manifest:,} B",
    )
    state(world, "at the end")
    for _ in range(2):  # the first raises the floor, the second finds what lies below it
        world.pass_ms(2 * HOUR_MS)
        world.write(devices[0])
        await devices[0].engine.sync()
        await tidy(devices[0])
        await devices[0].engine.collect()
    state(world, "some hours later")
    await same_everywhere(world, devices)
    for device in devices:
        device.close()
    return world


def state(world: World, when: str) -> None:
    blobs = world.blobs
    kinds = {kind: sum(f"/{kind}/" in key for key in blobs) for kind in "sb"}
    say(
        f"&nbsp;&nbsp;{when}",
        f"{len(blobs)} blobs ({kinds['s']} pushed, {kinds['b']} merged), "
        f"{sum(blobs.values()):,} B; manifest {world.manifest_bytes:,} B",
    )


async def same_everywhere(world: World, devices: Sequence[Device]) -> None:
    fresh = world.device()
    await fresh.engine.pull()
    for device in devices:
        await device.engine.pull()
        assert device.texts == fresh.texts
    fresh.close()


class Distant:
    """A store some way off, which counts how often somebody waits for it with nothing on its way.

    Requests that are under way together are one round trip.
    """

    def __init__(self, inner: BlobStore, seconds: float) -> None:
        self.inner, self.seconds = inner, seconds
        self.round_trips = self._under_way = 0

    @property
    def url(self) -> str:
        return self.inner.url

    async def _travel(self) -> None:
        self.round_trips += self._under_way == 0
        self._under_way += 1
        await asyncio.sleep(self.seconds)
        self._under_way -= 1

    async def get(self, key: str, *, if_none_match: ETag | None = None) -> Blob | NotModified:
        await self._travel()
        return await self.inner.get(key, if_none_match=if_none_match)

    async def put(self, key: str, data: bytes) -> int | None:
        await self._travel()
        return await self.inner.put(key, data)

    async def compare_and_swap(
        self, key: str, data: bytes, *, etag: ETag | None
    ) -> Swapped | Conflict:
        await self._travel()
        return await self.inner.compare_and_swap(key, data, etag=etag)

    async def keys(
        self, prefix: str, *, start_after: str = "", limit: int = 1000
    ) -> Sequence[Listed]:
        await self._travel()
        return await self.inner.keys(prefix, start_after=start_after, limit=limit)

    async def delete(self, key: str) -> None:
        await self._travel()
        await self.inner.delete(key)

    async def close(self) -> None:
        await self.inner.close()


async def cold_open(world: World) -> None:
    distant = Distant(world.store, 0.05)
    fresh = world.device(distant)
    started = perf_counter()
    report = await fresh.engine.pull()
    spent = (perf_counter() - started) * 1000
    say("cold open after that", f"{cost(report)}, {distant.round_trips} round trips")
    say("&nbsp;&nbsp;with 50 ms a round trip", f"{spent:.0f} ms, {len(fresh.texts):,} documents")
    fresh.close()


async def cold_open_of_a_bucket(world: World, server: SeaweedServer) -> None:
    os.environ.update(server.env)
    url = server.url("bench", "cold")
    bucket = open_store(url)
    for key, (data, _) in world.store._content.blobs.items():
        await bucket.put(key, data)
    await bucket.close()
    samples = []
    for _ in range(5):
        store = open_store(url)
        fresh = world.device(store)
        started = perf_counter()
        report = await fresh.engine.pull()
        samples.append((perf_counter() - started) * 1000)
        fresh.close()
        await store.close()
    say(
        "&nbsp;&nbsp;from SeaweedFS on loopback, the key's derivation and the client's start in it",
        f"{statistics.median(samples):.0f} ms (median of 5), {report.requests} requests",
    )


async def back_after_a_purge(folder: Path, texts: Sequence[str]) -> None:
    """A device is away for 100 days; 1 001 of 3 000 documents are deleted, and forgotten.

    1 001 is the least that is purged: up to 1 000 tombstones are kept for ever.
    """
    world = World(folder, texts)
    home, away = world.device(), world.device()
    ids = world.write(home, 3_000)
    await home.engine.push()
    await tidy(home)
    await away.engine.pull()
    unpushed = world.write(away, 1)
    edited, gone = ids[0], ids[:1001]
    with away.file.writing() as conn:
        vector = np.ones(SPACE.dim, np.float32)
        document = Document(edited, "edited while away", vector=vector)
        put_documents(conn, [document], space=SPACE, now_ms=world.clock.wall_ms())
    home.delete(*gone)
    await home.engine.push()
    for _ in range(100):
        world.pass_ms(DAY_MS)
        world.write(home)
        await home.engine.push()
        await tidy(home)
    manifest = await home.manifest()
    tombs = sum(entry.tombs or 0 for entry in manifest.entries)
    assert manifest.tomb_seq > 0, "nothing was purged"
    say("tombstones after 1 001 deletions and 100 days", f"{tombs}")
    started = perf_counter()
    report = await away.engine.sync()
    spent = (perf_counter() - started) * 1000
    await home.engine.pull()
    risen = set(gone[1:]) & set(home.texts) | set(gone[1:]) & set(away.texts)
    assert home.texts == away.texts
    assert {edited, *unpushed} <= set(home.texts)
    say(
        "a device back after that",
        f"{spent:.0f} ms, {cost(report)}; {len(risen)} resurrected, "
        f"{report.reasserted} of its 2 unpushed edits stamped anew, both kept",
    )
    home.close()
    away.close()


def main() -> None:
    parser = argparse.ArgumentParser(description="what the exchange costs as a session grows")
    parser.add_argument("--turns", type=int, default=10_000)
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 10_000, 100_000])
    chosen = parser.parse_args()
    texts = first(20_000)
    print("| what | figure |\n|---|---|")
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        for part in ("purge", "life", *map(str, chosen.sizes)):
            (place / part).mkdir()
        for size in chosen.sizes:
            asyncio.run(one_turn_into(place / f"{size}", texts, size))
        asyncio.run(back_after_a_purge(place / "purge", texts))
        world = asyncio.run(long_life(place / "life", texts, chosen.turns))
        asyncio.run(cold_open(world))
        with SeaweedServer() as server:
            asyncio.run(cold_open_of_a_bucket(world, server))


if __name__ == "__main__":
    main()
