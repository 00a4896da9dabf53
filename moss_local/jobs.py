"""Work that nobody waits for yet, under a name that can be asked about later.

A job lives as long as its client. What a push committed needs no memory of ours: its id names the
session and the commit, and the store tells whether that commit is there.
"""

from __future__ import annotations

import asyncio
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from datetime import UTC, datetime
from typing import Any

from moss_local.index_types import JobPhase, JobStatus, JobStatusResponse
from moss_local.runtime import runtime
from moss_sync import MossError, NotFoundError
from moss_sync.clock import Clock

MAX_ENDED = 1000
"""Jobs that have ended and can still be asked about; the oldest are forgotten first."""

ID_BYTES = 12

_PUSH = re.compile(r"push-([a-z0-9]+)-([0-9]+)")


class Job:
    """One job. Safe to read from any thread."""

    def __init__(self, id: str, now_ms: int) -> None:
        self.id = id
        self.status = JobStatus.PENDING_UPLOAD
        self.phase: str | None = JobPhase.QUEUED
        self.progress = 0.0
        self.error: MossError | None = None
        self.created_ms = self.updated_ms = now_ms
        self.completed_ms: int | None = None
        self.ended = Future[None]()
        self.running: Future[None] | None = None

    def response(self) -> JobStatusResponse:
        """Return where it stands."""
        return JobStatusResponse(
            self.id,
            JobStatus(self.status),
            self.progress,
            None if self.phase is None else JobPhase(self.phase),
            None if self.error is None else str(self.error),
            iso(self.created_ms),
            iso(self.updated_ms),
            None if self.completed_ms is None else iso(self.completed_ms),
        )


Report = Callable[[str, str, float], None]
"""Called by a job with its status, phase and progress, 0.0 to 100.0; from any thread."""


class Jobs:
    """The jobs of one client."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._jobs: OrderedDict[str, Job] = OrderedDict()

    def start(self, work: Callable[[Report], Coroutine[Any, Any, object]]) -> str:
        """Start `work` on the library's loop and return the job's id."""
        job = Job(f"job-{self._clock.token(ID_BYTES).hex()}", self._clock.wall_ms())
        with self._lock:
            self._jobs[job.id] = job
            ended = [id for id, each in self._jobs.items() if each.ended.done()]
            for id in ended[: max(0, len(ended) - MAX_ENDED)]:
                del self._jobs[id]
        job.running = runtime.in_background(self._run(job, work))
        return job.id

    def get(self, id: str) -> Job | None:
        """Return the job of this id, if it is one of these."""
        with self._lock:
            return self._jobs.get(id)

    async def wait(self, job: Job, seconds: float) -> JobStatusResponse:
        """Wait for the end of a job.

        Raises:
            TimeoutError: it has not ended; it goes on.
            MossError: it failed.
        """
        # What a caller cancels, or stops waiting for, is a future of its own.
        mine = Future[None]()
        job.ended.add_done_callback(lambda _: _tell(mine))
        try:
            async with asyncio.timeout(seconds):
                await asyncio.wrap_future(mine)
        except TimeoutError:
            raise TimeoutError(
                f"Moss job {job.id} has not ended after {seconds:g} seconds; it goes on"
            ) from None
        if job.error is not None:
            raise failed(job.id, job.error) from job.error
        return job.response()

    async def close(self, seconds: float) -> None:
        """Leave running jobs so much time, then cancel them."""
        with self._lock:
            running = [job for job in self._jobs.values() if not job.ended.done()]
        waited = [asyncio.wrap_future(job.running) for job in running if job.running is not None]
        if waited:
            await asyncio.wait(waited, timeout=seconds)
        for job in running:
            if job.running is not None:
                job.running.cancel()

    async def _run(self, job: Job, work: Callable[[Report], Coroutine[Any, Any, object]]) -> None:
        def report(status: str, phase: str, progress: float) -> None:
            job.status, job.phase, job.progress = status, phase, progress
            job.updated_ms = self._clock.wall_ms()

        try:
            await work(report)
        except MossError as error:
            job.error = error
        except asyncio.CancelledError:
            job.error = MossError("the client was closed before the job had ended")
            raise
        except Exception as error:
            job.error = MossError(f"{type(error).__name__}: {error}")
            raise
        finally:
            job.updated_ms = job.completed_ms = self._clock.wall_ms()
            job.phase = None
            if job.error is None:
                job.status, job.progress = JobStatus.COMPLETED, 100.0
            else:
                job.status = JobStatus.FAILED
            job.ended.set_result(None)


def failed(id: str, error: MossError) -> MossError:
    """Return the error that waiting for a job raises when `error` ended it."""
    outer = MossError(f"Moss job {id} failed: {error}", hint=error.hint)
    outer.code = error.code
    return outer


def push_of(id: str) -> tuple[str, int]:
    """Return (session id in the store, commit) that the id of a push names.

    Raises:
        NotFoundError: it is the id of nothing that this client knows of.
    """
    found = _PUSH.fullmatch(id) if isinstance(id, str) else None
    if found is None:
        raise NotFoundError(
            f"there is no job {id!r:.80}",
            hint="jobs of create_index(..., wait=False) are known to the client that started them",
        )
    return found[1], int(found[2])


def committed(id: str, at_ms: int) -> JobStatusResponse:
    """Return the status of a push that is in the store."""
    at = iso(at_ms)
    return JobStatusResponse(id, JobStatus(JobStatus.COMPLETED), 100.0, None, None, at, at, at)


def iso(wall_ms: int) -> str:
    """Return a time as ISO 8601, UTC, to the millisecond."""
    moment = datetime.fromtimestamp(wall_ms / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _tell(future: Future[None]) -> None:
    if future.set_running_or_notify_cancel():
        future.set_result(None)
