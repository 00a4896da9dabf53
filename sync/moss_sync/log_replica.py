"""What the exchange by log needs of a device's copy besides the verbs of every replica.

Each verb is one transaction, blocking, and may be repeated. Records are attributed to pushes: the
push that brought a record is (its version's device, its `commit_seq`), so a device pushes records
of its own versions only, and `commit_seq` is the number of the push.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Protocol

from moss_sync.coverage import Floor
from moss_sync.replica import Replica


class LogReplica(Replica, Protocol):
    """One device's copy of a session whose repository commits by log."""

    def recall(self) -> bytes | None:
        """Return what `remember` kept, or None."""
        ...

    def remember(self, change: Callable[[bytes | None], bytes]) -> None:
        """Replace what is kept by `change` of it; other processes' changes come before or after."""
        ...

    def known(self, ids: Collection[str]) -> set[str]:
        """Return those of the ids of which there is a record here, tombstones included."""
        ...

    def forget(
        self, whole: Floor, keep: Collection[str], *, tomb_limit: int, now_ms: int
    ) -> tuple[int, int]:
        """Take over that of all pushes up to `whole` only records of the ids in `keep` are left.

        Clean records of those pushes with other ids go. Dirty ones with other ids are stamped anew
        if they stand at or below `tomb_limit` (hlc): they may have been written without knowing of
        a deletion that is forgotten now, and no device may hold that deletion against them.

        Returns:
            How many documents went, and how many dirty records were stamped anew.
        """
        ...

    def offer(self) -> None:
        """Let all that is held here go with the next push once more; no version changes by that."""
        ...

    def discipline(self, limit: int, high: int) -> int:
        """Stamp dirty versions above `limit` anew, in their order, and return how many there were.

        A wrong clock made them and nobody else has seen them. They go to just above `high`, the
        highest stamp that others may have seen, or to `limit`, whichever is higher, so that one
        that replaced another's version still does. The local clock falls to the highest of them:
        what is written next comes after all that is here. Dirty records of a device that this file
        was before become this device's.
        """
        ...

    def become(self, dev: bytes, inc: bytes, *, was: bytes, since: int) -> None:
        """Go on as another device: this file turned out to be a copy of one that is in use.

        The pending push is dropped and the numbers start again. Dirty records, and those that went
        with push `since` of the old device or a later one, are the new device's and dirty. Their
        stamps stay: nothing newer that others wrote may lose to them. Does nothing where the file
        is no longer the device `was`.
        """
        ...
