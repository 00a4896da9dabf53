"""What a simulated device keeps: its own copy of the session, as the simulator handles it.

`moss_sync` stores nothing on a device itself, so whoever plugs a storage into it plugs it in here
too, and has it simulated: `moss_local.testing` does so for its SQLite file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from moss_sync.record import Record, Version
from moss_sync.replica import Life, Replica


@dataclass(frozen=True, slots=True)
class Row:
    """What a copy knows of one id, tombstones included."""

    version: Version
    deleted: bool
    dirty: bool
    commit_seq: int | None


@dataclass(frozen=True, slots=True)
class Look:
    """What a copy holds at one moment.

    Attributes:
        rows: Every id that it knows of.
        life, applied_seq: As in `moss_sync.ReplicaState`.
        etag: Of the newest manifest that it has verified; None before the first.
        set_aside: How many local changes stand in the quarantine, neither pushed nor lost.
    """

    rows: Mapping[str, Row]
    life: Life
    applied_seq: int
    etag: str | None
    set_aside: int


class LocalCopy(Protocol):
    """One device's copy of the session. Blocking; used from one thread."""

    @property
    def replica(self) -> Replica:
        """The copy as the engine sees it."""
        ...

    def put(self, id: str, text: str, *, now_ms: int) -> None:
        """Write a document, as the application does."""
        ...

    def delete(self, id: str, *, now_ms: int) -> None:
        """Delete a document, as the application does; an unknown id is ignored."""
        ...

    def look(self) -> Look:
        """Return what there is, without a trace."""
        ...

    def records(self) -> Mapping[str, Record]:
        """Return every live document with all its content; `commit_seq` left out."""
        ...

    def quarantined(self) -> list[tuple[str, str, bool]]:
        """Return (id, text, whether it is a deletion) of every local change that was set aside."""
        ...

    def problems(self) -> list[str]:
        """Return what is wrong with the storage itself; an empty list if nothing is."""
        ...

    def copied(self) -> LocalCopy:
        """Return another copy as this one is now: a cloned disk, a backup."""
        ...

    def killed(self) -> LocalCopy:
        """Return what a restarted process finds after this one was killed; this one is gone.

        If `step` has raised, it was killed there, in the middle of whatever it was doing.
        """
        ...

    def revived(self) -> None:
        """Go on after `step` has raised: only one of two processes was killed."""
        ...

    def close(self) -> None:
        """Throw the copy away."""
        ...


class Copies(Protocol):
    """Makes the copies of one simulation.

    Attributes:
        armed: How many operations run whose process is to be killed; while there are none, the
            steps of the storage need not be told.
    """

    armed: int

    def fresh(self, session: str, *, dev: bytes, inc: bytes) -> LocalCopy:
        """Return an empty copy for a new device."""
        ...

    def close(self) -> None:
        """Throw everything away."""
        ...


MakeCopies = Callable[[Callable[[], None]], Copies]
"""Makes `Copies` that call the given function before every step of their storage that a killed
process could be in the middle of; what it raises must pass through."""
