"""msgpack inside zstd, read strictly: the form of everything that is sealed.

Rules of this file: values in, values out. Bytes from the store are authenticated before they come
here, but a device of the same project may be buggy or malicious, so every size is bounded and any
surprise is BlobCorruptError. The `as_…` functions are how a field is read: they take exactly one
type each, since a bool that passes for a number, or a text for a list, would be a second form of
the same value.
What holds (tests/moss_sync/test_packing.py): `unpack(pack(x)) == x`; no bytes raise anything but
BlobCorruptError, nor take more memory than the limits below say.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgpack
import zstandard

from moss_sync.errors import BlobCorruptError, InvalidArgumentError
from moss_sync.limits import name_fault

LEVEL = 3
"""zstd level. Measured on 1 000 real turns with fp16 vectors: level 1 gives 707 335 bytes, level 3
702 436, level 9 700 472 at 2.5 times the time."""

MAX_WINDOW_BYTES = 128 * 1024 * 1024
"""Of zstd; a frame that wants a larger one is refused."""

MAX_LIST_ITEMS = 200_000
"""Elements of one list: a segment's columns are the longest."""

MAX_MAP_ITEMS = 1_000_000
"""Pairs of one map: 1 MiB of metadata cannot hold as many different keys."""

MAX_CONTAINERS = 2**18
"""Lists and maps in one blob. An empty map is one byte there and 64 here, and zstd packs a million
of them into a few dozen bytes: without this bound 3 KiB would unpack to 2 GB."""

MAX_DEPTH = 32
"""Levels of lists and maps within a value that is kept without being understood."""

MAX_UINT = 2**63 - 1
"""Every number is one that SQLite can store."""


def pack(value: Any, *, max_bytes: int | None = None, what: str = "") -> bytes:
    """Return `value` as zstd-compressed msgpack.

    Args:
        max_bytes: Bound of the size before compression: what a reader would refuse is not made.
        what: Names the value in the error.
    Raises:
        InvalidArgumentError: it is larger than `max_bytes`, or `unpack` would refuse it.
    """
    plain = packed(value, what=what)
    if max_bytes is not None and len(plain) > max_bytes:
        raise InvalidArgumentError(
            f"{what} has {len(plain)} bytes before compression, more than {max_bytes}"
        )
    return zstandard.ZstdCompressor(level=LEVEL, write_content_size=True).compress(plain)


def packed(value: Any, *, what: str) -> bytes:
    """Return `value` as msgpack, not compressed.

    Raises:
        InvalidArgumentError: `unpack` would refuse it. Reading it back tells, at a fifteenth of
            what the rest costs.
    """
    try:
        plain: bytes = msgpack.packb(value, use_bin_type=True)
        _unpacked(plain, len(plain))
    except (ValueError, TypeError, OverflowError, msgpack.UnpackException) as error:
        raise InvalidArgumentError(f"{what or 'a value'} could not be read again") from error
    return plain


def plain_size(packed: bytes) -> int:
    """Return how many bytes `pack` had before it compressed them.

    Raises:
        BlobCorruptError: it was not made by `pack`.
    """
    try:
        return int(zstandard.get_frame_parameters(packed).content_size)
    except zstandard.ZstdError as error:
        raise BlobCorruptError("a payload is not compressed as expected") from error


def unpack(data: bytes, *, max_bytes: int, what: str, strict: bool = True) -> Any:
    """Return the value that `pack` got.

    Args:
        max_bytes: Bound of the decompressed size; a frame that declares more is refused unread.
        what: Names the blob in errors.
        strict: False lets texts in that are no UTF-8; what is wrong in one is half of a surrogate
            pair then, which no text that `pack` got has.
    Raises:
        BlobCorruptError: it is not such a value, or larger than allowed.
    """
    try:
        params = zstandard.get_frame_parameters(data)
    except zstandard.ZstdError as error:
        raise BlobCorruptError(f"{what} is not compressed as expected") from error
    size = params.content_size
    if size in (zstandard.CONTENTSIZE_UNKNOWN, zstandard.CONTENTSIZE_ERROR) or size > max_bytes:
        raise BlobCorruptError(f"{what} declares {size} bytes; at most {max_bytes} are allowed")
    try:
        plain = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW_BYTES).decompress(
            data, max_output_size=max(size, 1), read_across_frames=False, allow_extra_data=False
        )
        return _unpacked(plain, max_bytes, strict=strict)
    # TypeError: a list or map as the key of a map.
    except (
        zstandard.ZstdError,
        ValueError,
        TypeError,
        RecursionError,
        msgpack.UnpackException,
    ) as error:
        raise BlobCorruptError(f"{what} does not decode") from error


def _unpacked(plain: bytes, max_bytes: int, *, strict: bool = True) -> Any:
    counted = _counter(MAX_CONTAINERS)
    return msgpack.unpackb(
        plain,
        raw=False,
        unicode_errors="strict" if strict else "surrogateescape",
        strict_map_key=False,
        object_hook=counted,
        list_hook=counted,
        max_str_len=max_bytes,
        max_bin_len=max_bytes,
        max_array_len=MAX_LIST_ITEMS,
        max_map_len=MAX_MAP_ITEMS,
        max_ext_len=0,
    )


def as_uint(value: Any) -> int:
    """Return a field that must be an integer from 0 to MAX_UINT. Raises ValueError."""
    if type(value) is not int or not 0 <= value <= MAX_UINT:
        raise ValueError("number")
    return value


def as_int(value: Any) -> int:
    """Return a field that must be an integer of either sign. Raises ValueError."""
    if type(value) is not int:
        raise ValueError("integer")
    return value


def as_bool(value: Any) -> bool:
    """Return a field that must be true or false. Raises TypeError."""
    if not isinstance(value, bool):
        raise TypeError("truth value")
    return value


def as_str(value: Any) -> str:
    """Return a field that must be text. Raises TypeError."""
    if not isinstance(value, str):
        raise TypeError("text")
    return value


def as_name(value: Any) -> str:
    """Return a field that must be a name within the limits of the format. Raises ValueError."""
    if (fault := name_fault(value)) is not None:
        raise ValueError(f"name: {fault}")
    return str(value)


def as_bytes(value: Any, size: int | None = None) -> bytes:
    """Return a field that must be bytes, of `size` where given. Raises ValueError."""
    if not isinstance(value, bytes) or (size is not None and len(value) != size):
        raise ValueError("bytes")
    return value


def as_list(value: Any) -> list[Any]:
    """Return a field that must be a list. Raises TypeError."""
    if type(value) is not list:
        raise TypeError("list")
    return value


def as_map(value: Any) -> dict[Any, Any]:
    """Return a field that must be a map. Raises TypeError."""
    if type(value) is not dict:
        raise TypeError("map")
    return value


def as_strs(value: Any) -> tuple[str, ...]:
    """Return a field that must be a list of texts. Raises TypeError."""
    return tuple(as_str(item) for item in as_list(value))


def as_kept(value: Any, depth: int = MAX_DEPTH) -> Any:
    """Return a value that is kept and written back unread. Raises ValueError past MAX_DEPTH.

    msgpack reads values nested more deeply than it writes, so one that came in might not go out.
    """
    inner: list[Any] = []
    if isinstance(value, dict):
        inner = [*value.keys(), *value.values()]
    elif isinstance(value, list):
        inner = value
    if inner and depth == 0:
        raise ValueError("nesting")
    for item in inner:
        as_kept(item, depth - 1)
    return value


def _counter(limit: int) -> Callable[[Any], Any]:
    left = limit

    def count(container: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise ValueError("containers")
        return container

    return count
