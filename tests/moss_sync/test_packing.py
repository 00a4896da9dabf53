"""msgpack in zstd: what is written is read back, and nothing else is."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import msgpack
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from moss_sync import packing
from moss_sync.errors import BlobCorruptError, InvalidArgumentError
from moss_sync.packing import pack, unpack
from tests.moss_sync.hostile import packed_as_it_is
from tests.strategies import unknown_values

LIMIT = 4 * 1024 * 1024


def framed(plain: bytes) -> bytes:
    """Return bytes that need not be msgpack as `pack` would compress them."""
    return zstandard.ZstdCompressor(level=3, write_content_size=True).compress(plain)


def opened(data: bytes, max_bytes: int = LIMIT) -> Any:
    return unpack(data, max_bytes=max_bytes, what="the blob")


@given(value=unknown_values)
def test_what_was_packed_comes_back(value: Any) -> None:
    assert opened(pack(value)) == value


@given(data=st.binary(max_size=200))
def test_bytes_that_nobody_packed_are_refused_or_read(data: bytes) -> None:
    for blob in (data, framed(data)):
        try:
            opened(blob)
        except BlobCorruptError:
            continue


HOSTILE: dict[str, bytes] = {
    "a list as a key": b"\x81\x91\x01\x01",
    "a map as a key": b"\x81\x80\x01",
    "an extension": b"\xd4\x05\x00",
    "a time": b"\xd6\xff\0\0\0\0",
    "an empty time": b"\xc7\x00\xff",
    "a lone surrogate": b"\xa3\xed\xa0\x80",
    "half a character": b"\xa1\xc3",
    "the unused code": b"\xc1",
    "nothing": b"",
    "something behind the value": b"\x01\x02",
    "a list that ends early": b"\x92\x01",
    "a text that ends early": b"\xdb\xff\xff\xff\xff",
    "more list than any blob has": b"\xdd\xff\xff\xff\xff",
    "more map than any blob has": b"\xdf\xff\xff\xff\xff",
    "nesting without end": b"\x91" * 100_000,
}


@pytest.mark.parametrize("plain", HOSTILE.values(), ids=HOSTILE)
def test_hostile_msgpack_is_a_corrupt_blob(plain: bytes) -> None:
    with pytest.raises(BlobCorruptError, match="the blob"):
        opened(framed(plain))


DICTIONARY = zstandard.ZstdCompressionDict(b"the quick brown fox " * 50)
SKIPPABLE = b"\x50\x2a\x4d\x18\x04\0\0\0abcd"
ONE = framed(b"\x01")

FRAMES: dict[str, bytes] = {
    "no frame": b"",
    "half a header": ONE[:5],
    "a cut frame": framed(b"\x01" * 999)[:-1],
    "two frames": ONE + ONE,
    "bytes behind the frame": ONE + b"\0",
    "a skippable frame": SKIPPABLE,
    "a skippable frame before the frame": SKIPPABLE + ONE,
    "a frame that does not say its size": zstandard.ZstdCompressor(
        write_content_size=False
    ).compress(b"\x01"),
    "a frame that needs a dictionary": zstandard.ZstdCompressor(dict_data=DICTIONARY).compress(
        b"the quick brown fox " * 9
    ),
    "a frame over the limit": framed(bytes(LIMIT + 1)),
}


@pytest.mark.parametrize("data", FRAMES.values(), ids=FRAMES)
def test_a_frame_that_pack_would_not_write_is_a_corrupt_blob(data: bytes) -> None:
    with pytest.raises(BlobCorruptError, match="the blob"):
        opened(data)


def test_a_frame_that_understates_its_size_is_a_corrupt_blob() -> None:
    data = bytearray(framed(bytes(200)))
    at = data.index(200, 4)  # the one byte that declares the size
    data[at] = 100
    with pytest.raises(BlobCorruptError):
        opened(bytes(data))


def test_a_value_of_exactly_the_limit_is_read() -> None:
    value = bytes(LIMIT - 5)
    data = pack(value)
    assert opened(data, LIMIT) == value
    with pytest.raises(BlobCorruptError, match="at most"):
        opened(data, LIMIT - 1)


def test_a_value_over_the_writers_limit_is_refused_before_anybody_has_to_read_it() -> None:
    assert opened(pack([b"abc"], max_bytes=6, what="a list")) == [b"abc"]
    with pytest.raises(InvalidArgumentError, match=r"a list has 6 bytes .* more than 5"):
        pack([b"abc"], max_bytes=5, what="a list")


def test_a_few_bytes_never_unpack_to_millions_of_containers() -> None:
    many: list[dict[str, int]] = [{}] * (packing.MAX_CONTAINERS // 2)
    data = pack([many[:-1], many[:-2]])
    assert len(data) < 200
    assert len(opened(data)) == 2
    with pytest.raises(BlobCorruptError):
        opened(packed_as_it_is([many, many]))


def test_a_blob_of_empty_maps_is_refused_before_it_fills_the_memory() -> None:
    lists = b"\xdd" + (30).to_bytes(4, "big")
    row = b"\xdd" + packing.MAX_LIST_ITEMS.to_bytes(4, "big") + b"\x80" * packing.MAX_LIST_ITEMS
    blob = framed(lists + row * 30)
    assert len(blob) < 1024
    tracemalloc.start()
    try:
        with pytest.raises(BlobCorruptError):
            opened(blob, max_bytes=64 * 1024 * 1024)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 64 * 1024 * 1024


def test_a_list_or_map_over_its_limit_is_refused() -> None:
    assert len(opened(pack([0] * packing.MAX_LIST_ITEMS))) == packing.MAX_LIST_ITEMS
    with pytest.raises(BlobCorruptError):
        opened(packed_as_it_is([0] * (packing.MAX_LIST_ITEMS + 1)))
    header = b"\xdf" + (packing.MAX_MAP_ITEMS + 1).to_bytes(4, "big")
    with pytest.raises(BlobCorruptError):
        opened(framed(header + bytes(64)))


READERS: dict[str, tuple[Callable[[Any], Any], list[Any]]] = {
    "as_uint": (packing.as_uint, [0, 1, 2**63 - 1]),
    "as_int": (packing.as_int, [-1, 0, 2**64 - 1]),
    "as_bool": (packing.as_bool, [True, False]),
    "as_str": (packing.as_str, ["", "ü"]),
    "as_bytes": (packing.as_bytes, [b"", b"x"]),
    "as_list": (packing.as_list, [[], [1]]),
    "as_map": (packing.as_map, [{}, {"a": 1}]),
}
ODD: list[Any] = [None, True, 0, 1, -1, 2**63, 2**64 - 1, 1.0, float("nan"), "", "x", b"", [], {}]


@pytest.mark.parametrize(("reader", "good"), READERS.values(), ids=READERS)
def test_a_field_is_of_exactly_one_type(reader: Callable[[Any], Any], good: list[Any]) -> None:
    for value in good:
        assert reader(value) is value
    types = {type(value) for value in good}
    for value in ODD:
        if type(value) not in types:
            with pytest.raises((TypeError, ValueError)):
                reader(value)


@pytest.mark.parametrize("number", [-1, 2**63, 2**64 - 1])
def test_a_number_that_no_database_can_hold_is_refused(number: int) -> None:
    with pytest.raises(ValueError):
        packing.as_uint(number)


def test_bytes_of_another_size_are_refused() -> None:
    assert packing.as_bytes(b"12345678", 8) == b"12345678"
    with pytest.raises(ValueError):
        packing.as_bytes(b"1234567", 8)


def test_what_is_kept_unread_can_always_be_written_again() -> None:
    def nested(depth: int) -> Any:
        value: Any = 1
        for _ in range(depth):
            value = [value]
        return value

    kept = packing.as_kept(nested(packing.MAX_DEPTH))
    assert opened(pack(kept)) == kept
    with pytest.raises(ValueError):
        packing.as_kept(nested(packing.MAX_DEPTH + 1))
    with pytest.raises(ValueError):
        packing.as_kept({"a": nested(packing.MAX_DEPTH)})


def test_text_and_bytes_stay_what_they_are() -> None:
    plain = msgpack.packb({"text": "a", "bytes": b"a"}, use_bin_type=True)
    assert opened(framed(plain)) == {"text": "a", "bytes": b"a"}
