"""Merging small segments into fewer: what keeps a cold open a handful of requests.

Never needed for correctness: any failure, or none of it done, leaves the session as it was. What
takes time (reading the inputs, writing the output) happens beside any pushes; segments never
change, so the output stays good for as long as all its inputs are listed. Only the swap that lists
it, and takes the inputs off the list, holds the push lock.
  crash after the PUT: an orphan blob       lost answer: the next exchange reads what stands
Source: SYNC-PROTOCOL 2.7.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from moss_sync import plan, segment, tiers
from moss_sync.channel import Channel
from moss_sync.errors import BlobNotFoundError, OutcomeUnknownError, StoreBusyError
from moss_sync.keyring import Keys
from moss_sync.manifest import Entry, Manifest
from moss_sync.merge import newest
from moss_sync.packing import plain_size
from moss_sync.record import Record, VectorSpace
from moss_sync.replica import Exclusive, Replica, ReplicaState
from moss_sync.repository import Runner
from moss_sync.segment import Segment
from moss_sync.tiers import Compaction

SWAPS = 3
"""How often a lost race is tried again; after that the output is an orphan and others went on."""


async def compact(
    channel: Channel,
    keys: Keys,
    replica: Replica,
    run: Runner,
    exclusive: Exclusive,
    choose: Callable[[Manifest], Compaction | None],
    *,
    erasing: bool = False,
) -> Manifest | None:
    """Do one compaction if there is one to do; return the manifest that it has committed.

    Args:
        choose: Says what to merge.
        erasing: What was merged shall be collected at once, and readers of an older manifest look
            for it in vain and read the newer one.
    """
    state: ReplicaState = await run(replica.state)
    current = channel.remembered(state)
    if current is None or current[1].etag is None or not channel.counts(current[0]):
        return None
    merged = choose(current[0])
    if merged is None:
        return None
    channel.check_writable(current[0])
    output = await _written(channel, keys, replica, run, state, current[0], merged)
    if output is None:
        return None
    async with exclusive():
        return await _listed(channel, keys, replica, run, merged, output, erasing)


@dataclass(frozen=True, slots=True)
class Output:
    """What stands in the store for the inputs: entries, and the highest stamp of what is gone."""

    entries: tuple[Entry, ...]
    tomb_hlc: int


async def _written(
    channel: Channel,
    keys: Keys,
    replica: Replica,
    run: Runner,
    state: ReplicaState,
    parent: Manifest,
    merged: Compaction,
) -> Output | None:
    """Write the merged segments; None when somebody else has merged their inputs already."""
    try:
        segments = await channel.read_segments(keys, parent, merged.entries, merged.inline)
    except BlobNotFoundError:
        return None
    winners = newest(record for each in segments for record in each.records)
    lacking = {
        id: record.version
        for id, record in winners.items()
        if record.vector is None and not record.deleted
    }
    if lacking and parent.space is not None and parent.space.id != segment.CUSTOM:
        # Of before the session was moved to another model; this device may have made them since.
        made: dict[str, bytes] = await run(replica.vectors, lacking, parent.space)
        winners |= {id: replace(winners[id], vector=vector) for id, vector in made.items()}
    kept, tomb_hlc = tiers.purged(winners.values(), merged)
    lo, hi = merged.covers
    stands_for = StandsFor(lo, hi, merged.bmin, merged.level, parent.ct, parent.space)
    entries = [
        await write_output(channel, keys, run, state, stands_for, part)
        for part in tiers.parts(kept)
    ]
    return Output(tuple(entries), tomb_hlc)


@dataclass(frozen=True, slots=True)
class StandsFor:
    """What the entry of an output says of what was merged into it; as in `Entry`."""

    lo: int
    hi: int
    bmin: int
    lvl: int
    ct: int
    space: VectorSpace | None


async def write_output(
    channel: Channel,
    keys: Keys,
    run: Runner,
    state: ReplicaState,
    merged: StandsFor,
    records: Sequence[Record],
) -> Entry:
    """Put a segment of merged records into the store; return the entry that would list it."""
    has_vectors = any(record.vector is not None for record in records)
    space = merged.space if has_vectors else None
    output = Segment(state.dev, 0, state.applied_seq, space, b"", records)
    payload: bytes = await run(segment.encode, output)
    epoch = channel.epoch
    name, blob = await channel.sealed(
        keys, state, payload, kind="b", number=merged.lvl, epoch=epoch
    )
    await channel.put(channel.key(keys, name), blob)
    return Entry(
        name=str(name),
        bytes=len(blob),
        docs=sum(not record.deleted for record in records),
        tombs=sum(record.deleted for record in records),
        lo=merged.lo,
        hi=merged.hi,
        bmin=merged.bmin,
        lvl=merged.lvl,
        ct=merged.ct,
        plain=plain_size(payload),
        hlc_max=max((record.version.hlc for record in records), default=0),
        fp=None if space is None else space.fingerprint,
        epoch=epoch,
    )


async def _listed(
    channel: Channel,
    keys: Keys,
    replica: Replica,
    run: Runner,
    merged: Compaction,
    output: Output,
    erasing: bool,
) -> Manifest | None:
    """Swap the inputs for the outputs in the newest manifest, unless one of them is gone."""
    state: ReplicaState = await run(replica.state)
    current = channel.remembered(state)
    for _ in range(SWAPS):
        if current is None or state.pending is not None or not channel.counts(current[0]):
            return None
        parent, seen = current
        if plan.standing(parent, state) is not plan.Standing.MEMBER:
            return None
        following = tiers.with_compaction(
            parent,
            await channel.author(state, seen),
            merged,
            output.entries,
            tomb_hlc=output.tomb_hlc,
            floor=parent.seq if erasing else 0,
        )
        if following is None:
            return None
        try:
            written = await channel.write_manifest(keys, following, seen)
        except (OutcomeUnknownError, StoreBusyError):
            return None
        if written is not None:
            # Nobody's records are new in it: who had applied the parent has applied this too.
            applied = following.seq if state.applied_seq >= parent.seq else None
            tomb_seq = following.tomb_seq if applied is not None else 0
            await run(partial(replica.set_seen, written, applied_seq=applied, tomb_seq=tomb_seq))
            return following
        current = await channel.read_manifest(keys, state)
    return None
