"""How long somebody waits for a store's first answer who can go on without it.

Whoever opens a session has on the device what was there before, whatever the store does, so a
store that says nothing must not hold it up. Only silence is bounded, and only until the first
answer: the rest may take as long as it takes, within what the store allows one request.

A store that refuses a connection says so at once, and its own time-outs are each of one request.
What they do not see is the rest: a name that does not resolve, credentials that have to be fetched,
a lock that waits behind another exchange, a call to a network share that does not come back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from moss_sync.errors import NetworkError
from moss_sync.traffic import answers_heard

T = TypeVar("T")


class Patience:
    """What is left of the wait of one caller; several calls in a row share it."""

    def __init__(self, seconds: float, *, store: str) -> None:
        """Be ready to wait.

        Args:
            seconds: In all calls together, until the first answer; work in between is not counted.
            store: The store's URL, for the message.
        """
        self._seconds = self._left = seconds
        self._store = store
        self._answered = False
        self._timer: asyncio.Timeout | None = None

    async def until_answered(self, work: Callable[[], Awaitable[T]]) -> T:
        """Return what `work` returns; cancel it where the store is silent for too long.

        Raises:
            NetworkError: it was, or has been in an earlier call: then `work` is not begun.
        """
        if self._answered:
            return await work()
        if self._left <= 0:
            raise self._silence()
        time = asyncio.get_running_loop().time
        began = time()
        timer = self._timer = asyncio.timeout(self._left)
        try:
            async with timer:
                with answers_heard(self._hear):
                    return await work()
        except TimeoutError:
            if timer.expired():
                raise self._silence() from None
            raise
        finally:
            self._timer = None
            self._left -= time() - began

    def clocked(self) -> Callable[[], None]:
        """Return what, when it is called, takes the time since now off the patience.

        For a wait that cannot be given up, behind somebody who waits for the same store.
        """
        time = asyncio.get_running_loop().time
        began = time()

        def spend() -> None:
            self._left -= time() - began

        return spend

    def _hear(self) -> None:
        self._answered = True
        # What `work` leaves running in the background is heard here too, when the timer is gone;
        # one that has just run out cannot be stopped any more.
        if self._timer is not None and not self._timer.expired():
            self._timer.reschedule(None)

    def _silence(self) -> NetworkError:
        return NetworkError(
            f"no answer from {self._store} within {self._seconds:g} s",
            hint="what is on this device is read without asking the store with"
            " auto_load_on_init=False, or --local",
        )
