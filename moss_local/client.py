"""The client: one project on this device, and the way to its sessions."""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from moss_local.arguments import path_of
from moss_local.hosted import HostedApi, check_pin
from moss_local.index_api import IndexApi
from moss_local.lifetime import CLOSE_S, OpenUntilClosed
from moss_local.settings import Settings, resolve
from moss_local.storage.paths import check_name
from moss_local.types import AT_ONCE
from moss_sync import InvalidArgumentError
from moss_sync.commit import Commit
from moss_sync.stores import open_store

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from moss_local.catalog import Catalog
    from moss_local.embedding.base import Progress
    from moss_local.indexes import Indexes
    from moss_local.project import Project
    from moss_local.session import SessionIndex
    from moss_local.types import QueryOptions, Repaired, Rewritten, SearchResult, Synced, Verb
    from moss_sync import SyncReport
    from moss_sync.directory import Directory


class MossClient(IndexApi, HostedApi, OpenUntilClosed[None]):
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
        low_memory: True keeps neither vectors nor words nor metadata in memory (about 2 KB a
            document): the same answers, read from the file at every query. For small devices.
        commit: "log" for a folder that a service replicates (Dropbox, iCloud, OneDrive, Syncthing)
            and for a store that cannot compare and swap; else MOSS_COMMIT, else what
            `moss-local init --commit` wrote. Fixed when the store is first used: by default a
            store is taken as it is, and a new one compares and swaps ("cas").
        at_rest: True for session files that are encrypted on this device with the project key; a
            str to encrypt them with that key instead (from the system's keyring, say), else
            MOSS_AT_REST_KEY. Needs `apsw-sqlite3mc` (docs/at-rest.md). By default files are taken
            as they are: those that the project key encrypts just open.
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
        low_memory: bool = False,
        commit: Commit | None = None,
        at_rest: bool | str | None = None,
    ) -> None:
        super().__init__()
        self._low_memory = low_memory
        self._settings: Settings = resolve(
            project_id,
            project_key,
            store=store,
            data_dir=data_dir,
            cache_path=cache_path,
            commit=commit,
            at_rest=at_rest,
        )
        check_name(self._settings.project_id, what="project id")
        self._store = open_store(self._settings.store)
        self._project: Project | None = None
        self._indexes: Indexes | None = None
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<MossClient {self._settings.project_id!r} store={self._store.url!r}>"

    async def session(
        self,
        index_name: str,
        model_id: str | None = None,
        *,
        artifact_version: str | None = None,
        manifest_sha256: str | None = None,
        auto_load_on_init: bool = True,
        create: bool = True,
        warm_up: bool = True,
        checkpoint: str | None = None,
        auto_sync: float | None = None,
    ) -> SessionIndex:
        """Open a session: the local file at once, and what others pushed if the store answers.

        Offline it opens all the same, and so it does if the store's history cannot be trusted and
        this device has the session already; `session.sync_state` then says so. A store that says
        nothing at all counts as offline after 15 seconds (`moss_local.project.FIRST_ANSWER_S`);
        `auto_load_on_init=False` does not wait, and `auto_sync` then pulls in the background.

        Args:
            index_name: Any non-empty string up to 512 bytes of UTF-8.
            model_id: "moss-minilm" unless the session has another model; "custom" for vectors of
                your own; a folder, or a name in the models directory, for a model of your own.
            auto_load_on_init: False does not pull; local documents are there anyway.
            artifact_version, manifest_sha256: How the hosted SDK pins a model; they are refused.
                Here its vectors have a fingerprint, and its files a hash, that are checked.
            create: False opens only a session that is on this device or in the store.
            auto_sync: Exchange in the background while the session is open: pull every so many
                seconds, push what was written once it is quiet. None leaves it to the caller.
            warm_up: False loads the model when it is first needed, not in the background now.
            checkpoint: What `session.checkpoint()` gave on another device. A store that shows this
                device an older state, or another history, is then refused, also the first time.
        Raises:
            NotFoundError: there is no such session, and none may be created.
            NetworkError: the same could not be found out. `create=False` asks the store also with
                `auto_load_on_init=False` where the session is not on this device.
            UnauthorizedError: the key is not this project's; nothing was written. A device that is
                new and offline cannot know yet: its first contact with the store tells. A key that
                was right here and was rotated elsewhere opens what this device has:
                `session.sync_state` then says "stopped", with code and hint.
            ModelMismatchError: (a ValueError) the session has vectors of another model; nothing
                was written.
            ModelNotFoundError: there is no such model on this machine.
            HistoryError: the store contradicts what this device has seen, or the checkpoint.
            InvalidArgumentError: the checkpoint is none, or too old to tell.
            RuntimeError: the client is closed.
        """
        self._check_open()
        check_pin(artifact_version, manifest_sha256)
        return await self._opened().session(
            index_name,
            model_id,
            pull=auto_load_on_init,
            create=create,
            warm_up=warm_up,
            checkpoint=checkpoint,
            auto_sync=auto_sync,
        )

    async def query_multi(
        self,
        sessions: Sequence[SessionIndex | str],
        query: str,
        options: QueryOptions | None = None,
    ) -> SearchResult:
        """Search several open sessions together, such as a live call's and long-term ones.

        The text is embedded once and the sessions are read at once. `top_k` is of all of them, 10
        unless given; every result names its session in `index_name`. Filter, grouping and
        `min_score` apply as in `SessionIndex.query`; groups do not reach across sessions.

        Args:
            sessions: Open sessions, or names of sessions that are open on this client.
            query: Any text; with `alpha=0.0` nothing is embedded, and scores are 0.0.
        Raises:
            InvalidArgumentError: no session was named, an option is wrong, or the sessions have
                vectors of different models.
            NotFoundError: a session of that name is not open.
            ModelNotFoundError: the sessions' model is not on this machine.
        """
        self._check_open()
        return await self._opened().query_several(sessions, query, options)

    async def import_session(
        self, path: str | os.PathLike[str], index_name: str | None = None
    ) -> SessionIndex:
        """Open a session and take over what `SessionIndex.export` wrote to a file.

        Args:
            index_name: The session; None: the one of the name that it had where it was exported.
        Raises:
            SnapshotCorruptError: the file is damaged, or is none of `export`; nothing was changed.
            MossError: as `session` and `SessionIndex.import_from`; nothing was changed.
        """
        self._check_open()
        return await self._opened().import_session(path_of(path, "path"), index_name)

    async def local_sessions(self) -> Catalog:
        """Return what sessions there are on this device; asks no store and needs no model."""
        self._check_open()
        return await self._opened().local_sessions()

    async def stored_sessions(self) -> Directory:
        """Return what sessions there are in the store; writes nothing.

        Raises:
            UnauthorizedError: the key is not this project's.
            NetworkError: the store could not be reached.
        """
        self._check_open()
        return await self._opened().stored_sessions()

    async def sync_sessions(
        self,
        index_names: Iterable[str] | None = None,
        *,
        exchange: Verb = "sync",
        at_once: int = AT_ONCE,
        progress: Progress | None = None,
    ) -> list[Synced]:
        """Exchange many sessions, so many at a time; by default all, here and in the store.

        For all, the store is asked once per thousand sessions what has changed, and a session that
        has not changed there nor here costs nothing more; its `sync_state` goes on giving the time
        of its last exchange. (With `commit="log"` no listing tells that, and each is exchanged.)
        Sessions that only the store has are fetched. One that fails stands in the way of no other;
        its error is in the result. When the store has failed 8 times in a row, and as often as
        sessions run at a time, the rest is not tried.

        Args:
            index_names: Exchange these, whether or not they have changed; none is created.
            exchange: "sync" (pull, then push), "pull", or "push"; all are then those that have
                something to push, and nobody asks the store first.
            at_once: From 1 to 64.
            progress: Called with (sessions done, sessions in all); what it raises ends the round.
        Returns:
            One result for each different name, in the order given, or of all in order of name;
            then one for each file, and each manifest, that does not tell its name.
        Raises:
            InvalidArgumentError: an argument is wrong; nothing was exchanged.
            UnauthorizedError: the key is not the one that this project was opened with here, or
                does not open the store.
            NetworkError, PermissionDeniedError: the store could not be asked what it has; nothing
                was exchanged. Not where names are given: then each says so.
            MossError: the store has sessions and not their keys, or is another one than before
                (as in `stored_sessions`); nothing was exchanged.
        """
        self._check_open()
        if isinstance(index_names, str):
            raise InvalidArgumentError(
                "sync_sessions takes a list of names, not one str",
                hint=f"write [{index_names!r:.60}]",
            )
        names = None if index_names is None else list(index_names)
        return await self._opened().sync_sessions(
            names, exchange, lambda: self._closed, at_once=at_once, progress=progress
        )

    async def rotate_key(self, new_key: str | None = None) -> int:
        """Seal under a new root key from now on, opened by `new_key`; return the key epoch.

        What was sealed before stays as it is, and readable with the new key: `rewrite_sessions`
        seals it anew. Devices that have the old key are told so when they meet what is new; they
        go on with what they have, lose nothing, and exchange again once they have the new one:
        there this call with the key of the rotation takes it over.

        Args:
            new_key: Keep it safe before you call: if no answer comes, it may be the one that
                counts. Calling again with the same one finds out and ends it. None leaves the
                project key as it is.
        Raises:
            NotFoundError: nothing of this project was ever pushed to the store.
            UnauthorizedError: the key is not this project's, or no longer.
            ContentionError: another device rotated at the same moment; this rotation did not
                happen.
            OutcomeUnknownError: (a NetworkError) it is not known whether it has happened.
            UnsupportedFormatError: the repository may only be read by this version.
        """
        self._check_open()
        epoch = await self._opened().rotate_key(new_key)
        if new_key is not None:
            self._settings = replace(self._settings, project_key=new_key)
        return epoch

    async def encrypt_at_rest(self) -> int:
        """Encrypt the session files of this project on this device; return how many were not yet.

        With `at_rest` if that is a key, else with the project key. Later clients need say nothing
        where the project key opens them. The bytes of before may stay on the disk until something
        overwrites them.

        Raises:
            FileBusyError: a session is open, here or in another process.
            CiphersMissingError: the installed `apsw` cannot encrypt; the hint has the command.
            UnauthorizedError: some are encrypted already, with another key.
            FileCorruptError: one is damaged; call again once that is mended.
            DiskFullError: there is no room for a copy of a file; call again.
        """
        self._check_open()
        return await self._opened().encrypt_at_rest()

    async def decrypt_at_rest(self) -> int:
        """Decrypt the session files of this project on this device; return how many were.

        Raises as `encrypt_at_rest`.
        """
        self._check_open()
        return await self._opened().decrypt_at_rest()

    async def change_at_rest_key(self, new: str | None = None, *, old: str | None = None) -> bool:
        """Let another key open this device's encrypted files; return whether there are any.

        Quick: session files stay as they are, and may be open. `rotate_key` does it by itself.

        Args:
            new: The app's key; None for the project key.
            old: What opens them now: a key of the app's or the project's key of before. None if
                this client's does.
        Raises:
            UnauthorizedError: the old key does not open them.
        """
        self._check_open()
        return await self._opened().change_at_rest_key(new, old=old)

    async def rewrite_sessions(self) -> list[Rewritten]:
        """Seal anew every stored session of which something is under the key of before a rotation.

        Sessions that are not on this device are pulled first. One that fails stands in the way of
        no other; its error is in the result. Where none has failed, nothing that is sealed under
        an older key counts any more, on any device: manifests and segments of before a rotation
        are refused from then on, whoever puts them back. What no key of the project opens is in the
        result with an error and `left_out`, and keeps no older key valid.

        Raises:
            UnauthorizedError: the key is not this project's.
            NetworkError: the store could not be reached.
        """
        self._check_open()
        return await self._opened().rewrite_sessions()

    async def delete_session(self, index_name: str, *, local_only: bool = False) -> SyncReport:
        """Delete a session: in the store, and so on every device, then its file here.

        Objects that this client has open of it are closed. Other devices drop its documents with
        their next exchange; what they had not pushed is set aside there, and they are told. A
        session of the same name can be created again, and remembers nothing. Damaged files that
        repairs have moved aside go too.

        Args:
            local_only: Delete this device's file only; what was not pushed from here is lost.
        Raises:
            NotFoundError: there is no such session, here or in the store.
            NetworkError: the store could not be reached; nothing was deleted.
            FileBusyError: another process has it open. It is deleted in the store; the file is
                left to that process, without documents.
            NotInLogModeError: the project commits by log, where sessions cannot be deleted.
            HistoryError: the store contradicts what this device has seen; nothing was deleted.
        """
        self._check_open()
        return await self._opened().delete_session(index_name, local_only=local_only)

    async def repair_sessions(
        self, *, force: bool = False, drop_unknown: bool = False
    ) -> list[Repaired]:
        """Repair every session that is on this device; see `repair_session`.

        One that fails stands in the way of no other; its error is in the result.

        Raises:
            UnauthorizedError: the key is not this project's.
        """
        self._check_open()
        return await self._opened().repair_sessions(force=force, drop_unknown=drop_unknown)

    async def repair_session(
        self, index_name: str, *, force: bool = False, drop_unknown: bool = False
    ) -> Repaired:
        """Repair a session: its file on this device, where that is damaged, and then the store.

        A damaged file is moved aside. What was pushed is pulled again; what was not, and can still
        be read and has the digest that its writer gave it, is written again, or set aside where
        something newer stands against it (`session.quarantined`). The local history and what
        nobody can read are lost. What is cut off is ended by the same call. For the store see
        `SessionIndex.repair`.

        Args:
            force, drop_unknown: As for `SessionIndex.repair`.
        Returns:
            What was done; a failure is its `error`.
        """
        self._check_open()
        check_name(index_name)
        return await self._opened().repair_session(
            index_name, force=force, drop_unknown=drop_unknown
        )

    async def check_key(self) -> int:
        """Make sure that the key opens what the store holds now; return its key epoch.

        Raises:
            NotFoundError: nothing of this project was ever pushed to the store.
            UnauthorizedError: the key is not this project's, or no longer.
            NetworkError: the store could not be reached.
        """
        self._check_open()
        return await self._opened().check_key()

    async def close(self, timeout: float = CLOSE_S) -> None:  # noqa: ASYNC109  # it ends well
        """Close every session, as `SessionIndex.close` does, and the store; idempotent.

        Args:
            timeout: Seconds for all sessions together.
        """
        await super().close(timeout)

    async def _close(self, seconds: float) -> None:
        try:
            if self._indexes is not None:
                await self._indexes.close(seconds)
            if self._project is not None:
                await self._project.close_sessions(seconds)
        finally:
            await self._store.close()

    def _opened(self) -> Project:
        from moss_local.project import Project  # the heavy half, when it is first needed

        with self._lock:
            if self._project is None:
                self._project = Project(
                    self._settings,
                    self._store,
                    default_model=self.DEFAULT_MODEL_ID,
                    low_memory=self._low_memory,
                )
            return self._project

    def _index(self) -> Indexes:
        self._check_open()
        project = self._opened()
        from moss_local.indexes import Indexes

        with self._lock:
            if self._indexes is None:
                self._indexes = Indexes(project, default_model=self.DEFAULT_MODEL_ID)
            return self._indexes

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("MossClient is closed")
