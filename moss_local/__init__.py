"""Embedded memory for agents: sessions in SQLite, searched by meaning and by word, merged by sync.

    from moss_local import DocumentInfo, MossClient, QueryOptions

    async with MossClient() as client:
        session = await client.session("conv-123")
        await session.add_docs([DocumentInfo(id="turn-1", text="...")])
        await session.push_index()

Importing this package loads no model runtime, no client of a store and no command line. It sets one
environment variable, ORT_DISABLE_TELEMETRY, before anything of it can import ONNX Runtime.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from moss_local.chunking import Chunker, Chunking
from moss_local.client import MossClient
from moss_local.errors import (
    AlreadyExistsError,
    AtRestError,
    CiphersMissingError,
    DiskFullError,
    ErasureIncompleteError,
    FileBusyError,
    FileCorruptError,
    ModelCorruptError,
    ModelNotFoundError,
    NotOfferedError,
    ReaderMissingError,
    SnapshotCorruptError,
)
from moss_local.file_input import ParseFileInput, ParseOptions
from moss_local.hosted import (
    CreateWebSourceResult,
    DeleteWebSourceResult,
    ManageApiError,
    MossInference,
    ResyncWebSourceResult,
    UpdateWebSourceResult,
    WebSource,
)
from moss_local.index_types import (
    IndexInfo,
    IndexStatus,
    IndexStatusValues,
    JobHandle,
    JobPhase,
    JobProgress,
    JobStatus,
    JobStatusResponse,
    LoadIndexesResult,
    ModelRef,
    MutationResult,
)
from moss_local.ingest import DocsInput
from moss_local.settings import switch_off_telemetry
from moss_local.types import (
    Changes,
    DocumentInfo,
    DocumentVersion,
    Exported,
    Forgotten,
    GetDocumentsOptions,
    MutationOptions,
    ParentGrouping,
    PushIndexResult,
    QuarantinedEdit,
    QueryOptions,
    QueryResultDocumentInfo,
    Reembedded,
    Repaired,
    Rewritten,
    SearchResult,
    Synced,
    SyncState,
)
from moss_sync import (
    BlobCorruptError,
    BlobDeniedError,
    BlobMissingError,
    ClockError,
    ContentionError,
    ForeignFileError,
    ForkDetectedError,
    HistoryError,
    InvalidArgumentError,
    KeyRotatedError,
    LostCommitError,
    ManifestMissingError,
    ModelMismatchError,
    MossError,
    NetworkError,
    NotFoundError,
    NotInLogModeError,
    OutcomeUnknownError,
    PermissionDeniedError,
    RepairReport,
    RevokedKeyError,
    StaleReadError,
    StoreBusyError,
    StoreChangedError,
    StoreLacksCasError,
    SyncReport,
    UnauthorizedError,
    UnsupportedFormatError,
    UntrustedStoreError,
)

if TYPE_CHECKING:
    from moss_local.session import SessionIndex

    __version__: str

switch_off_telemetry()

__all__ = [
    "AlreadyExistsError",
    "AtRestError",
    "BlobCorruptError",
    "BlobDeniedError",
    "BlobMissingError",
    "Changes",
    "Chunker",
    "Chunking",
    "CiphersMissingError",
    "ClockError",
    "ContentionError",
    "CreateWebSourceResult",
    "DeleteWebSourceResult",
    "DiskFullError",
    "DocsInput",
    "DocumentInfo",
    "DocumentVersion",
    "ErasureIncompleteError",
    "Exported",
    "FileBusyError",
    "FileCorruptError",
    "ForeignFileError",
    "Forgotten",
    "ForkDetectedError",
    "GetDocumentsOptions",
    "HistoryError",
    "IndexInfo",
    "IndexStatus",
    "IndexStatusValues",
    "InvalidArgumentError",
    "JobHandle",
    "JobPhase",
    "JobProgress",
    "JobStatus",
    "JobStatusResponse",
    "KeyRotatedError",
    "LoadIndexesResult",
    "LostCommitError",
    "ManageApiError",
    "ManifestMissingError",
    "ModelCorruptError",
    "ModelMismatchError",
    "ModelNotFoundError",
    "ModelRef",
    "MossClient",
    "MossError",
    "MossInference",
    "MutationOptions",
    "MutationResult",
    "NetworkError",
    "NotFoundError",
    "NotInLogModeError",
    "NotOfferedError",
    "OutcomeUnknownError",
    "ParentGrouping",
    "ParseFileInput",
    "ParseOptions",
    "PermissionDeniedError",
    "PushIndexResult",
    "QuarantinedEdit",
    "QueryOptions",
    "QueryResultDocumentInfo",
    "ReaderMissingError",
    "Reembedded",
    "RepairReport",
    "Repaired",
    "ResyncWebSourceResult",
    "RevokedKeyError",
    "Rewritten",
    "SearchResult",
    "SessionIndex",
    "SnapshotCorruptError",
    "StaleReadError",
    "StoreBusyError",
    "StoreChangedError",
    "StoreLacksCasError",
    "SyncReport",
    "SyncState",
    "Synced",
    "UnauthorizedError",
    "UnsupportedFormatError",
    "UntrustedStoreError",
    "UpdateWebSourceResult",
    "WebSource",
    "__version__",
]


def __getattr__(name: str) -> object:
    """Find what costs time to import, or to find out, when somebody asks for it."""
    if name == "SessionIndex":
        from moss_local.session import SessionIndex

        return SessionIndex
    if name == "__version__":
        from importlib import metadata

        try:
            return metadata.version("moss-local")
        except metadata.PackageNotFoundError:  # run from a checkout that was never installed
            return "0.0.0+unknown"
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
