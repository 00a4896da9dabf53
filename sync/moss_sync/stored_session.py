"""What the store tells of one session."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StoredSession:
    """A session as its manifest, or its devices' heads, describe it.

    Attributes:
        session_id: Under which the store knows it.
        commits: How many there have been; in a log, how many pushes.
        committed_ms: Store time of the last one, ms since 1970; in a log, when a device last said
            how far it is.
        devices: How many have pushed.
        bytes: Of everything that a new device would read, the manifest left out.
        model_id: Of its vectors; None while it has none.
        documents: How many there are, where the manifest alone tells; None where telling takes
            reading the segments that it lists, or the log.
        first_ms: Store time of the oldest commit that the manifest still tells of.
        model_version: Fingerprint of the vectors' space; None where `model_id` is, and in a log.
        deleted: There was such a session, and it was deleted.
    """

    name: str
    session_id: str
    commits: int
    committed_ms: int
    devices: int
    bytes: int
    model_id: str | None
    documents: int | None = None
    first_ms: int | None = None
    model_version: str | None = None
    deleted: bool = False
