"""Any mix of edits, deletions, purges, rollbacks and repairs: what is deleted stays so, and no edit
is lost.

Each schedule follows from its seed. In the end the store is honest, everybody exchanges, and who is
refused repairs, as the error says.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from moss_sync import HistoryError, ManifestMissingError, MossError
from tests.devices import Device
from tests.moss_sync.test_forgetting import QUICK, hours, settle_down
from tests.moss_sync.test_repair import State, aside, put_back, put_back_beside, stored
from tests.moss_sync.world import World, noise

SEEDS = 24
STEPS = 45


@dataclass
class Schedule:
    """One run.

    Attributes:
        put: Every id that was written; none is written twice.
        deleted: Those that a device has deleted.
        states: Older states of the store that may come back.
    """

    world: World
    chance: random.Random
    devices: list[Device]
    put: set[str] = field(default_factory=set)
    deleted: set[str] = field(default_factory=set)
    states: list[State] = field(default_factory=list)

    @property
    def some(self) -> Device:
        return self.chance.choice(self.devices)

    async def write(self) -> None:
        id = f"doc-{len(self.put)}"
        self.put.add(id)
        self.some.put(id, noise(len(self.put), self.chance.choice([20, 5000])))

    async def delete(self) -> None:
        device = self.some
        for id in self.chance.sample(sorted(device.texts), k=min(3, len(device.texts))):
            device.delete(id)
            self.deleted.add(id)

    async def exchange(self) -> None:
        with suppress(HistoryError, ManifestMissingError):
            await self.some.engine.sync()

    async def tidy(self) -> None:
        """Let a day pass, so that deletions everybody has applied may be forgotten, and merge."""
        hours(self.world, 26)
        device = self.some
        with suppress(HistoryError, ManifestMissingError):
            await device.engine.sync()
            await settle_down(device)

    async def pass_long(self) -> None:
        """Nobody waits for a device that was silent so long."""
        hours(self.world, 24 * 91)
        await self.tidy()

    async def remember(self) -> None:
        self.states.append(stored(self.world))

    async def roll_back(self) -> None:
        if self.states:
            self.chance.choice([put_back, put_back_beside])(
                self.world, self.chance.choice(self.states)
            )

    async def repair(self) -> None:
        with suppress(MossError):
            await self.some.engine.repair(force=self.chance.random() < 0.5)

    async def settle(self) -> None:
        for _ in range(6):
            for device in self.devices:
                try:
                    await device.engine.sync()
                except (HistoryError, ManifestMissingError):
                    await device.engine.repair()

    def check(self) -> None:
        shown = [set(device.texts) for device in self.devices]
        assert all(each == shown[0] for each in shown), "they differ"
        assert not shown[0] & self.deleted, "came back"
        kept = shown[0].union(*(aside(device) for device in self.devices))
        assert kept >= self.put - self.deleted, "lost"


STEPS_AND_WEIGHTS: tuple[tuple[Callable[[Schedule], Awaitable[None]], int], ...] = (
    (Schedule.write, 8),
    (Schedule.delete, 4),
    (Schedule.exchange, 12),
    (Schedule.tidy, 3),
    (Schedule.pass_long, 1),
    (Schedule.remember, 3),
    (Schedule.roll_back, 2),
    (Schedule.repair, 2),
)


async def played(seed: int, directory: Path) -> Schedule:
    world, chance = World(directory), random.Random(seed)
    policy = replace(QUICK, min_tombstones=0)
    devices = [world.device_here(policy=policy) for _ in range(3)]
    schedule = Schedule(world, chance, devices)
    try:
        devices[0].put("first", "text")
        schedule.put.add("first")
        for device in devices:
            await device.engine.sync()
        steps, weights = zip(*STEPS_AND_WEIGHTS, strict=True)
        for step in chance.choices(steps, weights, k=STEPS):
            await step(schedule)
        await schedule.settle()
        schedule.check()
        fresh = world.device_here(policy=policy)
        await fresh.engine.pull()
        assert set(fresh.texts) == set(devices[0].texts)
    finally:
        for device in world.devices:
            device.close()
    return schedule


@pytest.mark.parametrize("seed", range(SEEDS))
def test_what_is_deleted_stays_so_and_no_edit_is_lost(seed: int, tmp_path: Path) -> None:
    asyncio.run(played(seed, tmp_path))
