"""Writing into a session: what a caller gives is read, cut, checked, embedded and put on disk.

Everything that can be wrong with a document is found before any is embedded, and all of a call is
one transaction. Embedding is done outside of it, so nobody waits for a model with the file locked;
a session that was moved to another model meanwhile gets the vectors made again.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import Any

import apsw
import numpy as np

from moss_local.chunking import Window
from moss_local.embedding.base import Progress
from moss_local.embedding.models import custom_space
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
from moss_local.local import MOVES, Local, moved_too_often
from moss_local.model_choice import CUSTOM_ID
from moss_local.runtime import runtime
from moss_local.storage.documents import Document, check_document
from moss_local.storage.edits import PutCounts, delete_documents, put_documents
from moss_local.storage.encoding import check_vector
from moss_local.storage.erasure import erase_documents
from moss_local.storage.history import StoredVersion
from moss_local.storage.quarantine import discard_set_aside, find_set_aside, read_quarantine
from moss_local.storage.salvage import take_over
from moss_local.types import DocumentInfo
from moss_sync import ModelMismatchError, VectorSpace

SMALL_ADD = 8
"""Up to so many texts are embedded and written in one hop to another thread; more in two, so that
a long write does not hold up other callers' embedding."""

Also = Callable[[apsw.Connection], None]
"""What is done in the transaction of a write, before it."""


class Writer:
    """The writes of one session object; what does not await may be called on any thread."""

    def __init__(self, local: Local) -> None:
        self._local = local

    async def given(self, docs: DocsInput, cutting: Cutting) -> list[DocumentInfo]:
        """Return the documents that the caller means, files read and texts cut where wanted."""
        given = as_they_are(docs)
        if given is None:
            given = await runtime.blocking(read_given, docs, what="add_docs")
        return await self.cut(given, cutting)

    async def cut(self, given: Sequence[Given], cutting: Cutting) -> list[DocumentInfo]:
        """Return the documents to store: texts of files are cut, others where that is wanted."""
        local = self._local
        custom = local.is_custom()
        if custom:
            check_uncut(local.name, cutting)
        if not cutting.of_all and not any(each.file for each in given):
            return [each.document for each in given]

        def window() -> Window | None:
            if custom:
                return None
            embedder = local.model.embedder(local.space())
            return Window(embedder.token_count, embedder.max_tokens)

        return await runtime.blocking(documents_from, given, cutting, window)

    async def add(
        self,
        given: Sequence[DocumentInfo],
        *,
        upsert: bool = True,
        progress: Progress | None = None,
        also: Also | None = None,
    ) -> tuple[int, int]:
        """Add documents, all or none; return how many were not there, and how many were.

        Args:
            also: Done in the same transaction.
        """
        if not given:
            return 0, 0
        local = self._local
        for _ in range(MOVES):
            stored = await runtime.blocking(local.space)
            try:
                return await self._add_to(
                    local.model.space(stored), given, upsert=upsert, progress=progress, also=also
                )
            except ModelMismatchError:
                # The session was moved to another model while these were embedded with the last.
                if stored is None or await runtime.blocking(local.space) == stored:
                    raise
        raise moved_too_often(local.name)

    def delete(self, ids: Sequence[str], also: Also | None = None) -> int:
        """Delete documents, `also` in the same transaction; return how many there were."""
        with self._local.writing() as conn:
            if also is not None:
                also(conn)
            return delete_documents(conn, ids, now_ms=self._local.now_ms())

    def erase(self, ids: Sequence[str]) -> tuple[int, int]:
        """Delete documents and all that is kept of them here; see `erase_documents`."""
        with self._local.writing() as conn:
            return erase_documents(conn, ids, now_ms=self._local.now_ms())

    async def again(self, version: StoredVersion, also: Also | None = None) -> None:
        """Write a version as a new edit; a deletion deletes."""
        if version.deleted:
            await runtime.blocking(self.delete, [version.id], also)
            return
        embedding = None
        if version.vector is not None and self._local.is_custom():
            embedding = np.frombuffer(version.vector, "<f4").tolist()
        info = DocumentInfo(version.id, version.text, version.metadata, embedding, version.payload)
        await self.add([info], also=also)

    async def again_set_aside(self, number: int) -> None:
        """Write what was set aside as a new edit, and take it off the list; or neither.

        Raises:
            NotFoundError: there is none of this number.
        """

        def find() -> StoredVersion:
            with self._local.file.reading() as conn:
                return find_set_aside(conn, number).edit

        edit = await runtime.blocking(find)
        await self.again(edit, lambda conn: discard_set_aside(conn, number))

    def discard_set_aside(self, number: int) -> None:
        """Forget what was set aside.

        Raises:
            NotFoundError: there is none of this number.
        """
        with self._local.writing() as conn:
            discard_set_aside(conn, number)

    async def again_salvaged(self, edits: Sequence[tuple[Any, ...]]) -> tuple[int, int]:
        """Write again what was kept of a damaged file; return how much was, and was set aside."""

        def take() -> tuple[list[int], int]:
            with self._local.writing() as conn:
                ready = take_over(conn, edits)
                return ready, len(read_quarantine(conn))

        ready, there = await runtime.blocking(take)
        for number in ready:
            await self.again_set_aside(number)
        return len(ready), there - len(ready)

    async def _add_to(
        self,
        space: VectorSpace | None,
        given: Sequence[DocumentInfo],
        *,
        upsert: bool,
        progress: Progress | None,
        also: Also | None,
    ) -> tuple[int, int]:
        documents, missing = prepared(self._local.name, given, space)
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
        vectors = self._local.embed(texts, progress=progress)
        result = list(documents)
        for place, vector in zip(missing, vectors, strict=True):
            known = result[place]
            result[place] = Document(known.id, known.text, known.metadata, known.payload, vector)
        return result

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
        also: Also | None,
    ) -> PutCounts:
        if space is None:
            first = documents[0].vector
            space = custom_space(0 if first is None else len(first))
        with self._local.writing() as conn:
            if also is not None:
                also(conn)
            return put_documents(
                conn, documents, space=space, now_ms=self._local.now_ms(), upsert=upsert
            )


def prepared(
    session: str, given: Sequence[DocumentInfo], space: VectorSpace | None
) -> tuple[list[Document], list[int]]:
    """Return the documents, and the positions of those that still need a vector.

    Raises:
        InvalidArgumentError: a document cannot be stored, or needs a vector and brings none.
    """
    documents: list[Document] = []
    missing: list[int] = []
    for place, info in enumerate(given):
        vector = None
        if info.embedding is not None and len(info.embedding):
            vector = check_vector(
                info.embedding,
                dim=None if space is None else space.dim,
                what=f"the embedding of document {info.id!r}",
            )
        else:
            missing.append(place)
        metadata = None if info.metadata is None else dict(info.metadata)
        document = Document(info.id, info.text, metadata, info.payload, vector)
        check_document(document)
        documents.append(document)
    if space is None or space.id == CUSTOM_ID:
        check_own_vectors(session, [given[place] for place in missing])
    return documents, missing


class _Abandoned(Exception):  # noqa: N818  # seen by nobody: whoever waited for it has gone
    """Ends an embedding whose caller was cancelled."""
