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
from functools import partial
from typing import TypeVar

from moss_local.auto_sync import AutoSync
from moss_local.runtime import runtime
from moss_local.schedule import Work
from moss_local.standing import Trouble, newest_unpushed, standing, trouble_of
from moss_local.storage.file import SessionFile
from moss_local.storage.replica import SqliteReplica
from moss_local.types import SyncState
from moss_sync import (
    MossError,
    NetworkError,
    RepairReport,
    StoreLacksCasError,
    SyncReport,
    VectorSpace,
)
from moss_sync.checkpoint import Checkpoint
from moss_sync.clock import Clock
from moss_sync.modes import Engine
from moss_sync.patience import Patience

R = TypeVar("R", bound=SyncReport)

log = logging.getLogger("moss_local")

OLDER_COPY = (
    "this device's file is an older copy: more has been pushed under its device id than it knows "
    "of. It goes on under a new id; what was pushed is merged, and changes that were only in the "
    "newer file are not here"
)
"""What `SyncReport.older_copy` means, for people."""

COMPACTION_WAIT_S = 2.0
"""What closing leaves a compaction to end by itself. It is never needed."""

PROBE_WAIT_S = 15.0
"""What closing leaves a round of the probe. Programs that end after each push would never finish it
on a slow store; there are a few rounds in the life of a project."""


class Exchange:
    """The exchanges of one `SessionIndex`.

    Attributes:
        last_report: Of the last exchange; of a failed one, what had been done until then.
        outcome: Told how each exchange ended.
        after: Called when one has succeeded; it must not take long.
    """

    def __init__(
        self,
        name: str,
        file: SessionFile,
        replica: SqliteReplica,
        engine: Engine,
        clock: Clock,
        *,
        probe_further: Callable[[], Awaitable[bool]],
        interval_s: float | None = None,
        trouble: Trouble | None = None,
    ) -> None:
        """Make the exchanges of the session called `name`.

        Args:
            probe_further: As `Repository.probe_further`; what is left of it follows a push.
            interval_s: Of pulls in the background, once `start` was called; None for none.
            trouble: What is known to stop them, before the first.
        """
        self.name = name
        self.last_report: SyncReport | None = None
        self.outcome: Callable[[Work, MossError | None], None] | None = None
        self.after: Callable[[], None] | None = None
        self._file = file
        self._replica = replica
        self._engine = engine
        self._clock = clock
        self._probe_further = probe_further
        self._interval_s = interval_s
        self._trouble = trouble
        self._at_the_end: SyncState | None = None
        self._started = False
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._turn = asyncio.Lock()
        self._under_way = False
        self._closed = False
        self._upkeep: Future[None] | None = None
        self._probing = False
        self._auto: AutoSync | None = None
        if self._interval_s is not None:
            self._auto = AutoSync(
                self,
                self._interval_s,
                clock=self._clock,
                unpushed=self._unpushed,
                turn=lambda: runtime.background_exchanges,
            )

    def start(self) -> None:
        """Begin to exchange in the background, if that was asked for; from any thread."""
        self._started = True
        if self._auto is not None:
            self._file.listen(self._auto.written)
            runtime.start(self._auto.run())

    def begin_anew_if_forked(self) -> None:
        """In a forked child: leave to the parent what is the parent's. Cheap, and for any call."""
        if self._pid != os.getpid():
            self._begin()
            if self._started:
                self.start()

    def state(self) -> SyncState:
        """Return where the session stands, or stood when it was closed; from any thread."""
        if self._at_the_end is not None:
            return self._at_the_end
        return standing(self._file, trouble=self._trouble, under_way=self._under_way)

    def now_ms(self) -> int:
        """Return the wall clock as the store's answers have corrected it; from any thread."""
        return self._engine.now_ms()

    def checkpoint(self) -> str | None:
        """Return the checkpoint of the newest state seen; from any thread. None before any."""
        seen = self._replica.state().seen
        return None if seen is None else str(Checkpoint.of(seen))

    async def pull(self, patience: Patience | None = None) -> SyncReport:
        """As `SyncEngine.pull`; given up past the patience of a caller who can go on without."""
        if patience is None:
            return await self._run("pull", self._engine.pull)
        return await self._run("pull", partial(patience.until_answered, self._engine.pull))

    async def push(self) -> SyncReport:
        """As `SyncEngine.push`. A compaction may follow, which nobody waits for."""
        return await self._run("push", self._engine.push)

    async def sync(self) -> SyncReport:
        """Pull, then push."""
        return await self._run("sync", self._engine.sync)

    async def repair(self, *, force: bool, drop_unknown: bool) -> RepairReport:
        """As `SyncEngine.repair`."""
        again = partial(self._engine.repair, force=force, drop_unknown=drop_unknown)
        return await self._run("sync", again)

    async def check_erasable(self) -> None:
        """Return if the project is one in which something can be erased.

        Raises:
            NotInLogModeError: it commits by log.
            NetworkError: that is not known, and the store could not be asked.
        """
        await self._engine.check_erasable()

    async def erase(self) -> SyncReport:
        """As `SyncEngine.erase`."""
        return await self._run("sync", self._engine.erase)

    async def reembed(self, space: VectorSpace) -> SyncReport:
        """As `SyncEngine.reembed`."""
        return await self._run("sync", partial(self._engine.reembed, space))

    async def publish_vectors(self) -> int:
        """As `SyncEngine.publish_vectors`."""
        async with self._turn:
            return await self._engine.publish_vectors()

    async def delete(self) -> SyncReport:
        """As `SyncEngine.delete`."""
        return await self._run("sync", self._engine.delete)

    async def rewrite(self) -> int:
        """As `SyncEngine.rewrite`."""
        async with self._turn:
            return await self._engine.rewrite()

    def stop(self, error: Exception) -> None:
        """Show that nothing is exchanged in the background any more, and why."""
        if isinstance(error, MossError):
            self._trouble = Trouble(True, str(error), error.code, error.hint)
        else:
            reason = f"{type(error).__name__}: {error}"
            self._trouble = Trouble(True, reason, MossError.default_code, None)

    def abandon(self) -> None:
        """End what runs in the background without pushing: nobody holds the session any more."""
        if self._auto is not None:
            self._file.ignore(self._auto.written)
            self._auto.abandon()

    async def close(self, seconds: float) -> SyncState:
        """End; push what the background has not pushed yet, if that takes no longer than this."""
        if self._auto is not None:
            await self._auto.close(seconds)
            self._file.ignore(self._auto.written)
        self._closed = True
        await self._finish_upkeep()
        end = self._at_the_end = await runtime.blocking(self.state)
        if end.pending and self._auto is not None:
            log.warning(
                "session %r is closed with %d changes not pushed (%s); they stay in its file",
                self.name,
                end.pending,
                end.reason or f"not done within {seconds:g} s",
            )
        return end

    async def _finish_upkeep(self) -> None:
        """Leave what follows a push a moment, then cancel it."""
        running, self._upkeep = self._upkeep, None
        if running is None or running.done():
            return
        seconds = PROBE_WAIT_S if self._probing else COMPACTION_WAIT_S
        done, _ = await asyncio.wait([asyncio.wrap_future(running)], timeout=seconds)
        if not done:
            running.cancel()

    async def _run(self, work: Work, exchange: Callable[[], Awaitable[R]]) -> R:
        async with self._turn:
            self._under_way = True
            try:
                report = await exchange()
                await runtime.blocking(self._replica.set_exchanged, self._engine.now_ms())
            except MossError as error:
                self.last_report = error.report
                self._warn(error.report)
                self._trouble = trouble_of(error) or self._trouble
                self._tell(work, error)
                raise
            finally:
                self._under_way = False
            self._trouble, self.last_report = None, report
            self._warn(report)
            self._tell(work, None)
        if self.after is not None and not self._closed:
            self.after()
        idle = self._upkeep is None or self._upkeep.done()
        if (report.sent or report.sent_deletes) and idle and not self._closed:
            self._upkeep = runtime.in_background(self._keep_up())
        return report

    def _warn(self, report: SyncReport | None) -> None:
        """Log what somebody should know even if nobody reads the report."""
        if report is not None and report.older_copy:
            log.warning("session %r: %s", self.name, OLDER_COPY)
        if report is not None and report.quarantined:
            log.warning(
                "session %r: %d documents were set aside; see session.quarantined()",
                self.name,
                report.quarantined,
            )

    async def _unpushed(self) -> int | None:
        return await runtime.blocking(newest_unpushed, self._file)

    def _tell(self, work: Work, error: MossError | None) -> None:
        if self.outcome is not None:
            self.outcome(work, error)

    async def _keep_up(self) -> None:
        """Do what follows a push, which nobody waits for."""
        await self._probe()
        await self._compact()

    async def _probe(self) -> None:
        """Run what is left of the probe's long form, a round at a time."""
        try:
            self._probing = True
            while not self._closed and await self._probe_further():
                log.debug("session %r: its store has passed a round of the probe", self.name)
        except StoreLacksCasError as error:
            self.stop(error)
            log.error("session %r is not pushed any more: %s; %s", self.name, error, error.hint)
        except NetworkError as error:
            log.info("the store of session %r was not probed further: %s", self.name, error)
        except MossError as error:
            log.warning("the store of session %r was not probed further: %s", self.name, error)
        finally:
            self._probing = False

    async def _compact(self) -> None:
        try:
            while not self._closed and await self._engine.compact():
                log.debug("session %r was compacted", self.name)
        except MossError as error:
            # Never needed for correctness, and asked for by nobody; the next push tries again.
            log.warning("session %r was not compacted: %s", self.name, error)
