"""A session's file, opened once per process: its connections, its write lock, its transactions.

Every `SessionIndex` on one path shares one `SessionFile`. Transactions may run on any thread: a
reader gets a connection of its own from a small pool, and the one writer waits for its turn, first
among this process's threads, then, in SQLite, among the processes.

Connections are opened when they are needed. The least recently used files beyond `MAX_OPEN_FILES`
lose theirs while nobody uses them, and get them back at the next call, so that a thousand sessions
do not exhaust the descriptors. A process that forks closes all of them first, between its threads'
transactions: SQLite's locks do not survive a fork, and two processes on one connection would
corrupt the file.
"""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar, cast

import apsw

from moss_local.errors import FileBusyError
from moss_local.storage import connection
from moss_local.storage.connection import Durability
from moss_local.storage.failures import (
    damage_told,
    is_damage,
    repair_hint,
    translated,
    translated_os,
)
from moss_local.storage.file_keys import check_mode
from moss_local.storage.paths import DAMAGED, SALVAGE, UNFINISHED_SALVAGE
from moss_local.storage.schema import BeingDeletedError
from moss_sync import InvalidArgumentError, NotFoundError
from moss_sync.stores.durable import make_folders

T = TypeVar("T")

MAX_OPEN_FILES = 64
"""Files with open connections per process. Each has up to 3 descriptors for every connection."""

MAX_IDLE_READERS = 4
"""Kept per file; more run when more threads read at once, and are closed as they come back."""

BUSY_MS = 10_000
"""Milliseconds to wait for another writer: a bulk load of 100 000 documents takes about 4 s."""

FORK_WAIT_S = 5.0
"""How long a fork waits for transactions of other threads, such as a merge in the background. A
child of a process that was in the middle of one cannot use the file."""

_WAIT_SECONDS = 0.005


class SessionFile:
    """One session's file. Make it with `open_session_file`; safe from any thread."""

    def __init__(
        self,
        path: Path,
        *,
        session: str | None,
        durability: Durability,
        busy_ms: int,
        token: Callable[[int], bytes],
        key: bytes | None = None,
    ) -> None:
        self.path = path
        self._cipher_key = key
        self._session = session
        self._durability = durability
        self._busy_ms = busy_ms
        self._token = token
        self._key = ""  # under which the registry knows it
        self._owners = 0
        self._closed = False
        self._prepared = False
        self._in_use = 0
        self._forking = False
        self._readers: list[apsw.Connection] = []
        self._writer: apsw.Connection | None = None
        self._derived: dict[type, object] = {}
        self._listeners: list[Callable[[], None]] = []
        self._new_locks()

    def __repr__(self) -> str:
        return f"<SessionFile {str(self.path)!r}>"

    @property
    def session(self) -> str:
        """The name of the session, as it stands in the file."""
        return cast(str, self._session)

    @contextmanager
    def reading(self) -> Iterator[apsw.Connection]:
        """Run the block in one read transaction: it sees one moment of the file throughout.

        Raises:
            FileCorruptError, FileBusyError, PermissionDeniedError, UnsupportedFormatError.
        """
        with translated(self.path, self._session):
            conn = self._take_reader()
            try:
                conn.execute("BEGIN")
                with connection.conn_rollback(conn), damage_told(conn, self.path, self._session):
                    yield conn
            finally:
                self._give_reader(conn)

    @contextmanager
    def writing(self) -> Iterator[apsw.Connection]:
        """Run the block in one write transaction, committed at its end, undone if it raises.

        Raises:
            FileBusyError: another thread or process held the file longer than the wait.
            DiskFullError: nothing of the block is in the file.
            FileCorruptError, PermissionDeniedError, UnsupportedFormatError.
        """
        with self._writing_alone() as conn:
            conn.execute("BEGIN IMMEDIATE")
            with connection.conn_rollback(conn), damage_told(conn, self.path, self._session):
                yield conn
                conn.execute("COMMIT")
        for listener in tuple(self._listeners):
            listener()

    def listen(self, listener: Callable[[], None]) -> None:
        """Call `listener` after each transaction that this process has written, on its thread.

        It must be quick and must not raise. Other processes' writes are not heard of, and a forked
        child hears nothing.
        """
        self._listeners.append(listener)

    def ignore(self, listener: Callable[[], None]) -> None:
        """End what `listen` began."""
        if listener in self._listeners:
            self._listeners.remove(listener)

    def rewrite(self) -> None:
        """Write the file anew without what was deleted in it, and empty its log.

        Takes about as long as copying the file. Until then bytes of deleted rows may be left in
        pages that are free or partly used.

        Raises:
            FileBusyError: another thread or process went on using the file for longer than the
                wait. It is written anew, and the log may still hold old bytes.
            DiskFullError: there is no room for a second copy; the file is as it was.
        """
        deadline = time.monotonic() + self._busy_ms / 1000
        with self._writing_alone() as conn:
            conn.execute("VACUUM")
            # A reader of an older moment may still need the log.
            while conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").get[0]:
                if not _wait_until(deadline):
                    raise FileBusyError(
                        f"{self.path} is being read by another process", hint="try again"
                    )

    @contextmanager
    def _writing_alone(self) -> Iterator[apsw.Connection]:
        """Hand out the one connection that writes, once no other thread has it."""
        if not self._write_lock.acquire(timeout=self._busy_ms / 1000):
            raise FileBusyError(f"{self.path} is being written by another thread", hint="try again")
        try:
            with translated(self.path, self._session):
                conn = self._take_writer()
                try:
                    yield conn
                except (apsw.FullError, apsw.IOError):
                    # What such a connection has cached of the file is not to be trusted again.
                    self._drop_writer()
                    raise
                finally:
                    self._leave()
        finally:
            self._write_lock.release()

    def derived(self, kind: type[T], make: Callable[[], T]) -> T:
        """Return what was computed from the file and is shared by all who have it open.

        One value per `kind`. It must be possible to make it again: release() drops it.
        """
        with self._lock:
            value = self._derived.get(kind)
            if value is None:
                value = self._derived[kind] = make()
            return cast(T, value)

    def release(self) -> bool:
        """Close idle connections and drop derived values; they come back when needed.

        Returns False if a transaction is running, and then does nothing.
        """
        with self._lock:
            if self._in_use:
                return False
            idle = self._take_idle()
        for conn in idle:  # the last one to go writes the log back into the file
            conn.close()
        return True

    def _take_idle(self) -> list[apsw.Connection]:
        idle = self._readers
        if self._writer is not None:
            idle.append(self._writer)
        self._readers, self._writer, self._prepared = [], None, False
        self._derived.clear()
        return idle

    def close(self) -> None:
        """Give the file back. When its last owner has done so, it is closed."""
        _registry.give_back(self)

    def _take_reader(self) -> apsw.Connection:
        self._enter()
        try:
            with self._lock:
                if self._readers:
                    return self._readers.pop()
            return self._connect()
        except BaseException:
            self._leave()
            raise

    def _give_reader(self, conn: apsw.Connection) -> None:
        with self._lock:
            keep = not self._closed and len(self._readers) < MAX_IDLE_READERS
            if keep:
                self._readers.append(conn)
        if not keep:
            conn.close()
        self._leave()

    def _take_writer(self) -> apsw.Connection:
        self._enter()
        try:
            if self._writer is None:
                self._writer = self._connect()
            return self._writer
        except BaseException:
            self._leave()
            raise

    def _drop_writer(self) -> None:
        conn, self._writer = self._writer, None
        if conn is not None:
            conn.close()

    def _connect(self) -> apsw.Connection:
        with self._connect_lock:
            if not self._prepared:
                check_mode(self.path, encrypted=self._cipher_key is not None)
                with translated_os(self.path):
                    make_folders(self.path.parent)
                    connection.begin_file(self.path, hint=repair_hint(self._session))
            conn = connection.connect(
                self.path,
                durability=self._durability,
                busy_ms=self._busy_ms,
                key=self._cipher_key,
            )
            try:
                with damage_told(conn, self.path, self._session):
                    if not self._prepared:
                        deadline = time.monotonic() + self._busy_ms / 1000
                        self._session = connection.prepare(
                            conn,
                            self.path,
                            session=self._session,
                            token=self._token,
                            wait=lambda: _wait_until(deadline),
                            key=self._cipher_key,
                        )
                        self._prepared = True
                    connection.accept(conn)
            except BaseException:
                conn.close()
                raise
        return conn

    def _enter(self) -> None:
        with self._lock:
            while self._forking:
                self._gate.wait()
            if self._closed:
                raise InvalidArgumentError(f"{self.path} is closed", hint="open the session again")
            self._in_use += 1
        _registry.touch(self)

    def _leave(self) -> None:
        with self._lock:
            self._in_use -= 1
            if self._forking:
                self._gate.notify_all()
            last = self._closed and not self._in_use
        if last:
            self.release()

    def _strengthen(self, durability: Durability) -> None:
        """Of several owners' wishes the strongest counts, from the next transaction on."""
        if durability == "full" and self._durability != "full":
            with self._write_lock:
                self._durability = "full"
                self._drop_writer()

    def _new_locks(self) -> None:
        self._lock = threading.Lock()  # of the fields; held for moments, never over SQL
        self._gate = threading.Condition(self._lock)  # of who waits for a fork, or for who is in
        self._write_lock = threading.Lock()  # one writer at a time
        self._connect_lock = threading.Lock()  # creation and migration once

    def _before_fork(self) -> None:
        """Let nobody in, wait for those who are, and close the connections."""
        with self._lock:
            self._forking = True
            if self._gate.wait_for(lambda: not self._in_use, FORK_WAIT_S):
                for conn in self._take_idle():
                    conn.close()

    def _after_fork_in_parent(self) -> None:
        with self._lock:
            self._forking = False
            self._gate.notify_all()

    def _after_fork_in_child(self) -> None:
        """In the child: what was open in another thread belongs to the parent."""
        self._new_locks()
        self._forking = False
        self._listeners = []
        if self._in_use:
            _of_the_parent.extend(self._readers)
            _of_the_parent.append(self._writer)
            self._readers, self._writer, self._closed = [], None, True


class _Registry:
    """The files that this process has open, by path, and how recently each was used."""

    def __init__(self) -> None:
        self._files: dict[str, SessionFile] = {}
        self._recent: OrderedDict[SessionFile, None] = OrderedDict()
        self._held: list[SessionFile] = []
        self._lock = threading.Lock()

    def get(self, path: Path, make: Callable[[], SessionFile]) -> SessionFile:
        key = os.path.realpath(path)
        with self._lock:
            file = self._files.get(key)
            if file is None:
                file = self._files[key] = make()
                file._key = key
            file._owners += 1
        return file

    def is_open(self, path: Path) -> bool:
        with self._lock:
            return os.path.realpath(path) in self._files

    def give_back(self, file: SessionFile) -> None:
        with self._lock:
            file._owners -= 1
            if file._owners > 0 or file._closed:
                return
            file._closed = True
            self._recent.pop(file, None)
            del self._files[file._key]
        file.release()

    def touch(self, file: SessionFile) -> None:
        with self._lock:
            self._recent[file] = None
            self._recent.move_to_end(file)
            excess = len(self._recent) - MAX_OPEN_FILES
            candidates = list(self._recent)[:excess] if excess > 0 else []
        for other in candidates:
            # Its turn comes again at the next touch if it is busy now.
            if other is not file and other.release():
                with self._lock:
                    self._recent.pop(other, None)

    def before_fork(self) -> None:
        self._held = list(self._files.values())
        for file in self._held:
            file._before_fork()

    def after_fork_in_parent(self) -> None:
        for file in self._held:
            file._after_fork_in_parent()
        self._held = []

    def after_fork_in_child(self) -> None:
        self._lock = threading.Lock()
        self._held = []
        for file in self._files.values():
            file._after_fork_in_child()


_registry = _Registry()

_of_the_parent: list[object] = []
"""Connections that were in use as this process was forked off; never closed, never used."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_registry.before_fork,
        after_in_parent=_registry.after_fork_in_parent,
        after_in_child=_registry.after_fork_in_child,
    )


def open_session_file(
    path: Path,
    *,
    session: str | None = None,
    create: bool = True,
    durability: Durability = "full",
    busy_ms: int = BUSY_MS,
    token: Callable[[int], bytes] = secrets.token_bytes,
    key: bytes | None = None,
) -> SessionFile:
    """Return the file at `path`, created or migrated if need be; close() it when done.

    Args:
        session: The session's name: written into a new file, checked in an old one. None takes the
            name that the file has, and creates nothing.
        create: False for a file that must exist.
        durability: As in `connection.Durability`; of several owners the strongest counts.
        busy_ms: How long to wait for other writers. The first owner's counts.
        token: Makes the random bytes of a new file's identity.
        key: Of an encrypted file, or of one to be; `storage.place` knows which is.
    Raises:
        NotFoundError: there is no such file and none may be created.
        AtRestError: the files of this directory are encrypted and there is no key, or the reverse.
        CiphersMissingError: it is encrypted, and the installed `apsw` has no ciphers.
        FileCorruptError: damaged, another program's, or another session's. Left as it is.
        UnsupportedFormatError: a newer version wrote it. Left as it is.
        FileBusyError, PermissionDeniedError, DiskFullError.
    """
    gone = not path.exists() and not connection.lost_its_file(path)
    if (session is None or not create) and gone:
        raise NotFoundError(f"there is no session file {path}")
    try:
        return _open(path, session, durability, busy_ms, token, key)
    except BeingDeletedError:
        if session is None:
            raise
        # By who may have died meanwhile; or who has not, and somebody has made it anew since.
        remove_session_file(path, busy_ms=busy_ms, key=key, only_marked=True)
        return _open(path, session, durability, busy_ms, token, key)


def _open(
    path: Path,
    session: str | None,
    durability: Durability,
    busy_ms: int,
    token: Callable[[int], bytes],
    key: bytes | None,
) -> SessionFile:
    file = _registry.get(
        path,
        lambda: SessionFile(
            path, session=session, durability=durability, busy_ms=busy_ms, token=token, key=key
        ),
    )
    try:
        file._strengthen(durability)
        with file.reading():
            pass
        if session is not None and file.session != session:
            raise InvalidArgumentError(f"{path} holds session {file.session!r}, not {session!r}")
    except BaseException:
        file.close()
        raise
    return file


def is_open_here(path: Path) -> bool:
    """Return whether this process has the file open."""
    return _registry.is_open(path)


def remove_session_file(
    path: Path, *, busy_ms: int = BUSY_MS, key: bytes | None = None, only_marked: bool = False
) -> None:
    """Delete a session's file, its log and its locks, if nobody has it open; none is no error.

    Args:
        key: Of an encrypted file.
        only_marked: Delete it only if somebody else had begun to.
    Raises:
        FileBusyError: somebody has; what they wrote from then on would be lost with it.
        PermissionDeniedError.
    """
    if _registry.is_open(path):
        raise FileBusyError(f"{path} is open in this process", hint="close the session first")
    with translated(path), translated_os(path):
        if path.exists() and not _remove(path, time.monotonic() + busy_ms / 1000, key, only_marked):
            return
        remove_what_is_beside(path)


def moved_aside(path: Path) -> list[Path]:
    """Return what repairs have moved aside of a session's file, the logs included."""
    return sorted(path.parent.glob(f"{path.name}{DAMAGED}*"))


def remnants(path: Path) -> list[Path]:
    """Return what repairs have left: what they moved aside, and what one that was cut off kept."""
    kept = (path.parent.glob(f"{prefix}{path.name}*") for prefix in (SALVAGE, UNFINISHED_SALVAGE))
    return [*moved_aside(path), *(each for found in kept for each in found)]


def remove_all(paths: Iterable[Path]) -> int:
    """Delete files; return how many there were to be deleted."""
    count = 0
    for path in paths:
        with translated_os(path):
            path.unlink(missing_ok=True)
        count += 1
    return count


def remove_what_is_beside(path: Path) -> None:
    """Delete the log and the locks of a file that is gone."""
    for suffix in ("-wal", "-shm", "-journal", ".push", ".creating"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _remove(path: Path, deadline: float, key: bytes | None, only_marked: bool) -> bool:
    """Delete the file itself, which may have gone, or been made anew, at any moment before.

    Returns False if it was to be a marked one and is not.
    """
    try:
        number = path.stat().st_ino
        conn = connection.connect(path, durability="full", busy_ms=0, key=key)
    except FileNotFoundError:
        return True
    except apsw.Error as error:
        if not is_damage(error, path):
            raise
        _unlink_with_log(path)  # nothing can be written into it
        return True
    try:
        while not connection.take_alone(conn):
            if not _wait_until(deadline):
                raise FileBusyError(
                    f"{path} is open in another process",
                    hint="close the session there, and delete it again",
                )
        if only_marked and not connection.is_marked_removed(conn):
            return False
        connection.mark_removed(conn)
        # Whoever deletes it holds this lock: from here on nobody else does.
        with suppress(FileNotFoundError):
            if os.name != "nt" and path.stat().st_ino == number:
                path.unlink()
    except apsw.Error as error:
        if not is_damage(error, path):
            raise
        _unlink_with_log(path)
    finally:
        conn.close()
    if os.name == "nt":  # where what is open cannot be deleted
        path.unlink(missing_ok=True)
    return True


def _unlink_with_log(path: Path) -> None:
    # A log without its file is the sign of one that somebody has lost.
    path.with_name(path.name + "-wal").unlink(missing_ok=True)
    path.unlink(missing_ok=True)


def _wait_until(deadline: float) -> bool:
    if time.monotonic() >= deadline:
        return False
    time.sleep(_WAIT_SECONDS)
    return True
