"""Indexes: sessions that were created, as the store holds them, and those that are loaded.

An index and a session of one name are the same documents in the same file. What the index API adds
is how it looks at them: a mutation is committed when it returns, a read asks the store first, and
a query is of an index that was loaded, whose file then stays open. A loaded index is refreshed by
merging into that file in one transaction, so a query sees one state or the next, and never waits.

Rules of this file: the coroutines that change which indexes are loaded run on the library's loop
(`moss_local.runtime`), one at a time for each name; the others run on the caller's.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager
from dataclasses import dataclass

from moss_local.embedding.models import resolve_model
from moss_local.errors import AlreadyExistsError, FileBusyError
from moss_local.file_input import ParseFileInput, ParseOptions, read_files
from moss_local.index_types import (
    IndexInfo,
    IndexStatus,
    JobPhase,
    JobStatus,
    JobStatusResponse,
    LoadIndexesResult,
    ModelRef,
    MutationResult,
)
from moss_local.ingest import (
    Cutting,
    DocsInput,
    Given,
    as_they_are,
    check_own_vectors,
    check_uncut,
    read_given,
)
from moss_local.jobs import Jobs, Report, committed, iso, push_of
from moss_local.model_choice import CUSTOM_ID
from moss_local.options import choose_upsert
from moss_local.project import Project
from moss_local.querying import query_several
from moss_local.runtime import runtime
from moss_local.session import SessionIndex
from moss_local.storage.paths import check_name
from moss_local.types import (
    DocumentInfo,
    GetDocumentsOptions,
    MutationOptions,
    QueryOptions,
    SearchResult,
)
from moss_sync import (
    InvalidArgumentError,
    KeyRotatedError,
    MossError,
    NetworkError,
    NotFoundError,
    PermissionDeniedError,
)
from moss_sync.clock import Clock, SystemClock
from moss_sync.stored_session import StoredSession
from moss_sync.times import bounded

log = logging.getLogger("moss_local")

LOADS_AT_ONCE = 8
"""Indexes that `load_indexes`, and a listing that must read some, work on at the same time."""

_OUT_OF_REACH = (NetworkError, PermissionDeniedError, KeyRotatedError)
"""Where the store is out of reach, what this device has of an index is served."""

LEAST_INTERVAL_S = 1.0
"""Between two refreshes; what is less is raised to it, as in the hosted SDK."""


@dataclass(slots=True)
class _Loaded:
    """A loaded index.

    Attributes:
        stale: The store has not answered since it was loaded.
        poller: What refreshes it; None where nobody asked for that.
    """

    session: SessionIndex
    stale: bool
    poller: Future[None] | None = None


class Indexes:
    """The indexes of one client."""

    def __init__(self, project: Project, *, default_model: str, clock: Clock | None = None) -> None:
        clock = SystemClock() if clock is None else clock
        self._project = project
        self._clock = clock
        self._default_model = default_model
        self._jobs = Jobs(clock)
        self._loaded: dict[str, _Loaded] = {}
        self._lock = threading.Lock()
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._turns: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()

    # -- mutations -------------------------------------------------------------------------

    async def create(
        self, name: str, docs: DocsInput, model_id: str | None, cutting: Cutting
    ) -> MutationResult:
        """Create an index and wait for it; see `MossClient.create_index`."""
        given = await self._given(docs, model_id, cutting)
        await self._check_new(name)
        return await self._create(name, given, model_id, cutting, lambda *_: None)

    async def start_create(
        self, name: str, docs: DocsInput, model_id: str | None, cutting: Cutting
    ) -> str:
        """Begin to create an index; return the job's id."""
        given = await self._given(docs, model_id, cutting)
        await self._check_new(name)
        return self._jobs.start(lambda report: self._create(name, given, model_id, cutting, report))

    async def create_from_files(
        self,
        name: str,
        files: Iterable[ParseFileInput],
        model_id: str | None,
        options: ParseOptions | None,
    ) -> MutationResult:
        """Create an index of files; see `MossClient.create_index_from_files`."""
        given = await runtime.blocking(read_files, files, options)
        await self._check_new(name)
        model = model_id or self._default_model
        return await self._create(name, given, model, Cutting(), lambda *_: None)

    async def _given(self, docs: DocsInput, model_id: str | None, cutting: Cutting) -> list[Given]:
        """Return what was given for a new index, once what can be said against it is."""
        cutting.check()
        if model_id is not None:
            resolve_model(model_id)
        given = as_they_are(docs)
        if given is None:
            given = await runtime.blocking(read_given, docs, what="create_index")
        return given

    async def _check_new(self, name: str) -> None:
        found = await self._project.find(check_name(name, what="index name"))
        if found is not None and not found.deleted:
            raise AlreadyExistsError(name)

    async def _create(
        self,
        name: str,
        given: Sequence[Given],
        model_id: str | None,
        cutting: Cutting,
        report: Report,
    ) -> MutationResult:
        brought = any(each.document.embedding is not None for each in given)
        model = model_id or (CUSTOM_ID if brought else self._default_model)
        if model == CUSTOM_ID:  # refused before there is a file
            check_uncut(name, cutting)
            check_own_vectors(name, [each.document for each in given])
        # Here the store must answer: what it refuses is refused before anything is written. It
        # also takes the file past an index of this name that was deleted, whatever its model.
        async with self._current(name, known=True):
            pass
        session = await self._project.session(name, model, pull=False, create=True, warm_up=False)
        async with session:

            def progress(done: int, total: int) -> None:
                report(JobStatus.BUILDING, JobPhase.GENERATING_EMBEDDINGS, 90.0 * done / total)

            docs = await session._writer.cut(given, cutting)
            await session.add_docs(docs, progress=progress)
            report(JobStatus.UPLOADING, JobPhase.UPLOADING, 90.0)
            # Another device may have created it meanwhile: then this is an update of it.
            pushed = await session.push_index()
        return MutationResult(pushed.job_id, name, _different(docs))

    async def add(
        self, name: str, docs: DocsInput, options: MutationOptions | None, cutting: Cutting
    ) -> MutationResult:
        """Add documents and publish them; see `MossClient.add_docs`."""
        cutting.check()
        async with self._current(name) as session:
            given = await session._writer.given(docs, cutting)
            added, _ = await session.add_docs(given, options)
            pushed = await session.push_index()
        replaced = choose_upsert(options)
        return MutationResult(pushed.job_id, name, _different(given) if replaced else added)

    async def delete_docs(self, name: str, doc_ids: Iterable[str]) -> MutationResult:
        """Delete documents and publish that; see `MossClient.delete_docs`."""
        async with self._current(name) as session:
            count = await session.delete_docs(doc_ids)
            pushed = await session.push_index()
        return MutationResult(pushed.job_id, name, count)

    async def delete(self, name: str) -> bool:
        """Delete an index for everybody; see `MossClient.delete_index`."""
        await self._require(name)
        await runtime.on_loop(self._unload(name))
        try:
            await self._project.delete_session(name, local_only=False)
        except FileBusyError as error:
            # Deleted for everybody; another client still has the file, which is empty by now.
            log.info("index %r was deleted, and its file is in use: %s", name, error)
        return True

    # -- reads -----------------------------------------------------------------------------

    async def get(self, name: str) -> IndexInfo:
        """Describe an index; see `MossClient.get_index`."""
        return await self._described(await self._require(name))

    async def describe_all(self) -> list[IndexInfo]:
        """Describe every index, in order of name; see `MossClient.list_indexes`."""
        stored = await self._project.stored_sessions()
        if stored.unreadable:
            log.warning("%d sessions in the store cannot be read", len(stored.unreadable))
        gate = asyncio.Semaphore(LOADS_AT_ONCE)

        async def described(session: StoredSession) -> IndexInfo | None:
            async with gate:
                try:
                    return await self._described(session)
                except NetworkError:
                    raise
                except NotFoundError:
                    return None  # deleted since it was listed
                except MossError as error:
                    log.warning("index %r cannot be read: %s", session.name, error)
                    return _info(session, 0, IndexStatus.Failed, self._default_model)

        found = await asyncio.gather(*[described(session) for session in stored.sessions])
        return [info for info in found if info is not None]

    async def get_docs(self, name: str, options: GetDocumentsOptions | None) -> list[DocumentInfo]:
        """Return documents as the store has them now; see `MossClient.get_docs`."""
        async with self._current(name) as session:
            return await session.get_docs(options)

    async def _described(self, stored: StoredSession) -> IndexInfo:
        count = stored.documents
        if count is None:
            async with self._current(stored.name, known=True) as session:
                count = session.doc_count
        return _info(stored, count, IndexStatus.Ready, self._default_model)

    # -- loading ---------------------------------------------------------------------------

    async def load(self, name: str, *, auto_refresh: bool, interval_s: float) -> str:
        """Load an index, or bring a loaded one up to date; see `MossClient.load_index`."""
        check_name(name, what="index name")
        interval_s = max(LEAST_INTERVAL_S, interval_s)
        await runtime.on_loop(self._load(name, auto_refresh, interval_s))
        return name

    async def load_many(
        self, names: Sequence[str], *, auto_refresh: bool, interval_s: float
    ) -> LoadIndexesResult:
        """Load several indexes; see `MossClient.load_indexes`."""
        gate = asyncio.Semaphore(LOADS_AT_ONCE)

        async def load(name: str) -> MossError | None:
            async with gate:
                try:
                    await self.load(name, auto_refresh=auto_refresh, interval_s=interval_s)
                except MossError as error:
                    return error
                return None

        different = list(dict.fromkeys(names))
        outcomes = await asyncio.gather(*[load(name) for name in different])
        result = LoadIndexesResult()
        for name, error in zip(different, outcomes, strict=True):
            if error is None:
                result.loaded.append(name)
            else:
                result.failed[name] = str(error)
                result.failed_codes[name] = error.code
        return result

    async def unload(self, name: str) -> None:
        """Unload an index; see `MossClient.unload_index`."""
        if not await runtime.on_loop(self._unload(name)):
            raise not_loaded(name)

    async def unload_many(self, names: Iterable[str]) -> None:
        """Unload what is loaded of these; see `MossClient.unload_indexes`."""
        for name in list(names):
            await runtime.on_loop(self._unload(name))

    def is_stale(self, name: str) -> bool:
        """Return whether the store has not answered since the index was loaded."""
        return self._the_loaded(name).stale

    # -- queries ---------------------------------------------------------------------------

    async def query(self, name: str, query: str, options: QueryOptions | None) -> SearchResult:
        """Search a loaded index; see `MossClient.query`."""
        return await self._the_loaded(name).session.query(query, options)

    async def query_many(
        self, names: Sequence[str], query: str, options: QueryOptions | None
    ) -> SearchResult:
        """Search several loaded indexes together; see `MossClient.query_multi_index`."""
        sessions = [self._the_loaded(name).session._local for name in names]
        return await query_several(sessions, query, options, now_ms=bounded(self._clock.wall_ms()))

    # -- jobs ------------------------------------------------------------------------------

    async def job_status(self, job_id: str) -> JobStatusResponse:
        """Return where a job stands; see `MossClient.get_job_status`."""
        job = self._jobs.get(job_id)
        return await self._pushed(job_id) if job is None else job.response()

    async def wait_for_job(self, job_id: str, *, seconds: float) -> JobStatusResponse:
        """Wait for the end of a job; see `MossClient.wait_for_job`."""
        job = self._jobs.get(job_id)
        if job is None:
            return await self._pushed(job_id)
        return await self._jobs.wait(job, seconds)

    async def _pushed(self, job_id: str) -> JobStatusResponse:
        """Return the status of a push, by whichever device. A push id is given out when it is in.

        A session that was repaired or created again counts on, so its number never falls back.
        """
        session_id, commit = push_of(job_id)
        found = await self._project.find_by_id(session_id)
        if found is None or found.commits < commit:
            raise NotFoundError(f"the store knows of no push {job_id!r}")
        return committed(job_id, found.committed_ms)

    # -- lifecycle -------------------------------------------------------------------------

    async def close(self, seconds: float) -> None:
        """End refreshing, and leave running jobs so much time. Sessions are the project's."""
        with self._lock:
            loaded = list(self._loaded.values())
            self._loaded.clear()
        for each in loaded:
            _stop(each)
        await self._jobs.close(seconds)

    # -- inside ----------------------------------------------------------------------------

    async def _require(self, name: str) -> StoredSession:
        found = await self._project.find(check_name(name, what="index name"))
        if found is None or found.deleted:
            raise _unknown(name)
        return found

    @asynccontextmanager
    async def _current(self, name: str, *, known: bool = False) -> AsyncIterator[SessionIndex]:
        """Lend the session of an index that exists, as the store has it now.

        Raises:
            NotFoundError: there is no such index.
            NetworkError: the store could not be reached. Nothing was written.
        """
        if not known:
            await self._require(name)
        session = await self._project.session(name, None, pull=False, create=True, warm_up=False)
        async with session:
            await session.pull()
            yield session

    def _the_loaded(self, name: str) -> _Loaded:
        with self._lock:
            found = self._loaded.get(name) if isinstance(name, str) else None
        if found is None:
            raise not_loaded(name)
        return found

    def _turn(self, name: str) -> asyncio.Lock:
        if self._pid != os.getpid():
            self._begin()  # forked off: whoever had a turn is the parent's
        with self._lock:
            return self._turns.setdefault(name, asyncio.Lock())

    async def _load(self, name: str, auto_refresh: bool, interval_s: float) -> None:
        async with self._turn(name):
            with self._lock:
                loaded = self._loaded.get(name)
            if loaded is None:
                loaded = await self._open(name)
                with self._lock:
                    self._loaded[name] = loaded
            else:
                _stop(loaded)
                await self._refresh(name, loaded)
            if auto_refresh or loaded.stale:
                work = _keep_fresh(weakref.ref(self), self._clock.sleep, name, interval_s)
                loaded.poller = runtime.in_background(work)

    async def _open(self, name: str) -> _Loaded:
        """Open an index that the store has; where it does not answer, one that it once had."""
        stale = False
        try:
            await self._require(name)
        except _OUT_OF_REACH as error:
            if not await self._project.was_exchanged(name):
                raise
            log.warning("index %r is served as it was last seen: %s", name, error)
            stale = True
        session = await self._project.session(name, None, pull=False, create=True, warm_up=True)
        try:
            if not stale:
                await session.pull()
        except BaseException:
            await session.close()
            raise
        return _Loaded(session, stale)

    async def _refresh(self, name: str, loaded: _Loaded) -> None:
        try:
            await self._require(name)
            await loaded.session.pull()
        except _OUT_OF_REACH as error:
            log.info("index %r was not refreshed: %s", name, error)
            loaded.stale = True
        except NotFoundError:
            # It was deleted. Its poller, if there is one, ends by itself: it may be what asks.
            with self._lock:
                self._loaded.pop(name, None)
            await loaded.session.close()
            raise
        else:
            loaded.stale = False

    async def refresh(self, name: str) -> bool:
        """Bring a loaded index up to date in the background; return whether to go on doing so."""
        async with self._turn(name):
            with self._lock:
                loaded = self._loaded.get(name)
            if loaded is None or loaded.session._closed:
                return False
            try:
                await self._refresh(name, loaded)
            except NotFoundError as error:
                log.warning("index %r was unloaded: %s", name, error)
                return False
            except MossError as error:
                # Queries go on with what is here; whoever loads it again gets the error.
                log.warning("index %r was not refreshed: %s", name, error)
            return True

    async def _unload(self, name: str) -> bool:
        async with self._turn(name):
            with self._lock:
                loaded = self._loaded.pop(name, None) if isinstance(name, str) else None
            if loaded is None:
                return False
            _stop(loaded)
            await loaded.session.close()
            return True


async def _keep_fresh(
    indexes: weakref.ref[Indexes],
    sleep: Callable[[float], Awaitable[None]],
    name: str,
    interval_s: float,
) -> None:
    """Refresh a loaded index for ever. Between two times it holds nobody's indexes."""
    while True:
        await sleep(interval_s)
        alive = indexes()
        if alive is None or not await alive.refresh(name):
            return
        del alive


def _stop(loaded: _Loaded) -> None:
    poller, loaded.poller = loaded.poller, None
    if poller is not None:
        poller.cancel()


def _different(docs: Sequence[DocumentInfo]) -> int:
    """Return how many documents there are; of an id that comes twice, the last counts."""
    return len({each.id for each in docs})


def _info(stored: StoredSession, documents: int, status: str, default_model: str) -> IndexInfo:
    updated = stored.committed_ms
    created = updated if stored.first_ms is None else stored.first_ms
    return IndexInfo(
        id=stored.session_id,
        name=stored.name,
        version=str(stored.commits),
        status=status,
        doc_count=documents,
        created_at=iso(created),
        updated_at=iso(updated),
        model=ModelRef(stored.model_id or default_model, stored.model_version or ""),
    )


def _unknown(name: str) -> NotFoundError:
    return NotFoundError(
        f"there is no index {name!r}", hint="create it first: await client.create_index(...)"
    )


def not_loaded(name: object) -> MossError:
    """Return the error of a name that is not loaded."""
    if not isinstance(name, str):
        return InvalidArgumentError(f"the name of an index is a str, not {type(name).__name__}")
    return NotFoundError(
        f"index {name!r} is not loaded: call load_index first; queries are answered here and"
        " have no cloud to fall back on",
        hint=f"await client.load_index({name!r:.60})",
    )
