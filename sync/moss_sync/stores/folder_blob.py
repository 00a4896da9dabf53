"""One blob of a folder store, read from its open folder: bounded, and named where it cannot be."""

from __future__ import annotations

import os
import shlex
import stat
from hashlib import blake2b

from moss_sync.errors import BlobCorruptError, BlobDeniedError, repair_command
from moss_sync.stores.base import MAX_BLOB_BYTES, ETag
from moss_sync.stores.beneath import Folder

_ETAG_BYTES = 16


def etag_of(data: bytes) -> ETag:
    """Return the ETag of a blob: a hash of its content."""
    return ETag(blake2b(data, digest_size=_ETAG_BYTES).hexdigest())


def read_blob(folder: Folder, name: str) -> bytes:
    """Return all of a blob.

    Raises:
        FileNotFoundError: there is none.
        ForeignFileError: it is not a file; BlobDeniedError: this user may not read it.
        BlobCorruptError: it is longer than any blob; so much of it was not read.
    """
    fd = _opened(folder, name)
    try:
        check_length(folder, name, os.fstat(fd).st_size)
        with open(fd, "rb", closefd=False) as file:
            data = file.read(MAX_BLOB_BYTES + 1)  # it may grow while it is read
        check_length(folder, name, len(data))
        return data
    finally:
        os.close(fd)


def check_length(folder: Folder, name: str, size: int) -> None:
    """Refuse a file of `size` bytes or more where that is more than a blob has."""
    if size > MAX_BLOB_BYTES:
        path = shlex.quote(str(folder.path / name))
        raise BlobCorruptError(
            f"{folder.named(name)!r} in the store {folder.root} has {size} bytes or more; "
            f"no blob has more than {MAX_BLOB_BYTES}",
            hint=f"move it away: mv -- {path} ELSEWHERE; then: {repair_command()}",
        )


def _opened(folder: Folder, name: str) -> int:
    try:
        return folder.open_file(name)
    except PermissionError as error:
        about = folder.about(name)  # raises where it is the folder that denies
        raise BlobDeniedError(
            f"{folder.named(name)!r} in the store {folder.root} may not be read: it belongs to "
            f"user {about.st_uid} and has mode {stat.S_IMODE(about.st_mode):04o}",
            hint=f"have its owner let you read it: {shlex.quote(str(folder.path / name))}",
        ) from error
