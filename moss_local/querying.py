"""Queries: of one session, and of several together, such as a call's own and a long known one.

Of several the text is embedded once, every session is read at once, and the results are one order:
what each session says is normalised together with the others. Each result names its session.
"""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter

import numpy as np
from numpy.typing import ArrayLike, NDArray

from moss_local.arguments import sound_text
from moss_local.errors import ModelNotFoundError
from moss_local.local import MOVES, Local, moved_too_often
from moss_local.model_choice import CUSTOM_ID
from moss_local.options import QueryChoice, choose_query
from moss_local.runtime import runtime
from moss_local.search.query import Asked, Hit, ask, is_warm, search, search_several
from moss_local.storage.encoding import check_vector
from moss_local.types import (
    DEFAULT_TOP_K,
    DocumentInfo,
    QueryOptions,
    QueryResultDocumentInfo,
    SearchResult,
)
from moss_sync import InvalidArgumentError, ModelMismatchError, VectorSpace

QUICK_DOCUMENTS = 10_000
"""Up to here a query with a given vector takes about a millisecond (by vector 0.8 ms at 10 000) and
runs on the caller's thread (a hop to another costs 0.24-0.5 ms), but for the first one, which reads
the whole file."""

SEVERAL_TOP_K = 10
"""Of several, by default. Twice that of one, as in the hosted SDK: there is more to choose from."""

MAX_SESSIONS = 64
"""Sessions in one query: as many files as a process keeps open."""


async def query_one(local: Local, query: str, options: QueryOptions | None) -> SearchResult:
    """Search one session; see `SessionIndex.query`."""
    started = perf_counter()
    choice = _choice(query, options, now_ms=local.now_ms())
    state = local.state()
    space, blank = state.space, not query.strip()
    if local.model.id(space) == CUSTOM_ID and choice.embedding is None:
        raise InvalidArgumentError(
            f"session {local.name!r} is of model 'custom': a query needs an embedding",
            hint="pass QueryOptions(embedding=...)",
        )
    hits: list[Hit] = []
    if choice.embedding is not None:
        dim = None if space is None else space.dim
        vector = check_vector(choice.embedding, dim=dim, what="the embedding of the query")
        if state.live <= QUICK_DOCUMENTS and is_warm(local.file) and not local.low_memory:
            hits = _search_one(local, query, vector, choice)
        else:
            hits = await runtime.blocking(_search_one, local, query, vector, choice)
    elif not blank and choice.top_k and state.live:
        try:
            hits = await runtime.embedding(_embed_and_search_one, local, query, choice)
        except ModelNotFoundError:
            if choice.alpha != 0.0:
                raise
            # What is found by word needs no model; only its score does.
            hits = await runtime.blocking(_search_one, local, query, None, choice)
    return SearchResult(
        docs=[_result_of(hit, local.name) for hit in hits],
        query=query,
        index_name=local.name,
        time_taken_ms=round((perf_counter() - started) * 1000),
        model_id=local.model.id(space),
    )


async def query_several(
    sessions: Sequence[Local], query: str, options: QueryOptions | None, *, now_ms: int
) -> SearchResult:
    """Search open sessions together; see `MossClient.query_multi`."""
    started = perf_counter()
    choice = _choice(query, options, now_ms=now_ms, default_top_k=SEVERAL_TOP_K)
    if not sessions:
        raise InvalidArgumentError(
            "a query of several sessions needs at least one index name or session"
        )
    different = list({session.file: session for session in reversed(sessions)}.values())[::-1]
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
            hits = await runtime.blocking(_search_several, filled, query, choice.embedding, choice)
        elif query.strip():
            hits = await runtime.embedding(_embed_and_search_several, filled, query, choice)
    return SearchResult(
        docs=[_result_of(hit, filled[which].name) for which, hit in hits],
        query=query,
        time_taken_ms=round((perf_counter() - started) * 1000),
        model_id=model_id,
    )


def _spaces(
    sessions: Sequence[Local],
) -> tuple[list[tuple[Local, VectorSpace | None]], str]:
    """Return the sessions that have documents with what their vectors are of, and the model's id.

    An empty session has nothing to say, and whatever it would be of is no hindrance.
    """
    found: list[tuple[Local, VectorSpace | None]] = []
    for session in sessions:
        state = session.state()
        if state.live:
            found.append((session, session.model.space(state.space)))
    return found, (found[0][0] if found else sessions[0]).model_id()


def _check_not_custom(found: Sequence[tuple[Local, VectorSpace | None]]) -> None:
    for session, space in found:
        if space is None or space.id == CUSTOM_ID:
            raise InvalidArgumentError(
                f"session {session.name!r} is of model 'custom': a query needs an embedding",
                hint="pass QueryOptions(embedding=...), or alpha=0.0 to search by word only",
            )


def _check_same_space(found: Sequence[tuple[Local, VectorSpace | None]]) -> None:
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


def _embed_and_search_several(
    sessions: Sequence[Local], query: str, choice: QueryChoice
) -> list[tuple[int, Hit]]:
    space = sessions[0].space()
    vector = sessions[0].embed([query], kind="query")[0]
    return _search_several(sessions, query, vector, choice, space)


def _search_several(
    sessions: Sequence[Local],
    query: str,
    vector: ArrayLike | None,
    choice: QueryChoice,
    space: VectorSpace | None = None,
) -> list[tuple[int, Hit]]:
    return search_several(
        [session.file for session in sessions],
        ask(**_asked(choice, query, vector)),
        at_once=runtime.at_once,
        low_memory=any(session.low_memory for session in sessions),
        space=space,
    )


def _embed_and_search_one(local: Local, query: str, choice: QueryChoice) -> list[Hit]:
    for _ in range(MOVES):
        space = local.space()
        vector = local.embed([query], kind="query")[0]
        try:
            return _search_one(local, query, vector, choice, space)
        except ModelMismatchError:
            if local.space() == space:
                raise
    raise moved_too_often(local.name)


def _search_one(
    local: Local,
    query: str,
    vector: NDArray[np.float32] | None,
    choice: QueryChoice,
    space: VectorSpace | None = None,
) -> list[Hit]:
    asked = _asked(choice, query, vector)
    return search(local.file, low_memory=local.low_memory, space=space, **asked)


def _choice(
    query: str, options: QueryOptions | None, *, now_ms: int, default_top_k: int = DEFAULT_TOP_K
) -> QueryChoice:
    if not isinstance(query, str):
        raise InvalidArgumentError(f"a query is a str, not {type(query).__name__}")
    sound_text(query, "the query")
    return choose_query(options, now_ms=now_ms, default_top_k=default_top_k)


def _asked(choice: QueryChoice, text: str, vector: ArrayLike | None) -> Asked:
    """Return what a query with these options looks for."""
    return {
        "text": text,
        "vector": vector,
        "alpha": choice.alpha,
        "top_k": choice.top_k,
        "min_score": choice.min_score,
        "filter": choice.filter,
        "group_by": choice.group_by,
        "candidate_depth": choice.candidate_depth,
        "context": choice.context,
        "recency": choice.recency,
        "threaded": choice.threaded,
    }


def _result_of(hit: Hit, name: str) -> QueryResultDocumentInfo:
    """Return a hit in the session of that name as callers get it."""
    return QueryResultDocumentInfo(
        hit.id,
        hit.text,
        hit.metadata,
        hit.score,
        name,
        hit.payload,
        [_turn_of(turn) for turn in hit.before],
        [_turn_of(turn) for turn in hit.after],
    )


def _turn_of(hit: Hit) -> DocumentInfo:
    return DocumentInfo(hit.id, hit.text, hit.metadata, None, hit.payload)
