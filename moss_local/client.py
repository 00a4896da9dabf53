"""The client: one project on this device, and the way to its sessions."""

from __future__ import annotations

import os
import threading
from types import TracebackType
from typing import ClassVar, Self

from moss_local.embedding.models import resolve_model
from moss_local.model_choice import ModelChoice
from moss_local.runtime import runtime
from moss_local.session import SessionIndex
from moss_local.settings import Settings, resolve
from moss_local.storage.file import SessionFile, open_session_file
from moss_local.storage.paths import check_name, project_path, session_path
from moss_local.storage.project_cache import ProjectCache
from moss_local.storage.push_lock import push_lock
from moss_local.storage.replica import SqliteReplica
from moss_sync.clock import SystemClock
from moss_sync.engine import SyncEngine
from moss_sync.repository import Repository
from moss_sync.stores import open_store


class MossClient:
    """One project: its sessions on this device, exchanged through one store.

    Making a client touches neither network nor disk. It may be used from several event loops and
    threads.

    Args:
        project_id: Names the project; else MOSS_PROJECT_ID, else what `moss-local init` wrote.
        project_key: Opens it; else MOSS_PROJECT_KEY, else what `moss-local init` wrote. It never
            leaves this device.
        store: Where devices meet: a folder, `s3://bucket/prefix?endpoint_url=…`, `memory://name`;
            else MOSS_STORE, else the folder `store` in the data directory.
        data_dir: Where this device keeps its session files; else MOSS_DATA_DIR, else the user's
            data directory.
        cache_path: Where derived files go that may be deleted at any time; else the user's cache
            directory.
    Raises:
        UnauthorizedError: there is no project id, or no key.
        InvalidArgumentError: an argument is wrong; the message names it.
    """

    DEFAULT_MODEL_ID: ClassVar[str] = "moss-minilm"

    def __init__(
        self,
        project_id: str | None = None,
        project_key: str | None = None,
        *,
        store: str | os.PathLike[str] | None = None,
        data_dir: str | os.PathLike[str] | None = None,
        cache_path: str | os.PathLike[str] | None = None,
    ) -> None:
        self._settings: Settings = resolve(
            project_id, project_key, store=store, data_dir=data_dir, cache_path=cache_path
        )
        check_name(self._settings.project_id, what="project id")
        self._clock = SystemClock()
        self._store = open_store(self._settings.store)
        self._repository = Repository(
            self._store,
            self._settings.project_id,
            self._settings.project_key,
            cache=ProjectCache(project_path(self._settings.data_dir, self._settings.project_id)),
            clock=self._clock,
            run=runtime.blocking,
        )
        self._sessions: set[SessionIndex] = set()
        self._lock = threading.Lock()
        self._closed = False

    def __repr__(self) -> str:
        return f"<MossClient {self._settings.project_id!r} store={self._store.url!r}>"

    async def session(
        self,
        index_name: str,
        model_id: str | None = None,
        *,
        auto_load_on_init: bool = True,
    ) -> SessionIndex:
        """Open a session: the local file at once, and what others pushed if the store answers.

        Offline it opens all the same; `session.sync_state` then says so.

        Args:
            index_name: Any non-empty string up to 512 bytes of UTF-8.
            model_id: "moss-minilm" unless the session has another model; "custom" for vectors of
                your own; a folder, or a name in the models directory, for a model of your own.
            auto_load_on_init: False does not pull; local documents are there anyway.
        Raises:
            UnauthorizedError: the key is not this project's; nothing was written.
            ModelMismatchError: (a ValueError) the session has vectors of another model; nothing
                was written.
            ModelNotFoundError: there is no such model on this machine.
            RuntimeError: the client is closed.
        """
        self._check_open()
        check_name(index_name)
        default = resolve_model(self.DEFAULT_MODEL_ID)
        wanted = None if model_id is None else resolve_model(model_id)
        model = ModelChoice(index_name, wanted, default)
        await runtime.on_loop(self._repository.check_key())
        path = session_path(self._settings.data_dir, self._settings.project_id, index_name)
        file: SessionFile = await runtime.blocking(open_session_file, path, session=index_name)
        replica = SqliteReplica(file)
        engine = SyncEngine(
            self._repository,
            replica,
            index_name,
            clock=self._clock,
            run=runtime.blocking,
            exclusive=lambda: push_lock(path),
            accepts=model.accepts,
        )
        session = SessionIndex(
            name=index_name,
            file=file,
            replica=replica,
            engine=engine,
            clock=self._clock,
            model=model,
            closed=self._forget,
        )
        with self._lock:
            self._sessions.add(session)
        try:
            await session._open(pull=auto_load_on_init)
        except BaseException:
            await session.close()
            raise
        return session

    async def close(self) -> None:
        """Close every session and the store; idempotent. What is not pushed stays pending."""
        await runtime.on_loop(self._close())

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
        runtime.start(self._close()).result()

    async def _close(self) -> None:
        """On the library's loop."""
        if self._closed:
            return
        self._closed = True
        with self._lock:
            sessions = list(self._sessions)
        for session in sessions:
            await session._close()
        await self._store.close()

    def _forget(self, session: SessionIndex) -> None:
        with self._lock:
            self._sessions.discard(session)

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("MossClient is closed")
