"""Segments: many records in columns, the unit that is pushed, sealed and immutable.

Rules of this file: values in, values out.
What holds (tests/moss_sync/test_segment.py): `decode(encode(x)) == x`; any other bytes give a value
that encodes equal, or BlobCorruptError; what `decode` would refuse or leave out, `encode` does not
make.

A fault of the form (columns that do not fit together, numbers that are none) refuses the blob. A
fault of one record (`limits`) leaves out that record, and to every reader it is as if it had never
been written: what is left counts.

Columns compress better than rows, and vectors better still when the first bytes of all components
stand together and then the second ones: signs and exponents of unit vectors repeat, mantissas do
not (measured on 1 000 real turns in fp16, texts included: 7 % smaller than rows).
A version's digest follows from the content and is made again on reading. It is stored only where it
does not follow any more, because a vector of the caller's own is gone (`_kept_digests`).
Source: SYNC-PROTOCOL 2.9, described byte by byte in docs/format.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from moss_sync.errors import BlobCorruptError, InvalidArgumentError, UnsupportedFormatError
from moss_sync.features import UPGRADE
from moss_sync.hlc import LAST_STAMP
from moss_sync.limits import (
    MAX_DIMENSIONS,
    Rejected,
    content_fault,
    rejected,
    vector_fault,
)
from moss_sync.packing import (
    MAX_LIST_ITEMS,
    as_bytes,
    as_int,
    as_list,
    as_map,
    as_name,
    as_str,
    as_uint,
    pack,
    unpack,
)
from moss_sync.record import (
    DEVICE_BYTES,
    DIGEST_BYTES,
    Record,
    VectorSpace,
    VectorType,
    Version,
    content_digest,
)

VERSION = 1
MAX_SEGMENT_BYTES = 16 * 1024 * 1024
"""Content of one segment: bounds the memory of a reader and the bytes a lost request repeats."""

MAX_PLAIN_BYTES = 2 * MAX_SEGMENT_BYTES + 1024 * 1024
"""Bound on decompression: one record may overshoot (a text of 1 MiB), columns add a little."""

MAX_RECORDS = MAX_LIST_ITEMS
"""Of one segment: each is one element of every column."""

TIP_BYTES = 16

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
        rejected: What a reader has left out of them; a writer has none.
    """

    dev: bytes
    n: int
    base: int
    space: VectorSpace | None
    prev_tip: bytes
    records: Sequence[Record]
    rejected: Sequence[Rejected] = ()


def encode(segment: Segment) -> bytes:
    """Return a segment's plain bytes, to be sealed, or to ride in a manifest.

    Raises:
        InvalidArgumentError: a record is over the limits of the format, they would be more than
            MAX_PLAIN_BYTES, or the segment contradicts itself: nobody could read it.
    """
    check_encodable(segment)
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
            **_kept_digests(segment),
        },
        max_bytes=MAX_PLAIN_BYTES,
        what=f"a segment of {len(records)} records",
    )


def decode(data: bytes, *, what: str, commit_seq: int | None = None) -> Segment:
    """Return the segment that `encode` got; records that do not count are told and left out.

    Args:
        what: Names the blob in errors.
        commit_seq: The commit that carried it, given to the records that do not say another.
    Raises:
        BlobCorruptError: anything about its form is not as it must be.
        UnsupportedFormatError: a newer version of this library wrote it.
    """
    fields = unpack(data, max_bytes=MAX_PLAIN_BYTES, what=what, strict=False)
    try:
        version = as_uint(as_map(fields)["v"])
        if version != VERSION:
            raise UnsupportedFormatError(
                f"{what} has version {version}; this version knows {VERSION}",
                hint=UPGRADE,
            )
        return _decode(fields, commit_seq)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
        raise BlobCorruptError(f"{what} does not decode: {type(error).__name__}") from error


def _decode(fields: dict[str, Any], carried_by: int | None) -> Segment:
    space = None if fields["space"] is None else space_of(fields["space"])
    ids = as_list(fields["id"])
    columns = {name: as_list(fields[name]) for name in _COLUMNS}
    if any(len(column) != len(ids) for column in columns.values()):
        raise ValueError("column lengths")
    named = [id for id in ids if isinstance(id, str)]
    if len(set(named)) != len(named):
        raise ValueError("duplicate ids")
    devs = [as_bytes(dev, DEVICE_BYTES) for dev in as_list(fields["devs"])]
    clocks = accumulate(as_int(delta) for delta in columns["hlc"])
    # An index from the end is Python's, not the format's: as_uint keeps it out.
    authors = [devs[as_uint(index)] for index in columns["dev_ix"]]
    vectors = _vectors(space, columns["flags"], as_bytes(fields["emb"]))
    own = space is not None and space.id == CUSTOM
    kept = {
        as_uint(row): as_bytes(digest, DIGEST_BYTES)
        for row, digest in as_map(fields.get("digests", {})).items()
    }
    records: list[Record] = []
    left_out: list[Rejected] = []
    rows = zip(
        ids,
        clocks,
        authors,
        columns["flags"],
        columns["commit_seq"],
        columns["text"],
        columns["meta"],
        columns["payload"],
        vectors,
        strict=True,
    )
    for row, (id, hlc, dev, flags, commit_seq, text, meta, payload, found) in enumerate(rows):
        seq = carried_by if commit_seq is None else as_uint(commit_seq)
        deleted = bool(flags & DELETED)
        vector, bad_vector = found
        fault = _fault(id, hlc, deleted, text, meta, payload, has_vector=bool(flags & HAS_VECTOR))
        if fault is None and own:
            fault = bad_vector
        if fault is not None:
            left_out.append(rejected(id, hlc, dev, fault))
            continue
        digest = kept.get(row) or content_digest(
            id,
            deleted=deleted,
            text=text,
            metadata=meta,
            payload=payload,
            own_vector=vector if own else None,
        )
        version = Version(hlc, dev, digest)
        records.append(Record(id, version, deleted, text, meta, payload, vector, seq))
    return Segment(
        dev=as_bytes(fields["dev"], DEVICE_BYTES),
        n=as_uint(fields["n"]),
        base=as_uint(fields["base"]),
        space=space,
        prev_tip=_tip(fields["prev_tip"]),
        records=records,
        rejected=tuple(left_out),
    )


def _tip(value: Any) -> bytes:
    tip = as_bytes(value)
    if len(tip) not in (0, TIP_BYTES):
        raise ValueError("tip")
    return tip


def _fault(
    id: Any, hlc: int, deleted: bool, text: Any, meta: Any, payload: Any, *, has_vector: bool
) -> str | None:
    """Return why a record does not count, its vector aside, or None."""
    if not 0 <= hlc <= LAST_STAMP:
        return "its clock is out of range"
    if deleted and ((text, meta, payload) != ("", None, None) or has_vector):
        return "it is a deletion with content"
    return content_fault(id, text, meta, payload)


def _kept_digests(segment: Segment) -> dict[str, dict[int, bytes]]:
    """Return the digests that do not follow from what is written, by row.

    They are of documents whose vectors their caller had brought, and that have lost them or have
    others since the session was moved to another model: their versions stay what they were.
    """
    own = segment.space is not None and segment.space.id == CUSTOM
    kept = {
        row: record.version.digest
        for row, record in enumerate(segment.records)
        if record.version.digest
        != content_digest(
            record.id,
            deleted=record.deleted,
            text=record.text,
            metadata=record.metadata,
            payload=record.payload,
            own_vector=record.vector if own else None,
        )
    }
    return {"digests": kept} if kept else {}


CUSTOM = "custom"
"""The id of the space whose vectors the caller brings; they are content, and part of versions."""

_COLUMNS = ("hlc", "dev_ix", "flags", "commit_seq", "text", "meta", "payload")


def space_fields(space: VectorSpace) -> dict[str, Any]:
    """Return a vector space as msgpack fields."""
    return {"id": space.id, "fp": space.fingerprint, "dim": space.dim, "dtype": space.dtype}


def space_of(fields: dict[str, Any]) -> VectorSpace:
    """Return the vector space of msgpack fields; raises ValueError, KeyError or TypeError."""
    known = as_map(fields)
    dim = as_uint(known["dim"])
    if not 1 <= dim <= MAX_DIMENSIONS:
        raise ValueError("dimensions")
    return VectorSpace(
        as_name(known["id"]), as_name(known["fp"]), dim, _VECTOR_TYPES[as_str(known["dtype"])]
    )


_VECTOR_TYPES: dict[str, VectorType] = {"f2": "f2", "f4": "f4"}


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


def _vectors(
    space: VectorSpace | None, flags: list[Any], emb: bytes
) -> list[tuple[bytes | None, str | None]]:
    """Return each row's vector, None where it has none that counts, and why it does not.

    A column of another size than its rows need tells nothing of any of them.
    """
    if any(type(each) is not int or each & ~(DELETED | HAS_VECTOR) for each in flags):
        raise ValueError("flags")
    held = sum(1 for each in flags if each & HAS_VECTOR)
    if space is None:
        if held or emb:
            raise ValueError("vectors without a space")
        return [(None, None)] * len(flags)
    size = space.vector_bytes
    if len(emb) != held * size:
        lost = (None, f"its vector is not of {space.dim} components")
        return [lost if each & HAS_VECTOR else (None, None) for each in flags]
    flat = unplanes(emb, int(space.dtype[1]))
    vectors: list[tuple[bytes | None, str | None]] = []
    at = 0
    for each in flags:
        vector = fault = None
        if each & HAS_VECTOR:
            vector = flat[at : at + size]
            at += size
            if (fault := vector_fault(vector, space.dtype)) is not None:
                vector = None
        vectors.append((vector, fault))
    return vectors


def check_encodable(segment: Segment) -> None:
    """Refuse what `decode` would refuse, or leave out: no device could read it.

    Raises:
        InvalidArgumentError: naming the record and the limit.
    """
    records = segment.records
    if len(records) > MAX_RECORDS:
        raise InvalidArgumentError(
            f"{len(records)} records in one segment, more than {MAX_RECORDS}"
        )
    if segment.rejected or len({record.id for record in records}) != len(records):
        raise InvalidArgumentError("two records of one id in a segment, or one that was left out")
    try:
        _check_head(segment)
        for record in records:
            _check_numbers(record)
    except ValueError as error:
        raise InvalidArgumentError(f"a segment with a {error} out of range") from error
    for record in records:
        if (fault := record_fault(record, segment.space)) is not None:
            raise InvalidArgumentError(
                f"document {record.id!a:.80} cannot be pushed: {fault}",
                hint="change or delete it; docs/limits.md has the limits",
            )


def record_fault(record: Record, space: VectorSpace | None) -> str | None:
    """Return why readers would leave a record out, or its vector; None where they take all of it.

    Args:
        space: Of the vectors in its segment.
    """
    vector = record.vector
    fault = _fault(
        record.id,
        record.version.hlc,
        record.deleted,
        record.text,
        None if record.metadata is None else dict(record.metadata),
        record.payload,
        has_vector=vector is not None,
    )
    if fault is not None or vector is None:
        return fault
    if space is None or len(vector) != space.vector_bytes:
        return "its vector is of another space"
    return vector_fault(vector, space.dtype)


def _check_head(segment: Segment) -> None:
    as_bytes(segment.dev, DEVICE_BYTES)
    _tip(segment.prev_tip)
    as_uint(segment.n)
    as_uint(segment.base)
    if segment.space is not None:
        space_of(space_fields(segment.space))


def _check_numbers(record: Record) -> None:
    as_bytes(record.version.dev, DEVICE_BYTES)
    as_bytes(record.version.digest, DIGEST_BYTES)
    if record.commit_seq is not None:
        as_uint(record.commit_seq)
