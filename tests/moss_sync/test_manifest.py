"""The manifest: every field comes back, those of later versions too, and nothing odd does."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import replace
from hashlib import blake2b
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moss_sync import manifest
from moss_sync.errors import BlobCorruptError, InvalidArgumentError, UnsupportedFormatError
from moss_sync.layout import SegmentName
from moss_sync.limits import MAX_SEQ, MAX_UNKNOWN_BYTES
from moss_sync.manifest import Device, Entry, Inline, Manifest, decode, encode, unknown_bytes
from moss_sync.marks import marks_size
from moss_sync.packing import MAX_DEPTH, pack, unpack
from moss_sync.record import VectorSpace
from tests.moss_sync.hostile import put
from tests.strategies import NAME_KEY, SID, manifests, new_name, unknown_values

DEV = b"device-A"
SPACE = VectorSpace("moss-minilm", "00ff", 384, "f2")


def named(kind: str = "s", base: int = 1, number: int = 1, sealed: bytes = b"") -> SegmentName:
    return new_name(NAME_KEY, SID, kind=kind, base=base, dev=DEV, number=number, sealed=sealed)


def name(kind: str = "s", base: int = 1, number: int = 1, sealed: bytes = b"") -> str:
    return str(named(kind, base, number, sealed))


FULL = Manifest(
    repo_id=b"repository-id-16",
    sid=SID,
    name="conv-123",
    seq=7,
    commit_id=b"commit-id-of-16b",
    by=DEV,
    ct=1_700_000_000_000,
    prev=b"p" * 32,
    marks=b"".join(bytes([at]) * 8 for at in range(6, 0, -1)),
    entries=(
        Entry(name(), 900, 3, 1, 4, 5, 1, 0, 1_700_000_000_000, 2, 9, "00ff", 2000),
        Entry(name("b", 3), 90, None, None, 1, 6, 0, 1, 1_600_000_000_000, 1),
    ),
    inline=(Inline(DEV, 3, 6, 7, 1_700_000_000_000, b"payload"),),
    devs={DEV: Device(3, 6, 1_700_000_000_000, b"incarn-1", b"t" * 16, "laptop", 7)},
    gc_floor=2,
    tomb_seq=1,
    tomb_hlc=8,
    space=SPACE,
    epoch=2,
)


OUT_OF_RANGE: dict[str, dict[str, Any]] = {
    "no commit": {"seq": 0},
    "more deletions than commits": {"gen": 8},
    "more repairs than commits": {"repairs": 8},
    "a device that left after the last commit": {"retired": 8},
    "a moment after the last commit": {"tl": ((8, 1),)},
    "a number past 2^63": {"tomb_hlc": 2**63},
    "a name over the limit": {"name": "x" * 513},
    "no name": {"name": ""},
    "a push number that no name holds": {"devs": {DEV: replace(FULL.devs[DEV], n=2**32)}},
    "a commit of a device after the last": {"devs": {DEV: replace(FULL.devs[DEV], seq=8)}},
    "a device that has applied more": {"devs": {DEV: replace(FULL.devs[DEV], acked_seq=8)}},
    "a label over the limit": {"devs": {DEV: replace(FULL.devs[DEV], label="x" * 513)}},
    "an inline push number past its end": {"inline": (replace(FULL.inline[0], n=2**32),)},
    "a level that no name holds": {"entries": (replace(FULL.entries[0], name=name("b"), lvl=256),)},
}


@pytest.mark.parametrize("change", OUT_OF_RANGE.values(), ids=OUT_OF_RANGE)
def test_numbers_that_no_commit_can_have_are_refused(change: dict[str, Any]) -> None:
    odd = replace(FULL, **change)
    with pytest.raises(BlobCorruptError):
        opened(pack(manifest._fields(odd)))


def opened(data: bytes) -> Manifest:
    return decode(data, what="the manifest")


def fields_of(given: Manifest) -> dict[str, Any]:
    fields = unpack(encode(given), max_bytes=manifest.MAX_PLAIN_BYTES, what="a manifest")
    assert isinstance(fields, dict)
    return fields


@settings(max_examples=60)
@given(given=manifests())
def test_what_was_encoded_comes_back_unknown_keys_included(given: Manifest) -> None:
    assert opened(encode(given)) == given


@settings(max_examples=60)
@given(given=manifests())
def test_what_an_older_device_writes_back_is_what_it_read(given: Manifest) -> None:
    fields = fields_of(given)
    assert fields_of(opened(pack(fields))) == fields


def test_a_manifest_holds_these_fields() -> None:
    assert fields_of(FULL) == {
        "v": 1,
        "feat_r": [],
        "feat_w": [],
        "repo_id": b"repository-id-16",
        "sid": SID,
        "name": "conv-123",
        "seq": 7,
        "commit_id": b"commit-id-of-16b",
        "by": DEV,
        "ct": 1_700_000_000_000,
        "prev": b"p" * 32,
        "marks": b"".join(bytes([at]) * 8 for at in range(6, 0, -1)),
        "gen": 0,
        "deleted": False,
        "E": {
            "dev": DEV + DEV,
            "tag": named().raw_tag + named("b", 3).raw_tag,
            "base": [1, 2],
            "lo": [4, -3],
            "hi": [5, 1],
            "bmin": [1, -1],
            "ct": [1_700_000_000_000, -100_000_000_000],
            "number": [1, 1],
            "bytes": [900, 90],
            "lvl": [0, 1],
            "epoch": [2, 1],
            "docs": [3, None],
            "tombs": [1, None],
            "plain": [2000, None],
            "hlc_max": [9, None],
            "fp": ["00ff", None],
        },
        "inl": [
            {
                "dev": DEV,
                "n": 3,
                "base": 6,
                "seq": 7,
                "ct": 1_700_000_000_000,
                "payload": b"payload",
            }
        ],
        "devs": {
            DEV: {
                "n": 3,
                "acked_seq": 6,
                "last_ct": 1_700_000_000_000,
                "inc": b"incarn-1",
                "tip": b"t" * 16,
                "label": "laptop",
                "seq": 7,
            }
        },
        "gc_floor": 2,
        "tomb_floor": {"seq": 1, "hlc": 8},
        "models": [{"id": "moss-minilm", "fp": "00ff", "dim": 384, "dtype": "f2"}],
        "active_model": "00ff",
        "epoch": 2,
    }


@pytest.mark.parametrize(
    "path",
    [
        (),
        ("inl", 0),
        ("devs", DEV),
        ("tomb_floor",),
        ("models", 0),
    ],
)
@given(value=unknown_values)
def test_a_key_of_a_later_version_is_kept_wherever_it_stands(
    path: tuple[Any, ...], value: Any
) -> None:
    fields = fields_of(FULL)
    place = fields
    for step in path:
        place = place[step]
    place["zz_later"] = value
    read = opened(pack(fields))
    assert fields_of(read) == fields
    assert fields_of(replace(read, gen=7)) == {**fields, "gen": 7}


@given(value=unknown_values.filter(lambda value: value is not None))
def test_a_column_of_a_later_version_is_kept_with_the_entries(value: Any) -> None:
    fields = fields_of(FULL)
    fields["E"]["zz_later"] = [None, value]
    read = opened(pack(fields))
    assert [entry.extra for entry in read.entries] == [{}, {"zz_later": value}]
    assert fields_of(read) == fields
    left = fields_of(replace(read, entries=read.entries[1:]))
    assert left["E"]["zz_later"] == [value]


def test_a_model_that_this_version_cannot_use_is_kept() -> None:
    later = {"id": "later", "fp": "beef", "dim": 9, "dtype": "i8", "norm": True}
    fields = fields_of(FULL)
    fields["models"] = [later, *fields["models"]]
    read = opened(pack(fields))
    assert read.space == SPACE
    assert fields_of(read) == fields


def test_models_without_an_active_one_are_kept_and_the_first_vector_adds_its_own() -> None:
    later = {"id": "later", "fp": "beef", "dim": 9, "dtype": "i8"}
    fields = fields_of(replace(FULL, space=None))
    assert (fields["models"], fields["active_model"]) == ([], None)
    fields["models"] = [later]
    read = opened(pack(fields))
    assert read.space is None
    added = fields_of(replace(read, space=SPACE))
    assert added["models"] == [later, fields_of(FULL)["models"][0]]
    assert added["active_model"] == "00ff"


def test_an_adopted_entry_may_say_nothing_of_what_is_inside() -> None:
    entry = replace(FULL.entries[0], docs=None, tombs=None, plain=None, hlc_max=None, fp=None)
    given = replace(FULL, entries=(entry,))
    assert opened(encode(given)) == given


def test_a_reader_feature_of_later_is_named_even_where_all_else_is_different() -> None:
    with pytest.raises(UnsupportedFormatError, match="the manifest uses 'later'"):
        opened(pack({"v": 9, "feat_r": ["later"]}))
    with pytest.raises(UnsupportedFormatError, match="the manifest has version 2"):
        opened(pack({"v": 2, "feat_r": []}))


def test_a_writer_feature_of_later_is_read_and_kept() -> None:
    given = replace(FULL, features_w=("later",))
    assert opened(encode(given)) == given


def add(field: str, item: Any) -> Callable[[dict[str, Any]], None]:
    def apply(fields: dict[str, Any]) -> None:
        fields[field].append(item)

    return apply


def deep(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


NUMBERS = [
    ("seq",),
    ("ct",),
    ("gen",),
    ("gc_floor",),
    ("v",),
    ("tomb_floor", "seq"),
    ("tomb_floor", "hlc"),
    ("epoch",),
    *(("E", key, 0) for key in ("bytes", "docs", "tombs", "number", "lvl", "epoch")),
    *(("E", key, 0) for key in ("hlc_max", "plain")),
    *(("E", key, 0) for key in ("base", "lo", "hi", "bmin", "ct")),
    *(("inl", 0, key) for key in ("n", "base", "seq", "ct")),
    *(("devs", DEV, key) for key in ("n", "acked_seq", "last_ct")),
    ("models", 0, "dim"),
]
TEXTS = [
    ("sid",),
    ("name",),
    ("active_model",),
    ("E", "fp", 0),
    ("devs", DEV, "label"),
    ("models", 0, "id"),
    ("models", 0, "fp"),
    ("models", 0, "dtype"),
]
BYTES = [
    ("repo_id",),
    ("commit_id",),
    ("by",),
    ("prev",),
    ("marks",),
    ("E", "dev"),
    ("E", "tag"),
    ("inl", 0, "dev"),
    ("inl", 0, "payload"),
    ("devs", DEV, "inc"),
    ("devs", DEV, "tip"),
]
LISTS = [
    ("E", "hi"),
    ("E", "docs"),
    ("E", "fp"),
    ("inl",),
    ("models",),
    ("feat_r",),
    ("feat_w",),
]
MAPS = [("devs",), ("tomb_floor",), ("E",), ("inl", 0), ("devs", DEV), ("models", 0)]


@pytest.mark.parametrize("path", NUMBERS, ids=str)
@pytest.mark.parametrize("value", [True, -1, 1.0, math.nan, "1", b"1", [], {}, 2**63], ids=repr)
def test_a_number_is_a_number_that_a_database_can_hold(path: tuple[Any, ...], value: Any) -> None:
    refuse(put(*path, value=value))


@pytest.mark.parametrize("path", TEXTS, ids=str)
@pytest.mark.parametrize("value", [True, 1, b"x", [], {}], ids=repr)
def test_a_text_is_a_text(path: tuple[Any, ...], value: Any) -> None:
    refuse(put(*path, value=value))


@pytest.mark.parametrize("path", BYTES, ids=str)
@pytest.mark.parametrize("value", [None, True, 1, "x" * 16, [], {}], ids=repr)
def test_bytes_are_bytes(path: tuple[Any, ...], value: Any) -> None:
    refuse(put(*path, value=value))


@pytest.mark.parametrize("path", [path for path in BYTES if path[-1] != "payload"], ids=str)
def test_ids_and_hashes_have_their_size(path: tuple[Any, ...]) -> None:
    refuse(put(*path, value=b"short"))


@pytest.mark.parametrize("path", LISTS, ids=str)
@pytest.mark.parametrize("value", [None, True, 1, "x", b"x", {}, {"x": 1}], ids=repr)
def test_a_list_is_a_list(path: tuple[Any, ...], value: Any) -> None:
    refuse(put(*path, value=value))


@pytest.mark.parametrize("path", MAPS, ids=str)
@pytest.mark.parametrize("value", [None, True, 1, "x", b"x", [], [1]], ids=repr)
def test_a_map_is_a_map(path: tuple[Any, ...], value: Any) -> None:
    refuse(put(*path, value=value))


def doubled(fields: dict[str, Any]) -> None:
    columns = fields["E"]
    for column, values in columns.items():
        columns[column] = values + values
    for column in ("base", "lo", "hi", "bmin", "ct"):
        columns[column][2:] = [-sum(columns[column][:2]) + columns[column][2], columns[column][3]]


HOSTILE: dict[str, Callable[[dict[str, Any]], None]] = {
    "a truth value that is a number": put("deleted", value=1),
    "a truth value that is nothing": put("deleted", value=None),
    "a reader feature that is a number": put("feat_r", value=[1]),
    "a writer feature that is a list": put("feat_w", value=[[]]),
    "a writer feature that is a number": put("feat_w", value=["a", 1]),
    "a device id of text": put("devs", "device-A", value={}),
    "a device id that is too short": put("devs", b"short", value={}),
    "marks of a commit before": put("marks", value=bytes(40)),
    "marks of a commit after": put("marks", value=bytes(56)),
    "an active model that is not listed": put("active_model", value="beef"),
    "an active model of a type of later": put("models", 0, "dtype", value="i8"),
    "a model without a fingerprint": put("models", value=[{}]),
    "an entry twice": doubled,
    "an entry that covers nothing": put("E", "lo", 0, value=5),
    "an entry of a commit that is not yet": put("E", "hi", 0, value=8),
    "an entry of a base that is not yet": put("E", "base", 0, value=8),
    "an entry of things merged that are not yet": put("E", "bmin", 0, value=8),
    "an entry under a newer key than the manifest": put("E", "epoch", 0, value=3),
    "an entry under no key": put("E", "epoch", 0, value=0),
    "a manifest under no key": put("epoch", value=0),
    "an inline push of a base that is not yet": put("inl", 0, "base", value=8),
    "columns of different lengths": put("E", "docs", value=[3]),
    "a later column of another length": put("E", "zz_later", value=[1]),
    "a later column that is none": put("E", "zz_later", value=1),
    "a push number that no name has room for": put("E", "number", 0, value=2**32),
    "a level that no name has room for": put("E", "number", 1, value=2**8),
    "an inline push of a commit that is not yet": put("inl", 0, "seq", value=8),
    "an inline push of no commit": put("inl", 0, "seq", value=0),
    "a floor above the last commit": put("gc_floor", value=8),
    "tombstones dropped above the floor": put("tomb_floor", "seq", value=3),
    "a later key that nests without end": put("zz_later", value=deep(MAX_DEPTH + 1)),
    "a later column that does": put("E", "zz", value=[None, deep(MAX_DEPTH + 1)]),
    "a model of later that does": add("models", {"fp": "beef", "zz": deep(MAX_DEPTH + 1)}),
}


@pytest.mark.parametrize("harm", HOSTILE.values(), ids=HOSTILE)
def test_what_no_commit_can_have_made_is_a_corrupt_manifest(
    harm: Callable[[dict[str, Any]], None],
) -> None:
    refuse(harm)


@pytest.mark.parametrize("key", sorted(fields_of(FULL).keys()))
def test_no_key_of_a_manifest_may_be_missing(key: str) -> None:
    refuse(lambda fields: fields.pop(key))


@pytest.mark.parametrize("path", [("E",), ("inl", 0), ("devs", DEV), ("tomb_floor",)], ids=str)
def test_no_key_inside_a_manifest_may_be_missing(path: tuple[Any, ...]) -> None:
    def inside(fields: dict[str, Any]) -> dict[str, Any]:
        place: Any = fields
        for step in path:
            place = place[step]
        assert isinstance(place, dict)
        return place

    for key in inside(fields_of(FULL)):

        def harm(fields: dict[str, Any], key: str = key) -> None:
            del inside(fields)[key]

        refuse(harm)


def refuse(harm: Callable[[dict[str, Any]], Any]) -> None:
    fields = fields_of(FULL)
    assert opened(pack(fields)) == FULL
    harm(fields)
    with pytest.raises(BlobCorruptError, match="the manifest"):
        opened(pack(fields))


@pytest.mark.parametrize("value", [None, True, 1, 1.5, "v", b"v", [], ["v"], {}, {"v": 1}, {1: 1}])
def test_a_value_that_is_no_manifest_is_a_corrupt_manifest(value: Any) -> None:
    with pytest.raises(BlobCorruptError):
        opened(pack(value))


@given(
    key=st.sampled_from(sorted(fields_of(FULL))),
    value=unknown_values | st.floats() | st.integers(-(2**63), 2**64 - 1),
)
def test_any_other_field_is_refused_or_encodes_equal(key: str, value: Any) -> None:
    try:
        read = opened(pack({**fields_of(FULL), key: value}))
    except (BlobCorruptError, UnsupportedFormatError):
        return
    assert opened(encode(read)) == read


@settings(max_examples=60)
@given(given=manifests(), at=st.integers(0), bit=st.integers(0, 7))
def test_a_flip_in_the_plain_bytes_never_raises_anything_else(
    given: Manifest, at: int, bit: int
) -> None:
    data = bytearray(encode(given))
    data[at % len(data)] ^= 1 << bit
    try:
        read = opened(bytes(data))
    except (BlobCorruptError, UnsupportedFormatError):
        return
    assert opened(encode(read)) == read


@pytest.mark.parametrize(
    "given",
    [
        replace(FULL, gc_floor=8),
        replace(FULL, tomb_seq=3),
        replace(FULL, entries=FULL.entries * 2),
        replace(FULL, entries=(replace(FULL.entries[0], name="s/1"),)),
        replace(FULL, entries=(replace(FULL.entries[0], lvl=1),)),
        replace(FULL, entries=(replace(FULL.entries[1], lvl=0),)),
        replace(FULL, entries=(replace(FULL.entries[0], epoch=3),)),
        replace(FULL, entries=(replace(FULL.entries[0], name=name(base=8)),)),
        replace(FULL, entries=(replace(FULL.entries[0], bmin=8),)),
        replace(FULL, inline=(replace(FULL.inline[0], base=8),)),
        replace(FULL, epoch=0),
        replace(FULL, epoch=2**32),
        replace(FULL, inline=(replace(FULL.inline[0], seq=0),)),
        *(replace(FULL, **change) for change in OUT_OF_RANGE.values()),
        replace(FULL, extra={"seq": 7}),
        replace(FULL, extra={"tomb_floor": {"hlc": 1}}),
        replace(FULL, entries=(replace(FULL.entries[0], extra={"hi": 1}),)),
        replace(FULL, devs={DEV: replace(FULL.devs[DEV], extra={"n": 1})}),
        replace(FULL, inline=(replace(FULL.inline[0], extra={"n": 1}),)),
    ],
)
def test_a_manifest_that_nobody_could_read_is_not_made(given: Manifest) -> None:
    with pytest.raises(InvalidArgumentError):
        encode(given)


@given(
    given=manifests(),
    field=st.sampled_from(
        ["seq", "ct", "gen", "gc_floor", "tomb_seq", "tomb_hlc", "retired", "repairs", "epoch"]
    ),
    number=st.integers(-2, 10) | st.integers(2**32 - 2, 2**32 + 1) | st.integers(2**63 - 2, 2**64),
)
def test_what_is_encoded_is_read_and_nothing_else_is_encoded(
    given: Manifest, field: str, number: int
) -> None:
    odd = replace(given, **{field: number})
    try:
        data = encode(odd)
    except InvalidArgumentError:
        return
    assert opened(data) == odd


def test_the_last_commit_can_be_made_and_says_how_to_go_on() -> None:
    last = replace(FULL, seq=MAX_SEQ, marks=bytes(marks_size(MAX_SEQ)))
    assert opened(encode(last)) == last
    with pytest.raises(InvalidArgumentError, match="can be no more") as raised:
        encode(replace(last, seq=MAX_SEQ + 1))
    assert "export" in str(raised.value.hint)


def filler(size: int) -> dict[str, Any]:
    return {"zz_later": bytes(size)}


def test_what_is_not_known_is_kept_within_a_bound_and_a_repair_can_do_without() -> None:
    most = MAX_UNKNOWN_BYTES - 20
    full = replace(FULL, extra=filler(most))
    assert opened(encode(full)) == full
    assert MAX_UNKNOWN_BYTES - 20 < unknown_bytes(full) <= MAX_UNKNOWN_BYTES
    for place in (
        {"extra": filler(MAX_UNKNOWN_BYTES)},
        {"entries": (replace(FULL.entries[0], extra=filler(MAX_UNKNOWN_BYTES)), FULL.entries[1])},
        {"inline": (replace(FULL.inline[0], extra=filler(MAX_UNKNOWN_BYTES)),)},
        {"devs": {DEV: replace(FULL.devs[DEV], extra=filler(MAX_UNKNOWN_BYTES))}},
        {"extra": {"tomb_floor": filler(MAX_UNKNOWN_BYTES)}},
        {"extra": {"models": [fields_of(FULL)["models"][0], filler(MAX_UNKNOWN_BYTES)]}},
        {"features_w": ("x" * MAX_UNKNOWN_BYTES,)},
        {"extra": filler(most // 2), "features_w": ("x" * (most // 2 + 50),)},
    ):
        over = replace(FULL, **place)
        with pytest.raises(InvalidArgumentError, match="too much that is not known"):
            encode(over)
        data = pack(manifest._fields(over))
        with pytest.raises(BlobCorruptError):
            opened(data)
        assert decode(data, what="it", leave_out="keys and features") == FULL


def test_a_repair_reads_what_uses_a_feature_that_nobody_has() -> None:
    data = pack({**fields_of(FULL), "feat_r": ["made-up"], "feat_w": ["too"]})
    with pytest.raises(UnsupportedFormatError):
        opened(data)
    with pytest.raises(UnsupportedFormatError):
        decode(data, what="it", leave_out="keys")
    assert decode(data, what="it", leave_out="keys and features") == FULL


def test_a_manifest_too_large_for_its_readers_is_not_made() -> None:
    item = replace(FULL.inline[0], payload=bytes(manifest.MAX_PLAIN_BYTES))
    with pytest.raises(InvalidArgumentError, match="the manifest of session 'conv-123' has"):
        encode(replace(FULL, inline=(item,)))


def test_a_device_that_the_session_does_not_know_is_none() -> None:
    assert FULL.device(DEV) == FULL.devs[DEV]
    assert FULL.device(b"device-B") is None


def test_the_inline_payloads_are_counted_by_their_bytes() -> None:
    assert FULL.inline_bytes == 7
    assert replace(FULL, inline=FULL.inline * 2).inline_bytes == 14


def test_no_representation_shows_a_payload() -> None:
    assert "payload" not in repr(FULL.inline[0])


def test_a_manifest_is_named_by_the_hash_of_its_sealed_bytes_and_a_push_by_a_shorter_one() -> None:
    assert manifest.ciphertext_hash(b"x") == blake2b(b"x", digest_size=32).digest()
    assert manifest.tip_of(b"x") == blake2b(b"x", digest_size=16).digest()


def test_a_settled_manifest_of_many_devices_is_small() -> None:
    many = replace(
        FULL,
        entries=tuple(replace(FULL.entries[0], name=name(sealed=bytes([at]))) for at in range(64)),
        devs={
            blake2b(bytes([at]), digest_size=8).digest(): replace(
                FULL.devs[DEV], tip=blake2b(bytes([at]), digest_size=16).digest()
            )
            for at in range(100)
        },
        seq=76_000,
        marks=random.Random(1).randbytes(marks_size(76_000)),
    )
    assert len(encode(many)) < 16 * 1024


def test_a_session_that_was_moved_remembers_the_spaces_that_it_has_left() -> None:
    other, third = replace(SPACE, fingerprint="01"), replace(SPACE, fingerprint="02", dim=8)
    assert FULL.former == frozenset()
    moved = FULL.moved_to(other).moved_to(third)
    again = opened(encode(moved))
    assert again == moved
    assert (again.space, again.former) == (third, {"00ff", "01"})
    back = opened(encode(again.moved_to(SPACE)))
    assert (back.space, back.former) == (SPACE, {"01", "02"})
    assert opened(encode(replace(back, space=None))).former == {"00ff", "01", "02"}
    for number in range(100):
        back = back.moved_to(replace(SPACE, fingerprint=f"space-{number}"))
    assert len(opened(encode(back)).former) == manifest.MAX_SPACES - 1
    assert replace(FULL, space=None).moved_to(SPACE).space == SPACE
