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

from moss_sync.errors import ClockError
from moss_sync.times import (
    ANSWER_AHEAD_MS,
    EARLIEST_MS,
    HOUR_MS,
    MAX_TIME_MS,
    bounded,
    shown,
)


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

PARTED_MS = HOUR_MS
"""Once the wall clock has moved by this much more or less than the monotonic one, it was set, or
the machine has slept: what answers of before said about it counts no longer."""


class StoreClock:
    """This machine's clock, and what the store's answers say about it.

    What answers say is the median of the last five, so one wrong or delayed answer moves nothing.
    Nobody has signed them: how far they are believed, `SessionClock` decides.

    Attributes:
        heard: Whether there was an answer yet that could tell the time.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._answers: list[tuple[int, int]] = []
        self.heard = False

    def observe(self, time_ms: int | None) -> None:
        """Take in what an answer says; None from a store that has no clock."""
        self.heard = True
        if time_ms is not None:
            offset = _least_offset(time_ms - self._clock.wall_ms())
            self._answers.append((offset, self._lead_ms()))
            del self._answers[:-OFFSET_SAMPLES]

    def forget(self) -> None:
        """Let go of all that was answered so far: the store is about to be asked anew."""
        self._answers.clear()

    def wall_ms(self) -> int:
        """Return what this machine's clock says, whatever that is."""
        return self._clock.wall_ms()

    def uptime_ms(self) -> int:
        """Return milliseconds since some fixed moment; never falls."""
        return int(self._clock.monotonic() * 1000)

    def offset_ms(self) -> int | None:
        """Return store time minus this machine's, the median; None where no answer tells it.

        Of two in the middle the one that is closer to this machine's clock.
        """
        lead = self._lead_ms()
        offsets = sorted(offset for offset, then in self._answers if abs(lead - then) <= PARTED_MS)
        middle = len(offsets) // 2
        return min(offsets[middle - 1 + len(offsets) % 2 : middle + 1], key=abs, default=None)

    def now_ms(self) -> int:
        """Return the time as far as it is known without any session."""
        return SessionClock(self).now_ms()

    def _lead_ms(self) -> int:
        return self._clock.wall_ms() - self.uptime_ms()


class SessionClock:
    """The time as one session's device believes it, and whether it may commit by it.

    Three things tell the time: this machine's clock, the store's answers, and the newest commit of
    the session that was verified, which cannot have been made in the future. An answer may put the
    clock back freely, and forward by `ANSWER_AHEAD_MS` at most past the greater of the other two.
    """

    def __init__(self, store: StoreClock) -> None:
        self._store = store
        self._commit: tuple[int, int] | None = None

    def observe(self, time_ms: int | None) -> None:
        """Take in what an answer of the store says, as StoreClock does."""
        self._store.observe(time_ms)

    def committed(self, commit_ms: int) -> None:
        """Take in the time of the newest commit of the session that was verified."""
        if self._commit is None or self._commit[0] != commit_ms:
            self._commit = commit_ms, self._store.uptime_ms()

    def wall_ms(self) -> int:
        """Return what this machine's clock says, from 0 to MAX_TIME_MS: for what stays on it."""
        return bounded(self._store.wall_ms())

    def now_ms(self) -> int:
        """Return what this device believes the time is, from 0 to MAX_TIME_MS."""
        return min(max(0, self._told_ms()), self._latest_ms())

    @property
    def is_doubtful(self) -> bool:
        """Whether what tells the time contradicts itself."""
        return self._told_ms() > self._latest_ms()

    def check(self) -> None:
        """Return if something may be committed by this clock.

        Raises:
            ClockError: what tells the time contradicts itself.
        """
        wall_ms, told_ms = self._store.wall_ms(), self._told_ms()
        if told_ms <= self._latest_ms():
            return
        if self._store.offset_ms() is None:
            raise ClockError(
                f"this device's clock says {shown(wall_ms)}; nothing can be stored after the year "
                "3000",
                hint="set this device's clock, then push again",
            )
        raise ClockError(
            f"the store says that it is {shown(told_ms)}, this device's clock says "
            f"{shown(wall_ms)}: one of them is wrong",
            hint="set this device's clock, or have the store's clock set if that is the wrong one; "
            "then push again",
        )

    def _told_ms(self) -> int:
        """Return what the store's answers say; without any, what this machine's clock does."""
        offset = self._store.offset_ms()
        wall_ms = self._store.wall_ms()
        if offset is not None:
            return wall_ms + offset
        # A clock that was never set says nothing.
        return self._known_ms() if wall_ms < EARLIEST_MS else wall_ms

    def _known_ms(self) -> int:
        """Return what is certain without the store's answers, if this clock is not ahead itself."""
        wall_ms = self._store.wall_ms()
        if self._commit is None:
            return wall_ms
        commit_ms, at_ms = self._commit
        return max(wall_ms, commit_ms + max(0, self._store.uptime_ms() - at_ms))

    def _latest_ms(self) -> int:
        return min(self._known_ms() + ANSWER_AHEAD_MS, MAX_TIME_MS)


def _least_offset(behind_ms: int) -> int:
    """Return the smallest correction that agrees with an answer.

    Servers tell whole seconds, rounded down. A clock that is right within that second is left as it
    is: to follow the rounding would put the writes of those who are online behind those of others.
    """
    if -RESOLUTION_MS < behind_ms <= 0:
        return 0
    return behind_ms if behind_ms > 0 else behind_ms + RESOLUTION_MS
