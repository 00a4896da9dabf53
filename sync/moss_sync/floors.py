"""How far back the past may be forgotten: floors, retirement and the session's sense of time.

Rules of this file: values in, values out. Nothing here is safe *because* of a time: times only
choose when, and every floor is fenced by the compare-and-swap that raises it.

A commit's time orders stamps, and rises by a millisecond where a wrong clock has set it to the year
2099. So ages are not told by it. They follow from the timeline, which says of some commits what
their committers believed the time was, and from what the present committer believes.

Two floors, both rising only. No name with a `base` below `gc_floor` may be committed any more, so
what lies below it and is not listed can never come back and may be deleted. Tombstones committed at
or below `tomb_seq` may be gone, so whoever has applied less reads the whole session anew. Always
`tomb_seq <= gc_floor`: what was authored before a purge cannot be committed after it.
Source: SYNC-PROTOCOL 2.2, 2.7 and 2.8.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import accumulate

from moss_sync.manifest import Device, Manifest
from moss_sync.times import DAY_MS, HOUR_MS

TIMELINE_SAMPLES = 64


@dataclass(frozen=True, slots=True)
class Policy:
    """When to tidy up. Correct with any values; simulations use tiny ones.

    Attributes:
        grace_ms: How long a blob that was merged away stays for readers of an older manifest.
        purge_after_ms: How old a deletion must be before its tombstone may go.
        retention_ms: How long a silent device holds tombstones back.
        min_tombstones: Fewer than this, and fewer than a tenth of the documents, stay.
        max_devices: Beyond it, devices silent for `retire_after_ms` leave the device table.
        retire_after_ms: See `max_devices`.
        max_crowd: Beyond it devices leave however recently they were seen.
        small_session_bytes: Up to here a quiescent session is kept in at most
            `small_session_entries` blobs: a cold open is then fmt, manifest and these.
        spill_bytes: Inline payloads are moved into a segment once they pass this, before a push
            finds no room.
        max_at_level: In larger sessions, past so many entries at a level the oldest 8 become one.
    """

    grace_ms: int = HOUR_MS
    purge_after_ms: int = DAY_MS
    retention_ms: int = 90 * DAY_MS
    min_tombstones: int = 1000
    max_devices: int = 128
    retire_after_ms: int = DAY_MS
    max_crowd: int = 512
    small_session_bytes: int = 4 * 1024 * 1024
    small_session_entries: int = 4
    spill_bytes: int = 12 * 1024
    max_at_level: int = 16


DEFAULT_POLICY = Policy()


def commit_time(parent: Manifest | None, now_ms: int) -> int:
    """Return the time of a commit on top of `parent`, in milliseconds.

    It rises by at least 1 with every commit, so that a version written after seeing another is
    still the greater one when both are cut back to what their commits allow.

    Args:
        now_ms: What the committer believes the time is, 0 to MAX_TIME_MS.
    """
    return now_ms if parent is None else max(parent.ct + 1, now_ms)


Timeline = tuple[tuple[int, int], ...]
"""(commit, what its committer believed the time was), of some commits, the last one included."""


def seq_at(timeline: Timeline, moment_ms: int, now_ms: int) -> int:
    """Return the newest commit that the samples prove to be as old as `moment_ms`; 0 if none.

    A commit is not older than those before it, whatever its own committer believed; and what a
    committer believed who was ahead of `now_ms` tells nothing.
    """
    proven = latest_ms = 0
    for seq, at_ms in timeline:
        if at_ms > now_ms:
            continue
        latest_ms = max(latest_ms, at_ms)
        if latest_ms <= moment_ms:
            proven = seq
    return proven


def sampled(timeline: Timeline, seq: int, now_ms: int) -> Timeline:
    """Return the samples with one more; past TIMELINE_SAMPLES the least telling one goes.

    That is the oldest that is ahead of `now_ms`; without such, the one whose neighbours are closest
    to each other, measured by their age: an hour ago is known to the minute, a quarter of a year
    ago to the week.
    """
    samples = [*timeline, (seq, now_ms)]
    if len(samples) <= TIMELINE_SAMPLES:
        return tuple(samples)
    ahead = (i for i, (_, at_ms) in enumerate(samples) if at_ms > now_ms)
    least = next(ahead, None)
    if least is None:
        times = list(accumulate((at_ms for _, at_ms in samples), max))
        least = min(
            range(1, len(samples) - 1),
            key=lambda i: (times[i + 1] - times[i - 1]) / (now_ms - times[i - 1] + 1),
        )
    del samples[least]
    return tuple(samples)


def gc_floor(manifest: Manifest, policy: Policy, *, ceiling: int, now_ms: int) -> int:
    """Return how far the collection floor may rise in the commit that makes `manifest`.

    Args:
        ceiling: The lowest base of any name that this commit adds: it must stay committable.
    """
    old = seq_at(manifest.tl, now_ms - policy.grace_ms, now_ms)
    return max(manifest.gc_floor, min(old, ceiling))


def tomb_floor(manifest: Manifest, policy: Policy, now_ms: int) -> int:
    """Return up to which commit tombstones could be dropped now.

    Everybody who was heard of within the retention has applied it, and it is a day old.
    """
    silent = seq_at(manifest.tl, now_ms - policy.retention_ms, now_ms)
    acked = [device.acked_seq for device in manifest.devs.values() if heard(device) > silent]
    old = seq_at(manifest.tl, now_ms - policy.purge_after_ms, now_ms)
    return max(manifest.tomb_seq, min([*acked, old]))


def heard(device: Device) -> int:
    """Return the newest commit at which a device is known to have been there."""
    return max(device.seq, device.acked_seq)


def tidied(
    manifest: Manifest, policy: Policy, *, ceiling: int, author: bytes, now_ms: int
) -> Manifest:
    """Return `manifest`, about to be committed, with its floor raised and its crowd thinned."""
    floor = gc_floor(manifest, policy, ceiling=ceiling, now_ms=now_ms)
    devs, last = _retired(manifest, policy, ceiling=ceiling, author=author, now_ms=now_ms)
    retired = max(manifest.retired, last)
    return replace(manifest, gc_floor=max(floor, last), devs=devs, retired=retired)


def _retired(
    manifest: Manifest, policy: Policy, *, ceiling: int, author: bytes, now_ms: int
) -> tuple[Mapping[bytes, Device], int]:
    """Drop the devices heard of longest ago; return the rest, and the last commit of those dropped.

    The floor rises past everything they ever named.

    Without the floor, an old segment of a forgotten device would look like a new one to adopt.
    """
    if len(manifest.devs) <= policy.max_devices:
        return manifest.devs, 0
    devs, latest = dict(manifest.devs), 0
    silent = seq_at(manifest.tl, now_ms - policy.retire_after_ms, now_ms)
    for dev, device in sorted(devs.items(), key=lambda item: (heard(item[1]), item[0])):
        crowded = len(devs) > policy.max_crowd
        if len(devs) <= policy.max_devices or not (heard(device) <= silent or crowded):
            break
        if dev != author and device.seq <= ceiling:
            del devs[dev]
            latest = max(latest, device.seq)
    return devs, latest
