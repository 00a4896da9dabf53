"""Which entries to merge into which: few requests for a reader, few bytes for a writer.

Rules of this file: values in, values out. Nothing here is needed for correctness but the two rules
at which it says so: what may be dropped (`purged`) and what a commit may replace
(`with_compaction`).
Source: SYNC-PROTOCOL 2.7.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass, replace
from hashlib import blake2b

from moss_sync import segment
from moss_sync.floors import Policy, tidied, tomb_floor
from moss_sync.layout import base_of
from moss_sync.manifest import Entry, Inline, Manifest
from moss_sync.packing import plain_size
from moss_sync.plan import Author, next_commit
from moss_sync.record import Record

FAN_OUT = 8

MAX_LEVEL = 15
"""A session whose documents are written again and again stays small for ever, and each merge
would raise its level: past 255 the name has no room for it. 8^15 entries are enough."""

PART_BYTES = segment.MAX_SEGMENT_BYTES // 2
"""Content of one output: what the whole of a large session is rewritten to, a purge's work."""

ADOPTED_RECORD_BYTES = 100
"""What a record of an entry that nobody has counted is taken to weigh."""


@dataclass(frozen=True, slots=True)
class Compaction:
    """Entries and inline payloads that should become one entry, or a few.

    Attributes:
        purge: Tombstones committed up to here are dropped on the way; 0: none are.
    """

    entries: tuple[Entry, ...]
    inline: tuple[Inline, ...]
    purge: int = 0

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


def plan_compaction(manifest: Manifest, policy: Policy, now_ms: int) -> Compaction | None:
    """Return what to merge now, or None; `now_ms` is what the compactor believes the time is.

    Small sessions keep few entries of falling size: the inline payloads, and then the youngest
    entries while those are not at least twice what has been gathered, become one. Each document
    is so rewritten about log2(session / 12 KiB) times, and a reader needs few requests. Large
    sessions merge by level instead, so that a big blob is rewritten rarely.
    """
    purge = plan_purge(manifest, policy, now_ms)
    if purge is not None:
        return purge
    entries = sorted(manifest.entries, key=lambda entry: (entry.hi, entry.lo))
    total = sum(entry.bytes for entry in entries) + manifest.inline_bytes
    if total > policy.small_session_bytes:
        return _by_level(entries, manifest, policy)
    most = policy.small_session_entries
    if manifest.inline_bytes <= policy.spill_bytes and len(entries) <= most:
        return None
    inline = _spillable(manifest)
    gathered = sum(len(item.payload) for item in inline)
    chosen: list[Entry] = []
    while (
        entries
        and (len(entries) >= most or entries[-1].bytes < 2 * gathered)
        and readable_together([*chosen, entries[-1]], inline)
    ):
        chosen.append(entries.pop())
        gathered += chosen[-1].bytes
    if not inline and len(chosen) < 2:
        return None
    return Compaction(tuple(reversed(chosen)), inline)


def plan_purge(manifest: Manifest, policy: Policy, now_ms: int) -> Compaction | None:
    """Return what to rewrite so that enough tombstones can be dropped, or None if too few could.

    Their number is estimated from the counts of the entries, as if they were spread evenly.
    """
    floor = tomb_floor(manifest, policy, now_ms)
    if floor <= manifest.tomb_seq:
        return None
    tombs = docs = 0.0
    for entry in manifest.entries:
        docs += entry.docs or 0
        since = max(entry.lo, manifest.tomb_seq)
        if entry.hi > since:
            share = (min(entry.hi, floor) - since) / (entry.hi - since)
            tombs += max(0.0, share) * (entry.tombs or 0)
    if tombs <= max(policy.min_tombstones, docs / 10):
        return None
    return to_purge(manifest, floor)


def to_purge(manifest: Manifest, floor: int) -> Compaction | None:
    """Return everything that must be rewritten to drop tombstones committed up to `floor`.

    A tombstone may only go when no put that it beats can be left anywhere: not in what was
    committed up to the floor, and not in what was written by somebody who had applied less.
    """
    entries = tuple(each for each in manifest.entries if each.lo < floor or each.bmin < floor)
    inline = tuple(each for each in manifest.inline if each.seq <= floor or each.base < floor)
    if not entries and not inline:
        return None
    return Compaction(entries, inline, purge=floor)


def everything(manifest: Manifest) -> Compaction | None:
    """Return the rewriting of all that is listed: every superseded content leaves the session."""
    if not manifest.entries and not manifest.inline:
        return None
    return Compaction(manifest.entries, manifest.inline)


def plan_vectors(manifest: Manifest, names: Set[str], upto: int) -> Compaction | None:
    """Return what to merge next of these entries and of pushes up to a commit; None: nothing."""
    inline = tuple(item for item in manifest.inline if item.seq <= upto)
    return piecemeal([entry for entry in manifest.entries if entry.name in names], inline)


def piecemeal(entries: Iterable[Entry], inline: tuple[Inline, ...]) -> Compaction | None:
    """Return what to merge next of what has to be rewritten; None: nothing.

    One entry at least; more, and the inline pushes, while they make one segment that readers
    accept.
    """
    chosen: list[Entry] = []
    for entry in entries:
        together = [*chosen, entry]
        size = sum(each.bytes for each in together)
        fits = size <= segment.MAX_SEGMENT_BYTES and readable_together(together, inline)
        if chosen and not fits:
            break
        chosen = together
        if not fits:
            inline = ()  # a large one goes alone
    return Compaction(tuple(chosen), inline) if chosen or inline else None


def purged(records: Iterable[Record], merged: Compaction) -> tuple[list[Record], int]:
    """Return the records that the output holds, and the highest stamp of those dropped (hlc)."""
    kept: list[Record] = []
    highest = 0
    for record in records:
        if record.deleted and record.commit_seq is not None and record.commit_seq <= merged.purge:
            highest = max(highest, record.version.hlc)
        else:
            kept.append(record)
    return kept, highest


def parts(records: Sequence[Record]) -> list[list[Record]]:
    """Return the records as the outputs hold them: at most PART_BYTES of content each, about.

    Divided by a hash of the id, so that all versions of a document stay together.
    """
    size = sum(_content_bytes(record) for record in records)
    by_size, by_number = -(-size // PART_BYTES), -(-2 * len(records) // segment.MAX_RECORDS)
    number = max(1, by_size, by_number)
    result: list[list[Record]] = [[] for _ in range(number)]
    for record in records:
        place = int.from_bytes(blake2b(record.id.encode(), digest_size=8).digest(), "big")
        result[place * number >> 64].append(record)
    return [part for part in result if part]


def with_compaction(
    parent: Manifest,
    author: Author,
    merged: Compaction,
    outputs: Sequence[Entry],
    *,
    tomb_hlc: int,
    floor: int = 0,
) -> Manifest | None:
    """Return the manifest in which `outputs` replace what was merged, or None.

    None when any input is no longer listed: somebody else has merged it, and adding the output
    could bring back what they have dropped. None also when an output's base is below the floor:
    its name may be collected at any moment; or when it is sealed under another key than this commit
    will be, because the project's was rotated meanwhile. And None when tombstones were dropped that
    something committed meanwhile may still need.

    Args:
        tomb_hlc: The highest stamp of the tombstones that were dropped.
        floor: The collection floor rises at least to this, for an erasure that cannot wait.
    """
    ceiling = min((base_of(output.name) for output in outputs), default=author.state.applied_seq)
    if ceiling < max(parent.gc_floor, merged.purge):
        return None
    if not are_of_epoch(outputs, author.epoch):
        return None
    names = {entry.name for entry in merged.entries}
    pushes = {(item.dev, item.n) for item in merged.inline}
    if not names <= {entry.name for entry in parent.entries} or not pushes <= {
        (item.dev, item.n) for item in parent.inline
    }:
        return None
    following = next_commit(parent, author, repo_id=parent.repo_id, sid=parent.sid)
    kept = [entry for entry in following.entries if entry.name not in names]
    inline = tuple(item for item in following.inline if (item.dev, item.n) not in pushes)
    if merged.purge:
        if merged.purge <= parent.tomb_seq:
            return None
        behind = any(each.lo < merged.purge or each.bmin < merged.purge for each in kept)
        if behind or any(item.seq <= merged.purge or item.base < merged.purge for item in inline):
            return None
        following = replace(
            following,
            tomb_seq=merged.purge,
            tomb_hlc=max(parent.tomb_hlc, tomb_hlc),
            gc_floor=max(parent.gc_floor, merged.purge),
        )
    state = author.state
    if (mine := parent.device(state.dev)) is not None:
        # It acknowledges what it has applied, without a request of its own.
        acked_seq = min(state.applied_seq, following.seq)
        acked = replace(mine, acked_seq=acked_seq, last_ct=following.ct)
        following = replace(following, devs={**following.devs, state.dev: acked})
    # They may have been written before a repair in which time fell.
    merged_in = [replace(output, ct=min(output.ct, following.ct)) for output in outputs]
    following = replace(
        following,
        entries=tuple(sorted([*kept, *merged_in], key=lambda entry: (entry.hi, entry.lo))),
        inline=inline,
        gc_floor=max(following.gc_floor, min(floor, ceiling)),
    )
    return tidied(following, author.policy, ceiling=ceiling, author=state.dev, now_ms=author.now_ms)


def are_of_epoch(outputs: Iterable[Entry], epoch: int) -> bool:
    """Return whether a commit of this epoch may list what a compaction has written."""
    return all(output.epoch == epoch for output in outputs)


def _by_level(entries: Sequence[Entry], manifest: Manifest, policy: Policy) -> Compaction | None:
    levels: dict[int, list[Entry]] = {}
    for entry in entries:
        levels.setdefault(entry.lvl, []).append(entry)
    for level in sorted(levels):
        # What is past half a segment has grown up: merging would hardly lessen the requests, and
        # two of those that stand in front must not keep the small ones behind them apart.
        growing = [
            entry for entry in levels[level] if entry.bytes <= segment.MAX_SEGMENT_BYTES // 2
        ]
        if len(growing) > policy.max_at_level:
            chosen: list[Entry] = []
            for entry in growing[:FAN_OUT]:
                together = [*chosen, entry]
                size = sum(each.bytes for each in together)
                if size <= segment.MAX_SEGMENT_BYTES and readable_together(together, ()):
                    chosen = together
            if len(chosen) > 1:
                return Compaction(tuple(chosen), ())
    if manifest.inline_bytes > policy.spill_bytes:
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
        records += (
            (entry.docs or 0) + (entry.tombs or 0) if known else entry.bytes // ADOPTED_RECORD_BYTES
        )
    return plain <= segment.MAX_PLAIN_BYTES and records <= segment.MAX_RECORDS // 2


def _content_bytes(record: Record) -> int:
    size = len(record.id) + len(record.text) + len(record.vector or b"") + len(record.payload or "")
    return size + sum(len(key) + len(value) for key, value in (record.metadata or {}).items())
