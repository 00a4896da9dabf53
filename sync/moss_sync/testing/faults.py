"""What a store may do to a request, and plans that say when.

Every kind is something that stores and the networks before them have been seen to do; a program
that keeps its promises under all of them, in any mixture, keeps them in the field.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Literal, Protocol

Verb = Literal["get", "put", "swap", "list", "delete"]


class Fault(StrEnum):
    """One way in which a request goes wrong."""

    REFUSED = "refused"
    """No connection: nothing happened, and the caller cannot know."""
    LOST = "lost answer"
    """It happened, and no answer came."""
    LATE = "late effect"
    """No answer came, and it happens later, perhaps after others' commits."""
    TWICE = "sent twice"
    """The transport sent it again by itself; the second answer is the one that arrives."""
    STALE = "stale read"
    """An answer from before the newest writes."""
    PARTIAL = "partial listing"
    """Some keys are missing from the listing."""
    CONFLICT = "false conflict"
    """409 or 412 though nobody else has written."""
    BUSY = "busy"
    """429 or 503: turned away unprocessed."""
    FLIPPED = "flipped bit"
    """One bit of the body is wrong."""
    CUT = "cut body"
    """The end of the body is missing."""
    TIMELESS = "no time"
    """The answer does not say when it was given."""
    DENIED = "denied"
    """403 in the middle of a run."""
    ABSENT = "absent"
    """404 for a blob that is there."""


POSSIBLE: Mapping[Verb, tuple[Fault, ...]] = {
    "get": (
        Fault.REFUSED,
        Fault.STALE,
        Fault.BUSY,
        Fault.FLIPPED,
        Fault.CUT,
        Fault.TIMELESS,
        Fault.DENIED,
        Fault.ABSENT,
    ),
    "put": (
        Fault.REFUSED,
        Fault.LOST,
        Fault.LATE,
        Fault.TWICE,
        Fault.BUSY,
        Fault.TIMELESS,
        Fault.DENIED,
    ),
    "swap": (
        Fault.REFUSED,
        Fault.LOST,
        Fault.LATE,
        Fault.TWICE,
        Fault.CONFLICT,
        Fault.BUSY,
        Fault.TIMELESS,
        Fault.DENIED,
    ),
    "list": (Fault.REFUSED, Fault.PARTIAL, Fault.BUSY, Fault.DENIED),
    "delete": (Fault.REFUSED, Fault.LOST, Fault.LATE, Fault.TWICE, Fault.BUSY, Fault.DENIED),
}
"""Which faults each verb of a store can meet."""


class FaultPlan(Protocol):
    """Says what happens to each request.

    Attributes:
        random: Decides the rest: which bit flips, which keys are missing, how late is late.
    """

    @property
    def random(self) -> random.Random: ...

    def next(self, verb: Verb, key: str) -> Fault | None:
        """Return what happens to this request, None for nothing."""
        ...


class SeededFaults:
    """Faults by chance, the same for the same seed and the same requests.

    Args:
        rate: Chance of any fault at a request, 0 to 1.
        weights: How often each kind comes, against the others; absent ones never do. None: all
            alike.
    """

    def __init__(
        self, seed: int | str, *, rate: float, weights: Mapping[Fault, float] | None = None
    ) -> None:
        self.random = random.Random(seed)
        self.rate = rate
        self.weights = weights

    def next(self, verb: Verb, key: str) -> Fault | None:
        return draw_fault(self.random, verb, rate=self.rate, weights=self.weights)


class ScriptedFaults:
    """The given faults, one after the other: each hits the first request that can meet it.

    Args:
        script: (verb, part of the key, fault); the part may be empty.
    """

    def __init__(self, script: Iterable[tuple[Verb, str, Fault]], *, seed: int = 0) -> None:
        self.random = random.Random(seed)
        self.left = list(script)

    def next(self, verb: Verb, key: str) -> Fault | None:
        if self.left and self.left[0][0] == verb and self.left[0][1] in key:
            return self.left.pop(0)[2]
        return None


def draw_fault(
    chance: random.Random, verb: Verb, *, rate: float, weights: Mapping[Fault, float] | None
) -> Fault | None:
    """Return a fault that `verb` can meet, or None."""
    if chance.random() >= rate:
        return None
    kinds = POSSIBLE[verb]
    if weights is None:
        return chance.choice(kinds)
    wanted = [weights.get(kind, 0.0) for kind in kinds]
    return chance.choices(kinds, wanted)[0] if any(wanted) else None
