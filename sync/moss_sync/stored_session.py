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
    """

    name: str
    session_id: str
    commits: int
    committed_ms: int
    devices: int
    bytes: int
    model_id: str | None
