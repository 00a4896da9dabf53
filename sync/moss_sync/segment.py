"""Segments: many records in columns, the unit that is pushed, sealed and immutable.

Rules of this file: values in, values out.
What holds (tests/moss_sync/test_segment.py): `decode(encode(x)) == x`; any other bytes give a value
that encodes equal, or BlobCorruptError.

Columns compress better than rows, and vectors better still when the first bytes of all components
stand together and then the second ones: signs and exponents of unit vectors repeat, mantissas do
not (measured on 1 000 real turns in fp16, texts included: 7 % smaller than rows).
A version's digest is not stored: it follows from the content and is made again on reading, so a
record cannot claim another content's version.
Source: SYNC-PROTOCOL 2.9, described byte by byte in docs/format.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from moss_sync.errors import BlobCorruptError
from moss_sync.packing import as_bytes, as_str, as_uint, pack, unpack
from moss_sync.record import DEVICE_BYTES, Record, VectorSpace, Version, content_digest

VERSION = 1
MAX_SEGMENT_BYTES = 16 * 1024 * 1024
"""Content of one segment: bounds the memory of a reader and the bytes a lost request repeats."""

MAX_PLAIN_BYTES = 2 * MAX_SEGMENT_BYTES + 1024 * 1024
"""Bound on decompression: one record may overshoot (a text of 1 MiB), columns add a little."""

MAX_RECORDS = 200_000

DELETED = 1
HAS_VECTOR = 2


@dataclass(frozen=True, slots=True)
class Segment:
    """What one segment says.

    Attributes:
        dev: The author; n: its push number, 0 in the output of a compaction.
        base: The sequence number that the author had applied.
        space: The vector space of the vectors inside; None when there are none.
        prev_tip: The tip of the author's push before; links a device's pushes to a chain.
        records: In the order of their authors' changes.
    """

    dev: bytes
    n: int
    base: int
    space: VectorSpace | None
    prev_tip: bytes
    records: Sequence[Record]


def encode(segment: Segment) -> bytes:
    """Return a segment's plain bytes, to be sealed, or to ride in a manifest."""
    records = segment.records
    devs = sorted({record.version.dev for record in records})
    index = {dev: i for i, dev in enumerate(devs)}
    clocks = [record.version.hlc for record in records]
    vectors = [record.vector for record in records if record.vector is not None]
    width = 0 if segment.space is None else int(segment.space.dtype[1])
    return pack(
        {
            "v": VERSION,
            "dev": segment.dev,
            "n": segment.n,
            "base": segment.base,
            "space": None if segment.space is None else space_fields(segment.space),
            "prev_tip": segment.prev_tip,
            "devs": devs,
            "id": [record.id for record in records],
            "hlc": [b - a for a, b in zip([0, *clocks], clocks, strict=False)],
            "dev_ix": [index[record.version.dev] for record in records],
            "flags": [
                DELETED * record.deleted + HAS_VECTOR * (record.vector is not None)
                for record in records
            ],
            "commit_seq": [record.commit_seq for record in records],
            "text": [record.text for record in records],
            "meta": [
                None if record.metadata is None else dict(record.metadata) for record in records
            ],
            "payload": [record.payload for record in records],
            "emb": planes(b"".join(vectors), width),
        }
    )


def decode(data: bytes, *, what: str, commit_seq: int | None = None) -> Segment:
    """Return the segment that `encode` got.

    Args:
        what: Names the blob in errors.
        commit_seq: The commit that carried it, given to the records that do not say another.
    Raises:
        BlobCorruptError: anything about it is not as it must be.
    """
    fields = unpack(data, max_bytes=MAX_PLAIN_BYTES, what=what)
    try:
        return _decode(fields, commit_seq)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
        raise BlobCorruptError(f"{what} does not decode: {type(error).__name__}") from error


def _decode(fields: dict[str, Any], carried_by: int | None) -> Segment:
    if fields["v"] != VERSION:
        raise ValueError("segment version")
    space = None if fields["space"] is None else space_of(fields["space"])
    ids: list[str] = fields["id"]
    count = len(ids)
    columns = [fields[name] for name in _COLUMNS]
    if count > MAX_RECORDS or any(len(column) != count for column in columns):
        raise ValueError("column lengths")
    if len(set(ids)) != count:
        raise ValueError("duplicate ids")
    devs = [as_bytes(dev, DEVICE_BYTES) for dev in fields["devs"]]
    clocks = list(accumulate(fields["hlc"]))
    size = 0 if space is None else space.vector_bytes
    held = sum(1 for flags in fields["flags"] if flags & HAS_VECTOR)
    flat = unplanes(fields["emb"], 0 if space is None else int(space.dtype[1]))
    if len(flat) != held * size or (held and space is None):
        raise ValueError("vector bytes")
    own = space is not None and space.id == CUSTOM
    records = []
    at = 0
    for row, id in enumerate(ids):
        hlc, flags, commit_seq, text, meta, payload = (
            clocks[row],
            fields["flags"][row],
            fields["commit_seq"][row],
            fields["text"][row],
            fields["meta"][row],
            fields["payload"][row],
        )
        if not 0 <= hlc < 2**63 or flags & ~(DELETED | HAS_VECTOR):
            raise ValueError("clock or flags")
        _check_content(id, text, meta, payload, commit_seq)
        vector = None
        if flags & HAS_VECTOR:
            vector, at = flat[at : at + size], at + size
        deleted = bool(flags & DELETED)
        seq = carried_by if commit_seq is None else commit_seq
        digest = content_digest(
            id,
            deleted=deleted,
            text=text,
            metadata=meta,
            payload=payload,
            own_vector=vector if own else None,
        )
        version = Version(hlc, devs[fields["dev_ix"][row]], digest)
        records.append(Record(id, version, deleted, text, meta, payload, vector, seq))
    return Segment(
        dev=as_bytes(fields["dev"], DEVICE_BYTES),
        n=as_uint(fields["n"]),
        base=as_uint(fields["base"]),
        space=space,
        prev_tip=as_bytes(fields["prev_tip"]),
        records=records,
    )


CUSTOM = "custom"
"""The id of the space whose vectors the caller brings; they are content, and part of versions."""

_COLUMNS = ("hlc", "dev_ix", "flags", "commit_seq", "text", "meta", "payload")


def space_fields(space: VectorSpace) -> dict[str, Any]:
    """Return a vector space as msgpack fields."""
    return {"id": space.id, "fp": space.fingerprint, "dim": space.dim, "dtype": space.dtype}


def space_of(fields: dict[str, Any]) -> VectorSpace:
    """Return the vector space of msgpack fields; raises ValueError, KeyError or TypeError."""
    space = VectorSpace(fields["id"], fields["fp"], fields["dim"], fields["dtype"])
    if (
        not isinstance(space.id, str)
        or not isinstance(space.fingerprint, str)
        or space.dtype not in ("f2", "f4")
        or type(space.dim) is not int
        or not 1 <= space.dim <= MAX_DIM
    ):
        raise ValueError("vector space")
    return space


MAX_DIM = 8192
"""sqlite-vec's own limit on the components of one vector."""


def planes(data: bytes, width: int) -> bytes:
    """Return `data` with the i-th bytes of all `width`-byte items standing together."""
    return data if width < 2 else b"".join(data[i::width] for i in range(width))


def unplanes(data: bytes, width: int) -> bytes:
    """Undo `planes`."""
    if width < 2:
        return data
    count, rest = divmod(len(data), width)
    if rest:
        raise ValueError("vector bytes")
    items = bytearray(len(data))
    for i in range(width):
        items[i::width] = data[i * count : (i + 1) * count]
    return bytes(items)


def _check_content(id: Any, text: Any, meta: Any, payload: Any, commit_seq: Any) -> None:
    as_str(id)
    as_str(text)
    if payload is not None:
        as_str(payload)
    if commit_seq is not None:
        as_uint(commit_seq)
    if meta is not None and not (
        isinstance(meta, dict)
        and all(isinstance(k, str) and isinstance(v, str) for k, v in meta.items())
    ):
        raise TypeError("metadata")
