"""Virtual time: a clock that stands still until everybody waits, and then jumps."""

from __future__ import annotations

import asyncio
import heapq
import random
from collections.abc import Callable, Coroutine
from typing import Any

SETTLE = 40
"""Passes of the loop in which whatever can go on without time has gone on."""


class VirtualClock:
    """A `moss_sync.Clock`. `sleep` ends only while `run_for` moves the time."""

    def __init__(self, seed: int = 0) -> None:
        self.now = 1000.0
        self.wall_ahead_s = 0.0
        self._random = random.Random(seed)
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._count = 0

    def wall_ms(self) -> int:
        return round((self.now + self.wall_ahead_s) * 1000)

    def monotonic(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        future = asyncio.get_running_loop().create_future()
        self._count += 1
        heapq.heappush(self._sleepers, (self.now + seconds, self._count, future))
        await future

    def token(self, size: int) -> bytes:
        return self._random.randbytes(size)

    def uniform(self, low: float, high: float) -> float:
        return self._random.uniform(low, high)

    async def run_for(self, seconds: float) -> None:
        """Let so much time pass, waking each sleeper when it is due."""
        end = self.now + seconds
        while True:
            await self.settle()
            while self._sleepers and self._sleepers[0][2].done():
                heapq.heappop(self._sleepers)
            if not self._sleepers or self._sleepers[0][0] > end:
                break
            at, _, future = heapq.heappop(self._sleepers)
            self.now = max(self.now, at)
            future.set_result(None)
        self.now = end
        await self.settle()

    async def settle(self) -> None:
        for _ in range(SETTLE):
            await asyncio.sleep(0)

    async def finish(self, work: Coroutine[Any, Any, Any], *, within: float = 600.0) -> Any:
        """Run something to its end in virtual time."""
        task = asyncio.ensure_future(work)
        end = self.now + within
        while not task.done():
            assert self.now < end, "it takes too long"
            await self.run_for(0.5)
        return task.result()


def in_virtual_time(story: Callable[[VirtualClock], Coroutine[Any, Any, None]]) -> None:
    clock = VirtualClock()
    asyncio.run(story(clock))
