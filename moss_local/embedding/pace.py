"""One core or several for a single text: whichever has lately been faster on this machine.

Spreading a short query over cores saves a third of its time when they are idle, and trebles it
when they are not (a worker that loses its core holds up every node of the graph). Whether they
are idle is not ours to know, so both ways are timed where they are used. Both give the same
vector to the last bit; only the time is at stake.

Rules of this file: values in, values out; times are arguments, never read here.
What holds (tests/moss_local/test_embedding_pace.py): the faster way is soon the one used, and a
change in the machine's load is noticed.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Literal

Way = Literal["narrow", "wide"]
WAYS: tuple[Way, Way] = ("narrow", "wide")

SHORT_TOKENS = 32
"""Up to here a node's work is so little that waiting for a worker shows; longer texts gain more
from cores and are judged apart."""

TRIES = 3
"""Runs of each way before the first verdict: the first of each is slow, its memory being cold."""

RETRY_EVERY = 32
"""Runs between two trials of the slower way: where that is three times slower, 6 % of the time."""

_WEIGHT = 0.25
"""Of the newest time in the running mean: it forgets within some ten runs."""


@dataclass(slots=True)
class _Record:
    """Times of one length class."""

    runs: int = 0
    tries: dict[Way, int] = field(default_factory=lambda: dict.fromkeys(WAYS, 0))
    mean: dict[Way, float] = field(default_factory=lambda: dict.fromkeys(WAYS, 0.0))

    def choose(self) -> Way:
        untried = [way for way in WAYS if self.tries[way] < TRIES]
        if untried:
            return min(untried, key=lambda way: self.tries[way])
        faster, slower = sorted(WAYS, key=lambda way: self.mean[way])
        return slower if self.runs % RETRY_EVERY == 0 else faster

    def took(self, way: Way, seconds_per_token: float) -> None:
        self.runs += 1
        self.tries[way] += 1
        known = self.mean[way]
        first = self.tries[way] <= 2  # the second time replaces the first, cold one
        self.mean[way] = (
            seconds_per_token if first else known + _WEIGHT * (seconds_per_token - known)
        )


class Pace:
    """Remembers how long each way took; safe to call from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._short, self._long = _Record(), _Record()

    def choose(self, tokens: int) -> Way:
        """Return the way to take for a text of this length."""
        with self._lock:
            return self._of(tokens).choose()

    def took(self, way: Way, tokens: int, seconds: float) -> None:
        """Remember a run."""
        with self._lock:
            self._of(tokens).took(way, seconds / tokens)

    def _of(self, tokens: int) -> _Record:
        return self._short if tokens <= SHORT_TOKENS else self._long
