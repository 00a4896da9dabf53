"""The limits of format 1: what a record, a vector and a name may be, wherever they come from.

Rules of this file: values in, values out. Whether a record counts is a function of its bytes, of
these numbers and of the vector space that its session has agreed on; never of a setting, a model
or a version, so that no two devices differ. Whoever raises a limit needs a feature (`features`).
The same functions decide what a writer encodes and what a reader takes.
What holds (tests/moss_sync/test_limits.py): what is at a limit counts, what is one past it does
not, and no value of any type raises.
Why: docs/design/0018-what-arrives.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

MAX_ID_BYTES = 1024
MAX_TEXT_BYTES = 1024 * 1024
MAX_PAYLOAD_BYTES = 1024 * 1024
MAX_METADATA_BYTES = 1024 * 1024
"""All keys and values together. With the limits above, a document fits a segment of 16 MiB."""

MAX_NAME_BYTES = 512
"""Of the name of a session, a project, a model or a device, in UTF-8."""

MAX_DIMENSIONS = 8192
"""sqlite-vec's own limit on the components of one vector."""

MAX_UNKNOWN_BYTES = 16 * 1024
"""Of all that a manifest holds and this version does not know: it is kept and written back with
every commit, so whoever could make it large would slow everybody down, or stop them."""

MAX_SEQ = 2**40
"""Commits of a session: one a millisecond for thirty years. What counts commits can be no higher,
so that nobody is stuck for want of a next number."""

SHOWN_CHARS = 80
"""Of an id that is told of; the rest is cut off."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """A record, or a blob of a log, that arrived and does not count.

    Attributes:
        what: What it is, as ASCII: "document 'a'" with the id escaped and cut, or "blob s/…".
        reason: What is wrong with it.
        mark: 8 bytes that name this version of it: what was told once is not told again.
    """

    what: str
    reason: str
    mark: bytes

    def __str__(self) -> str:
        return f"{self.what}: {self.reason}"


def rejected(id: Any, hlc: int, dev: bytes, reason: str) -> Rejected:
    """Return what is told of a record; its parts may be anything."""
    whole = ascii(id) if isinstance(id, str) else f"with an id of type {type(id).__name__}"
    return Rejected(document(id), reason, _mark(f"{whole}\0{hlc}\0{dev.hex()}\0{reason}"))


def rejected_blob(name: str, reason: str) -> Rejected:
    """Return what is told of a blob of a log whose form is not as it must be."""
    return Rejected(f"blob {name}", reason, _mark(f"{name}\0{reason}"))


def document(id: Any) -> str:
    """Return how a document is named in what is told."""
    if not isinstance(id, str):
        return f"a document with an id of type {type(id).__name__}"
    shown = ascii(id)
    return f"document {shown if len(shown) <= SHOWN_CHARS else shown[:SHOWN_CHARS] + '...'}"


def _mark(told: str) -> bytes:
    return blake2b(told.encode(), digest_size=8).digest()


def content_fault(id: Any, text: Any, metadata: Any, payload: Any) -> str | None:
    """Return why no document may be like this, or None."""
    if id == "":
        return "its id is empty"
    return (
        _text_fault("its id", id, MAX_ID_BYTES)
        or _text_fault("its text", text, MAX_TEXT_BYTES)
        or (None if payload is None else _text_fault("its payload", payload, MAX_PAYLOAD_BYTES))
        or (None if metadata is None else _metadata_fault(metadata))
    )


def name_fault(name: Any) -> str | None:
    """Return why no session, project, model or device may have this name, or None."""
    return "it is empty" if name == "" else _text_fault("it", name, MAX_NAME_BYTES)


def vector_fault(vector: bytes, dtype: str) -> str | None:
    """Return why no cosine of this vector exists, or None.

    Args:
        vector: Little-endian components of `dtype`, "f2" or "f4".
    """
    width = int(dtype[1])
    planes = [vector[at::width] for at in range(width)]
    planes[-1] = planes[-1].translate(_UNSIGNED)
    if not any(plane.strip(b"\0") for plane in planes):
        return "its vector is zero"
    if width == 2:
        infinite = _F2_ENDS in planes[1].translate(_F2_EXPONENT)
    else:
        # The exponent's last bit stands in the byte below.
        high, low = planes[3], planes[2]
        infinite = 0x7F in high and any(
            a == 0x7F and b & 0x80 for a, b in zip(high, low, strict=True)
        )
    return "its vector holds a value that is not finite" if infinite else None


_UNSIGNED = bytes(value & 0x7F for value in range(256))
_F2_ENDS = 0x7C
_F2_EXPONENT = bytes(value & _F2_ENDS for value in range(256))


def _metadata_fault(metadata: Any) -> str | None:
    if not isinstance(metadata, dict):
        return f"its metadata are of type {type(metadata).__name__}, not a map"
    size = 0
    for key, value in metadata.items():
        for what, each in (("key", key), ("value", value)):
            found = _utf8_size(each)
            if isinstance(found, str):
                return f"a {what} of its metadata {found}"
            size += found
    if size > MAX_METADATA_BYTES:
        return f"its metadata have {size} bytes of UTF-8, more than {MAX_METADATA_BYTES}"
    return None


def _text_fault(what: str, value: Any, limit: int) -> str | None:
    found = _utf8_size(value)
    if isinstance(found, str):
        return f"{what} {found}"
    return f"{what} has {found} bytes of UTF-8, more than {limit}" if found > limit else None


def _utf8_size(value: Any) -> int | str:
    """Return the size of a text in UTF-8, or why it has none."""
    if not isinstance(value, str):
        return f"is of type {type(value).__name__}, not text"
    if value.isascii():
        return len(value)
    try:
        return len(value.encode())
    except UnicodeEncodeError as error:
        return f"is no UTF-8 at character {error.start}"
