"""Where everything lies: keys that stay apart, and names that only a key-holder can make."""

from __future__ import annotations

import hmac
from base64 import b32decode, b32encode
from hashlib import blake2b, sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moss_sync import layout
from moss_sync.errors import BlobCorruptError
from moss_sync.layout import Layout, SegmentName, is_blob_of, new_stem, parse_name, session_id
from moss_sync.stores.keys import check_key, check_listing
from tests.strategies import NAME_KEY, SID, devices, new_name, session_names, texts

kinds = st.sampled_from(["s", "b"])
bases = st.integers(0, 9) | st.integers(0, layout.MAX_BASE)
blobs = st.binary(max_size=10)


@st.composite
def names(draw: st.DrawFn) -> SegmentName:
    kind = draw(kinds)
    most = layout.MAX_PUSH if kind == "s" else layout.MAX_LEVEL
    return new_name(
        NAME_KEY,
        SID,
        kind=kind,
        base=draw(bases),
        dev=draw(devices),
        number=draw(st.integers(0, most)),
        sealed=draw(blobs),
    )


@given(first=session_names, second=session_names)
def test_two_sessions_have_one_id_only_when_they_have_one_name(first: str, second: str) -> None:
    assert (session_id(NAME_KEY, first) == session_id(NAME_KEY, second)) == (first == second)


def test_names_that_differ_in_case_or_normalisation_are_different_sessions() -> None:
    many = ["a", "A", "a ", "a\0", "é", "e\u0301", "../x", "x", "con", "CON", "a/b", "a\\b"]
    assert len({session_id(NAME_KEY, name) for name in many}) == len(many)


@given(name=session_names)
def test_a_session_id_is_130_bits_of_base32_and_says_nothing_without_the_key(name: str) -> None:
    sid = session_id(NAME_KEY, name)
    assert len(sid) == layout.NAME_CHARS
    assert set(sid) <= set("abcdefghijklmnopqrstuvwxyz234567")
    assert sid != session_id(bytes(32), name)


@given(first=texts, second=texts, session=session_names)
def test_two_projects_never_share_a_key(first: str, second: str, session: str) -> None:
    one, other = Layout.of(first), Layout.of(second)
    assert (one.prefix == other.prefix) == (first == second)
    if first != second:
        assert one.manifest(session_id(NAME_KEY, session)) != other.manifest(
            session_id(NAME_KEY, session)
        )


@given(project=texts, session=session_names, name=names())
def test_every_key_is_one_that_a_store_may_hold(
    project: str, session: str, name: SegmentName
) -> None:
    keys = Layout.of(project)
    sid = session_id(NAME_KEY, session)
    every = [keys.fmt, keys.probe, keys.manifest(sid), keys.blob(sid, str(name))]
    for key in every:
        check_key(key)
        assert key == key.lower()
        assert not any(other.startswith(key + "/") for other in every)
    for folder in (keys.manifests, keys.segments(sid), keys.bases(sid)):
        check_listing(folder, "", 1000)
    assert keys.manifest(sid).startswith(keys.manifests)
    listed = keys.segments(sid) if name.kind == "s" else keys.bases(sid)
    assert keys.blob(sid, str(name)).startswith(listed)


def test_the_keys_of_a_project_are_these() -> None:
    keys = Layout.of("project")
    prefix = b32encode(sha256(b"project").digest()).decode().lower()[:26]
    assert keys.prefix == prefix + "/"
    assert keys.fmt == f"{prefix}/fmt"
    assert keys.probe == f"{prefix}/probe"
    assert keys.manifest("sid") == f"{prefix}/m/sid"
    assert keys.blob("sid", "s/x") == f"{prefix}/sid/s/x"


@given(name=names())
def test_a_name_says_what_it_was_made_of(name: SegmentName) -> None:
    assert parse_name(NAME_KEY, SID, str(name)) == name
    assert layout.is_name(str(name))
    assert layout.base_of(str(name)) == name.base


@given(first=names(), second=names())
def test_names_of_one_kind_sort_by_their_base(first: SegmentName, second: SegmentName) -> None:
    if first.kind == second.kind and first.base < second.base:
        assert str(first) < str(second)


def test_a_name_looks_like_this() -> None:
    name = new_name(NAME_KEY, SID, kind="s", base=258, dev=b"device-A", number=7, sealed=b"sealed")
    stem, tag = str(name).rsplit("-", 1)
    assert stem == name.stem == "s/0000000000000102-6465766963652d41-00000007"
    raw = b32decode(tag.upper())
    assert raw == name.raw_tag
    assert raw[:16] == blake2b(b"sealed", digest_size=16, person=b"moss_sync.name").digest()
    signed = b"name\0" + SID.encode() + b"\0" + stem.encode() + b"\0" + raw[:16]
    assert raw[16:] == hmac.digest(NAME_KEY, signed, "sha256")[:9]
    base = new_name(NAME_KEY, SID, kind="b", base=1, dev=b"device-A", number=3)
    assert str(base).startswith("b/0000000000000001-6465766963652d41-03-")


@given(name=names(), data=st.data())
def test_a_name_with_one_other_character_is_refused(name: SegmentName, data: st.DataObject) -> None:
    text = str(name)
    at = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(
        st.sampled_from("abcdefghijklmnopqrstuvwxyz234567890-/ABC.").filter(
            lambda character: character != text[at]
        )
    )
    with pytest.raises(BlobCorruptError):
        parse_name(NAME_KEY, SID, text[:at] + other + text[at + 1 :])


@given(name=names())
def test_a_name_of_another_key_or_session_is_refused(name: SegmentName) -> None:
    for key, sid in ((bytes(32), SID), (NAME_KEY, "t" * 26), (NAME_KEY, "")):
        with pytest.raises(BlobCorruptError, match="not named by a holder of its epoch"):
            parse_name(key, sid, str(name))


GOOD = str(new_name(NAME_KEY, SID, kind="s", base=1, dev=b"device-A", number=1))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "s/",
        GOOD + "\n",
        "\n" + GOOD,
        GOOD + "=",
        GOOD[:-1],
        GOOD + "a",
        GOOD.upper(),
        "x" + GOOD,
        "m/" + GOOD,
        "b/" + GOOD[2:],
        "../" + GOOD,
        GOOD.replace("-", "_"),
        GOOD.replace("0", "٠", 1),
    ],
)
def test_what_is_no_name_at_all_is_refused(text: str) -> None:
    with pytest.raises(BlobCorruptError, match="not the name of a segment"):
        parse_name(NAME_KEY, SID, text)
    assert not layout.is_name(text)
    with pytest.raises(ValueError):
        layout.base_of(text)


@given(name=names(), sealed=blobs, other=blobs)
def test_a_name_fits_the_bytes_that_were_sealed_and_no_others(
    name: SegmentName, sealed: bytes, other: bytes
) -> None:
    made = new_name(
        NAME_KEY,
        SID,
        kind=name.kind,
        base=name.base,
        dev=name.dev,
        number=name.number,
        sealed=sealed,
    )
    assert is_blob_of(made, other) == (sealed == other)


def test_a_tag_has_one_spelling() -> None:
    assert layout.TAG_BYTES * 8 == layout.TAG_CHARS * 5


@pytest.mark.parametrize(
    ("kind", "base", "number"),
    [
        ("s", -1, 1),
        ("s", 2**64, 1),
        ("s", 1, -1),
        ("s", 1, 2**32),
        ("b", 1, 256),
        ("b", 1, -1),
        ("m", 1, 1),
    ],
)
def test_a_name_that_would_not_parse_again_is_not_made(kind: str, base: int, number: int) -> None:
    with pytest.raises(ValueError):
        new_stem(kind=kind, base=base, dev=b"device-A", number=number)


def test_a_name_takes_a_whole_device_id() -> None:
    with pytest.raises(ValueError):
        new_stem(kind="s", base=1, dev=b"short", number=1)


@given(first=texts, second=texts)
def test_a_stores_url_becomes_a_file_name_of_its_own(first: str, second: str) -> None:
    name = layout.store_name(first)
    check_key(name)
    assert (name == layout.store_name(second)) == (first == second)
