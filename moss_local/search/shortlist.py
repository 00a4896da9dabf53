"""Which documents are worth an exact comparison, when there are too many to compare all.

Up to some tens of thousands of vectors everything is scored exactly. Above, an exact scan is bound
by memory, so meaning is estimated first from one bit a dimension; the documents that are best by
everything else and that estimate are then compared exactly. The estimate is fitted to the query's
own exact scores of a sample, so that both stand on one scale.

What holds (tests/moss_local/test_search_shortlist.py): a shortlist as long as the session gives
what comparing everything gives. How often a shorter one misses is measured by
benchmarks/bench_search.py.
"""

from __future__ import annotations

import apsw
import numpy as np
from numpy.typing import NDArray

from moss_local.search.fusion import AFTER, BEFORE, among_best, blend, eligible, in_thread
from moss_local.search.vectors import ResidentVectors, Vectors

SHORTLIST_FROM = 20_000
"""Vectors, from which on meaning is estimated first."""

SHORTLIST = 1000
"""Documents compared exactly: recall@10 of meaning is 0.998 then (500: 0.994)."""

PER_RESULT = 20
"""So many for each result asked for, if that is more."""

PAYS = 4
"""A shortlist of more than this part of the session is no shortlist."""

SETTLED = 10
"""Of one in so many of the shortlist the neighbours are compared exactly too. Recall@10 of the
blend is 0.994 then; with estimates for neighbours, and for the range of cosines, it is 0.94."""

ENDS = 64
"""Documents compared exactly at both ends of the estimates, to know the range of all cosines."""

REACH = max(len(BEFORE), len(AFTER))

MARGIN = 0.25
"""Five times the spread of the estimates about the cosines: how far below `min_score` an estimate
may be before its document is passed over."""


def length_of(vectors: Vectors, top_k: int) -> int | None:
    """Return how many are worth comparing exactly; None: all, the estimate would not pay."""
    length = max(SHORTLIST, PER_RESULT * top_k)
    if not isinstance(vectors, ResidentVectors) or len(vectors) < SHORTLIST_FROM:
        return None
    return length if length * PAYS <= len(vectors) else None


def nearest(
    vectors: ResidentVectors,
    unit: NDArray[np.float32],
    rowids: NDArray[np.int64],
    *,
    matching: NDArray[np.bool_] | None,
    length: int,
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Return the positions of about the `length` nearest of those that match, and their cosines.

    What `shortlisted` finds where only meaning counts, sooner: the order of the signs suffices
    then, and nothing needs to be known of the rest.
    """
    signs = vectors.agreeing(unit, rowids)
    allowed = signs >= 0
    if matching is not None:
        allowed &= matching
    best = among_best(signs, allowed, length)
    return best, vectors.cosines_of_few(unit, rowids[best])


def shortlisted(
    conn: apsw.Connection,
    vectors: ResidentVectors,
    unit: NDArray[np.float32],
    rowids: NDArray[np.int64],
    keyword: NDArray[np.float32],
    *,
    alpha: float,
    threaded: bool,
    named: NDArray[np.bool_] | None,
    recent: NDArray[np.float32] | None,
    matching: NDArray[np.bool_] | None,
    min_score: float | None,
    length: int,
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return cosines, exact for the `length` best of those that match and estimated for the rest.

    Args:
        rowids, keyword, named, recent, matching: Aligned, in the order of the thread.
    Returns:
        The cosines, and which of them are exact: the only ones that may be results.
    """
    semantic = vectors.estimates(conn, unit, rowids)
    has_vector = ~np.isnan(semantic)
    has_vector = ~np.isnan(semantic)
    allowed = eligible(semantic, keyword, alpha)
    if matching is not None:
        allowed &= matching
    if min_score is not None:
        # A document without a vector has the score 0.0.
        allowed &= np.nan_to_num(semantic) >= min_score - MARGIN
    scores = blend(semantic, keyword, alpha)
    if threaded:
        scores = in_thread(scores, named)
    if recent is not None:
        scores = scores + recent
    best = among_best(scores, allowed, length)
    known = vectors.cosines_of_few(unit, rowids[best])
    if 0.0 < alpha < 1.0 or recent is not None:
        # The blend is normalised by the range of all cosines, so its ends are looked at exactly.
        nearest = among_best(semantic, has_vector, ENDS)
        farthest = among_best(-semantic, has_vector, ENDS)
        ends = np.concatenate([nearest, farthest])
        of_ends = vectors.cosines_of_few(unit, rowids[ends])
        low, high = of_ends.min(), of_ends.max()
        np.clip(semantic, low, high, out=semantic)
        semantic[ends] = of_ends
        # What neighbours lend to the best of the best is not left to the estimate either.
        weight = np.float32(alpha / max(float(high - low), 1e-6))
        better = scores[best] + weight * np.nan_to_num(known - semantic[best])
        first = best[among_best(better, np.ones(best.size, np.bool_), length // SETTLED)]
        around = first[:, None] + np.arange(-REACH, REACH + 1)
        around = np.unique(np.clip(around, 0, rowids.size - 1))
        semantic[around] = vectors.cosines_of_few(unit, rowids[around])
    semantic[best] = known
    exact = np.zeros(rowids.size, np.bool_)
    exact[best] = True
    return semantic, exact
