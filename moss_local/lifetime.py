"""What is open until it is closed: `with`, `async with`, and closing from any thread or loop.

Closing happens on the library's own loop, once, and to its end: a caller that is cancelled while
it waits leaves nothing half closed, and whoever closes a second time waits for the first.
"""

from __future__ import annotations

import asyncio
import functools
import math
import threading
from abc import ABC, abstractmethod
from concurrent.futures import Future
from types import TracebackType
from typing import Generic, Self, TypeVar

from moss_local.runtime import runtime
from moss_sync import InvalidArgumentError

T = TypeVar("T")

CLOSE_S = 5.0
"""Seconds that closing may take for what is not pushed yet, unless the caller says otherwise."""


class OpenUntilClosed(ABC, Generic[T]):
    """Base of the client and of the session. `T` is what closing returns."""

    def __init__(self) -> None:
        self._closing: Future[T] | None = None
        self._closing_lock = threading.Lock()

    @property
    def _closed(self) -> bool:
        """Closed, or on the way."""
        return self._closing is not None

    @abstractmethod
    def _check_open(self) -> None:
        """Raise if it is closed."""

    @abstractmethod
    async def _close(self, seconds: float) -> T:
        """Close it; called once, on the library's loop."""

    def begin_to_close(self, seconds: float) -> Future[T]:
        """Start closing, if nobody has; from any thread."""
        if not isinstance(seconds, int | float) or not 0 <= seconds < math.inf:
            raise InvalidArgumentError(
                f"a time to close in is a number of seconds, not {seconds!r}"
            )
        with self._closing_lock:
            if self._closing is None:
                self._closing = runtime.start(self._close(seconds))
            return self._closing

    async def close(self, timeout: float = CLOSE_S) -> T:  # noqa: ASYNC109  # it ends well
        """Close it; idempotent."""
        # The future is everybody's: a caller waits for one of its own, which may be cancelled.
        closed = Future[T]()
        self.begin_to_close(timeout).add_done_callback(functools.partial(_pass_on, to=closed))
        return await asyncio.wrap_future(closed)

    async def __aenter__(self) -> Self:
        self._check_open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def __enter__(self) -> Self:
        self._check_open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.begin_to_close(CLOSE_S).result()


def _pass_on(done: Future[T], *, to: Future[T]) -> None:
    if not to.set_running_or_notify_cancel():
        return
    error = done.exception()
    if error is not None:
        to.set_exception(error)
    else:
        to.set_result(done.result())
