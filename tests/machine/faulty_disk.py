"""A disk that fails on demand and tells what it was asked for, as SQLite sees it.

While such a disk is in place it is SQLite's default file system, so the library opens its files on
it without knowing. The real files are always written as well, and never waited for.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import apsw

Fault = Literal["full", "io", "read"]


@dataclass(frozen=True, slots=True)
class Event:
    """Something that a disk was asked for, or a `note` that the scene made between two such."""

    kind: Literal["write", "truncate", "sync", "delete", "note"]
    name: str = ""
    offset: int = 0
    data: bytes = b""
    durable: bool = False
    note: Any = None


class Disk(apsw.VFS):
    """SQLite's default file system with every change of a file recorded, and refused on demand.

    Attributes:
        only: Files whose path does not contain this are neither counted nor refused.
        fails_from: The number of the first change that is refused, counted from 0; None for none.
        lasting: Whether all changes after it are refused too, until `mend`.
    """

    def __init__(self, name: str, base: str, *, record: bool) -> None:
        self.base = base
        self.record = record
        self.only = ""
        self.events: list[Event] = []
        self.changes = 0
        self.refused = 0
        self.fails_from: int | None = None
        self.fault: Fault = "full"
        self.lasting = True
        super().__init__(name, base, makedefault=True)

    def xOpen(self, name: Any, flags: list[int]) -> DiskFile:  # noqa: N802  # SQLite's name
        return DiskFile(self, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: N802
        self.change("delete", Event("delete", filename, durable=syncdir))
        super().xDelete(filename, False)

    def excepthook(self, *_: object) -> bool:
        """Refusals are told by SQLite's result code, not on the standard error."""
        return True

    def break_at(self, change: int, fault: Fault, *, lasting: bool) -> None:
        self.changes, self.refused = 0, 0
        self.fails_from, self.fault, self.lasting = change, fault, lasting

    def mend(self) -> None:
        self.fails_from = None

    def note(self, note: Any) -> None:
        self.events.append(Event("note", note=note))

    def change(self, kind: str, event: Event) -> None:
        """Count a change, and refuse it if its turn has come.

        A full disk refuses what needs room; a failing one refuses every change, or every reading.
        """
        if self.only not in event.name or self.fault == "read":
            return
        number = self.changes
        self.changes += 1
        first = self.fails_from
        if first is not None and (number == first or (self.lasting and number > first)):
            if self.fault == "io":
                self.refused += 1
                raise apsw.IOError("the test's disk fails")
            if kind == "write":
                self.refused += 1
                raise apsw.FullError("the test's disk is full")
        if self.record:
            self.events.append(event)

    def reading(self, name: str) -> None:
        """Count a reading, and refuse it if its turn has come."""
        if self.only not in name or self.fault != "read":
            return
        number = self.changes
        self.changes += 1
        first = self.fails_from
        if first is not None and (number == first or (self.lasting and number > first)):
            self.refused += 1
            raise apsw.IOError("the test's disk cannot be read")


class DiskFile(apsw.VFSFile):
    def __init__(self, disk: Disk, name: Any, flags: list[int]) -> None:
        self._disk = disk
        self._name = name.filename() if isinstance(name, apsw.URIFilename) else str(name)
        super().__init__(disk.base, name, flags)

    def xWrite(self, data: Any, offset: int) -> None:  # noqa: N802
        self._disk.change("write", Event("write", self._name, offset, bytes(data)))
        super().xWrite(data, offset)

    def xRead(self, amount: int, offset: int) -> bytes:  # noqa: N802
        self._disk.reading(self._name)
        return super().xRead(amount, offset)

    def xTruncate(self, newsize: int) -> None:  # noqa: N802
        self._disk.change("truncate", Event("truncate", self._name, newsize))
        super().xTruncate(newsize)

    def xSync(self, flags: int) -> None:  # noqa: N802
        # Recorded is enough: the machine under the test keeps its power.
        self._disk.change("sync", Event("sync", self._name))

    def excepthook(self, *_: object) -> bool:
        """As the disk's."""
        return True


@contextmanager
def disk_in_place(*, record: bool = False) -> Iterator[Disk]:
    """Make a new disk the one that SQLite uses; all its files must be closed at the end."""
    base = apsw.vfs_names()[0]
    disk = Disk("test-disk", base, record=record)
    try:
        yield disk
    finally:
        disk.unregister()
