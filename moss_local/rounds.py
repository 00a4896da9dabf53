"""A round: the exchanges of many sessions, so many at a time.

Where every session is meant, the store is first asked what has changed, one request per thousand
sessions, and only those are exchanged that have changed there or here. What is skipped is what an
exchange would have found unchanged by one request each: the same ETag, all of it merged, nothing
to push.
What holds: tests/moss_local/test_rounds.py.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol, get_args

from moss_local.catalog import Standing
from moss_local.embedding.base import Progress
from moss_local.session import SessionIndex
from moss_local.types import Synced, Verb
from moss_sync import (
    ContentionError,
    InvalidArgumentError,
    MossError,
    NetworkError,
    NotFoundError,
    PermissionDeniedError,
    SyncReport,
)

MAX_AT_ONCE = 64
"""Each has its file and its requests open."""

GIVE_UP = 8
"""Failures in a row, and as many as run at a time, after which the store counts as away."""

_log = logging.getLogger("moss_local")


def check_round(verb: str, at_once: int) -> None:
    """Refuse a round that cannot be.

    Raises:
        InvalidArgumentError: which argument is wrong.
    """
    if verb not in get_args(Verb):
        raise InvalidArgumentError(f"exchange is 'push', 'pull' or 'sync', not {verb!r}")
    whole = isinstance(at_once, int) and not isinstance(at_once, bool)
    if not whole or not 1 <= at_once <= MAX_AT_ONCE:
        raise InvalidArgumentError(f"at_once is a number from 1 to {MAX_AT_ONCE}, not {at_once!r}")


@dataclass(frozen=True, slots=True)
class Round:
    """What to exchange.

    Attributes:
        names: Of the sessions, each once, in the order in which they begin.
        idle: Those of them that there is nothing to exchange of.
        elsewhere: Those that are in the store only, and are made here.
        unreadable: Why what else there is cannot be exchanged.
        every: All that there are; what has gone since is then left out.
    """

    names: Sequence[str]
    idle: Mapping[str, Standing] = field(default_factory=dict)
    elsewhere: frozenset[str] = frozenset()
    unreadable: Sequence[MossError] = ()
    every: bool = False


class Open(Protocol):
    """Opens a session, making its file where `create` is given."""

    def __call__(self, name: str, *, create: bool) -> Awaitable[SessionIndex]: ...


async def go_round(
    planned: Round,
    verb: Verb,
    opened: Open,
    closed: Callable[[], bool],
    *,
    at_once: int,
    progress: Progress | None,
) -> list[Synced]:
    """Exchange the sessions of a round; one result each, in the same order.

    Args:
        closed: Tells that nothing may be exchanged any more.
        progress: Called with (sessions done, sessions in all).
    """
    names = planned.names
    results: dict[str, Synced] = {}
    left, failures = iter(names), 0

    async def one(name: str) -> Synced:
        nonlocal failures
        standing = planned.idle.get(name)
        if standing is not None:
            return Synced(name, SyncReport(seq=standing.seq))
        if closed():
            return Synced(name, SyncReport(), _client_closed(), tried=False)
        if failures >= max(GIVE_UP, at_once):
            away = NetworkError(
                f"not tried: the store has failed {failures} times in a row",
                hint="see the errors of the sessions before; then try again",
            )
            return Synced(name, SyncReport(), away, tried=False)
        create = name in planned.elsewhere
        done = await _exchange(verb, partial(opened, name, create=create), name, closed)
        if _is_away(done.error):
            failures += 1
        elif done.report.requests:
            failures = 0
        return done

    async def work() -> None:
        for name in left:
            results[name] = await one(name)
            if progress is not None:
                progress(len(results), len(names))

    tasks = [asyncio.ensure_future(work()) for _ in range(min(at_once, len(names)))]
    try:
        await asyncio.gather(*tasks)
    except BaseException as error:
        if not isinstance(error, asyncio.CancelledError):  # which `gather` has passed on
            for task in tasks:
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)  # until their sessions are closed
        raise
    done = [results[name] for name in names]
    if planned.every:
        done = [each for each in done if type(each.error) is not NotFoundError]
    return done + [Synced(str(error), SyncReport(), error) for error in planned.unreadable]


async def _exchange(
    verb: Verb,
    opened: Callable[[], Awaitable[SessionIndex]],
    name: str,
    closed: Callable[[], bool],
) -> Synced:
    report = SyncReport()
    try:
        async with await opened() as session:
            report = await _VERBS[verb](session)
        return Synced(name, report)
    except MossError as error:
        return Synced(name, error.report or report, error)
    except Exception as error:
        # One session's bug is no reason to lose what is known of the others.
        if closed():
            return Synced(name, report, _client_closed())
        _log.exception("session %r: exchanging failed", name)
        return Synced(name, report, MossError(f"{type(error).__name__}: {error}"))


def _client_closed() -> InvalidArgumentError:
    return InvalidArgumentError("the client was closed", hint="make another one, and sync again")


def _is_away(error: MossError | None) -> bool:
    """Return whether an error says that the store does not answer, or lets nobody in."""
    if isinstance(error, ContentionError):
        return False  # it does: others were faster
    return isinstance(error, NetworkError | PermissionDeniedError)


async def _push(session: SessionIndex) -> SyncReport:
    return (await session.push_index()).report


_VERBS: dict[Verb, Callable[[SessionIndex], Awaitable[SyncReport]]] = {
    "push": _push,
    "pull": SessionIndex.pull,
    "sync": SessionIndex.sync,
}
