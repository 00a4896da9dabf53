"""The part of `MossClient` that is about indexes: checked arguments on their way to `Indexes`.

Names, order and defaults of the parameters are those of the hosted SDK (docs/parity.md).
"""

from __future__ import annotations

import math
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal, overload

from moss_local.arguments import path_of
from moss_local.chunking import Chunker, Chunking
from moss_local.file_input import ParseFileInput, ParseOptions
from moss_local.index_types import (
    IndexInfo,
    JobHandle,
    JobStatusResponse,
    LoadIndexesResult,
    MutationResult,
)
from moss_local.ingest import Cutting, DocsInput
from moss_local.types import (
    DocumentInfo,
    GetDocumentsOptions,
    MutationOptions,
    QueryOptions,
    SearchResult,
)
from moss_sync import InvalidArgumentError

if TYPE_CHECKING:
    from moss_local.indexes import Indexes


class IndexApi(ABC):
    """The index API. An index is a session that was created: the same documents, the same file."""

    @abstractmethod
    def _index(self) -> Indexes:
        """Return the client's indexes, or raise if it is closed."""

    # -- mutations -------------------------------------------------------------------------

    @overload
    async def create_index(
        self,
        name: str,
        docs: DocsInput,
        model_id: str | None = None,
        *,
        wait: Literal[True] = True,
        chunker: Chunker | None = None,
        chunking: Chunking | None = None,
    ) -> MutationResult: ...
    @overload
    async def create_index(
        self,
        name: str,
        docs: DocsInput,
        model_id: str | None = None,
        *,
        wait: Literal[False],
        chunker: Chunker | None = None,
        chunking: Chunking | None = None,
    ) -> JobHandle: ...
    async def create_index(
        self,
        name: str,
        docs: DocsInput,
        model_id: str | None = None,
        *,
        wait: bool = True,
        chunker: Chunker | None = None,
        chunking: Chunking | None = None,
    ) -> MutationResult | JobHandle:
        """Create an index of documents and publish it; committed on return.

        Unpushed documents of a session of this name on this device become part of it.

        Args:
            name: Any non-empty string up to 512 bytes of UTF-8.
            model_id: As in `session`; when None, "custom" if any document has an embedding, else
                `DEFAULT_MODEL_ID`.
            wait: False returns as soon as the name is found free, with a handle to wait on.
            docs, chunker, chunking: As in `SessionIndex.add_docs`.
        Raises:
            AlreadyExistsError: there is an index of this name.
            InvalidArgumentError: a document cannot be stored; the message names it.
            ModelNotFoundError: there is no such model on this machine.
            NetworkError: the store could not be reached. If it was lost between writing and
                publishing, the documents are pending, and calling again publishes them.
        """
        indexes = self._index()
        cutting = Cutting(chunker, chunking)
        if not wait:
            return JobHandle(self, await indexes.start_create(name, docs, model_id, cutting))
        return await indexes.create(name, docs, model_id, cutting)

    async def create_index_from_files(
        self,
        name: str,
        files: Iterable[ParseFileInput],
        model_id: str | None = None,
        parse_options: ParseOptions | None = None,
    ) -> MutationResult:
        """Create an index of the texts of files, cut into chunks; as `create_index`.

        Args:
            files: At most 20: text, Markdown, JSON, DOCX, and with `moss-local[files]` PDF.
            model_id: Not "custom": a file brings no vectors.
        Raises:
            ReaderMissingError: a file is PDF, and the extra `files` is not installed.
            NotOfferedError: text is to be recognised from an image.
            AlreadyExistsError, InvalidArgumentError, NetworkError: as in `create_index`.
        """
        indexes = self._index()
        if model_id == "custom":
            raise InvalidArgumentError(
                "an index of files cannot be of model 'custom': a file brings no vectors"
            )
        return await indexes.create_from_files(name, files, model_id, parse_options)

    async def add_docs(
        self,
        name: str,
        docs: DocsInput,
        options: MutationOptions | None = None,
        *,
        chunker: Chunker | None = None,
        chunking: Chunking | None = None,
    ) -> MutationResult:
        """Add documents, or replace those whose id is there; committed on return.

        Loaded copies on this device have them at once, others when they are loaded again or
        refreshed. What a session of this name has not pushed yet goes along.

        Returns:
            With the number of documents in this call, one for each id; with `upsert=False`, the
            number of those that were not there.
        Raises:
            NotFoundError: there is no such index.
            InvalidArgumentError: a document cannot be stored; the message names it.
            NetworkError: the store could not be reached; as in `create_index`.
        """
        return await self._index().add(name, docs, options, Cutting(chunker, chunking))

    async def delete_docs(self, name: str, doc_ids: Iterable[str]) -> MutationResult:
        """Delete documents; committed on return. Unknown ids are ignored.

        Returns:
            With the number of documents that were deleted.
        Raises:
            NotFoundError: there is no such index.
            NetworkError: the store could not be reached.
        """
        return await self._index().delete_docs(name, doc_ids)

    async def delete_index(self, name: str) -> bool:
        """Delete an index and its documents for everybody, unload it here, and return True.

        One of the same name can be created again.

        Raises:
            NotFoundError: there is no such index.
            NetworkError: the store could not be reached.
        """
        return await self._index().delete(name)

    async def get_job_status(self, job_id: str) -> JobStatusResponse:
        """Return where a job stands: one of this client's, or any push by its id.

        Raises:
            NotFoundError: neither this client nor the store knows of it.
        """
        return await self._index().job_status(job_id)

    async def wait_for_job(
        self, job_id: str, *, poll_interval_seconds: float = 2.0, timeout_seconds: float = 1800.0
    ) -> JobStatusResponse:
        """Wait for the end of a job and return where it stands then.

        Args:
            poll_interval_seconds: Without effect: the end of a job is heard of when it comes.
        Raises:
            MossError: (a RuntimeError) the job failed; the code is that of the failure.
            TimeoutError: the job has not ended in this time; it goes on.
            NotFoundError: neither this client nor the store knows of it.
        """
        _seconds("poll_interval_seconds", poll_interval_seconds)
        seconds = _seconds("timeout_seconds", timeout_seconds)
        return await self._index().wait_for_job(job_id, seconds=seconds)

    # -- reads -----------------------------------------------------------------------------

    async def get_index(self, name: str) -> IndexInfo:
        """Return what the store tells of an index.

        Raises:
            NotFoundError: there is no such index.
            NetworkError: the store could not be reached.
        """
        return await self._index().get(name)

    async def list_indexes(self) -> list[IndexInfo]:
        """Return what the store tells of every index, in order of name.

        One request for each thousand, and one for each index that has changed since this client
        last looked; of an index that was changed often, the changes are read too, to count its
        documents.

        Raises:
            NetworkError: the store could not be reached.
        """
        return await self._index().describe_all()

    async def get_docs(
        self, name: str, options: GetDocumentsOptions | None = None
    ) -> list[DocumentInfo]:
        """Return documents as the store has them now; the index need not be loaded.

        All in order of id, or the wanted ones in the order asked for. Embeddings are not returned.

        Raises:
            NotFoundError: there is no such index.
            NetworkError: the store could not be reached.
        """
        return await self._index().get_docs(name, options)

    # -- loading ---------------------------------------------------------------------------

    async def load_index(
        self,
        name: str,
        auto_refresh: bool = False,
        polling_interval_in_seconds: int = 600,
        cache_path: str | os.PathLike[str] | None = None,
    ) -> str:
        """Make an index ready for `query`, and return its name.

        Of a loaded index, what changed is merged in, while queries go on; the settings of this
        call replace those of the last. Where the store does not answer, or the project's key was
        rotated elsewhere, what this device has of the index is served, and refreshed when that
        has passed; `was_served_stale` says so.

        Args:
            auto_refresh: Go on merging what changes.
            polling_interval_in_seconds: How often to look; at least 1.
            cache_path: Not needed: an index is kept on disk in any case, in the data directory.
        Raises:
            NotFoundError: there is no such index.
            NetworkError: the store could not be reached, and the index was never here.
        """
        indexes = self._index()
        _check_cache_path(cache_path)
        interval_s = _seconds("polling_interval_in_seconds", polling_interval_in_seconds)
        return await indexes.load(name, auto_refresh=bool(auto_refresh), interval_s=interval_s)

    async def unload_index(self, name: str) -> None:
        """Close a loaded index; it stays on disk.

        Raises:
            NotFoundError: it is not loaded.
        """
        await self._index().unload(name)

    async def load_indexes(
        self,
        names: Sequence[str],
        auto_refresh: bool = False,
        polling_interval_in_seconds: int = 600,
        cache_path: str | os.PathLike[str] | None = None,
    ) -> LoadIndexesResult:
        """Load several indexes, up to 8 at once; one that fails stands in the way of no other."""
        indexes = self._index()
        _check_names(names)
        _check_cache_path(cache_path)
        interval_s = _seconds("polling_interval_in_seconds", polling_interval_in_seconds)
        return await indexes.load_many(
            names, auto_refresh=bool(auto_refresh), interval_s=interval_s
        )

    async def unload_indexes(self, names: Sequence[str]) -> None:
        """Close those of these indexes that are loaded."""
        indexes = self._index()
        _check_names(names)
        await indexes.unload_many(names)

    async def was_served_stale(self, name: str) -> bool:
        """Return whether the store has not answered since the index was loaded.

        Raises:
            NotFoundError: it is not loaded.
        """
        return self._index().is_stale(name)

    # -- queries ---------------------------------------------------------------------------

    async def query(
        self, name: str, query: str, options: QueryOptions | None = None
    ) -> SearchResult:
        """Search a loaded index by meaning and by word; as `SessionIndex.query`.

        Raises:
            NotFoundError: it is not loaded.
            InvalidArgumentError: an option is wrong, or a "custom" index got no embedding.
        """
        return await self._index().query(name, query, options)

    async def query_multi_index(
        self, names: Sequence[str], query: str, options: QueryOptions | None = None
    ) -> SearchResult:
        """Search several loaded indexes together; `top_k` is of all of them, 10 unless given.

        Raises:
            InvalidArgumentError: no index was named, an option is wrong, or the indexes have
                vectors of different models.
            NotFoundError: one is not loaded.
        """
        indexes = self._index()
        _check_names(names)
        return await indexes.query_many(names, query, options)


def _check_names(names: object) -> None:
    if isinstance(names, str) or not isinstance(names, Sequence):
        raise InvalidArgumentError(
            f"this takes a list of names of indexes, not {type(names).__name__}"
        )
    for name in names:
        if not isinstance(name, str):
            raise InvalidArgumentError(f"the name of an index is a str, not {type(name).__name__}")


def _check_cache_path(value: object) -> None:
    if value is not None:
        path_of(value, "cache_path")


def _seconds(name: str, value: float) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 <= value < math.inf:
        raise InvalidArgumentError(f"{name} is a number of seconds, not {value!r:.60}")
    return float(value)
