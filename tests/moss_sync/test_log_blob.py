"""The blobs of a log: what goes in comes out, and anything else is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moss_sync import (
    BlobCorruptError,
    UnsupportedFormatError,
    log_blob,
    log_view,
    manifest,
    segment,
)
from moss_sync.coverage import Coverage
from moss_sync.layout import SegmentName
from moss_sync.log_blob import Head, Since, arrived, decode, encode
from moss_sync.log_view import Held, Partial, View
from moss_sync.packing import pack, unpack
from moss_sync.record import Record, VectorSpace, Version, content_digest
from moss_sync.seal import (
    CHUNK_BYTES,
    HEADER_BYTES,
    TAG_BYTES,
    BlobIdentity,
    RootKeys,
    seal,
)
from moss_sync.segment import Segment
from moss_sync.stores import MAX_BLOB_BYTES
from tests.strategies import new_name

NAMES, SID, DEV = bytes(range(32)), "s" * 26, b"device-A"
SPACE = VectorSpace("custom", "00ff", 1, "f4")


def name(kind: str, number: int, *, salt: int = 0) -> SegmentName:
    random = bytes([salt]) * 10
    return new_name(NAMES, SID, kind=kind, base=0, dev=DEV, number=number, sealed=random)


def record(id: str, n: int | None, *, dev: bytes = DEV, vector: bytes | None = None) -> Record:
    digest = content_digest(id, deleted=False, text="text", own_vector=vector)
    return Record(id, Version(7, dev, digest), text="text", vector=vector, commit_seq=n)


def payload(
    *records: Record, n: int = 3, dev: bytes = DEV, space: VectorSpace | None = None
) -> bytes:
    return segment.encode(Segment(dev, n, 0, space, b"", records))


def test_a_push_comes_out_as_it_went_in_and_its_records_are_its_own() -> None:
    data = encode(payload(record("a", None)), ct=5, since=None, covers=Coverage.of(DEV, 3))
    blob = decode(data, name("s", 3))
    assert (blob.ct, blob.since, blob.covers) == (5, None, Coverage.of(DEV, 3))
    assert (blob.replaces, dict(blob.whole), blob.forgot) == ((), {}, 0)
    assert [each.commit_seq for each in blob.segment.records] == [3]


def test_a_base_comes_out_as_it_went_in() -> None:
    inner = payload(record("a", 2, vector=b"\1" * 4), n=0, space=SPACE)
    covers = Coverage.of(DEV, 1).plus(Coverage.of(DEV, 2))
    inputs = (str(name("s", 1)), str(name("s", 2)))
    data = encode(
        inner, ct=5, since=Since(4, DEV), covers=covers, replaces=inputs, whole={DEV: 2}, forgot=9
    )
    blob = decode(data, name("b", 0))
    assert (blob.since, blob.covers, blob.replaces) == (Since(4, DEV), covers, inputs)
    assert (dict(blob.whole), blob.forgot) == ({DEV: 2}, 9)


@pytest.mark.parametrize(
    ("kind", "inner", "changes"),
    [
        ("s", payload(record("a", None), n=4), {}),
        ("s", payload(record("a", None), dev=b"device-B"), {}),
        ("s", payload(record("a", None, dev=b"device-B")), {}),
        ("s", payload(record("a", None)), {"covers": Coverage.of(DEV, 4)}),
        ("s", payload(record("a", None)), {"replaces": (str(name("s", 1)),)}),
        ("s", payload(record("a", None)), {"whole": {DEV: 3}}),
        ("s", payload(record("a", None)), {"forgot": 1}),
        ("s", payload(record("a", None)), {"since": Since(1, DEV)}),
        ("s", payload(record("a", None, vector=b"\1" * 4), space=SPACE), {}),
        ("b", payload(record("a", 4), n=0), {}),
        ("b", payload(record("a", None), n=0), {}),
        ("b", payload(record("a", 3), n=1), {}),
    ],
)
def test_a_blob_that_contradicts_itself_is_refused(
    kind: str, inner: bytes, changes: dict[str, object]
) -> None:
    given = {"ct": 5, "since": None, "covers": Coverage.of(DEV, 3), **changes}
    data = encode(inner, **given)  # type: ignore[arg-type]  # as a wrong writer would
    with pytest.raises(BlobCorruptError):
        decode(data, name(kind, 3 if kind == "s" else 0))


@pytest.mark.parametrize(
    "field", ["v", "ct", "since", "covers", "replaces", "whole", "forgot", "segment"]
)
def test_a_field_that_is_missing_or_of_another_type_is_refused(field: str) -> None:
    data = encode(payload(record("a", None)), ct=5, since=None, covers=Coverage.of(DEV, 3))
    for change in (lambda f: f.pop(field), lambda f: f.update({field: 1.5})):
        fields = unpack(data, max_bytes=10**6, what="a blob")
        change(fields)
        with pytest.raises(BlobCorruptError):
            decode(pack(fields), name("s", 3))


def test_a_newer_version_says_so() -> None:
    with pytest.raises(UnsupportedFormatError):
        decode(pack({"v": 2}), name("s", 3))
    with pytest.raises(UnsupportedFormatError):
        log_blob.decode_head(pack({"v": 2}), SID, DEV)


def test_a_head_comes_out_as_it_went_in_and_only_in_its_place() -> None:
    head = Head(SID, "conv-123", DEV, b"i" * 8, 4, 5, {DEV: 4, b"device-B": 2}, "custom")
    data = log_blob.encode_head(head)
    assert log_blob.decode_head(data, SID, DEV) == head
    with pytest.raises(BlobCorruptError):
        log_blob.decode_head(data, "t" * 26, DEV)
    with pytest.raises(BlobCorruptError):
        log_blob.decode_head(data, SID, b"device-B")


@given(size=st.integers(0, 300), data=st.data())
def test_a_cut_off_file_is_told_from_a_whole_one_at_every_length(
    size: int, data: st.DataObject
) -> None:
    roots = RootKeys({1: b"k" * 32})
    place = BlobIdentity(b"r" * 16, SID, "log", "s/name")
    sealed = seal(roots, place, b"x" * size, salt=b"s" * 32)
    assert arrived(sealed) is None
    have = data.draw(st.integers(0, len(sealed) - 1))
    assert arrived(sealed[:have]) is not None
    filled = sealed[: min(have, len(sealed) - 16)].ljust(len(sealed), b"\0")
    assert arrived(filled) is not None
    assert arrived(sealed + b"x") is None
    assert arrived(b"other" + sealed) is None


def test_what_is_remembered_comes_out_as_it_went_in() -> None:
    view = View(
        held={
            "s/x": Held(Coverage.of(DEV, 1), ("s/y",), {DEV: 1}, 5, 100, 90, 3, 1, 7, "00ff"),
            "b/x": Held(Coverage(), (), {}, 5, 100, 90, 0, 0),
        },
        known=Coverage.of(DEV, 1).plus(Coverage.of(DEV, 3)),
        floors=({DEV: 1}, {b"device-B": 2}),
        high=77,
        own={1: b"t" * 16},
        head_ms=12,
        head_applied={DEV: 1},
        space=SPACE,
        since=Since(4, DEV),
        aside={"s/z": "custom"},
        partial={"s/p": Partial("etag", 3, 10, 4)},
    )
    assert log_view.decode(log_view.encode(view)) == view
    assert log_view.decode(None) == View()
    assert log_view.decode(log_view.encode(View())) == View()
    with pytest.raises(BlobCorruptError):
        log_view.decode(b"nonsense")
    assert replace(view, own={}).tip == b""
    assert view.tip == b"t" * 16


def test_no_store_reads_much_more_than_the_largest_blob_that_is_read() -> None:
    """Whoever can write to the store decides how much memory eight reads at once take."""
    largest = max(log_blob.MAX_BLOB_PLAIN_BYTES, segment.MAX_PLAIN_BYTES, manifest.MAX_PLAIN_BYTES)
    frame = HEADER_BYTES + TAG_BYTES * (largest // CHUNK_BYTES + 1)
    assert largest + frame <= MAX_BLOB_BYTES <= largest + CHUNK_BYTES
