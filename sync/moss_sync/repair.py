"""Putting a session together anew, of what the store shows and what a device has seen.

A repair brings nothing back that was deleted. Where one state is the other's beginning, only the
later one counts. Where they have parted, both do, but for what the other side may have deleted and
forgotten: nobody can tell whether it was, so it goes to the quarantine, neither shown nor lost.

Rules of this file: values in, values out; each rule is one function, so that a test can take it
away.
What holds: tests/moss_sync/test_history.py. Source: docs/design/0017-history-and-repair.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace

from moss_sync.floors import sampled
from moss_sync.history import Side, relate
from moss_sync.hlc import stamp_limit
from moss_sync.manifest import HASH_BYTES, Entry, Inline, Manifest
from moss_sync.marks import continued
from moss_sync.merge import newest
from moss_sync.plan import Author, next_commit
from moss_sync.record import Record
from moss_sync.replica import Life
from moss_sync.setbacks import Setback, remembered
from moss_sync.times import is_ahead


@dataclass(frozen=True, slots=True)
class Foundation:
    """What a repair builds on.

    Attributes:
        base: Whose history goes on.
        other: The other state, if there is one that has parted from it.
        joint: The last commit that both have.
        listed: Of whom the segments are listed again.
        anew: Nothing is: the records of both are sorted and written anew.
    """

    base: Side
    other: Side | None
    joint: int
    listed: tuple[Side, ...]
    anew: bool = False

    @property
    def sides(self) -> tuple[Side, ...]:
        return (self.base,) if self.other is None else (self.base, self.other)

    @property
    def discarded(self) -> Side | None:
        """The side that went on from before a deletion of the session, if one did."""
        return None if self.anew or self.other in self.listed else self.other


def foundation(current: Side | None, known: Side | None) -> Foundation | None:
    """Return what to build on.

    Args:
        current: What the store shows, if it can be believed.
        known: The newest state that this device has seen.
    """
    both = [side for side in (known, current) if side is not None]
    if not both:
        return None
    both.sort(key=lambda side: side.order)
    earlier, later = both[0], both[-1]
    found = relate(earlier, later)
    if len(both) == 1 or not found.parted:
        return Foundation(later, None, later.manifest.seq, (later,))
    if earlier.manifest.gen != later.manifest.gen:
        base, other = sorted(both, key=lambda side: side.manifest.gen, reverse=True)
        return Foundation(base, other, found.joint, (base,))
    purged = [side for side in (later, earlier) if has_purged_since(side, found.joint)]
    if not purged and not _clash(later.manifest.inline, earlier.manifest.inline):
        return Foundation(later, earlier, found.joint, (later, earlier))
    base = purged[0] if purged else later
    other = earlier if base is later else later
    return Foundation(base, other, found.joint, (), anew=True)


def believed(current: Side | None, known: Side | None, floor: int) -> Side | None:
    """Return the newest state that this device has seen, if it is one to build on.

    It is not where it was sealed under a key that counts no more, and is not a beginning of what
    the store shows under one that does: whoever was shut out may have shown it to a device that did
    not have the newer key yet.

    Args:
        current: What the store shows, without what counts no more.
        floor: The lowest epoch that counts.
    """
    if current is None or known is None or current.manifest.epoch < floor:
        return known
    if known.manifest.epoch >= floor:
        return known
    is_earlier = known.order <= current.order
    return known if is_earlier and not relate(known, current).parted else None


def has_purged_since(side: Side, joint: int) -> bool:
    """Return whether a side may have forgotten deletions that the other one never saw."""
    return side.manifest.tomb_seq > joint


@dataclass(frozen=True, slots=True)
class Sorted:
    """The records of two sides that have parted: those that stay, and those to set aside."""

    kept: tuple[Record, ...]
    aside: tuple[Record, ...]


def sort_out(found: Foundation, records: Mapping[int, Iterable[Record]]) -> Sorted:
    """Return what becomes of the records of the sides, which are written anew.

    A document of one side may have been deleted on the other, and the deletion forgotten, if it is
    not there and is no younger than what was forgotten there.

    Args:
        records: By the place of a side in `found.sides`.
    """
    held = [newest(records.get(place, ())) for place in range(len(found.sides))]
    kept: list[Record] = []
    aside: list[Record] = []
    for place, mine in enumerate(held):
        theirs = {id for at, each in enumerate(held) if at != place for id in each}
        forgotten = max(
            (
                side.manifest.tomb_hlc
                for at, side in enumerate(found.sides)
                if at != place and has_purged_since(side, found.joint)
            ),
            default=0,
        )
        for record in mine.values():
            doubtful = is_doubtful(record, present=record.id in theirs, forgotten=forgotten)
            (aside if doubtful else kept).append(record)
    return Sorted(tuple(newest(kept).values()), tuple(aside))


def is_doubtful(record: Record, *, present: bool, forgotten: int) -> bool:
    """Return whether a document may have been deleted by a tombstone that is gone.

    Args:
        present: Something of this id is still there; then nothing that is gone has beaten it.
        forgotten: The highest stamp of the tombstones that may be gone (hlc); 0: none are.
    """
    return not record.deleted and not present and record.version.hlc <= forgotten


def since_the_deletion(found: Foundation, records: Iterable[Record]) -> tuple[Record, ...]:
    """Return what the discarded side added, not knowing that the session was deleted."""
    return tuple(
        record
        for record in newest(records).values()
        if not record.deleted and (record.commit_seq is None or record.commit_seq > found.joint)
    )


def missing_of(held: Iterable[Record], readable: Iterable[Record]) -> tuple[Record, ...]:
    """Return what a device holds and the blobs that can still be read do not."""
    there = newest(readable)
    return tuple(
        record
        for record in held
        if record.id not in there or record.version > there[record.id].version
    )


def next_number(found: Foundation) -> int:
    """Return the number of the repairing commit: after all that the store and this device know."""
    return max(side.manifest.seq for side in found.sides) + 1


def with_repair(
    found: Foundation,
    author: Author,
    *,
    lost: Set[str],
    outputs: Sequence[Entry] = (),
    not_life: Life | None = None,
) -> Manifest:
    """Return the manifest that puts a session together anew.

    It comes after everything that the store shows and that this device has seen. Every device, this
    one too, then finds itself in another life of the session and adds what it holds.

    Args:
        lost: Listed names whose blobs are missing or damaged.
        outputs: What this device has written anew.
        not_life: Of a state that is not believed; the repaired session is in another one.
    """
    base = found.base.manifest
    sides = [side.manifest for side in found.sides]
    seq = next_number(found)
    following = next_commit(
        base, replace(author, prev=found.base.hash), repo_id=base.repo_id, sid=base.sid
    )
    entries = {
        entry.name: entry
        for side in found.listed
        for entry in side.manifest.entries
        if entry.name not in lost
    }
    inline = {(item.dev, item.n): item for side in found.listed for item in side.manifest.inline}
    listed = (*entries.values(), *outputs)
    counted = sides if found.discarded is None else [base]
    repairs = max(manifest.repairs for manifest in sides) + 1
    if not_life is not None and not_life.repairs == repairs:
        repairs += 1
    commit_ms = repaired_time(sides, author.now_ms)
    # Also where no time falls that is known here: who comes from a branch that nobody shows any
    # more may hold stamps of a later time than this commit allows.
    setbacks = [each for manifest in sides for each in manifest.setbacks]
    setbacks.append(Setback(repairs, seq, commit_ms))
    return replace(
        following,
        seq=seq,
        prev=found.base.hash if seq == base.seq + 1 else bytes(HASH_BYTES),
        marks=continued(base.seq, base.marks, found.base.hash, seq),
        tl=sampled((), seq, author.now_ms),
        ct=commit_ms,
        repairs=repairs,
        setbacks=remembered(setbacks),
        deleted=base.deleted and not listed and not inline,
        entries=tuple(replace(each, ct=min(each.ct, commit_ms)) for each in listed),
        inline=tuple(replace(each, ct=min(each.ct, commit_ms)) for each in inline.values()),
        devs={},
        space=base.space or next((side.space for side in sides if side.space is not None), None),
        gc_floor=seq,
        tomb_seq=seq if found.anew else max(manifest.tomb_seq for manifest in counted),
        tomb_hlc=min(max(manifest.tomb_hlc for manifest in sides), stamp_limit(commit_ms)),
    )


def begun_anew(author: Author, *, repo_id: bytes, sid: str, seq: int) -> Manifest:
    """Return the manifest that a session begins anew with of which nobody knows anything.

    Whoever does know something after all finds it repaired, and adds what they hold; or refuses it,
    where they know of deletions that are forgotten, and repairs it.

    Args:
        seq: Above all numbers that the blobs state which are left of it, so that none is listed.
    """
    first = next_commit(None, author, repo_id=repo_id, sid=sid)
    return replace(
        first,
        seq=seq,
        marks=continued(0, b"", bytes(HASH_BYTES), seq),
        tl=sampled((), seq, author.now_ms),
        repairs=1,
        setbacks=(Setback(1, seq, first.ct),),
        gc_floor=seq,
    )


def repaired_time(sides: Iterable[Manifest], now_ms: int) -> int:
    """Return the time of a repairing commit: after those of all sides, but not after the future.

    Args:
        now_ms: What its author believes the time is.
    """
    latest_ms = max(manifest.ct for manifest in sides)
    return now_ms if is_ahead(latest_ms, now_ms) else max(latest_ms + 1, now_ms)


def _clash(one: Iterable[Inline], other: Iterable[Inline]) -> bool:
    """Return whether one push of a device is another one on the other side."""
    known = {(item.dev, item.n): item.payload for item in one}
    return any(known.get((item.dev, item.n), item.payload) != item.payload for item in other)
