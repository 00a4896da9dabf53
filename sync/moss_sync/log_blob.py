"""The blobs of a repository that commits by log: what stands in them around a segment.

Rules of this file: values in, values out.
What holds (tests/moss_sync/test_log_blob.py): `decode(encode(x)) == x`; any other bytes give
BlobCorruptError; what `decode` would refuse, `encode` does not make.

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
    as_push,
    coverage_of,
    floor_fields,
    floor_of,
)
from moss_sync.errors import BlobCorruptError, InvalidArgumentError, UnsupportedFormatError
from moss_sync.features import UPGRADE
from moss_sync.layout import MAX_PUSH, SegmentName, is_name
from moss_sync.limits import rejected_blob
from moss_sync.packing import (
    as_bytes,
    as_list,
    as_map,
    as_name,
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
    """Return a blob's plain bytes around `payload`, the bytes of its segment.

    Raises:
        InvalidArgumentError: `decode` would refuse them.
    """
    what = "a blob of the log"
    fields = {
        "v": VERSION,
        "ct": ct,
        "since": None if since is None else list(since),
        "covers": covers.fields(),
        "replaces": list(replaces),
        "whole": floor_fields(whole or {}),
        "forgot": forgot,
        "segment": payload,
    }
    try:
        _header(fields)
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidArgumentError(f"{what} could not be read again: {error}") from error
    return pack(fields, max_bytes=MAX_BLOB_PLAIN_BYTES, what=what)


class _Header(NamedTuple):
    ct: int
    since: Since | None
    covers: Coverage
    replaces: tuple[str, ...]
    whole: Floor
    forgot: int
    payload: bytes


def _header(fields: Mapping[str, Any]) -> _Header:
    """Return what stands around a segment; raises KeyError, TypeError or ValueError."""
    since = None
    if fields["since"] is not None:
        ms, dev = as_list(fields["since"])
        since = Since(as_uint(ms), as_bytes(dev, DEVICE_BYTES))
    replaces = tuple(as_str(each) for each in as_list(fields["replaces"]))
    if not all(is_name(each) for each in replaces):
        raise ValueError("names")
    return _Header(
        as_uint(fields["ct"]),
        since,
        coverage_of(fields["covers"]),
        replaces,
        floor_of(fields["whole"]),
        as_uint(fields["forgot"]),
        as_bytes(fields["segment"]),
    )


def malformed(name: SegmentName, reason: str) -> LogBlob:
    """Return what a blob counts as that its author sealed and nobody can read: as an empty one.

    Every device finds the same in it, so a push of that number is known everywhere, and a merge
    takes the blob along. It stands in the place of no other.
    """
    pushed = name.kind == "s"
    told = (rejected_blob(str(name), reason),)
    empty = Segment(name.dev, name.number if pushed else 0, 0, None, b"", [], told)
    covers = Coverage.of(name.dev, name.number) if pushed and name.number else Coverage()
    return LogBlob(name, 0, None, covers, (), {}, 0, empty, 0)


def decode(data: bytes, name: SegmentName) -> LogBlob:
    """Return the blob that `encode` got; `name` is what it stands under.

    One that a record is left out of stands in the place of no other: what it was made of, and
    older versions in there, go on to count.

    Raises:
        BlobCorruptError: anything about it is not as it must be.
        UnsupportedFormatError: a newer version of this library wrote it.
    """
    what = f"blob {str(name)!r}"
    fields = _opened(data, MAX_BLOB_PLAIN_BYTES, what)
    try:
        ct, since, covers, replaces, whole, forgot, payload = _header(fields)
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
    check_time(ct, name.number, what=what)
    if since is not None:
        # Of the first push with vectors, whatever its number: others repeat it.
        check_time(since.ms, MAX_PUSH, what=what)
    for record in decoded.records:
        # Whose push a record came with is told by its version and this number together.
        if record.commit_seq is None or not covers.has(record.version.dev, record.commit_seq):
            raise BlobCorruptError(f"{what} holds a record of a push that it does not stand for")
    if is_incomplete(decoded):
        replaces, whole, forgot = (), {}, 0
    return LogBlob(name, ct, since, covers, replaces, whole, forgot, decoded, plain_size(payload))


def is_incomplete(decoded: Segment) -> bool:
    """Return whether a blob lacks what it was made of: it must not stand in the place of that."""
    return bool(decoded.rejected)


def encode_head(head: Head) -> bytes:
    """Return a head's plain bytes.

    Raises:
        InvalidArgumentError: `decode_head` would refuse them.
    """
    plain = pack(
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
    try:
        decode_head(plain, head.sid, head.dev)
    except BlobCorruptError as error:
        raise InvalidArgumentError(f"a head could not be read again: {error}") from error
    return plain


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
            name=as_name(fields["name"]),
            dev=as_bytes(fields["dev"], DEVICE_BYTES),
            inc=as_bytes(fields["inc"], DEVICE_BYTES),
            n=as_push(fields["n"]),
            ct=as_uint(fields["ct"]),
            applied=floor_of(fields["applied"]),
            model_id=None if fields["model_id"] is None else as_name(fields["model_id"]),
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
            hint=UPGRADE,
        )
    known: Mapping[str, Any] = fields
    return known
