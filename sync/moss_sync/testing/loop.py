"""An event loop in which time passes only by waiting, so a year of retries takes a moment.

One thread, no sockets, no real clock: what runs next follows from what was awaited and from
nothing else, so a program that takes its chance from a seed runs the same every time. Work handed
to threads (`asyncio.to_thread`) runs at once, on the loop's own thread.
What holds: tests/moss_sync/test_testing_loop.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from typing import Any, TypeVar

T = TypeVar("T")


class VirtualTime:
    """Seconds since the world began; moved by the loop that owns it."""

    def __init__(self) -> None:
        self.seconds = 0.0

    @property
    def ms(self) -> int:
        """The same in whole milliseconds."""
        return int(self.seconds * 1000)


class _Jump:
    """Stands where the selector of a real loop stands: instead of waiting, it moves time on."""

    def __init__(self, time: VirtualTime) -> None:
        self._time = time

    def select(self, timeout: float | None) -> list[object]:
        if timeout is None:
            raise RuntimeError("every task waits for something that will never come")
        self._time.seconds += max(timeout, 0.0)
        return []

    def close(self) -> None:
        pass


class VirtualLoop(asyncio.BaseEventLoop):
    """An asyncio event loop over a `VirtualTime`."""

    def __init__(self, time: VirtualTime | None = None) -> None:
        super().__init__()
        self.virtual = time if time is not None else VirtualTime()
        self._selector = _Jump(self.virtual)
        # Timers closer than this are one moment; less than a float can tell from a year.
        self._clock_resolution = 1e-6

    def time(self) -> float:
        """Return the seconds of the virtual time."""
        return self.virtual.seconds

    def run_in_executor(  # type: ignore[override]  # typeshed says Future, and it is one
        self, executor: Executor | None, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        """Run `func` at once and return its outcome as a future that is done."""
        future: asyncio.Future[T] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future

    def _process_events(self, events: list[object]) -> None:
        pass

    def _write_to_self(self) -> None:
        pass


def run_virtual(main: Coroutine[Any, Any, T], *, time: VirtualTime | None = None) -> T:
    """Run `main` to its end in virtual time and return what it returns.

    Tasks that it leaves behind are cancelled.

    Raises:
        RuntimeError: every task waits for something that will never come.
    """
    loop = VirtualLoop(time)
    try:
        try:
            return loop.run_until_complete(main)
        finally:
            left = asyncio.all_tasks(loop)
            for task in left:
                task.cancel()
            if left:
                loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
    finally:
        loop.close()
