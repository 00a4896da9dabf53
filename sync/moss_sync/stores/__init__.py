"""Where blobs are kept: one Protocol, and a memory, a folder and an S3 implementation of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from moss_sync.stores.base import (
    MAX_BLOB_BYTES,
    Blob,
    BlobStore,
    ChoosesEtagForm,
    Conflict,
    ETag,
    EtagForm,
    Listed,
    MayBeAway,
    MayBeReplicated,
    NotModified,
    Swapped,
)
from moss_sync.stores.memory import MemoryStore
from moss_sync.stores.url import open_store

if TYPE_CHECKING:
    from moss_sync.stores.folder import FolderStore
    from moss_sync.stores.s3 import S3Store

__all__ = [
    "MAX_BLOB_BYTES",
    "Blob",
    "BlobStore",
    "ChoosesEtagForm",
    "Conflict",
    "ETag",
    "EtagForm",
    "FolderStore",
    "Listed",
    "MayBeAway",
    "MayBeReplicated",
    "MemoryStore",
    "NotModified",
    "S3Store",
    "Swapped",
    "open_store",
]


def __getattr__(name: str) -> object:
    """Import the stores with a cost (threads, HTTP) only when someone names them."""
    if name == "FolderStore":
        from moss_sync.stores.folder import FolderStore

        return FolderStore
    if name == "S3Store":
        from moss_sync.stores.s3 import S3Store

        return S3Store
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
