"""The key file of encrypted sessions: it opens with its own key only, and damage is named."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from hypothesis import given
from hypothesis import strategies as st

from moss_local import FileCorruptError, UnsupportedFormatError
from moss_local.storage.file_keys import (
    MAX_SLOTS,
    KeyFile,
    Slot,
    decode,
    encode,
    keys_of,
    unwrap,
    wrap,
)
from moss_sync.keyring import derive_kek
from tests.keys import KEY

MASTER = bytes(range(32))


def token(size: int) -> bytes:
    return bytes(size)


SLOT = wrap(MASTER, "key", "project", token)


def test_a_slot_opens_with_its_key_and_of_its_kind_only() -> None:
    assert unwrap((SLOT,), "key", "project") == MASTER
    assert unwrap((SLOT,), "kez", "project") is None
    assert unwrap((SLOT,), "key", "app") is None
    assert unwrap((replace(SLOT, kind="app"),), "key", "app") is None
    changed = bytes([SLOT.wrapped[0] ^ 1]) + SLOT.wrapped[1:]
    assert unwrap((replace(SLOT, wrapped=changed),), "key", "project") is None
    other = wrap(MASTER, "other", "project", token)
    assert unwrap((SLOT, other), "other", "project") == MASTER


def test_nothing_of_the_keys_is_in_a_representation() -> None:
    shown = repr((SLOT, KeyFile((SLOT,)), keys_of(MASTER)))
    for secret in (MASTER, SLOT.wrapped, keys_of(MASTER).pages, keys_of(MASTER).names):
        assert repr(secret)[2:-1] not in shown
        assert secret.hex() not in shown


def test_names_of_files_tell_nothing_and_differ() -> None:
    keys = keys_of(MASTER)
    names = {keys.file_name(name) for name in ("conv", "Conv", "conv ", "é", "e\u0301")}
    assert len(names) == 5
    mark = keys.mark
    assert all(name.startswith(mark) and len(name) == len(mark) + 26 for name in names)
    assert all(name.removeprefix("enc_").replace("_", "").isalnum() for name in names)
    assert keys_of(bytes(32)).mark != mark
    assert keys.file_name("conv") == keys.file_name("conv")
    assert keys_of(bytes(32)).file_name("conv") != keys.file_name("conv")


@pytest.mark.parametrize("converting", [True, False])
def test_it_comes_back_as_it_was(converting: bool) -> None:
    contents = KeyFile((SLOT, replace(SLOT, kind="app")), converting)
    assert decode(encode(contents), "f") == contents


def test_a_newer_version_is_told() -> None:
    fields = json.loads(encode(KeyFile((SLOT,))))
    with pytest.raises(UnsupportedFormatError, match="version 2"):
        decode(json.dumps(fields | {"version": 2}).encode(), "f")


def damaged(**slot: Any) -> bytes:
    fields = json.loads(encode(KeyFile((SLOT,))))
    fields["slots"][0] |= slot
    return json.dumps(fields).encode()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        b"\xff",
        b"[" * 100_000,
        b'{"version": 1, "slots": [], "converting": false}',
        b'{"version": 1, "slots": 3, "converting": false}',
        encode(KeyFile((SLOT,) * (MAX_SLOTS + 1))),
        damaged(kind="thief"),
        damaged(wrapped="00"),
        damaged(salt="xyz"),
        damaged(salt="00"),
        damaged(memory_kib=1 << 40),
        damaged(iterations="1"),
        damaged(lanes=0),
        damaged(lanes=True),
    ],
)
def test_damage_is_named(data: bytes) -> None:
    with pytest.raises(FileCorruptError, match="holds the key of the encrypted files"):
        decode(data, "at-rest.json")


@given(st.data())
def test_a_changed_byte_is_named_or_opens_nothing_else(data: st.DataObject) -> None:
    whole = bytearray(encode(KeyFile((SLOT,))))
    place = data.draw(st.integers(0, len(whole) - 1))
    whole[place] = data.draw(st.integers(0, 255))
    try:
        contents = decode(bytes(whole), "f")
    except (FileCorruptError, UnsupportedFormatError):
        return
    assert 0 < len(contents.slots) <= MAX_SLOTS
    assert all(slot.kdf == slot.kdf.checked() for slot in contents.slots)


def test_a_slot_that_is_cheaper_to_open_than_a_typed_key_allows_is_none_of_ours() -> None:
    cheap = replace(SLOT.kdf, memory_kib=8 * 1024, iterations=1)
    sealed = ChaCha20Poly1305(derive_kek("key", cheap)).encrypt(
        bytes(12), MASTER, b"moss_local at rest 1 project"
    )
    assert unwrap((Slot("project", cheap, bytes(12) + sealed),), "key", "project") is None
    assert wrap(MASTER, KEY, "project", token).kdf.memory_kib == 8 * 1024
