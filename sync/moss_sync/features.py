"""Features that later versions may require, and the refusal of those that this one does not know.

Rules of this file: values in, values out.
`fmt` and every manifest list what a reader and what a writer must know. Unknown to a reader:
nothing of it is read. Unknown to a writer: it is read and never written, by no path: each asks
`check_writable`, and each commit of a manifest asks it once more (`Channel.write_manifest`). Since
a feature comes with a compare-and-swap of the very manifest that an older writer must swap too,
that writer's commit fails, it reads again, and is refused here.
Source: SYNC-PROTOCOL 2.10.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from moss_sync.errors import UnsupportedFormatError

if TYPE_CHECKING:
    from moss_sync.keyring import Keys
    from moss_sync.manifest import Manifest

READER_FEATURES: frozenset[str] = frozenset()
"""What a reader must know to read a repository or a session, and this version knows."""

WRITER_FEATURES: frozenset[str] = frozenset()
"""What a writer must know to write to a repository or a session, and this version knows."""

UPGRADE = "upgrade moss_local on this device"


def check_readable(listed: Sequence[str], *, what: str) -> None:
    """Refuse to read what needs a later version.

    Raises:
        UnsupportedFormatError: the message names the feature.
    """
    unknown = sorted(set(listed) - READER_FEATURES)
    if unknown:
        raise UnsupportedFormatError(
            f"{what} uses {unknown[0]!a:.80}, which this version does not know", hint=UPGRADE
        )


def check_writable(keys: Keys, manifest: Manifest | None) -> None:
    """Refuse to write to a repository, or to a session of it, that needs a later version.

    The one question before any write to the store: a push, a compaction, a collection, a deletion,
    a repair, a rotation, the verdict of a probe.

    Args:
        manifest: The newest one known of the session; None where the write is to no session.
    Raises:
        UnsupportedFormatError: it can only be read here; the message names the feature.
    """
    _check_writable(keys.features_w, what="the repository")
    if manifest is not None:
        _check_writable(manifest.features_w, what=f"session {manifest.name!r}")


def _check_writable(listed: Sequence[str], *, what: str) -> None:
    unknown = sorted(set(listed) - WRITER_FEATURES)
    if unknown:
        raise UnsupportedFormatError(
            f"{what} uses {unknown[0]!a:.80}, which this version does not know",
            hint=f"{UPGRADE}; until then it can only read",
        )
