"""Where a session stands towards its store: what its file knows, and what the last error said."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import apsw

from moss_local.storage.file import SessionFile
from moss_local.storage.state import read_state
from moss_local.types import SyncState
from moss_sync import ClockError, MossError, NetworkError, PermissionDeniedError


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why the last exchange failed.

    Attributes:
        stopped: Waiting does not help; somebody must do something.
    """

    stopped: bool
    reason: str
    code: str
    hint: str | None


def trouble_of(error: MossError) -> Trouble | None:
    """Return what an error says of a session and its store; None if it speaks of neither.

    Refused credentials pass for absence: they are renewed without anybody touching the session,
    and an expired one must not take the agent's memory away. A clock that is wrong may be set.
    """
    if isinstance(error, NetworkError | PermissionDeniedError | ClockError):
        return Trouble(False, str(error), error.code, error.hint)
    if error.retryable:  # this device's own: a busy file, a full disk
        return None
    return Trouble(True, str(error), error.code, error.hint)


def standing(
    file: SessionFile, *, trouble: Trouble | None = None, under_way: bool = False
) -> SyncState:
    """Return where the session of a file stands; one read.

    Args:
        trouble: Of the last exchange. Trying again is no cure: it counts until one succeeds.
        under_way: An exchange is running.
    """
    with file.reading() as conn:
        return standing_in(conn, trouble=trouble, under_way=under_way)


def standing_in(
    conn: apsw.Connection, *, trouble: Trouble | None = None, under_way: bool = False
) -> SyncState:
    """As `standing`, in a transaction of the caller's."""
    exchanged_ms = read_state(conn).exchanged_ms
    pending = cast(int, conn.execute("SELECT count(*) FROM document WHERE dirty > 0").get)
    if trouble is not None:
        return SyncState(
            "stopped" if trouble.stopped else "offline",
            pending,
            exchanged_ms,
            trouble.reason,
            trouble.code,
            trouble.hint,
        )
    if under_way:
        return SyncState("syncing", pending, exchanged_ms)
    if pending:
        return SyncState("pending", pending, exchanged_ms)
    return SyncState("never" if exchanged_ms is None else "synced", 0, exchanged_ms)


def newest_unpushed(file: SessionFile) -> int | None:
    """Return the number of the last change that is not pushed, or None; one row at most is read."""
    with file.reading() as conn:
        newest = conn.execute("SELECT max(changed) FROM document WHERE dirty > 0").get
    return cast(int | None, newest)
