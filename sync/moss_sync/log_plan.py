"""What to do next in a log: every decision of coordination-free exchange, as functions of values.

Rules of this file: values in, values out; see docs/design/0008-log.md for why they suffice.
  A blob is read once by its name. A blob that another one, which is held here, was made of need
  not be read, and may be deleted.
  A base is made of blobs that were read, and of nothing else.
  A tombstone is left out of a base only if every device that has not been silent for more than a
  year says that it has applied the push that brought it, and all their pushes of before are in
  that base.
  What a base says to be whole fences: a record of a push below it, in a blob that does not reach
  it, of an id that is not known here, was deleted and forgotten.
Source: SYNC-PROTOCOL 2.12.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from moss_sync import segment
from moss_sync.coverage import Coverage, Floor, below, highest, joined, reaches
from moss_sync.hlc import to_ms
from moss_sync.layout import SegmentName
from moss_sync.log_blob import Head, LogBlob, Since
from moss_sync.log_view import OWN_TIPS, Held, Partial, View
from moss_sync.merge import newest
from moss_sync.record import Record, VectorSpace
from moss_sync.times import DAY_MS, HOUR_MS, MINUTE_MS, is_ahead


@dataclass(frozen=True, slots=True)
class LogPolicy:
    """When to tidy up. Correct with any values; tests use tiny ones.

    Attributes:
        max_blobs: Past so many blobs some are merged into one,
        spread: or past up to so many more: by device, so that not all start at once.
        kept_blobs: How many of the largest a merge leaves alone.
        settle_ms: How long the author of a base keeps what it was made of where files travel one
            by one: the base may not have left this device yet.
        min_tombstones: Fewer than this, or than a tenth of the documents, stay.
        purge_after_ms: How old a deletion must be before its tombstone may go.
        retention_ms: How long a silent device holds tombstones back.
        head_ms: How often a device says anew what it has applied.
    """

    max_blobs: int = 16
    spread: int = 8
    kept_blobs: int = 4
    settle_ms: int = HOUR_MS
    min_tombstones: int = 1000
    purge_after_ms: int = DAY_MS
    retention_ms: int = 370 * DAY_MS
    head_ms: int = DAY_MS


DEFAULT_POLICY = LogPolicy()


# -- reading -------------------------------------------------------------------------------


def unread(view: View, listed: Iterable[str]) -> list[str]:
    """Return which listed blobs must be read: not held, and not inside one that is."""
    inside = replaced(view.held.values())
    return [
        name
        for name in listed
        if name not in view.held and name not in view.aside and name not in inside
    ]


def unchanged(view: View, etags: Mapping[str, str]) -> set[str]:
    """Return the blobs that could not be read and are in the same state as then."""
    return {
        name for name, each in view.unread.items() if each.etag and etags.get(name) == each.etag
    }


def replaced(held: Iterable[Held | LogBlob]) -> set[str]:
    """Return the names of all blobs that these were made of."""
    return {name for each in held for name in each.replaces}


def foreign_push(
    view: View, listed: Iterable[SegmentName], dev: bytes, n: int, tips: Mapping[str, bytes]
) -> int | None:
    """Return the lowest push that stands under this device's id and is not its own, or None.

    Then another file writes under this file's id: this one is a copy, or a backup that was put
    back. A name that was forgotten is no proof, a number never used here is, and so is another
    tip than the remembered one.
    """
    found = [
        name.number
        for name in listed
        if name.kind == "s"
        and name.dev == dev
        and (name.number > n or view.own.get(name.number, tips[str(name)]) != tips[str(name)])
    ]
    return min(found, default=None)


def agreed_space(view: View, blobs: Iterable[LogBlob]) -> tuple[VectorSpace | None, Since | None]:
    """Return the session's vector space: the one that was pushed first, by what is known."""
    best = (view.since, view.space)
    for blob in blobs:
        since = blob.since
        if since is not None and (best[0] is None or since < best[0]):
            best = (since, blob.segment.space)
    return best[1], best[0]


def in_order(blobs: Iterable[LogBlob]) -> list[LogBlob]:
    """Return blobs in the order of merging: first those that say what is whole."""
    return sorted(blobs, key=lambda blob: (not blob.whole, str(blob.name)))


def doubtful(blob: LogBlob, floors: Sequence[Floor]) -> set[str]:
    """Return the ids whose record in `blob` counts only if this device knows the id.

    All pushes up to a floor were together in one base. If that base did not keep the id, it was
    deleted and forgotten, and a blob that does not reach the floor is older news.
    """
    unreached = [floor for floor in floors if not reaches(blob.whole, floor)]
    return {
        record.id
        for record in blob.segment.records
        if any(below(record.version.dev, record.commit_seq or 0, floor) for floor in unreached)
    }


def with_read(
    view: View,
    *,
    listed: Mapping[str, int],
    blobs: Iterable[LogBlob],
    seen: Collection[str],
    at_ms: int,
) -> View:
    """Return the view after blobs were merged.

    Args:
        listed: What the store shows, with sizes.
        seen: What was held before the store was asked: of this, what it does not show is gone.
    """
    gone = {name for name in seen if name not in listed}
    held = {name: each for name, each in view.held.items() if name not in gone}
    blobs = list(blobs)
    for blob in blobs:
        held[str(blob.name)] = holding(blob, size=listed.get(str(blob.name), 0), at_ms=at_ms)
    high = max((r.version.hlc for blob in blobs for r in blob.segment.records), default=0)
    return replace(
        view,
        held=held,
        known=view.known.plus(*(blob.covers for blob in blobs)),
        floors=highest([*view.floors, *(blob.whole for blob in blobs)]),
        high=max(view.high, high),
        aside={name: space for name, space in view.aside.items() if name in listed},
        partial={name: each for name, each in view.partial.items() if name in listed},
        unread={
            name: each for name, each in view.unread.items() if name in listed and name not in held
        },
    )


def holding(blob: LogBlob, *, size: int, at_ms: int) -> Held:
    """Return what is to be remembered of a blob that was read."""
    records = blob.segment.records
    tombs = sum(record.deleted for record in records)
    space = blob.segment.space
    return Held(
        covers=blob.covers,
        replaces=blob.replaces,
        whole=blob.whole,
        at_ms=max(0, at_ms),
        bytes=size,
        plain=blob.plain,
        docs=len(records) - tombs,
        tombs=tombs,
        oldest_tomb=min((r.version.hlc for r in records if r.deleted), default=0),
        fp=None if space is None else space.fingerprint,
    )


def with_push(view: View, n: int, tip: bytes, *, high: int) -> View:
    """Return the view after push `n` of this device is in the store."""
    own = {**view.own, n: tip}
    return replace(
        view,
        own={each: own[each] for each in sorted(own)[-OWN_TIPS:]},
        high=max(view.high, high),
    )


def waiting(
    view: View, dev: bytes, acked_n: int, listed: Iterable[SegmentName], now_ms: int
) -> tuple[str, ...]:
    """Return, in words, what is known to exist and is not here."""
    names = [name for name in listed if name.kind == "s"]
    reachable = view.known.plus(*(Coverage.of(name.dev, name.number) for name in names))
    lines = [_gap(*gap) for gap in reachable.gaps()]
    held = Coverage().plus(
        *(held.covers for held in view.held.values()),
        *(Coverage.of(name.dev, name.number) for name in names),
    )
    if acked_n > held.top(dev):
        lines.append(
            f"push {acked_n} of this device is not in the store, though it was written there"
        )
    for name, part in sorted(view.partial.items()):
        size = f"{part.have} of {part.size} bytes" if part.size else f"{part.have} bytes"
        minutes = max(0, now_ms - part.since_ms) // MINUTE_MS
        lines.append(f"{name}: {size} have arrived, for {minutes} minutes")
    lines += [
        f"{name} cannot be read and stands in the way of no other: {each.reason}"
        for name, each in sorted(view.unread.items())
    ]
    for name, space in sorted(view.aside.items()):
        lines.append(f"{name} holds vectors of {space!r}; its device must embed it anew")
    return tuple(lines)


def _gap(dev: bytes, first: int, last: int) -> str:
    what = f"push {first}" if first == last else f"pushes {first} to {last}"
    return f"{what} of device {dev.hex()} have not arrived, though a later one has"


# -- compaction ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Merge:
    """Blobs that should become one.

    Attributes:
        names: Of the blobs.
        stable: Tombstones of pushes up to here may be left out; None: none may.
    """

    names: tuple[str, ...]
    stable: Floor | None = None


def plan_merge(
    view: View,
    listed: Collection[str],
    *,
    dev: bytes,
    heads: Sequence[Head],
    complete: bool,
    now_ms: int,
    policy: LogPolicy,
) -> Merge | None:
    """Return what to merge now, or None.

    Args:
        heads: Of all devices, as far as they could be read.
        complete: All heads could be read, and every listed blob is held or inside one that is.
    """
    inside = replaced(view.held.values())
    fp = None if view.space is None else view.space.fingerprint
    live = {
        name: held
        for name, held in view.held.items()
        if name in listed and name not in inside and held.fp in (None, fp)
    }
    stable = _stable(live, dev, heads, now_ms, policy) if complete else None
    if stable is not None and _fits(live.values()):
        return Merge(tuple(sorted(live)), stable)
    if len(live) <= policy.max_blobs + dev[-1] % policy.spread:
        return None
    chosen: list[str] = []
    gathered = 0
    by_size = sorted(live, key=lambda name: (live[name].bytes, name))
    for place, name in enumerate(by_size):
        left = len(by_size) - place
        if left < policy.kept_blobs and live[name].bytes >= 2 * gathered:
            break
        if not _fits(live[each] for each in (*chosen, name)):
            break
        chosen.append(name)
        gathered += live[name].bytes
    return Merge(tuple(chosen)) if len(chosen) > 1 else None


def _stable(
    live: Mapping[str, Held],
    dev: bytes,
    heads: Sequence[Head],
    now_ms: int,
    policy: LogPolicy,
) -> Floor | None:
    """Return up to which push of each device everybody has applied everything, or None.

    None also while it is not worth while, and while anything is lacking that a device had pushed
    when it said what it has applied: it may hold an older version of what was deleted.
    """
    tombs = sum(held.tombs for held in live.values())
    docs = sum(held.docs for held in live.values())
    if tombs <= max(policy.min_tombstones, docs // 10):
        return None
    covered = Coverage().plus(*(held.covers for held in live.values()))
    if next(covered.gaps(), None) is not None:
        return None
    # Of a head from the future nobody can say how old it is.
    awake = [
        head
        for head in heads
        if now_ms - head.ct <= policy.retention_ms and not is_ahead(head.ct, now_ms)
    ]
    if any(covered.prefix(head.dev) < head.n for head in awake):
        return None
    said = [head.applied for head in awake if head.dev != dev]
    stable = {
        author: min([n, *(each.get(author, 0) for each in said)])
        for author, n in covered.floor().items()
    }
    worth_while = any(
        held.tombs
        and is_old(held.oldest_tomb, now_ms, policy)
        and any(first <= stable[dev] for dev, ((first, _), *_) in held.covers.spans.items())
        for held in live.values()
    )
    return stable if worth_while else None


def is_old(stamp: int, now_ms: int, policy: LogPolicy) -> bool:
    """Return whether a deletion has waited long enough; one from the future must not wait for it.

    Waiting is no part of what makes it safe to forget a deletion.
    """
    deleted_ms = to_ms(stamp)
    return deleted_ms <= now_ms - policy.purge_after_ms or is_ahead(deleted_ms, now_ms)


def _fits(held: Iterable[Held]) -> bool:
    """Return whether all of it together is a segment that readers accept."""
    each = list(held)
    return (
        sum(one.bytes for one in each) <= segment.MAX_SEGMENT_BYTES
        and sum(one.plain for one in each) <= segment.MAX_PLAIN_BYTES
        and sum(one.docs + one.tombs for one in each) <= segment.MAX_RECORDS // 2
    )


@dataclass(frozen=True, slots=True)
class Union:
    """What blobs become together.

    Attributes:
        whole, forgot: As in LogBlob.
        left_out: How many tombstones are not in it.
    """

    records: list[Record]
    whole: Floor
    forgot: int
    left_out: int


def merged(
    blobs: Sequence[LogBlob],
    known: Collection[str],
    merge: Merge,
    *,
    now_ms: int,
    policy: LogPolicy,
) -> Union:
    """Return what these blobs become.

    Args:
        known: The ids, of those in the blobs, that this device has a record of. It has merged the
            blobs, so what it does not know of them was deleted and forgotten.
    """
    records = newest(r for blob in blobs for r in blob.segment.records if r.id in known)
    whole = joined(blob.whole for blob in blobs)
    forgot = max(blob.forgot for blob in blobs)
    stable = merge.stable
    if stable is None:
        return Union(list(records.values()), whole, forgot, 0)
    left_out = {
        record.id: record.version.hlc
        for record in records.values()
        if record.deleted
        and below(record.version.dev, record.commit_seq or 0, stable)
        and is_old(record.version.hlc, now_ms, policy)
    }
    everything = Coverage().plus(*(blob.covers for blob in blobs)).floor()
    return Union(
        [record for record in records.values() if record.id not in left_out],
        joined([whole, everything]),
        max([forgot, *left_out.values()]),
        len(left_out),
    )


def sweepable(
    view: View, listed: Collection[str], dev: bytes, *, now_ms: int | None, policy: LogPolicy
) -> list[str]:
    """Return the listed blobs that are inside one that is held here, and may be deleted.

    Args:
        now_ms: Where files travel one by one, this machine's clock: a base of this device that is
            younger than `policy.settle_ms` may not have left it, so what it was made of stays.
            None: none of that.
    """
    own = f"-{dev.hex()}-"

    def is_settled(at_ms: int) -> bool:
        if now_ms is None:
            return True
        return at_ms <= now_ms - policy.settle_ms or is_ahead(at_ms, now_ms)

    safe = [
        held
        for name, held in view.held.items()
        if name in listed and (own not in name or is_settled(held.at_ms))
    ]
    return sorted(name for name in replaced(safe) if name in listed)


def head_is_due(view: View, now_ms: int, policy: LogPolicy) -> bool:
    """Return whether this device should say anew what it has applied."""
    if view.head_ms is None:
        return True
    # Written in the future, it was by a clock that has been set since.
    old = now_ms - view.head_ms >= policy.head_ms or is_ahead(view.head_ms, now_ms)
    return old and view.known.floor() != view.head_applied


def still_partial(view: View, name: str, found: Partial) -> Partial:
    """Return `found`, known since when it was first seen in this state."""
    before = view.partial.get(name)
    if before is not None and before.etag == found.etag:
        return replace(found, since_ms=before.since_ms)
    return found
