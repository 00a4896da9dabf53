"""What can still be read in a damaged session file, and moving the file aside.

Every row is read on its own, from the leaves of the file where SQLite finds no way to it, and is
believed only if its content has the digest that its version says: a text with a flipped bit is not
a text that anybody wrote. Where the digest is of a vector too that cannot be read, only the user
can believe it. What is kept lies in the quarantine of a small session file of its own until it has
found its place (`SALVAGE`); the damaged file is moved aside and never written to.

  1 the readable edits, in a file of no session's name   crash: deleted by the next repair
  2 renamed to the session's salvage file                crash: the next repair goes on from here
  3 the damaged file and its log moved aside             crash: as before
  4 the session opened anew and pulled                   crash: as before
  5 each edit written again, or left in the quarantine   crash: as before; what was written again
  6 the salvage file deleted                             is there already, and is left alone

What holds: tests/moss_local/test_salvage.py.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import apsw

from moss_local.errors import FileBusyError, FileCorruptError
from moss_local.storage import connection
from moss_local.storage.checkup import check_file
from moss_local.storage.documents import read_metadata
from moss_local.storage.failures import translated, translated_os
from moss_local.storage.file import is_open_here, open_session_file, remove_what_is_beside
from moss_local.storage.leaves import Image
from moss_local.storage.paths import SUFFIX
from moss_local.storage.place import Place
from moss_local.storage.schema import ForeignFileError
from moss_local.storage.state import read_state
from moss_sync import MossError, Version, content_digest
from moss_sync.record import DEVICE_BYTES, DIGEST_BYTES
from moss_sync.stores.durable import sync_file, sync_folder

SALVAGE = ".salvage-"
_UNFINISHED = ".salvaging-"

REASON = "salvaged"
"""Why such an edit is in the quarantine: its session's file was damaged before it was pushed."""

DOUBTFUL = "damaged"
"""The same, and it cannot be told whether it is whole and was still there: only the user writes it
again."""

_WAYS = (
    "SELECT rowid FROM document ORDER BY rowid",
    "SELECT rowid FROM document ORDER BY rowid DESC",
    "SELECT rowid FROM document INDEXED BY sqlite_autoindex_document_1",
    "SELECT rowid FROM document INDEXED BY document_changed",
    "SELECT rowid FROM document INDEXED BY document_tombstone WHERE deleted = 1",
    "SELECT rowid FROM document INDEXED BY document_dirty WHERE dirty = 1",
)

_DOCUMENT_COLUMNS = 13
_STATE_COLUMNS = 21
"""No two tables of ours have as many."""
_MODEL_ID, _MODEL_DTYPE = 12, 15

_ROW = (
    "SELECT id, hlc, dev, digest, deleted, vector, dirty, text, metadata, payload"
    " FROM document WHERE rowid = ?"
)


@dataclass
class Salvaged:
    """What a damaged file still said.

    Attributes:
        edits: Rows for the quarantine: (reason, id, hlc, dev, digest, deleted, text, metadata,
            payload, vector).
        unreadable: Documents and deletions that are known to have been there and cannot be read.
        model_id: Of the session's vectors; None if it had none, or that cannot be read.
        aside: Where the damaged file is now.
    """

    edits: list[tuple[Any, ...]] = field(default_factory=list)
    unreadable: int = 0
    model_id: str | None = None
    aside: Path | None = None


def examine(place: Place, session: str) -> list[str]:
    """Return what is wrong with a session's file, in words; nothing if it is whole or not there.

    Raises:
        FileCorruptError: the file is no session's, or another session's: nothing to repair.
        FileBusyError, PermissionDeniedError, UnsupportedFormatError.
    """
    path = place.path(session)
    if not path.exists():
        return []
    try:
        file = place.open_file(path)
        try:
            if file.session != session:
                raise ForeignFileError(
                    f"{path} holds session {file.session!r}, not {session!r}",
                    hint="it was renamed or copied here; move it back",
                )
            with file.writing() as conn:
                return check_file(conn)
        finally:
            file.close()
    except ForeignFileError:
        raise
    except FileCorruptError as error:
        return [str(error)]


def salvage(place: Place, session: str, *, all_rows: bool) -> Salvaged:
    """Keep what a damaged file still says, and move it aside.

    Args:
        all_rows: Keep what was pushed too, because the store does not have it.
    Raises:
        FileBusyError: another process has it open, or this one has.
        DiskFullError: there is no room for what is kept. Nothing was moved.
    """
    path = place.path(session)
    if is_open_here(path):
        raise FileBusyError(f"{path} is open in this process", hint="close the session first")
    kept, found = salvage_path(place, session), Salvaged()
    with translated(path), translated_os(path):
        # Nobody else may write to it from before it is read until it is out of the way.
        source = connection.connect_alone(path, place.cipher_key)
        try:
            image = _image(source, path, encrypted=place.keys is not None)
            if not kept.exists():  # else what a repair that was cut off has kept is all there was
                _read(source, image, session, found, all_rows=all_rows)
                _keep(place, session, found, kept)
            if os.name != "nt":
                found.aside = _move_aside(path)
        finally:
            source.close()
        if os.name == "nt":  # where what is open cannot be moved
            found.aside = _move_aside(path)
    return found


def salvage_path(place: Place, session: str) -> Path:
    """Return where what was kept of a damaged file lies until it has found its place."""
    return place.directory / f"{SALVAGE}{place.path(session).name}"


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


def _read(
    source: apsw.Connection, image: Image, session: str, found: Salvaged, *, all_rows: bool
) -> None:
    """Read what can be read."""
    found.model_id, own = _model_of(image, session)
    if found.model_id is None:
        found.model_id, own = _model_by_sql(source)
    read: dict[int, tuple[Any, ...]] = {}
    known: set[int] = set()
    whole = _read_by_sql(source, known, read)
    if not whole or known - set(read):
        # A page that is not in use any more may hold what was replaced or deleted long since.
        reason = REASON if image.whole_free_list else DOUBTFUL
        for rowid, values in image.records(_DOCUMENT_COLUMNS):
            known.add(rowid)
            _, id, hlc, dev, digest, deleted, vector, dirty, _, _, *content = values
            read.setdefault(rowid, (id, hlc, dev, digest, deleted, vector, dirty, *content, reason))
    vectors = _vectors(source, known) if own else {}
    for rowid, row in read.items():
        edit = _believed(row, vectors.get(rowid), own)
        if edit is None:
            found.unreadable += 1
        elif all_rows or row[6]:
            found.edits.append(edit)
    found.unreadable += len(known - set(read))
    found.edits += _set_aside_before(source)


def _image(source: apsw.Connection, path: Path, *, encrypted: bool) -> Image:
    """Return the pages as they are, what stands in the log included, whatever is in them.

    Raises:
        FileBusyError: another process has the file open. From here on none can.
    """
    flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE | apsw.SQLITE_OPEN_URI
    # A copy needs no schema to be read; and of a database of this kind, which is private to its
    # connection as long as its name begins with no slash, the bytes can be had without one.
    copy = apsw.Connection("file:copy?vfs=memdb", flags=flags)
    try:
        if encrypted:
            # SQLite copies no encrypted pages into a database in the clear; in a page that does
            # not authenticate there would be nothing to read anyway.
            source.execute("SELECT count(*) FROM sqlite_schema").fetchall()
            return Image(b"")
        connection.copy_pages(source, copy)
        return Image(copy.serialize("main") or b"")
    except apsw.BusyError:
        raise FileBusyError(
            f"{path} is open in another process", hint="close the session there, and try again"
        ) from None
    except apsw.Error:
        return Image(b"")  # what can be read otherwise will show
    finally:
        copy.close()


def _model_of(image: Image, session: str) -> tuple[str | None, bool | None]:
    """Return the model of the session's vectors and whether the caller brought them, if known."""
    for _, values in image.records(_STATE_COLUMNS):
        model, dtype = values[_MODEL_ID], values[_MODEL_DTYPE]
        if values[1] == session and isinstance(model, str):
            return model, dtype == "f4"
    return None, None


def _model_by_sql(conn: apsw.Connection) -> tuple[str | None, bool | None]:
    try:
        space = read_state(conn).space
    except (apsw.Error, ValueError, TypeError, MossError):
        return None, None
    return (None, None) if space is None else (space.id, space.dtype == "f4")


def _read_by_sql(conn: apsw.Connection, known: set[int], read: dict[int, tuple[Any, ...]]) -> bool:
    """Read the rows that SQLite finds; return whether it has seen the whole table."""
    whole = False
    for query in _WAYS:
        with suppress(apsw.Error, ValueError):
            for (rowid,) in conn.execute(query):
                known.add(rowid)
            whole = whole or query is _WAYS[0]
    for rowid in sorted(known):
        with suppress(apsw.Error, ValueError):
            if (row := conn.execute(_ROW, (rowid,)).fetchone()) is not None:
                read[rowid] = row
    return whole


def _vectors(conn: apsw.Connection, rowids: Iterable[int]) -> dict[int, bytes]:
    found = {}
    for rowid in rowids:
        with suppress(apsw.Error, ValueError):
            row = conn.execute("SELECT embedding FROM vec WHERE rowid = ?", (rowid,)).fetchone()
            if row is not None:
                found[rowid] = row[0]
    return found


def _set_aside_before(conn: apsw.Connection) -> list[tuple[Any, ...]]:
    found: list[tuple[Any, ...]] = []
    with suppress(apsw.Error, ValueError):
        found.extend(
            conn.execute(
                "SELECT reason, id, hlc, dev, digest, deleted, text, metadata, payload, vector"
                " FROM quarantine ORDER BY number"
            )
        )
    return found


def _believed(
    row: tuple[Any, ...], vector: bytes | None, own: bool | None
) -> tuple[Any, ...] | None:
    """Return the row as the quarantine has it, unless it says what nobody wrote."""
    id, hlc, dev, digest, deleted, has_vector, _, text, metadata, payload, *doubt = row
    sizes = (isinstance(dev, bytes) and len(dev), isinstance(digest, bytes) and len(digest))
    if not (isinstance(id, str) and isinstance(hlc, int) and isinstance(text, str)):
        return None
    if sizes != (DEVICE_BYTES, DIGEST_BYTES) or not isinstance(payload, str | None):
        return None
    try:
        given = read_metadata(metadata)
    except (ValueError, TypeError, AttributeError):
        return None
    whole = (
        content_digest(id, deleted=True)
        if deleted
        else content_digest(
            id,
            deleted=False,
            text=text,
            metadata=given,
            payload=payload,
            own_vector=vector if own else None,
        )
    )
    reason = doubt[0] if doubt else REASON
    if whole != digest:
        if deleted or not has_vector or vector is not None or own is False:
            return None
        reason = DOUBTFUL  # the digest may be of its vector too
    kept = vector if own else None
    version = Version(hlc, dev, digest)
    return (
        reason,
        id,
        *version,
        int(bool(deleted)),
        text,
        metadata,
        payload,
        kept,
    )


def _keep(place: Place, session: str, found: Salvaged, kept: Path) -> None:
    """Write the edits to the salvage file, whole and durably."""
    unfinished = place.directory / f"{_UNFINISHED}{kept.name.removeprefix(SALVAGE)}"
    unfinished.unlink(missing_ok=True)
    remove_what_is_beside(unfinished)
    file = open_session_file(unfinished, session=session, key=place.cipher_key)
    try:
        with file.writing() as conn:
            conn.executemany(
                "INSERT INTO quarantine (reason, id, hlc, dev, digest, deleted, text, metadata,"
                " payload, vector) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                found.edits,
            )
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
    while (aside := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    # The log first: a new file must not meet the old one's.
    for suffix in ("-wal", "-journal"):
        with suppress(FileNotFoundError):
            path.with_name(path.name + suffix).rename(aside.with_name(aside.name + suffix))
    path.rename(aside)
    sync_folder(path.parent)
    path.with_name(path.name + "-shm").unlink(missing_ok=True)
    return aside


def left_behind(place: Place) -> list[Path]:
    """Return what repairs that were cut off have kept."""
    return sorted(place.directory.glob(f"{SALVAGE}*{SUFFIX}"))
