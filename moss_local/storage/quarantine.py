"""Edits that were set aside: they may not be pushed again by themselves, and must not be lost.

The sync side puts them here, where it finds that this file is an old copy, that the session was
deleted elsewhere, or, after a repair, that a document may have been deleted; what becomes of each
is for the user to say.
What holds: tests/moss_local/test_history.py, test_salvage.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import apsw

from moss_local.storage.documents import read_metadata
from moss_local.storage.history import StoredVersion
from moss_sync import InvalidArgumentError, NotFoundError, Version


@dataclass(frozen=True, slots=True)
class SetAside:
    """One edit that was set aside.

    Attributes:
        number: Names it in this file.
        reason: Why, in a word of the protocol.
    """

    number: int
    reason: str
    edit: StoredVersion


def read_quarantine(conn: apsw.Connection) -> list[SetAside]:
    """Return what was set aside, oldest first, without vectors."""
    rows = conn.execute(
        "SELECT number, reason, id, hlc, dev, digest, deleted, text, metadata, payload, NULL"
        " FROM quarantine ORDER BY number"
    )
    return [_stored(row) for row in rows]


def find_set_aside(conn: apsw.Connection, number: int) -> SetAside:
    """Return one with its vector, as the session's vectors were encoded then.

    Raises:
        NotFoundError: there is none of this number.
    """
    _check_number(number)
    row = conn.execute(
        "SELECT number, reason, id, hlc, dev, digest, deleted, text, metadata, payload, vector"
        " FROM quarantine WHERE number = ?",
        (number,),
    ).fetchone()
    if row is None:
        raise _unknown(number)
    return _stored(row)


def discard_set_aside(conn: apsw.Connection, number: int) -> None:
    """Drop one.

    Raises:
        NotFoundError: there is none of this number.
    """
    _check_number(number)
    conn.execute("DELETE FROM quarantine WHERE number = ?", (number,))
    if not conn.changes():
        raise _unknown(number)


def _check_number(number: int) -> None:
    if type(number) is not int:
        raise InvalidArgumentError(
            f"an edit that was set aside is named by its number, an int, not {number!a:.60}",
            hint="take it from session.quarantined(), or from: moss-local quarantine SESSION",
        )
    if not 0 < number < 2**63:  # no other is a row's
        raise _unknown(number)


def _unknown(number: int) -> NotFoundError:
    return NotFoundError(
        f"no edit of number {number} is set aside",
        hint="list those that are with: moss-local quarantine SESSION",
    )


def _stored(row: Any) -> SetAside:
    number, reason, id, hlc, dev, digest, deleted, text, metadata, payload, vector = row
    version = Version(hlc, dev, digest)
    fields = (bool(deleted), text, read_metadata(metadata), payload, None, vector)
    return SetAside(number, reason, StoredVersion(id, version, *fields))
