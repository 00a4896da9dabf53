"""What to do next: every decision of the protocol, as functions of what is known.

Rules of this file: values in, values out. The engine performs what is decided here and nothing
else; a rule of the protocol that exists for safety is one named function, so that a test can take
it away and show what then goes wrong.
Source: SYNC-PROTOCOL 2.2 to 2.7.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from moss_sync import segment
from moss_sync.errors import (
    BlobCorruptError,
    ForkDetectedError,
    LostCommitError,
    StaleReadError,
)
from moss_sync.layout import base_of
from moss_sync.manifest import (
    HASH_BYTES,
    INLINE_EACH_BYTES,
    INLINE_TOTAL_BYTES,
    RING_HASH_BYTES,
    RING_LENGTH,
    Device,
    Entry,
    Inline,
    Manifest,
)
from moss_sync.packing import plain_size
from moss_sync.replica import Pending, ReplicaState, Seen
from moss_sync.seal import epoch_of

SMALL_SESSION_BYTES = 4 * 1024 * 1024
"""Up to here a quiescent session is kept in at most SMALL_SESSION_ENTRIES blobs."""

SMALL_SESSION_ENTRIES = 4
"""A cold open is then fmt, manifest and these: six requests."""

SPILL_BYTES = INLINE_TOTAL_BYTES // 2
"""Inline payloads are moved into a segment once they pass this, before a push finds no room."""

FAN_OUT = 8
MAX_AT_LEVEL = 16
"""Larger sessions: past 16 entries at a level the oldest 8 become one of the next."""

MAX_LEVEL = 15
"""A session whose documents are written again and again stays small for ever, and each merge
would raise its level: past 255 the name has no room for it. 8^15 entries are enough."""


@dataclass(frozen=True, slots=True)
class Fetch:
    """What a replica lacks of a manifest."""

    entries: tuple[Entry, ...]
    inline: tuple[Inline, ...]


@dataclass(frozen=True, slots=True)
class Author:
    """Who commits, when and after what: everything of a commit but its contents.

    Attributes:
        now_ms: Store time as the author believes it; the manifest's `ct` never falls below the
            one before.
        prev: Hash of the ciphertext of the parent; None where there is none.
        commit_id: 16 fresh random bytes.
    """

    state: ReplicaState
    now_ms: int
    prev: bytes | None
    commit_id: bytes


def check_place(manifest: Manifest, *, repo_id: bytes, sid: str, name: str) -> None:
    """Refuse a manifest that says it belongs elsewhere. The seal already says so; be twice sure."""
    if (manifest.repo_id, manifest.sid, manifest.name) != (repo_id, sid, name):
        raise BlobCorruptError(f"the manifest of session {name!r} belongs to another session")


def check_history(
    seen: Seen | None, manifest: Manifest, mark: bytes, *, dev: bytes, acked_n: int
) -> None:
    """Refuse a manifest that contradicts what this device has seen.

    Args:
        mark: Hash of the manifest's ciphertext.
    Raises:
        StaleReadError: older than what the store has shown before.
        ForkDetectedError: of another history.
        LostCommitError: an acknowledged push of this device is not in it.
    """
    if seen is None:
        return
    name = manifest.name
    if manifest.seq < seen.seq:
        raise StaleReadError(
            f"the store shows commit {manifest.seq} of session {name!r}, after {seen.seq}",
            hint="retry; if it stays so, the store was restored from a backup",
        )
    if manifest.seq == seen.seq:
        if mark != seen.hash:
            raise _fork(name, seen.seq)
        return
    if manifest.seq == seen.seq + 1 and manifest.prev != seen.hash:
        raise _fork(name, seen.seq)
    # Every manifest names the RING_LENGTH before it, so a missing one is as telling as a wrong one.
    within = seen.seq >= manifest.seq - RING_LENGTH
    known = dict(manifest.ring).get(seen.seq)
    if (within or known is not None) and known != seen.hash[:RING_HASH_BYTES]:
        raise _fork(name, seen.seq)
    device = manifest.device(dev)
    # A compactor may retire a device, but only with a floor: without one, absence is a loss too.
    retired = device is None and manifest.gc_floor > 0
    if not retired and (0 if device is None else device.n) < acked_n:
        raise LostCommitError(
            f"push {acked_n} of this device to session {name!r} was committed and is gone",
            hint="the store was restored or rewritten; compare with another device before writing",
        )


def is_copy(manifest: Manifest, state: ReplicaState) -> bool:
    """Return whether another file pushes under this file's device id.

    Then this file is a copy (a cloned device, a restored backup): its numbers say nothing about
    its own pushes any more, and it must take a new identity before it believes them.
    """
    device = manifest.device(state.dev)
    if device is None:
        return False
    if device.n > state.n or device.inc != state.inc:
        return True
    pending = state.pending
    return pending is not None and device.n == pending.n and device.tip != pending.tip


def committed_at(manifest: Manifest, dev: bytes, pending: Pending) -> int | None:
    """Return the commit that carried `pending`, or None while it is not in.

    The answer to "was it me?": the device table says so after any number of later commits. Where
    a compaction has already merged the entry, the manifest's own number is a safe upper bound.
    """
    device = manifest.device(dev)
    if device is None or device.n < pending.n:
        return None
    if pending.key is None:
        for item in manifest.inline:
            if item.dev == dev and item.n == pending.n:
                return item.seq
    else:
        for entry in manifest.entries:
            if pending.key.endswith("/" + entry.name):
                return entry.hi
    return manifest.seq


def may_commit(manifest: Manifest | None, pending: Pending, applied_seq: int) -> bool:
    """Return whether a push prepared at `pending.base` may still be committed.

    Below the floors something may have been purged that its author has not seen go: committing it
    could bring a deleted document back, or name a blob that is already collected.
    """
    if manifest is None:
        return True
    return pending.base >= manifest.gc_floor and applied_seq >= manifest.tomb_seq


def fits_inline(manifest: Manifest | None, payload_bytes: int) -> bool:
    """Return whether a payload of this size may ride in the manifest."""
    used = 0 if manifest is None else manifest.inline_bytes
    return payload_bytes <= INLINE_EACH_BYTES and used + payload_bytes <= INLINE_TOTAL_BYTES


def to_fetch(manifest: Manifest, *, applied_seq: int, dev: bytes) -> Fetch:
    """Return what a replica that has applied `applied_seq` must read to reach `manifest`.

    Its own pushed segments are left out: what is in them is here already. The output of a
    compaction is not, whoever made it, because others' records are in it.
    """
    own = f"-{dev.hex()}-"
    return Fetch(
        tuple(
            entry
            for entry in manifest.entries
            if entry.hi > applied_seq and not (entry.lvl == 0 and own in entry.name)
        ),
        tuple(item for item in manifest.inline if item.seq > applied_seq and item.dev != dev),
    )


def with_push(
    parent: Manifest | None,
    author: Author,
    pending: Pending,
    *,
    repo_id: bytes,
    sid: str,
) -> Manifest:
    """Return the manifest that commits `pending` on top of `parent`."""
    state = author.state
    following = _next(parent, author, repo_id=repo_id, sid=sid)
    seq, ct = following.seq, following.ct
    entries, inline = following.entries, following.inline
    if pending.key is None:
        item = Inline(state.dev, pending.n, pending.base, seq, ct, pending.body)
        inline = (*inline, item)
    else:
        entry = Entry(
            name="/".join(pending.key.split("/")[-2:]),
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
            epoch=epoch_of(pending.body),
        )
        entries = (*entries, entry)
    device = Device(pending.n, state.applied_seq, ct, state.inc, pending.tip)
    if parent is not None and (before := parent.device(state.dev)) is not None:
        device = replace(device, label=before.label, extra=before.extra)
    return replace(
        following,
        entries=entries,
        inline=inline,
        devs={**following.devs, state.dev: device},
        space=following.space or state.space,
    )


def with_compaction(
    parent: Manifest, author: Author, merged: Compaction, output: Entry
) -> Manifest | None:
    """Return the manifest in which `output` replaces what was merged, or None.

    None when any input is no longer listed: somebody else has merged it, and adding the output
    could bring back what they have dropped. None also when the output's base is below the floor:
    its name may be collected at any moment.
    """
    if base_of(output.name) < parent.gc_floor:
        return None
    names = {entry.name for entry in merged.entries}
    pushes = {(item.dev, item.n) for item in merged.inline}
    if not names <= {entry.name for entry in parent.entries} or not pushes <= {
        (item.dev, item.n) for item in parent.inline
    }:
        return None
    following = _next(parent, author, repo_id=parent.repo_id, sid=parent.sid)
    kept = [entry for entry in following.entries if entry.name not in names]
    return replace(
        following,
        entries=tuple(sorted([*kept, output], key=lambda entry: (entry.hi, entry.lo))),
        inline=tuple(item for item in following.inline if (item.dev, item.n) not in pushes),
    )


@dataclass(frozen=True, slots=True)
class Compaction:
    """Entries and inline payloads that should become one entry."""

    entries: tuple[Entry, ...]
    inline: tuple[Inline, ...]

    @property
    def bmin(self) -> int:
        return min([entry.bmin for entry in self.entries] + [item.base for item in self.inline])

    @property
    def covers(self) -> tuple[int, int]:
        """The commits (lo, hi] that the output stands for."""
        spans = [(entry.lo, entry.hi) for entry in self.entries]
        spans += [(item.seq - 1, item.seq) for item in self.inline]
        return min(lo for lo, _ in spans), max(hi for _, hi in spans)

    @property
    def level(self) -> int:
        return min(MAX_LEVEL, 1 + max((entry.lvl for entry in self.entries), default=0))


def plan_compaction(manifest: Manifest) -> Compaction | None:
    """Return what to merge now, or None.

    Small sessions keep few entries of falling size: the inline payloads, and then the youngest
    entries while those are not at least twice what has been gathered, become one. Each document
    is so rewritten about log2(session / 12 KiB) times, and a reader needs few requests. Large
    sessions merge by level instead, so that a big blob is rewritten rarely.
    """
    entries = sorted(manifest.entries, key=lambda entry: (entry.hi, entry.lo))
    total = sum(entry.bytes for entry in entries) + manifest.inline_bytes
    if total > SMALL_SESSION_BYTES:
        return _by_level(entries, manifest)
    if manifest.inline_bytes <= SPILL_BYTES and len(entries) <= SMALL_SESSION_ENTRIES:
        return None
    inline = _spillable(manifest)
    gathered = sum(len(item.payload) for item in inline)
    chosen: list[Entry] = []
    while (
        entries
        and (len(entries) >= SMALL_SESSION_ENTRIES or entries[-1].bytes < 2 * gathered)
        and readable_together([*chosen, entries[-1]], inline)
    ):
        chosen.append(entries.pop())
        gathered += chosen[-1].bytes
    if not inline and len(chosen) < 2:
        return None
    return Compaction(tuple(reversed(chosen)), inline)


def _by_level(entries: Sequence[Entry], manifest: Manifest) -> Compaction | None:
    levels: dict[int, list[Entry]] = {}
    for entry in entries:
        levels.setdefault(entry.lvl, []).append(entry)
    for level in sorted(levels):
        # What is past half a segment has grown up: merging would hardly lessen the requests, and
        # two of those that stand in front must not keep the small ones behind them apart.
        growing = [
            entry for entry in levels[level] if entry.bytes <= segment.MAX_SEGMENT_BYTES // 2
        ]
        if len(growing) > MAX_AT_LEVEL:
            chosen: list[Entry] = []
            for entry in growing[:FAN_OUT]:
                together = [*chosen, entry]
                size = sum(each.bytes for each in together)
                if size <= segment.MAX_SEGMENT_BYTES and readable_together(together, ()):
                    chosen = together
            if len(chosen) > 1:
                return Compaction(tuple(chosen), ())
    if manifest.inline_bytes > SPILL_BYTES:
        return Compaction((), _spillable(manifest))
    return None


def _spillable(manifest: Manifest) -> tuple[Inline, ...]:
    chosen: list[Inline] = []
    for item in manifest.inline:
        if readable_together((), [*chosen, item]):
            chosen.append(item)
    return tuple(chosen)


def readable_together(entries: Sequence[Entry], inline: Sequence[Inline]) -> bool:
    """Return whether all of it together would still be a segment that readers accept.

    Texts that repeat themselves compress so well that the sealed size says little. What an
    adopted entry holds is not known; it is taken for ordinary text.
    """
    plain = sum(plain_size(item.payload) for item in inline)
    records = 0
    for entry in entries:
        plain += 4 * entry.bytes if entry.plain is None else entry.plain
        known = entry.docs is not None and entry.tombs is not None
        records += (entry.docs or 0) + (entry.tombs or 0) if known else entry.bytes // 100
    return plain <= segment.MAX_PLAIN_BYTES and records <= segment.MAX_RECORDS // 2


def _next(parent: Manifest | None, author: Author, *, repo_id: bytes, sid: str) -> Manifest:
    state = author.state
    if parent is None:
        return Manifest(
            repo_id=repo_id,
            sid=sid,
            name=state.name,
            seq=1,
            commit_id=author.commit_id,
            by=state.dev,
            ct=author.now_ms,
            prev=bytes(HASH_BYTES),
        )
    if author.prev is None:
        raise ValueError("a manifest with a parent takes the parent's hash")
    ring = (*parent.ring, (parent.seq, author.prev[:RING_HASH_BYTES]))[-RING_LENGTH:]
    return replace(
        parent,
        seq=parent.seq + 1,
        commit_id=author.commit_id,
        by=state.dev,
        # Never the store's older answer: a time that falls would move what readers clamp to.
        ct=max(parent.ct, author.now_ms),
        prev=author.prev,
        ring=ring,
    )


def _fork(name: str, seq: int) -> ForkDetectedError:
    return ForkDetectedError(
        f"the store's history of session {name!r} differs from this device's at commit {seq}",
        hint="the store was restored or rewritten; compare with another device before writing",
    )
