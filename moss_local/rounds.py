"""A round: the exchanges of many sessions, so many at a time.

Where every session is meant, the store is first asked what has changed, one request per thousand
sessions, and only those are exchanged that have changed there or here. What is skipped is what an
exchange would have found unchanged by one request each: the same ETag, all of it merged, nothing
to push.
What holds: tests/moss_local/test_rounds.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import get_args

from moss_local.catalog import Standing
from moss_local.embedding.base import Progress
from moss_local.session import SessionIndex
from moss_local.types import Synced, Verb
from moss_sync import InvalidArgumentError, MossError, NetworkError, SyncReport

MAX_AT_ONCE = 64
"""Each has its file and up to so many requests open."""


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
        unreadable: Why what else there is cannot be exchanged.
    """

    names: Sequence[str]
    idle: Mapping[str, Standing] = field(default_factory=dict)
    unreadable: Sequence[MossError] = ()


async def go_round(
    planned: Round,
    verb: Verb,
    opened: Callable[[str], Awaitable[SessionIndex]],
    *,
    at_once: int,
    progress: Progress | None,
) -> list[Synced]:
    """Exchange the sessions of a round; one result each, in the same order.

    Args:
        opened: Opens a session.
        progress: Called with (sessions done, sessions in all).
    """
    names, idle = planned.names, planned.idle
    results: dict[str, Synced] = {}
    left, failures = iter(names), 0
    away: NetworkError | None = None

    async def work() -> None:
        nonlocal failures, away
        for name in left:
            standing = idle.get(name)
            if standing is not None:
                done = Synced(name, SyncReport(seq=standing.seq))
            elif away is not None:
                done = Synced(name, SyncReport(), away)
            else:
                done = await _exchange(verb, name, opened)
                if isinstance(done.error, NetworkError):
                    failures += 1
                    # The others would only wait for the same store.
                    away = done.error if failures >= at_once else None
                elif done.report.requests:
                    failures = 0
            results[name] = done
            if progress is not None:
                progress(len(results), len(names))

    tasks = [asyncio.ensure_future(work()) for _ in range(min(at_once, len(names)))]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)  # until their sessions are closed
    unreadable = [Synced(str(error), SyncReport(), error) for error in planned.unreadable]
    return [results[name] for name in names] + unreadable


async def _exchange(
    verb: Verb, name: str, opened: Callable[[str], Awaitable[SessionIndex]]
) -> Synced:
    try:
        async with await opened(name) as session:
            return Synced(name, await _VERBS[verb](session))
    except MossError as error:
        return Synced(name, error.report or SyncReport(), error)


async def _push(session: SessionIndex) -> SyncReport:
    return (await session.push_index()).report


_VERBS: dict[Verb, Callable[[SessionIndex], Awaitable[SyncReport]]] = {
    "push": _push,
    "pull": SessionIndex.pull,
    "sync": SessionIndex.sync,
}
