"""Marks: what a manifest remembers of the commits before it, in one short string of bytes.

A device that has exchanged a session refuses a history that contradicts what it saw. So each
manifest carries the beginnings of the hashes of earlier manifests, the older the fewer: of a commit
x that 2^v divides, and no higher power of 2, it carries one for the next 127 * 2^v - 65 commits.
That is just enough for this promise, which docs/design/0017-history-and-repair.md proves:

  a rollback that hides k commits from a device that has seen them is noticed by it, unless at
  least 64 * k commits, or REACH, were made on top of what it left.

Which commits these are follows from the number of the commit alone, so no number is stored.
Rules of this file: values in, values out.
What holds: tests/moss_sync/test_marks.py, the promise itself included.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

REACH = 64 * 1200
"""Commits. What is older has no mark any more; so the marks of no manifest pass 1 500 bytes."""

LONG_MARKS = 32
LONG_BYTES = 8
"""Marks of the newest commits. Nobody finds another manifest that has the same."""

SHORT_BYTES = 2
"""Marks of all others. Two histories have the same one by chance in one of 65 536 cases, and who
holds the key can look for one: a mark that differs proves a fork, one that agrees little."""


@lru_cache(maxsize=64)
def marked(seq: int) -> tuple[int, ...]:
    """Return the commits that the manifest of commit `seq` has marks of, newest first.

    Who has the manifest of the commit before, and its hash, can make them all.
    """
    found: list[int] = []
    step = 1
    while step < seq:
        oldest = max(1, seq - min(127 * step - 65, REACH))
        first = oldest + (step - oldest) % (2 * step)  # the odd multiples of `step`
        found += range(first, seq, 2 * step)
        step *= 2
    return tuple(sorted(found, reverse=True))


def marks_size(seq: int) -> int:
    """Return how many bytes the marks of a manifest are."""
    count = len(marked(seq))
    return count * SHORT_BYTES + min(count, LONG_MARKS) * (LONG_BYTES - SHORT_BYTES)


def continued(seq: int, marks: bytes, hash: bytes, following: int) -> bytes:
    """Return the marks of a commit on top of commit `seq`.

    Args:
        marks: Of the manifest of commit `seq`; hash: of its ciphertext.
        following: The number of the next commit. A repair may leave some out, because they are
            used in another history: their marks are zeros, so that they differ from any there.
    """
    known = {**_by_number(seq, marks), seq: hash}
    absent = bytes(LONG_BYTES)
    return b"".join(
        known.get(number, absent)[: _width(place)] for place, number in enumerate(marked(following))
    )


@dataclass(frozen=True, slots=True)
class Past:
    """What somebody knows of a history up to commit `seq`.

    Attributes:
        hashes: By its number, the hash of a commit's sealed manifest, or the beginning of it.
    """

    seq: int
    hashes: Mapping[int, bytes]

    @classmethod
    def of(cls, seq: int, marks: bytes, *, prev: bytes, hash: bytes) -> Past:
        """Return what a manifest says: its marks, the hash of the one before, and its own."""
        known = _by_number(seq, marks)
        if seq > 1:
            known[seq - 1] = prev
        return cls(seq, {**known, seq: hash})


@dataclass(frozen=True, slots=True)
class Comparison:
    """How two histories agree, as far as what is known of both of them tells.

    Attributes:
        agreed: The last commit that is known to be the same in both; 0 if none is.
        differs: The first one that is known to be another; None where none is.
        joint: The last commit that is taken to be the same in both: the older history's last one
            where it is the other one's beginning, else `agreed`.
    """

    agreed: int
    differs: int | None
    joint: int

    @property
    def forked(self) -> bool:
        return self.differs is not None


def compare(one: Past, other: Past) -> Comparison:
    """Compare two histories at every number of which both know something."""
    both = sorted(one.hashes.keys() & other.hashes.keys())
    agreed, differs = 0, None
    for number in both:
        if not agree(one.hashes[number], other.hashes[number]):
            differs = number
            break
        agreed = number
    joint = agreed if differs is not None or not agreed else min(one.seq, other.seq)
    return Comparison(agreed, differs, joint)


def agree(one: bytes, other: bytes) -> bool:
    """Return whether two beginnings of hashes may be of the same one."""
    shared = min(len(one), len(other))
    return one[:shared] == other[:shared]


def _by_number(seq: int, marks: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    start = 0
    for place, number in enumerate(marked(seq)):
        found[number] = marks[start : start + _width(place)]
        start += _width(place)
    return found


def _width(place: int) -> int:
    return LONG_BYTES if place < LONG_MARKS else SHORT_BYTES
