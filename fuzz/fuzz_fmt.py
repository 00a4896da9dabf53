"""`fmt`: a named error, or a value whose derivation of keys is bounded, and the same again."""

from __future__ import annotations

from moss_sync import MossError, keyring


def one(data: bytes) -> None:
    frame = keyring.MAGIC + bytes([keyring.MAJOR]) + data
    for raw in (data, frame + keyring._checksum(frame)):
        try:
            found = keyring.decode(raw)
        except MossError:
            continue
        assert found.kdf.checked() == found.kdf
        assert found.kdf.memory_kib <= 256 * 1024
        assert found.kdf.iterations <= keyring.MAX_ITERATIONS
        assert keyring.decode(found.raw) == found
