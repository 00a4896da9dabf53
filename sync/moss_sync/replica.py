"""What the engine needs of a device's copy of a session: a few verbs, one transaction each.

`moss_local` implements this over its SQLite file. The verbs are plain functions that may block;
the engine calls them through a runner (a thread in production, directly in a simulation) and never
holds a transaction open over an await. After a crash inside a verb all or nothing of it is there.

Vocabulary: a record is *dirty* when it was changed here since the last acknowledged push, or when
it is *held*: not changed here, but offered again because the session was put together anew;
*pending* is the one push that has been prepared and whose outcome is not yet known to be success;
*seen* is the newest manifest that this device has verified, *applied* the sequence number up to
which it has merged everybody's records.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from moss_sync.errors import StoreChangedError, other_store_hint
from moss_sync.limits import Rejected
from moss_sync.record import Record, VectorSpace, Version
from moss_sync.setbacks import Setback

Exclusive = Callable[[], AbstractAsyncContextManager[None]]
"""Opens a lock that one process at a time holds for a replica: held to push, never to pull."""


KEPT_REJECTED = 100
"""So many records that do not count a replica remembers, so that each is news once."""

Aside = Literal["nothing", "pending", "dirty"]
"""Which dirty records a renewed identity sets aside: none, those in the pending push, or all."""

MAY_BE_DELETED = "repaired"
"""Why such a record is in the quarantine: the session was repaired, and somebody may have deleted
the document since, by a tombstone that is forgotten."""

Keep = Literal["dirty", "nothing", "all", "edits"]
"""What a replica takes into another life of the session."""


class Life(NamedTuple):
    """Which life of a session: sequence numbers are comparable only within one.

    Attributes:
        repairs: How often it was put together anew from what a device held.
        gen: How often it was deleted.
    """

    repairs: int
    gen: int


FIRST_LIFE = Life(0, 0)


@dataclass(frozen=True, slots=True)
class Seen:
    """The newest manifest that this device has verified.

    Attributes:
        seq: Its sequence number.
        hash: blake2b-256 of its ciphertext; the next manifest names it as `prev`.
        etag: Under which the store holds it; None where `plain` is not all of it any more, so that
            it must be read again before anything is committed on top of it.
        plain: Its decoded msgpack bytes, so that the next push needs no download.
        life: Which life of the session it belongs to.
    """

    seq: int
    hash: bytes
    etag: str | None
    plain: bytes
    life: Life = FIRST_LIFE


@dataclass(frozen=True, slots=True)
class Correction:
    """What becomes of unpushed changes that a wrong clock has stamped.

    Attributes:
        above: The highest stamp (hlc) that a right clock can have given.
        to: What a higher one becomes.
    """

    above: int
    to: int


@dataclass(frozen=True, slots=True)
class Pending:
    """A prepared push, kept with its exact bytes until its outcome is known.

    Attributes:
        n: The device's push number.
        base: `applied_seq` of this device when the push was prepared.
        key: Full key of the segment in the store; None when the payload rides in the manifest.
        tip: 16 bytes that name this push in the manifest's device table.
        body: The sealed segment, or the plain inline payload when `key` is None.
        docs: Number of live records inside; `tombs`: of tombstones.
        plain: Size before compression and sealing.
        hlc_max: The highest clock inside.
    """

    n: int
    base: int
    key: str | None
    tip: bytes
    body: bytes
    docs: int
    tombs: int
    plain: int
    hlc_max: int


@dataclass(frozen=True, slots=True)
class ReplicaState:
    """Everything that the engine decides by, read in one transaction.

    Attributes:
        name: The session's name.
        dev: This copy's device id, 8 bytes; inc: its incarnation nonce, 8 bytes.
        repo_id: The repository that this file belongs to; None before its first exchange.
        n: The highest push number ever used here, acknowledged or not.
        acked_n: The highest push number known to be committed.
        acked_seq: The commit that carried it, or a bound above it; 0 where that is not known.
        space: The session's vector space; None while it holds no vector.
        known_seq: Every deletion committed up to here is known in this file: `applied_seq`, or more
            where the session was put together anew since.
        dirty: Number of dirty records, those inside the pending push included.
        hlc: The local clock: no stamp in the file is higher, but for those that move no clock
            (`hlc.observe`).
    """

    name: str
    dev: bytes
    inc: bytes
    repo_id: bytes | None
    n: int
    acked_n: int
    acked_seq: int
    life: Life
    applied_seq: int
    seen: Seen | None
    pending: Pending | None
    space: VectorSpace | None
    dirty: int
    hlc: int
    known_seq: int = 0


@dataclass(frozen=True, slots=True)
class MergeCounts:
    """What a merge did.

    Attributes:
        received: Live records of others that won and are now visible here.
        deleted: Live local records that a tombstone of others removed.
        superseded: Local versions, dirty when they lost, that another device's version replaced.
        reasserted: Local changes that were stamped anew, because what they would have lost to may
            be a deletion that is forgotten by now.
        quarantined: Held records that were set aside, because they may have been deleted.
        rejected: Records that do not count, as far as this file has not been told of them before.
    """

    received: int = 0
    deleted: int = 0
    superseded: int = 0
    reasserted: int = 0
    quarantined: int = 0
    rejected: Sequence[Rejected] = ()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A pull, verified and decoded as a whole, ready to be merged.

    Attributes:
        records: Every record to merge, `commit_seq` set; several versions of one id may occur.
        applied_seq: What the replica has applied once the merge is in.
        tomb_seq: Tombstones committed up to here may be gone from the store.
        tomb_hlc: The highest stamp of those; the local clock is raised to at least this.
        full: The records are all that there is, for a replica that has applied less than
            `tomb_seq`: what it holds besides was deleted.
        space: The session's vector space as the manifest states it.
        former: Fingerprints of the spaces that it had before.
        rejected: What was read besides and does not count.
    """

    records: Sequence[Record]
    applied_seq: int
    tomb_seq: int = 0
    tomb_hlc: int = 0
    full: bool = False
    space: VectorSpace | None = None
    former: frozenset[str] = frozenset()
    rejected: Sequence[Rejected] = ()


@dataclass(frozen=True, slots=True)
class Committed:
    """Push `n` of the device `dev` is in the manifest.

    Attributes:
        commit_seq: The commit that carried it, or a safe upper bound.
        limit: The highest stamp that records of that commit keep (hlc); readers cut to it, and so
            must their author.
        applied_seq: The new applied sequence number; None leaves it alone.
    """

    dev: bytes
    n: int
    commit_seq: int
    limit: int
    applied_seq: int | None = None


class Replica(Protocol):
    """One device's copy of one session.

    Several processes may share a file, and a pull of one may finish after a later pull of
    another: `seen` and `applied_seq` therefore never fall; a verb that would lower them leaves
    them as they are and does the rest of its work. They start anew with another life of the
    session (`start_life`), and what a verb brings of an earlier life, or of a device that this
    file no longer is, is left aside.
    """

    def state(self) -> ReplicaState:
        """Read the state; never writes."""
        ...

    def attach(self, repo_id: bytes) -> None:
        """Remember the repository that this file belongs to.

        Raises:
            StoreChangedError: it already belongs to another one.
        """
        ...

    def dirty(self, *, max_bytes: int, max_records: int) -> list[Record]:
        """Return dirty records, those changed first coming first, tombstones among them.

        Stops before the sum of their contents passes `max_bytes` (counted as UTF-8 and vector
        bytes), but returns at least one where there is any.
        """
        ...

    def vectors(self, wanted: Mapping[str, Version], space: VectorSpace) -> dict[str, bytes]:
        """Return, by id, the vectors that are here of exactly these versions.

        Empty where the vectors here are of another space.
        """
        ...

    def restamp(self, correction: Correction) -> int:
        """Correct the stamps of dirty versions; return of how many.

        A wrong clock made them and nobody else has seen them. There must be no pending push. The
        local clock falls to `correction.above`, if it stands higher.
        """
        ...

    def save_pending(
        self, pending: Pending, versions: Sequence[tuple[str, Version]], *, dev: bytes
    ) -> None:
        """Keep a prepared push and which version of which id it carries; raises `n` to its n.

        Does nothing where the file is no longer the device `dev`. There must be no other pending
        push: a RuntimeError otherwise.
        """
        ...

    def abandon_pending(self) -> None:
        """Forget the pending push without clearing a dirty mark; its n is never used again."""
        ...

    def settle(self, committed: Committed, seen: Seen | None = None) -> None:
        """The push `committed.n` is in: clear its dirty marks where the version is unchanged.

        Those records get `commit_seq`, and a stamp above `limit` becomes `limit`; the pending push
        with this n is dropped; `acked_n` rises.
        `seen`, where given, is stored in the same transaction. Repeating it changes nothing.
        """
        ...

    def merge(self, snapshot: Snapshot, seen: Seen) -> MergeCounts:
        """Merge a pull: last writer wins by `Version`, in one transaction with the sync state.

        A record equal in version to the local one only updates `commit_seq` (the lowest known
        stays). A local version that loses stops being dirty. Tombstones are stored like puts,
        also where the id was unknown. In this order:
          1 clean tombstones committed up to `tomb_seq` are forgotten
          2 where `full`: clean records that are not in the snapshot are forgotten; of those that
            are not in it and not above `tomb_hlc`, edits, puts and deletes alike, are stamped anew,
            and held documents go to the quarantine
          3 the records are merged; one of an equal version fills in a vector that is lacking here
          4 what is rejected is remembered, the first KEPT_REJECTED of it, until a document of that
            id arrives that counts
          5 the local clock rises to `tomb_hlc` and the highest stamp merged

        Step 2 is only for a file that still is below `tomb_seq`, and was before a repair. Where the
        vectors here are of a space that the session has left (`former`), they are forgotten first,
        and the file goes on in the session's space. Where this file has moved on since the snapshot
        was read, because another task or process exchanged it too, nothing is done.

        Raises:
            ModelMismatchError: the vectors here are of another space; nothing was merged.
        """
        ...

    def set_seen(self, seen: Seen, *, applied_seq: int | None = None, tomb_seq: int = 0) -> None:
        """Store a newly verified manifest that needed no merge; raise what is applied if given.

        Clean tombstones committed up to `tomb_seq` are forgotten.
        """
        ...

    def renew_identity(
        self,
        dev: bytes,
        inc: bytes,
        *,
        was: bytes,
        aside: Aside,
        correction: Correction | None = None,
    ) -> int:
        """Go on as another device; return how many dirty records were set aside.

        This file turned out to be a copy of one that is in use, or its device was retired. The
        pending push is abandoned and the push numbers start again. Dirty records that may have
        been pushed and deleted since (`aside`) go to the quarantine; the marks of the others stay.
        The stamps of dirty records are corrected as by `restamp`.
        Does nothing where the file is no longer the device `was`.
        """
        ...

    def start_life(
        self,
        seen: Seen,
        dev: bytes,
        inc: bytes,
        *,
        keep: Keep,
        joint: int,
        setbacks: Sequence[Setback] = (),
        correction: Correction | None = None,
        present: Set[tuple[str, bytes]] = frozenset(),
    ) -> int:
        """Go on in the life of the session that `seen` is of; return how many records it set aside.

        `seen` is stored, nothing of it applied; the pending push is abandoned. `keep`:
          "dirty"    never exchanged before: everything stays as it is
          "nothing"  the session was deleted: dirty records go to the quarantine, and so do clean
                     documents committed after `joint`, since they were not of what was deleted; the
                     other clean ones go
          "all"      the session was put together anew: every clean record becomes a held one,
                     because what others hold of it is not known
          "edits"    what the file has seen is not believed: documents that are no edits go, into
                     the quarantine if they are not of those `present`
        The file goes on under the new identity `dev`, `inc`. Before that the stamps of records that
        it keeps and that are no edits fall as `setbacks.lowered` says, and those of edits are
        corrected as by `restamp`.
        Does nothing where the file is in this life already.

        Args:
            joint: The last commit that this life and the one before have in common. Deletions up to
                it that were applied here are known here, however little of this life is applied.
            setbacks: The repairs since the life that the file is in.
            present: Id and digest of each document of the session.
        """
        ...

    def records(self) -> list[Record]:
        """Return every record that is no unpushed edit, with its content and vector."""
        ...

    def set_aside(self, records: Sequence[Record]) -> int:
        """Put records into the quarantine that may not be shown and must not be lost.

        Leaves out what is there already or stands in the file in this very version; returns how
        many it put there.
        """
        ...


def other_store(state: ReplicaState, url: str) -> StoreChangedError:
    """Return the error of a replica that was exchanged, and whose store has no repository."""
    return StoreChangedError(
        f"session {state.name!r} has been exchanged with another store before; {url} holds "
        "nothing of this project",
        hint=other_store_hint(),
    )
