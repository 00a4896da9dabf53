"""The library's own threads: one event loop for the network, a few for files, two for embedding.

Users call one client from several event loops and threads (`asyncio.run()` once per call is
common), so nothing may belong to the caller's loop. Exchanges run on the loop here; writes to
files and other blocking work on a small pool; embedding on threads of its own, so that it never
starves the rest. All of it is made on first use, shared by all clients of the process, and ends
with it.
"""

from __future__ import annotations

import asyncio
import atexit
import contextvars
import functools
import os
import threading
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R")

IO_THREADS = 8
"""Blocking work at once: more would only queue for the file locks and the disk behind them."""

SCAN_THREADS = max(2, min(8, os.cpu_count() or 1))
"""Sessions read at once for one query: it is arithmetic, and more than processors would wait."""
EXCHANGES_AT_ONCE = 8
"""In the background, of all sessions of the process: more would only queue for the link and the
processor behind them, and hold up whoever exchanges by hand."""

EXIT_WAIT_S = 2.0
"""How long leaving the interpreter waits for work in the background, such as a compaction."""


class Runtime:
    """The threads. Use the module's `runtime`."""

    def __init__(self) -> None:
        self._begin()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._after_fork)

    def _begin(self) -> None:
        # Reentrant: what `when_gone` does may be started by a garbage collection inside of it.
        self._lock = threading.RLock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._io: ThreadPoolExecutor | None = None
        self._embedding: ThreadPoolExecutor | None = None
        self._scans: ThreadPoolExecutor | None = None
        self._background: set[Future[Any]] = set()
        self._thread: threading.Thread | None = None
        self._exchanges = asyncio.Semaphore(EXCHANGES_AT_ONCE)
        self._goodbyes: list[weakref.finalize[..., Any]] = []

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The library's event loop, running on its own thread."""
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=self._loop.run_forever, name="moss-sync", daemon=True
                )
                self._thread.start()
                atexit.register(self._finish)
            return self._loop

    @property
    def background_exchanges(self) -> asyncio.Semaphore:
        """Held by each exchange in the background; of the library's loop."""
        return self._exchanges

    async def on_loop(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the library's loop and return its result to the caller's loop.

        Cancelling the caller cancels the work at its next await.
        """
        return await asyncio.wrap_future(self.start(work))

    def start(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Start a coroutine on the library's loop; from any thread."""
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    def in_background(self, work: Coroutine[Any, Any, None]) -> Future[None]:
        """Start a coroutine that nobody waits for; leaving the interpreter gives it a moment."""
        future = self.start(work)
        self._background.add(future)
        future.add_done_callback(self._background.discard)
        return future

    def when_gone(self, owner: object, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run `work` on the loop once nobody holds `owner` any more, at the latest at the end.

        For connections of clients that were never closed. `work` must not hold `owner`.
        """
        goodbye = weakref.finalize(owner, self._say_goodbye, work)
        goodbye.atexit = False  # it would come after the loop has stopped
        with self._lock:
            self._goodbyes = [known for known in self._goodbyes if known.alive]
            self._goodbyes.append(goodbye)

    async def blocking(self, fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a blocking function on the pool; from any event loop."""
        return await _in(self._pool(), functools.partial(fn, *args, **kwargs))

    async def acquiring(
        self, fn: Callable[P, T], undo: Callable[[T], None], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """As `blocking`; a caller that is cancelled meanwhile has what `fn` returned undone."""
        acquired = self._pool().submit(functools.partial(fn, *args, **kwargs))
        try:
            return await asyncio.wrap_future(acquired)
        except asyncio.CancelledError:
            acquired.add_done_callback(functools.partial(_undo, undo))
            raise

    async def embedding(self, fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a function that embeds on its own few threads; from any event loop.

        Two threads, not one: a query must be able to ask for the model while a bulk load holds it;
        the embedder lets it in between two batches.
        """
        with self._lock:
            if self._embedding is None:
                self._embedding = ThreadPoolExecutor(2, thread_name_prefix="moss-embed")
            pool = self._embedding
        return await _in(pool, functools.partial(fn, *args, **kwargs))

    def at_once(self, fn: Callable[[T], R], items: Iterable[T]) -> list[R]:
        """Run a function on each item, all at once; return, or raise, when the last has ended.

        For a thread of the library's that may wait. The threads used here never wait for others,
        so callers cannot block each other.
        """
        first, *rest = items
        with self._lock:
            if self._scans is None:
                self._scans = ThreadPoolExecutor(SCAN_THREADS, thread_name_prefix="moss-scan")
            pool = self._scans
        others = [pool.submit(fn, item) for item in rest]
        try:
            done = fn(first)
        finally:
            wait(others)
        return [done, *(other.result() for other in others)]

    def _pool(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._io is None:
                self._io = ThreadPoolExecutor(IO_THREADS, thread_name_prefix="moss-io")
            return self._io

    def _say_goodbye(self, work: Callable[[], Coroutine[Any, Any, None]]) -> Future[None] | None:
        # Without a loop nothing was ever opened on it.
        return None if self._loop is None else self.in_background(work())

    def _after_fork(self) -> None:
        """In a forked child: threads do not come along, so it gets its own when it needs them."""
        for goodbye in self._goodbyes:
            goodbye.detach()  # those connections are the parent's
        _of_the_parent.append((self._loop, self._thread, self._io, self._embedding, self._scans))
        self._begin()

    def _finish(self) -> None:
        for future in list(self._background):
            # Whatever it raises has been logged where it happened.
            _wait_quietly(future, EXIT_WAIT_S)
        partings = [goodbye() for goodbye in self._goodbyes]
        for parting in partings:
            if parting is not None:
                _wait_quietly(parting, EXIT_WAIT_S)
        if self._loop is not None and self._thread is not None and not self._loop.is_closed():
            _wait_quietly(self.start(_cancel_the_rest()), EXIT_WAIT_S)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(EXIT_WAIT_S)
            if not self._thread.is_alive():
                self._loop.close()


async def _cancel_the_rest() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _wait_quietly(future: Future[Any], seconds: float) -> None:
    done = threading.Event()
    future.add_done_callback(lambda _: done.set())
    done.wait(seconds)


def _undo(undo: Callable[[T], None], acquired: Future[T]) -> None:
    if not acquired.cancelled() and acquired.exception() is None:
        undo(acquired.result())


def _in(pool: ThreadPoolExecutor, work: Callable[[], T]) -> Awaitable[T]:
    context = contextvars.copy_context()
    return asyncio.get_running_loop().run_in_executor(pool, lambda: context.run(work))


_of_the_parent: list[object] = []
"""What this process was forked off with; never used, never closed."""

runtime = Runtime()
"""The one of this process."""
