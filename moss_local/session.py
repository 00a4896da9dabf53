"""A session: a named thread of documents on this device, written and searched here.

The file is the truth: an acknowledged write is on disk, and everything that this object answers is
read from there (or from what is kept resident and checked against it), so several objects and
several processes may have one session open. The object only knows how to reach it and which model
the vectors are of; how it stands towards other devices is `moss_local.exchange`'s.
"""

from __future__ import annotations

import logging
import os
import shlex
import weakref
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from moss_local.arguments import path_of
from moss_local.changes import ChangeFeed
from moss_local.chunking import Chunker, Chunking
from moss_local.embedding.base import Progress
from moss_local.embedding.models import Model, resolve_model
from moss_local.exchange import Exchange
from moss_local.fill_in import FillIn
from moss_local.forgetting import forget
from moss_local.ingest import (
    Cutting,
    DocsInput,
)
from moss_local.lifetime import CLOSE_S, OpenUntilClosed
from moss_local.local import Local
from moss_local.model_choice import CUSTOM_ID, ModelChoice
from moss_local.options import choose_get, choose_upsert
from moss_local.querying import query_one
from moss_local.runtime import runtime
from moss_local.search.fetch import fetch, select
from moss_local.snapshots import check_owner, snapshot_path
from moss_local.standing import trouble_of
from moss_local.storage.contents import Taken
from moss_local.storage.documents import StoredDocument, check_id
from moss_local.storage.file import SessionFile
from moss_local.storage.history import StoredVersion, find_version, read_history
from moss_local.storage.quarantine import (
    SetAside,
    read_quarantine,
)
from moss_local.storage.state import read_state
from moss_local.transfer import (
    Plan,
    carry_out,
    check_format,
    check_snapshot,
    export,
    is_portable,
    plan_import,
)
from moss_local.types import (
    DocumentInfo,
    DocumentVersion,
    Exported,
    Forgotten,
    GetDocumentsOptions,
    MutationOptions,
    PushIndexResult,
    QuarantinedEdit,
    QueryOptions,
    Reembedded,
    SearchResult,
    SyncState,
)
from moss_local.writer import Writer
from moss_sync import (
    InvalidArgumentError,
    KeyRotatedError,
    ModelMismatchError,
    MossError,
    NotFoundError,
    NotInLogModeError,
    RepairReport,
    SyncReport,
    UnauthorizedError,
)
from moss_sync.patience import Patience

log = logging.getLogger("moss_local")


class SessionIndex(OpenUntilClosed[SyncState]):
    """One open session. Made by `MossClient.session`; safe for several tasks, loops and threads.

    Attributes:
        name: As it was opened.
    """

    def __init__(
        self,
        *,
        name: str,
        file: SessionFile,
        exchange: Exchange,
        model: ModelChoice,
        low_memory: bool,
        snapshots: Path,
        closed: Callable[[SessionIndex], None],
    ) -> None:
        super().__init__()
        self.name = name
        self._file = file
        self._exchange = exchange
        self._snapshots = snapshots
        self._on_closed = closed
        self._last_model_id = model.id(None)
        self._pid = os.getpid()
        self._local = Local(name, file, model, now_ms=exchange.now_ms, low_memory=low_memory)
        self._writer = Writer(self._local)
        self._fill_in = FillIn(self._local)
        exchange.after = self._fill_in.start
        for end in (exchange.abandon, self._fill_in.stop):
            forgotten = weakref.finalize(self, end)
            forgotten.atexit = False  # the loop ends by itself

    def __repr__(self) -> str:
        if self._closed:
            return f"<SessionIndex {self.name!r} closed>"
        return f"<SessionIndex {self.name!r} docs={self.doc_count} {self.sync_state}>"

    # -- what it is ------------------------------------------------------------------------

    @property
    def doc_count(self) -> int:
        """Documents in the session now, other processes' included."""
        self._check_open()
        return self._local.state().live

    @property
    def model_id(self) -> str:
        """The model of the session's vectors; before the first, the one that they will be of."""
        if not self._closed:
            self._last_model_id = self._local.model_id()
        return self._last_model_id

    @property
    def sync_state(self) -> SyncState:
        """Where the session stands towards its store; once closed, where it stood then."""
        if not self._closed:
            self._check_open()
        return self._exchange.state()

    @property
    def device_id(self) -> str:
        """Which device this copy of the session writes as: 16 hex digits, as in `thread()`."""
        self._check_open()
        return self._local.state().dev.hex()

    @property
    def last_report(self) -> SyncReport | None:
        """What this object's last exchange did and cost, failed ones and the one of opening too."""
        return self._exchange.last_report

    # -- documents -------------------------------------------------------------------------

    async def add_docs(
        self,
        docs: DocsInput,
        options: MutationOptions | None = None,
        *,
        chunker: Chunker | None = None,
        chunking: Chunking | None = None,
        progress: Progress | None = None,
    ) -> tuple[int, int]:
        """Add documents, or replace those whose id is there; on disk when this returns.

        All of them or, on any error, none. Of an id that comes twice, the last counts.

        Args:
            docs: DocumentInfo, mappings and paths, one path, or JSON as text (docs/documents.md).
                Text and Markdown files are cut into chunks `{path}#{n}`.
            chunker: Cuts every text; each chunk is a document `{id}#{n}` of its own.
            chunking: Cut every text, and how; see `Chunking`.
            progress: Called with (texts embedded, texts in all), from another thread.
        Returns:
            (added, updated): ids that were not there, and ids that were.
        Raises:
            InvalidArgumentError: a document cannot be stored; the message names it.
            ModelNotFoundError: the session's model is not on this machine.
            FileBusyError: another process kept the file locked too long.
        """
        self._check_open()
        upsert = choose_upsert(options)
        cutting = Cutting(chunker, chunking)
        cutting.check()
        given = await self._writer.given(docs, cutting)
        return await self._writer.add(given, upsert=upsert, progress=progress)

    async def delete_docs(self, doc_ids: Iterable[str]) -> int:
        """Delete documents and return how many there were; unknown ids are ignored.

        Raises:
            InvalidArgumentError: an id that no document can have; none is deleted.
        """
        self._check_open()
        if isinstance(doc_ids, str):
            raise InvalidArgumentError(
                "delete_docs takes a list of ids, not one str", hint=f"write [{doc_ids!r:.60}]"
            )
        ids = list(doc_ids)
        return await runtime.blocking(self._writer.delete, ids)

    async def get_docs(self, options: GetDocumentsOptions | None = None) -> list[DocumentInfo]:
        """Return documents: all in order of id, or the wanted ones in the order asked for.

        Embeddings are not returned.

        Raises:
            InvalidArgumentError: an option is wrong; of a filter, the message shows which part.
        """
        self._check_open()
        choice = choose_get(options, now_ms=self._exchange.now_ms())
        return await runtime.blocking(fetch, self._file, choice)

    async def thread(self, *, filter: dict[str, Any] | None = None) -> list[StoredDocument]:
        """Return all documents in the order in which they were written, with who and when.

        Args:
            filter: Only documents whose metadata match, see docs/filters.md.
        """
        self._check_open()
        choice = choose_get(GetDocumentsOptions(filter=filter), now_ms=self._exchange.now_ms())
        stored = await runtime.blocking(select, self._file, choice)
        return sorted(stored, key=lambda document: (document.hlc, document.dev))

    # -- search ----------------------------------------------------------------------------

    async def query(self, query: str, options: QueryOptions | None = None) -> SearchResult:
        """Search by meaning and by word; a blank query without an embedding finds nothing.

        Args:
            query: Any text; nothing in it is syntax.
        Raises:
            InvalidArgumentError: an option is wrong, or a "custom" session got no embedding.
            ModelNotFoundError: the session's model is not on this machine. With `alpha=0.0` what
                is found by word is returned all the same, with the score 0.0.
        """
        self._check_open()
        return await query_one(self._local, query, options)

    # -- what was replaced -----------------------------------------------------------------

    async def history(self, id: str | None = None) -> list[DocumentVersion]:
        """Return the current version of a document, then those kept here, replaced last first.

        Kept is what was replaced or deleted here by anybody, and what arrived from others and
        lost: of each document the last few different contents, of the session the last replaced
        (`moss_local.storage.history` has the bounds). It never leaves the device.

        Args:
            id: None: every document of which something is kept, deleted ones too, one after the
                other; the current version is not there where a deletion is long forgotten.
        """
        self._check_open()
        return [_version_of(stored) for stored in await runtime.blocking(self._history, id)]

    async def restore(self, id: str, version: str) -> None:
        """Write a version again as a new edit, which beats the current one; a deletion deletes.

        The text is embedded anew. Where the vectors are your own ("custom") they are kept with
        the versions, and it has the vector that it had.

        Args:
            version: As `history` calls it.
        Raises:
            NotFoundError: the document has no such version, or it is not kept any more.
            InvalidArgumentError: its own vector does not fit the session's any more.
        """
        self._check_open()
        await self._writer.again(await runtime.blocking(self._find_version, id, version))

    async def quarantined(self) -> list[QuarantinedEdit]:
        """Return the changes that were set aside on this device, oldest first.

        They are not in the session, and pushing them by themselves could bring back what others
        deleted: this file was an old copy or damaged, or the session was deleted elsewhere, or
        repaired.
        """
        self._check_open()
        return [_set_aside_of(each) for each in await runtime.blocking(self._quarantine)]

    async def restore_quarantined(self, number: int) -> None:
        """Write a change that was set aside as a new edit, and take it off the list; or neither.

        Raises:
            NotFoundError: there is none of this number.
        """
        self._check_open()
        await self._writer.again_set_aside(number)

    async def discard_quarantined(self, number: int) -> None:
        """Forget a change that was set aside.

        Raises:
            NotFoundError: there is none of this number.
        """
        self._check_open()
        await runtime.blocking(self._writer.discard_set_aside, number)

    # -- in files --------------------------------------------------------------------------

    async def export(self, path: str | os.PathLike[str], format: str = "moss") -> Exported:
        """Write all documents to one file, of this moment and whole or not at all.

        The file is for other programs and devices: `import_from` and `client.import_session` take
        it over. It is readable by this user only, and not encrypted.

        Args:
            path: A file that is there is replaced.
            format: "moss" has the vectors too, and a hash that finds damage; "jsonl" is JSON Lines
                for people and other programs, which `add_docs` reads too.
        Raises:
            InvalidArgumentError: the path is none, or is a folder.
            NotFoundError: there is no such folder.
            DiskFullError, PermissionDeniedError: the file cannot be written.
        """
        self._check_open()
        kind = check_format(format)
        return await runtime.blocking(export, self._file, path_of(path, "path"), kind)

    async def import_from(
        self, path: str | os.PathLike[str], *, progress: Progress | None = None
    ) -> tuple[int, int]:
        """Take over the documents of a file that `export` made; all or, on any error, none.

        They are written as if they had been given to `add_docs`: an id that is there is replaced,
        no other document is deleted, and a document that is there just so is left as it is. Where
        the file's vectors are of the session's model they are taken along; otherwise they are made
        here. JSON Lines and what else `add_docs` reads is given to it.

        Args:
            progress: As in `reembed`, where vectors have to be made.
        Returns:
            (added, updated): ids that were not there, and ids that were and have changed.
        Raises:
            SnapshotCorruptError: the file is damaged.
            ModelMismatchError: (a ValueError) the vectors are the caller's own on one side only.
            ModelNotFoundError: vectors have to be made, and the model is not on this machine.
            NotFoundError, PermissionDeniedError: the file cannot be read.
        """
        self._check_open()
        file = path_of(path, "path")
        if not await runtime.blocking(is_portable, file):
            return await self.add_docs(file, progress=progress)
        taken = await self._take_over(file, replace=False, progress=progress)
        return taken.added, taken.updated

    async def save_to_disk(self, cache_path: str | os.PathLike[str] | None = None) -> None:
        """Write a snapshot: a copy of all documents, to go back to with `load_from_disk`.

        A session is on disk at every moment; nobody needs this in order not to lose anything. An
        interrupted call leaves the snapshot of before.

        Args:
            cache_path: The snapshot is in the folder of the session's name in it; None: as
                `MossClient(cache_path=)` or MOSS_SESSION_CACHE_PATH say, in
                `sessions/<project id>`, else in the data directory.
        Raises:
            InvalidArgumentError: another session's snapshot is there.
            DiskFullError, PermissionDeniedError: it cannot be written.
        """
        self._check_open()
        await runtime.blocking(self._save_snapshot, self._snapshot(cache_path))

    async def load_from_disk(
        self,
        cache_path: str | os.PathLike[str] | None = None,
        *,
        rebuild_legacy: bool = True,
    ) -> int:
        """Go back to a snapshot: the session then has its documents and no others.

        What the snapshot does not have is deleted, what differs is replaced, by edits as any other:
        they are pushed, and what they replaced is in the history. A session that nobody else has
        yet takes the snapshot's model over; one that was exchanged keeps its own.

        Args:
            cache_path: As in `save_to_disk`.
            rebuild_legacy: For callers of the hosted SDK; there are no older snapshots here.
        Returns:
            How many documents the snapshot has.
        Raises:
            SnapshotCorruptError: there is none, it is damaged, or another session's; nothing was
                changed.
            ModelMismatchError, ModelNotFoundError: as in `import_from`; nothing was changed.
        """
        self._check_open()
        path = self._snapshot(cache_path)
        await runtime.blocking(check_snapshot, path, self.name)
        return (await self._take_over(path, replace=True, progress=None)).documents

    # -- exchange --------------------------------------------------------------------------

    async def push_index(self) -> PushIndexResult:
        """Publish what changed here, merging with what others publish; committed on return.

        Raises:
            NetworkError: the store could not be reached. The changes stay pending and go with
                the next push.
            MossError: as in `moss_sync.SyncEngine.push`; nothing is lost. `error.report` says
                what was done until then.
        """
        self._check_open()
        report = await runtime.on_loop(self._exchange.push())
        count = self.doc_count
        return PushIndexResult(
            f"push-{report.session_id}-{report.seq}", self.name, count, report=report
        )

    async def pull(self) -> SyncReport:
        """Merge what others have pushed; one small request when there is nothing new."""
        self._check_open()
        return await runtime.on_loop(self._exchange.pull())

    async def sync(self) -> SyncReport:
        """Pull, then push."""
        self._check_open()
        return await runtime.on_loop(self._exchange.sync())

    async def repair(self, *, force: bool = False, drop_unknown: bool = False) -> RepairReport:
        """Put back into the store what it has lost and this device holds.

        For a store that was emptied, restored from a backup, or has lost or damaged blobs, and for
        one whose history contradicts what this device has seen. A session that a wrong clock has
        put into the future comes back, stamps and all. What the store still has stays;
        the project's keys are put back too. Every other device then adds what it holds, by itself,
        with its next exchange. Repair first where the most is: what a device had not yet pulled
        when the store lost it can only come from another one.

        Where nothing is wrong this is an ordinary exchange, after reading every blob once.

        Args:
            force: Put the session together anew all the same. Every device then sends all of it.
            drop_unknown: Leave out of what the store holds whatever this version does not know:
                keys, features and blobs of a newer one. For a session that asks for an upgrade
                that there is not; where somebody has a newer version, its data in the store goes.
                Also the keys of a rotation that never was, and a session that was damaged before
                this device saw it: it is begun anew with what is here.
        Raises:
            NotFoundError: this device has never seen the session whole, or never used this store.
            StoreChangedError: the store holds another repository; it is left alone.
            NetworkError: the store could not be reached; repair again.
        """
        self._check_open()
        return await runtime.on_loop(self._exchange.repair(force=force, drop_unknown=drop_unknown))

    async def forget(self, ids: Iterable[str]) -> Forgotten:
        """Forget documents for good: deleted everywhere, and their contents erased.

        When this returns, nothing of their texts, metadata, payloads and vectors is left in this
        device's file, history and quarantine included, nor in any blob of the store. A damaged
        file of the session that a repair has moved aside may hold them too, and is deleted. What
        stays is that documents of these ids were deleted: the ids, sealed. SECURITY.md says what
        other devices and the store's own backups keep.

        It rewrites the session in the store, and the file here: as long as reading and writing all
        of both. Ids that are not there any more are forgotten in the same way.

        Raises:
            InvalidArgumentError: an id that no document can have; nothing was done.
            ErasureIncompleteError: gone here and not yet in the store, which did not answer or
                cannot do it; the same call again ends it. Or a repair was cut off and must be
                ended before; nothing was done.
            FileBusyError: another process is reading the file; the same call again ends it.
        """
        self._check_open()
        if isinstance(ids, str):
            raise InvalidArgumentError(
                "forget takes a list of ids, not one str", hint=f"write [{ids!r:.60}]"
            )
        given = list(ids)
        for id in given:
            check_id(id)
        wanted = list(dict.fromkeys(given))
        return await forget(self._file, self._exchange, wanted, lambda: self._writer.erase(wanted))

    async def reembed(
        self, model_id: str | None = None, *, progress: Progress | None = None
    ) -> Reembedded:
        """Move the session to another model, for everybody, and make its vectors here.

        One compare-and-swap moves it; texts, ids and versions stay what they are, and vectors of
        two models are never mixed. Until a document has its new vector it is found by its words.
        Other devices take the move over with their next exchange and make the vectors they need by
        themselves, in the background; one that does not have the model goes on exchanging, finds
        by word (`alpha=0.0`), and says which model is missing when asked by meaning. Being cut off
        harms nothing: whoever opens the session next goes on. At the end the vectors are put into
        the store for devices that open it anew.

        A "custom" session can be moved to a model, and forgets the vectors that were brought; not
        the other way round: vectors of your own come with their documents.

        Args:
            model_id: As in `client.session`. None moves nothing and only makes here, now, what
                vectors are lacking.
            progress: Called with (vectors made, vectors to make), from another thread.
        Raises:
            ModelNotFoundError: there is no such model on this machine; nothing was moved.
            NetworkError: the store could not be reached; nothing was moved. Or it was moved, and
                then `model_id` says so: vectors are made the next time the session is opened.
            NotInLogModeError: the project commits by log, where sessions stay with their model.
            InvalidArgumentError: the model is "custom"; nothing was moved.
        """
        self._check_open()
        before = await runtime.blocking(self._local.model_id)
        with self._fill_in.held():
            if model_id is not None:
                await self._move_to(resolve_model(model_id))
            made = await runtime.on_loop(self._fill_in.run(progress))
        if model_id is not None:
            await runtime.on_loop(self._exchange.publish_vectors())
        return Reembedded(self.model_id, made, None if before == self.model_id else before)

    @property
    def unembedded(self) -> int:
        """Documents that have no vector yet, and are found by their words only until they have."""
        self._check_open()
        return self._fill_in.lacking()

    def checkpoint(self) -> str:
        """Return a short text that names the newest state of the session seen here.

        Compare it with another device's, or give it to `client.session(checkpoint=)` where the
        session is opened for the first time: a store that shows something older is refused there.

        Raises:
            NotFoundError: the session was never exchanged with a store.
            NotInLogModeError: the project commits by log.
        """
        self._check_open()
        found = self._exchange.checkpoint()
        if found is None and self.sync_state.last_exchange_ms is not None:
            raise NotInLogModeError("a checkpoint")
        if found is None:
            raise NotFoundError(
                f"session {self.name!r} was never exchanged with a store",
                hint=f"exchange it first: moss-local sync {shlex.quote(self.name)}",
            )
        return found

    async def _delete_for_everybody(self) -> SyncReport:
        """Delete the session in the store; see `MossClient.delete_session`."""
        return await runtime.on_loop(self._exchange.delete())

    async def _rewrite(self) -> int:
        """Seal anew what is under old keys; see `MossClient.rewrite_sessions`."""
        return await runtime.on_loop(self._exchange.rewrite())

    def changes(self, since: str | None = None) -> ChangeFeed:
        """Return an endless async iterator over what others change: `async for batch in ...`.

        Others are other devices (what a pull merges, `auto_sync`'s too), other processes and other
        objects; what this object writes is left out. It gives `Changes`: ids, not documents. From
        the moment of this call nothing is missed, and nothing between two batches, however long
        they take; it ends when the session is closed. Several may run at once.

        Args:
            since: The `cursor` of a batch of before, to go on after it. Then changes that an
                earlier object of this process or an earlier process made count as others'.
        Raises:
            InvalidArgumentError: `since` is no cursor.
        """
        self._check_open()
        return ChangeFeed(self._file, self._local.own, since, lambda: self._closed)

    # -- lifecycle -------------------------------------------------------------------------

    async def close(self, timeout: float = CLOSE_S) -> SyncState:  # noqa: ASYNC109  # it ends well
        """Close the session and return where it stands; idempotent.

        With `auto_sync` it is pushed first what is not pushed yet. What cannot be (or without
        `auto_sync`, is not) stays in the file and goes with a later push: `pending` says how much,
        `reason` why, and with `auto_sync` a warning is logged. `sync_state` goes on saying so.

        Args:
            timeout: Seconds that pushing may take; 0 does not try.
        """
        return await super().close(timeout)

    # -- inside ----------------------------------------------------------------------------

    async def _open(self, *, pull: bool, warm_up: bool, strict: bool, patience: Patience) -> None:
        """Check the model, pull if the store answers, and load the model in the background.

        Args:
            patience: How long the pull waits for the store to say anything.
            strict: The caller holds the store to a state: one that contradicts it is refused.
        """
        stored = await runtime.blocking(self._local.space)
        if stored is not None:
            self._local.model.accepts(stored)
        if pull:
            await self._pull_to_open(strict=strict, patience=patience)
        self._exchange.start()
        model = await runtime.blocking(self._local.model_id)
        if warm_up and model != CUSTOM_ID:
            runtime.in_background(self._warm_up())
        await runtime.blocking(self._fill_in.start)

    async def _pull_to_open(self, *, strict: bool, patience: Patience) -> None:
        """Pull; a store that is away or in disorder does not take away what is on this device."""
        try:
            await runtime.on_loop(self._exchange.pull(patience))
        except KeyRotatedError as error:
            if strict:
                raise
            # The key was right. An agent must not lose its memory, old or new, by a rotation.
            log.warning("session %r opened as it is on this device: %s", self.name, error)
        except (ModelMismatchError, UnauthorizedError):
            raise  # the caller asked for something else than is there
        except MossError as error:
            trouble = trouble_of(error)
            if trouble is None:
                raise
            if trouble.stopped and (strict or not await runtime.blocking(self._has_past)):
                raise
            level = logging.WARNING if trouble.stopped else logging.INFO
            log.log(level, "session %r opened as it is on this device: %s", self.name, error)

    def _has_past(self) -> bool:
        state = self._local.state()
        return state.exchanged_ms is not None or state.local_seq > 0

    async def _warm_up(self) -> None:
        try:
            await runtime.embedding(self._local.embed, ["warm up"])
        except MossError as error:
            # Whoever needs the model gets this error; a session that is only read does not.
            log.info("session %r has no model here: %s", self.name, error)

    async def _close(self, seconds: float) -> SyncState:
        try:
            self._last_model_id = self._local.model_id()  # stays readable
            await self._fill_in.close()
            return await self._exchange.close(seconds)
        finally:
            await runtime.blocking(self._file.close)
            self._on_closed(self)

    def _check_open(self) -> None:
        if self._closed:
            raise InvalidArgumentError(
                f"session {self.name!r} is closed", hint="open it again with client.session(...)"
            )
        if self._pid != os.getpid():
            self._pid = os.getpid()
            self._local.begin()
            self._fill_in.begin()
            self._exchange.begin_anew_if_forked()

    def _snapshot(self, cache_path: str | os.PathLike[str] | None) -> Path:
        root = self._snapshots if cache_path is None else path_of(cache_path, "cache_path")
        return snapshot_path(root, self.name)

    def _save_snapshot(self, path: Path) -> None:
        check_owner(path, self.name)
        export(self._file, path, "moss", folders=True)

    async def _take_over(self, path: Path, *, replace: bool, progress: Progress | None) -> Taken:
        """Take over what a file of ours holds, and make the vectors that it does not bring."""
        plan = await runtime.blocking(self._plan_import, path, replace)
        if plan.lacking:
            space = plan.space or await runtime.blocking(self._local.space)
            embedder = self._local.model.embedder(space)
            await runtime.embedding(embedder.embed, ["is it here, and whole?"])
        with self._fill_in.held():
            taken = await runtime.blocking(self._carry_out, plan, replace)
            if plan.lacking:
                await runtime.on_loop(self._fill_in.run(progress))
        return taken

    def _plan_import(self, path: Path, replace: bool) -> Plan:
        return plan_import(path, self._local.state(), self._local.model, replace=replace)

    def _carry_out(self, plan: Plan, replace: bool) -> Taken:
        return carry_out(
            plan,
            self._local.writing(),
            model=lambda: self._local.model.space(None),
            now_ms=self._exchange.now_ms(),
            replace=replace,
        )

    async def _move_to(self, model: Model) -> None:
        if model.space is None:
            raise InvalidArgumentError(
                "vectors of your own come with their documents: none can be made for 'custom'",
                hint="create another session with model_id='custom', and add them there",
            )
        moved = replace(self._local.model, wanted=model)
        embedder = moved.embedder(model.space)
        await runtime.embedding(embedder.embed, ["is it here, and whole?"])
        if await runtime.blocking(self._local.space) != model.space:
            await runtime.on_loop(self._exchange.reembed(model.space))
        self._local.model = moved

    def _history(self, id: str | None) -> list[StoredVersion]:
        with self._file.reading() as conn:
            return read_history(conn, id)

    def _find_version(self, id: str, version: str) -> StoredVersion:
        with self._file.reading() as conn:
            found = find_version(conn, read_state(conn).space, id, version)
        if found is None:
            raise NotFoundError(
                f"document {id!r} has no version {version!r} here",
                hint="list those that are kept with: moss-local history SESSION ID",
            )
        return found

    def _quarantine(self) -> list[SetAside]:
        with self._file.reading() as conn:
            return read_quarantine(conn)


def _version_of(stored: StoredVersion) -> DocumentVersion:
    return DocumentVersion(
        stored.id,
        stored.text,
        stored.metadata,
        stored.payload,
        stored.written_ms,
        stored.version.dev.hex(),
        stored.deleted,
        stored.reason,
        stored.token,
    )


def _set_aside_of(stored: SetAside) -> QuarantinedEdit:
    edit = stored.edit
    return QuarantinedEdit(
        stored.number,
        stored.reason,
        edit.id,
        edit.text,
        edit.metadata,
        edit.payload,
        edit.written_ms,
        edit.version.dev.hex(),
        edit.deleted,
    )
