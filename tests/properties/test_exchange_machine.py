"""The protocol as a state machine: whatever happens to whom in which order, nothing is lost.

Hypothesis chooses and shrinks what happens; the simulator (`make simulate`) has more kinds of
faults and far more schedules, but its traces are as long as they came. Real engine, real files, a
store in memory whose answers get lost and whose users die.
What holds at the end, once everybody has met: all devices and a fresh one hold the same; each
document is the greatest version that was ever written of it, unless its device set it aside; what
was deleted last stays away.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Awaitable
from contextlib import suppress
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from moss_sync import MossError, OutcomeUnknownError, Version
from moss_sync.floors import Policy
from moss_sync.repository import Repository
from moss_sync.times import DAY_MS, HOUR_MS
from tests.devices import PROJECT_KEY, Device, MemoryCache, run_here
from tests.moss_sync.world import Crash, World

POLICY = Policy(
    min_tombstones=0, small_session_entries=2, spill_bytes=2000, max_devices=2, max_crowd=3
)
DEVICES = 3

which = st.integers(0, DEVICES - 1)
ids = st.sampled_from("abc")
sizes = st.sampled_from([1, 1, 1, 9000])
moments = st.sampled_from(["before", "after"])


class Exchange(RuleBasedStateMachine):
    """Devices of one session, and everything that was ever written by any of them."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.world = World(Path(self.directory.name))
        self.cache = MemoryCache()
        self.written: dict[str, set[tuple[Version, str | None]]] = {}
        self.count = 0
        self.highest = (0, 0, 0, 0)

    def run(self, work: Awaitable[Any]) -> None:
        async def story() -> None:
            await work

        asyncio.run(story())

    def device(self) -> Device:
        # Each has a repository: whoever asks for a verdict on the store holds a lock meanwhile, and
        # another device's whole exchange may come in the middle of that request.
        repository = Repository(
            self.world.store,
            "project",
            PROJECT_KEY,
            cache=self.cache,
            clock=self.world.clock,
            run=run_here,
        )
        return self.world.device_here(policy=POLICY, repository=repository)

    @initialize()
    def start(self) -> None:
        self.devices = [self.device() for _ in range(DEVICES)]

    # -- what users do -------------------------------------------------------------------------

    @rule(device=which, id=ids, size=sizes)
    def put(self, device: int, id: str, size: int) -> None:
        self.count += 1
        self.devices[device].put(id, f"{self.count}" * size, vector=None)

    @rule(device=which, id=ids)
    def delete(self, device: int, id: str) -> None:
        self.devices[device].delete(id)

    @rule(device=which)
    def pull(self, device: int) -> None:
        self.run(self.devices[device].engine.pull())

    @rule(device=which)
    def push(self, device: int) -> None:
        self.run(self.devices[device].engine.push())

    @rule(device=which)
    def compact(self, device: int) -> None:
        self.run(self.devices[device].engine.compact())

    @rule(device=which)
    def collect(self, device: int) -> None:
        self.run(self.devices[device].engine.collect())

    @rule(ms=st.sampled_from([HOUR_MS, DAY_MS, 100 * DAY_MS]))
    def wait(self, ms: int) -> None:
        self.world.clock.now_ms += ms

    # -- what happens to them ------------------------------------------------------------------

    @rule(device=which, moment=moments, request=st.integers(0, 5), verb=st.sampled_from("pcs"))
    def die(self, device: int, moment: str, request: int, verb: str) -> None:
        """Cut an exchange off at one of its requests, and go on with the file that is left."""
        engine = self.devices[device].engine
        work = {"p": engine.pull, "c": engine.compact, "s": engine.sync}[verb]
        with suppress(Crash):
            self.disturbed(work(), moment, request, Crash())

    @rule(device=which, moment=moments, request=st.integers(0, 5))
    def lose_an_answer(self, device: int, moment: str, request: int) -> None:
        error = OutcomeUnknownError("lost")
        with suppress(MossError):
            self.disturbed(self.devices[device].engine.push(), moment, request, error)

    @precondition(lambda self: self.devices[0].replica.state().seen is not None)
    @rule(device=which, rival=which, request=st.integers(0, 5))
    def meet(self, device: int, rival: int, request: int) -> None:
        """Let another device push in the middle of an exchange."""
        if device == rival:
            return
        left = [request]

        async def meanwhile(verb: str, key: str) -> None:
            left[0] -= 1
            if left[0] == 0:
                self.world.store.before = None
                await self.devices[rival].engine.sync()

        self.world.store.before = meanwhile
        self.run(self.devices[device].engine.sync())
        self.world.store.before = None

    def disturbed(
        self, work: Awaitable[object], moment: str, request: int, error: BaseException
    ) -> None:
        left = [request]

        async def hook(verb: str, key: str) -> None:
            left[0] -= 1
            # Only a write has an unknown outcome; a read that is cut off is just asked again.
            if left[0] <= 0 and (isinstance(error, Crash) or verb == "swap"):
                setattr(self.world.store, moment, None)
                raise error

        setattr(self.world.store, moment, hook)
        try:
            self.run(work)
        finally:
            setattr(self.world.store, moment, None)

    # -- what holds ----------------------------------------------------------------------------

    @invariant()
    def nothing_listed_is_missing_and_nothing_falls(self) -> None:
        if not hasattr(self, "devices"):
            return
        for device in self.devices:
            self.note(device)
        key = [key for key in self.world.store.inner._content.blobs if "/m/" in key]
        if not key:
            return

        async def look() -> None:
            current = await self.devices[0].manifest()
            listed = {entry.name for entry in current.entries}
            assert listed <= self.world.blobs()
            now = (current.seq, current.gc_floor, current.tomb_seq, current.ct)
            assert all(new >= old for new, old in zip(now, self.highest, strict=True))
            assert current.gc_floor >= current.tomb_seq
            self.highest = now

        asyncio.run(look())

    def note(self, device: Device) -> None:
        """Remember every version that a device holds: that is all that was ever written."""
        with device.file.reading() as conn:
            rows = conn.execute("SELECT id, hlc, dev, digest, text, deleted FROM document")
            for id, hlc, dev, digest, text, deleted in rows:
                known = self.written.setdefault(id, set())
                known.add((Version(hlc, dev, digest), None if deleted else text))

    def teardown(self) -> None:
        try:
            if hasattr(self, "devices"):
                self.settle()
        finally:
            for device in self.world.devices:
                device.close()
            self.directory.cleanup()

    def settle(self) -> None:
        async def meet() -> None:
            for device in [*self.devices, *self.devices]:
                await device.engine.sync()
                self.note(device)
            fresh = self.device()
            await fresh.engine.pull()
            for device in self.devices:
                assert versions(device) == versions(fresh)
                assert device.replica.state().dirty == 0

        asyncio.run(meet())
        texts = self.devices[0].texts
        aside = {id for device in self.devices for id in quarantined(device)}
        for id, known in self.written.items():
            _, text = max(known, key=lambda item: item[0])
            assert texts.get(id) == text or id in aside


def versions(device: Device) -> dict[str, Version]:
    with device.file.reading() as conn:
        rows: Any = conn.execute("SELECT id, hlc, dev, digest FROM document WHERE deleted = 0")
        return {id: Version(hlc, dev, digest) for id, hlc, dev, digest in rows}


def quarantined(device: Device) -> list[str]:
    with device.file.reading() as conn:
        rows: Any = conn.execute("SELECT id FROM quarantine").fetchall()
        return [id for (id,) in rows]


TestExchange = Exchange.TestCase
TestExchange.settings = settings(
    max_examples=int(os.environ.get("EXAMPLES", "40")), stateful_step_count=40, deadline=None
)
