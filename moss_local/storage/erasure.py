"""Making what was deleted unreadable, also for who reads the file's bytes.

A row that is deleted only gives its bytes free. Copies of a text are in the history, in the
keyword index, in free pages, in unused parts of pages and in the log; so the file is written anew
from what is left in it, which takes about as long as copying it.
What holds (tests/moss_local/test_storage_erasure.py): after both, no byte of the texts, metadata,
payloads and vectors is in the file, its log or its index of the log.
"""

from __future__ import annotations

from collections.abc import Iterable

import apsw

from moss_local.storage.documents import check_id
from moss_local.storage.file import SessionFile


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
