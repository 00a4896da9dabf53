"""When to exchange next, in the background: a rhythm, a debounce, and patience with failures.

Rules of this file: values in, values out. Times are seconds of one monotonic clock and, like
chance, arguments; nothing is read here and nothing waits.
What holds (tests/moss_local/test_schedule.py): changes leave at most `LONGEST_UNPUSHED_S` after
the first of them, whatever keeps coming; a failure never hastens anything; after a success nothing
of earlier failures is left.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

QUIET_S = 2.0
"""A push waits until nothing has been written for so long: one turn is often several writes."""

LONGEST_UNPUSHED_S = 10.0
"""And no longer than this after the first of them. Source: SYNC-PROTOCOL 2.12."""

FIRST_RETRY_S = 1.0
LONGEST_RETRY_S = 60.0
"""Of waiting after failures. A refused connection costs nothing, and whoever is back on the
network after hours wants the news within the minute."""

Work = Literal["pull", "push", "sync"]


@dataclass(slots=True)
class Schedule:
    """What is due of one session.

    Attributes:
        interval_s: From one pull to the next.
        pulled: When the last pull succeeded; minus infinity where one is wanted now.
        first_edit, last_edit: Of the changes that wait to be pushed; None where none do.
        failures: In a row.
        retry: Not before this.
    """

    interval_s: float
    pulled: float = -math.inf
    first_edit: float | None = None
    last_edit: float | None = None
    failures: int = 0
    retry: float = -math.inf

    def next(self) -> float:
        """Return when something is due; may be past."""
        return max(self.retry, min(self._pull(), self._push()))

    def due(self, now: float) -> Work | None:
        """Return what is to be done now, if anything is."""
        if now < self.next():
            return None
        if self.failures:  # there is a way again, perhaps: use it for all that waits
            return "pull" if self.first_edit is None else "sync"
        pull, push = now >= self._pull(), now >= self._push()
        return "sync" if pull and push else "pull" if pull else "push"

    def edited(self, at: float) -> None:
        """Something was written here."""
        if self.first_edit is None:
            self.first_edit = at
        self.last_edit = at

    def nothing_waits(self) -> None:
        """All that was written is pushed."""
        self.first_edit = self.last_edit = None

    def succeeded(self, work: Work, now: float) -> None:
        """An exchange has ended well, whoever asked for it."""
        self.failures, self.retry = 0, -math.inf
        if work != "push":
            self.pulled = now
        if work != "pull":
            self.nothing_waits()

    def failed(self, now: float, *, chance: float, asked: float = 0.0) -> None:
        """An exchange has failed in a way that may pass.

        Args:
            chance: 0 to 1; spreads the devices that one outage has cut off.
            asked: Seconds that the store asked to be left alone for.
        """
        wait = min(FIRST_RETRY_S * 2.0 ** min(self.failures, 16), LONGEST_RETRY_S)
        self.failures += 1
        self.retry = now + max(asked, wait * (0.5 + 0.5 * chance))

    def hurry(self) -> None:
        """Forget the rhythm and the failures: the machine was asleep, or somebody is back."""
        self.pulled = self.retry = -math.inf
        self.failures = 0

    def _pull(self) -> float:
        return self.pulled + self.interval_s

    def _push(self) -> float:
        if self.first_edit is None or self.last_edit is None:
            return math.inf
        return min(self.last_edit + QUIET_S, self.first_edit + LONGEST_UNPUSHED_S)
