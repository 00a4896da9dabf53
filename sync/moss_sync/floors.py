"""How far back the past may be forgotten: floors, retirement and the session's sense of time.

Rules of this file: values in, values out. Nothing here is safe *because* of a time: times only
choose when, and every floor is fenced by the compare-and-swap that raises it.

Two floors, both rising only. No name with a `base` below `gc_floor` may be committed any more, so
what lies below it and is not listed can never come back and may be deleted. Tombstones committed at
or below `tomb_seq` may be gone, so whoever has applied less reads the whole session anew. Always
`tomb_seq <= gc_floor`: what was authored before a purge cannot be committed after it.
Source: SYNC-PROTOCOL 2.2, 2.7 and 2.8.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from moss_sync.hlc import from_ms
from moss_sync.manifest import Device, Manifest

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS

DRIFT_MS = MINUTE_MS
"""A stamp further than this past its commit's time is a wrong clock's; it is cut back to there."""

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
    """
    return max(0, now_ms) if parent is None else max(parent.ct + 1, now_ms)


def stamp_limit(commit_ms: int) -> int:
    """Return the highest stamp that a record committed at `commit_ms` keeps."""
    return from_ms(commit_ms + DRIFT_MS)


def seq_at(timeline: tuple[tuple[int, int], ...], moment_ms: int) -> int:
    """Return the newest commit that the samples prove to be as old as `moment_ms`; 0 if none."""
    return max((seq for seq, ct in timeline if ct <= moment_ms), default=0)


def sampled(
    timeline: tuple[tuple[int, int], ...], seq: int, ct: int
) -> tuple[tuple[int, int], ...]:
    """Return the samples with one more; past TIMELINE_SAMPLES the least telling one goes.

    That is the one whose neighbours are closest to each other, measured by their age: an hour ago
    is known to the minute, a quarter of a year ago to the week.
    """
    samples = [*timeline, (seq, ct)]
    if len(samples) > TIMELINE_SAMPLES:
        least = min(
            range(1, len(samples) - 1),
            key=lambda i: (samples[i + 1][1] - samples[i - 1][1]) / (ct - samples[i - 1][1] + 1),
        )
        del samples[least]
    return tuple(samples)


def gc_floor(manifest: Manifest, policy: Policy, *, ceiling: int) -> int:
    """Return how far the collection floor may rise in the commit that makes `manifest`.

    Args:
        ceiling: The lowest base of any name that this commit adds: it must stay committable.
    """
    old = seq_at(manifest.tl, manifest.ct - policy.grace_ms)
    return max(manifest.gc_floor, min(old, ceiling))


def tomb_floor(manifest: Manifest, policy: Policy) -> int:
    """Return up to which commit tombstones could be dropped now.

    Everybody who was seen within the retention has applied it, and it is a day old.
    """
    acked = [
        device.acked_seq
        for device in manifest.devs.values()
        if manifest.ct - device.last_ct <= policy.retention_ms
    ]
    old = seq_at(manifest.tl, manifest.ct - policy.purge_after_ms)
    return max(manifest.tomb_seq, min([*acked, old]))


def tidied(manifest: Manifest, policy: Policy, *, ceiling: int, author: bytes) -> Manifest:
    """Return `manifest`, about to be committed, with its floor raised and its crowd thinned."""
    floor = gc_floor(manifest, policy, ceiling=ceiling)
    devs, last = _retired(manifest, policy, ceiling=ceiling, author=author)
    retired = max(manifest.retired, last)
    return replace(manifest, gc_floor=max(floor, last), devs=devs, retired=retired)


def _retired(
    manifest: Manifest, policy: Policy, *, ceiling: int, author: bytes
) -> tuple[Mapping[bytes, Device], int]:
    """Drop the devices seen longest ago; return the rest, and the last commit of those dropped.

    The floor rises past everything they ever named.

    Without the floor, an old segment of a forgotten device would look like a new one to adopt.
    """
    if len(manifest.devs) <= policy.max_devices:
        return manifest.devs, 0
    devs, latest = dict(manifest.devs), 0
    for dev, device in sorted(devs.items(), key=lambda item: (item[1].last_ct, item[0])):
        crowded = len(devs) > policy.max_crowd
        silent = manifest.ct - device.last_ct > policy.retire_after_ms
        last = last_commit(manifest, device)
        if len(devs) <= policy.max_devices or not (silent or crowded):
            break
        if dev != author and last <= ceiling:
            del devs[dev]
            latest = max(latest, last)
    return devs, latest


def last_commit(manifest: Manifest, device: Device) -> int:
    """Return the commit of a device's last push, or a bound above it where that was not kept."""
    if device.seq:
        return device.seq
    return min((seq for seq, ct in manifest.tl if ct >= device.last_ct), default=manifest.seq - 1)
