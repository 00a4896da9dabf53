"""Exchanges in the background, as long as a session is open: `client.session(auto_sync=...)`.

One task on the library's own loop, which outlives the caller's loops. It pulls in a rhythm and
pushes what was written here once that is quiet; what is due when is `moss_local.schedule`'s. It
sleeps by the monotonic clock, so a wall clock that jumps changes nothing, except that one which
runs ahead of the monotonic one means that the machine has slept: then it exchanges at once.

A failure that may pass is retried ever more rarely; one that somebody must see to stops the
background (`SyncState` says why) until an exchange that was asked for succeeds. Nothing that
happens here reaches the caller in any other way.
What holds: tests/moss_local/test_auto_sync.py (virtual time), tests/processes/test_following.py.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
from collections.abc import Awaitable, Callable
from typing import Literal, Protocol

from moss_local.schedule import Schedule, Work
from moss_local.standing import trouble_of
from moss_sync import InvalidArgumentError, MossError, StoreBusyError, SyncReport
from moss_sync.clock import Clock

log = logging.getLogger("moss_local")

SHORTEST_INTERVAL_S = 0.1
"""Ten requests a second and session; a store that is paid by the request wants 30 s and more."""

LONGEST_NAP_S = 15.0
"""It looks at the clocks so often: a machine that wakes up has the news so soon at the latest."""

SLEPT_S = 5.0
"""The wall clock has run ahead by so much: time in which nothing here ran. Ordinary corrections
of a clock are smaller."""


class Exchanging(Protocol):
    """What is done in the background, and what listens to how it went."""

    name: str
    outcome: Callable[[Work, MossError | None], None] | None

    async def pull(self) -> SyncReport: ...

    async def push(self) -> SyncReport: ...

    async def sync(self) -> SyncReport: ...

    def stop(self, error: Exception) -> None: ...


def check_interval(auto_sync: object) -> float:
    """Return the interval that a caller named, in seconds.

    Raises:
        InvalidArgumentError: it is no such thing.
    """
    number = isinstance(auto_sync, int | float) and not isinstance(auto_sync, bool)
    if not number or not SHORTEST_INTERVAL_S <= auto_sync < math.inf:  # type: ignore[operator]  # is a number
        raise InvalidArgumentError(
            f"auto_sync is {auto_sync!r}; it must be {SHORTEST_INTERVAL_S} seconds or more",
            hint="such as auto_sync=30, or leave it out and call sync() yourself",
        )
    return float(auto_sync)  # type: ignore[arg-type]  # is a number


class AutoSync:
    """The background of one session."""

    def __init__(
        self,
        exchange: Exchanging,
        interval_s: float,
        *,
        clock: Clock,
        unpushed: Callable[[], Awaitable[int | None]],
        turn: Callable[[], asyncio.Semaphore],
    ) -> None:
        """Prepare; `run` is to be started on the loop on which everything here happens.

        Args:
            unpushed: A number of the last change in the file that is not pushed, which another
                change does not have; None where all are pushed.
            turn: Held while exchanging: how many sessions of this process do so at once.
        """
        self._exchange = exchange
        self._clock = clock
        self._unpushed = unpushed
        self._turn = turn
        self._pid = os.getpid()
        self._schedule = Schedule(interval_s)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._ended = asyncio.Event()
        self._written = -math.inf
        self._unread = False
        self._newest: int | None = None
        self._watching = False
        self._stopped = False
        self._closing = False
        exchange.outcome = self._outcome

    def written(self) -> None:
        """Say that the file was written to, by whomever; from any thread, at no cost.

        An exchange writes too, if only that it has happened: whether it was an edit, the file says.
        """
        self._written = self._clock.monotonic()
        self._unread = True  # not told by the time: a clock may stand still between two writes
        if self._watching:
            self._watching = False
            self._rouse()

    def abandon(self) -> None:
        """End without pushing: nobody holds the session any more. From any thread."""
        self._closing = True
        self._rouse()

    async def run(self) -> None:
        """Exchange until closed."""
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        try:
            await self._guarded(self._look_for_edits)  # of before
            while not self._closing:
                await self._guarded(self._step)
        finally:
            self._ended.set()

    async def close(self, seconds: float) -> None:
        """End; push what is not pushed, if that can be done in so many seconds."""
        self._closing = True
        self._wake.set()
        if self._task is None:
            return
        finishing = asyncio.ensure_future(self._finish())
        timer = asyncio.ensure_future(self._clock.sleep(seconds))
        await asyncio.wait([finishing, timer], return_when=asyncio.FIRST_COMPLETED)
        timer.cancel()
        if finishing.done():
            finishing.result()
            return
        for late in (finishing, self._task):
            # Not waited for: an exchange may have requests to end with, to a store that hangs.
            late.cancel()
            late.add_done_callback(_note_end)

    async def _finish(self) -> None:
        await self._ended.wait()
        if self._stopped or await self._unpushed() is None:
            return
        try:
            await self._exchange.push()
        except MossError as error:
            log.info("session %r closes unpushed: %s", self._exchange.name, error)

    async def _step(self) -> None:
        """Do what is due, or wait until something is."""
        now = self._clock.monotonic()
        self._watching = self._schedule.first_edit is None
        if self._unread:
            self._unread = False
            await self._note_edits(self._written)
        work = None if self._stopped else self._schedule.due(now)
        if work is None:
            left = math.inf if self._stopped else self._schedule.next() - now
            await self._nap(left)
        elif work == "pull" or await self._unpushed() is not None:
            await self._attempt(work)
        else:
            self._schedule.nothing_waits()  # another object or process was faster

    async def _attempt(self, work: Work) -> None:
        async with self._turn():
            if self._closing:
                return
            try:
                await getattr(self._exchange, work)()
            except MossError as error:  # `_outcome` was told
                log.debug("session %r: %s failed: %s", self._exchange.name, work, error)
                return
        await self._look_for_edits()  # of another process

    async def _guarded(self, work: Callable[[], Awaitable[None]]) -> None:
        """Let no error end the background in silence."""
        try:
            await work()
        except MossError as error:  # of the file: an exchange's own do not come here
            self._outcome("pull", error)
            if self._stopped:
                self._exchange.stop(error)
        except Exception as error:
            # A bug, here or in a store. Doing it again and again would not mend it.
            log.exception("session %r: exchanging in the background ends", self._exchange.name)
            self._stopped = True
            self._exchange.stop(error)

    def _outcome(self, work: Work, error: MossError | None) -> None:
        """Hear how an exchange ended, whoever asked for it."""
        now = self._clock.monotonic()
        if error is None:
            self._stopped = False
            self._schedule.succeeded(work, now)
        elif (trouble := trouble_of(error)) is not None and trouble.stopped:
            if not self._stopped:
                log.warning("session %r is not exchanged: %s", self._exchange.name, error)
            self._stopped = True
        else:
            asked = error.retry_after if isinstance(error, StoreBusyError) else None
            chance = self._clock.uniform(0.0, 1.0)
            self._schedule.failed(now, chance=chance, asked=asked or 0.0)
        self._wake.set()

    async def _look_for_edits(self) -> None:
        await self._note_edits(self._clock.monotonic())

    async def _note_edits(self, at: float) -> None:
        """Tell the schedule of edits that it does not know; what it knows goes on getting quiet."""
        before = self._newest
        try:
            self._newest = await self._unpushed()
        except MossError:
            self._schedule.edited(at)  # there may be some: to be pushed once the file can be read
            raise
        if self._newest is None:
            self._schedule.nothing_waits()
        elif self._newest != before or self._schedule.first_edit is None:
            self._schedule.edited(at)

    async def _nap(self, seconds: float) -> None:
        wall, monotonic = self._clock.wall_ms(), self._clock.monotonic()
        self._wake.clear()
        if self._unread or self._closing:
            return
        await _first_of(
            asyncio.ensure_future(self._clock.sleep(min(seconds, LONGEST_NAP_S))),
            asyncio.ensure_future(self._wake.wait()),
        )
        passed = self._clock.monotonic() - monotonic
        if (self._clock.wall_ms() - wall) / 1000 - passed > SLEPT_S:
            self._schedule.hurry()

    def _rouse(self) -> None:
        if self._pid == os.getpid() and self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wake.set)


async def _first_of(*tasks: asyncio.Task[None] | asyncio.Task[Literal[True]]) -> None:
    """Wait until one of them is done, and cancel the rest."""
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _note_end(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.info("an exchange that was given up ended with: %s", error)
