"""Merging small segments into fewer: what keeps a cold open a handful of requests.

Never needed for correctness: any failure, or none of it done, leaves the session as it was. What
takes time (reading the inputs, writing the output) happens beside any pushes; segments never
change, so the output stays good for as long as all its inputs are listed. Only the swap that lists
it, and takes the inputs off the list, holds the push lock.
  crash after the PUT: an orphan blob       lost answer: the next exchange reads what stands
Source: SYNC-PROTOCOL 2.7.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from moss_sync import plan, segment
from moss_sync.channel import Channel
from moss_sync.errors import BlobNotFoundError, OutcomeUnknownError, StoreBusyError
from moss_sync.keyring import Keys
from moss_sync.manifest import Entry, Manifest
from moss_sync.merge import newest
from moss_sync.packing import plain_size
from moss_sync.plan import Compaction
from moss_sync.replica import Exclusive, Replica, ReplicaState
from moss_sync.repository import Runner
from moss_sync.seal import epoch_of
from moss_sync.segment import Segment

SWAPS = 3
"""How often a lost race is tried again; after that the output is an orphan and others went on."""


async def compact(
    channel: Channel,
    keys: Keys,
    replica: Replica,
    run: Runner,
    exclusive: Exclusive,
    *,
    choose: Callable[[Manifest], Compaction | None] = plan.plan_compaction,
) -> bool:
    """Do one compaction if it is time for one; return whether it was committed.

    Args:
        choose: Says what to merge; None where there is nothing to do.
    """
    state: ReplicaState = await run(replica.state)
    current = channel.remembered(state)
    merged = None if current is None else choose(current[0])
    if current is None or merged is None:
        return False
    channel.check_writable(current[0])
    output = await _written(channel, keys, run, state, current[0], merged)
    if output is None:
        return False
    async with exclusive():
        return await _listed(channel, keys, replica, run, merged, output)


async def _written(
    channel: Channel,
    keys: Keys,
    run: Runner,
    state: ReplicaState,
    parent: Manifest,
    merged: Compaction,
) -> Entry | None:
    """Write the merged segment; None when somebody else has merged its inputs already."""
    try:
        segments = await channel.read_segments(keys, parent, merged.entries, merged.inline)
    except BlobNotFoundError:
        return None
    winners = list(newest(record for each in segments for record in each.records).values())
    output = Segment(state.dev, 0, state.applied_seq, parent.space, b"", winners)
    name = channel.new_name(keys, state, kind="b", number=merged.level)
    payload: bytes = await run(segment.encode, output)
    blob = await channel.sealed(keys, name, payload)
    await channel.put(channel.key(keys, name), blob)
    lo, hi = merged.covers
    return Entry(
        name=str(name),
        bytes=len(blob),
        docs=sum(not record.deleted for record in winners),
        tombs=sum(record.deleted for record in winners),
        lo=lo,
        hi=hi,
        bmin=merged.bmin,
        lvl=merged.level,
        ct=parent.ct,
        plain=plain_size(payload),
        hlc_max=max((record.version.hlc for record in winners), default=0),
        fp=None if parent.space is None else parent.space.fingerprint,
        epoch=epoch_of(blob),
    )


async def _listed(
    channel: Channel,
    keys: Keys,
    replica: Replica,
    run: Runner,
    merged: Compaction,
    output: Entry,
) -> bool:
    """Swap the inputs for the output in the newest manifest, unless one of them is gone from it."""
    state: ReplicaState = await run(replica.state)
    current = channel.remembered(state)
    for _ in range(SWAPS):
        if current is None or state.pending is not None:
            return False
        parent, seen = current
        author = channel.author(state, seen)
        following = plan.with_compaction(parent, author, merged, output)
        if following is None:
            return False
        try:
            written = await channel.write_manifest(keys, following, seen)
        except (OutcomeUnknownError, StoreBusyError):
            return False
        if written is not None:
            # Nobody's records are new in it: who had applied the parent has applied this too.
            applied = following.seq if state.applied_seq >= parent.seq else None
            await run(partial(replica.set_seen, written, applied_seq=applied))
            return True
        current = await channel.read_manifest(keys, state)
    return False
