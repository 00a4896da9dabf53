"""The blobs of a repository that commits by log: what stands in them around a segment.

Rules of this file: values in, values out.
What holds (tests/moss_sync/test_log_blob.py): `decode(encode(x)) == x`; any other bytes give
BlobCorruptError.

There is no manifest that says what belongs to a session: every blob says it of itself. A push says
which one it is; a *base*, the output of a compaction, which pushes it stands for and which blobs
it was made of. A *head* is the one blob that is written again, by its own device alone: the
session's name, and what that device has applied.
Source: SYNC-PROTOCOL 2.12, described byte by byte in docs/format.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from moss_sync import segment
from moss_sync.coverage import (
    Coverage,
    Floor,
    coverage_of,
    floor_fields,
    floor_of,
)
from moss_sync.errors import BlobCorruptError, UnsupportedFormatError
from moss_sync.layout import SegmentName, is_name
from moss_sync.packing import (
    as_bytes,
    as_list,
    as_map,
    as_str,
    as_uint,
    pack,
    plain_size,
    unpack,
)
from moss_sync.record import DEVICE_BYTES
from moss_sync.seal import HEADER_BYTES, MAGIC, TAG_BYTES, sealed_size
from moss_sync.segment import Segment
from moss_sync.times import check_time

VERSION = 1

BLOB_KIND = "log"
HEAD_KIND = "head"
"""What such blobs are sealed as: neither opens in the place of a segment or of a manifest."""

MAX_HEADER_BYTES = 4 * 1024 * 1024
"""Of what stands around the segment: 100 000 pushes of devices that pushed once."""

MAX_BLOB_PLAIN_BYTES = segment.MAX_PLAIN_BYTES + MAX_HEADER_BYTES
MAX_HEAD_BYTES = 4 * 1024 * 1024


class Since(NamedTuple):
    """When vectors of a space were first pushed, and by whom: the lowest one is the session's."""

    ms: int
    dev: bytes


@dataclass(frozen=True, slots=True)
class LogBlob:
    """A blob of the log.

    Attributes:
        ct: When it was made, milliseconds, by its author's clock as the store's answers mend it.
        since: Of the space of its vectors; None where there are none.
        covers: The pushes that its records stand for.
        replaces: The names of the blobs that it was made of and whose records are all in it.
        whole: Of all pushes up to here every record that still counts is in this blob: what it
            does not hold of them was replaced, or deleted so long ago that it is forgotten.
        forgot: The highest stamp of the tombstones that were left out of it (hlc); 0: none was.
        plain: Size of the segment before compression.
    """

    name: SegmentName
    ct: int
    since: Since | None
    covers: Coverage
    replaces: tuple[str, ...]
    whole: Floor
    forgot: int
    segment: Segment
    plain: int


@dataclass(frozen=True, slots=True)
class Head:
    """What a device says of itself in a session.

    Attributes:
        name: The session's name.
        inc: The device's incarnation; tells two copies of one file apart.
        n: Its last push.
        ct: When it said so, milliseconds.
        applied: Up to which push of each device it has applied everything.
        model_id: Of the session's vectors; None while it knows of none.
    """

    sid: str
    name: str
    dev: bytes
    inc: bytes
    n: int
    ct: int
    applied: Floor = field(default_factory=dict)
    model_id: str | None = None


def encode(
    payload: bytes,
    *,
    ct: int,
    since: Since | None,
    covers: Coverage,
    replaces: tuple[str, ...] = (),
    whole: Floor | None = None,
    forgot: int = 0,
) -> bytes:
    """Return a blob's plain bytes around `payload`, the bytes of its segment."""
    return pack(
        {
            "v": VERSION,
            "ct": ct,
            "since": None if since is None else list(since),
            "covers": covers.fields(),
            "replaces": list(replaces),
            "whole": floor_fields(whole or {}),
            "forgot": forgot,
            "segment": payload,
        },
        max_bytes=MAX_BLOB_PLAIN_BYTES,
        what="a blob of the log",
    )


def decode(data: bytes, name: SegmentName) -> LogBlob:
    """Return the blob that `encode` got; `name` is what it stands under.

    Raises:
        BlobCorruptError: anything about it is not as it must be.
        UnsupportedFormatError: a newer version of this library wrote it.
    """
    what = f"blob {str(name)!r}"
    fields = _opened(data, MAX_BLOB_PLAIN_BYTES, what)
    try:
        payload = as_bytes(fields["segment"])
        covers = coverage_of(fields["covers"])
        replaces = tuple(as_str(each) for each in as_list(fields["replaces"]))
        since = None
        if fields["since"] is not None:
            ms, dev = as_list(fields["since"])
            since = Since(as_uint(ms), as_bytes(dev, DEVICE_BYTES))
        ct, forgot = as_uint(fields["ct"]), as_uint(fields["forgot"])
        whole = floor_of(fields["whole"])
        if not all(is_name(each) for each in replaces):
            raise ValueError("names")
    except (KeyError, TypeError, ValueError) as error:
        raise BlobCorruptError(f"{what} does not decode: {type(error).__name__}") from error
    pushed = name.kind == "s"
    decoded = segment.decode(payload, what=what, commit_seq=name.number if pushed else None)
    if decoded.dev != name.dev or decoded.n != (name.number if pushed else 0):
        raise BlobCorruptError(f"{what} says that it is another one")
    if (decoded.space is None) != (since is None):
        raise BlobCorruptError(f"{what} does not say since when its vectors are the session's")
    if pushed and (covers != Coverage.of(name.dev, name.number) or replaces or whole or forgot):
        raise BlobCorruptError(f"{what} is one push and says that it is more")
    check_time(max(ct, 0 if since is None else since.ms), name.number, what=what)
    for record in decoded.records:
        # Whose push a record came with is told by its version and this number together.
        if record.commit_seq is None or not covers.has(record.version.dev, record.commit_seq):
            raise BlobCorruptError(f"{what} holds a record of a push that it does not stand for")
    return LogBlob(name, ct, since, covers, replaces, whole, forgot, decoded, plain_size(payload))


def encode_head(head: Head) -> bytes:
    """Return a head's plain bytes."""
    return pack(
        {
            "v": VERSION,
            "sid": head.sid,
            "name": head.name,
            "dev": head.dev,
            "inc": head.inc,
            "n": head.n,
            "ct": head.ct,
            "applied": floor_fields(head.applied),
            "model_id": head.model_id,
        },
        max_bytes=MAX_HEAD_BYTES,
        what="a head",
    )


def decode_head(data: bytes, sid: str, dev: bytes) -> Head:
    """Return the head that `encode_head` got, which stands as that of `dev` in session `sid`.

    Raises:
        BlobCorruptError, UnsupportedFormatError: as `decode`.
    """
    what = f"the head of device {dev.hex()}"
    fields = _opened(data, MAX_HEAD_BYTES, what)
    try:
        head = Head(
            sid=as_str(fields["sid"]),
            name=as_str(fields["name"]),
            dev=as_bytes(fields["dev"], DEVICE_BYTES),
            inc=as_bytes(fields["inc"], DEVICE_BYTES),
            n=as_uint(fields["n"]),
            ct=as_uint(fields["ct"]),
            applied=floor_of(fields["applied"]),
            model_id=None if fields["model_id"] is None else as_str(fields["model_id"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise BlobCorruptError(f"{what} does not decode: {type(error).__name__}") from error
    if (head.sid, head.dev) != (sid, dev):
        raise BlobCorruptError(f"{what} says that it is another one")
    check_time(head.ct, head.n, what=what)
    return head


def arrived(data: bytes) -> tuple[int, int] | None:
    """Return (bytes that are there, bytes in all) of a file that is not wholly there yet, or None.

    A folder that another program fills may show the beginning of a file, or a file of the full
    length with zeros at its end; 0 in all means that not even the header tells. A finished blob
    ends in an authentication tag, which is not sixteen zeros but once in 2^128 times. Bytes that
    are all there and wrong are something else: damage.
    """
    there = data.rstrip(b"\0")
    if there[: len(MAGIC)] != MAGIC[: len(there)]:
        return None
    size = sealed_size(data) if len(there) >= HEADER_BYTES else 0
    if len(data) < HEADER_BYTES or data.endswith(bytes(TAG_BYTES)):
        return len(there), size or 0
    return (len(data), size) if size is not None and len(data) < size else None


def _opened(data: bytes, max_bytes: int, what: str) -> Mapping[str, Any]:
    fields = unpack(data, max_bytes=max_bytes, what=what)
    try:
        version = as_uint(as_map(fields)["v"])
    except (KeyError, TypeError, ValueError) as error:
        raise BlobCorruptError(f"{what} does not decode: {type(error).__name__}") from error
    if version != VERSION:
        raise UnsupportedFormatError(
            f"{what} has version {version}; this version knows {VERSION}",
            hint="upgrade moss_local on this device",
        )
    known: Mapping[str, Any] = fields
    return known
