"""What a device remembers of project keys: enough to tell which one it is given, and no more.

The check value of a key is derived from it as slowly as everything else, with its own salt. The
one in use is remembered with those before it, so that a key which opened this project here, and
was rotated since, is told from a wrong one.

Rules of this file: values in, values out.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field, replace
from typing import Any

from moss_sync.errors import BlobCorruptError
from moss_sync.keyring import KdfParams
from moss_sync.packing import as_bytes, as_map, as_uint, pack, unpack

MAX_CHECKS_BYTES = 4096

MAX_FORMER = 3
"""Keys of before, newest first. A wrong key is compared with each, at a derivation apiece."""


@dataclass(frozen=True, slots=True)
class KeyCheck:
    """Tells whether a key is the one that it was made of."""

    kdf: KdfParams
    value: bytes = field(repr=False)

    @classmethod
    def of(cls, kek: bytes, kdf: KdfParams) -> KeyCheck:
        """Return the check of the project key that `kek` was derived from with `kdf`."""
        return cls(kdf, _value(kek))

    def fits(self, kek: bytes) -> bool:
        """Return whether `kek`, derived with `kdf`, is of the same key."""
        return hmac.compare_digest(self.value, _value(kek))


@dataclass(frozen=True, slots=True)
class KnownKeys:
    """The checks of the keys that a project was opened with on this device.

    Attributes:
        confirmed: A repository was opened with the current one; else it may have been mistyped.
        former: Confirmed ones of before, newest first.
    """

    current: KeyCheck
    confirmed: bool
    former: tuple[KeyCheck, ...] = ()

    def succeeded_by(self, check: KeyCheck) -> KnownKeys:
        """Return these, and another key that a repository was opened with."""
        former = (self.current, *self.former) if self.confirmed else self.former
        return KnownKeys(check, True, former[:MAX_FORMER])

    def renewed(self, check: KeyCheck, *, confirmed: bool) -> KnownKeys:
        """Return these with another check of the same key."""
        return replace(self, current=check, confirmed=confirmed)


def encode(known: KnownKeys) -> bytes:
    """Return the bytes that `decode` reads."""
    former = [_fields(each) for each in known.former]
    return pack({**_fields(known.current), "confirmed": known.confirmed, "former": former})


def decode(data: bytes) -> KnownKeys:
    """Return what was remembered. Raises BlobCorruptError if that is damaged."""
    fields = unpack(data, max_bytes=MAX_CHECKS_BYTES, what="the key check")
    try:
        former = tuple(_check(each) for each in as_map(fields)["former"])
        if type(fields["confirmed"]) is not bool or len(former) > MAX_FORMER:
            raise ValueError("not what encode writes")
        return KnownKeys(_check(fields), fields["confirmed"], former)
    except (KeyError, TypeError, ValueError) as error:
        raise BlobCorruptError("the key check does not decode") from error


def _value(kek: bytes) -> bytes:
    return hmac.digest(kek, b"moss_sync local key check", "sha256")


def _fields(check: KeyCheck) -> dict[str, Any]:
    kdf = check.kdf
    return {
        "salt": kdf.salt,
        "memory_kib": kdf.memory_kib,
        "iterations": kdf.iterations,
        "lanes": kdf.lanes,
        "check": check.value,
    }


def _check(value: object) -> KeyCheck:
    fields = as_map(value)
    kdf = KdfParams(
        as_bytes(fields["salt"]),
        as_uint(fields["memory_kib"]),
        as_uint(fields["iterations"]),
        as_uint(fields["lanes"]),
    )
    return KeyCheck(kdf.checked(), as_bytes(fields["check"]))
