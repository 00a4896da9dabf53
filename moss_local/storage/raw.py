"""A file's bytes, read below SQLite and beside it.

Closing any descriptor of a file drops every POSIX lock that the process holds on it, SQLite's own
included; so it is read through SQLite's own layer of files, which knows which locks there are.
"""

from __future__ import annotations

import os
from pathlib import Path

import apsw

_PART_BYTES = 1 << 20
_SECTOR_BYTES = 512
"""What is lost where a disk does not give a part of a file."""


class RawFile:
    """An existing file. Close it when done, which gives its lock back.

    Raises:
        apsw.CantOpenError.
    """

    def __init__(self, path: Path) -> None:
        flags = [apsw.SQLITE_OPEN_MAIN_DB | apsw.SQLITE_OPEN_READWRITE, 0]
        self._file = apsw.VFSFile("", os.path.abspath(path), flags)

    def lock_alone(self) -> None:
        """Keep everybody else from the file.

        Raises:
            apsw.BusyError: somebody has it open.
        """
        self._file.xLock(apsw.SQLITE_LOCK_SHARED)
        self._file.xLock(apsw.SQLITE_LOCK_EXCLUSIVE)

    def read(self, at: int = 0, size: int | None = None) -> bytes:
        """Return bytes, fewer at the file's end; zeros for what the disk does not give."""
        end = self._file.xFileSize()
        if size is not None:
            end = min(end, at + size)
        return b"".join(
            self._part(start, min(_PART_BYTES, end - start))
            for start in range(at, end, _PART_BYTES)
        )

    def _part(self, at: int, size: int) -> bytes:
        try:
            return self._file.xRead(size, at)
        except apsw.IOError:
            if size <= _SECTOR_BYTES:
                return bytes(size)
        starts = range(at, at + size, _SECTOR_BYTES)
        return b"".join(
            self._part(start, min(_SECTOR_BYTES, at + size - start)) for start in starts
        )

    def close(self) -> None:
        """Give the file back."""
        self._file.xClose()
