"""Sealed blobs: what was changed, cut, put elsewhere or made up never opens; the error says so."""

from __future__ import annotations

from fuzz.shapes import Take
from moss_sync import BlobCorruptError, MossError
from moss_sync.seal import BlobIdentity, RootKeys, epoch_of, seal, sealed_size, unseal

ROOTS = RootKeys({1: bytes(range(32)), 2: bytes(range(1, 33))})
PLACE = BlobIdentity(b"r" * 16, "s" * 26, "segment", "s/name")
ELSEWHERE = BlobIdentity(b"r" * 16, "t" * 26, "segment", "s/name")
MAX_PLAIN = 4096


def one(data: bytes) -> None:
    take = Take(data)
    plain = take.bytes()
    blob = seal(ROOTS, PLACE, plain, salt=b"x" * 32)
    assert unseal(ROOTS, PLACE, blob, max_plain=MAX_PLAIN) == plain
    changed = bytearray(blob[: len(blob) - take.byte() % (len(blob) + 1)])
    while take.left and changed:
        changed[take.number(2) % len(changed)] ^= take.byte()
    for place, bad in ((PLACE, bytes(changed)), (ELSEWHERE, blob), (PLACE, data)):
        epoch_of(bad)
        sealed_size(bad)
        if (place, bad) == (PLACE, blob):
            continue
        try:
            unseal(ROOTS, place, bad, max_plain=MAX_PLAIN)
        except BlobCorruptError:
            continue
        except MossError:
            continue  # of an epoch, or of a later version
        raise AssertionError("a blob that is not whole in its place was opened")
