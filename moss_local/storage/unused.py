"""Taking back the file of a session that was opened for nothing.

What holds: tests/moss_local/test_cli.py. Nothing that anybody wrote is ever removed: it is looked
for once more when nobody else has the file open, and from then on nobody can open it.
"""

from __future__ import annotations

import time
from pathlib import Path

import apsw

from moss_local.storage import connection
from moss_local.storage.failures import translated
from moss_local.storage.file import remove_session_file

WAIT_S = 1.0
"""For what still runs in the background of a session that was just closed, such as its warming up.
Whoever else has the file open longer than that keeps it."""


def remove_unused(path: Path, *, key: bytes | None) -> bool:
    """Delete a session's file if nothing was ever in it; return whether that was done.

    It stays, too, while anybody has it open.

    Args:
        key: Of an encrypted file.
    """
    with translated(path):
        try:
            conn = connection.connect(path, durability="full", busy_ms=0, key=key)
        except apsw.CantOpenError:
            return False  # most of all because it is not there
        try:
            if not (_is_unused(conn) and _take_alone(conn) and _is_unused(conn)):
                return False
            connection.mark_removed(conn)
        finally:
            conn.close()
    # By who opens it next, if this is cut off here.
    remove_session_file(path, key=key, only_marked=True)
    return True


def _take_alone(conn: apsw.Connection) -> bool:
    deadline = time.monotonic() + WAIT_S
    while not connection.take_alone(conn):
        if time.monotonic() >= deadline:
            return False
        time.sleep(WAIT_S / 50)
    return True


def _is_unused(conn: apsw.Connection) -> bool:
    return not conn.execute(
        "SELECT (SELECT local_seq FROM state) OR EXISTS (SELECT 1 FROM document)"
        " OR EXISTS (SELECT 1 FROM quarantine) OR EXISTS (SELECT 1 FROM seen)"
    ).get
