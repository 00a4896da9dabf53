"""The exchanges of one open session: one at a time, what the last one said, and what follows one.

An exchange that fails for want of the store leaves the session "offline", which passes by itself.
One that fails for what the store holds leaves it "stopped", until an exchange that somebody asks
for succeeds. Local documents are there in both cases.

Rules of this file: what awaits runs on the library's loop (`moss_local.runtime`); what only reads
may be called from any thread.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from concurrent.futures import Future

from moss_local.runtime import runtime
from moss_local.standing import Trouble, standing, trouble_of
from moss_local.storage.file import SessionFile
from moss_local.storage.replica import SqliteReplica
from moss_local.types import SyncState
from moss_sync import MossError, SyncReport
from moss_sync.checkpoint import Checkpoint
from moss_sync.clock import Clock
from moss_sync.modes import Engine

log = logging.getLogger("moss_local")

COMPACTION_WAIT_S = 2.0
"""What closing leaves a compaction to end by itself. It is never needed."""


class Exchange:
    """The exchanges of one `SessionIndex`.

    Attributes:
        last_report: Of the last exchange; of a failed one, what had been done until then.
    """

    def __init__(
        self, name: str, file: SessionFile, replica: SqliteReplica, engine: Engine, clock: Clock
    ) -> None:
        self.name = name
        self.last_report: SyncReport | None = None
        self._file = file
        self._replica = replica
        self._engine = engine
        self._clock = clock
        self._trouble: Trouble | None = None
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._turn = asyncio.Lock()
        self._under_way = False
        self._closed = False
        self._compaction: Future[None] | None = None

    def state(self) -> SyncState:
        """Return where the session stands; from any thread."""
        mine = self._pid == os.getpid()
        return standing(self._file, trouble=self._trouble, under_way=mine and self._under_way)

    def checkpoint(self) -> str | None:
        """Return the checkpoint of the newest state seen; from any thread. None before any."""
        seen = self._replica.state().seen
        return None if seen is None else str(Checkpoint.of(seen))

    async def pull(self) -> SyncReport:
        """As `SyncEngine.pull`."""
        return await self._run(self._engine.pull)

    async def push(self) -> SyncReport:
        """As `SyncEngine.push`. A compaction may follow, which nobody waits for."""
        return await self._run(self._engine.push)

    async def sync(self) -> SyncReport:
        """Pull, then push."""
        return await self._run(self._engine.sync)

    async def rewrite(self) -> int:
        """As `SyncEngine.rewrite`."""
        async with self._turn:
            return await self._engine.rewrite()

    async def close(self) -> None:
        """Leave a running compaction a moment, then cancel it."""
        self._closed = True
        running, self._compaction = self._compaction, None
        if running is None or running.done():
            return
        done, _ = await asyncio.wait([asyncio.wrap_future(running)], timeout=COMPACTION_WAIT_S)
        if not done:
            running.cancel()

    async def _run(self, work: Callable[[], Awaitable[SyncReport]]) -> SyncReport:
        if self._pid != os.getpid():
            self._begin()  # forked off: whoever had the turn is the parent's
        async with self._turn:
            self._under_way = True
            try:
                report = await work()
                await runtime.blocking(self._replica.set_exchanged, self._clock.wall_ms())
            except MossError as error:
                self.last_report = error.report
                self._trouble = trouble_of(error) or self._trouble
                raise
            finally:
                self._under_way = False
            self._trouble, self.last_report = None, report
        idle = self._compaction is None or self._compaction.done()
        if (report.sent or report.sent_deletes) and idle and not self._closed:
            self._compaction = runtime.in_background(self._compact())
        return report

    async def _compact(self) -> None:
        try:
            while not self._closed and await self._engine.compact():
                log.debug("session %r was compacted", self.name)
        except MossError as error:
            # Never needed for correctness, and asked for by nobody; the next push tries again.
            log.warning("session %r was not compacted: %s", self.name, error)
