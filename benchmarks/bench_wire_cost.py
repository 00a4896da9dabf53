"""What one turn costs on the wire: requests and bytes of a push, an idle pull and a cold open.

    python -m benchmarks.bench_wire_cost [--turns 1000] [--entries 4 40] [--commits 300]
    python -m benchmarks.bench_wire_cost --manifest 10000

A session of so many turns, with vectors of 384 half floats, that lists so many segments after so
many commits; then one more turn is pushed. Random texts and vectors from one seed over a store in
memory: the figures are the same on any machine, to compare one version of the format with another.
With --manifest: how large the sealed manifest is after so many pushes of one turn each, without
vectors, by a device that tidies up after every push.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from moss_local.storage.documents import Document
from moss_local.storage.edits import put_documents
from moss_sync import SyncReport, VectorSpace
from moss_sync.stores import MemoryStore
from moss_sync.tiers import everything
from tests.devices import Device, QuickClock

SPACE = VectorSpace("moss-minilm", "bench", 384, "f2")
WORDS = [
    "the",
    "refund",
    "of",
    "that",
    "charge",
    "was",
    "sent",
    "on",
    "Monday",
    "and",
    "our",
    "customer",
    "says",
    "it",
    "has",
    "not",
    "come",
]


class World:
    """A store in memory and devices that write turns of one length."""

    def __init__(self, folder: Path) -> None:
        self.clock = QuickClock(start_ms=1_780_000_000_000)
        self.store = MemoryStore(time_ms=lambda: self.clock.now_ms)
        self.rng, self.random = np.random.default_rng(1), random.Random(1)
        self.folder, self.turns, self.devices = folder, 0, 0

    def device(self) -> Device:
        self.devices += 1
        path = self.folder / f"{self.devices}.sqlite3"
        return Device(path, self.store, clock=self.clock, space=SPACE)

    def write(self, device: Device, turns: int) -> None:
        documents = []
        for _ in range(turns):
            text = " ".join(self.random.choices(WORDS, k=20))
            vector = self.rng.standard_normal(SPACE.dim).astype(np.float32)
            documents.append(Document(f"turn-{self.turns:06}", text, vector=vector))
            self.turns += 1
        with device.file.writing() as conn:
            put_documents(conn, documents, space=SPACE, now_ms=self.clock.wall_ms())


def say(what: str, report: SyncReport) -> None:
    print(
        f"| {what} | {report.requests} requests, {report.bytes_sent:,} B sent, "
        f"{report.bytes_received:,} B received |",
        flush=True,
    )


async def measure(folder: Path, *, turns: int, entries: int, commits: int) -> None:
    world = World(folder)
    laptop, phone = world.device(), world.device()
    for _ in range(commits - entries):
        world.write(laptop, 1)
        await laptop.engine.push()
        await laptop.engine.compact()
    await laptop.engine.pull()
    await laptop.engine._compact(everything)
    left, pushes = turns - world.turns, entries - 1
    for number in range(pushes):
        world.write(laptop, left // pushes + (number < left % pushes))
        await laptop.engine.push()
    await phone.engine.pull()
    listed = await laptop.manifest()
    print(f"\n{world.turns} turns, {len(listed.entries)} entries, commit {listed.seq}\n")
    world.write(laptop, 1)
    say("push of one turn", await laptop.engine.push())
    say("pull of it", await phone.engine.pull())
    say("idle pull", await phone.engine.pull())
    fresh = world.device()
    say("cold open", await fresh.engine.pull())
    for device in (laptop, phone, fresh):
        device.close()


async def measure_manifest(folder: Path, pushes: int) -> None:
    world = World(folder)
    device = Device(folder / "one.sqlite3", world.store, clock=world.clock)
    for number in range(1, pushes + 1):
        device.put(f"turn-{number}", " ".join(world.random.choices(WORDS, k=20)))
        await device.engine.push()
        await device.engine.compact()
        if number in (100, 300, 1000, 3000, pushes):
            listed = await device.manifest()
            [sealed] = [
                data for key, (data, _) in world.store._content.blobs.items() if "/m/" in key
            ]
            print(
                f"| {number} pushes, commit {listed.seq} | {len(listed.entries)} entries, "
                f"{len(listed.inline)} inline pushes of {listed.inline_bytes:,} B | marks "
                f"{len(listed.marks):,} B | sealed {len(sealed):,} B |",
                flush=True,
            )
    device.close()


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_wire_cost")
    parser.add_argument("--turns", type=int, default=1000)
    parser.add_argument("--entries", type=int, nargs="+", default=[4, 40])
    parser.add_argument("--commits", type=int, default=300)
    parser.add_argument("--manifest", type=int, metavar="PUSHES")
    asked = parser.parse_args(argv)
    if asked.manifest:
        with tempfile.TemporaryDirectory() as folder:
            asyncio.run(measure_manifest(Path(folder), asked.manifest))
        return
    for entries in asked.entries:
        with tempfile.TemporaryDirectory() as folder:
            asyncio.run(
                measure(Path(folder), turns=asked.turns, entries=entries, commits=asked.commits)
            )


if __name__ == "__main__":
    main()
