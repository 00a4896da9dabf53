"""Files and folders below a root, reached so that no link is ever followed.

Whoever can write into a store's folder could put a link, a named pipe or a device in the place of
anything there, and a program that follows it reads, waits for, or deletes what is not the store's.
So nothing below the root is opened by its path. Each folder is opened from the descriptor of the
one above it, without following a link, and all that happens in it happens through its descriptor:
what was looked at is what is used, whatever is renamed meanwhile. A file is opened only if it is a
regular one, without waiting, and is looked at once more when it is open.

Windows has no descriptors of folders. There each part of a path is looked at right before it is
used; docs/design/0003-stores.md says what that leaves open.

Everything here blocks; the folder store calls it from its threads.
What holds: tests/moss_sync/test_stores_foreign_files.py.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal

from moss_sync.errors import ForeignFileError
from moss_sync.stores.durable import FILE_MODE, FOLDER_MODE, sync_folder, sync_names

DESCRIPTORS = os.open in os.supports_dir_fd and os.scandir in os.supports_fd
"""Whether the system can name what is in a folder by the folder's descriptor."""

_NEVER_WAIT = (
    getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_NOCTTY", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_BINARY", 0)
)
_FOLDER = getattr(os, "O_DIRECTORY", 0) | _NEVER_WAIT
# With O_PATH, going through a folder needs no right to list it.
_PASSAGE = _FOLDER | getattr(os, "O_PATH", os.O_RDONLY)

_NAME_SURROGATE = 0x2000_0000
"""The bit in a Windows reparse tag that makes it another name: links and junctions have it, files
that a cloud keeps have not."""

EntryKind = Literal["file", "folder", "other"]


@dataclass(frozen=True, slots=True)
class Entry:
    """What a listing of a folder shows of one name; a link is "other", wherever it leads."""

    name: str
    kind: EntryKind


class Folder:
    """An open folder, at the root or below it. Use it in a `with` block.

    Every method takes the name of one entry, without a `/`. Methods raise OSError as the system
    does (FileNotFoundError: there is nothing of this name), and ForeignFileError for what is there
    and is not of the kind that they are about.

    Attributes:
        inside: Where it is, from the root; "" for the root itself.
    """

    def __init__(self, root: Path, inside: str, fd: int | None) -> None:
        self.root = root
        self.inside = inside
        self._fd = fd

    @classmethod
    def at(cls, root: Path) -> Folder:
        """Open the root; links in the path to it are the user's, and are followed."""
        if DESCRIPTORS:
            follows = _PASSAGE & ~getattr(os, "O_NOFOLLOW", 0)
            return cls(root, "", os.open(root, follows))
        if not stat.S_ISDIR(os.stat(root).st_mode):
            raise NotADirectoryError(20, "Not a directory", str(root))
        return cls(root, "", None)

    def __enter__(self) -> Folder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def enter(self, name: str) -> Folder:
        """Open a folder in this one."""
        if self._fd is None:
            self._refuse_unless(_DIRECTORY, name, self.about(name))
            return Folder(self.root, self.named(name), None)
        try:
            fd = os.open(name, _PASSAGE, dir_fd=self._fd)
        except FileNotFoundError:
            raise
        except OSError:
            self._refuse_unless(_DIRECTORY, name, self.about(name))
            raise
        return Folder(self.root, self.named(name), fd)

    def make(self, name: str) -> Folder:
        """Open a folder in this one; make it first where there is none, and make its name last."""
        try:
            return self.enter(name)
        except FileNotFoundError:
            pass
        try:
            os.mkdir(self._at(name), FOLDER_MODE, dir_fd=self._fd)
            self.sync()
        except FileExistsError:  # another process was faster
            pass
        return self.enter(name)

    def about(self, name: str) -> os.stat_result:
        """Return what the system says of an entry, of a link itself."""
        return os.stat(self._at(name), dir_fd=self._fd, follow_symlinks=False)

    def open_file(self, name: str, flags: int = os.O_RDONLY) -> int:
        """Return a descriptor of a regular file; it is the caller's to close."""
        try:
            self._refuse_unless(_FILE, name, self.about(name))
        except FileNotFoundError:
            if not flags & os.O_CREAT:
                raise
        try:
            fd = os.open(self._at(name), flags | _NEVER_WAIT, FILE_MODE, dir_fd=self._fd)
        except FileNotFoundError:
            raise
        except OSError:
            # A link, a pipe or a device may have taken its place since.
            self._refuse_unless(_FILE, name, self.about(name))
            raise
        try:
            self._refuse_unless(_FILE, name, os.fstat(fd))
        except BaseException:
            os.close(fd)
            raise
        return fd

    def create_file(self, name: str) -> int:
        """Return a descriptor of a new file of mode 0600, for writing."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NEVER_WAIT
        return os.open(self._at(name), flags, FILE_MODE, dir_fd=self._fd)

    def entries(self) -> list[Entry]:
        """Return what is in the folder, in no order."""
        if self._fd is None:
            return _entries(self.path)
        fd = os.open(".", os.O_RDONLY | _FOLDER, dir_fd=self._fd)
        try:
            return _entries(fd)
        finally:
            os.close(fd)

    def remove(self, name: str) -> None:
        """Remove a regular file."""
        self._refuse_unless(_FILE, name, self.about(name))
        os.unlink(self._at(name), dir_fd=self._fd)

    def move(self, name: str, folder: Folder, to: str) -> None:
        """Rename a file over another one in `folder`, or to where there is nothing."""
        with contextlib.suppress(FileNotFoundError):
            folder._refuse_unless(_FILE, to, folder.about(to))
        # What takes its place from here on is replaced; nothing that a link leads to ever is.
        os.replace(self._at(name), folder._at(to), src_dir_fd=self._fd, dst_dir_fd=folder._fd)

    def sync(self) -> None:
        """Return when the names in the folder have reached the disk itself."""
        if self._fd is None:
            sync_folder(self.path)
            return
        fd = os.open(".", os.O_RDONLY | _FOLDER, dir_fd=self._fd)
        try:
            sync_names(fd)
        finally:
            os.close(fd)

    @property
    def path(self) -> Path:
        return self.root / self.inside

    def named(self, name: str) -> str:
        """Return how an entry of this folder is called from the root."""
        return f"{self.inside}/{name}" if self.inside else name

    def _at(self, name: str) -> str:
        return name if self._fd is not None else str(self.path / name)

    def _refuse_unless(self, wanted: str, name: str, about: os.stat_result) -> None:
        found = kind_of(about)
        if found != wanted:
            raise ForeignFileError(
                f"{self.named(name)!r} in the store {self.root} is {found} where {wanted} belongs; "
                "it was left alone",
                hint="look at what it is, and move it away: "
                f"mv -- {shlex.quote(str(self.path / name))} ELSEWHERE",
            )


@contextlib.contextmanager
def folder_at(root: Path, prefix: str) -> Iterator[Folder]:
    """Open the folder of a prefix, which ends with `/`; "" is the root.

    Raises:
        FileNotFoundError: a part of it is not there; NotADirectoryError: the root is a file.
        ForeignFileError: a part of it is something else than a folder.
    """
    with contextlib.ExitStack() as opened:
        folder = opened.enter_context(Folder.at(root))
        for part in prefix.split("/")[:-1]:
            folder = opened.enter_context(folder.enter(part))
        yield folder


def kind_of(about: os.stat_result) -> str:
    """Return what an entry is, for a message."""
    if _is_other_name(about):
        return "a link"
    for is_kind, kind in _KINDS.items():
        if is_kind(about.st_mode):
            return kind
    return "a device"


_FILE, _DIRECTORY = "a file", "a folder"
_KINDS = {
    stat.S_ISREG: _FILE,
    stat.S_ISDIR: _DIRECTORY,
    stat.S_ISFIFO: "a named pipe",
    stat.S_ISSOCK: "a socket",
}


def _is_other_name(about: os.stat_result) -> bool:
    tag = getattr(about, "st_reparse_tag", 0)
    return stat.S_ISLNK(about.st_mode) or bool(tag & _NAME_SURROGATE)


def _entries(folder: int | Path) -> list[Entry]:
    with os.scandir(folder) as found:
        return [Entry(each.name, _kind(each)) for each in found]


def _kind(entry: os.DirEntry[str]) -> EntryKind:
    if entry.is_dir(follow_symlinks=False):
        return "folder"
    return "file" if entry.is_file(follow_symlinks=False) else "other"
