"""Forgetting: documents out of this device's file and out of every blob of the store.

  1 pull, if the store answers: what is to go may have been written elsewhere
  2 delete, and drop all that is kept of it here, in one transaction
                                         crash: deleted, and kept versions gone; bytes in the file
  3 push the deletions, rewrite the session without what was replaced, delete what held it
                                         crash: some of it may still be in the store
  4 drop again what came meanwhile, write the file anew, and delete what repairs moved aside of it,
    which may hold the same
Each step may be done again, so the whole is done again where it was cut off.
What holds: tests/moss_local/test_forget.py. Source: SYNC-PROTOCOL 2.15.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence

from moss_local.errors import ErasureIncompleteError
from moss_local.exchange import Exchange
from moss_local.runtime import runtime
from moss_local.storage.erasure import purge_history, scrub
from moss_local.storage.file import SessionFile, moved_aside, remove_all
from moss_local.storage.salvage import beside
from moss_local.types import Forgotten
from moss_sync import KeyRotatedError, MossError, NotInLogModeError, SyncReport
from moss_sync.errors import repair_command

SHOWN_IDS = 5


async def forget(
    file: SessionFile,
    exchange: Exchange,
    ids: Sequence[str],
    erase: Callable[[], tuple[int, int]],
) -> Forgotten:
    """Forget documents; see `SessionIndex.forget`.

    Args:
        erase: Does step 2.
    """
    _refuse_kept(file, exchange.name)
    trouble: MossError | None = None
    report = SyncReport()
    try:
        await runtime.on_loop(exchange.check_erasable())
        await runtime.on_loop(exchange.pull())
    except NotInLogModeError:
        raise
    except MossError as error:
        trouble = error
    documents, versions = await runtime.blocking(erase)
    if trouble is None:
        try:
            report = await runtime.on_loop(exchange.erase())
        except MossError as error:
            trouble = error
    more, aside = await runtime.blocking(_wipe, file, ids)
    versions += more
    _refuse_kept(file, exchange.name)  # by a repair that came in between
    if trouble is not None:
        raise _incomplete(exchange.name, ids, trouble) from trouble
    return Forgotten(documents, versions, report, aside)


def _wipe(file: SessionFile, ids: Sequence[str]) -> tuple[int, int]:
    with file.writing() as conn:
        versions = purge_history(conn, ids)
    scrub(file)
    return versions, remove_all(moved_aside(file.path))


def _refuse_kept(file: SessionFile, session: str) -> None:
    if beside(file.path).exists():
        raise ErasureIncompleteError(
            f"a repair of session {session!r} was cut off, and what it has kept may hold them",
            hint=f"end it, and forget them then: {repair_command(session)}",
        )


def _first(cause: MossError) -> str:
    """Return what must come before another try, as the beginning of a hint."""
    if isinstance(cause, KeyRotatedError) and cause.hint is not None:
        return f"{cause.hint}; then"
    return "when the store answers,"


def _incomplete(session: str, ids: Sequence[str], cause: MossError) -> ErasureIncompleteError:
    words = [shlex.quote(id) for id in ids[:SHOWN_IDS]] + ["..."] * (len(ids) > SHOWN_IDS)
    return ErasureIncompleteError(
        f"gone from this device, and not yet from the store: {cause}",
        hint=f"{_first(cause)} the same again ends it: moss-local forget "
        f"{shlex.quote(session)} {' '.join(words)}",
        detail=cause.code,
    )
