"""A session: a named thread of documents on this device, written and searched here.

The file is the truth: an acknowledged write is on disk, and everything that this object answers is
read from there (or from what is kept resident and checked against it), so several objects and
several processes may have one session open. The object only knows how to reach it and which model
the vectors are of; how it stands towards other devices is `moss_local.exchange`'s.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shlex
import threading
import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

import apsw
import numpy as np
from numpy.typing import ArrayLike, NDArray

from moss_local.changes import ChangeFeed, OwnWrites
from moss_local.chunking import Chunker, Chunking, Window
from moss_local.embedding.base import Kind, Progress
from moss_local.embedding.models import Model, custom_space, resolve_model
from moss_local.errors import FileBusyError, ModelNotFoundError
from moss_local.exchange import Exchange
from moss_local.fill_in import FillIn
from moss_local.forgetting import forget
from moss_local.ingest import (
    Cutting,
    DocsInput,
    Given,
    as_they_are,
    check_own_vectors,
    check_uncut,
    documents_from,
    read_given,
)
from moss_local.lifetime import CLOSE_S, OpenUntilClosed
from moss_local.model_choice import CUSTOM_ID, ModelChoice
from moss_local.options import QueryChoice, choose_get, choose_query
from moss_local.runtime import runtime
from moss_local.search.fetch import fetch, select
from moss_local.search.query import Asked, Hit, is_warm, search
from moss_local.snapshots import check_owner, snapshot_path
from moss_local.standing import trouble_of
from moss_local.storage.contents import Taken
from moss_local.storage.documents import Document, StoredDocument, check_document, check_id
from moss_local.storage.edits import PutCounts, delete_documents, put_documents
from moss_local.storage.encoding import check_vector
from moss_local.storage.erasure import erase_documents
from moss_local.storage.file import SessionFile
from moss_local.storage.history import StoredVersion, find_version, read_history
from moss_local.storage.quarantine import (
    SetAside,
    discard_set_aside,
    find_set_aside,
    read_quarantine,
)
from moss_local.storage.salvage import take_over
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
    QueryResultDocumentInfo,
    Reembedded,
    SearchResult,
    SyncState,
)
from moss_sync import (
    InvalidArgumentError,
    ModelMismatchError,
    MossError,
    NotFoundError,
    RepairReport,
    SyncReport,
    UnauthorizedError,
    VectorSpace,
)

log = logging.getLogger("moss_local")

SMALL_ADD = 8
"""Up to so many texts are embedded and written in one hop to another thread; more in two, so that
a long write does not hold up other callers' embedding."""

QUICK_DOCUMENTS = 10_000
"""Up to here a query with a given vector takes about a millisecond (by vector 0.8 ms at 10 000) and
runs on the caller's thread (a hop to another costs 0.24-0.5 ms), but for the first one, which reads
the whole file."""


MOVES = 3
"""Moves of the session to another model during one call; each takes an embedding of all of it."""

Also = Callable[[apsw.Connection], None]
"""What is done in the transaction of a write, before it."""


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
        self._model = model
        self._low_memory = low_memory
        self._snapshots = snapshots
        self._on_closed = closed
        self._last_model_id = model.id(None)
        self._pid = os.getpid()
        self._own = OwnWrites()
        self._fill_in = FillIn(name, file, model, self._own)
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
        with self._file.reading() as conn:
            return read_state(conn).live

    @property
    def model_id(self) -> str:
        """The model of the session's vectors; before the first, the one that they will be of."""
        if not self._closed:
            self._last_model_id = self._model.id(self._stored_space())
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
        with self._file.reading() as conn:
            return read_state(conn).dev.hex()

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
        upsert = True if options is None or options.upsert is None else options.upsert
        cutting = Cutting(chunker, chunking)
        cutting.check()
        given = await self._given(docs, cutting)
        return await self._add(given, upsert=upsert, progress=progress)

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
        return await runtime.blocking(self._delete, ids)

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
        started = perf_counter()
        if not isinstance(query, str):
            raise InvalidArgumentError(f"a query is a str, not {type(query).__name__}")
        choice = choose_query(options, now_ms=self._exchange.now_ms())
        with self._file.reading() as conn:
            state = read_state(conn)
        space, blank = state.space, not query.strip()
        if self._model.id(space) == CUSTOM_ID and choice.embedding is None:
            raise InvalidArgumentError(
                f"session {self.name!r} is of model 'custom': a query needs an embedding",
                hint="pass QueryOptions(embedding=...)",
            )
        hits: list[Hit] = []
        if choice.embedding is not None:
            dim = None if space is None else space.dim
            vector = check_vector(choice.embedding, dim=dim, what="the embedding of the query")
            if state.live <= QUICK_DOCUMENTS and is_warm(self._file) and not self._low_memory:
                hits = self._search(query, vector, choice)
            else:
                hits = await runtime.blocking(self._search, query, vector, choice)
        elif not blank and choice.top_k and state.live:
            try:
                hits = await runtime.embedding(self._embed_and_search, query, choice)
            except ModelNotFoundError:
                if choice.alpha != 0.0:
                    raise
                # What is found by word needs no model; only its score does.
                hits = await runtime.blocking(self._search, query, None, choice)
        return SearchResult(
            docs=[result_of(hit, self.name) for hit in hits],
            query=query,
            index_name=self.name,
            time_taken_ms=round((perf_counter() - started) * 1000),
            model_id=self._model.id(space),
        )

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
        await self._write_again(await runtime.blocking(self._find_version, id, version))

    async def quarantined(self) -> list[QuarantinedEdit]:
        """Return the changes that were set aside on this device, oldest first.

        They were made here and never pushed, and pushing them by themselves could bring back what
        others deleted: this file was an old copy or damaged, or the session was deleted elsewhere.
        """
        self._check_open()
        return [_set_aside_of(each) for each in await runtime.blocking(self._quarantine)]

    async def restore_quarantined(self, number: int) -> None:
        """Write a change that was set aside as a new edit, and take it off the list; or neither.

        Raises:
            NotFoundError: there is none of this number.
        """
        self._check_open()
        found = await runtime.blocking(self._find_set_aside, number)
        await self._write_again(found.edit, lambda conn: discard_set_aside(conn, number))

    async def discard_quarantined(self, number: int) -> None:
        """Forget a change that was set aside.

        Raises:
            NotFoundError: there is none of this number.
        """
        self._check_open()
        await runtime.blocking(self._discard_set_aside, number)

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
            NotFoundError: there is no such folder.
            DiskFullError, PermissionDeniedError: the file cannot be written.
        """
        self._check_open()
        kind = check_format(format)
        return await runtime.blocking(export, self._file, Path(path), kind)

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
        file = Path(path)
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

    async def repair(self, *, force: bool = False) -> RepairReport:
        """Put back into the store what it has lost and this device holds.

        For a store that was emptied, restored from a backup, or has lost or damaged blobs, and for
        one whose history contradicts what this device has seen. What the store still has stays;
        the project's keys are put back too. Every other device then adds what it holds, by itself,
        with its next exchange. Repair first where the most is: what a device had not yet pulled
        when the store lost it can only come from another one.

        Where nothing is wrong this is an ordinary exchange, after reading every blob once.

        Args:
            force: Put the session together anew all the same. Every device then sends all of it.
        Raises:
            NotFoundError: this device has never seen the session whole, or never used this store.
            StoreChangedError: the store holds another repository; it is left alone.
            NetworkError: the store could not be reached; repair again.
        """
        self._check_open()
        return await runtime.on_loop(self._exchange.repair(force=force))

    async def forget(self, ids: Iterable[str]) -> Forgotten:
        """Forget documents for good: deleted everywhere, and their contents erased.

        When this returns, nothing of their texts, metadata, payloads and vectors is left in this
        device's file, history and quarantine included, nor in any blob of the store. What stays is
        that documents of these ids were deleted: the ids, sealed. SECURITY.md says what other
        devices and the store's own backups keep.

        It rewrites the session in the store, and the file here: as long as reading and writing all
        of both. Ids that are not there any more are forgotten in the same way.

        Raises:
            InvalidArgumentError: an id that no document can have; nothing was done.
            ErasureIncompleteError: gone here and not yet in the store, which did not answer or
                cannot do it; the same call again ends it.
            FileBusyError: another process is reading the file; the same call again ends it.
        """
        self._check_open()
        if isinstance(ids, str):
            raise InvalidArgumentError(
                "forget takes a list of ids, not one str", hint=f"write [{ids!r:.60}]"
            )
        wanted = list(dict.fromkeys(ids))
        for id in wanted:
            check_id(id)
        return await forget(self._file, self._exchange, wanted, lambda: self._erase(wanted))

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
        before = self._model.id(await runtime.blocking(self._stored_space))
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
        """
        self._check_open()
        found = self._exchange.checkpoint()
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
        return ChangeFeed(self._file, self._own, since, lambda: self._closed)

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

    async def _open(self, *, pull: bool, warm_up: bool, strict: bool) -> None:
        """Check the model, pull if the store answers, and load the model in the background.

        Args:
            strict: The caller holds the store to a state: one that contradicts it is refused.
        """
        stored = await runtime.blocking(self._stored_space)
        if stored is not None:
            self._model.accepts(stored)
        if pull:
            await self._pull_to_open(strict=strict)
        self._exchange.start()
        model = self._model.id(await runtime.blocking(self._stored_space))
        if warm_up and model != CUSTOM_ID:
            runtime.in_background(self._warm_up())
        await runtime.blocking(self._fill_in.start)

    async def _pull_to_open(self, *, strict: bool) -> None:
        """Pull; a store that is away or in disorder does not take away what is on this device."""
        try:
            await self.pull()
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
        with self._file.reading() as conn:
            state = read_state(conn)
        return state.exchanged_ms is not None or state.local_seq > 0

    async def _warm_up(self) -> None:
        try:
            await runtime.embedding(self._embed, ["warm up"])
        except MossError as error:
            # Whoever needs the model gets this error; a session that is only read does not.
            log.info("session %r has no model here: %s", self.name, error)

    async def _close(self, seconds: float) -> SyncState:
        try:
            self._last_model_id = self._model.id(self._stored_space())  # stays readable
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
            self._pid, self._own = os.getpid(), OwnWrites()
            self._fill_in.begin(self._own)
            self._exchange.begin_anew_if_forked()

    async def _given(self, docs: DocsInput, cutting: Cutting) -> list[DocumentInfo]:
        """Return the documents that the caller means, files read and texts cut."""
        given = as_they_are(docs)
        if given is None:
            given = await runtime.blocking(read_given, docs, what="add_docs")
        return await self._cut(given, cutting)

    async def _cut(self, given: Sequence[Given], cutting: Cutting) -> list[DocumentInfo]:
        """Return the documents to store, cut where that is wanted."""
        custom = self._model.id(self._stored_space()) == CUSTOM_ID
        if custom:
            check_uncut(self.name, cutting)
        if not cutting.of_all and not any(each.file for each in given):
            return [each.document for each in given]

        def window() -> Window | None:
            if custom:
                return None
            embedder = self._model.embedder(self._stored_space())
            return Window(embedder.token_count, embedder.max_tokens)

        return await runtime.blocking(documents_from, given, cutting, window)

    async def _add(
        self,
        given: Sequence[DocumentInfo],
        *,
        upsert: bool = True,
        progress: Progress | None = None,
        also: Also | None = None,
    ) -> tuple[int, int]:
        """Add checked documents; `also` is done in the same transaction, before."""
        if not given:
            return 0, 0
        for _ in range(MOVES):
            stored = await runtime.blocking(self._stored_space)
            try:
                return await self._add_to(
                    self._model.space(stored), given, upsert=upsert, progress=progress, also=also
                )
            except ModelMismatchError:
                # The session was moved to another model while these were embedded with the last.
                if stored is None or await runtime.blocking(self._stored_space) == stored:
                    raise
        raise FileBusyError(f"session {self.name!r} is moved from model to model", hint="try again")

    async def _add_to(
        self,
        space: VectorSpace | None,
        given: Sequence[DocumentInfo],
        *,
        upsert: bool,
        progress: Progress | None,
        also: Also | None,
    ) -> tuple[int, int]:
        documents, missing = self._prepared(given, space)
        if not missing:
            counts = await runtime.blocking(self._put, documents, space, upsert, also)
        elif len(missing) <= SMALL_ADD:
            counts = await runtime.embedding(
                self._embed_and_put, documents, missing, space, upsert, progress, also
            )
        else:
            ready = await self._embedded_aside(documents, missing, progress)
            counts = await runtime.blocking(self._put, ready, space, upsert, also)
        return counts.added, counts.updated

    def _snapshot(self, cache_path: str | os.PathLike[str] | None) -> Path:
        root = self._snapshots if cache_path is None else Path(cache_path)
        return snapshot_path(root, self.name)

    def _save_snapshot(self, path: Path) -> None:
        check_owner(path, self.name)
        export(self._file, path, "moss", folders=True)

    async def _take_over(self, path: Path, *, replace: bool, progress: Progress | None) -> Taken:
        """Take over what a file of ours holds, and make the vectors that it does not bring."""
        plan = await runtime.blocking(self._plan_import, path, replace)
        if plan.lacking:
            space = plan.space or await runtime.blocking(self._stored_space)
            embedder = self._model.embedder(space)
            await runtime.embedding(embedder.embed, ["is it here, and whole?"])
        with self._fill_in.held():
            taken = await runtime.blocking(self._carry_out, plan, replace)
            if plan.lacking:
                await runtime.on_loop(self._fill_in.run(progress))
        return taken

    def _plan_import(self, path: Path, replace: bool) -> Plan:
        with self._file.reading() as conn:
            state = read_state(conn)
        return plan_import(path, state, self._model, replace=replace)

    def _carry_out(self, plan: Plan, replace: bool) -> Taken:
        return carry_out(
            plan,
            self._own.writing(self._file),
            model=lambda: self._model.space(None),
            now_ms=self._exchange.now_ms(),
            replace=replace,
        )

    async def _move_to(self, model: Model) -> None:
        if model.space is None:
            raise InvalidArgumentError(
                "vectors of your own come with their documents: none can be made for 'custom'",
                hint="create another session with model_id='custom', and add them there",
            )
        moved = replace(self._model, wanted=model)
        embedder = moved.embedder(model.space)
        await runtime.embedding(embedder.embed, ["is it here, and whole?"])
        if await runtime.blocking(self._stored_space) != model.space:
            await runtime.on_loop(self._exchange.reembed(model.space))
        self._model = self._fill_in.model = moved

    def _stored_space(self) -> VectorSpace | None:
        with self._file.reading() as conn:
            return read_state(conn).space

    def _prepared(
        self, given: Sequence[DocumentInfo], space: VectorSpace | None
    ) -> tuple[list[Document], list[int]]:
        """Return the documents, and the positions of those that still need a vector.

        Everything that can be wrong with a document is found here, before any is embedded.
        """
        documents: list[Document] = []
        missing: list[int] = []
        for place, info in enumerate(given):
            vector = None
            if info.embedding is not None and len(info.embedding):
                what = f"the embedding of document {info.id!r}"
                vector = check_vector(
                    info.embedding, dim=None if space is None else space.dim, what=what
                )
            else:
                missing.append(place)
            metadata = None if info.metadata is None else dict(info.metadata)
            document = Document(info.id, info.text, metadata, info.payload, vector)
            check_document(document)
            documents.append(document)
        if space is None or space.id == CUSTOM_ID:
            check_own_vectors(self.name, [given[place] for place in missing])
        return documents, missing

    async def _embedded_aside(
        self, documents: Sequence[Document], missing: Sequence[int], progress: Progress | None
    ) -> list[Document]:
        """As `_embedded`, which ends with its next text when nobody waits for it any more.

        A thread cannot be cancelled, and leaving the interpreter waits for those of a pool.
        """
        abandoned = threading.Event()

        def told(done: int, total: int) -> None:
            if abandoned.is_set():
                raise _Abandoned
            if progress is not None:
                progress(done, total)

        try:
            return await runtime.embedding(self._embedded, documents, missing, told)
        except asyncio.CancelledError:
            abandoned.set()
            raise

    def _embedded(
        self, documents: Sequence[Document], missing: Sequence[int], progress: Progress | None
    ) -> list[Document]:
        texts = [documents[place].text for place in missing]
        vectors = self._embed(texts, progress=progress)
        result = list(documents)
        for place, vector in zip(missing, vectors, strict=True):
            known = result[place]
            result[place] = Document(known.id, known.text, known.metadata, known.payload, vector)
        return result

    def _embed(
        self, texts: Sequence[str], *, kind: Kind = "document", progress: Progress | None = None
    ) -> NDArray[np.float32]:
        embedder = self._model.embedder(self._stored_space())
        return embedder.embed(texts, kind=kind, progress=progress)

    def _embed_and_put(
        self,
        documents: Sequence[Document],
        missing: Sequence[int],
        space: VectorSpace | None,
        upsert: bool,
        progress: Progress | None,
        also: Also | None,
    ) -> PutCounts:
        return self._put(self._embedded(documents, missing, progress), space, upsert, also)

    def _put(
        self,
        documents: Sequence[Document],
        space: VectorSpace | None,
        upsert: bool,
        also: Also | None = None,
    ) -> PutCounts:
        if space is None:
            first = documents[0].vector
            space = custom_space(0 if first is None else len(first))
        with self._own.writing(self._file) as conn:
            if also is not None:
                also(conn)
            return put_documents(
                conn, documents, space=space, now_ms=self._exchange.now_ms(), upsert=upsert
            )

    def _delete(self, ids: Sequence[str], also: Also | None = None) -> int:
        with self._own.writing(self._file) as conn:
            if also is not None:
                also(conn)
            return delete_documents(conn, ids, now_ms=self._exchange.now_ms())

    def _erase(self, ids: Sequence[str]) -> tuple[int, int]:
        with self._own.writing(self._file) as conn:
            return erase_documents(conn, ids, now_ms=self._exchange.now_ms())

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

    async def _write_again(self, version: StoredVersion, also: Also | None = None) -> None:
        if version.deleted:
            await runtime.blocking(self._delete, [version.id], also)
            return
        embedding = None
        if version.vector is not None and self._model.id(self._stored_space()) == CUSTOM_ID:
            embedding = np.frombuffer(version.vector, "<f4").tolist()
        info = DocumentInfo(version.id, version.text, version.metadata, embedding, version.payload)
        await self._add([info], also=also)

    async def _write_salvaged(self, edits: Sequence[tuple[Any, ...]]) -> tuple[int, int]:
        """Write again what was kept of a damaged file; return how much was, and was set aside."""

        def take() -> tuple[list[int], int]:
            with self._own.writing(self._file) as conn:
                ready = take_over(conn, edits)
                return ready, len(read_quarantine(conn))

        ready, there = await runtime.blocking(take)
        for number in ready:
            await self.restore_quarantined(number)
        return len(ready), there - len(ready)

    def _quarantine(self) -> list[SetAside]:
        with self._file.reading() as conn:
            return read_quarantine(conn)

    def _find_set_aside(self, number: int) -> SetAside:
        with self._file.reading() as conn:
            return find_set_aside(conn, number)

    def _discard_set_aside(self, number: int) -> None:
        with self._own.writing(self._file) as conn:
            discard_set_aside(conn, number)

    def _embed_and_search(self, query: str, choice: QueryChoice) -> list[Hit]:
        for _ in range(MOVES):
            space = self._stored_space()
            vector = self._embed([query], kind="query")[0]
            try:
                return self._search(query, vector, choice, space)
            except ModelMismatchError:
                if self._stored_space() == space:
                    raise
        raise FileBusyError(f"session {self.name!r} is moved from model to model", hint="try again")

    def _search(
        self,
        query: str,
        vector: NDArray[np.float32] | None,
        choice: QueryChoice,
        space: VectorSpace | None = None,
    ) -> list[Hit]:
        asked = asked_of(choice, query, vector)
        return search(self._file, low_memory=self._low_memory, space=space, **asked)


class _Abandoned(Exception):  # noqa: N818  # seen by nobody: whoever waited for it has gone
    """Ends an embedding whose caller was cancelled."""


def asked_of(choice: QueryChoice, text: str, vector: ArrayLike | None) -> Asked:
    """Return what a query with these options looks for."""
    return {
        "text": text,
        "vector": vector,
        "alpha": choice.alpha,
        "top_k": choice.top_k,
        "min_score": choice.min_score,
        "filter": choice.filter,
        "group_by": choice.group_by,
        "candidate_depth": choice.candidate_depth,
        "context": choice.context,
        "recency": choice.recency,
        "threaded": choice.threaded,
    }


def result_of(hit: Hit, name: str) -> QueryResultDocumentInfo:
    """Return a hit in the session of that name as callers get it."""
    return QueryResultDocumentInfo(
        hit.id,
        hit.text,
        hit.metadata,
        hit.score,
        name,
        hit.payload,
        [_turn_of(turn) for turn in hit.before],
        [_turn_of(turn) for turn in hit.after],
    )


def _turn_of(hit: Hit) -> DocumentInfo:
    return DocumentInfo(hit.id, hit.text, hit.metadata, None, hit.payload)


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
