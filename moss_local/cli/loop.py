"""Runs what a command awaits so that Ctrl-C ends it, whenever it comes and whoever receives it.

`asyncio.run` cancels the main task at SIGINT, from a handler that Python runs between two steps of
the main thread. If that thread waits in `select`, the signal must interrupt the wait, and it does
not always: the system may hand it to any thread of the process, and a signal that comes between
Python's last look and the system call is only found when the call returns. With nothing else to
wake the loop that is at the end of the work, minutes later. A byte in a socket that the loop
listens to closes the gap.
What holds: tests/moss_local/test_cli_loop.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

T = TypeVar("T")

_PIECE_BYTES = 4096


def run_to_end(work: Callable[[], Awaitable[T]]) -> T:
    """Run `work` on a new event loop and return its result.

    Raises:
        KeyboardInterrupt: Ctrl-C came; the work was cancelled and has ended.
    """

    async def inside() -> T:
        with _woken_by_signals(asyncio.get_running_loop()):
            return await work()

    return asyncio.run(inside())


@contextlib.contextmanager
def _woken_by_signals(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    # The proactor of Windows listens by itself; only the main thread may say where signals go.
    main = threading.current_thread() is threading.main_thread()
    if not main or not isinstance(loop, asyncio.SelectorEventLoop):
        yield
        return
    listening, writing = socket.socketpair()
    with listening, writing:
        listening.setblocking(False)
        writing.setblocking(False)
        loop.add_reader(listening, _drain, listening)
        before = signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)
            loop.remove_reader(listening)


def _drain(listening: socket.socket) -> None:
    with contextlib.suppress(BlockingIOError):
        listening.recv(_PIECE_BYTES)
