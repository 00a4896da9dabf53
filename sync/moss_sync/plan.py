"""What to do next: every decision of the protocol, as functions of what is known.

Rules of this file: values in, values out. The engine performs what is decided here and nothing
else; a rule of the protocol that exists for safety is one named function, so that a test can take
it away and show what then goes wrong.
Source: SYNC-PROTOCOL 2.2 to 2.7.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto
from itertools import groupby, islice

from moss_sync.errors import (
    DOCTOR,
    BlobCorruptError,
    ForkDetectedError,
    LostCommitError,
    StaleReadError,
    repair_command,
)
from moss_sync.floors import (
    DEFAULT_POLICY,
    Policy,
    commit_time,
    sampled,
    tidied,
)
from moss_sync.history import Side, relate, undoes
from moss_sync.hlc import stamp_limit
from moss_sync.layout import SegmentName
from moss_sync.limits import rejected
from moss_sync.manifest import (
    HASH_BYTES,
    INLINE_EACH_BYTES,
    INLINE_TOTAL_BYTES,
    UNKNOWN_INC,
    Device,
    Entry,
    Inline,
    Manifest,
    tip_of,
)
from moss_sync.marks import compare, continued
from moss_sync.merge import cut
from moss_sync.record import Record, VectorSpace
from moss_sync.replica import FIRST_LIFE, Aside, Correction, Keep, Life, Pending, ReplicaState
from moss_sync.seal import MIN_SEALED_BYTES, epoch_of
from moss_sync.segment import CUSTOM, Segment
from moss_sync.setbacks import Setback, with_lowered
from moss_sync.times import HOUR_MS

MAX_LISTED = 1000
"""Entries of a manifest up to which waiting segments of others are taken in."""

MAX_ADOPTED = 128
MAX_ADOPTED_EACH = 8
"""Waiting segments that one commit takes in, of all devices and of each: a device has one in
flight at a time, and a few more where it has given some up."""

MAX_SKIPPED_PUSHES = 2**16
"""How far ahead of a device's last committed push its next one may be; a number without a bound
would leave it no room to go on."""


@dataclass(frozen=True, slots=True)
class Fetch:
    """What a replica lacks of a manifest.

    Attributes:
        full: It is all of the manifest, because the replica has missed deletions that are
            forgotten by now.
    """

    entries: tuple[Entry, ...]
    inline: tuple[Inline, ...]
    full: bool


@dataclass(frozen=True, slots=True)
class Author:
    """Who commits, when and after what: everything of a commit but its contents.

    Attributes:
        now_ms: What the author believes the time is; the manifest's `ct` rises from the one before
            whatever that is.
        prev: Hash of the ciphertext of the parent; None where there is none.
        commit_id: 16 fresh random bytes.
        epoch: Of the key that the commit is sealed under: it adds only what is sealed under the
            same one.
    """

    state: ReplicaState
    now_ms: int
    prev: bytes | None
    commit_id: bytes
    epoch: int
    policy: Policy = DEFAULT_POLICY


def check_place(manifest: Manifest, *, repo_id: bytes, sid: str, name: str) -> None:
    """Refuse a manifest that says it belongs elsewhere. The seal already says so; be twice sure."""
    if (manifest.repo_id, manifest.sid, manifest.name) != (repo_id, sid, name):
        raise BlobCorruptError(f"the manifest of session {name!r} belongs to another session")


class Standing(Enum):
    """What a manifest makes of the device that reads it."""

    MEMBER = auto()
    """Nothing has happened to it; also of a device that the session does not know yet."""

    COPY = auto()
    """Another file pushes under this file's device id."""

    RETIRED = auto()
    """It was silent for so long that the session has forgotten it."""

    DELETED = auto()
    """The session was deleted, and perhaps created again, since this device saw it."""

    REPAIRED = auto()
    """The session was put together anew from what another device held."""


def standing(manifest: Manifest, state: ReplicaState) -> Standing:
    """Return what this device must become before it believes its own numbers again."""
    life = life_of(manifest)
    if life.repairs > state.life.repairs:
        return Standing.REPAIRED
    if life.gen > state.life.gen:
        return Standing.DELETED
    if is_copy(manifest, state):
        return Standing.COPY
    if is_retired(manifest, state):
        return Standing.RETIRED
    return Standing.MEMBER


def keep(manifest: Manifest, state: ReplicaState) -> Keep:
    """Return what a replica takes into the life of the session that `manifest` belongs to."""
    if state.life == FIRST_LIFE and state.seen is None and state.acked_n == 0:
        return "dirty"
    return "nothing" if manifest.gen > state.life.gen else "all"


def joint(manifest: Manifest, mark: bytes, state: ReplicaState, before: Manifest | None) -> int:
    """Return the last commit that the life of `manifest` and the replica's own have in common.

    Args:
        mark: Hash of the manifest's ciphertext.
        before: The manifest that `state.seen` stands for.
    """
    if state.seen is None or before is None:
        return 0
    found = relate(Side(before, state.seen.hash), Side(manifest, mark))
    if not found.parted and manifest.gen > before.gen:
        return before.seq  # it was of the session that was deleted, however long ago
    return found.joint


def aside(manifest: Manifest, state: ReplicaState, found: Standing) -> Aside:
    """Return which dirty records may have been pushed and deleted since.

    Above the floor of tombstones a deletion is still there to beat them; below it nobody can tell.
    A copy may have pushed any of them, a retired device only what it had in flight.
    """
    if state.applied_seq >= manifest.tomb_seq:
        return "nothing"
    if found is Standing.COPY:
        return "dirty"
    # Committed after its base, and forgotten since: nobody can say any more.
    pending = state.pending
    return "pending" if pending is not None and manifest.retired > pending.base else "nothing"


def correction(known: Manifest | None, current: Manifest | None, now_ms: int) -> Correction:
    """Return what becomes of unpushed changes whose stamps no right clock can have given.

    Such a stamp says nothing about when a change was made. All that is known is that it was made
    above what its file had seen: so that is where it goes, and not higher, for the file may be a
    restored backup. Then the file that it was copied from had the change too, stamped it anew when
    it pushed it, and has seen it in whatever it has written over it since.

    Args:
        known: The newest manifest that the file has seen.
        current: The newest manifest of all.
    """
    limit = stamp_limit(commit_time(current, now_ms))
    if current is None:
        return Correction(above=limit, to=limit)  # nobody has committed anything to stay below
    return Correction(above=limit, to=1 if known is None else stamp_limit(known.ct) + 1)


def life_of(manifest: Manifest) -> Life:
    """Return which life of its session a manifest belongs to."""
    return Life(manifest.repairs, manifest.gen)


def is_retired(manifest: Manifest, state: ReplicaState) -> bool:
    """Return whether the session may have forgotten this device.

    It may have committed pushes that this file knows nothing of, as a restored backup does not; a
    device that only joins takes another fresh identity, and loses nothing by it.
    """
    forgot = manifest.device(state.dev) is None and manifest.retired > 0
    return forgot and state.applied_seq < manifest.gc_floor


def was_retired(manifest: Manifest, state: ReplicaState) -> bool:
    """Return whether a device that is not in the table may have been taken off it."""
    return state.acked_n > 0 and manifest.retired >= max(1, state.acked_seq)


def check_history(
    manifest: Manifest, mark: bytes, state: ReplicaState, before: Manifest | None
) -> None:
    """Refuse a manifest that contradicts what this device has seen.

    Args:
        mark: Hash of the manifest's ciphertext.
        before: The manifest that `state.seen` stands for.
    Raises:
        StaleReadError: older than what the store has shown before.
        ForkDetectedError: of another history.
        LostCommitError: an acknowledged push of this device is not in it.
    """
    life = life_of(manifest)
    if life.repairs < state.life.repairs or life.gen < state.life.gen:
        raise StaleReadError(
            f"the store shows session {manifest.name!r} as before it was deleted or repaired",
            hint=_restored(manifest.name),
        )
    seen = state.seen
    if seen is None or before is None:
        return
    if life.repairs > state.life.repairs:
        # Put together anew by a holder of the key: what they knew of is all that counts.
        if undoes(Side(manifest, mark), Side(before, seen.hash)):
            raise _unaware(manifest.name)
        return
    name = manifest.name
    if manifest.seq < seen.seq:
        raise StaleReadError(
            f"the store shows commit {manifest.seq} of session {name!r}, after {seen.seq}",
            hint=_restored(name),
        )
    differs = compare(before.past(seen.hash), manifest.past(mark)).differs
    if differs is not None:
        raise _fork(name, differs)
    if manifest.seq == seen.seq:
        return
    if life != state.life or is_copy(manifest, state):
        return  # its push numbers are another file's, or of a session that is no more
    device = manifest.device(state.dev)
    retired = device is None and was_retired(manifest, state)
    if not retired and (0 if device is None else device.n) < state.acked_n:
        raise LostCommitError(
            f"push {state.acked_n} of this device to session {name!r} was committed and is gone",
            hint="the store was restored or rewritten, or does not compare and swap (which "
            f"{DOCTOR} finds out); put back what this device holds: {repair_command(name)}",
        )


def is_copy(manifest: Manifest, state: ReplicaState) -> bool:
    """Return whether another file pushes under this file's device id.

    Then this file is a copy (a cloned device, a restored backup): its numbers say nothing about
    its own pushes any more, and it must take a new identity before it believes them.
    """
    device = manifest.device(state.dev)
    if device is None:
        return False
    if device.inc not in (state.inc, UNKNOWN_INC):
        return True
    # An abandoned push cannot be committed any more: past what was acknowledged there is only the
    # pending one, so anything else is another file's, even under a number that was used here.
    pending = state.pending
    mine = pending is not None and (pending.n, pending.tip) == (device.n, device.tip)
    return device.n > state.acked_n and not mine


@dataclass(frozen=True, slots=True)
class Found:
    """Where a push is in: the commit that carried it (or a bound above it) and its time."""

    seq: int
    ct: int


def committed_at(manifest: Manifest, dev: bytes, pending: Pending) -> Found | None:
    """Return the commit that carried `pending`, or None while it is not in.

    The answer to "was it me?": the device table says so after any number of later commits. One
    push of a device is in flight at a time, so its row speaks of this one.
    """
    device = manifest.device(dev)
    if device is None or device.n < pending.n:
        return None
    return Found(device.seq, device.last_ct)


def may_commit(manifest: Manifest | None, pending: Pending, applied_seq: int) -> bool:
    """Return whether a push prepared at `pending.base` may still be committed.

    Below the floors something may have been purged that its author has not seen go: committing it
    could bring a deleted document back, or name a blob that is already collected. The same holds
    of what is sealed under an older key than the manifest, which anybody may collect.
    """
    if manifest is None:
        # Whoever has applied a commit knows that there is a session, whatever the store says now.
        return pending.base == 0
    fenced = pending.key is not None and (epoch_of(pending.body) or 0) < manifest.epoch
    within = manifest.gc_floor <= pending.base <= manifest.seq
    return within and not fenced and applied_seq >= manifest.tomb_seq


def is_of_epoch(pending: Pending, epoch: int) -> bool:
    """Return whether a commit of this epoch may list a push; one that rides along is sealed by it.

    One that it may not list is given up, but not before a commit of the newer epoch stands: until
    then the request that has sent it may still arrive, and others may adopt it.
    """
    return pending.key is None or epoch_of(pending.body) == epoch


def fits_inline(manifest: Manifest | None, payload_bytes: int) -> bool:
    """Return whether a payload of this size may ride in the manifest."""
    used = 0 if manifest is None else manifest.inline_bytes
    return payload_bytes <= INLINE_EACH_BYTES and used + payload_bytes <= INLINE_TOTAL_BYTES


def to_fetch(manifest: Manifest, *, applied_seq: int, dev: bytes) -> Fetch:
    """Return what a replica that has applied `applied_seq` must read to reach `manifest`.

    Its own pushed segments are left out: what is in them is here already. The output of a
    compaction is not, whoever made it, because others' records are in it. Below the floor of
    tombstones everything is read: what is not in it was deleted.
    """
    if applied_seq < manifest.tomb_seq:
        return Fetch(manifest.entries, manifest.inline, full=True)
    own = f"-{dev.hex()}-"
    return Fetch(
        tuple(
            entry
            for entry in manifest.entries
            if entry.hi > applied_seq and not (entry.lvl == 0 and own in entry.name)
        ),
        tuple(item for item in manifest.inline if item.seq > applied_seq and item.dev != dev),
        full=False,
    )


def clamped(
    records: Iterable[Record], commit_ms: int, setbacks: Sequence[Setback] = ()
) -> list[Record]:
    """Return the records of a commit as everybody takes them: no stamp past what it allows.

    The time of the commit is agreed state, and so are those of the repairs since: all devices cut a
    wrong clock's stamps alike.
    """
    limit = stamp_limit(commit_ms)
    return with_lowered([cut(record, limit) for record in records], setbacks)


def adoptable(
    manifest: Manifest, names: Iterable[tuple[SegmentName, int]], *, dev: bytes
) -> list[tuple[SegmentName, int]]:
    """Return which waiting segments a commit on top of `manifest` takes along.

    Complete, of a device's next pushes, and written by somebody who has seen what may have been
    forgotten since, and no more than there is. Their authors meant to publish them, and merging is
    idempotent.

    Args:
        names: Names that a holder of the commit's own key made, with sizes, as a listing gave them.
        dev: The committer: what it wrote itself it commits, or has given up.
    """
    listed = {entry.name for entry in manifest.entries}
    chosen = [
        (name, size)
        for name, size in names
        if name.kind == "s"
        and manifest.gc_floor <= name.base <= manifest.seq
        and size > MIN_SEALED_BYTES
        and str(name) not in listed
        and name.dev != dev
        and 0 < name.number - _last_number(manifest, name.dev) <= MAX_SKIPPED_PUSHES
    ]
    chosen.sort(key=lambda item: (item[0].dev, item[0].number))
    some: list[tuple[SegmentName, int]] = []
    for _, each in groupby(chosen, key=lambda item: item[0].dev):
        some += islice(each, MAX_ADOPTED_EACH)
    return some[: max(0, min(MAX_ADOPTED, MAX_LISTED - len(listed)))]


def _last_number(manifest: Manifest, dev: bytes) -> int:
    device = manifest.device(dev)
    return 0 if device is None else device.n


def doubts_time(parent: Manifest | None, now_ms: int) -> bool:
    """Return whether a commit at `now_ms` should first make sure of the store's time."""
    return parent is None or now_ms > parent.ct + HOUR_MS


def with_push(
    parent: Manifest | None,
    author: Author,
    pending: Pending,
    *,
    repo_id: bytes,
    sid: str,
    adopted: Sequence[tuple[SegmentName, int]] = (),
) -> Manifest:
    """Return the manifest that commits `pending` on top of `parent`, and others' with it.

    Args:
        adopted: What `adoptable` gave.
    Raises:
        ValueError: the push is sealed under another key than the commit will be.
    """
    if not is_of_epoch(pending, author.epoch):
        raise ValueError(f"a commit of epoch {author.epoch} lists only what is of that epoch")
    state = author.state
    following = next_commit(parent, author, repo_id=repo_id, sid=sid)
    for name, size in adopted:
        following = _with_adopted(following, name, size)
    seq, ct = following.seq, following.ct
    entries, inline = following.entries, following.inline
    if pending.key is None:
        item = Inline(state.dev, pending.n, pending.base, seq, ct, pending.body)
        inline = (*inline, item)
    else:
        entry = Entry(
            name=name_in(pending.key),
            bytes=len(pending.body),
            docs=pending.docs,
            tombs=pending.tombs,
            lo=seq - 1,
            hi=seq,
            bmin=pending.base,
            lvl=0,
            ct=ct,
            plain=pending.plain,
            hlc_max=pending.hlc_max,
            fp=None if state.space is None else state.space.fingerprint,
            epoch=author.epoch,
        )
        entries = (*entries, entry)
    # Another process of this file may have applied more than this; then the swap fails.
    acked_seq = min(state.applied_seq, seq)
    device = Device(pending.n, acked_seq, ct, state.inc, pending.tip, seq=seq)
    if parent is not None and (before := parent.device(state.dev)) is not None:
        device = replace(device, label=before.label, extra=before.extra)
    following = replace(
        following,
        deleted=False,
        entries=entries,
        inline=inline,
        devs={**following.devs, state.dev: device},
        space=following.space or state.space,
    )
    ceiling = min([pending.base, *(name.base for name, _ in adopted)])
    return tidied(following, author.policy, ceiling=ceiling, author=state.dev, now_ms=author.now_ms)


def _with_adopted(manifest: Manifest, name: SegmentName, size: int) -> Manifest:
    """Return `manifest` with another device's segment listed, its body unread."""
    seq, ct = manifest.seq, manifest.ct
    entry = Entry(str(name), size, None, None, seq - 1, seq, name.base, 0, ct, epoch=manifest.epoch)
    known = manifest.device(name.dev)
    device = Device(
        n=name.number,
        acked_seq=max(name.base, 0 if known is None else known.acked_seq),
        last_ct=ct,
        inc=UNKNOWN_INC if known is None else known.inc,
        tip=tip_of(str(name).encode()),
        seq=seq,
        label=None if known is None else known.label,
        extra={} if known is None else known.extra,
    )
    return replace(
        manifest,
        entries=(*manifest.entries, entry),
        devs={**manifest.devs, name.dev: device},
    )


def applied_with(
    parent: Manifest | None, applied_seq: int, adopted: Sequence[tuple[SegmentName, int]]
) -> bool:
    """Return whether a commit on top of `parent` holds only what its committer has applied."""
    return (parent is None or applied_seq >= parent.seq) and not adopted


def admitted(segment: Segment, manifest: Manifest) -> Segment:
    """Return a segment as every reader of its session takes it: with vectors of its own space only.

    Vectors of a model follow from the texts and are left out. The caller's own are content: where
    they are of no space that the session ever had, such as one of another size, their records do
    not count.
    """
    space = segment.space
    if space is None or space == manifest.space:
        return segment
    foreign = space.id == CUSTOM and space.fingerprint not in manifest.former
    kept = [
        replace(record, vector=None)
        for record in segment.records
        if not foreign or record.vector is None
    ]
    reason = f"its vector of {space.dim} components is of none of the session's spaces"
    left_out = [
        rejected(record.id, record.version.hlc, record.version.dev, reason)
        for record in segment.records
        if foreign and record.vector is not None
    ]
    return replace(segment, space=None, records=kept, rejected=(*segment.rejected, *left_out))


def with_space(parent: Manifest, author: Author, space: VectorSpace) -> Manifest:
    """Return the manifest that moves the session to another vector space.

    Nothing else changes: texts and versions stay, and vectors of the space before are left out by
    whoever reads them, until a compaction drops them.
    """
    following = next_commit(parent, author, repo_id=parent.repo_id, sid=parent.sid)
    return following.moved_to(space)


def with_deletion(parent: Manifest, author: Author) -> Manifest:
    """Return the manifest that deletes the session; the next push creates it again.

    Nothing of before can ever be committed again: both floors rise to this commit.
    """
    following = next_commit(parent, author, repo_id=parent.repo_id, sid=parent.sid)
    seq = following.seq
    return replace(
        following,
        gen=parent.gen + 1,
        deleted=True,
        entries=(),
        inline=(),
        gc_floor=seq,
        tomb_seq=seq,
        space=None,
    )


def name_in(key: str) -> str:
    """Return the name that a manifest lists of a segment's full key."""
    return "/".join(key.split("/")[-2:])


def visitor(
    current: Manifest, *, dev: bytes, now_ms: int, prev: bytes, commit_id: bytes, epoch: int
) -> Author:
    """Return the author of a commit to a session that this device has no file of."""
    state = ReplicaState(
        name=current.name,
        dev=dev,
        inc=UNKNOWN_INC,
        repo_id=current.repo_id,
        n=0,
        acked_n=0,
        acked_seq=0,
        life=life_of(current),
        applied_seq=0,
        seen=None,
        pending=None,
        space=None,
        dirty=0,
        hlc=0,
    )
    return Author(state, now_ms, prev, commit_id, epoch)


def next_commit(parent: Manifest | None, author: Author, *, repo_id: bytes, sid: str) -> Manifest:
    """Return the manifest of the next commit, before anything is added to it."""
    state = author.state
    if parent is None:
        return Manifest(
            repo_id=repo_id,
            sid=sid,
            name=state.name,
            seq=1,
            commit_id=author.commit_id,
            by=state.dev,
            ct=commit_time(None, author.now_ms),
            prev=bytes(HASH_BYTES),
            epoch=author.epoch,
            tl=sampled((), 1, author.now_ms),
        )
    if author.prev is None:
        raise ValueError("a manifest with a parent takes the parent's hash")
    return replace(
        parent,
        seq=parent.seq + 1,
        commit_id=author.commit_id,
        by=state.dev,
        ct=commit_time(parent, author.now_ms),
        prev=author.prev,
        epoch=author.epoch,
        marks=continued(parent.seq, parent.marks, author.prev, parent.seq + 1),
        tl=sampled(parent.tl, parent.seq + 1, author.now_ms),
    )


def _fork(name: str, seq: int) -> ForkDetectedError:
    return ForkDetectedError(
        f"the store's history of session {name!r} differs from this device's at commit {seq}",
        hint=f"the store was restored or rewritten, or does not compare and swap (which {DOCTOR} "
        f"finds out); on the device that has what you want to keep: {repair_command(name)}",
    )


def _unaware(name: str) -> StaleReadError:
    return StaleReadError(
        f"session {name!r} was repaired by a device that did not know of deletions which this one "
        "has seen",
        hint=f"to leave them deleted for everybody: {repair_command(name)}",
    )


def _restored(name: str) -> str:
    return (
        "retry; if it stays so, the store was restored from a backup, and what this device holds "
        f"is put back by: {repair_command(name)}"
    )
