"""How a session's file is created and how a connection to it is set up."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import apsw
import sqlite_vec

from moss_local.errors import FileBusyError, FileCorruptError
from moss_local.storage import ciphers, schema
from moss_local.storage.state import read_state
from moss_sync.record import DEVICE_BYTES
from moss_sync.stores.durable import sync_file, sync_folder

Durability = Literal["full", "normal"]
"""`full`: an acknowledged write has survived a power cut. `normal`: it has survived the process;
a power cut may take the last writes, never the file."""

WAL_KEEP_BYTES = 4 * 1024 * 1024
"""After a bulk load the write-ahead log is cut back to this."""

STATEMENTS = 64
"""Prepared statements kept per connection; all of this library's fit."""


def make_private_file(path: Path) -> None:
    """Create an empty file of mode 0600 unless there is one; SQLite gives its log the same mode.

    An existing file is not even opened: closing any descriptor of a file drops every POSIX lock
    that the process holds on it, SQLite's own included.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return
    os.close(descriptor)
    sync_folder(path.parent)


def begin_file(path: Path, *, hint: str) -> None:
    """Create a session's file without content, unless there is one; `prepare` gives it some.

    Args:
        hint: What to do about one that is lost.
    Raises:
        FileCorruptError: there was one and it is gone, or all that was in it.
    """
    check_not_lost(path, hint=hint)
    if not path.exists():
        creation_mark(path).touch(0o600)
        make_private_file(path)


def check_not_lost(path: Path, *, hint: str) -> None:
    """Return if a session's file is there, with something in it, or never was.

    Args:
        hint: What to do about one that is lost.
    Raises:
        FileCorruptError: there was one and it is gone, or all that was in it.
    """
    if lost_its_file(path):
        raise FileCorruptError(f"{path} is gone, and its log is there", hint=hint)
    if _is_empty(path) and not creation_mark(path).exists() and _is_empty(path):
        # Whoever creates one takes the mark away only when there is something in it.
        raise FileCorruptError(f"{path} is empty, which a session's file never is", hint=hint)


def is_being_created(path: Path) -> bool:
    """Return whether a session's file is there, and nothing in it yet, as it is at its creation."""
    return _is_empty(path) and creation_mark(path).exists()


def creation_mark(path: Path) -> Path:
    """Return the file that tells a session's file that is being created from an emptied one."""
    return path.with_name(path.name + ".creating")


def lost_its_file(path: Path) -> bool:
    """Return whether there is a write-ahead log with something in it, and not its file."""
    log = path.with_name(path.name + "-wal")
    # In this order: somebody may be creating both.
    return log.exists() and not _is_empty(log) and not path.exists()


def _is_empty(path: Path) -> bool:
    try:
        return not path.stat().st_size
    except FileNotFoundError:  # deleted meanwhile
        return False


def connect(
    path: Path,
    *,
    durability: Durability,
    busy_ms: int,
    key: bytes | None = None,
) -> apsw.Connection:
    """Return a connection to an existing file; nothing is written to it.

    Args:
        key: Of an encrypted file; `ciphers.KEY_BYTES` bytes.
    Raises:
        CiphersMissingError: there is a key, and the installed `apsw` cannot use it.
        apsw.Error: it cannot be opened.
    """
    if key is not None:
        ciphers.require(f"{path} is encrypted")
    # URIs for the copies that `ciphers` makes; a whole path never is one.
    flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_URI
    conn = apsw.Connection(os.path.abspath(path), flags=flags, statementcachesize=STATEMENTS)
    try:
        if key is not None:
            ciphers.unlock(conn, key)
        conn.set_busy_timeout(busy_ms)
        # Until the file is known to be ours and of our version, closing must not touch it either.
        conn.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        _load_vectors(conn)
        conn.execute(
            "PRAGMA foreign_keys = ON;"
            f"PRAGMA synchronous = {'FULL' if durability == 'full' else 'NORMAL'};"
            # F_FULLFSYNC on macOS, where fsync leaves data in the drive's cache; elsewhere no-ops.
            "PRAGMA fullfsync = ON; PRAGMA checkpoint_fullfsync = ON;"
            f"PRAGMA journal_size_limit = {WAL_KEEP_BYTES}"
        )
    except BaseException:
        conn.close()
        raise
    return conn


def _load_vectors(conn: apsw.Connection) -> None:
    conn.enable_load_extension(True)
    conn.load_extension(sqlite_vec.loadable_path())
    conn.enable_load_extension(False)


def connect_alone(path: Path, key: bytes | None) -> apsw.Connection:
    """Return a connection that reads nothing yet, and with its first read keeps all others out.

    Even a file whose schema is damaged opens. Closing it leaves file and log as they are.

    Raises:
        CiphersMissingError: as `connect`.
        apsw.Error: it cannot be opened.
    """
    conn = apsw.Connection(os.path.abspath(path), flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        if key is not None:
            ciphers.require(f"{path} is encrypted")
            ciphers.unlock(conn, key)
        conn.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        conn.execute("PRAGMA locking_mode = EXCLUSIVE")
        _load_vectors(conn)
    except BaseException:
        conn.close()
        raise
    return conn


def accept(conn: apsw.Connection) -> None:
    """Let a connection do its share of housekeeping, now that the file is known to be ours."""
    conn.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0)


def prepare(
    conn: apsw.Connection,
    path: Path,
    *,
    session: str | None,
    token: Callable[[int], bytes],
    wait: Callable[[], bool],
    key: bytes | None = None,
) -> str:
    """Make the file current (created, migrated, indexed) and return the name of its session.

    What an older version wrote is copied to `backup_path` before it is migrated; the copy is
    deleted once that is committed.

    Args:
        session: The name it must have, or gets if it is new; None takes the one it has.
        token: Makes random bytes for a new file's identity.
        wait: Called while another process holds a lock that SQLite does not wait for; False ends
            the waiting.
    Raises:
        UnsupportedFormatError, FileCorruptError: as schema.current; also another session's file.
        FileBusyError: the waiting was ended.
    """
    shown = os.fspath(path)
    if not schema.current(conn, shown):
        if session is None and conn.pragma("application_id") == 0:
            raise FileBusyError(
                f"{path} is being created, or that was cut off",
                hint="open the session by its name, which ends it",
            )
        # Tables and identity in one transaction, while the journal is still a rollback journal:
        # after a crash the file is empty or whole. Whoever comes second finds it done.
        conn.execute(f"PRAGMA page_size = {schema.PAGE_SIZE}; BEGIN IMMEDIATE")
        with conn_rollback(conn):
            if conn.pragma("user_version") and not schema.current(conn, shown):
                _back_up(path, key)
            schema.migrate(
                conn,
                shown,
                session=session or "",
                dev=token(DEVICE_BYTES),
                inc=token(DEVICE_BYTES),
            )
            conn.execute("COMMIT")
    # Also where whoever created or migrated it did not come to it any more.
    creation_mark(path).unlink(missing_ok=True)
    backup_path(path).unlink(missing_ok=True)
    _use_wal(conn, path, wait)
    state = read_state(conn)
    if session is not None and state.session != session:
        raise schema.foreign_file(path, state.session)
    if not schema.keywords_current(conn):
        conn.execute("BEGIN IMMEDIATE")
        with conn_rollback(conn):
            if not schema.keywords_current(conn):
                schema.reindex(conn)
            conn.execute("COMMIT")
    return state.session


def backup_path(path: Path) -> Path:
    """Return where a file's copy is while it is being migrated."""
    return path.with_name(path.name + ".before-migration")


def _back_up(path: Path, key: bytes | None) -> None:
    """Copy a file durably, while this process holds the right to write it and has not begun."""
    backup = backup_path(path)
    backup.unlink(missing_ok=True)  # of somebody who was cut off, and of the same state
    make_private_file(backup)
    # A connection of its own: SQLite copies nothing that is being written by the same one.
    source = connect(path, durability="full", busy_ms=0, key=key)
    try:
        if key is not None:  # whose pages SQLite does not copy as they are
            ciphers.copy_into(source, backup, key)
            with backup.open("rb+") as written:
                sync_file(written.fileno())
        else:
            copy = connect(backup, durability="full", busy_ms=0)
            try:
                copy_pages(source, copy)
            finally:
                copy.close()
    except BaseException:
        backup.unlink(missing_ok=True)
        raise
    finally:
        source.close()


def copy_pages(source: apsw.Connection, target: apsw.Connection) -> None:
    """Make one database the copy of another, page by page, whatever is in them."""
    pages = target.backup("main", source, "main")
    try:
        pages.step(-1)
    except BaseException:
        pages.close(True)  # a second error beside the first would hide it
        raise
    pages.close()


def take_alone(conn: apsw.Connection) -> bool:
    """Lock the file for this connection alone, until it is closed; False while others have it open.

    Leaving the write-ahead log takes the only connection that there is.
    """
    try:
        conn.execute("PRAGMA locking_mode = EXCLUSIVE")
        if conn.pragma("journal_mode", "delete") != "delete":
            return False
        conn.execute("BEGIN EXCLUSIVE")
        with conn_rollback(conn):
            # Somebody may have come, and gone back to the log, in between.
            if conn.pragma("journal_mode") != "delete":
                return False
            conn.execute("COMMIT")
    except apsw.BusyError:
        return False
    return True


def mark_removed(conn: apsw.Connection) -> None:
    """Make a file that was taken alone one that nobody opens any more."""
    conn.execute(f"PRAGMA application_id = {schema.REMOVED_ID}")


def is_marked_removed(conn: apsw.Connection) -> bool:
    """Return whether the file is one that nobody opens any more."""
    return bool(conn.pragma("application_id") == schema.REMOVED_ID)


class conn_rollback:  # noqa: N801  # reads as what it is at `with`
    """Roll back whatever transaction is still open when the block is left."""

    def __init__(self, conn: apsw.Connection) -> None:
        self._conn = conn

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        # A failed COMMIT may have ended it already.
        if self._conn.in_transaction:
            self._conn.execute("ROLLBACK")


def _use_wal(conn: apsw.Connection, path: Path, wait: Callable[[], bool]) -> None:
    while True:
        try:
            if conn.pragma("journal_mode", "wal") == "wal":
                return
        except apsw.BusyError:
            pass  # the switch needs the file alone and does not always ask the busy handler
        if not wait():
            raise FileBusyError(f"{path} is locked by another process", hint="try again")
