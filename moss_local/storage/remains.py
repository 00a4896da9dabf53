"""What can still be read in a damaged session file, and what of it is to be believed.

Every row is read on its own, from the leaves of the file where SQLite finds no way to it (as where
the header is overwritten or the end cut off), and is believed only if its content has the digest
that its version says: a text with a flipped bit is not a text that anybody wrote. Where the digest
is of a vector too that cannot be read, only the user can believe it. Nothing is written.

What holds: tests/moss_local/test_salvage.py. Why so: docs/design/0014-salvage.md.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import apsw

from moss_local.errors import FileBusyError
from moss_local.storage import connection, digests
from moss_local.storage.documents import read_metadata
from moss_local.storage.leaves import Image
from moss_local.storage.raw import RawFile
from moss_local.storage.schema import DOCUMENT_ROOT, PAGE_SIZE, VECTOR_CHUNK
from moss_local.storage.state import read_state
from moss_local.storage.wal import read_log
from moss_sync import MossError, Version
from moss_sync.record import DEVICE_BYTES, DIGEST_BYTES

REASON = "salvaged"
"""Why such an edit is in the quarantine: its session's file was damaged before it was pushed."""

DOUBTFUL = "damaged"
"""The same, and it cannot be told whether it is whole and was still there: only the user writes it
again."""

_WHOLE_WAYS = (
    "SELECT rowid FROM document ORDER BY rowid",
    "SELECT rowid FROM document ORDER BY rowid DESC",
    "SELECT rowid FROM document INDEXED BY sqlite_autoindex_document_1",
    "SELECT rowid FROM document INDEXED BY document_changed",
)
"""Each goes through all rows; one that comes to its end has counted them."""

_WAYS = (
    *_WHOLE_WAYS,
    "SELECT rowid FROM document INDEXED BY document_tombstone WHERE deleted = 1",
    "SELECT rowid FROM document INDEXED BY document_dirty WHERE dirty > 0",
)

_DOCUMENT_COLUMNS = 13
_STATE_COLUMNS = 22
_QUARANTINE_COLUMNS = 11
"""No two tables of ours have as many."""

_CHUNK_COLUMNS, _CHUNK_VECTORS_COLUMNS = 4, 2
"""Of sqlite-vec's own tables. Others have as many; the sizes of what is in them tell."""
_REPO_ID, _HLC, _LIVE, _MODEL_ID, _MODEL_DTYPE = 4, 8, 11, 12, 15

_ROW = (
    "SELECT id, hlc, dev, digest, deleted, vector, dirty, commit_seq, text, metadata, payload"
    " FROM document WHERE rowid = ?"
)


@dataclass
class Salvaged:
    """What a damaged file still said.

    Attributes:
        edits: Rows for the quarantine: (reason, id, hlc, dev, digest, deleted, text, metadata,
            payload, vector).
        unreadable: Documents and deletions that are known to have been there and cannot be read.
        exact: No other can have been there; False: there may have been more.
        model_id: Of the session's vectors; None if it had none, or that cannot be read.
        own_vectors: The callers brought the vectors; only where `model_id` does not say it.
        repo_id: The repository that it has been exchanged with, if known and any.
        aside: Where the damaged file is now.
    """

    edits: list[tuple[Any, ...]] = field(default_factory=list)
    unreadable: int = 0
    exact: bool = False
    model_id: str | None = None
    own_vectors: bool = False
    repo_id: bytes | None = None
    aside: Path | None = None


def read_into(
    found: Salvaged,
    source: apsw.Connection | None,
    image: Image,
    said: About,
    *,
    above: int | None,
) -> None:
    """Add what can be read.

    Args:
        source, image: As from `held`; said: from `about`.
        above: Keep what was pushed with a commit after this one too; None: nothing that was pushed.
    """
    own = said.own
    found.model_id = said.model_id or found.model_id
    found.repo_id = said.repo_id or found.repo_id
    found.own_vectors |= bool(own)
    read: dict[int, list[tuple[Any, ...]]] = {}
    known: set[int] = set()
    if source is not None:
        found.exact = _read_by_sql(source, known, read)
    if not found.exact or known - set(read):
        found.exact |= _read_by_leaves(image, known, read)
    vectors = {} if own is False else _vectors(source, image, known)
    live = 0
    for rowid in known:
        rows = read.get(rowid, ())
        edits = [_believed(row, vectors.get(rowid), own, moved=said.moved) for row in rows]
        whole = [each for each in edits if each is not None]
        if not whole:
            found.unreadable += 1
            continue
        edit, pushed = max(whole, key=lambda each: each[0][2:4])  # an older one was replaced
        dirty = pushed is None
        if said.hlc is not None and edit[2] > said.hlc:
            edit = (DOUBTFUL, *edit[1:])  # no stamp of the file was later: nothing is older than it
        if not dirty and said.repo_id is None:
            edit = (DOUBTFUL, *edit[1:])  # it was pushed, and maybe not to this store
        live += not edit[5]
        if pushed is None or (above is not None and pushed > above):
            found.edits.append(edit)
        if own is None and edit[-1] is not None:
            found.own_vectors = True
    # A page may hide rows and look whole.
    found.exact &= live + found.unreadable >= said.live
    found.edits += _set_aside_before(source, image)


@contextmanager
def held(path: Path, key: bytes | None) -> Iterator[tuple[apsw.Connection | None, Image]]:
    """Keep all others from the file; hand out a way to read it with SQLite, if any, and its pages.

    Raises:
        FileBusyError: another process has it open.
    """
    with ExitStack() as stack:
        source = _source(path, key)
        if source is not None:
            stack.callback(source.close)
        data = b""
        if path.exists():
            raw = stack.enter_context(closing(RawFile(path)))
            if source is None:
                try:
                    raw.lock_alone()
                except apsw.BusyError:
                    raise _busy(path) from None
            # In an encrypted page that SQLite does not find a way to there is nothing to read.
            data = raw.read() if key is None else b""
        log = path.with_name(path.name + "-wal")
        written = read_log(log.read_bytes() if log.exists() else b"")
        if written is None:
            yield source, Image(data, page_size=PAGE_SIZE)
            return
        size = written.page_size
        data = data[: written.pages_after * size]  # what is behind it was given back
        yield source, Image(data, written.pages, page_size=size)


def _source(path: Path, key: bytes | None) -> apsw.Connection | None:
    """Return a connection that keeps all others out; None where SQLite cannot read the schema."""
    # SQLite throws the log of an empty file away.
    if not path.exists() or not path.stat().st_size:
        return None
    source = connection.connect_alone(path, key)
    try:
        source.execute("SELECT count(*) FROM sqlite_schema").fetchall()
    except apsw.BusyError:
        source.close()
        raise _busy(path) from None
    except apsw.Error:
        source.close()
        return None
    except BaseException:
        source.close()
        raise
    return source


def _busy(path: Path) -> FileBusyError:
    return FileBusyError(
        f"{path} is open in another process", hint="close the session there, and try again"
    )


@dataclass(frozen=True, slots=True)
class About:
    """What the session's row of state says.

    Attributes:
        model_id: Of the session's vectors; None if it had none, or that cannot be read.
        own: Whether the callers brought the vectors, if known.
        live: At least so many documents there were.
        hlc: The latest stamp in the file, if known.
        repo_id: The repository that the session has been exchanged with, if known and any.
        moved: Some digests may be of callers' vectors that are forgotten; see `digests.follow`.
    """

    model_id: str | None = None
    own: bool | None = None
    live: int = 0
    hlc: int | None = None
    repo_id: bytes | None = None
    moved: bool = True


def about(source: apsw.Connection | None, image: Image, session: str) -> About:
    """Return what the file says of its session; what cannot be read is not known."""
    known = None if source is None else _about_by_sql(source)
    return known or _about_by_leaves(image, session)


def _about_by_leaves(image: Image, session: str) -> About:
    found = []
    for _, values in image.records(_STATE_COLUMNS):
        name, live, hlc = values[1], values[_LIVE], values[_HLC]
        model, dtype = values[_MODEL_ID], values[_MODEL_DTYPE]
        if name != session or not (isinstance(live, int) and isinstance(hlc, int)):
            continue
        if isinstance(model, str | None):
            repo_id, own = values[_REPO_ID], None if model is None else dtype == "f4"
            known = repo_id if isinstance(repo_id, bytes) else None
            found.append(About(model, own, live, hlc, known))
    # Pages that are not in use any more may hold what it said before.
    return max(found, key=lambda each: each.hlc or 0, default=About())


def _about_by_sql(conn: apsw.Connection) -> About | None:
    try:
        state = read_state(conn)
    except (apsw.Error, ValueError, TypeError, MossError):
        return None
    space, moved = state.space, True
    with suppress(apsw.Error, ValueError):
        moved = not digests.follow(conn, state)
    if space is None:
        return About(None, None, state.live, state.hlc, state.repo_id, moved)
    return About(space.id, space.dtype == "f4", state.live, state.hlc, state.repo_id, moved)


def _read_by_sql(
    conn: apsw.Connection, known: set[int], read: dict[int, list[tuple[Any, ...]]]
) -> bool:
    """Read the rows that SQLite finds; return whether it knows of all."""
    exact = False
    for query in _WAYS:
        with suppress(apsw.Error, ValueError):
            for (rowid,) in conn.execute(query):
                known.add(rowid)
            exact = exact or query in _WHOLE_WAYS
    for rowid in sorted(known):
        with suppress(apsw.Error, ValueError):
            if (row := conn.execute(_ROW, (rowid,)).fetchone()) is not None:
                read[rowid] = [(*row, REASON)]
    return exact


def _read_by_leaves(image: Image, known: set[int], read: dict[int, list[tuple[Any, ...]]]) -> bool:
    """Read the rows that SQLite does not find; return whether all are known of now."""
    leaves = image.table(DOCUMENT_ROOT)
    rowids = None if leaves is None else image.rowids(leaves)
    # A page that is not in use any more may hold what was replaced or deleted long since.
    certain = rowids is not None or image.whole_free_list
    found: dict[int, list[tuple[Any, ...]]] = {}
    for rowid, values in image.records(_DOCUMENT_COLUMNS, None if rowids is None else leaves):
        _, id, hlc, dev, digest, deleted, vector, dirty, _, commit_seq, *content = values
        row = (id, hlc, dev, digest, deleted, vector, dirty, commit_seq, *content)
        found.setdefault(rowid, []).append((*row, REASON if certain else DOUBTFUL))
    for rowid, rows in found.items():
        read.setdefault(rowid, rows)
    known |= rowids or set(found)
    return rowids is not None


def _vectors(conn: apsw.Connection | None, image: Image, rowids: Iterable[int]) -> dict[int, bytes]:
    found = _vectors_by_leaves(image)
    if conn is None:
        return found
    for rowid in rowids:
        with suppress(apsw.Error, ValueError):
            row = conn.execute("SELECT embedding FROM vec WHERE rowid = ?", (rowid,)).fetchone()
            if row is not None:
                found[rowid] = row[0]
    return found


def _vectors_by_leaves(image: Image) -> dict[int, bytes]:
    """Return the vectors that the chunks of sqlite-vec hold; see `schema.create_vectors`."""
    blocks: dict[Any, bytes] = {}
    for _, (number, block) in image.records(_CHUNK_VECTORS_COLUMNS):
        if isinstance(block, bytes) and block and not len(block) % (4 * VECTOR_CHUNK):
            blocks[number] = block
    found: dict[int, bytes] = {}
    for number, (_, _, used, rowids) in image.records(_CHUNK_COLUMNS):
        if not (isinstance(used, bytes) and len(used) == VECTOR_CHUNK // 8):
            continue
        if not (isinstance(rowids, bytes) and len(rowids) == 8 * VECTOR_CHUNK):
            continue
        block = blocks.get(number, b"")
        size = len(block) // VECTOR_CHUNK
        for place, rowid in enumerate(struct.unpack(f"<{VECTOR_CHUNK}q", rowids)):
            if block and used[place // 8] >> place % 8 & 1:
                found[rowid] = block[place * size : (place + 1) * size]
    return found


def _set_aside_before(conn: apsw.Connection | None, image: Image) -> list[tuple[Any, ...]]:
    if conn is not None:
        with suppress(apsw.Error, ValueError):
            return conn.execute(
                "SELECT reason, id, hlc, dev, digest, deleted, text, metadata, payload, vector"
                " FROM quarantine ORDER BY number"
            ).fetchall()
    found: dict[int, tuple[Any, ...]] = {}
    for number, (_, reason, *edit, vector) in image.records(_QUARANTINE_COLUMNS):
        id, hlc, dev, digest, deleted, *content = edit
        has = vector is not None
        row = (id, hlc, dev, digest, deleted, has, True, None, *content, reason)
        own = vector if isinstance(vector, bytes) else None
        if isinstance(reason, str) and (believed := _believed(row, own, None)) is not None:
            found[number] = (reason, *believed[0][1:-1], vector)
    return [found[number] for number in sorted(found)]


def _believed(
    row: tuple[Any, ...], vector: bytes | None, own: bool | None, *, moved: bool = False
) -> tuple[tuple[Any, ...], int | None] | None:
    """Return a row as the quarantine has it, and the commit that it was pushed with, if it was.

    None for what nobody wrote.

    Args:
        vector: Its vector, if that can be read.
        own: Whether the callers brought the vectors, so that the digest is of it too; None where
            that is not known.
        moved: The digest may be of a vector that was forgotten when the session was moved.
    """
    id, hlc, dev, digest, deleted, has_vector, dirty, pushed, text, metadata, payload, reason = row
    sizes = (isinstance(dev, bytes) and len(dev), isinstance(digest, bytes) and len(digest))
    if not (isinstance(id, str) and isinstance(hlc, int) and isinstance(text, str)):
        return None
    if sizes != (DEVICE_BYTES, DIGEST_BYTES) or not isinstance(payload, str | None):
        return None
    try:
        read_metadata(metadata)
    except (ValueError, TypeError, AttributeError):
        return None

    def is_whole(own_vector: bytes | None) -> bool:
        written = (id, digest, deleted, has_vector, text, metadata, payload)
        return digests.is_as_written(written, own_vector)

    kept = None
    if own is not False and vector is not None and not deleted and is_whole(vector):
        kept = vector
    elif not is_whole(None):
        has_gone = has_vector and vector is None and own is not False
        if deleted or not (has_gone or (moved and own is False)):
            return None
        reason = DOUBTFUL  # the digest may be of its vector too
    edit = (reason, id, *Version(hlc, dev, digest), int(bool(deleted)), text, metadata, payload)
    # Of the two that tell that it was pushed, one that is damaged must not make it forgotten.
    return (*edit, kept), pushed if isinstance(pushed, int) and not dirty else None
