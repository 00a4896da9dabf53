"""What goes into a file and what comes out of it, and the limits of both.

Rules of this file: values in, values out. A document is checked as a whole before anything of its
call is written.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from moss_sync import InvalidArgumentError
from moss_sync.hlc import to_ms
from moss_sync.limits import (
    MAX_ID_BYTES,
    MAX_METADATA_BYTES,
    MAX_PAYLOAD_BYTES,
    MAX_TEXT_BYTES,
)


@dataclass(frozen=True, slots=True)
class Document:
    """A document as it goes in.

    Attributes:
        vector: Shape (dim,), finite and not zero; None for a document that has none.
    """

    id: str
    text: str
    metadata: Mapping[str, str] | None = None
    payload: str | None = None
    vector: NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True)
class StoredDocument:
    """A document as it lies in the file.

    Attributes:
        hlc: Hybrid logical clock of the write that made it; orders a thread.
        dev: The device that wrote it, 8 bytes.
        dirty: Changed here since the last acknowledged push.
    """

    id: str
    text: str
    metadata: dict[str, str] | None
    payload: str | None
    hlc: int
    dev: bytes
    dirty: bool

    @property
    def written_ms(self) -> int:
        """When it was written, in milliseconds since 1970, by its writer's clock."""
        return to_ms(self.hlc)


def check_document(document: Document) -> None:
    """Return if everything but the vector can be stored.

    Raises:
        InvalidArgumentError: naming the document and what is wrong with it.
    """
    check_id(document.id)
    where = f"document {document.id!r}"
    _check(document.text, f"the text of {where}", MAX_TEXT_BYTES)
    if document.payload is not None:
        _check(document.payload, f"the payload of {where}", MAX_PAYLOAD_BYTES)
    if document.metadata is not None:
        size = 0
        for key, value in document.metadata.items():
            size += _check(key, f"a metadata key of {where}", MAX_METADATA_BYTES)
            size += _check(value, f"metadata {key!a} of {where}", MAX_METADATA_BYTES)
        if size > MAX_METADATA_BYTES:
            raise InvalidArgumentError(
                f"the metadata of {where} has {size} bytes of UTF-8, more than {MAX_METADATA_BYTES}"
            )


def check_id(id: str) -> None:
    """Return if `id` can name a document.

    Raises:
        InvalidArgumentError: not a string, empty, over 1 KiB, or with a lone surrogate in it.
    """
    if not isinstance(id, str):
        raise InvalidArgumentError(f"a document id is a string, not {type(id).__name__}")
    if not id:
        raise InvalidArgumentError("a document id is empty", hint="give each document an id")
    shown = id if len(id) <= 40 else id[:40] + "…"
    _check(id, f"the document id {shown!a}", MAX_ID_BYTES)


def metadata_json(metadata: Mapping[str, str] | None) -> str | None:
    """Return metadata as they lie in a column."""
    if metadata is None:
        return None
    return json.dumps(dict(metadata), ensure_ascii=False, separators=(",", ":"))


def read_metadata(column: str | None) -> dict[str, str] | None:
    """Return metadata as they were put, in their order."""
    return None if column is None else cast(dict[str, str], json.loads(column))


def _check(value: str, what: str, limit: int) -> int:
    """Return the size of `value` in UTF-8."""
    if not isinstance(value, str):
        raise InvalidArgumentError(f"{what} is a string, not {type(value).__name__}")
    if value.isascii():
        size = len(value)
    else:
        try:
            size = len(value.encode())
        except UnicodeEncodeError as error:
            raise InvalidArgumentError(
                f"{what} holds half of a surrogate pair at character {error.start}"
            ) from error
    if size > limit:
        raise InvalidArgumentError(f"{what} has {size} bytes of UTF-8, more than {limit}")
    return size
