"""A clock that a test owns: right, wrong, jumping or frozen, and with the chance of one seed."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from moss_sync.testing.loop import VirtualTime

EPOCH_MS = 1_700_000_000_000
"""When virtual time begins, in milliseconds since 1970: a day in November 2023."""


class VirtualClock:
    """A `moss_sync.clock.Clock` over a virtual time, for one device.

    Args:
        time: Shared by everything in one world.
        chance: Gives the source of all randomness; asked each time, so that a simulation can give
            every operation its own.
        skew_ms: What this device's wall clock is wrong by. Set it at any time.
    """

    def __init__(
        self,
        time: VirtualTime,
        chance: Callable[[], random.Random] | random.Random,
        *,
        skew_ms: int = 0,
    ) -> None:
        self.time = time
        self.skew_ms = skew_ms
        self.frozen_ms: int | None = None
        self._chance: Callable[[], random.Random] = (
            (lambda: chance) if isinstance(chance, random.Random) else chance
        )

    def wall_ms(self) -> int:
        """Return what this device believes the time is."""
        if self.frozen_ms is not None:
            return self.frozen_ms
        return max(0, EPOCH_MS + self.time.ms + self.skew_ms)

    def freeze(self) -> None:
        """Let the wall clock stand still from now on."""
        self.frozen_ms = self.wall_ms()

    def thaw(self) -> None:
        """Let the wall clock go again, from the world's time and `skew_ms`."""
        self.frozen_ms = None

    def monotonic(self) -> float:
        """Return the seconds of the virtual time."""
        return self.time.seconds

    async def sleep(self, seconds: float) -> None:
        """Wait in the running loop, which moves the virtual time if it is a `VirtualLoop`."""
        await asyncio.sleep(seconds)

    def token(self, size: int) -> bytes:
        """Return bytes that follow from the seed: fit for a test and nothing else."""
        return self._chance().randbytes(size)

    def uniform(self, low: float, high: float) -> float:
        """Return a number between `low` and `high`."""
        return self._chance().uniform(low, high)
