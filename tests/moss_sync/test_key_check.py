"""What a device remembers of project keys: which one it is, and which ones it was."""

from __future__ import annotations

import pytest

from moss_sync import BlobCorruptError
from moss_sync.key_check import MAX_FORMER, KeyCheck, KnownKeys, decode, encode
from moss_sync.keyring import KdfParams
from moss_sync.packing import pack, unpack

KDF = KdfParams(b"salt-of-16-bytes", memory_kib=8 * 1024, iterations=1, lanes=1)
KEKS = [bytes([number]) * 32 for number in range(8)]
CHECKS = [KeyCheck.of(kek, KDF) for kek in KEKS]


def test_a_check_tells_keys_apart_and_is_no_key() -> None:
    assert CHECKS[0].fits(KEKS[0])
    assert not CHECKS[0].fits(KEKS[1])
    assert CHECKS[0].value not in (KEKS[0], CHECKS[1].value)
    assert repr(CHECKS[0].value)[2:-1] not in repr(KnownKeys(CHECKS[0], True, (CHECKS[1],)))


def test_keys_of_before_are_kept_newest_first_and_not_for_ever() -> None:
    known = KnownKeys(CHECKS[0], True)
    for check in CHECKS[1:]:
        known = known.succeeded_by(check)
    assert known.current == CHECKS[-1]
    assert known.former == tuple(CHECKS[-2 : -2 - MAX_FORMER : -1])
    assert decode(encode(known)) == known


def test_a_key_that_no_repository_confirmed_was_never_one_of_before() -> None:
    mistyped = KnownKeys(CHECKS[0], False, (CHECKS[1],))
    assert mistyped.succeeded_by(CHECKS[2]) == KnownKeys(CHECKS[2], True, (CHECKS[1],))


@pytest.mark.parametrize(
    "change",
    [
        {"former": None},
        {"former": [7]},
        {"former": [{}]},
        {"former": [unpack(encode(KnownKeys(CHECKS[0], True)), max_bytes=4096, what="it")] * 4},
        {"confirmed": 1},
        {"check": "text"},
        {"salt": "a text of 16 ..."},
        {"memory_kib": 2**40},
    ],
)
def test_damage_is_told(change: dict[str, object]) -> None:
    fields = unpack(encode(KnownKeys(CHECKS[0], True)), max_bytes=4096, what="it")
    with pytest.raises(BlobCorruptError):
        decode(pack(fields | change))
    with pytest.raises(BlobCorruptError):
        decode(pack([fields]))
