"""The tables of a session's file, and how files of one version will become files of the next.

A file is ours by its `application_id` and of a version by its `user_version`. Each migration runs
in the one transaction that also raises the version, so a crash leaves the file at the old version
or the new one; two processes that meet at an old file run each migration once. There is one
version so far, and one migration: the one that makes the tables.

What holds (tests/moss_local/test_storage_schema.py): a file of a newer version, another program's
database and a file that is no database are refused with not a byte changed.

How the tables serve reading: `document.changed` is the local sequence number of a row's last
change, unique and rising, deletions included (a tombstone stays as a row), so that "what happened
since s" is one index scan and no journal of its own is kept. Purging tombstones raises
`journal_floor`; who stands below it reads everything anew.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import apsw

from moss_local.errors import FileBusyError, FileCorruptError
from moss_local.search.keywords import KEYWORD_VERSION, TOKENIZER, prepare_text
from moss_local.storage.state import read_state, update_state
from moss_sync import UnsupportedFormatError

APPLICATION_ID = 0x6D6F7373
"""'moss' in ASCII."""

REMOVED_ID = 0x676F6E65
"""'gone' in ASCII: the file is being deleted, and what is written into it would be lost."""

PAGE_SIZE = 2048
"""Bytes. The many mostly empty pages of a young file weigh 156 KB in all; 4096 makes that 209 KB
and is no faster here."""

DOCUMENT_ROOT = 2
"""The page at which the table of documents begins in every file that has its first table first.
Its rows can then be read where the schema is gone."""

VECTOR_CHUNK = 64
"""Vectors per chunk of vec0, which allocates whole chunks and fixes this at creation. Its default
of 1024 makes a session of one turn 1.6 MB."""

# Small columns come first: reading them then never follows the overflow pages of a long text.
_TABLES = """
CREATE TABLE document (
  rowid INTEGER PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,
  hlc INTEGER NOT NULL,
  dev BLOB NOT NULL,
  digest BLOB NOT NULL,
  deleted INTEGER NOT NULL,
  vector INTEGER NOT NULL,
  dirty INTEGER NOT NULL,
  changed INTEGER NOT NULL,
  commit_seq INTEGER,
  text TEXT NOT NULL,
  metadata TEXT,
  payload TEXT
) STRICT;
CREATE UNIQUE INDEX document_changed ON document (changed);
CREATE INDEX document_dirty ON document (changed) WHERE dirty > 0;
CREATE INDEX document_tombstone ON document (commit_seq) WHERE deleted = 1;
CREATE INDEX document_unembedded ON document (changed) WHERE deleted = 0 AND vector = 0;
CREATE TABLE state (
  one INTEGER PRIMARY KEY CHECK (one = 1),
  session TEXT NOT NULL,
  dev BLOB NOT NULL,
  inc BLOB NOT NULL,
  repo_id BLOB,
  n INTEGER NOT NULL DEFAULT 0,
  acked_n INTEGER NOT NULL DEFAULT 0,
  applied_seq INTEGER NOT NULL DEFAULT 0,
  hlc INTEGER NOT NULL DEFAULT 0,
  local_seq INTEGER NOT NULL DEFAULT 0,
  journal_floor INTEGER NOT NULL DEFAULT 0,
  live INTEGER NOT NULL DEFAULT 0,
  model_id TEXT,
  model_fingerprint TEXT,
  model_dim INTEGER,
  model_dtype TEXT,
  keyword_version INTEGER NOT NULL DEFAULT 0,
  exchanged_ms INTEGER,
  gen INTEGER NOT NULL DEFAULT 0,
  repairs INTEGER NOT NULL DEFAULT 0,
  acked_seq INTEGER NOT NULL DEFAULT 0,
  known_seq INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE seen (
  one INTEGER PRIMARY KEY CHECK (one = 1),
  seq INTEGER NOT NULL,
  hash BLOB NOT NULL,
  etag TEXT,
  plain BLOB NOT NULL
) STRICT;
CREATE TABLE pending (
  n INTEGER PRIMARY KEY,
  base INTEGER NOT NULL,
  key TEXT,
  tip BLOB NOT NULL,
  docs INTEGER NOT NULL,
  tombs INTEGER NOT NULL,
  plain INTEGER NOT NULL,
  hlc_max INTEGER NOT NULL,
  body BLOB NOT NULL
) STRICT;
CREATE TABLE pending_doc (
  id TEXT PRIMARY KEY,
  n INTEGER NOT NULL REFERENCES pending ON DELETE CASCADE,
  hlc INTEGER NOT NULL,
  dev BLOB NOT NULL,
  digest BLOB NOT NULL
) STRICT;
CREATE TABLE log_view (
  one INTEGER PRIMARY KEY CHECK (one = 1),
  plain BLOB NOT NULL
) STRICT;
CREATE TABLE quarantine (
  number INTEGER PRIMARY KEY,
  reason TEXT NOT NULL,
  id TEXT NOT NULL,
  hlc INTEGER NOT NULL,
  dev BLOB NOT NULL,
  digest BLOB NOT NULL,
  deleted INTEGER NOT NULL,
  text TEXT NOT NULL,
  metadata TEXT,
  payload TEXT,
  vector BLOB
) STRICT;
CREATE TABLE history (
  number INTEGER PRIMARY KEY,
  id TEXT NOT NULL,
  hlc INTEGER NOT NULL,
  dev BLOB NOT NULL,
  digest BLOB NOT NULL,
  deleted INTEGER NOT NULL,
  reason TEXT NOT NULL,
  bytes INTEGER GENERATED ALWAYS AS (octet_length(text) + ifnull(octet_length(metadata), 0)
    + ifnull(octet_length(payload), 0) + ifnull(octet_length(vector), 0)) STORED,
  text TEXT NOT NULL,
  metadata TEXT,
  payload TEXT,
  vector BLOB
) STRICT;
CREATE TABLE rejected (
  number INTEGER PRIMARY KEY,
  mark BLOB NOT NULL UNIQUE,
  what TEXT NOT NULL,
  reason TEXT NOT NULL
) STRICT;
CREATE UNIQUE INDEX history_content ON history (id, digest);
CREATE INDEX history_bytes ON history (number, bytes);
"""


class BeingDeletedError(FileBusyError):
    """Somebody is about to delete the file, or was cut off while doing so."""


class ForeignFileError(FileCorruptError):
    """The file is whole, and another program's or another session's."""


def foreign_file(path: Path, session: str) -> ForeignFileError:
    """Return the error of a file that is not where its session's is."""
    return ForeignFileError(
        f"{path} holds session {session!r}, whose file has another name",
        hint="it was renamed or copied here; move it back, or away",
    )


Migration = Callable[[apsw.Connection], None]


def _create_tables(conn: apsw.Connection) -> None:
    conn.execute(_TABLES)


MIGRATIONS: tuple[Migration, ...] = (_create_tables,)
"""Element v makes version v + 1 of version v. Append only: released ones never change."""


def current(conn: apsw.Connection, path: str) -> bool:
    """Return whether the file is of the newest version, only reading it.

    False means that `migrate` has something to do: an older file, or one without any content.

    Raises:
        UnsupportedFormatError: a newer version of this library wrote it.
        ForeignFileError: it is another program's database.
        apsw.CorruptError: it is a session's, and damaged.
    """
    application, version = conn.pragma("application_id"), conn.pragma("user_version")
    if application == REMOVED_ID:
        raise BeingDeletedError(
            f"{path} is being deleted by another process", hint="open the session again"
        )
    if application != APPLICATION_ID:
        if not is_empty(conn):
            if _holds_ours(conn):
                raise apsw.CorruptError("the file does not say any more that it is a session's")
            raise ForeignFileError(
                f"{path} is another program's database",
                hint="move it away, or name another data directory",
            )
        return False
    if version < 1:
        raise apsw.CorruptError("the file has no schema version, which was committed with the rest")
    if version > len(MIGRATIONS):
        raise UnsupportedFormatError(
            f"{path} has schema version {version}; this moss_local knows up to {len(MIGRATIONS)}",
            hint="upgrade it: pip install --upgrade moss-local",
        )
    return bool(version == len(MIGRATIONS))


def is_empty(conn: apsw.Connection) -> bool:
    """Return whether nothing was ever committed to the file."""
    said = conn.pragma("application_id") or conn.pragma("user_version")
    return not said and conn.execute("SELECT 1 FROM sqlite_schema").fetchone() is None


def _holds_ours(conn: apsw.Connection) -> bool:
    found = conn.execute(
        "SELECT count(*) FROM sqlite_schema WHERE name IN ('document', 'state', 'keyword')"
    )
    return bool(found.get == 3)


def migrate(
    conn: apsw.Connection,
    path: str,
    *,
    session: str,
    dev: bytes,
    inc: bytes,
) -> None:
    """Bring the file to the newest version, in the caller's write transaction.

    Args:
        session, dev, inc: Who the file is, if it has no content yet; else not used.
    Raises:
        As `current`, which is asked again inside: another process may have been here first.
    """
    if current(conn, path):
        return
    version = conn.pragma("user_version")
    for migration in MIGRATIONS[version:]:
        try:
            migration(conn)
        except apsw.SQLError as error:
            if not version:
                raise
            raise apsw.CorruptError(f"no file of schema version {version}: {error}") from error
    conn.execute(
        f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {len(MIGRATIONS)}"
    )
    if version == 0:
        conn.execute(
            "INSERT INTO state (one, session, dev, inc) VALUES (1, ?, ?, ?)", (session, dev, inc)
        )
        reindex(conn)


def keywords_current(conn: apsw.Connection) -> bool:
    """Return whether the keyword index was made by this version's preparation of texts."""
    return read_state(conn).keyword_version == KEYWORD_VERSION


def reindex(conn: apsw.Connection) -> None:
    """Make the keyword index anew from the documents, in the caller's write transaction."""
    conn.execute("DROP TABLE IF EXISTS keyword")
    # Contentless: the texts stand in `document` already. `contentless_delete` lets rows go by id.
    conn.execute(
        "CREATE VIRTUAL TABLE keyword USING fts5"
        f"""(text, content='', contentless_delete=1, tokenize="{TOKENIZER}")"""
    )
    texts = conn.execute("SELECT rowid, text FROM document WHERE deleted = 0 ORDER BY rowid")
    conn.executemany(
        "INSERT INTO keyword (rowid, text) VALUES (?, ?)",
        ((rowid, prepare_text(text)) for rowid, text in texts),
    )
    update_state(conn, keyword_version=KEYWORD_VERSION)


def create_vectors(conn: apsw.Connection, dim: int) -> None:
    """Make the vector table, once the session knows how long its vectors are."""
    conn.execute(
        "CREATE VIRTUAL TABLE vec USING vec0"
        f"(embedding float[{dim:d}] distance_metric=cosine, chunk_size={VECTOR_CHUNK})"
    )
