"""Which key epoch a session's blobs are of: what still counts, and what has to be sealed anew.

Rules of this file: values in, values out.
Three facts carry this. A device seals under the newest epoch that it knows, and it can only commit
on top of a manifest that it could open; so along a session's history the epoch never falls, and one
that does was sealed by somebody whom a rotation shut out. A commit lists only what is sealed, and
named, under its own epoch; so an older key adds nothing to a session that a newer one has touched.
And `fmt` states a floor, the lowest epoch that still counts, once everything was sealed anew.
What holds: tests/moss_sync/test_epochs.py, test_removed_member.py. Source: SYNC-PROTOCOL 2.9.
"""

from __future__ import annotations

from dataclasses import replace

from moss_sync.errors import (
    BlobCorruptError,
    ForkDetectedError,
    RevokedKeyError,
    repair_command,
)
from moss_sync.layout import SegmentName, is_blob_of
from moss_sync.manifest import Entry, Manifest
from moss_sync.seal import epoch_of
from moss_sync.tiers import Compaction, piecemeal


def check_epoch(current: Manifest, sealed: int, before: Manifest | None) -> None:
    """Refuse a manifest that is sealed under an older key than the history before it.

    Args:
        sealed: The epoch in the header of the blob that `current` was opened from.
        before: The newest manifest that this device has verified.
    Raises:
        BlobCorruptError: it says itself that it was sealed under another key.
        ForkDetectedError: an earlier one was sealed under a newer key.
    """
    if sealed != current.epoch:
        raise BlobCorruptError(
            f"the manifest of session {current.name!r} is sealed under key epoch {sealed}, "
            f"and says {current.epoch}"
        )
    if before is not None and sealed < before.epoch:
        raise ForkDetectedError(
            f"commit {current.seq} of session {current.name!r} is sealed under key epoch {sealed}, "
            f"after epoch {before.epoch}: somebody wrote it who has only the old key",
            hint="refuse the store to whoever has lost access to the project; then leave out what "
            f"they wrote: {repair_command(current.name)}",
        )


def check_counts(current: Manifest, floor: int) -> None:
    """Refuse a manifest that is sealed, or lists what is, under a key that no longer counts.

    Args:
        floor: The lowest epoch that does, as `fmt` states it.
    Raises:
        RevokedKeyError: it is, or does.
    """
    lowest = lowest_epoch(current)
    if lowest < floor:
        raise RevokedKeyError(
            f"what the store shows of session {current.name!r} is, at least in part, sealed under "
            f"key epoch {lowest}, and this project takes nothing older than {floor} any more",
            hint="refuse the store to whoever has lost access to the project; then, on a device "
            f"that holds the session: {repair_command(current.name)}",
        )


def lowest_epoch(current: Manifest) -> int:
    """Return the oldest epoch that a manifest, or anything that it lists, is sealed under."""
    return min([current.epoch, *(entry.epoch for entry in current.entries)])


def counted(known: Manifest, floor: int) -> Manifest:
    """Return a manifest without what is sealed under a key that no longer counts.

    For a repair. Its inline pushes are sealed by it.
    """
    return replace(
        known,
        entries=tuple(entry for entry in known.entries if entry.epoch >= floor),
        inline=known.inline if known.epoch >= floor else (),
    )


def check_blob(entry: Entry, name: SegmentName, sealed: bytes) -> None:
    """Refuse a blob that is not the very one that was listed, before it is opened.

    Raises:
        BlobCorruptError: it was changed, replaced, or sealed under another key than its entry says.
    """
    if not is_blob_of(name, sealed):
        raise BlobCorruptError(f"segment {entry.name!r} is not the blob that was listed")
    epoch = epoch_of(sealed)
    if epoch != entry.epoch:
        raise BlobCorruptError(
            f"segment {entry.name!r} is sealed under key epoch {epoch}, and listed with "
            f"{entry.epoch}"
        )


def old_entries(manifest: Manifest, newest: int) -> tuple[Entry, ...]:
    """Return the entries that are sealed under an older epoch than `newest`, oldest first."""
    return tuple(entry for entry in manifest.entries if entry.epoch < newest)


def is_old(manifest: Manifest, newest: int) -> bool:
    """Return whether anything of the session, the manifest included, is under an older epoch."""
    return manifest.epoch < newest or bool(old_entries(manifest, newest))


def plan_rewrite(manifest: Manifest, newest: int) -> Compaction | None:
    """Return what to merge next so that in the end all of it is under `newest`; None: nothing.

    Inline pushes go along while the manifest itself is old; one with neither is sealed anew by any
    commit.
    """
    inline = manifest.inline if manifest.epoch < newest else ()
    return piecemeal(old_entries(manifest, newest), inline)
