"""Keeping what a damaged session file still says, and moving the file aside.

What can still be read is `remains.py`'s to say. What is kept lies in the quarantine of a small
session file of its own until it has found its place (`SALVAGE`); the damaged file is moved aside
and never written to.

  1 the readable edits, in a file of no session's name   crash: deleted by the next repair
  2 renamed to the session's salvage file                crash: the next repair adds to it
  3 the damaged file and its log moved aside             crash: as before
  4 the session opened anew and pulled                   crash: as before
  5 each edit written again, or left in the quarantine   crash: as before; what was written again
  6 the salvage file deleted                             is there already, and is left alone

What holds: tests/moss_local/test_salvage.py, tests/moss_local/test_salvage_left.py.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import apsw

from moss_local.errors import FileBusyError, FileCorruptError
from moss_local.storage import connection
from moss_local.storage.checkup import check_file
from moss_local.storage.failures import translated, translated_os
from moss_local.storage.file import is_open_here, open_session_file, remove_what_is_beside
from moss_local.storage.paths import DAMAGED, SALVAGE, SUFFIX, UNFINISHED_SALVAGE
from moss_local.storage.place import Place
from moss_local.storage.remains import REASON, Salvaged, about, held, read_into
from moss_local.storage.schema import ForeignFileError, foreign_file
from moss_local.storage.state import update_state
from moss_sync import PermissionDeniedError, StoreChangedError
from moss_sync.errors import other_store_hint
from moss_sync.stores.durable import sync_file, sync_folder


def examine(place: Place, session: str) -> list[str]:
    """Return what is wrong with a session's file, in words; nothing if it is whole or not there.

    Raises:
        FileCorruptError: the file is no session's, or another session's: nothing to repair.
        FileBusyError, PermissionDeniedError, UnsupportedFormatError.
    """
    path = place.path(session)
    if not path.exists():
        lost = connection.lost_its_file(path)
        return [f"{path} is gone, and its log is there"] if lost else []
    try:
        file = place.open_file(path)
        try:
            if file.session != session:
                raise foreign_file(path, file.session)
            with file.writing() as conn:
                return check_file(conn)
        finally:
            file.close()
    except ForeignFileError:
        raise
    except FileCorruptError as error:
        return [str(error)]


def salvage(
    place: Place,
    session: str,
    *,
    all_rows: bool,
    stored_seq: int | None = None,
    repositories: Collection[bytes] | None = None,
) -> Salvaged:
    """Keep what a damaged file still says, and move it aside.

    Args:
        all_rows: Keep what was pushed too, because the store does not have it.
        stored_seq: Keep what was pushed with a later commit: the store has lost it.
        repositories: As in `check_repository`.
    Raises:
        StoreChangedError: the session has been exchanged with another store. Nothing was moved.
        FileBusyError: another process has it open, or this one has.
        PermissionDeniedError: it may not be written, so nobody else can be kept from it.
        DiskFullError: there is no room for what is kept. Nothing was moved.
    """
    path = place.path(session)
    if is_open_here(path):
        raise FileBusyError(f"{path} is open in this process", hint="close the session first")
    kept = salvage_path(place, session)
    if path.exists() and not os.access(path, os.W_OK):
        raise PermissionDeniedError(
            f"{path} may not be written", hint="check the owner and mode of the file"
        )
    # Of a repair that was cut off; since then the session may have been used, and damaged again.
    found = kept_of(place, session)
    found.edits = kept_edits(place, session)
    with translated(path), translated_os(path):
        # Nobody else may write to it from before it is read until it is out of the way.
        with held(path, place.key_of(path)) as (source, image):
            known = about(source, image, session)
            check_repository(session, known.repo_id, repositories)
            above = -1 if all_rows else stored_seq
            read_into(found, source, image, known, above=above)
            _keep(place, session, found, kept)
            if os.name != "nt":
                found.aside = _move_aside(path)
        if os.name == "nt":  # where what is open cannot be moved
            found.aside = _move_aside(path)
    return found


def salvage_path(place: Place, session: str) -> Path:
    """Return where what was kept of a damaged file lies until it has found its place."""
    return beside(place.path(session))


def beside(path: Path) -> Path:
    """Return where what was kept of a damaged file lies, by where the file was."""
    return path.with_name(f"{SALVAGE}{path.name}")


def check_repository(
    session: str, repo_id: bytes | None, repositories: Collection[bytes] | None
) -> None:
    """Return if a session may be of a store.

    Args:
        repo_id: The repository that the session has been exchanged with, if known and any.
        repositories: The store's, which is one or none; None: any store may be it.
    Raises:
        StoreChangedError: it is of another.
    """
    if repo_id is not None and repositories is not None and repo_id not in repositories:
        raise StoreChangedError(
            f"session {session!r} has been exchanged with another store before",
            hint=other_store_hint(),
        )


def kept_of(place: Place, session: str) -> Salvaged:
    """Return what is known of a session of which something was kept, without the edits."""
    path = salvage_path(place, session)
    if not path.exists():
        return Salvaged()
    file = place.open_file(path)
    try:
        with file.reading() as conn:
            row: Any = conn.execute("SELECT model_id, model_dtype, repo_id FROM state").fetchone()
    finally:
        file.close()
    model_id, dtype, repo_id = row
    return Salvaged(model_id=model_id, own_vectors=dtype == "f4", repo_id=repo_id)


def kept_edits(place: Place, session: str) -> list[tuple[Any, ...]]:
    """Return what was kept of a damaged file and has not found its place; nothing if none was."""
    path = salvage_path(place, session)
    if not path.exists():
        return []
    file = place.open_file(path)
    try:
        with file.reading() as conn:
            return conn.execute(
                "SELECT reason, id, hlc, dev, digest, deleted, text, metadata, payload, vector"
                " FROM quarantine ORDER BY number"
            ).fetchall()
    finally:
        file.close()


def take_over(conn: apsw.Connection, edits: Sequence[tuple[Any, ...]]) -> list[int]:
    """Put kept edits into a session's quarantine, where they are not there yet.

    An edit that the session has as it is, or an older one of a document that has changed since,
    only goes there if it says something else.

    Returns:
        The numbers of those that nothing newer stands against: they can be written again.
    """
    ready = []
    for edit in edits:
        reason, id, hlc, _, digest, *_ = edit
        now: Any = conn.execute("SELECT hlc, digest FROM document WHERE id = ?", (id,)).fetchone()
        if now is not None and now[1] == digest:
            continue
        there: Any = conn.execute(
            "SELECT number FROM quarantine WHERE id = ? AND hlc = ? AND digest = ?",
            (id, hlc, digest),
        ).fetchone()
        if there is None:
            conn.execute(
                "INSERT INTO quarantine (reason, id, hlc, dev, digest, deleted, text, metadata,"
                " payload, vector) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                edit,
            )
            there = (conn.last_insert_rowid(),)
        if reason == REASON and (now is None or now[0] < hlc):
            ready.append(there[0])
    return ready


def forget_kept(place: Place, session: str) -> None:
    """Delete what was kept, now that it has found its place."""
    path = salvage_path(place, session)
    with translated_os(path):
        path.unlink(missing_ok=True)
        remove_what_is_beside(path)


def _in_order(edits: Iterable[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Return each edit once, in the order in which they were made: so they are written again."""
    once: dict[tuple[Any, ...], tuple[Any, ...]] = {}
    for edit in sorted(edits, key=lambda edit: edit[2]):
        reason, id, _, _, digest, *_ = edit
        once.pop((reason, id, digest), None)
        once[reason, id, digest] = edit
    return list(once.values())


def _keep(place: Place, session: str, found: Salvaged, kept: Path) -> None:
    """Write the edits to the salvage file, whole and durably."""
    unfinished = place.directory / f"{UNFINISHED_SALVAGE}{kept.name.removeprefix(SALVAGE)}"
    unfinished.unlink(missing_ok=True)
    remove_what_is_beside(unfinished)
    file = open_session_file(unfinished, session=session, key=place.key_of(unfinished))
    try:
        with file.writing() as conn:
            conn.executemany(
                "INSERT INTO quarantine (reason, id, hlc, dev, digest, deleted, text, metadata,"
                " payload, vector) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                _in_order(found.edits),
            )
            own = "f4" if found.own_vectors else None
            update_state(conn, model_id=found.model_id, model_dtype=own, repo_id=found.repo_id)
        file.rewrite()  # nothing is left in the log
    finally:
        file.close()
    remove_what_is_beside(unfinished)
    with unfinished.open("rb+") as written:
        sync_file(written.fileno())
    unfinished.replace(kept)
    sync_folder(kept.parent)


def _move_aside(path: Path) -> Path:
    number = 1
    while list(path.parent.glob(f"{path.name}{DAMAGED}{number}*")):
        number += 1
    aside = path.with_name(f"{path.name}{DAMAGED}{number}")
    # The log first: a new file must not meet the old one's.
    for suffix in ("-wal", "-journal"):
        with suppress(FileNotFoundError):
            path.with_name(path.name + suffix).rename(aside.with_name(aside.name + suffix))
    with suppress(FileNotFoundError):  # nothing but the log may be left of it
        path.rename(aside)
    sync_folder(path.parent)
    path.with_name(path.name + "-shm").unlink(missing_ok=True)
    return aside if aside.exists() else aside.with_name(aside.name + "-wal")


def left_behind(place: Place) -> list[Path]:
    """Return what repairs that were cut off have kept."""
    return sorted(place.directory.glob(f"{SALVAGE}*{SUFFIX}"))
