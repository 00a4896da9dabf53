"""How a push fares against others, and when it looks for those that wait to be taken along.

Rules of this file: values in, values out; the time is an argument, in seconds of a monotonic clock.
What holds (tests/moss_sync/test_adoption.py): whoever loses again and again waits as a segment in
the store, and whoever commits meanwhile looks for such segments: because it has lost races itself,
or because it commits again and again. So nobody is kept out for long by others who never lose.
Source: SYNC-PROTOCOL 2.5, and docs/design/0009-races.md.
"""

from __future__ import annotations

from dataclasses import dataclass

ADOPT_AFTER = 2
"""Lost races after which a push commits for others too: two devices that meet need not list."""

QUEUE_S = 0.5
"""A lost swap that took longer than this, and than QUEUE_READS reads, has stood in a queue.

SeaweedFS lets racers wait in steps of a second, and unfairly: of fifty some wait ten. One such wait
tells of a crowd as well as two lost races do, and a second one is what costs most."""
QUEUE_READS = 4
"""Over a slow line a read takes long as well."""

FIRST_GATHERING_S, LONGEST_GATHERING_S = 0.1, 2.0
"""How long a crowd is given to upload. Fifty on SeaweedFS sent 175 swaps without it, now 70."""

STREAK_S = 2.0
"""A device that pushes again within this time of a commit of its own looks as often for others.

Whoever swaps without having to read before is always faster than who must read what it has lost
against: without this a device that pushes in a loop, and so never loses, keeps all others out.
A push now and then, such as one a turn of a conversation, is no streak and lists nothing."""


@dataclass
class Race:
    """How one push fares against others.

    Attributes:
        deadline: When to give up, by the monotonic clock.
        lost: Compare-and-swaps that others won meanwhile.
        gathering_s: Within how long a crowd shows: one compare-and-swap of this race, about.
    """

    deadline: float
    lost: int = 0
    gathering_s: float = FIRST_GATHERING_S

    @property
    def crowded(self) -> bool:
        """Whether this push takes others' waiting segments along, and waits as one itself."""
        return self.lost >= ADOPT_AFTER

    def gathers_for(self, seconds: float) -> None:
        """Note how long the race keeps its runners."""
        self.gathering_s = min(LONGEST_GATHERING_S, max(self.gathering_s, seconds))

    def was_lost(self, races: int, *, swap_s: float, read_s: float) -> None:
        """Note a swap that did not come to anything, and what that says about the crowd."""
        queued = swap_s > QUEUE_S and swap_s > QUEUE_READS * read_s
        self.lost += ADOPT_AFTER if queued else races


class Streak:
    """A device's pushes in quick succession, and when it has last looked who waits."""

    def __init__(self) -> None:
        self._looked_at = self._committed_at = float("-inf")
        self._goes_on = False

    def begins(self, now: float) -> None:
        """Note that a push begins."""
        self._goes_on = now - self._committed_at <= STREAK_S
        if not self._goes_on:
            self._looked_at = now  # nobody was kept out before

    def committed(self, now: float) -> None:
        """Note a commit of one's own."""
        self._committed_at = now

    def looks(self, now: float) -> bool:
        """Return whether the commit that is about to be sent has to look, and note that it does."""
        if not self._goes_on or now - self._looked_at < STREAK_S:
            return False
        self._looked_at = now
        return True
