"""Options as they come from callers, checked and with the defaults filled in.

Rules of this file: values in, values out; the wall clock is an argument. What is wrong is refused:
the hosted SDK drops some options silently, and a filter that is not applied shows people what they
must not see.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from moss_local.arguments import sound_text
from moss_local.search.filters import Filter, parse_filter
from moss_local.types import (
    DEFAULT_ALPHA,
    DEFAULT_TOP_K,
    GetDocumentsOptions,
    MutationOptions,
    ParentGrouping,
    QueryOptions,
)
from moss_sync import InvalidArgumentError

MAX_TOP_K = 1_000_000

MAX_CONTEXT = 100
"""Turns on either side of a result: more is not context but the thread, which `thread()` gives."""


@dataclass(frozen=True, slots=True)
class QueryChoice:
    """A query's options, complete."""

    embedding: Sequence[float] | None
    top_k: int
    alpha: float
    filter: Filter | None
    group_by: ParentGrouping | None
    min_score: float | None
    candidate_depth: int | None
    context: int
    recency: float
    threaded: bool


@dataclass(frozen=True, slots=True)
class GetChoice:
    """A fetch's options, complete."""

    doc_ids: Sequence[str] | None = None
    filter: Filter | None = None
    sort_by: str | None = None
    ascending: bool = True
    group_by: ParentGrouping | None = None
    limit: int | None = None


def choose_query(
    options: QueryOptions | None, *, now_ms: int, default_top_k: int = DEFAULT_TOP_K
) -> QueryChoice:
    """Return the choice that `options` make.

    Args:
        now_ms: The wall clock, which a filter such as "last 7 days" reads.
    Raises:
        InvalidArgumentError: an option is wrong; the message names it.
    """
    options = _of_kind(options, QueryOptions) or QueryOptions()
    filter = None if options.filter is None else parse_filter(options.filter, now_ms=now_ms)
    embedding = options.embedding
    if embedding is not None and not len(embedding):
        raise InvalidArgumentError("the embedding of the query is empty")
    if options.threaded is not None and not isinstance(options.threaded, bool):
        raise InvalidArgumentError(f"threaded is True or False, not {options.threaded!r:.60}")
    alpha = _unit("alpha", options.alpha)
    min_score = _unit("min_score", options.min_score)
    if min_score is not None and alpha == 0.0:
        raise InvalidArgumentError(
            "min_score is a similarity of vectors; with alpha=0.0 the search is by word only"
        )
    return QueryChoice(
        embedding,
        _count("top_k", options.top_k, default_top_k, least=0),
        DEFAULT_ALPHA if alpha is None else alpha,
        filter,
        _grouping(options.group_by),
        min_score,
        _count("candidate_depth", options.candidate_depth, None, least=1),
        _context(options),
        _unit("recency", options.recency) or 0.0,
        options.threaded is not False,
    )


def choose_get(options: GetDocumentsOptions | None, *, now_ms: int) -> GetChoice:
    """Return the choice that `options` make.

    Raises:
        InvalidArgumentError: an option is wrong; the message names it.
    """
    options = _of_kind(options, GetDocumentsOptions) or GetDocumentsOptions()
    if isinstance(options.doc_ids, str):
        raise InvalidArgumentError("doc_ids is a list of ids, not one str")
    if options.sort_by is not None and not isinstance(options.sort_by, str):
        raise InvalidArgumentError(f"sort_by is the name of a field, not {options.sort_by!r:.60}")
    sound_text(options.sort_by or "", "sort_by")
    if options.ascending is not None and not isinstance(options.ascending, bool):
        raise InvalidArgumentError(f"ascending is True or False, not {options.ascending!r:.60}")
    return GetChoice(
        None if options.doc_ids is None else list(options.doc_ids),
        None if options.filter is None else parse_filter(options.filter, now_ms=now_ms),
        options.sort_by,
        options.ascending is not False,
        _grouping(options.group_by),
        _count("limit", options.limit, None, least=0),
    )


def choose_upsert(options: MutationOptions | None) -> bool:
    """Return whether documents that are there are replaced.

    Raises:
        InvalidArgumentError: the options are none.
    """
    options = _of_kind(options, MutationOptions) or MutationOptions()
    return True if options.upsert is None else options.upsert


O = TypeVar("O", QueryOptions, GetDocumentsOptions, MutationOptions)  # noqa: E741  # of options


def _of_kind(options: O | None, kind: type[O]) -> O | None:
    if options is not None and not isinstance(options, kind):
        raise InvalidArgumentError(
            f"options is a {kind.__name__}, not a {type(options).__name__}",
            hint=f"write {kind.__name__}(...)",
        )
    return options


def _context(options: QueryOptions) -> int:
    context = _count("context", options.context, 0, least=0, most=MAX_CONTEXT)
    if context and options.group_by is not None:
        raise InvalidArgumentError(
            "context is of single turns, and group_by makes groups of them",
            hint="leave one of the two out",
        )
    return context


C = TypeVar("C", int, None)


def _count(
    name: str, value: int | None, default: C, *, least: int, most: int = MAX_TOP_K
) -> int | C:
    if value is None:
        return default
    if type(value) is not int or not least <= value <= most:
        raise InvalidArgumentError(f"{name} is an int from {least} to {most}, not {value!r:.60}")
    return value


def _grouping(value: ParentGrouping | None) -> ParentGrouping | None:
    if value is None:
        return None
    if not isinstance(value, ParentGrouping):
        raise InvalidArgumentError(
            f"group_by is a ParentGrouping, not a {type(value).__name__}",
            hint="write ParentGrouping(parent_field, order_field)",
        )
    for name in ("parent_field", "order_field"):
        field = getattr(value, name)
        if not isinstance(field, str):
            raise InvalidArgumentError(f"group_by.{name} is the name of a field, a str")
        sound_text(field, f"group_by.{name}")
    return ParentGrouping(value.parent_field, value.order_field)


def _unit(name: str, value: float | None) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 <= value <= 1.0:
        raise InvalidArgumentError(f"{name} is a number from 0.0 to 1.0, not {value!r:.60}")
    return float(value)
