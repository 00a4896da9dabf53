"""What is kept in memory of a file, and how it stays as new as the transaction that asks.

The file numbers its changes; what is resident knows up to which number it has followed. Before it
is read, inside the query's own transaction, it follows the changes since, whichever process made
them; below the journal's floor, or when much has changed, it is read anew.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import apsw

from moss_local.storage.state import State

RELOAD_SHARE = 0.25
"""Past this share of changed rows one bulk read is not slower than following them one by one."""


class Follower(ABC):
    """Something computed from the whole file. Used by one thread at a time, see `Resident`."""

    def __init__(self) -> None:
        self._owner: tuple[bytes, bytes] | None = None
        self._seq = 0

    def follow(self, conn: apsw.Connection, state: State) -> None:
        """Become what the current transaction sees; `state` was read in it."""
        owner = (state.dev, state.inc)
        behind = state.local_seq - self._seq
        whole = (
            self._owner != owner
            or self._seq < state.journal_floor
            or behind < 0  # the file was replaced by an older copy
            or behind > RELOAD_SHARE * max(self._size(), 1)
            or not self._fits(state)
        )
        # Whatever interrupts this leaves something that is read anew the next time.
        self._owner = None
        if whole:
            self._load(conn, state)
        elif behind:
            self._catch_up(conn, state, self._seq)
        self._owner, self._seq = owner, state.local_seq

    def _fits(self, state: State) -> bool:
        """Return whether what is resident can be continued at all."""
        return True

    @abstractmethod
    def _size(self) -> int:
        """Return how many rows are resident."""

    @abstractmethod
    def _load(self, conn: apsw.Connection, state: State) -> None:
        """Read everything."""

    @abstractmethod
    def _catch_up(self, conn: apsw.Connection, state: State, since: int) -> None:
        """Follow the changes past number `since`; each row at most once."""
