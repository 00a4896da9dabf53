"""SQLite's errors told as ours: by what a caller can do about them."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from json import JSONDecodeError
from pathlib import Path

import apsw

from moss_local.errors import DiskFullError, FileBusyError, FileCorruptError
from moss_local.storage.checkup import disagreements
from moss_local.storage.leaves import MAGIC
from moss_local.storage.raw import RawFile
from moss_sync import MossError, PermissionDeniedError
from moss_sync.errors import repair_command

_BUSY = (apsw.BusyError, apsw.LockedError)
_CORRUPT = (apsw.CorruptError, apsw.NotADBError, apsw.FormatError)
_DENIED = (apsw.ReadOnlyError, apsw.PermissionsError, apsw.CantOpenError, apsw.AuthError)
_DISK = (apsw.FullError, apsw.IOError)


def translate(error: apsw.Error, path: Path, session: str | None = None) -> MossError:
    """Return the error of our tree that says the same; raise it `from` the original.

    Args:
        session: Whose file it is, where that is known.
    """
    detail = f"{type(error).__name__}: {error}"
    if isinstance(error, _BUSY):
        return FileBusyError(
            f"{path} is locked by another process",
            hint="try again; a bulk load elsewhere may hold it",
            detail=detail,
        )
    if is_damage(error, path):
        return FileCorruptError(
            f"{path} is damaged, or is not a session's file",
            hint=repair_hint(session),
            detail=detail,
        )
    if isinstance(error, _DENIED) and _is_on_read_only(path):
        return PermissionDeniedError(
            f"{path} is on a file system that is read-only",
            hint="mount it for writing, or copy the data directory and name the copy:"
            " MOSS_DATA_DIR, data_dir=",
            detail=detail,
        )
    if isinstance(error, _DENIED):
        return PermissionDeniedError(
            f"{path} may not be opened or written",
            hint="check the owner and mode of the file and its directory",
            detail=detail,
        )
    if isinstance(error, _DISK):
        return DiskFullError(
            f"{path} cannot be written: the disk is full or failing",
            hint="free some space and try again",
            detail=detail,
        )
    return MossError(f"{path}: SQLite failed", detail=detail)


def repair_hint(session: str | None) -> str:
    """Return what to do about a damaged file."""
    return (
        f"{repair_command(session)}: what was pushed comes back from the store, and what was not"
        " and can still be read is kept"
    )


def is_damage(error: apsw.Error, path: Path) -> bool:
    """Return whether SQLite says, in whatever words, that the file is damaged."""
    return isinstance(error, _CORRUPT) or _is_damaged_header(error, path)


def _is_damaged_header(error: apsw.Error, path: Path) -> bool:
    """Return whether SQLite takes damage of the header for a format that it may not write."""
    if isinstance(error, apsw.SQLError):
        return str(error) == "unsupported file format"
    if not (isinstance(error, apsw.ReadOnlyError) and os.access(path, os.W_OK)):
        return False
    with suppress(apsw.Error), closing(RawFile(path)) as file:
        header = file.read(0, 20)
        # The versions of the format that are needed to write and to read it.
        return header.startswith(MAGIC) and max(header[18:20], default=0) > 2
    return False


def _is_on_read_only(path: Path) -> bool:
    if not hasattr(os, "statvfs"):
        return False
    try:
        return bool(os.statvfs(path).f_flag & os.ST_RDONLY)
    except OSError:
        return False


@contextmanager
def translated(path: Path, session: str | None = None) -> Iterator[None]:
    """Turn SQLite's errors inside the block into ours; others pass."""
    try:
        yield
    except apsw.Error as error:
        raise translate(error, path, session) from error


@contextmanager
def damage_told(conn: apsw.Connection, path: Path, session: str | None = None) -> Iterator[None]:
    """Turn what a damaged file makes our own code stumble over into FileCorruptError.

    SQLite hands on what stands in a page: text that is not UTF-8, a number where a text should be.
    Only where its own check or ours finds the file damaged, or the error can have no other cause,
    is it said; a bug stays a bug.
    """
    try:
        yield
    except apsw.SQLError as error:
        # The tables of vectors tell damage below them as an error of their own, of any wording.
        if _is_damaged(conn):
            raise FileCorruptError(
                f"{path} is damaged", hint=repair_hint(session), detail=f"SQLError: {error}"
            ) from error
        raise
    except (MossError, apsw.Error):
        raise
    except Exception as error:
        if isinstance(error, UnicodeDecodeError | JSONDecodeError) or _is_damaged(conn):
            raise FileCorruptError(
                f"{path} is damaged",
                hint=repair_hint(session),
                detail=type(error).__name__,
            ) from error
        raise


def _is_damaged(conn: apsw.Connection) -> bool:
    try:
        return bool(conn.execute("PRAGMA quick_check(1)").get != "ok" or disagreements(conn))
    except apsw.Error:
        return True


@contextmanager
def translated_os(path: Path) -> Iterator[None]:
    """Turn the operating system's errors inside the block into ours; others pass."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            raise DiskFullError(
                f"{path} cannot be used: {error.strerror}",
                hint="free some space and try again",
            ) from error
        raise PermissionDeniedError(
            f"{path} cannot be used: {error.strerror}",
            hint="name another data directory, or check the mode of this one",
        ) from error
