"""Encrypting and decrypting the session files of a project that are there.

Every file is copied whole, checked, and put in the place that it has in the other form; only then
is the old one marked as gone and deleted. `at-rest.json` says "converting" from before the first
file to after the last one, and as long as it does nobody opens a session. A crash leaves each
session's old file, its new one, or both, equal: the same call again, or the opposite one, ends it.

  1 at-rest.json: converting       crash: nothing has changed; nobody opens anything
  2 the copy, forced to the disk   crash: a file of no name; deleted by the next call
  3 rename it to its place         crash: both files, equal, for nobody could write to either
  4 mark the old one, delete it    crash: the marked one is deleted by the next call
  5 at-rest.json: done, or gone

Who has a session open keeps its file from being taken (FileBusyError); who had one open before,
and opens its file again by itself, is told that the files have been encrypted meanwhile.
What holds: tests/at_rest/test_conversion.py.
"""

from __future__ import annotations

import secrets
import time
from dataclasses import replace
from pathlib import Path

from moss_local.errors import AtRestError, FileBusyError, FileCorruptError
from moss_local.storage import ciphers, connection, file_keys
from moss_local.storage.connection import check_not_lost
from moss_local.storage.failures import translated, translated_os
from moss_local.storage.file import is_open_here, remove_what_is_beside
from moss_local.storage.file_keys import FileKeys, KeyFile
from moss_local.storage.place import (
    Place,
    Secrets,
    changing,
    read_key_file,
    remove_key_file,
    session_files,
    unconvertible_files,
    unlock,
    write_key_file,
)
from moss_local.storage.schema import current, foreign_file, is_empty
from moss_local.storage.state import read_state
from moss_sync import MossError
from moss_sync.errors import repair_command
from moss_sync.stores.durable import sync_file, sync_folder

PLAIN_HEADER = b"SQLite format 3\0"

_COPY = ".converting-"

_BUSY_S = 5.0
_PAUSE_S = 0.02


def encrypt(directory: Path, given: Secrets) -> int:
    """Encrypt every session file that is not; return how many were.

    Raises:
        AtRestError: damaged files that repairs have moved aside lie there; nothing is changed.
        FileBusyError: a session is open, here or in another process. Call again: what was done
            stays done.
        FileCorruptError: a file is damaged; those after it are as they were.
        UnauthorizedError: some are encrypted already, and not with what is given.
        CiphersMissingError, DiskFullError, PermissionDeniedError.
    """
    ciphers.require("files are to be encrypted")
    with changing(directory):
        _refuse_damaged(directory)
        contents = before = read_key_file(directory)
        if contents is None:
            master = file_keys.new_master(secrets.token_bytes)
            slot = file_keys.wrap(master, given.secret, given.kind, secrets.token_bytes)
            contents = KeyFile((slot,))
        else:
            master = unlock(directory, contents, given)
        write_key_file(directory, replace(contents, converting=True))
        done: list[Path] = []
        try:
            _convert_all(directory, file_keys.keys_of(master), done, to_plain=False)
        except MossError:
            # Nobody shall be shut out of what is as it was.
            if not done and before is None:
                remove_key_file(directory)
            elif not done and before is not None:
                write_key_file(directory, before)
            raise
        write_key_file(directory, replace(contents, converting=False))
    return len(done)


def decrypt(directory: Path, given: Secrets) -> int:
    """Decrypt every session file; return how many were. Raises as `encrypt`."""
    if read_key_file(directory) is None:
        return 0
    ciphers.require(f"the session files in {directory} are encrypted")
    with changing(directory):
        contents = read_key_file(directory)
        if contents is None:
            return 0
        _refuse_damaged(directory)
        keys = file_keys.keys_of(unlock(directory, contents, given))
        write_key_file(directory, replace(contents, converting=True))
        done: list[Path] = []
        try:
            _convert_all(directory, keys, done, to_plain=True)
        except MossError:
            if not done:
                write_key_file(directory, contents)
            raise
        remove_key_file(directory)
    return len(done)


def _refuse_damaged(directory: Path) -> None:
    """Raise while damage, or what is left of it, lies here.

    It would stay as it is, readable where all is said to be encrypted, and nobody would find it.
    """
    found = unconvertible_files(directory)
    if found:
        raise AtRestError(
            f"what repairs have moved aside or kept lies in {directory}, and cannot be encrypted "
            f"or decrypted: {', '.join(each.name for each in found[:3])}",
            hint="end a repair that was cut off (moss-local doctor tells which); delete or move "
            "away files that were moved aside",
        )
    for path in session_files(directory):
        check_not_lost(path, hint=f"{repair_command()}, then try again")


def is_plain(path: Path) -> bool:
    """Return whether a file's header is readable, or it has none yet.

    Not for a file that this process has open: closing it would drop SQLite's locks.
    """
    with path.open("rb") as source:
        return source.read(len(PLAIN_HEADER)) in (PLAIN_HEADER, b"")


def _convert_all(directory: Path, keys: FileKeys, done: list[Path], *, to_plain: bool) -> None:
    here, there = Place(directory, keys), Place(directory)
    if not to_plain:
        here, there = there, here
    for left in directory.glob(f"{_COPY}*"):
        left.unlink()
    files = session_files(directory)
    for path in files:
        if is_open_here(path):
            raise FileBusyError(f"{path} is open in this process", hint="close the session first")
    with translated_os(directory):
        files = [path for path in files if is_plain(path) != to_plain]
    for path in files:
        if here.keys is not None and not path.name.startswith(here.keys.mark):
            raise FileCorruptError(
                f"{path} is encrypted, and has not the name of a session's file: its key follows "
                "from its name",
                hint="if it is a copy, or of another device, move it away",
            )
    for path in files:
        _convert(path, here, there, done)


def _convert(path: Path, here: Place, there: Place, done: list[Path]) -> None:
    """Convert one file; it counts as done from before its new form is in its place.

    From there on the key must not be forgotten, whatever fails: the new form may be the only one.
    """
    with translated(path), translated_os(path):
        conn = connection.connect(path, durability="full", busy_ms=0, key=here.key_of(path))
        try:
            deadline = time.monotonic() + _BUSY_S
            while not connection.take_alone(conn):
                if time.monotonic() >= deadline:
                    raise FileBusyError(
                        f"{path} is open in another process",
                        hint="close the session there, and try again",
                    )
                time.sleep(_PAUSE_S)
            empty = connection.is_marked_removed(conn) or is_empty(conn)
            if not empty:
                current(conn, str(path))  # raises where it is not one that can be read
                session = read_state(conn).session
                if path != here.path(session):
                    raise foreign_file(path, session)  # it would replace the session's own
                target = there.path(session)
                copy = target.with_name(_COPY + target.name)
                connection.make_private_file(copy)  # an empty one is taken, with its mode
                ciphers.copy_into(conn, copy, there.key_of(target))
                _check(copy, there.key_of(target))
                with copy.open("rb+") as written:
                    sync_file(written.fileno())
                done.append(path)
                copy.replace(target)
                sync_folder(target.parent)
            connection.mark_removed(conn)
        finally:
            conn.close()
        path.unlink()
        remove_what_is_beside(path)


def _check(copy: Path, key: bytes | None) -> None:
    conn = connection.connect(copy, durability="full", busy_ms=0, key=key)
    try:
        wrong = conn.pragma("integrity_check")
    finally:
        conn.close()
    if wrong != "ok":
        raise FileCorruptError(
            f"the copy of a session's file is not whole, and was not used: {wrong}",
            hint="see to the file first: moss-local doctor",
        )
