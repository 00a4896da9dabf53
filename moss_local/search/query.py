"""One search of one session's file, or of several together: by meaning, by word, or blended.

What the file says, what is resident and what is returned are of one moment: the local sequence
number, the keyword index and the documents are read in the same transaction. A search of several
files holds one transaction in each until it has its documents.

What narrows a search (a filter, `min_score`, `candidate_depth`) is applied before the best are
taken, so that there are `top_k` whenever so many documents are left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypedDict, TypeVar, Unpack

import apsw
import numpy as np
from numpy.typing import ArrayLike, NDArray

from moss_local.search.filters import Filter
from moss_local.search.fusion import (
    DEFAULT_ALPHA,
    best_of_each,
    blend,
    eligible,
    in_thread,
    recent,
    top,
)
from moss_local.search.grouping import whole
from moss_local.search.keywords import query_terms
from moss_local.search.postings import index_tokenizer
from moss_local.search.resident import Resident, Small
from moss_local.search.shortlist import length_of, nearest, shortlisted
from moss_local.search.vectors import ResidentVectors
from moss_local.storage.documents import read_metadata
from moss_local.storage.encoding import check_vector, unit_rows
from moss_local.storage.file import SessionFile
from moss_local.storage.state import State
from moss_local.types import ParentGrouping
from moss_sync import InvalidArgumentError, ModelMismatchError, VectorSpace

T = TypeVar("T")
R = TypeVar("R")

DEFAULT_TOP_K = 5


@dataclass(frozen=True, slots=True)
class Hit:
    """One document found, or one group of documents.

    Attributes:
        id: Of a group: what its documents have in the parent field.
        score: Its cosine to the query's vector, 0 if negative; 0.0 where either has no vector.
            Whatever alpha is: hits stand in the blended order, so scores need not fall.
        blended: What ordered the hits; comparable within one search only.
        hlc: Clock of the version found, which tells when it was written.
        before, after: The turns around it that were asked for, in the order of the thread. Their
            own scores are 0.
    """

    id: str
    text: str
    metadata: dict[str, str] | None
    payload: str | None
    score: float
    blended: float
    hlc: int
    before: tuple[Hit, ...] = ()
    after: tuple[Hit, ...] = ()


class Asked(TypedDict, total=False):
    """What a search may be given; see `ask`."""

    text: str
    vector: ArrayLike | None
    alpha: float
    top_k: int
    min_score: float | None
    filter: Filter | None
    group_by: ParentGrouping | None
    candidate_depth: int | None
    threaded: bool
    recency: float
    context: int


@dataclass(frozen=True, slots=True)
class Question:
    """What is looked for, checked. Made by `ask`."""

    text: str
    unit: NDArray[np.float32] | None
    alpha: float
    top_k: int
    min_score: float | None
    filter: Filter | None
    group_by: ParentGrouping | None
    candidate_depth: int | None
    threaded: bool
    recency: float
    context: int

    @property
    def blends(self) -> bool:
        """Whether meaning and words both count."""
        return self.unit is not None and 0.0 < self.alpha < 1.0


def ask(**asked: Unpack[Asked]) -> Question:
    """Return a question for `search_several`.

    Args:
        text: Words to look for; any string. Blank: only the vector counts, whatever alpha is.
        vector: The query's place in the session's vector space, of any length but zero; None
            searches by words alone.
        alpha: 1.0 is the vectors alone, 0.0 the words alone, and what has no term is not found.
        top_k: At most this many, 5 unless given; 0 gives none.
        min_score: Leaves out every document whose score is below this.
        filter: Leaves out every document that does not match.
        group_by: Finds groups, each in the place of its best document, with the texts of all its
            documents that match the filter.
        candidate_depth: Leaves out what is neither among so many best by meaning nor among so many
            best by word, but never fewer than top_k; only where both count.
        threaded: Neighbouring turns and the speakers whom the text names are evidence, where
            meaning and words both count; True unless given.
        recency: What the newest document gains and the oldest does not, where 1.0 is as much as
            the best by meaning and by word; 0.0 unless given.
        context: So many turns before and after each hit, of those that match the filter, come with
            it; 0 unless given.
    Raises:
        InvalidArgumentError: alpha outside 0..1, a negative number, context of groups, or a vector
            that is not finite or is zero.
    """
    text, vector = asked.get("text", ""), asked.get("vector")
    alpha, top_k = asked.get("alpha", DEFAULT_ALPHA), asked.get("top_k", DEFAULT_TOP_K)
    if not 0.0 <= alpha <= 1.0:  # also refuses NaN
        raise InvalidArgumentError(f"alpha is {alpha!r}; it goes from 0.0 (words) to 1.0 (meaning)")
    if top_k < 0:
        raise InvalidArgumentError(f"top_k is {top_k}; it cannot be negative")
    recency, context = asked.get("recency", 0.0), asked.get("context", 0)
    if not 0.0 <= recency <= 1.0:
        raise InvalidArgumentError(f"recency is {recency!r}; it goes from 0.0 to 1.0")
    if context < 0:
        raise InvalidArgumentError(f"context is {context}; it cannot be negative")
    if context and asked.get("group_by") is not None:
        raise InvalidArgumentError(
            "context is of single turns, and group_by makes groups of them",
            hint="leave one of the two out",
        )
    unit = None
    if vector is not None:
        checked = check_vector(vector, dim=None, what="the query's embedding")
        unit = unit_rows(checked[None, :])[0]
    if not text.strip() and unit is not None:
        alpha = 1.0
    return Question(
        text,
        unit,
        alpha,
        top_k,
        asked.get("min_score"),
        asked.get("filter"),
        asked.get("group_by"),
        asked.get("candidate_depth"),
        asked.get("threaded", True),
        recency,
        context,
    )


def search(
    file: SessionFile,
    *,
    low_memory: bool = False,
    space: VectorSpace | None = None,
    **asked: Unpack[Asked],
) -> list[Hit]:
    """Return the best documents, best first; equal ones in order of the later addition.

    Args:
        low_memory: Keeps neither vectors nor postings nor metadata in memory; the same answers,
            more slowly.
        space: What the vector is of, where that is known.
        asked: As in `ask`.
    Raises:
        ModelMismatchError: the session is of another space by now.
        InvalidArgumentError: as `ask`, or the vector has another dimension than the session's.
    """
    question = ask(**asked)
    with _moment(file, question, low_memory=low_memory, space=space) as moment:
        return [hit for _, hit in _best([moment], question)]


def is_warm(file: SessionFile) -> bool:
    """Return whether a search need not read the whole file first."""
    return file.derived(Resident, Resident).warm


class AtOnce(Protocol):
    """Runs a function on each item, all at once, and returns or raises when the last has ended."""

    def __call__(self, fn: Callable[[T], R], items: Iterable[T]) -> list[R]: ...


def search_several(
    files: Sequence[SessionFile],
    question: Question,
    *,
    at_once: AtOnce,
    low_memory: bool = False,
    space: VectorSpace | None = None,
) -> list[tuple[int, Hit]]:
    """Return the best documents of all files together, each with the position of its file.

    The scores of all are normalised together, so that a good match in one session stands before a
    poor one in another; how rare a word is, is counted in each session by itself.

    Raises:
        As `search`.
    """
    moments = [_moment(file, question, low_memory=low_memory, space=space) for file in files]
    with ExitStack() as open_ones:

        def enter(moment: AbstractContextManager[_Moment]) -> _Moment:
            return open_ones.enter_context(moment)

        return _best(at_once(enter, moments), question)


@dataclass(frozen=True, slots=True)
class _Evidence:
    """Aligned arrays over every document, or those that may be found, in the order of the thread.

    Attributes:
        named: Which are of a speaker whom the question names; None: it names nobody.
        semantic: Cosines, NaN where there is no vector; exact where `matching` says so.
        matching: Which match the filter (and are on the shortlist); None: all do.
        groups: A number for the group of each, -1 for none; None: groups are not asked for.
        passing: Which match the filter alone; None: all do.
        moments: Of each as a clock's stamp; None: they are not asked for.
    """

    rowids: NDArray[np.int64]
    semantic: NDArray[np.float32]
    keyword: NDArray[np.float32]
    named: NDArray[np.bool_] | None
    matching: NDArray[np.bool_] | None
    groups: NDArray[np.int32] | None
    passing: NDArray[np.bool_] | None
    moments: NDArray[np.int64] | None


@dataclass(frozen=True, slots=True)
class _Moment:
    """One file in one transaction, which lasts as long as this is used."""

    conn: apsw.Connection
    found: _Evidence


@contextmanager
def _moment(
    file: SessionFile, question: Question, *, low_memory: bool, space: VectorSpace | None = None
) -> Iterator[_Moment]:
    resident: Resident = (
        file.derived(Small, Small) if low_memory else file.derived(Resident, Resident)
    )
    with file.reading() as conn:
        with resident.at(conn) as state:
            unit = question.unit
            if unit is not None and space is not None and state.space not in (None, space):
                raise ModelMismatchError(
                    state.session, stored=str(state.space and state.space.id), wanted=space.id
                )
            if unit is not None and state.space is not None and unit.size != state.space.dim:
                raise InvalidArgumentError(
                    f"the query's embedding has {unit.size} dimensions;"
                    f" session {state.session!r} has {state.space.dim}"
                )
            if question.top_k == 0 or not state.live:
                found = _NOTHING
            else:
                found = _evidence(conn, resident, state, question)
                resident.warm = True
        yield _Moment(conn, found)


def _evidence(
    conn: apsw.Connection, resident: Resident, state: State, question: Question
) -> _Evidence:
    resident.turns.follow(conn, state)
    rowids = resident.turns.rowids
    alpha, unit = question.alpha, question.unit
    terms = query_terms(question.text, index_tokenizer(conn)) if alpha < 1.0 else []
    if terms:
        resident.postings.follow(conn, state)
        keyword = resident.postings.scores(conn, terms, rowids)
    else:
        keyword = np.zeros(rowids.size, np.float32)
    threaded = question.threaded and question.blends
    named = resident.turns.spoken_by_named(terms) if threaded else None
    moments = resident.turns.moments if question.recency else None
    matching = groups = None
    if question.filter is not None or question.group_by is not None:
        resident.columns.follow(conn, state)
    if question.filter is not None:
        matching = resident.columns.mask(conn, question.filter)[rowids]
    if question.group_by is not None:
        groups = resident.columns.codes(conn, question.group_by.parent_field)[rowids]
    if unit is None:
        semantic = np.full(rowids.size, np.nan, np.float32)
        return _Evidence(rowids, semantic, keyword, named, matching, groups, matching, moments)
    vectors = resident.vectors
    vectors.follow(conn, state)
    # Groups and a depth by each signal are about all documents.
    length = length_of(vectors, question.top_k)
    of_all = groups is not None or question.candidate_depth is not None
    if length is None or of_all or not isinstance(vectors, ResidentVectors):
        semantic = vectors.cosines(conn, unit, rowids)
        return _Evidence(rowids, semantic, keyword, named, matching, groups, matching, moments)
    if alpha >= 1.0 and not question.context and not question.recency:
        best, semantic = nearest(vectors, unit, rowids, matching=matching, length=length)
        return _Evidence(rowids[best], semantic, keyword[best], None, None, None, None, None)
    semantic, exact = shortlisted(
        conn,
        vectors,
        unit,
        rowids,
        keyword,
        alpha=alpha,
        threaded=threaded,
        named=named,
        recent=None if moments is None else recent([moments], question.recency)[0],
        matching=matching,
        min_score=question.min_score,
        length=length,
    )
    return _Evidence(rowids, semantic, keyword, named, exact, groups, matching, moments)


_NOTHING = _Evidence(
    np.empty(0, np.int64),
    np.empty(0, np.float32),
    np.empty(0, np.float32),
    None,
    None,
    None,
    None,
    np.empty(0, np.int64),
)


def _best(moments: Sequence[_Moment], question: Question) -> list[tuple[int, Hit]]:
    """Return the best of all, each with the position of where it is from."""
    evidence = [moment.found for moment in moments]
    scores = _scores(evidence, question)
    allowed = [_allowed(found, own, question) for found, own in zip(evidence, scores, strict=True)]
    places = top(
        _joined(scores),
        _joined(allowed),
        _joined([found.rowids for found in evidence]),
        question.top_k,
    )
    if len(moments) == 1 and question.group_by is None and not question.context:
        hits = _read(
            moments[0].conn,
            evidence[0].rowids[places].tolist(),
            evidence[0].semantic[places].tolist(),
            scores[0][places].tolist(),
        )
        return [(0, hit) for hit in hits]
    starts = np.cumsum([0, *(found.rowids.size for found in evidence)])
    result = []
    for place in places:
        which = int(np.searchsorted(starts, place, "right")) - 1
        own = int(place - starts[which])
        result.append((which, _hit(moments[which], own, float(scores[which][own]), question)))
    return result


def _scores(evidence: Sequence[_Evidence], question: Question) -> list[NDArray[np.float32]]:
    """Return what each candidate of each is worth, comparable among all."""
    alpha = question.alpha
    blended = blend(
        _joined([found.semantic for found in evidence]),
        _joined([found.keyword for found in evidence]),
        alpha,
    )
    scores = [blended]
    if len(evidence) > 1:
        ends = np.cumsum([found.rowids.size for found in evidence])
        scores = np.split(blended, ends[:-1])
    if question.threaded and question.blends:
        scores = [in_thread(own, found.named) for found, own in zip(evidence, scores, strict=True)]
    moments = [found.moments for found in evidence if found.moments is not None]
    if question.recency and moments:
        gains = recent(moments, question.recency)
        scores = [own + gain for own, gain in zip(scores, gains, strict=True)]
    return scores


def _allowed(
    found: _Evidence, scores: NDArray[np.float32], question: Question
) -> NDArray[np.bool_]:
    """Return which candidates may be among the best; of a group, its best one only."""
    allowed = eligible(found.semantic, found.keyword, question.alpha)
    if found.matching is not None:
        allowed &= found.matching
    if question.min_score is not None:
        # A document without a vector has the score 0.0.
        allowed &= np.clip(np.nan_to_num(found.semantic), 0.0, 1.0) >= question.min_score
    if question.candidate_depth is not None and 0.0 < question.alpha < 1.0:
        depth = max(question.candidate_depth, question.top_k)
        near = np.zeros_like(allowed)
        near[top(found.semantic, allowed & ~np.isnan(found.semantic), found.rowids, depth)] = True
        near[top(found.keyword, allowed & (found.keyword > 0.0), found.rowids, depth)] = True
        allowed &= near
    if found.groups is not None:
        allowed = best_of_each(found.groups, scores, allowed, found.rowids)
    return allowed


def _joined(arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def _hit(moment: _Moment, place: int, blended: float, question: Question) -> Hit:
    found = moment.found
    (hit,) = _read(
        moment.conn, [int(found.rowids[place])], [float(found.semantic[place])], [blended]
    )
    if question.context:
        before, after = _around(found, place, question.context)
        hit = replace(
            hit,
            before=tuple(_read(moment.conn, before, [0.0] * len(before), [0.0] * len(before))),
            after=tuple(_read(moment.conn, after, [0.0] * len(after), [0.0] * len(after))),
        )
    by = question.group_by
    if by is None or found.groups is None or found.groups[place] < 0:
        return hit
    same = found.groups == found.groups[place]
    if found.matching is not None:
        same &= found.matching
    members = _read(
        moment.conn,
        found.rowids[same].tolist(),
        found.semantic[same].tolist(),
        [blended] * int(np.count_nonzero(same)),
    )
    group = whole(members, by.order_field)
    return Hit(
        (hit.metadata or {})[by.parent_field],
        group.text,
        group.metadata,
        group.payload,
        max(member.score for member in members),
        blended,
        max(member.hlc for member in members),
    )


def _around(found: _Evidence, place: int, count: int) -> tuple[list[int], list[int]]:
    """Return the row ids of the turns before and after one, of those that match the filter."""
    if found.passing is None:
        before, after = found.rowids[max(place - count, 0) : place], found.rowids[place + 1 :]
        return before.tolist(), after[:count].tolist()
    passing = np.flatnonzero(found.passing)
    own = int(np.searchsorted(passing, place))
    before, after = passing[max(own - count, 0) : own], passing[own + 1 : own + 1 + count]
    return found.rowids[before].tolist(), found.rowids[after].tolist()


def _read(
    conn: apsw.Connection,
    rowids: Sequence[int],
    cosines: Sequence[float],
    blended: Sequence[float],
) -> list[Hit]:
    """Return documents in the order of their row ids."""
    rows: list[Any] = conn.executemany(
        "SELECT id, text, metadata, payload, hlc FROM document WHERE rowid = ?",
        ((rowid,) for rowid in rowids),
    ).fetchall()
    return [
        # No cosine (it is NaN) is none above 0.
        Hit(
            id,
            text,
            read_metadata(metadata),
            payload,
            min(cosine, 1.0) if cosine > 0 else 0.0,
            own,
            hlc,
        )
        for (id, text, metadata, payload, hlc), cosine, own in zip(
            rows, cosines, blended, strict=True
        )
    ]
