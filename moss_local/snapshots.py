"""Files that hold a whole session: where they lie, and how they are written and opened.

A file is written beside its place and renamed over it once it has reached the disk, so there is
always the one of before or the new one. It is this user's alone (mode 0600), and not encrypted.
What holds: tests/moss_local/test_transfer.py.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Literal

from moss_local.errors import DiskFullError, SnapshotCorruptError
from moss_local.portable import Header, read_header
from moss_local.storage.paths import file_name
from moss_sync import InvalidArgumentError, NotFoundError, PermissionDeniedError
from moss_sync.stores.durable import make_folders, replacing

Verb = Literal["read", "written"]

SNAPSHOT_FILE = "session.moss"
"""In the folder of a snapshot."""

_PLAIN = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,98}[A-Za-z0-9])?")
_HASHED = re.compile(r"(?:.*-)?[a-z2-7]{26}")
_DEVICES = re.compile(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\..*)?", re.IGNORECASE)


def snapshot_path(root: Path, session: str) -> Path:
    """Return where a session's snapshot lies below `root`: `<root>/<name>/session.moss`."""
    return root / folder_name(session) / SNAPSHOT_FILE


def snapshot_root(base: Path, project_id: str) -> Path:
    """Return where the snapshots of a project lie unless a call names another folder."""
    return base / "sessions" / folder_name(project_id)


def folder_name(name: str) -> str:
    """Return the folder of a session, or of a project, of that name.

    A name that no folder can have, or that would lead elsewhere, gives way to a slug and a hash of
    it, as in the name of a session's file. No two names share a folder on a file system that tells
    upper from lower case; on others, saving refuses to overwrite another session's.
    """
    plain = _PLAIN.fullmatch(name) and not _HASHED.fullmatch(name)
    return name if plain and not _DEVICES.fullmatch(name) else file_name(name)


def check_owner(path: Path, session: str) -> None:
    """Refuse to overwrite a snapshot of another session.

    Raises:
        InvalidArgumentError: there is one.
    """
    try:
        with open(path, "rb") as source:
            owner = read_header(source, str(path)).session
    except (OSError, SnapshotCorruptError):
        return  # none, or one that nobody can load
    if owner != session:
        raise InvalidArgumentError(
            f"{path} is the snapshot of session {owner!r}",
            hint=f"save session {session!r} to another folder",
        )


def write_whole(path: Path, write: Callable[[BinaryIO], None], *, folders: bool = False) -> int:
    """Write a file from its first byte to its last, or leave what was there; return its size.

    Args:
        write: Puts all of it into the stream.
        folders: Make the folder, and those above it, where they are missing.
    Raises:
        InvalidArgumentError: the path is a folder's.
        NotFoundError: there is no such folder.
        DiskFullError, PermissionDeniedError: it cannot be written.
    """
    with _told(path, "written"):
        check_no_folder(path)
        if folders:
            make_folders(path.parent)
        with replacing(path) as out:
            write(out)
            size = out.tell()
    return size


def check_no_folder(path: Path) -> None:
    """Refuse a path that a file cannot have, because a folder has it: "/" and "." too.

    Raises:
        InvalidArgumentError: it is a folder's.
    """
    if path.is_dir():
        raise InvalidArgumentError(f"{path} is a folder", hint="name a file in it")


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Open a file to read it from its beginning.

    Raises:
        InvalidArgumentError: it is a folder.
        NotFoundError: there is none.
        PermissionDeniedError: it cannot be read.
    """
    with _told(path, "read"):
        check_no_folder(path)
        with open(path, "rb") as source:
            yield source


def header_of(path: Path) -> Header:
    """Return what a file says of itself.

    Raises:
        SnapshotCorruptError: it is none of ours, or damaged.
        NotFoundError, PermissionDeniedError: it cannot be read.
    """
    with opened(path) as source:
        return read_header(source, str(path))


@contextmanager
def _told(path: Path, verb: Verb) -> Iterator[None]:
    """Turn the operating system's errors inside the block into ours."""
    try:
        yield
    except OSError as error:
        message = f"{path} cannot be {verb}: {error.strerror or error}"
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            raise DiskFullError(message, hint="free some space and try again") from error
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            raise _missing(path, verb, message) from error
        raise PermissionDeniedError(
            message, hint="check who owns the file and its folder, and their modes"
        ) from error


def _missing(path: Path, verb: Verb, message: str) -> NotFoundError:
    if verb == "written":
        return NotFoundError(message, hint="name a folder that is there")
    return NotFoundError(
        f"there is no file {path}", hint="check its name, and which folder you are in"
    )
