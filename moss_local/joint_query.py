"""One query of several open sessions together, such as a call's own and what is known long since.

The text is embedded once, every session is read at once, and the results are one order: what each
session says is normalised together with the others. Each result names its session.
"""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter

from numpy.typing import ArrayLike

from moss_local.model_choice import CUSTOM_ID
from moss_local.options import QueryChoice, choose_query
from moss_local.runtime import runtime
from moss_local.search.query import Hit, ask, search_several
from moss_local.session import SessionIndex, asked_of, result_of
from moss_local.storage.state import read_state
from moss_local.types import QueryOptions, SearchResult
from moss_sync import InvalidArgumentError, VectorSpace

DEFAULT_TOP_K = 10
"""Twice that of one session, as in the hosted SDK: there is more to choose from."""

MAX_SESSIONS = 64
"""Sessions in one query: as many files as a process keeps open."""


async def query_several(
    sessions: Sequence[SessionIndex], query: str, options: QueryOptions | None, *, now_ms: int
) -> SearchResult:
    """Search open sessions together; see `MossClient.query_multi`."""
    started = perf_counter()
    if not isinstance(query, str):
        raise InvalidArgumentError(f"a query is a str, not {type(query).__name__}")
    choice = choose_query(options, now_ms=now_ms, default_top_k=DEFAULT_TOP_K)
    if not sessions:
        raise InvalidArgumentError(
            "a query of several sessions needs at least one index name or session"
        )
    different = list({session._file: session for session in reversed(sessions)}.values())[::-1]
    if len(different) > MAX_SESSIONS:
        raise InvalidArgumentError(f"{len(different)} sessions are more than {MAX_SESSIONS}")
    found, model_id = await runtime.blocking(_spaces, different)
    filled = [session for session, _ in found]
    by_meaning = choice.alpha > 0.0
    if by_meaning and choice.embedding is None:
        _check_not_custom(found)
    if by_meaning or choice.embedding is not None:
        _check_same_space(found)
    hits: list[tuple[int, Hit]] = []
    if filled and choice.top_k:
        if choice.embedding is not None or choice.alpha == 0.0:
            # By word alone nothing is embedded: custom sessions can be asked without a vector.
            hits = await runtime.blocking(_search, filled, query, choice.embedding, choice)
        elif query.strip():
            hits = await runtime.embedding(_embed_and_search, filled, query, choice)
    return SearchResult(
        docs=[result_of(hit, filled[which].name) for which, hit in hits],
        query=query,
        time_taken_ms=round((perf_counter() - started) * 1000),
        model_id=model_id,
    )


def _spaces(
    sessions: Sequence[SessionIndex],
) -> tuple[list[tuple[SessionIndex, VectorSpace | None]], str]:
    """Return the sessions that have documents with what their vectors are of, and the model's id.

    An empty session has nothing to say, and whatever it would be of is no hindrance.
    """
    found: list[tuple[SessionIndex, VectorSpace | None]] = []
    for session in sessions:
        with session._file.reading() as conn:
            state = read_state(conn)
        if state.live:
            found.append((session, session._model.space(state.space)))
    return found, (found[0][0] if found else sessions[0]).model_id


def _check_not_custom(found: Sequence[tuple[SessionIndex, VectorSpace | None]]) -> None:
    for session, space in found:
        if space is None or space.id == CUSTOM_ID:
            raise InvalidArgumentError(
                f"session {session.name!r} is of model 'custom': a query needs an embedding",
                hint="pass QueryOptions(embedding=...), or alpha=0.0 to search by word only",
            )


def _check_same_space(found: Sequence[tuple[SessionIndex, VectorSpace | None]]) -> None:
    known = [(session, space) for session, space in found if space is not None]
    for session, space in known[1:]:
        first, wanted = known[0]
        if (space.fingerprint, space.dim) != (wanted.fingerprint, wanted.dim):
            raise InvalidArgumentError(
                f"session {first.name!r} has vectors of {_shown(wanted)},"
                f" session {session.name!r} of {_shown(space)}: one query cannot compare both",
                hint="query them one by one, or by word only with alpha=0.0",
            )


def _shown(space: VectorSpace) -> str:
    return f"{space.id!r} ({space.dim} dimensions)"


def _embed_and_search(
    sessions: Sequence[SessionIndex], query: str, choice: QueryChoice
) -> list[tuple[int, Hit]]:
    space = sessions[0]._stored_space()
    vector = sessions[0]._embed([query], kind="query")[0]
    return _search(sessions, query, vector, choice, space)


def _search(
    sessions: Sequence[SessionIndex],
    query: str,
    vector: ArrayLike | None,
    choice: QueryChoice,
    space: VectorSpace | None = None,
) -> list[tuple[int, Hit]]:
    return search_several(
        [session._file for session in sessions],
        ask(**asked_of(choice, query, vector)),
        at_once=runtime.at_once,
        low_memory=any(session._low_memory for session in sessions),
        space=space,
    )
