"""Sealed blobs: opened in their one place under their key, and nowhere else."""

from __future__ import annotations

import hmac
import struct
from dataclasses import replace
from hashlib import blake2b, sha256

import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from hypothesis import given
from hypothesis import strategies as st

from moss_sync.errors import BlobCorruptError, UnsupportedFormatError
from moss_sync.seal import (
    CHUNK_BYTES,
    HEADER_BYTES,
    SALT_BYTES,
    TAG_BYTES,
    BlobIdentity,
    RootKeys,
    seal,
    unseal,
    unseal_without_header,
)

ROOT = bytes(range(32))
ROOTS = RootKeys({1: ROOT})
SALT = bytes(range(100, 132))
PLACE = BlobIdentity(b"repository-id-16", "s" * 26, "segment", "s/name")
MAX_PLAIN = 8 * CHUNK_BYTES


def opened(sealed: bytes, *, roots: RootKeys = ROOTS, place: BlobIdentity = PLACE) -> bytes:
    return unseal(roots, place, sealed, max_plain=MAX_PLAIN)


@given(plain=st.binary(max_size=200), salt=st.binary(min_size=32, max_size=32))
def test_what_was_sealed_opens_in_its_place(plain: bytes, salt: bytes) -> None:
    sealed = seal(ROOTS, PLACE, plain, salt=salt)
    assert opened(sealed) == plain
    assert len(sealed) == HEADER_BYTES + len(plain) + TAG_BYTES


@pytest.mark.parametrize(
    "size",
    [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES, 3 * CHUNK_BYTES + 9],
)
def test_every_size_around_a_chunk_opens(size: int) -> None:
    plain = (bytes(range(256)) * (size // 256 + 1))[:size]
    sealed = seal(ROOTS, PLACE, plain, salt=SALT)
    assert opened(sealed) == plain
    chunks = max(1, -(-size // CHUNK_BYTES))
    assert len(sealed) == HEADER_BYTES + size + chunks * TAG_BYTES


@pytest.mark.parametrize("plain", [b"", b"some words"])
def test_a_flip_in_any_byte_is_noticed(plain: bytes) -> None:
    sealed = seal(ROOTS, PLACE, plain, salt=SALT)
    for at in range(len(sealed)):
        for bit in (1, 128):
            changed = bytearray(sealed)
            changed[at] ^= bit
            with pytest.raises(BlobCorruptError):
                opened(bytes(changed))


@pytest.mark.parametrize("plain", [b"", b"some words"])
def test_a_blob_cut_anywhere_or_with_something_behind_it_is_noticed(plain: bytes) -> None:
    sealed = seal(ROOTS, PLACE, plain, salt=SALT)
    for size in range(len(sealed)):
        with pytest.raises(BlobCorruptError):
            opened(sealed[:size])
    for more in (b"\0", bytes(TAG_BYTES), sealed):
        with pytest.raises(BlobCorruptError):
            opened(sealed + more)


def chunks_of(sealed: bytes) -> list[bytes]:
    step = CHUNK_BYTES + TAG_BYTES
    body = sealed[HEADER_BYTES:]
    return [body[at : at + step] for at in range(0, len(body), step)]


def test_chunks_in_another_order_repeated_or_left_out_are_noticed() -> None:
    sealed = seal(ROOTS, PLACE, bytes(3 * CHUNK_BYTES), salt=SALT)
    header, (a, b, c) = sealed[:HEADER_BYTES], chunks_of(sealed)
    assert opened(header + a + b + c) == bytes(3 * CHUNK_BYTES)
    for order in ([b, a, c], [a, c, b], [c, b, a], [a, a, c], [a, b, b]):
        with pytest.raises(BlobCorruptError):
            opened(header + b"".join(order))


def test_a_blob_shortened_to_its_first_chunks_with_a_matching_length_is_noticed() -> None:
    sealed = seal(ROOTS, PLACE, bytes(3 * CHUNK_BYTES), salt=SALT)
    header, chunks = sealed[:HEADER_BYTES], chunks_of(sealed)
    for count in (1, 2):
        shorter = header[:-8] + struct.pack(">Q", count * CHUNK_BYTES)
        with pytest.raises(BlobCorruptError):
            opened(shorter + b"".join(chunks[:count]))


def test_chunks_of_another_blob_under_the_same_key_are_noticed() -> None:
    one = seal(ROOTS, PLACE, bytes(2 * CHUNK_BYTES), salt=SALT)
    other = seal(ROOTS, PLACE, bytes(2 * CHUNK_BYTES), salt=bytes(32))
    mixed = one[:HEADER_BYTES] + chunks_of(one)[0] + chunks_of(other)[1]
    with pytest.raises(BlobCorruptError):
        opened(mixed)


@pytest.mark.parametrize(
    "elsewhere",
    [
        replace(PLACE, name="s/other"),
        replace(PLACE, sid="t" * 26),
        replace(PLACE, sid=""),
        replace(PLACE, repo_id=bytes(16)),
        replace(PLACE, kind="manifest"),
        # Where one part ends and the next begins is authenticated too.
        replace(PLACE, sid="s" * 26 + "segment", kind=""),
        replace(PLACE, kind="segments", name="/name"),
    ],
)
def test_a_blob_served_in_another_place_is_noticed(elsewhere: BlobIdentity) -> None:
    with pytest.raises(BlobCorruptError):
        opened(seal(ROOTS, PLACE, b"words", salt=SALT), place=elsewhere)


def test_another_root_key_does_not_open_it() -> None:
    sealed = seal(ROOTS, PLACE, b"words", salt=SALT)
    with pytest.raises(BlobCorruptError, match="not sealed under this project's key"):
        opened(sealed, roots=RootKeys({1: bytes(32)}))


def test_an_epoch_that_the_device_does_not_hold_is_named() -> None:
    sealed = seal(RootKeys({1: ROOT, 2: bytes(32)}), PLACE, b"words", salt=SALT)
    with pytest.raises(BlobCorruptError, match="key epoch 2"):
        opened(sealed)


def test_new_blobs_are_sealed_under_the_newest_epoch_and_old_ones_still_open() -> None:
    both = RootKeys({1: ROOT, 2: bytes(32)})
    assert opened(seal(ROOTS, PLACE, b"old", salt=SALT), roots=both) == b"old"
    fresh = seal(both, PLACE, b"new", salt=SALT)
    assert opened(fresh, roots=both) == b"new"
    moved = bytearray(fresh)
    moved[11] = 1  # claims the other epoch
    with pytest.raises(BlobCorruptError):
        opened(bytes(moved), roots=both)


@pytest.mark.parametrize("length", [0, 4, 6, MAX_PLAIN + 1, 2**40, 2**64 - 1])
def test_a_length_that_lies_is_noticed_before_anything_is_decrypted(length: int) -> None:
    sealed = seal(ROOTS, PLACE, b"words", salt=SALT)
    with pytest.raises(BlobCorruptError, match="declares"):
        opened(sealed[: HEADER_BYTES - 8] + struct.pack(">Q", length) + sealed[HEADER_BYTES:])


def test_a_blob_over_the_readers_limit_is_refused() -> None:
    sealed = seal(ROOTS, PLACE, bytes(100), salt=SALT)
    assert unseal(ROOTS, PLACE, sealed, max_plain=100) == bytes(100)
    with pytest.raises(BlobCorruptError, match="at most 99"):
        unseal(ROOTS, PLACE, sealed, max_plain=99)


@given(data=st.binary(max_size=200))
def test_bytes_that_nobody_sealed_are_refused(data: bytes) -> None:
    for sealed in (data, b"XSEG" + data, b"XSEG\1\1\0" + data):
        with pytest.raises((BlobCorruptError, UnsupportedFormatError)):
            opened(sealed)


@pytest.mark.parametrize(("at", "what"), [(4, "version 2"), (5, "suite 3"), (6, "flags 2")])
def test_a_newer_frame_is_named_and_asks_for_an_upgrade(at: int, what: str) -> None:
    newer = bytearray(seal(ROOTS, PLACE, b"words", salt=SALT))
    newer[at] = int(what[-1])
    newer[-1] ^= 1  # what a newer version seals, this one cannot open
    with pytest.raises(UnsupportedFormatError, match=what) as caught:
        opened(bytes(newer))
    assert "upgrade" in (caught.value.hint or "")


def test_a_flip_in_the_version_or_the_epoch_is_told_from_a_newer_version() -> None:
    both = RootKeys({1: ROOT, 2: bytes(32)})
    for size in (0, 5, CHUNK_BYTES, CHUNK_BYTES + 7):
        sealed = seal(ROOTS, PLACE, bytes(size), salt=SALT)
        header = struct.pack(">4sBBBBI", b"odd!", 9, 8, 7, 6, 2**32 - 1)
        changed = header + sealed[12:76] + bytes(8) + sealed[HEADER_BYTES:]
        found = unseal_without_header(both, PLACE, changed, max_plain=MAX_PLAIN)
        assert found == (bytes(size), 1)
        assert unseal_without_header(both, PLACE, changed[:-1], max_plain=MAX_PLAIN) is None
        assert unseal_without_header(both, PLACE, changed, max_plain=size - 1) is None
        elsewhere = replace(PLACE, name="s/other")
        assert unseal_without_header(both, elsewhere, changed, max_plain=MAX_PLAIN) is None
        assert (
            unseal_without_header(RootKeys({2: ROOT}), PLACE, changed, max_plain=MAX_PLAIN) is None
        )
    assert unseal_without_header(both, PLACE, b"XSEG", max_plain=MAX_PLAIN) is None


def test_the_same_bytes_sealed_twice_have_nothing_in_common() -> None:
    one = seal(ROOTS, PLACE, bytes(64), salt=SALT)
    other = seal(ROOTS, PLACE, bytes(64), salt=bytes(32))
    assert one[HEADER_BYTES:] != other[HEADER_BYTES:]
    assert b"\0" * 16 not in one[HEADER_BYTES:]


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_salt_of_another_size_is_a_bug(size: int) -> None:
    assert SALT_BYTES == 32
    with pytest.raises(ValueError):
        seal(ROOTS, PLACE, b"", salt=bytes(size))


def test_no_representation_shows_a_key() -> None:
    shown = repr(ROOTS) + str(ROOTS) + f"{ROOTS}" + repr([ROOTS])
    assert "epochs=[1]" in shown
    assert "\\x01" not in shown
    assert ROOT.hex() not in shown


def test_a_blob_is_byte_for_byte_what_the_format_describes() -> None:
    """Made here a second time, from the primitives alone."""
    plain = b"x" * (CHUNK_BYTES + 3)
    extracted = hmac.digest(SALT, ROOT, sha256)
    first = hmac.digest(extracted, b"moss_sync/segment\1", sha256)
    second = hmac.digest(extracted, first + b"moss_sync/segment\2", sha256)
    header = (
        b"XSEG"
        + bytes([1, 1, 0, 0])
        + (1).to_bytes(4, "big")
        + SALT
        + second
        + len(plain).to_bytes(8, "big")
    )
    assert len(header) == HEADER_BYTES == 84
    digest = blake2b(digest_size=32, person=b"moss_sync.aad")
    for part in (PLACE.repo_id, b"s" * 26, b"segment", b"s/name"):
        digest.update(len(part).to_bytes(4, "big") + part)
    digest.update(header)
    cipher = ChaCha20Poly1305(first)
    expected = (
        header
        + cipher.encrypt(bytes(12), plain[:CHUNK_BYTES], digest.digest())
        + cipher.encrypt(bytes(10) + b"\1\1", plain[CHUNK_BYTES:], digest.digest())
    )
    assert seal(ROOTS, PLACE, plain, salt=SALT) == expected
