"""Files that are there as a whole or not at all, also after a power cut.

The order that makes it so: write a temporary file, fsync it, rename it over the target, fsync the
folder. Without the first fsync a power cut may leave an empty file under the final name, without
the second the name itself may be gone. Everything here blocks; the folder store calls it from its
threads. What holds: tests/moss_sync/test_stores_durable.py.
Source: SYNC-PROTOCOL 2.11; macOS answers a plain fsync before the drive has written (fsync(2)).
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

FILE_MODE = 0o600
FOLDER_MODE = 0o700

TEMP_MAX_AGE_S = 60.0
"""What is older and still has a temporary name belongs to no writer: a small file takes no time."""


_UNKNOWN = frozenset({errno.EINVAL, errno.ENOTSUP, errno.ENOSYS})
"""What a file system answers that cannot sync a folder at all: no call would make the name last."""


def make_folders(path: Path) -> None:
    """Create `path` and what is missing above it, mode 0700, each name made durable."""
    if path.is_dir():
        return
    if path.parent != path:
        make_folders(path.parent)
    with contextlib.suppress(FileExistsError):  # another process was faster
        path.mkdir(mode=FOLDER_MODE)
        sync_folder(path.parent)
    if not path.is_dir():
        raise NotADirectoryError(20, "a file is where a folder should be", str(path))


def write_file(fd: int, data: bytes) -> int:
    """Write all of a new file, force it to the disk, and close it.

    Returns:
        Its modification time in milliseconds, by the clock of whoever keeps the file system.
    """
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(fd, rest) :]
        sync_file(fd)
        return os.fstat(fd).st_mtime_ns // 1_000_000
    finally:
        os.close(fd)


@contextlib.contextmanager
def replacing(path: Path, *, secret: bool = False) -> Iterator[BinaryIO]:
    """Write the file that takes the place of `path`, mode 0600, or leave what was there.

    Give all of its bytes to the stream. When the block ends they are on the disk and under the
    name. When it raises, or the disk fails, what was there is there still; only where the disk
    fails last, while the name is made to last, the new one is, and may be gone after a power cut.

    Args:
        secret: Remove, too, what writers that were killed have left: the secret of before.
    """
    temporary = path.with_name(f".{path.name}.{os.urandom(8).hex()}.tmp")
    try:
        with open(_create(temporary), "wb") as out:
            if secret:
                _sweep(path, os.fstat(out.fileno()).st_mtime)
            yield out
            out.flush()
            sync_file(out.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):  # the fault itself is the one to tell
            temporary.unlink()
        raise
    sync_folder(path.parent)


def _sweep(path: Path, now_s: float) -> None:
    """Remove what killed writers have left beside `path`."""
    for left in path.parent.glob(f".{path.name}.*.tmp"):
        with contextlib.suppress(OSError):
            if left.stat().st_mtime < now_s - TEMP_MAX_AGE_S:
                left.unlink()


def _create(path: Path) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    return os.open(path, flags, FILE_MODE)


def sync_file(fd: int) -> None:
    """Return when the file's bytes have reached the disk itself."""
    if sys.platform == "darwin":
        import fcntl

        # SMB, for one, does not know the full flush; fsync is then the most there is.
        with contextlib.suppress(OSError):
            fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
            return
    os.fsync(fd)


def sync_folder(path: Path) -> None:
    """Return when the names in the folder have reached the disk itself."""
    if sys.platform == "win32":
        return  # a folder cannot be opened there, and NTFS journals names by itself
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        sync_names(fd)
    finally:
        os.close(fd)


def sync_names(folder: int) -> None:
    """Return when the names in an open folder have reached the disk itself."""
    try:
        sync_file(folder)
    except OSError as error:
        if error.errno not in _UNKNOWN:
            raise
