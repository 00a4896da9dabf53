"""Blobs as files below a folder: a local disk, or a share whose locks work.

A key is a path below the root. A blob is replaced by renaming a finished file over it, so a
reader sees one whole state or another and needs no lock. What writes takes an OS file lock, which
the system releases when its process dies; under it, compare-and-swap is read, compare, replace.

    <root>/<key>               the blobs, mode 0600 in folders of 0700
    <root>/.moss/locks/<hh>    64 lock files, empty, never removed (removing one splits its waiters)
    <root>/.moss/tmp/<random>  files being written; what a dead process left is swept after an hour

Whatever else lies below the root is never followed, waited for, changed or removed: a link, a named
pipe, a device, a file of another name (`moss_sync.stores.beneath`). One that stands in the way of a
call is a ForeignFileError that names it; listings leave it out, and `strays` tells of it.

What holds: tests/contracts/test_stores.py; that a process killed at any moment leaves no torn blob
and no held lock, tests/moss_sync/test_stores_folder.py; what is done about foreign files,
tests/moss_sync/test_stores_foreign_files.py. Why a lock, docs/design/0003-stores.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import re
import secrets
import shlex
import stat
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import TypeVar

from moss_sync.clock import SystemClock
from moss_sync.errors import (
    BlobNotFoundError,
    ForeignFileError,
    InvalidArgumentError,
    MossError,
    NetworkError,
    OutcomeUnknownError,
    PermissionDeniedError,
    StoreBusyError,
    StoreLacksCasError,
    repair_command,
)
from moss_sync.stores.base import (
    Blob,
    Conflict,
    ETag,
    Listed,
    NotModified,
    Swapped,
)
from moss_sync.stores.beneath import Folder, folder_at
from moss_sync.stores.durable import make_folders, write_file
from moss_sync.stores.file_lock import try_lock
from moss_sync.stores.folder_blob import etag_of, read_blob
from moss_sync.stores.folder_listing import FolderListing, GivenUpError
from moss_sync.stores.keys import check_key, check_listing, check_size
from moss_sync.traffic import answered, count

LOCK_STRIPES = 64
"""Keys share this many locks, so that sessions by the thousand leave no lock file each."""

LOCK_WAIT_S = 30.0
"""Longest wait for a lock; a holder needs milliseconds, so this is a process that hangs."""

LOCK_POLL_S = 0.002
"""Between two tries. At 50 ms a 16-way race takes ten times as long."""

TEMP_MAX_AGE_MS = 3_600_000
"""A temporary file older than this has no writer: 38 MiB take seconds on any disk."""

_REFUSED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT})
"""What a file system answers when it has surely done nothing."""

_LOCKLESS = frozenset({errno.ENOSYS, errno.EOPNOTSUPP})
"""What a file system answers that has no locks."""

_TEMP_BYTES = 16
_TEMP_NAME = re.compile(rf"[0-9a-f]{{{2 * _TEMP_BYTES}}}")

_THREADS = 8

_SYNCED_AFTER_S = 600.0
"""A name that old has reached the disk: its writer syncs it within the second, and systems write
names back by themselves within one minute. The rest is for clocks that differ."""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a blob is written: its folder, its name there, and the store's working folders."""

    folder: Folder
    name: str
    temps: Folder
    locks: Folder | None


class FolderStore:
    """A BlobStore in a folder. The root is created by the first write, never by a read.

    Only the root: where what it lies in is not there either, a disk is missing, not a first push.

    Args:
        root: An absolute path; relative ones are taken from the current directory, now.

    Attributes:
        must_exist: See `MayBeAway`.
        lock_free: See `MayBeReplicated`.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root).absolute()
        self.must_exist = False
        self.lock_free = False
        self._pool = _new_pool()
        self._pid = os.getpid()
        self._closed = False
        self._swept = False
        self._listing = FolderListing(self.root)
        self._unsynced: set[Path] = set()
        self._unsynced_lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<FolderStore {str(self.root)!r}>"

    @property
    def url(self) -> str:
        return self.root.as_uri()

    async def get(self, key: str, *, if_none_match: ETag | None = None) -> Blob | NotModified:
        self._begin()
        check_key(key)
        data = await self._run("read from", lambda _: self._read_back(key, if_none_match))
        if data is None:
            count(requests=1)
            raise BlobNotFoundError(key)
        etag = etag_of(data)
        if etag == if_none_match:
            count(requests=1)
            return NotModified()
        count(requests=1, received=len(data))
        return Blob(data, etag)

    async def put(self, key: str, data: bytes) -> int | None:
        self._begin()
        check_key(key)
        check_size(key, data)
        count(requests=1, sent=len(data))
        return await self._run("write to", lambda given_up: self._write(key, data, given_up))

    async def compare_and_swap(
        self, key: str, data: bytes, *, etag: ETag | None
    ) -> Swapped | Conflict:
        self._begin()
        check_key(key)
        check_size(key, data)
        count(requests=1, sent=len(data))
        return await self._run("write to", lambda given_up: self._swap(key, data, etag, given_up))

    async def keys(
        self, prefix: str, *, start_after: str = "", limit: int = 1000
    ) -> Sequence[Listed]:
        self._begin()
        check_listing(prefix, start_after, limit)
        count(requests=1)
        return await self._run(
            "list", lambda given_up: self._list(prefix, start_after, limit, given_up)
        )

    async def delete(self, key: str) -> None:
        self._begin()
        check_key(key)
        count(requests=1)
        await self._run("write to", lambda given_up: self._remove(key, given_up))

    async def strays(self, prefix: str, *, folders: bool = False) -> Sequence[str]:
        self._begin()
        check_listing(prefix, "", 1)
        return await self._run("list", lambda _: self._strays(prefix, folders))

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            await asyncio.to_thread(self._pool.shutdown)

    # Everything below blocks, and runs on the store's own threads.

    def _read_back(self, key: str, known: ETag | None) -> bytes | None:
        try:
            with self._folder_of(key) as (folder, name):
                self._sync_names(folder)
                data = read_blob(folder, name)
                if etag_of(data) != known and self._is_recent(folder, name):
                    self._sync_for_reader(folder)
                return data
        except (FileNotFoundError, NotADirectoryError):
            self._check_root()
            return None

    def _sync_names(self, folder: Folder) -> None:
        """Make last what a swap has named where syncing that failed, also where clocks differ.

        Whoever reads such a blob back takes it for committed, and it might not survive the power.
        """
        if folder.path in self._unsynced:
            with self._unsynced_lock:  # a swap that fails meanwhile is marked afterwards
                folder.sync()
                self._unsynced.discard(folder.path)

    def _sync_for_reader(self, folder: Folder) -> None:
        """Make last what a reader is about to go on from.

        A name is seen before it lasts, and the reader takes its own push in the blob for committed,
        or names the blob in a manifest.
        """
        try:
            folder.sync()
        except OSError as error:
            # Who may read the blob and not its folder has no way to; nor where nobody writes.
            if error.errno not in _REFUSED:
                raise

    def _is_recent(self, folder: Folder, name: str) -> bool:
        with contextlib.suppress(FileNotFoundError):  # removed since
            age_s = SystemClock().wall_ms() / 1000 - folder.about(name).st_mtime
            return age_s < _SYNCED_AFTER_S
        return False

    def _write(self, key: str, data: bytes, given_up: threading.Event) -> int:
        with self._prepared(key, locks=not self.lock_free) as place:
            temp, time_ms = self._write_temp(place.temps, data)
            with _removed_on_failure(place.temps, temp), self._guarded(place, key, given_up):
                self._publish(temp, place)
                place.folder.sync()
        return time_ms

    def _swap(
        self, key: str, data: bytes, etag: ETag | None, given_up: threading.Event
    ) -> Swapped | Conflict:
        # The lock comes first: of 16 racers one writes, and 15 only look. Writing before it
        # would make the disk flush 16 files.
        with (
            self._prepared(key, locks=True) as place,
            self._guarded(place, key, given_up),
        ):
            try:
                found = etag_of(read_blob(place.folder, place.name))
            except FileNotFoundError:
                found = None
            if found != etag:
                return Conflict()
            temp, time_ms = self._write_temp(place.temps, data)
            try:
                with _removed_on_failure(place.temps, temp):
                    self._publish(temp, place)
                place.folder.sync()
            except OSError as error:
                with self._unsynced_lock:
                    self._unsynced.add(place.folder.path)
                if error.errno in _REFUSED:
                    raise
                # A network share may have renamed the file and lost its answer, or the name is
                # there and would not survive a power cut.
                raise OutcomeUnknownError(
                    f"{key!r} may or may not be written in {self.root}: {error.strerror or error}"
                ) from error
        return Swapped(etag_of(data), time_ms)

    def _list(
        self, prefix: str, start_after: str, limit: int, given_up: threading.Event
    ) -> list[Listed]:
        try:
            return self._listing.page(prefix, start_after, limit, given_up)
        except (FileNotFoundError, NotADirectoryError):
            self._check_root()
            return []

    def _strays(self, prefix: str, folders: bool) -> list[str]:
        try:
            return self._listing.strays(prefix, folders=folders)
        except (FileNotFoundError, NotADirectoryError):
            self._check_root()
            return []

    def _remove(self, key: str, given_up: threading.Event) -> None:
        try:
            with self._folder_of(key) as (folder, name):
                folder.about(name)
        except (FileNotFoundError, NotADirectoryError):
            self._check_root()
            return
        with (
            self._prepared(key, locks=not self.lock_free) as place,
            self._guarded(place, key, given_up),
            contextlib.suppress(FileNotFoundError),
        ):
            place.folder.remove(place.name)
            place.folder.sync()

    @contextlib.contextmanager
    def _folder_of(self, key: str) -> Iterator[tuple[Folder, str]]:
        inside, slash, name = key.rpartition("/")
        with folder_at(self.root, inside + slash) as folder:
            yield folder, name

    def _check_root(self) -> None:
        # Not `Path.exists`: a place below a file, or one that may not be looked at, can hold no
        # store now or later; that error must not pass for an empty store.
        with contextlib.suppress(FileNotFoundError):
            if not stat.S_ISDIR(os.stat(self.root).st_mode):
                raise InvalidArgumentError(
                    f"the store {self.root} is a file",
                    hint="give the path of a folder as the store",
                )
        # The place of an unmounted disk is gone, or an empty folder. To read "no such blob" out of
        # it, or to start a second store in it, would be wrong.
        if self.must_exist and not self._holds_anything():
            raise NetworkError(
                f"the folder {self.root} does not hold the store that it held before",
                hint="mount the disk or share that it is on; if it was emptied: "
                + repair_command(),
            )

    def _holds_anything(self) -> bool:
        try:
            with os.scandir(self.root) as entries:
                return any(entries)
        except FileNotFoundError:
            return False

    def _check_parent(self) -> None:
        if self.root.is_symlink() and not self.root.exists():
            raise NetworkError(
                f"the store {self.root} is a link to a place that is not there",
                hint="mount the disk or share that it is on",
            )
        if not self.root.parent.is_dir():
            raise NetworkError(
                f"the folder {self.root.parent}, in which the store {self.root.name!r} is to be, "
                "does not exist",
                hint="mount the disk or share that it is on; for a new store make it first: "
                f"mkdir -p {shlex.quote(str(self.root.parent))}",
            )

    @contextlib.contextmanager
    def _prepared(self, key: str, *, locks: bool) -> Iterator[_Place]:
        """Make the folders that writing takes, and hold all of them open."""
        self._check_root()
        self._check_parent()
        make_folders(self.root)
        inside, _, name = key.rpartition("/")
        with contextlib.ExitStack() as opened:

            def made(folder: Folder, *parts: str) -> Folder:
                for part in parts:
                    folder = opened.enter_context(folder.make(part))
                return folder

            root = opened.enter_context(Folder.at(self.root))
            working = made(root, ".moss")
            folder = made(root, *inside.split("/") if inside else ())
            temps = made(working, "tmp")
            yield _Place(folder, name, temps, made(working, "locks") if locks else None)

    def _write_temp(self, temps: Folder, data: bytes) -> tuple[str, int]:
        temp = secrets.token_hex(_TEMP_BYTES)
        with _removed_on_failure(temps, temp):
            time_ms = write_file(temps.create_file(temp), data)
        if not self._swept:
            self._swept = True
            _sweep(temps, time_ms)
        return temp, time_ms

    def _publish(self, temp: str, place: _Place) -> None:
        place.temps.move(temp, place.folder, place.name)
        self._listing.forget_pages()

    def _guarded(
        self, place: _Place, key: str, given_up: threading.Event
    ) -> contextlib.AbstractContextManager[None]:
        """Keep a compare-and-swap out; where nobody makes one, the rename alone is enough."""
        if place.locks is None:
            return contextlib.nullcontext()
        return self._locked(place.locks, key, given_up)

    @contextlib.contextmanager
    def _locked(self, locks: Folder, key: str, given_up: threading.Event) -> Iterator[None]:
        stripe = blake2b(key.encode(), digest_size=2).digest()[0] % LOCK_STRIPES
        fd = locks.open_file(f"{stripe:02x}", os.O_RDWR | os.O_CREAT)
        try:
            self._wait_for(fd, given_up)
            yield
        finally:
            os.close(fd)  # which releases the lock

    def _wait_for(self, lock: int, given_up: threading.Event) -> None:
        deadline = time.monotonic() + LOCK_WAIT_S
        while not self._try_lock(lock):
            if time.monotonic() > deadline:
                raise StoreBusyError(
                    f"another process kept a lock in {self.root} for {LOCK_WAIT_S:.0f} s"
                )
            if given_up.wait(LOCK_POLL_S):
                raise GivenUpError

    def _try_lock(self, lock: int) -> bool:
        try:
            return try_lock(lock)
        except OSError as error:
            if error.errno in _LOCKLESS:
                raise self._lockless() from error
            raise

    def _lockless(self) -> StoreLacksCasError:
        return StoreLacksCasError(
            self.url,
            check="file lock",
            hint="use a folder on a file system with file locks, or an s3:// store; or commit "
            'without either, by choice and for ever: commit="log", moss-local init --commit log',
        )

    def _begin(self) -> None:
        if self._closed:
            raise RuntimeError(f"the store {self.url} is closed")
        if self._pid != os.getpid():  # forked off: the threads stayed with the parent
            self._pool, self._pid = _new_pool(), os.getpid()
            self._unsynced_lock = threading.Lock()

    async def _run(self, verb: str, work: Callable[[threading.Event], _T]) -> _T:
        loop = asyncio.get_running_loop()
        given_up = threading.Event()
        try:
            done = await loop.run_in_executor(self._pool, work, given_up)
        except asyncio.CancelledError:
            given_up.set()  # or Ctrl-C would wait for what the thread waits for, or has yet to hash
            raise
        except OSError as error:
            answered()
            raise self._mapped(verb, error) from error
        answered()
        return done

    def _mapped(self, verb: str, error: OSError) -> MossError:
        message = f"cannot {verb} the folder {self.root}: {error.strerror or error}"
        if error.errno == errno.EROFS:
            return PermissionDeniedError(
                message,
                hint=f"{self.root} is on a file system that is read-only: mount it for writing",
            )
        if error.errno in (errno.EACCES, errno.EPERM):
            return PermissionDeniedError(message, hint=f"check who owns {self.root} and its mode")
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            # The caller's reaction is the same as to a store that cannot be reached: keep, retry.
            return NetworkError(message, hint=f"make room on the disk that holds {self.root}")
        return NetworkError(message)


def _new_pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_THREADS, thread_name_prefix="moss-folder")


def _sweep(temps: Folder, now_ms: int) -> None:
    """Remove what dead writers left; `now_ms` is by the clock that stamped their files."""
    user = os.geteuid() if hasattr(os, "geteuid") else 0  # as Windows says of every file
    for entry in temps.entries():
        # Renamed by its writer, or swept by another; or not to be removed by this user.
        with contextlib.suppress(FileNotFoundError, PermissionError, ForeignFileError):
            if is_left_behind(entry.name, temps.about(entry.name), user=user, now_ms=now_ms):
                temps.remove(entry.name)


def is_left_behind(name: str, about: os.stat_result, *, user: int, now_ms: int) -> bool:
    """Return whether an entry of the folder of temporary files is one that a dead writer left.

    Only a regular file of this user, with a name that this module makes, that is old enough.
    """
    return (
        _TEMP_NAME.fullmatch(name) is not None
        and stat.S_ISREG(about.st_mode)
        and about.st_uid == user
        and about.st_mtime_ns // 1_000_000 < now_ms - TEMP_MAX_AGE_MS
    )


@contextlib.contextmanager
def _removed_on_failure(temps: Folder, temp: str) -> Iterator[None]:
    try:
        yield
    except BaseException:
        # The sweep gets it later; the failure matters more.
        with contextlib.suppress(OSError, ForeignFileError):
            temps.remove(temp)
        raise
