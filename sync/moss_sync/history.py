"""How two states of a session stand to each other, across repairs too: is one the other's past?

States are ordered by (repairs, generation, commit). Of two, the earlier one is the later one's
beginning, or both go back to a state before them from which they have parted: somebody took commits
away from the store, and others went on from what was left. Marks tell (`moss_sync.marks`).

Rules of this file: values in, values out.
What holds: tests/moss_sync/test_history.py. Source: docs/design/0017-history-and-repair.md.
"""

from __future__ import annotations

from dataclasses import dataclass

from moss_sync.manifest import Manifest
from moss_sync.marks import Past, compare


@dataclass(frozen=True, slots=True)
class Side:
    """A manifest, and the hash of its ciphertext."""

    manifest: Manifest
    hash: bytes

    @property
    def order(self) -> tuple[int, int, int]:
        return self.manifest.repairs, self.manifest.gen, self.manifest.seq

    @property
    def past(self) -> Past:
        return self.manifest.past(self.hash)


@dataclass(frozen=True, slots=True)
class Relation:
    """How an earlier state stands to a later one.

    Attributes:
        parted: The earlier one is known not to be the beginning of the later one.
        joint: The last commit that both have, as far as is known; 0 where nothing is known of any.
    """

    parted: bool
    joint: int


def relate(earlier: Side, later: Side) -> Relation:
    """Return how two states stand to each other, `later` not being before `earlier` in order.

    Where no mark is known of both, the earlier one is so far behind (64 times, see marks) that it
    is not said to have parted, and nothing is said to be common either.
    """
    found = compare(earlier.past, later.past)
    old, new = earlier.manifest, later.manifest
    # A commit comes after all that its author knows of, and a deletion is never taken back.
    unaware = later.order != earlier.order and new.seq <= old.seq
    if found.forked or unaware or new.gen < old.gen:
        return Relation(parted=True, joint=min(found.agreed, new.seq - 1))
    return Relation(parted=False, joint=old.seq if found.agreed else 0)


def undoes(later: Side, seen: Side) -> bool:
    """Return whether a repaired session is without deletions that a device has seen.

    Of a generation before a deletion of the session; or repaired by somebody who did not know of
    deletions that were forgotten since, so that nothing there says any more that they were made.
    """
    old, new = seen.manifest, later.manifest
    if new.gen < old.gen:
        return True
    found = relate(seen, later)
    # A repair that knew of them has its floor at its own commit, above all that it knew of.
    return found.parted and old.tomb_seq > found.joint and new.tomb_seq < old.seq
