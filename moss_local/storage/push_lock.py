"""One pusher a file: a lock between processes, released by the system when its holder dies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from moss_local.errors import FileBusyError
from moss_local.storage.failures import translated_os

WAIT_S = 75.0
"""Longer than a push may take (60 s), so that a waiting push outlasts the one before it."""

FIRST_PAUSE_S = 0.01
LONGEST_PAUSE_S = 0.2


@asynccontextmanager
async def push_lock(path: Path) -> AsyncIterator[None]:
    """Hold the right to push the session file at `path`.

    Raises:
        FileBusyError: somebody else held it for longer than the wait.
        PermissionDeniedError, DiskFullError: it cannot be made here.
    """
    # Without the fallback of marker files, which would outlive a killed process.
    lock = FileLock(f"{path}.push", thread_local=False, mode=0o600, fallback_to_soft=False)
    loop = asyncio.get_running_loop()
    deadline = loop.time() + WAIT_S
    pause = FIRST_PAUSE_S
    while True:
        try:
            lock.acquire(timeout=0)  # one system call that does not wait
            break
        except Timeout:
            if loop.time() > deadline:
                raise FileBusyError(
                    f"{path} is being pushed by another process", hint="push again later"
                ) from None
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)
        except OSError:
            with translated_os(path):
                raise
    try:
        yield
    finally:
        lock.release()
