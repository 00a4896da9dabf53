"""Segments: every record that goes in comes out, and nothing that contradicts itself does."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moss_sync import limits, segment
from moss_sync.errors import BlobCorruptError, InvalidArgumentError, UnsupportedFormatError
from moss_sync.packing import pack, unpack
from moss_sync.record import Record, VectorSpace, Version, content_digest
from moss_sync.segment import Segment, decode, encode, planes, unplanes
from tests.moss_sync.hostile import packed_as_it_is
from tests.strategies import SCRIPTS, segments

SPACE = VectorSpace("moss-minilm", "00ff", 2, "f2")
OWN = VectorSpace("custom", "1234", 2, "f4")
DEV, OTHER = b"device-A", b"device-B"


def record(
    id: str,
    text: str = "",
    *,
    hlc: int = 5,
    dev: bytes = DEV,
    deleted: bool = False,
    metadata: dict[str, str] | None = None,
    payload: str | None = None,
    vector: bytes | None = None,
    own: bool = False,
    seq: int | None = None,
) -> Record:
    digest = content_digest(
        id,
        deleted=deleted,
        text=text,
        metadata=metadata,
        payload=payload,
        own_vector=vector if own else None,
    )
    return Record(id, Version(hlc, dev, digest), deleted, text, metadata, payload, vector, seq)


def of(*records: Record, space: VectorSpace | None = None) -> Segment:
    return Segment(DEV, 1, 0, space, b"", records=list(records))


def opened(data: bytes, *, commit_seq: int | None = None) -> Segment:
    return decode(data, what="segment 'x'", commit_seq=commit_seq)


@given(given=segments())
def test_what_was_encoded_comes_back(given: Segment) -> None:
    assert opened(encode(given)) == given


@given(given=segments(committed=False), seq=st.integers(1, 2**63 - 1))
def test_records_get_the_commit_that_carried_them(given: Segment, seq: int) -> None:
    assert {each.commit_seq for each in opened(encode(given), commit_seq=seq).records} <= {seq}


@given(given=segments(committed=True))
def test_records_that_say_their_commit_keep_it(given: Segment) -> None:
    assert opened(encode(given), commit_seq=77) == given


@pytest.mark.parametrize(
    "given",
    [
        of(),
        of(space=SPACE),
        of(record("a", deleted=True)),
        of(record("a"), record("b", vector=b"abcd"), record("c", deleted=True), space=SPACE),
        of(record("a", vector=b"abcdefgh", own=True), record("b"), space=OWN),
        of(*(record(f"{at} {text}", text, payload=text) for at, text in enumerate(SCRIPTS))),
        of(record("a", metadata={}), record("b", metadata=None), record("c", metadata={"": ""})),
        of(record("a", payload=""), record("b", payload=None)),
        of(record("e\u0301"), record("\u00e9")),
        of(record("a", "🦀" * (256 * 1024))),
        of(record("a", hlc=2**62), record("b", hlc=0), record("c", hlc=2**62)),
        of(record("a", dev=OTHER), record("b", dev=DEV), record("c", dev=OTHER)),
        of(*(record(str(at), seq=at) for at in range(1, 300))),
    ],
)
def test_nothing_is_lost_at_the_edges(given: Segment) -> None:
    assert opened(encode(given)) == given


def test_a_vector_is_content_only_where_the_caller_brought_it() -> None:
    for space, own in ((SPACE, False), (OWN, True)):
        size = space.vector_bytes
        digests = {
            opened(encode(of(record("a", vector=vector, own=own), space=space)))
            .records[0]
            .version.digest
            for vector in (b"\2" * size, b"\1" * size)
        }
        assert len(digests) == (2 if own else 1)


def fields_of(given: Segment) -> dict[str, Any]:
    fields = unpack(encode(given), max_bytes=segment.MAX_PLAIN_BYTES, what="a segment")
    assert isinstance(fields, dict)
    return fields


FULL = of(
    record("a", "x", metadata={"k": "v"}, payload="p", vector=b"abcd", seq=3),
    record("b", deleted=True, dev=OTHER, hlc=9, seq=4),
    space=SPACE,
)


def test_a_segment_holds_these_fields() -> None:
    assert fields_of(FULL) == {
        "v": 1,
        "dev": DEV,
        "n": 1,
        "base": 0,
        "space": {"id": "moss-minilm", "fp": "00ff", "dim": 2, "dtype": "f2"},
        "prev_tip": b"",
        "devs": [DEV, OTHER],
        "id": ["a", "b"],
        "hlc": [5, 4],
        "dev_ix": [0, 1],
        "flags": [2, 1],
        "commit_seq": [3, 4],
        "text": ["x", ""],
        "meta": [{"k": "v"}, None],
        "payload": ["p", None],
        "emb": b"acbd",
    }


def change(field: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def apply(fields: dict[str, Any]) -> None:
        fields[field] = value

    return apply


def change_at(field: str, at: Any, value: Any) -> Callable[[dict[str, Any]], None]:
    def apply(fields: dict[str, Any]) -> None:
        fields[field][at] = value

    return apply


NAN = math.nan
HOSTILE: dict[str, Callable[[dict[str, Any]], None]] = {
    # an index that Python would read from the end, or take for a number
    "a negative author": change_at("dev_ix", 0, -1),
    "an author who is a bool": change_at("dev_ix", 0, True),
    "an author who is not there": change_at("dev_ix", 0, 2),
    "an author in fractions": change_at("dev_ix", 0, 0.0),
    "a huge author": change_at("dev_ix", 0, 2**64 - 1),
    # clocks
    "a clock that is a bool": change_at("hlc", 0, True),
    "a clock in fractions": change_at("hlc", 0, 1.5),
    "a clock that is not a number": change_at("hlc", 0, NAN),
    "an endless clock": change_at("hlc", 0, math.inf),
    "a clock of text": change_at("hlc", 0, "1"),
    # flags and vectors
    "an unknown flag": change_at("flags", 1, 5),
    "negative flags": change_at("flags", 1, -1),
    "flags that are a bool": change_at("flags", 1, True),
    "flags in fractions": change_at("flags", 1, 1.0),
    "a vector without a space": change("space", None),
    "vectors as text": change("emb", "acbd"),
    "vectors as a list": change("emb", [1, 2, 3, 4]),
    "an id twice": change("id", ["a", "a"]),
    "a negative commit": change_at("commit_seq", 0, -1),
    "a commit that is a bool": change_at("commit_seq", 0, True),
    "a commit that no database holds": change_at("commit_seq", 0, 2**63),
    # columns
    "a column too short": change("text", ["x"]),
    "a column too long": change("payload", ["p", None, None]),
    "a column of bytes": change("hlc", b"\5\4"),
    "a column of text": change("text", "xy"),
    "a column that is a map": change("text", {0: "x", 1: ""}),
    "ids that are a map": change("id", {"a": 1, "b": 2}),
    "ids that are a text": change("id", "ab"),
    "authors that are a text": change("devs", "ab"),
    "an author id that is too short": change_at("devs", 0, b"short"),
    "an author id of text": change_at("devs", 0, "device-A"),
    # head
    "a device of text": change("dev", "device-A"),
    "a device that is too long": change("dev", b"device-AB"),
    "a number that is a bool": change("n", True),
    "a negative number": change("n", -1),
    "a base in fractions": change("base", 0.0),
    "a base that no database holds": change("base", 2**63),
    "a tip of another size": change("prev_tip", b"x"),
    "a tip of text": change("prev_tip", ""),
    "a version that is a bool": change("v", True),
    "a version of text": change("v", "1"),
    "no version": lambda fields: fields.pop("v") and None,
    "no ids": lambda fields: fields.pop("id") and None,
    # the space
    "a space that is a list": change("space", ["a"]),
    "a space without components": change_at("space", "dim", 0),
    "a space of a bool": change_at("space", "dim", True),
    "a space past the limit": change_at("space", "dim", limits.MAX_DIMENSIONS + 1),
    "a vector type of later": change_at("space", "dtype", "i8"),
    "a vector type that is a list": change_at("space", "dtype", ["f2"]),
    "a fingerprint of bytes": change_at("space", "fp", b"00ff"),
    "a model that is a number": change_at("space", "id", 1),
    "a model without a name": change_at("space", "id", ""),
    "a model of a long name": change_at("space", "id", "x" * (limits.MAX_NAME_BYTES + 1)),
    "a long fingerprint": change_at("space", "fp", "0" * (limits.MAX_NAME_BYTES + 1)),
}


@pytest.mark.parametrize("harm", HOSTILE.values(), ids=HOSTILE)
def test_a_field_that_is_not_as_it_must_be_is_a_corrupt_segment(
    harm: Callable[[dict[str, Any]], None],
) -> None:
    fields = fields_of(FULL)
    assert opened(pack(fields)) == FULL
    harm(fields)
    with pytest.raises(BlobCorruptError, match="segment 'x'"):
        opened(pack(fields))


LEFT_OUT: dict[str, tuple[str, str, Callable[[dict[str, Any]], None]]] = {
    "no id": ("a", "empty", change_at("id", 0, "")),
    "an id over the limit": ("a", "1025 bytes", change_at("id", 0, "x" * 1025)),
    "an id that is half a pair": ("a", "no UTF-8", change_at("id", 0, "\ud800")),
    "an id that is a number": ("a", "type int", change_at("id", 0, 1)),
    "an id that is nothing": ("a", "type NoneType", change_at("id", 0, None)),
    "an id that is a list": ("a", "type list", change_at("id", 0, ["a"])),
    "a text over the limit": ("a", "more than", change_at("text", 0, "é" * (2**19 + 1))),
    "a text that is half a pair": ("a", "no UTF-8", change_at("text", 0, "x\udfff")),
    "a text of bytes": ("a", "type bytes", change_at("text", 0, b"x")),
    "no text": ("a", "type NoneType", change_at("text", 0, None)),
    "a payload over the limit": ("a", "more than", change_at("payload", 0, "x" * (2**20 + 1))),
    "a payload that is half a pair": ("a", "no UTF-8", change_at("payload", 0, "\ud800")),
    "a payload of bytes": ("a", "type bytes", change_at("payload", 0, b"x")),
    "metadata that is a list": ("a", "not a map", change_at("meta", 0, [])),
    "a metadata key that is a number": ("a", "type int", change_at("meta", 0, {1: "x"})),
    "a metadata value that is a number": ("a", "type int", change_at("meta", 0, {"x": 1})),
    "a metadata value that is a map": ("a", "type dict", change_at("meta", 0, {"x": {}})),
    "a metadata value that is half a pair": ("a", "UTF-8", change_at("meta", 0, {"x": "\udc00"})),
    "metadata over the limit": ("a", "more than", change_at("meta", 0, {"k": "x" * 2**20})),
    "metadata of many keys": (
        "a",
        "more than",
        change_at("meta", 0, {f"{n:08}": "x" * 8 for n in range(2**16 + 1)}),
    ),
    "a clock before zero": ("b", "clock", change_at("hlc", 1, -6)),
    "a clock past its end": ("a", "clock", change("hlc", [2**62 + 1, 4 - 2**62])),
    "a tombstone with a text": ("b", "deletion", change_at("text", 1, "x")),
    "a tombstone with metadata": ("b", "deletion", change_at("meta", 1, {})),
    "a tombstone with a payload": ("b", "deletion", change_at("payload", 1, "")),
    "a tombstone with a vector": ("b", "deletion", change("flags", [0, 3])),
}


@pytest.mark.parametrize(("harmed", "reason", "harm"), LEFT_OUT.values(), ids=LEFT_OUT)
def test_a_record_over_the_limits_is_left_out_alone(
    harmed: str, reason: str, harm: Callable[[dict[str, Any]], None]
) -> None:
    fields = fields_of(FULL)
    harm(fields)
    read = opened(packed_as_it_is(fields))
    assert [each.id for each in read.records] == [id for id in ("a", "b") if id != harmed]
    [told] = read.rejected
    assert reason in str(told)
    assert len(str(told)) < 300


VECTORS = {
    "nan": np.array([math.nan, 1]),
    "infinite": np.array([1, -math.inf]),
    "zero": np.array([0.0, -0.0]),
}


@pytest.mark.parametrize("values", VECTORS.values(), ids=VECTORS)
def test_a_bad_vector_of_a_model_is_dropped_and_one_of_the_callers_own_sets_the_record_aside(
    values: np.ndarray,
) -> None:
    for space in (SPACE, OWN):
        good = np.array([1, 2], f"<{space.dtype}").tobytes()
        bad = values.astype(f"<{space.dtype}").tobytes()
        own = space is OWN
        fields = fields_of(
            of(record("a", vector=good, own=own), record("b", vector=good, own=own), space=space)
        )
        fields["emb"] = planes(bad + good, int(space.dtype[1]))
        read = opened(pack(fields))
        assert [(each.id, each.vector) for each in read.records] == (
            [("b", good)] if own else [("a", None), ("b", good)]
        )
        assert len(read.rejected) == own


@pytest.mark.parametrize("emb", [b"", b"abc", b"abcdefgh", b"abcdefghabcdefgh"])
def test_a_column_of_vectors_of_another_size_tells_nothing_of_any(emb: bytes) -> None:
    for space in (SPACE, OWN):
        given = of(record("a"), record("b"), space=space)
        fields = fields_of(given) | {"flags": [2, 0], "emb": emb}
        if len(emb) == space.vector_bytes:
            continue
        read = opened(pack(fields))
        assert [(each.id, each.vector) for each in read.records] == (
            [("b", None)] if space is OWN else [("a", None), ("b", None)]
        )
        assert len(read.rejected) == (space is OWN)


@pytest.mark.parametrize("value", [None, True, 1, 1.5, "v", b"v", [], ["v"], {}, {"v": 1}, {1: 1}])
def test_a_value_that_is_no_segment_is_a_corrupt_segment(value: Any) -> None:
    with pytest.raises(BlobCorruptError):
        opened(pack(value))


@given(
    field=st.sampled_from(sorted(fields_of(FULL))),
    value=st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**63), 2**64 - 1)
        | st.floats()
        | st.text(max_size=2)
        | st.binary(max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=1), inner),
        max_leaves=4,
    ),
)
def test_any_other_field_is_refused_or_encodes_equal(field: str, value: Any) -> None:
    fields = {**fields_of(FULL), field: value}
    try:
        read = opened(pack(fields))
    except (BlobCorruptError, UnsupportedFormatError):
        return
    counted = replace(read, rejected=())
    assert opened(encode(counted)) == counted


def test_a_segment_of_a_later_version_asks_for_an_upgrade() -> None:
    with pytest.raises(UnsupportedFormatError, match="segment 'x' has version 2"):
        opened(pack({"v": 2}))


def test_a_record_cannot_claim_the_version_of_other_content() -> None:
    fields = fields_of(of(record("a", "true")))
    fields["text"] = ["false"]
    read = opened(pack(fields)).records[0]
    assert read.version.digest == content_digest("a", deleted=False, text="false")


def test_an_author_named_twice_is_still_one_author() -> None:
    fields = fields_of(FULL)
    fields["devs"] = [DEV, DEV]
    assert {each.version.dev for each in opened(pack(fields)).records} == {DEV}


def test_keys_of_a_later_version_are_passed_over() -> None:
    fields = fields_of(FULL)
    fields["zz_later"] = [1]
    assert opened(pack(fields)) == FULL


@pytest.mark.parametrize(
    "given",
    [
        of(record("a"), record("a", "x")),
        of(record("a", vector=b"abcd")),
        of(record("a", vector=b"abc"), space=SPACE),
        of(Record("a", Version(1, DEV, bytes(8)), deleted=True, text="x")),
        of(Record("a", Version(1, DEV, bytes(8)), deleted=True, vector=b"abcd"), space=SPACE),
        of(record("")),
        of(record("x" * 1025)),
        of(record("a", "x" * (2**20 + 1))),
        of(record("a", payload="x" * (2**20 + 1))),
        of(record("a", metadata={"k": "x" * 2**20})),
        of(record("a", vector=bytes(4)), space=SPACE),
        of(record("a", vector=b"\x00\x7e\x00\x00"), space=SPACE),
        of(Record("\ud800", Version(1, DEV, bytes(8)))),
        of(Record("a", Version(1, DEV, bytes(8)), text="\udc00")),
        of(record("a", hlc=2**63)),
        of(record("a", hlc=-1)),
        of(record("a", seq=2**63)),
        of(record("a", dev=b"short")),
        of(Record("a", Version(1, DEV, b""))),
        replace(of(), n=-1),
        replace(of(), n=2**63),
        replace(of(), base=2**63),
        replace(of(), dev=b""),
        replace(of(), prev_tip=b"x"),
        replace(of(), space=replace(SPACE, dim=0)),
        replace(of(), space=replace(SPACE, dim=limits.MAX_DIMENSIONS + 1)),
        replace(of(), space=replace(SPACE, id="")),
        replace(of(), space=replace(SPACE, id="x" * 513)),
    ],
)
def test_a_segment_that_nobody_could_read_is_not_made(given: Segment) -> None:
    with pytest.raises(InvalidArgumentError):
        encode(given)


@given(
    given=segments(),
    id=st.text(max_size=3) | st.just("x" * 1025),
    number=st.integers(-2, 3) | st.integers(2**63 - 2, 2**64),
    field=st.sampled_from(["n", "base", "hlc", "seq"]),
    vector=st.none() | st.binary(max_size=20),
)
def test_what_is_encoded_is_read_and_nothing_else_is_encoded(
    given: Segment, id: str, number: int, field: str, vector: bytes | None
) -> None:
    extra = Record(
        id,
        Version(number if field == "hlc" else 1, DEV, bytes(8)),
        vector=vector,
        commit_seq=number if field == "seq" else None,
    )
    odd = replace(given, records=[*given.records, extra])
    if field in ("n", "base"):
        odd = replace(odd, **{field: number})
    try:
        data = encode(odd)
    except InvalidArgumentError:
        return
    assert opened(data) == odd


def test_a_segment_too_large_for_its_readers_is_not_made() -> None:
    # It compresses to a few KiB, so no bound on sealed bytes would stop it.
    text = "a" * (1024 * 1024)
    most = segment.MAX_PLAIN_BYTES // len(text)
    fits = of(*(record(str(at), text) for at in range(most - 1)))
    assert len(opened(encode(fits)).records) == most - 1
    with pytest.raises(InvalidArgumentError, match=f"a segment of {most} records has .* bytes"):
        encode(of(*(record(str(at), text) for at in range(most))))


def test_more_records_than_a_reader_takes_are_not_encoded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(segment, "MAX_RECORDS", 2)
    encode(of(record("a"), record("b")))
    with pytest.raises(ValueError, match="3 records"):
        encode(of(record("a"), record("b"), record("c")))


@given(width=st.sampled_from([0, 1, 2, 4]), items=st.integers(0, 20), data=st.data())
def test_byte_planes_are_a_permutation_that_is_undone(
    width: int, items: int, data: st.DataObject
) -> None:
    size = items * max(width, 1)
    raw = data.draw(st.binary(min_size=size, max_size=size))
    assert unplanes(planes(raw, width), width) == raw
    assert sorted(planes(raw, width)) == sorted(raw)


def test_byte_planes_put_the_first_bytes_first() -> None:
    assert planes(b"aAbBcC", 2) == b"abcABC"
    assert planes(b"1234abcd", 4) == b"1a2b3c4d"


@given(given=segments(), at=st.integers(0), bit=st.integers(0, 7))
def test_a_flip_in_the_plain_bytes_never_raises_anything_else(
    given: Segment, at: int, bit: int
) -> None:
    data = bytearray(encode(given))
    data[at % len(data)] ^= 1 << bit
    try:
        read = opened(bytes(data))
    except (BlobCorruptError, UnsupportedFormatError):
        return
    counted = replace(read, rejected=())
    assert opened(encode(counted)) == counted


def test_a_version_stays_what_it_was_after_its_own_vector_is_gone() -> None:
    with_own = record("a", "text", vector=b"\1" * 8, own=True)
    without = replace(with_own, vector=None)
    made = replace(with_own, vector=b"\1" * 4)
    for changed, space in ((without, None), (made, SPACE)):
        [back] = decode(encode(of(changed, record("b"), space=space)), what="it").records[:1]
        assert back == changed
        assert back.version == with_own.version
    # Nothing is written where it follows from the content.
    plain = unpack(encode(of(with_own, space=OWN)), max_bytes=10_000, what="it")
    assert isinstance(plain, dict)
    assert "digests" not in plain


@pytest.mark.parametrize("digests", [{0: b"short"}, {"0": bytes(8)}, {-1: bytes(8)}, [bytes(8)]])
def test_kept_digests_that_are_none_are_refused(digests: object) -> None:
    fields = unpack(encode(of(record("a"))), max_bytes=10_000, what="it")
    assert isinstance(fields, dict)
    with pytest.raises(BlobCorruptError):
        decode(pack({**fields, "digests": digests}), what="it")
