"""What has changed in a session's file since a certain change of it.

Changes are numbered by the file (`document.changed`), and a document stands under the number of
its last one only. So the answer to "what since s" is one index scan; of several changes of one
document it gives the last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import apsw

from moss_local.storage.state import read_state


@dataclass(frozen=True, slots=True)
class Change:
    """A document's last change.

    Attributes:
        number: Of the change.
        deleted: The document is gone; else it is new, or another than before.
    """

    number: int
    id: str
    deleted: bool


def changes_since(conn: apsw.Connection, number: int, *, limit: int) -> Sequence[Change] | None:
    """Return up to `limit` changes after `number`, in order.

    None where they are not known: traces of deletions have been purged since, or the file is an
    older one than the number is from.
    """
    state = read_state(conn)
    if not state.journal_floor <= number <= state.local_seq:
        return None
    rows = conn.execute(
        "SELECT changed, id, deleted FROM document WHERE changed > ? ORDER BY changed LIMIT ?",
        (number, limit),
    )
    return [Change(cast(int, row[0]), cast(str, row[1]), bool(row[2])) for row in rows]
