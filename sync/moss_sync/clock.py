"""The outside world that the protocol needs besides its store: time, waiting and chance.

Everything that reads a clock or makes randomness stands behind this one Protocol, so that one
seed can give all of it in a simulation. The pure modules get times and bytes as arguments.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from typing import Protocol


class Clock(Protocol):
    """Time and chance as the engine sees them."""

    def wall_ms(self) -> int:
        """Return milliseconds since 1970 as this machine believes; may jump either way."""
        ...

    def monotonic(self) -> float:
        """Return seconds from some fixed moment; never goes back."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait at least `seconds`."""
        ...

    def token(self, size: int) -> bytes:
        """Return `size` bytes fit for keys, salts and names that must never repeat."""
        ...

    def uniform(self, low: float, high: float) -> float:
        """Return a number between `low` and `high`, for the spread of retries."""
        ...


class SystemClock:
    """The machine's own clock and the operating system's randomness."""

    def wall_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def token(self, size: int) -> bytes:
        return secrets.token_bytes(size)

    def uniform(self, low: float, high: float) -> float:
        return random.uniform(low, high)


OFFSET_SAMPLES = 5

RESOLUTION_MS = 1000
"""Of a `Date` header."""


class StoreClock:
    """This machine's clock, corrected by what the store's answers say.

    The offset is the median of the last five answers, so one delayed answer moves nothing.

    Attributes:
        heard: Whether there was an answer yet that could tell the time.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._offsets: list[int] = []
        self.heard = False

    @property
    def offset_ms(self) -> int:
        """Store time minus local time; 0 before the first answer."""
        if not self._offsets:
            return 0
        return sorted(self._offsets)[len(self._offsets) // 2]

    def observe(self, time_ms: int | None) -> None:
        """Take in what an answer says; None from a store that has no clock."""
        self.heard = True
        if time_ms is not None:
            self._offsets.append(_least_offset(time_ms - self._clock.wall_ms()))
            del self._offsets[:-OFFSET_SAMPLES]

    def now_ms(self) -> int:
        return self._clock.wall_ms() + self.offset_ms


def _least_offset(behind_ms: int) -> int:
    """Return the smallest correction that agrees with an answer.

    Servers tell whole seconds, rounded down. A clock that is right within that second is left as it
    is: to follow the rounding would put the writes of those who are online behind those of others.
    """
    if -RESOLUTION_MS < behind_ms <= 0:
        return 0
    return behind_ms if behind_ms > 0 else behind_ms + RESOLUTION_MS
