"""Where a project's session files lie on this device, and the keys that they open with.

A project's directory is encrypted as a whole or not at all; `at-rest.json` in it says which.
What holds: tests/moss_local/test_storage_place.py, tests/at_rest.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from filelock import FileLock, Timeout

from moss_local.errors import AtRestError, FileBusyError
from moss_local.storage import ciphers, file_keys
from moss_local.storage.connection import lost_its_file
from moss_local.storage.failures import translated_os
from moss_local.storage.file import (
    SessionFile,
    open_session_file,
    remnants,
    remove_all,
    remove_session_file,
)
from moss_local.storage.file_keys import KEY_FILE, MAX_KEY_FILE_BYTES, FileKeys, KeyFile, Kind
from moss_local.storage.paths import (
    DAMAGED,
    ENCRYPTED,
    SALVAGE,
    SUFFIX,
    UNFINISHED_SALVAGE,
    check_name,
    file_name,
    session_file_of,
)
from moss_sync.stores.durable import make_folders, replacing, sync_folder

LOCK_FILE = "at-rest.lock"
LOCK_WAIT_S = 10.0

ENCRYPT = "moss-local at-rest on"
DECRYPT = "moss-local at-rest off"


@dataclass(frozen=True, slots=True)
class Place:
    """A project's directory.

    Attributes:
        keys: None where files are not encrypted.
    """

    directory: Path
    keys: FileKeys | None = None

    def path(self, session: str) -> Path:
        """Return where the file of a session lies.

        Raises:
            InvalidArgumentError: as in `paths.check_name`.
        """
        check_name(session)
        name = file_name(session) if self.keys is None else self.keys.file_name(session)
        return self.directory / (name + SUFFIX)

    def key_of(self, path: Path) -> bytes | None:
        """Return the key of a session's file, and of what repairs keep of it; None if in clear."""
        return None if self.keys is None else self.keys.page_key(session_file_of(path.name))

    def open(self, session: str) -> SessionFile:
        """Open a session's file, made if there is none; raises as `open_session_file`."""
        path = self.path(session)
        return open_session_file(path, session=session, key=self.key_of(path))

    def open_file(self, path: Path) -> SessionFile:
        """Open one of `files()`; raises as `open_session_file`."""
        return open_session_file(path, key=self.key_of(path))

    def remove(self, session: str) -> None:
        """Delete a session's file and what repairs left; raises as `remove_session_file`."""
        path = self.path(session)
        remove_session_file(path, key=self.key_of(path))
        remove_all(remnants(path))

    def holds(self, session: str) -> bool:
        """Return whether anything of a session lies here, even if it is damaged."""
        path = self.path(session)
        return path.exists() or lost_its_file(path) or bool(remnants(path))

    def files(self) -> list[Path]:
        """Return the files that are sessions, by their names."""
        return session_files(self.directory)

    def moved_aside(self) -> list[Path]:
        """Return the damaged files that repairs have moved aside, their logs included."""
        return sorted(self.directory.glob(f"[!.]*{SUFFIX}{DAMAGED}*"))


@dataclass(frozen=True, slots=True)
class Secrets:
    """What this user can open encrypted files with.

    Attributes:
        project_key: Always there.
        at_rest: A key of the app's; or True: under the project key, and no other way than
            encrypted; None: as the files are.
    """

    project_key: str = field(repr=False)
    at_rest: str | bool | None = field(default=None, repr=False)

    @property
    def kind(self) -> Kind:
        return "app" if isinstance(self.at_rest, str) else "project"

    @property
    def secret(self) -> str:
        return self.at_rest if isinstance(self.at_rest, str) else self.project_key


def session_files(directory: Path) -> list[Path]:
    """Return the files in a project's directory that are sessions, by their names.

    One that is gone and left its log is among them: opening it says so.

    Raises:
        PermissionDeniedError: it cannot be read, which is not the same as that there are none.
    """
    with translated_os(directory):
        try:
            names = os.listdir(directory)
        except FileNotFoundError:
            return []
    shown = {name for name in names if not name.startswith(".")}
    found = {name for name in shown if name.endswith(SUFFIX)}
    for log in (name for name in shown if name.endswith(f"{SUFFIX}-wal")):
        if lost_its_file(directory / log.removesuffix("-wal")):
            found.add(log.removesuffix("-wal"))
    return [directory / name for name in sorted(found)]


def find_place(directory: Path, given: Secrets) -> Place:
    """Return a project's directory as it is, or, if there is nothing in it yet, as it is to be.

    Raises:
        AtRestError: files are to be encrypted and are not, or are being encrypted or decrypted.
        UnauthorizedError: they are, and not with what is given.
        CiphersMissingError: they are, or are to be, and the installed `apsw` has no ciphers.
        FileCorruptError, UnsupportedFormatError: as `file_keys.decode`.
    """
    contents = read_key_file(directory)
    if contents is None:
        if not given.at_rest:
            return Place(directory)
        ciphers.require("files are to be encrypted here (at_rest=, MOSS_AT_REST_KEY)")
        with changing(directory):
            contents = read_key_file(directory)  # another process may have been faster
            if contents is None:
                _refuse_plain(directory)
                master = file_keys.new_master(secrets.token_bytes)
                slot = file_keys.wrap(master, given.secret, given.kind, secrets.token_bytes)
                write_key_file(directory, KeyFile((slot,)))
                return Place(directory, file_keys.keys_of(master))
    if contents.converting:
        raise AtRestError(
            f"the session files in {directory} are being encrypted or decrypted, or that was cut "
            "off",
            hint=f"if nobody is at it, end it: {ENCRYPT}, or {DECRYPT}",
        )
    ciphers.require(f"the session files in {directory} are encrypted")
    return Place(directory, file_keys.keys_of(unlock(directory, contents, given)))


def unlock(directory: Path, contents: KeyFile, given: Secrets) -> bytes:
    """Return the key that the key file holds.

    Raises:
        UnauthorizedError: what is given does not open it.
        FileCorruptError: it opens, and is not the key file of the files beside it.
    """
    if given.kind == "project" and "project" not in contents.kinds:
        raise AtRestError(
            f"the session files in {directory} are encrypted with a key of the app's",
            hint="give it: at_rest=..., or MOSS_AT_REST_KEY",
        )
    kind = given.kind
    master = file_keys.unwrap(contents.slots, given.secret, kind)
    if master is None:
        raise file_keys.wrong_key(os.fspath(directory), kind)
    mark = file_keys.keys_of(master).mark
    if any(not name.startswith(mark) for name in _encrypted_files(directory)):
        raise file_keys.unusable(
            f"{directory / KEY_FILE} is not the key file of the encrypted files beside it"
        )
    return master


def rewrap(directory: Path, old: Secrets, new: Secrets, *, keep_old: bool = False) -> bool:
    """Let `new` open the files, and, unless it is kept, the old key no longer.

    No session file is touched, and no open session notices. False where nothing is encrypted.

    Raises:
        UnauthorizedError, AtRestError: the old key does not open them.
    """
    if read_key_file(directory) is None:
        return False
    with changing(directory):
        contents = read_key_file(directory)
        if contents is None:
            return False
        master = unlock(directory, contents, old)
        slots = [file_keys.wrap(master, new.secret, new.kind, secrets.token_bytes)]
        if keep_old:
            slots += [file_keys.wrap(master, old.secret, old.kind, secrets.token_bytes)]
        write_key_file(directory, replace(contents, slots=tuple(slots)))
    return True


def read_key_file(directory: Path) -> KeyFile | None:
    """Return what `at-rest.json` says; None where there is none.

    Raises:
        FileCorruptError: as `file_keys.decode`; also where there is none, and encrypted files are.
        UnsupportedFormatError: as `file_keys.decode`.
    """
    path = directory / KEY_FILE
    data = _read(path)
    if data is None and _encrypted_files(directory):
        data = _read(path)  # somebody may be encrypting them just now
        if data is None:
            raise file_keys.unusable(
                f"{path} is gone, and it held the key of the encrypted files beside it"
            )
    return None if data is None else file_keys.decode(data, os.fspath(path))


def _read(path: Path) -> bytes | None:
    with translated_os(path):
        try:
            with open(path, "rb") as source:
                return source.read(MAX_KEY_FILE_BYTES)
        except (FileNotFoundError, NotADirectoryError):
            return None


def _encrypted_files(directory: Path) -> list[str]:
    """Return the names of the encrypted sessions of which anything lies here."""
    with translated_os(directory):
        try:
            names = os.listdir(directory)
        except (FileNotFoundError, NotADirectoryError):
            return []
    found = {session_file_of(name) for name in names}
    return [name for name in found if name.startswith(ENCRYPTED) and name.endswith(SUFFIX)]


def write_key_file(directory: Path, contents: KeyFile) -> None:
    """Put `contents` in the place of what was there, whole and durably."""
    path = directory / KEY_FILE
    with translated_os(path), replacing(path, secret=True) as out:
        out.write(file_keys.encode(contents))


def remove_key_file(directory: Path) -> None:
    """Say, durably, that the files are no longer encrypted."""
    with translated_os(directory / KEY_FILE):
        (directory / KEY_FILE).unlink()
        sync_folder(directory)


def unconvertible_files(directory: Path) -> list[Path]:
    """Return what holds documents and is no session's file: what repairs have left.

    Nobody finds it under the name that the session's file has in its other form.
    """
    patterns = (f"[!.]*{SUFFIX}{DAMAGED}*", f"{SALVAGE}*", f"{UNFINISHED_SALVAGE}*")
    return sorted(each for pattern in patterns for each in directory.glob(pattern))


@contextmanager
def changing(directory: Path) -> Iterator[None]:
    """Hold the right to change how a project's files are encrypted.

    Raises:
        FileBusyError: another process held it for longer than the wait.
    """
    with translated_os(directory):
        make_folders(directory)
        lock = FileLock(directory / LOCK_FILE, mode=0o600, fallback_to_soft=False)
        try:
            lock.acquire(timeout=LOCK_WAIT_S)
        except Timeout:
            raise FileBusyError(
                f"another process is encrypting or decrypting {directory}", hint="try again"
            ) from None
    try:
        yield
    finally:
        lock.release()


def _refuse_plain(directory: Path) -> None:
    plain: Sequence[Path] = [*session_files(directory), *unconvertible_files(directory)]
    if plain:
        one = len(plain) == 1
        raise AtRestError(
            f"{len(plain)} session {'file' if one else 'files'} in {directory}"
            f" {'is' if one else 'are'} not encrypted yet",
            hint=f"encrypt them: {ENCRYPT}, or await client.encrypt_at_rest()",
        )
