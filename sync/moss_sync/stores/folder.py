"""Blobs as files below a folder: a local disk, or a share whose locks work.

A key is a path below the root. A blob is replaced by renaming a finished file over it, so a
reader sees one whole state or another and needs no lock. What writes takes an OS file lock, which
the system releases when its process dies; under it, compare-and-swap is read, compare, replace.

    <root>/<key>               the blobs, mode 0600 in folders of 0700
    <root>/.moss/locks/<hh>    64 lock files, empty, never removed (removing one splits its waiters)
    <root>/.moss/tmp/<random>  files being written; what a dead process left is swept after an hour

What holds: tests/contracts/test_stores.py; that a process killed at any moment leaves no torn blob
and no held lock, tests/moss_sync/test_stores_folder.py. Why a lock, docs/design/0003-stores.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import secrets
import shlex
import stat
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from pathlib import Path
from typing import TypeVar

from moss_sync.clock import SystemClock
from moss_sync.errors import (
    BlobCorruptError,
    BlobNotFoundError,
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
    MAX_BLOB_BYTES,
    Blob,
    Conflict,
    ETag,
    Listed,
    NotModified,
    Swapped,
)
from moss_sync.stores.durable import make_folders, sync_folder, write_file
from moss_sync.stores.keys import check_key, check_listing, check_size, is_key
from moss_sync.traffic import answered, count

LOCK_STRIPES = 64
"""Keys share this many locks, so that sessions by the thousand leave no lock file each."""

LOCK_WAIT_S = 30.0
"""Longest wait for a lock; a holder needs milliseconds, so this is a process that hangs."""

LOCK_POLL_S = 0.002
"""Between two tries. filelock's own 50 ms makes a 16-way race take ten times as long."""

TEMP_MAX_AGE_MS = 3_600_000
"""A temporary file older than this has no writer: 64 MiB take seconds on any disk."""

_REFUSED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT})
"""What a file system answers when it has surely done nothing."""

_ETAG_BYTES = 16
_THREADS = 8
_HASHES = 131_072
"""Blobs whose ETags are remembered for listings, about 400 bytes each: more than a project lists
at a time, because with fewer each listing would read every blob anew."""

_WALKS = 16
"""Listings whose further pages are remembered."""

_WALK_AGE_S = 10.0
"""For so long; what others write meanwhile may be missing in the rest of such a listing."""

_SYNCED_AFTER_S = 600.0
"""A name that old has reached the disk: its writer syncs it within the second, and systems write
names back by themselves within one minute. The rest is for clocks that differ."""

_T = TypeVar("_T")


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
        self._hashes: dict[str, tuple[tuple[int, int, int], ETag]] = {}
        self._unsynced: set[Path] = set()
        self._unsynced_lock = threading.Lock()
        self._walks: dict[tuple[str, str], tuple[float, list[str]]] = {}

    def __repr__(self) -> str:
        return f"<FolderStore {str(self.root)!r}>"

    @property
    def url(self) -> str:
        return self.root.as_uri()

    async def get(self, key: str, *, if_none_match: ETag | None = None) -> Blob | NotModified:
        self._begin()
        check_key(key)
        data = await self._run("read from", lambda: self._read_back(key, if_none_match))
        if data is None:
            count(requests=1)
            raise BlobNotFoundError(key)
        etag = _etag(data)
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
        return await self._run("write to", lambda: self._write(key, data))

    async def compare_and_swap(
        self, key: str, data: bytes, *, etag: ETag | None
    ) -> Swapped | Conflict:
        self._begin()
        check_key(key)
        check_size(key, data)
        count(requests=1, sent=len(data))
        return await self._run("write to", lambda: self._swap(key, data, etag))

    async def keys(
        self, prefix: str, *, start_after: str = "", limit: int = 1000
    ) -> Sequence[Listed]:
        self._begin()
        check_listing(prefix, start_after, limit)
        count(requests=1)
        return await self._run("list", lambda: self._list(prefix, start_after, limit))

    async def delete(self, key: str) -> None:
        self._begin()
        check_key(key)
        count(requests=1)
        await self._run("write to", lambda: self._remove(key))

    async def strays(self, prefix: str) -> Sequence[str]:
        self._begin()
        check_listing(prefix, "", 1)
        return await self._run("list", lambda: self._strays(prefix))

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            await asyncio.to_thread(self._pool.shutdown)

    # Everything below blocks, and runs on the store's own threads.

    def _sync_names(self, key: str) -> None:
        """Make last what a swap has named where syncing that failed, also where clocks differ.

        Whoever reads such a blob back takes it for committed, and it might not survive the power.
        """
        parent = self._path(key).parent
        if parent in self._unsynced:
            with self._unsynced_lock:  # a swap that fails meanwhile is marked afterwards
                sync_folder(parent)
                self._unsynced.discard(parent)

    def _read_back(self, key: str, known: ETag | None) -> bytes | None:
        self._sync_names(key)
        data = self._read(key)
        if data is not None and _etag(data) != known and self._is_recent(key):
            # A name is seen before it lasts. The reader goes on from what it sees: takes its own
            # push in it for committed, or names the blob in a manifest.
            try:
                sync_folder(self._path(key).parent)
            except OSError as error:
                # Who may read the blob and not its folder has no way to; nor where nobody writes.
                if error.errno not in _REFUSED:
                    raise
        return data

    def _is_recent(self, key: str) -> bool:
        with contextlib.suppress(FileNotFoundError):  # removed since
            age_s = SystemClock().wall_ms() / 1000 - os.stat(self._path(key)).st_mtime
            return age_s < _SYNCED_AFTER_S
        return False

    def _read(self, key: str) -> bytes | None:
        try:
            fd = os.open(self._path(key), os.O_RDONLY | getattr(os, "O_BINARY", 0))
        except (FileNotFoundError, NotADirectoryError):
            self._check_root()
            return None
        try:
            about = os.fstat(fd)
            if not stat.S_ISREG(about.st_mode):
                return None
            if about.st_size > MAX_BLOB_BYTES:
                raise BlobCorruptError(
                    f"blob {key!r} in {self.root} has {about.st_size} bytes, too many"
                )
            with open(fd, "rb", closefd=False) as file:
                return file.read()
        finally:
            os.close(fd)

    def _write(self, key: str, data: bytes) -> int:
        self._prepare(key)
        temp, time_ms = self._write_temp(data)
        with _removed_on_failure(temp), self._guarded(key):
            self._publish(temp, key)
            sync_folder(self._path(key).parent)
        return time_ms

    def _swap(self, key: str, data: bytes, etag: ETag | None) -> Swapped | Conflict:
        self._prepare(key)
        # The lock comes first: of 16 racers one writes, and 15 only look. Writing before it
        # would make the disk flush 16 files.
        with self._locked(key):
            found = self._read(key)
            if (None if found is None else _etag(found)) != etag:
                return Conflict()
            temp, time_ms = self._write_temp(data)
            try:
                with _removed_on_failure(temp):
                    self._publish(temp, key)
                sync_folder(self._path(key).parent)
            except OSError as error:
                with self._unsynced_lock:
                    self._unsynced.add(self._path(key).parent)
                if error.errno in _REFUSED:
                    raise
                # A network share may have renamed the file and lost its answer, or the name is
                # there and would not survive a power cut.
                raise OutcomeUnknownError(
                    f"{key!r} may or may not be written in {self.root}: {error.strerror or error}"
                ) from error
        return Swapped(_etag(data), time_ms)

    def _list(self, prefix: str, start_after: str, limit: int) -> list[Listed]:
        found: list[Listed] = []
        # The rest of what the page before has seen, last key first: to read the folder again for
        # each thousand keys would take the square of the time.
        began, names = self._walks.pop((prefix, start_after), (0.0, None))
        if names is None or time.monotonic() > began + _WALK_AGE_S:
            began = time.monotonic()
            names = sorted((key for key in self._walk(prefix) if key > start_after), reverse=True)
        while names and len(found) < limit:
            with contextlib.suppress(FileNotFoundError):  # removed since the folder was read
                found.append(self._listed(names.pop()))
        if names and found:
            if len(self._walks) >= _WALKS:
                self._walks.clear()
            self._walks[prefix, found[-1].key] = began, names
        return found

    def _strays(self, prefix: str) -> list[str]:
        try:
            entries = list(os.scandir(self.root / prefix))
        except (FileNotFoundError, NotADirectoryError):
            self._check_root()
            return []
        return sorted(prefix + each.name for each in entries if not is_key(prefix + each.name))

    def _walk(self, prefix: str) -> Iterator[str]:
        try:
            entries = list(os.scandir(self.root / prefix))
        except (FileNotFoundError, NotADirectoryError):
            self._check_root()
            return
        for entry in entries:
            # What is no key is none of ours: a file manager's leavings, a replicator's copies.
            key = prefix + entry.name
            if not is_key(key):
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from self._walk(key + "/")
            else:
                yield key

    def _listed(self, key: str) -> Listed:
        """Return name, ETag and size, reading the blob only if it is not the one seen before.

        A replaced blob is another file: inode, time and size together tell. This memory serves
        listings alone; get and compare-and-swap always hash what they read.
        """
        about = os.stat(self._path(key))
        state = (about.st_ino, about.st_mtime_ns, about.st_size)
        known = self._hashes.get(key)
        if known is not None and known[0] == state:
            return Listed(key, known[1], about.st_size)
        data = self._read(key)
        if data is None:
            raise FileNotFoundError(key)
        if len(self._hashes) >= _HASHES:
            self._hashes.clear()
        etag = _etag(data)
        if len(data) == about.st_size:
            self._hashes[key] = (state, etag)
        return Listed(key, etag, len(data))

    def _remove(self, key: str) -> None:
        path = self._path(key)
        if not path.is_file():
            self._check_root()
            return
        self._prepare(key)
        with self._guarded(key), contextlib.suppress(FileNotFoundError):
            path.unlink()
            sync_folder(path.parent)

    def _path(self, key: str) -> Path:
        return self.root.joinpath(*key.split("/"))

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
        if not self.root.parent.is_dir():
            raise NetworkError(
                f"the folder {self.root.parent}, in which the store {self.root.name!r} is to be, "
                "does not exist",
                hint="mount the disk or share that it is on; for a new store make it first: "
                f"mkdir -p {shlex.quote(str(self.root.parent))}",
            )

    def _prepare(self, key: str) -> None:
        self._check_root()
        self._check_parent()
        for folder in (self._temps,) if self.lock_free else (self._locks, self._temps):
            make_folders(folder)
        try:
            make_folders(self._path(key).parent)
        except NotADirectoryError as error:
            raise InvalidArgumentError(
                f"{self.root} holds a blob where key {key!r} needs a folder"
            ) from error

    def _write_temp(self, data: bytes) -> tuple[Path, int]:
        temp = self._temps / secrets.token_hex(16)
        with _removed_on_failure(temp):
            time_ms = write_file(temp, data)
        if not self._swept:
            self._swept = True
            self._sweep(time_ms)
        return temp, time_ms

    def _publish(self, temp: Path, key: str) -> None:
        try:
            os.replace(temp, self._path(key))
            self._walks.clear()
        except IsADirectoryError as error:
            raise InvalidArgumentError(
                f"{self.root} holds a folder where key {key!r} needs a blob"
            ) from error

    def _sweep(self, now_ms: int) -> None:
        """Remove what dead writers left; `now_ms` is by the clock that stamped their files."""
        for entry in os.scandir(self._temps):
            with contextlib.suppress(
                FileNotFoundError
            ):  # renamed by its writer, or swept by another
                if entry.stat().st_mtime_ns // 1_000_000 < now_ms - TEMP_MAX_AGE_MS:
                    os.unlink(entry.path)

    @property
    def _locks(self) -> Path:
        return self.root / ".moss" / "locks"

    @property
    def _temps(self) -> Path:
        return self.root / ".moss" / "tmp"

    def _guarded(self, key: str) -> contextlib.AbstractContextManager[None]:
        """Keep a compare-and-swap out; where nobody makes one, the rename alone is enough."""
        return contextlib.nullcontext() if self.lock_free else self._locked(key)

    @contextlib.contextmanager
    def _locked(self, key: str) -> Iterator[None]:
        # Here and not above: 70 ms of import that a reader never needs, on a thread of our own.
        from filelock import FileLock, Timeout

        stripe = blake2b(key.encode(), digest_size=2).digest()[0] % LOCK_STRIPES
        # Without the fallback: a marker file outlives a killed process, so it is no lock.
        lock = FileLock(self._locks / f"{stripe:02x}", mode=0o600, fallback_to_soft=False)
        try:
            lock.acquire(timeout=LOCK_WAIT_S, poll_interval=LOCK_POLL_S)
        except Timeout as error:
            raise StoreBusyError(
                f"another process kept a lock in {self.root} for {LOCK_WAIT_S:.0f} s"
            ) from error
        except OSError as error:
            if error.errno == errno.ENOSYS:
                raise self._lockless() from error
            raise
        try:
            yield
        finally:
            lock.release()

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

    async def _run(self, verb: str, work: Callable[[], _T]) -> _T:
        loop = asyncio.get_running_loop()
        try:
            done = await loop.run_in_executor(self._pool, work)
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


def _etag(data: bytes) -> ETag:
    return ETag(blake2b(data, digest_size=_ETAG_BYTES).hexdigest())


@contextlib.contextmanager
def _removed_on_failure(temp: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):  # the sweep gets it later; the failure matters more
            temp.unlink()
        raise
