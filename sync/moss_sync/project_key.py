"""Project keys: the form of those that are made here, and what trying one out must cost.

A generated key is 160 random bits in base32 and 20 bits of checksum, in nine groups of four:
nobody guesses it, and a mistyped one is told from a wrong one. Every other text is a typed key,
which somebody may guess. Which of the two a key is follows from its text alone, so all devices
derive alike, also where nothing was agreed before (commit by log).

Rules of this file: values in, values out; randomness is an argument.
What holds: tests/moss_sync/test_project_key.py.
"""

from __future__ import annotations

import re
from base64 import b32decode, b32encode
from dataclasses import dataclass
from hashlib import blake2b

RANDOM_BYTES = 20
"""160 random bits: nobody guesses it, and it is still short enough to read out."""

CHECK_CHARS = 4
"""20 bits: one typed key in a million that has the shape is taken for a generated one."""

GROUP = 4

_SHAPE = re.compile(r"(?:[a-z2-7]{4}-){8}[a-z2-7]{4}")


@dataclass(frozen=True, slots=True)
class Cost:
    """What one derivation takes of argon2id."""

    memory_kib: int
    iterations: int
    lanes: int


TYPED = Cost(64 * 1024, 3, 4)
"""64 MiB, three passes, four lanes: RFC 9106's second recommended choice."""

GENERATED = Cost(8 * 1024, 1, 1)
"""8 MiB, one pass, one lane: the least that `fmt` may state; 160 random bits need no help."""


def generate(random: bytes) -> str:
    """Return the key of RANDOM_BYTES random bytes."""
    if len(random) != RANDOM_BYTES:
        raise ValueError(f"a project key takes {RANDOM_BYTES} random bytes")
    text = b32encode(random).decode().lower() + _checksum(random)
    return "-".join(text[at : at + GROUP] for at in range(0, len(text), GROUP))


def is_generated(key: str) -> bool:
    """Return whether a key is exactly of the form that `generate` makes."""
    if _SHAPE.fullmatch(key) is None:
        return False
    text = key.replace("-", "").upper()
    return _checksum(b32decode(text[:-CHECK_CHARS])) == text[-CHECK_CHARS:].lower()


def is_mistyped(key: str) -> bool:
    """Return whether a key looks like a generated one that was not copied exactly."""
    likely = re.sub(r"[\s-]+", "-", key.strip()).lower()
    return _SHAPE.fullmatch(likely) is not None and not is_generated(key)


def cost_of(key: str) -> Cost:
    """Return what deriving from a key must cost at least, and costs where it is chosen here."""
    return GENERATED if is_generated(key) else TYPED


def _checksum(random: bytes) -> str:
    digest = blake2b(random, digest_size=RANDOM_BYTES, person=b"moss_sync key").digest()
    return b32encode(digest).decode().lower()[:CHECK_CHARS]
