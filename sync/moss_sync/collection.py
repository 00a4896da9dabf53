"""Deleting blobs that no manifest lists any more and none can ever list again.

Never needed for correctness, and safe at any moment, whatever the clocks say: a name below the
collection floor cannot be committed, because everybody who commits looks at the floor in the very
manifest that the compare-and-swap replaces. Nor can one that was made under an older key than that
manifest is sealed under, whatever base it states: so what somebody left behind who has lost the key
goes, and cannot lie in wait. The manifest is read after the listing, so that what it
lists is kept. A crash, a partial listing or a stale manifest delete too little, never too much.
Source: SYNC-PROTOCOL 2.7.
"""

from __future__ import annotations

from collections.abc import Iterable

from moss_sync.channel import Channel
from moss_sync.keyring import Keys
from moss_sync.layout import SegmentName
from moss_sync.manifest import Manifest
from moss_sync.replica import Replica, ReplicaState
from moss_sync.repository import Runner
from moss_sync.seal import FIRST_EPOCH


def collectable(manifest: Manifest, names: Iterable[tuple[SegmentName, int]]) -> list[SegmentName]:
    """Return which of the blobs nobody can need any more.

    Args:
        names: With the epochs that they were made under.
    """
    listed = {entry.name for entry in manifest.entries}
    return [
        name
        for name, epoch in names
        if (name.base < manifest.gc_floor or epoch < manifest.epoch) and str(name) not in listed
    ]


async def collect(channel: Channel, keys: Keys, replica: Replica, run: Runner) -> int:
    """Delete what nobody can need any more; return how many blobs that were."""
    state: ReplicaState = await run(replica.state)
    known = channel.remembered(state)
    if known is None:
        return 0
    rotated = known[0].epoch > FIRST_EPOCH
    if known[0].gc_floor == 0 and not rotated:
        return 0
    names = await channel.below(keys, known[0].gc_floor, whole=rotated)
    current = await channel.read_manifest(keys, state)
    if current is None:
        return 0
    channel.check_writable(current[0])
    gone = collectable(current[0], names)
    await channel.delete(keys, gone)
    return len(gone)
