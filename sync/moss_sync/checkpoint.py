"""A checkpoint: a short text that names one state of a session, to compare and to hold a store to.

A device that has exchanged a session refuses any history that contradicts what it saw. A device
that never did has nothing to hold against the store, which could show it an older state. So
somebody who has the session writes down its checkpoint, and the new device is given it: what the
store then shows must be that state, or one that has it among the LONG_MARKS before it. Later ones
have a short mark of it at most: that still tells another history, but it proves nothing, because
who holds the key, or an old one, could look for a history of their own that has the same.

Rules of this file: values in, values out.
What holds: tests/moss_sync/test_checkpoint.py. Source: SYNC-PROTOCOL 2.9.
"""

from __future__ import annotations

import re
from base64 import b32decode
from dataclasses import dataclass

from moss_sync.errors import ForkDetectedError, InvalidArgumentError, StaleReadError
from moss_sync.layout import base32
from moss_sync.manifest import Manifest
from moss_sync.marks import LONG_BYTES, LONG_MARKS, agree
from moss_sync.replica import Seen

MARK_BYTES = 16

_TEXT = re.compile(r"(\d{1,19})(?:\.(\d{1,9}))?-([a-z2-7]{26})")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One state of a session.

    Attributes:
        seq: Its commit.
        mark: The first 16 bytes of the hash of its sealed manifest.
        repairs: How often the session had been put together anew.
    """

    seq: int
    mark: bytes
    repairs: int = 0

    @classmethod
    def of(cls, seen: Seen) -> Checkpoint:
        """Return the checkpoint of the newest manifest that a device has verified."""
        return cls(seen.seq, seen.hash[:MARK_BYTES], seen.life.repairs)

    @classmethod
    def parse(cls, text: str) -> Checkpoint:
        """Return what `str` of a checkpoint gave.

        Raises:
            InvalidArgumentError: the text is none.
        """
        found = _TEXT.fullmatch(text.strip()) if isinstance(text, str) else None
        if found is not None:
            seq, repairs, mark = found.groups()
            parsed = cls(int(seq), b32decode(mark.upper() + "======"), int(repairs or 0))
            if str(parsed) == text.strip():
                return parsed
        raise InvalidArgumentError(
            f"{text!r:.60} is not a checkpoint",
            hint="print one where the session is: moss-local status SESSION --checkpoint",
        )

    def __str__(self) -> str:
        repaired = f".{self.repairs}" if self.repairs else ""
        return f"{self.seq}{repaired}-{base32(self.mark)}"


def check(wanted: Checkpoint, current: Manifest, mark: bytes, seen: Seen | None) -> None:
    """Refuse a manifest that is older than the checkpoint, or does not have it in its past.

    Args:
        mark: Hash of the manifest's ciphertext.
        seen: What the device had verified before. Once that is past the checkpoint, its own memory
            is the stronger one, and only a contradiction is refused.
    Raises:
        StaleReadError: the store shows a state of before the checkpoint.
        ForkDetectedError: it shows another history.
        InvalidArgumentError: the checkpoint is too old to tell.
    """
    shown = (current.repairs, current.seq)
    name = current.name
    if shown < (wanted.repairs, wanted.seq):
        raise StaleReadError(
            f"the store shows commit {current.seq} of session {name!r}, and the checkpoint is of "
            f"commit {wanted.seq}",
            hint="retry; if it stays so, the store was restored from a backup or hides something",
        )
    known = current.past(mark).hashes.get(wanted.seq)
    if known is not None:
        same = agree(known, wanted.mark)
        if same and len(known) >= LONG_BYTES:
            return
        # A repair may go on from another history than the one that the checkpoint is of.
        if not same and current.repairs == wanted.repairs:
            raise ForkDetectedError(
                f"the store's history of session {name!r} does not have the checkpoint of commit "
                f"{wanted.seq}",
                hint="compare the checkpoint with another device's: "
                "moss-local status SESSION --checkpoint",
            )
    if seen is not None and (seen.life.repairs, seen.seq) >= (wanted.repairs, wanted.seq):
        return
    why = (
        f"the store is at commit {current.seq} and proves {LONG_MARKS} before it"
        if current.repairs == wanted.repairs
        else "the session was repaired since"
    )
    raise InvalidArgumentError(
        f"the checkpoint of commit {wanted.seq} of session {name!r} is too old to tell: {why}",
        hint="print a newer one where the session is: moss-local status SESSION --checkpoint",
    )
