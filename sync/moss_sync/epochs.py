"""Which key epoch a session's blobs are of, and what has to be sealed anew after a rotation.

Rules of this file: values in, values out.
Two facts carry this. A device seals under the newest epoch that it knows, and it can only commit on
top of a manifest that it could open; so along a session's history the epoch never falls, and one
that does was sealed by somebody whom the rotation shut out. And a manifest's header and its entries
state epochs, so what is still under an old key is known without reading a single blob.
What holds: tests/moss_sync/test_epochs.py. Source: SYNC-PROTOCOL 2.9.
"""

from __future__ import annotations

from moss_sync import segment
from moss_sync.errors import BlobCorruptError, ForkDetectedError, repair_command
from moss_sync.manifest import Entry, Manifest
from moss_sync.tiers import Compaction, readable_together

FIRST = 1
"""The epoch of a new repository; what states none was sealed before there was a second."""


def check_epoch(current: Manifest, sealed: int, before: Manifest | None) -> None:
    """Refuse a manifest that is sealed under an older key than the history before it.

    Args:
        sealed: The epoch in the header of the blob that `current` was opened from.
        before: The newest manifest that this device has verified.
    Raises:
        BlobCorruptError: it says itself that it was sealed under a newer key.
        ForkDetectedError: an earlier one was.
    """
    if sealed < (current.epoch or FIRST):
        raise BlobCorruptError(
            f"the manifest of session {current.name!r} is sealed under key epoch {sealed}, "
            f"and says {current.epoch}"
        )
    if before is not None and sealed < (before.epoch or FIRST):
        raise ForkDetectedError(
            f"commit {current.seq} of session {current.name!r} is sealed under key epoch {sealed}, "
            f"after epoch {before.epoch}: somebody wrote it who has only the old key",
            hint="refuse the store to whoever has lost access to the project; then leave out what "
            f"they wrote: {repair_command(current.name)}",
        )


def old_entries(manifest: Manifest, newest: int) -> tuple[Entry, ...]:
    """Return the entries that are not known to be sealed under the epoch `newest`, oldest first."""
    return tuple(entry for entry in manifest.entries if (entry.epoch or FIRST) < newest)


def is_old(manifest: Manifest, newest: int) -> bool:
    """Return whether anything of the session, the manifest included, is under an older epoch."""
    return (manifest.epoch or FIRST) < newest or bool(old_entries(manifest, newest))


def plan_rewrite(manifest: Manifest, newest: int) -> Compaction | None:
    """Return what to merge next so that in the end all of it is under `newest`; None: nothing.

    One entry at least; more while they make one segment that readers accept. Inline pushes go along
    while the manifest itself is old; one with neither is left for the next commit, since nothing of
    anybody's stands in it.
    """
    inline = manifest.inline if (manifest.epoch or FIRST) < newest else ()
    chosen: list[Entry] = []
    for entry in old_entries(manifest, newest):
        together = [*chosen, entry]
        size = sum(each.bytes for each in together)
        fits = size <= segment.MAX_SEGMENT_BYTES and readable_together(together, inline)
        if chosen and not fits:
            break
        chosen = together
        if not fits:
            inline = ()  # a large one goes alone
    return Compaction(tuple(chosen), inline) if chosen or inline else None
