"""Everything of one file that queries read from memory, as of one moment.

Used by one thread at a time, from the start of its read transaction until it has its scores:
whoever comes later sees a moment at least as new as what is resident then. Scans are bound by
memory, so taking turns costs little.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import apsw

from moss_local.search.columns import Columns, ResidentColumns
from moss_local.search.filter_sql import StoredColumns
from moss_local.search.postings import Postings, ResidentPostings, StoredPostings
from moss_local.search.turns import ResidentTurns
from moss_local.search.vectors import ResidentVectors, StoredVectors, Vectors
from moss_local.storage.state import State, read_state


class Resident:
    """The vectors, words, metadata and order of a file's documents; each follows when asked."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.warm = False  # true once something has been read whole
        self.vectors: Vectors = ResidentVectors()
        self.postings: Postings = ResidentPostings()
        self.columns: Columns = ResidentColumns()
        self.turns = ResidentTurns()

    @contextmanager
    def at(self, conn: apsw.Connection) -> Iterator[State]:
        """Run the block alone, at the moment of the transaction that begins here.

        To be the first that reads in the transaction: this is where its moment is fixed.
        """
        with self._lock:
            yield read_state(conn)


class Small(Resident):
    """The same for a device that may not spend memory: all but the order stays in the file."""

    def __init__(self) -> None:
        super().__init__()
        self.vectors = StoredVectors()
        self.postings = StoredPostings()
        self.columns = StoredColumns()
