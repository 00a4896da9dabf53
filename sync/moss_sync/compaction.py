"""Merging small segments into fewer: what keeps a cold open a handful of requests.

Never needed for correctness: any failure, or none of it done, leaves the session as it was. The
output is written first and listed by one compare-and-swap that also takes the inputs off the list;
if any input is off it by then, somebody else has merged it and the output stays an orphan.
  crash after the PUT: an orphan blob       lost answer: the next exchange reads what stands
Source: SYNC-PROTOCOL 2.7.
"""

from __future__ import annotations

from moss_sync import plan, segment
from moss_sync.channel import Channel
from moss_sync.errors import BlobNotFoundError, OutcomeUnknownError, StoreBusyError
from moss_sync.keyring import Keys
from moss_sync.manifest import Entry
from moss_sync.merge import newest
from moss_sync.packing import plain_size
from moss_sync.replica import Replica, ReplicaState
from moss_sync.repository import Runner
from moss_sync.segment import Segment


async def compact(channel: Channel, keys: Keys, replica: Replica, run: Runner) -> bool:
    """Do one compaction if it is time for one; return whether it was committed.

    The caller holds the file's push lock.
    """
    state: ReplicaState = await run(replica.state)
    current = channel.remembered(state)
    if current is None or state.pending is not None:
        return False
    parent, seen = current
    merged = plan.plan_compaction(parent)
    if merged is None:
        return False
    plan.check_writable(parent)
    try:
        segments = await channel.read_segments(keys, parent, merged.entries, merged.inline)
    except BlobNotFoundError:
        return False  # somebody else has merged them already
    winners = list(newest(record for each in segments for record in each.records).values())
    output = Segment(state.dev, 0, state.applied_seq, parent.space, b"", winners)
    name = channel.new_name(keys, state, kind="b", number=merged.level)
    payload: bytes = await run(segment.encode, output)
    blob = await channel.sealed(keys, name, payload)
    await channel.put(channel.key(keys, name), blob)
    author = channel.author(state, seen)
    lo, hi = merged.covers
    entry = Entry(
        name=str(name),
        bytes=len(blob),
        docs=sum(not record.deleted for record in winners),
        tombs=sum(record.deleted for record in winners),
        lo=lo,
        hi=hi,
        bmin=merged.bmin,
        lvl=merged.level,
        ct=max(parent.ct, author.now_ms),
        plain=plain_size(payload),
        hlc_max=max((record.version.hlc for record in winners), default=0),
        fp=None if parent.space is None else parent.space.fingerprint,
    )
    following = plan.with_compaction(parent, author, merged, entry)
    if following is None:
        return False
    try:
        written = await channel.write_manifest(keys, following, seen)
    except (OutcomeUnknownError, StoreBusyError):
        return False
    if written is None:
        return False
    # Nobody's records are new in it: a device that had applied the parent has applied this too.
    applied = following.seq if state.applied_seq >= parent.seq else None
    await run(lambda: replica.set_seen(written, applied_seq=applied))
    return True
