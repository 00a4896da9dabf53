"""A session's documents in one file that any device can take over: `session.export`, snapshots.

    "moss-local export 1\n"
    then frames, each its length (4 bytes, big-endian) and that many bytes of msgpack in zstd:
      the header, {v, session, docs, vectors, model: {id, fp, dim, dtype} or nil}
      lists of documents, [id, text, metadata or nil, payload or nil, vector or nil], in the order
      in which they were written
    then four zero bytes, the blake2b-256 of all before, and the end of the file

Rules of this file: streams in, values out, and back; a stream is read once and never held whole.
Whoever made a file may be buggy or malicious: every size is bounded, and whatever is not as above
is SnapshotCorruptError. The hash finds damage; it proves nothing of who wrote the file.
What holds: tests/moss_local/test_portable.py. Every byte: docs/format.md, section 15.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, BinaryIO, cast, get_args

import numpy as np

from moss_local.errors import SnapshotCorruptError
from moss_local.storage.documents import Document, check_document
from moss_local.storage.encoding import from_bytes
from moss_sync import BlobCorruptError, VectorSpace
from moss_sync.limits import MAX_DIMENSIONS
from moss_sync.packing import as_list, as_map, as_str, as_uint, pack, unpack
from moss_sync.record import VectorType

MAGIC = b"moss-local export 1\n"
VERSION = 1
DIGEST_BYTES = 32

BATCH_DOCUMENTS = 1000
BATCH_BYTES = 4 * 1024 * 1024
"""A frame ends once it has one of these; a document adds 3 MiB and its vector at most."""

MAX_FRAME_BYTES = 16 * 1024 * 1024
"""Of a frame, before and after it is unpacked: what a reader holds at a time."""


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says of itself first.

    Attributes:
        docs: How many documents follow.
        vectors: How many of them have a vector.
        space: What the vectors are of; None where there are none.
    """

    session: str
    docs: int
    vectors: int
    space: VectorSpace | None


def write(out: BinaryIO, header: Header, documents: Iterable[Document]) -> None:
    """Write a file from its first byte to its last.

    Args:
        documents: Each vector is in the precision of the header's space.
    """
    digest = blake2b(digest_size=DIGEST_BYTES)

    def put(data: bytes) -> None:
        digest.update(data)
        out.write(data)

    def frame(value: Any) -> None:
        packed = pack(value, max_bytes=MAX_FRAME_BYTES, what="a frame of an export")
        put(len(packed).to_bytes(4, "big"))
        put(packed)

    put(MAGIC)
    frame(_header_fields(header))
    batch: list[Any] = []
    size = 0
    for document in documents:
        batch.append(_fields(document, header.space))
        size += _weight(document) + len(batch[-1][4] or b"")
        if len(batch) == BATCH_DOCUMENTS or size >= BATCH_BYTES:
            frame(batch)
            batch, size = [], 0
    if batch:
        frame(batch)
    put(bytes(4))
    out.write(digest.digest())


def read_header(source: BinaryIO, what: str) -> Header:
    """Return what the file says of itself; reads no further.

    Args:
        what: Names the file in errors.
    Raises:
        SnapshotCorruptError: it is none, or damaged.
    """
    return _read_header(_Frames(source, what), what)


def read(source: BinaryIO, what: str) -> Iterator[list[Document]]:
    """Yield all documents, a list at a time; their vectors are float32.

    The hash and the counts are checked at the end: who has read to it has a whole file, and until
    then must keep nothing of it.

    Raises:
        SnapshotCorruptError: it is none, or damaged, also after the last document.
    """
    frames = _Frames(source, what)
    header = _read_header(frames, what)
    seen: set[str] = set()
    docs = vectors = 0
    while (value := frames.next()) is not None:
        try:
            batch = [_document(item, header.space) for item in as_list(value)]
        except (ValueError, TypeError) as error:  # InvalidArgumentError is a ValueError
            raise _corrupt(what, f"a document in it is none: {error}") from error
        for document in batch:
            if document.id in seen:
                raise _corrupt(what, f"document {document.id!r} stands in it twice")
            seen.add(document.id)
        docs += len(batch)
        vectors += sum(document.vector is not None for document in batch)
        yield batch
    frames.end()
    if (docs, vectors) != (header.docs, header.vectors):
        raise _corrupt(what, f"it holds {docs} documents and says {header.docs}")


class _Frames:
    """The frames of a stream, hashed as they go by."""

    def __init__(self, source: BinaryIO, what: str) -> None:
        self._source = source
        self._what = what
        self._digest = blake2b(digest_size=DIGEST_BYTES)
        if self._take(len(MAGIC)) != MAGIC:
            raise _corrupt(what, "it does not begin as a file of moss_local does")

    def next(self) -> Any | None:
        """Return what the next frame holds; None after the last."""
        size = int.from_bytes(self._take(4), "big")
        if size == 0:
            return None
        if size > MAX_FRAME_BYTES:
            raise _corrupt(self._what, f"a part of it has {size} bytes")
        packed = self._take(size)
        try:
            return unpack(packed, max_bytes=MAX_FRAME_BYTES, what="a part of it")
        except BlobCorruptError as error:
            raise _corrupt(self._what, str(error)) from error

    def end(self) -> None:
        """Check what follows the last frame."""
        wanted = self._digest.digest()
        if self._take(DIGEST_BYTES) != wanted:
            raise _corrupt(self._what, "its hash is not that of what it holds")
        if self._source.read(1):
            raise _corrupt(self._what, "something follows its end")

    def _take(self, size: int) -> bytes:
        data = self._source.read(size)
        if len(data) != size:
            raise _corrupt(self._what, "it ends too early")
        self._digest.update(data)
        return data


def _header_fields(header: Header) -> dict[str, Any]:
    space = header.space
    return {
        "v": VERSION,
        "session": header.session,
        "docs": header.docs,
        "vectors": header.vectors,
        "model": None
        if space is None
        else {"id": space.id, "fp": space.fingerprint, "dim": space.dim, "dtype": space.dtype},
    }


def _read_header(frames: _Frames, what: str) -> Header:
    value = frames.next()
    try:
        fields = as_map(value)
        if as_uint(fields["v"]) != VERSION:
            raise _corrupt(
                what, f"it is of version {fields['v']}, which this program does not read"
            )
        header = Header(
            as_str(fields["session"]),
            as_uint(fields["docs"]),
            as_uint(fields["vectors"]),
            None if fields["model"] is None else _space(as_map(fields["model"])),
        )
    except (KeyError, ValueError, TypeError) as error:
        raise _corrupt(what, "its header is none") from error
    if header.vectors and header.space is None:
        raise _corrupt(what, "it has vectors and does not say of which model")
    return header


def _space(fields: dict[Any, Any]) -> VectorSpace:
    dim, dtype = as_uint(fields["dim"]), as_str(fields["dtype"])
    if not 0 < dim <= MAX_DIMENSIONS or dtype not in get_args(VectorType):
        raise ValueError("model")
    return VectorSpace(as_str(fields["id"]), as_str(fields["fp"]), dim, cast(VectorType, dtype))


def _fields(document: Document, space: VectorSpace | None) -> list[Any]:
    vector = None
    if document.vector is not None and space is not None:
        vector = np.asarray(document.vector).astype(f"<{space.dtype}").tobytes()
    metadata = None if document.metadata is None else dict(document.metadata)
    return [document.id, document.text, metadata, document.payload, vector]


def _weight(document: Document) -> int:
    """Return about how many bytes a document has, never less."""
    texts = [document.id, document.text, document.payload or ""]
    for pair in (document.metadata or {}).items():
        texts += pair
    return sum(len(text) if text.isascii() else 4 * len(text) for text in texts)


def _document(value: Any, space: VectorSpace | None) -> Document:
    id, text, metadata, payload, vector = as_list(value)
    if metadata is not None:
        metadata = as_map(metadata)
    row = None
    if vector is not None:
        if space is None or not isinstance(vector, bytes) or len(vector) != space.vector_bytes:
            raise ValueError("its vector is not of the model")
        row = from_bytes(space, [vector])[0]
        if not np.isfinite(row).all() or not row.any():
            raise ValueError("its vector has no direction")
    document = Document(id, text, metadata, payload, row)
    check_document(document)
    return document


def _corrupt(what: str, why: str) -> SnapshotCorruptError:
    return SnapshotCorruptError(
        f"{what} cannot be read: {why}",
        hint="nothing was changed; make it again where the session is: moss-local export",
    )
