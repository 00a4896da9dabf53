"""Options as they come from callers, checked and with the defaults filled in.

Rules of this file: values in, values out. An option that is not offered yet is refused by name:
the hosted SDK drops some silently, and a filter that is not applied shows people what they must
not see.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from moss_local.types import DEFAULT_ALPHA, DEFAULT_TOP_K, GetDocumentsOptions, QueryOptions
from moss_sync import InvalidArgumentError

MAX_TOP_K = 1_000_000


@dataclass(frozen=True, slots=True)
class QueryChoice:
    """A query's options, complete."""

    embedding: Sequence[float] | None
    top_k: int
    alpha: float
    min_score: float | None


@dataclass(frozen=True, slots=True)
class GetChoice:
    """A fetch's options, complete."""

    doc_ids: Sequence[str] | None


def choose_query(options: QueryOptions | None) -> QueryChoice:
    """Return the choice that `options` make.

    Raises:
        InvalidArgumentError: an option is wrong or not offered.
    """
    if options is None:
        options = QueryOptions()
    _refuse(options, "filter", "group_by", "candidate_depth")
    embedding = options.embedding
    if embedding is not None and not len(embedding):
        raise InvalidArgumentError("the embedding of the query is empty")
    alpha = _unit("alpha", options.alpha)
    min_score = _unit("min_score", options.min_score)
    if min_score is not None and alpha == 0.0:
        raise InvalidArgumentError(
            "min_score is a similarity of vectors; with alpha=0.0 the search is by word only"
        )
    return QueryChoice(
        embedding,
        _top_k(options.top_k),
        DEFAULT_ALPHA if alpha is None else alpha,
        min_score,
    )


def choose_get(options: GetDocumentsOptions | None) -> GetChoice:
    """Return the choice that `options` make.

    Raises:
        InvalidArgumentError: an option is wrong or not offered.
    """
    if options is None:
        return GetChoice(None)
    _refuse(options, "filter", "sort_by", "ascending", "group_by")
    if isinstance(options.doc_ids, str):
        raise InvalidArgumentError("doc_ids is a list of ids, not one str")
    return GetChoice(None if options.doc_ids is None else list(options.doc_ids))


def _top_k(value: int | None) -> int:
    if value is None:
        return DEFAULT_TOP_K
    if type(value) is not int or not 0 <= value <= MAX_TOP_K:
        raise InvalidArgumentError(f"top_k is an int from 0 to {MAX_TOP_K}, not {value!r:.60}")
    return value


def _unit(name: str, value: float | None) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 <= value <= 1.0:
        raise InvalidArgumentError(f"{name} is a number from 0.0 to 1.0, not {value!r:.60}")
    return float(value)


def _refuse(options: QueryOptions | GetDocumentsOptions, *names: str) -> None:
    for name in names:
        if getattr(options, name) is not None:
            raise InvalidArgumentError(
                f"{name} is not offered by this version of moss_local",
                hint=f"leave {name} out; nothing was searched",
            )
