"""The engine that fits a repository: which one is known once its `fmt` is.

A repository commits by compare-and-swap or by log, for ever; what a session is asked to do is
handed to the one engine that does it there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol

from moss_sync.commit import Commit
from moss_sync.errors import MossError
from moss_sync.record import VectorSpace
from moss_sync.report import RepairReport, SyncReport
from moss_sync.repository import Mended, Repository
from moss_sync.traffic import metered


class Engine(Protocol):
    """Exchanges one replica's records with everybody else's; see SyncEngine."""

    def now_ms(self) -> int:
        """The wall clock in milliseconds since 1970, corrected by what the store has said."""
        ...

    async def pull(self) -> SyncReport:
        """Merge what others have published."""
        ...

    async def push(self) -> SyncReport:
        """Publish every local change."""
        ...

    async def sync(self) -> SyncReport:
        """Pull, then push."""
        ...

    async def compact(self) -> bool:
        """Tidy up, if it is time to; return whether it was done and more may be to do."""
        ...

    async def rewrite(self) -> int:
        """Seal anew what stands under the keys of before a rotation; return how often it merged."""
        ...

    async def repair(self, *, force: bool = True, drop_unknown: bool = False) -> RepairReport:
        """Put the session together anew."""
        ...

    async def check_erasable(self) -> None:
        """Raise NotInLogModeError where nothing can be erased."""
        ...

    async def erase(self) -> SyncReport:
        """Rewrite the session without what was replaced, and delete what held it."""
        ...

    async def reembed(self, space: VectorSpace) -> SyncReport:
        """Move the session to another vector space."""
        ...

    async def publish_vectors(self) -> int:
        """Put the vectors that this device has made into the store."""
        ...

    async def delete(self) -> SyncReport:
        """Delete the session for everybody."""
        ...


class EitherEngine:
    """An Engine that becomes the right one when the repository is first heard of.

    Args:
        make: Makes the engine of a mode; called at most once for each.
    """

    def __init__(self, repository: Repository, make: Callable[[Commit], Engine]) -> None:
        self._repository = repository
        self._make = make
        self._made: dict[Commit, Engine] = {}

    def now_ms(self) -> int:
        for engine in self._made.values():
            return engine.now_ms()  # which knows what its session was last committed at
        return self._repository.time.now_ms()

    async def pull(self) -> SyncReport:
        return await self._exchange("pull")

    async def push(self) -> SyncReport:
        return await self._exchange("push")

    async def sync(self) -> SyncReport:
        return await self._exchange("sync")

    async def compact(self) -> bool:
        return await (await self._engine()).compact()

    async def rewrite(self) -> int:
        return await (await self._engine()).rewrite()

    async def repair(self, *, force: bool = True, drop_unknown: bool = False) -> RepairReport:
        # A store that was emptied says nothing of itself; what is remembered of it does.
        mended = Mended()
        if drop_unknown or not await self._repository.is_known():
            mended = await self._repository.mend(drop_unknown=drop_unknown)
        engine = await self._engine()
        report = await engine.repair(force=force, drop_unknown=drop_unknown)
        report.keys_restored = report.keys_restored or mended.restored
        report.aside = (*mended.aside, *report.aside)
        return report

    async def check_erasable(self) -> None:
        await (await self._engine()).check_erasable()

    async def erase(self) -> SyncReport:
        return await (await self._engine()).erase()

    async def reembed(self, space: VectorSpace) -> SyncReport:
        return await (await self._engine()).reembed(space)

    async def publish_vectors(self) -> int:
        return await (await self._engine()).publish_vectors()

    async def delete(self) -> SyncReport:
        return await (await self._engine()).delete()

    async def _exchange(self, verb: Literal["pull", "push", "sync"]) -> SyncReport:
        """Run one exchange; what it cost to find out which engine is part of its cost."""
        report = SyncReport()
        try:
            with metered() as meter:
                engine = await self._engine()
        except MossError as error:
            error.report = report
            raise
        finally:
            report.requests = meter.requests
            report.bytes_received = meter.bytes_received
        verbs = {"pull": engine.pull, "push": engine.push, "sync": engine.sync}
        try:
            done = await verbs[verb]()
        except MossError as error:
            if error.report is not None:
                _add_cost(error.report, report)
            raise
        _add_cost(done, report)
        return done

    async def _engine(self) -> Engine:
        mode = await self._repository.mode()
        if mode not in self._made:
            self._made[mode] = self._make(mode)
        return self._made[mode]


def _add_cost(report: SyncReport, before: SyncReport) -> None:
    report.requests += before.requests
    report.bytes_received += before.bytes_received
