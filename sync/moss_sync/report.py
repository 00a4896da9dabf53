"""What one exchange did and what it cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from moss_sync.limits import Rejected

SHOWN_REJECTIONS = 10


@dataclass(slots=True)
class SyncReport:
    """What one exchange did and what it cost.

    Attributes:
        sent: Live records published; sent_deletes: tombstones published.
        received, deleted, superseded, reasserted: As in MergeCounts.
        quarantined: Documents that were set aside, because they may have been deleted since, or the
            session was deleted: changes made here, and after a repair what is only held. They can
            be read and restored.
        older_copy: This device's file was an older copy of itself, or of another device's: under
            its device id more has been pushed than it knows of. It goes on under a new id; what
            was pushed is merged, and what was only in the file that is gone is lost.
        adopted: Waiting pushes of other devices that were committed together with this one's.
        session_id: The session's id in the store; empty before the store was reached.
        seq: Sequence number of the manifest that this device now knows.
        lost_races: Compare-and-swaps that another device won.
        requests, bytes_sent, bytes_received: As counted on the wire, bodies only.
        elapsed_ms: Wall time of the exchange.
        waiting: Where blobs travel one by one (commit="log"): what is known to exist and has not
            arrived, or cannot be read, a sentence each. A later exchange reads it once it is whole.
        strays: What lies among the session's blobs and is none of them, such as the conflicted
            copies that a folder's replication leaves. Never read and never removed.
        rejected: Records of others that were read and do not count, because they are over a limit
            of the format; each is counted once. rejections: the first of them, a sentence each.
    """

    session_id: str = ""
    sent: int = 0
    sent_deletes: int = 0
    received: int = 0
    deleted: int = 0
    superseded: int = 0
    reasserted: int = 0
    quarantined: int = 0
    older_copy: bool = False
    adopted: int = 0
    seq: int = 0
    lost_races: int = 0
    requests: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0
    elapsed_ms: float = 0.0
    waiting: tuple[str, ...] = ()
    strays: tuple[str, ...] = ()
    rejected: int = 0
    rejections: tuple[str, ...] = ()

    def tell(self, news: Sequence[Rejected]) -> None:
        """Add what an exchange has read and left out."""
        self.rejected += len(news)
        room = SHOWN_REJECTIONS - len(self.rejections)
        self.rejections += tuple(map(str, news[: max(0, room)]))


@dataclass(slots=True)
class RepairReport(SyncReport):
    """What a repair found and did; the counts are of what this device has put back.

    Attributes:
        trouble: What was wrong with the store, in words; None where nothing was.
        keys_restored: The store lacked the project's keys, or had those of before a rotation.
        rebuilt: The session was put together anew. False: nothing was wrong, and this was an
            ordinary exchange.
        blobs: How many the newest manifest lists that could be had; lost_blobs: how many of them
            are missing or damaged.
        aside: Keys of the store under which the damaged blobs lie that were replaced. Nobody reads
            them any more, and nobody deletes them but you.
        set_back_ms: By how much the session's time fell, because it was in the future; the stamps
            of all its documents have fallen with it.
    """

    trouble: str | None = None
    keys_restored: bool = False
    rebuilt: bool = False
    blobs: int = 0
    lost_blobs: int = 0
    aside: tuple[str, ...] = ()
    set_back_ms: int = 0
