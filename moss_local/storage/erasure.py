"""Making what was deleted unreadable, also for who reads the file's bytes.

A row that is deleted only gives its bytes free. Copies of a text are in the history, in the
keyword index, in free pages, in unused parts of pages and in the log; so the file is written anew
from what is left in it, which takes about as long as copying it.
What holds (tests/moss_local/test_storage_erasure.py): after both, no byte of the texts, metadata,
payloads and vectors is in the file, its log or its index of the log.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import apsw

from moss_local.storage.documents import check_id
from moss_local.storage.edits import delete_documents
from moss_local.storage.file import SessionFile
from moss_sync import manifest


def erase_documents(conn: apsw.Connection, ids: Sequence[str], *, now_ms: int) -> tuple[int, int]:
    """Delete documents and all that is kept of them here; return how many, and how many versions.

    Their tombstones stay, to be pushed. Their bytes are out of the file after `scrub`.

    Raises:
        InvalidArgumentError: an id that no document can have; nothing is changed.
    """
    deleted = delete_documents(conn, ids, now_ms=now_ms)
    # A push that was prepared holds their texts; what else is in it goes with the next one.
    conn.executemany(
        "DELETE FROM pending WHERE n IN (SELECT n FROM pending_doc WHERE id = ?)",
        [(id,) for id in ids],
    )
    _drop_remembered_pushes(conn)
    return deleted, purge_history(conn, ids)


def _drop_remembered_pushes(conn: apsw.Connection) -> None:
    """Forget the small pushes that ride in the remembered manifest, which is then read again."""
    plain = conn.execute("SELECT plain FROM seen").get
    if not plain:
        return
    known = manifest.decode(plain, what="the remembered manifest")
    if known.inline:
        stripped = manifest.encode(replace(known, inline=()))
        conn.execute("UPDATE seen SET plain = ?, etag = NULL", (stripped,))


def purge_history(conn: apsw.Connection, ids: Iterable[str]) -> int:
    """Drop every kept version of these documents, set-aside edits too; return how many.

    Call it after the documents were deleted: that is what brings their last texts there. Their
    bytes are out of the file after `scrub`.

    Raises:
        InvalidArgumentError: an id that no document can have; none is dropped.
    """
    wanted = [(id,) for id in dict.fromkeys(ids)]
    for (id,) in wanted:
        check_id(id)
    before = conn.total_changes()
    conn.executemany("DELETE FROM history WHERE id = ?", wanted)
    conn.executemany("DELETE FROM quarantine WHERE id = ?", wanted)
    return conn.total_changes() - before


def scrub(file: SessionFile) -> None:
    """Leave nothing of what was deleted in the file's bytes. Blocks for about a copy of the file.

    Raises:
        FileBusyError, DiskFullError: as `SessionFile.rewrite`; call it again.
    """
    with file.writing() as conn:
        # Deleted words stay in the segments of a contentless index until these are merged.
        conn.execute("INSERT INTO keyword (keyword) VALUES ('optimize')")
    file.rewrite()
