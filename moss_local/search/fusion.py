"""How meaning and words are blended into one order: pure functions over aligned arrays.

A convex sum of the two scores, each min-max normalised over every candidate and not over two short
lists: what rank fusion throws away (how much better the first is than the second) is what decides
here. To that come what a thread says and a bag of documents does not: a turn's neighbours are
evidence for it, and so is that it was said by whom the question is about. Measured on long
conversations in docs/design/0010-search.md, by benchmarks/bench_quality.

Rules of this file: values in, values out. All arrays of one call are aligned: element i of each is
about candidate i, and candidates stand in the order of the thread. What narrows a search, such as a
filter on metadata, is a boolean mask over the candidates that is applied to `eligible`, so that
scores keep their normalisation.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

DEFAULT_ALPHA = 0.5
"""The best plain blend measured: recall@5 is 0.554, against 0.516 at the hosted SDK's 0.8."""


BEFORE = (0.4, 0.2)
AFTER = (0.2, 0.1)
"""What of its own score a turn lends to those after it (a question stands before its answer), and
to those before it: the next one, the next but one."""

NAMED_SPEAKER = 0.2
"""What a turn gains when the query names its speaker."""


SAMPLE_FROM, SAMPLE_STEP = 4096, 16
"""From so many candidates on the best are looked for by a sample: one of so many."""


def eligible(
    semantic: NDArray[np.float32], keyword: NDArray[np.float32], alpha: float
) -> NDArray[np.bool_]:
    """Return which candidates have any evidence that counts at this alpha.

    Args:
        semantic: Cosines; NaN where a document has no vector.
        keyword: BM25 scores, above 0 where a document has a term of the query, else 0.
    """
    result = np.zeros(semantic.shape, np.bool_)
    if alpha > 0.0:
        result |= ~np.isnan(semantic)
    if alpha < 1.0:
        result |= keyword > 0.0
    return result


def blend(
    semantic: NDArray[np.float32], keyword: NDArray[np.float32], alpha: float
) -> NDArray[np.float32]:
    """Return one score in 0..1 per candidate; greater is better.

    `alpha` 1.0 is the vectors alone, 0.0 the words alone. A candidate without a vector gets
    nothing for meaning, one without a term nothing for words. Arguments as in `eligible`.
    """
    if alpha >= 1.0:
        return _min_max(semantic)
    words = _share_of_best(keyword)
    if alpha <= 0.0:
        return words
    result = _min_max(semantic)
    result *= np.float32(alpha)
    result += np.float32(1.0 - alpha) * words
    return result


def with_neighbours(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the scores with what each candidate's neighbours in the thread lend to it."""
    result = scores.copy()
    for distance, weight in enumerate(BEFORE, 1):
        result[distance:] += np.float32(weight) * scores[:-distance]
    for distance, weight in enumerate(AFTER, 1):
        result[:-distance] += np.float32(weight) * scores[distance:]
    return result


def in_thread(scores: NDArray[np.float32], named: NDArray[np.bool_] | None) -> NDArray[np.float32]:
    """Return the scores with what the thread adds: neighbours, and speakers whom the query names.

    Args:
        named: Which are of such a speaker; None: it names nobody.
    """
    result = with_neighbours(scores)
    if named is not None:
        result[named] += np.float32(NAMED_SPEAKER)
    return result


def recent(moments: Sequence[NDArray[np.int64]], weight: float) -> list[NDArray[np.float32]]:
    """Return what each candidate gains by being new: `weight` for the newest, the oldest nothing.

    Args:
        moments: In any unit, of several threads that are compared with one another.
    """
    filled = [each for each in moments if each.size]
    if not filled:
        return [np.zeros(0, np.float32) for _ in moments]
    first, last = min(int(each.min()) for each in filled), max(int(each.max()) for each in filled)
    span = max(last - first, 1)
    return [((each - first) * (weight / span)).astype(np.float32) for each in moments]


def top(
    scores: NDArray[np.float32],
    eligible: NDArray[np.bool_],
    rowids: NDArray[np.int64],
    top_k: int,
) -> NDArray[np.intp]:
    """Return the positions of the best `top_k` eligible candidates, best first.

    Of equal scores the greater row id comes first: the document that came into the file later.
    """
    # Everything that ties with the last place stays in, so that the rule decides and not the order
    # in which equal values happen to lie.
    positions = among_best(scores, eligible, top_k)
    order = np.lexsort((-rowids[positions], -scores[positions]))
    return positions[order[:top_k]]


def best_of_each(
    groups: NDArray[np.int32],
    scores: NDArray[np.float32],
    eligible: NDArray[np.bool_],
    rowids: NDArray[np.integer],
) -> NDArray[np.bool_]:
    """Return the eligible candidates, of each group only the one that `top` would take first.

    Args:
        groups: A number per group, small and dense; below 0 for a candidate that is in none.
    """
    result = eligible & (groups < 0)
    grouped = np.flatnonzero(eligible & (groups >= 0))
    if grouped.size == 0:
        return result
    best = np.full(int(groups.max()) + 1, -np.inf, np.float32)
    np.maximum.at(best, groups[grouped], scores[grouped])
    ties = grouped[scores[grouped] == best[groups[grouped]]]
    ties = ties[np.lexsort((-rowids[ties], groups[ties]))]
    _, first = np.unique(groups[ties], return_index=True)
    result[ties[first]] = True
    return result


def among_best(
    scores: NDArray[np.float32] | NDArray[np.int16], eligible: NDArray[np.bool_], count: int
) -> NDArray[np.intp]:
    """Return the positions of the best `count` eligible and of all tied with the last, in order.

    Of many, most are left out by a bound taken from a sample, and the rest is partitioned: at
    100 000 a tenth of the time of partitioning all.
    """
    if count <= 0:
        return np.empty(0, np.intp)
    if scores.size > SAMPLE_FROM:
        sample = scores[::SAMPLE_STEP][eligible[::SAMPLE_STEP]]
        # Half as many again as would suffice, were the sample like the whole.
        wanted = count * 3 // (2 * SAMPLE_STEP) + SAMPLE_STEP
        if wanted < sample.size:
            bound = np.partition(sample, sample.size - wanted)[sample.size - wanted]
            positions = np.flatnonzero((scores >= bound) & eligible)
            if positions.size >= count:
                return _among_best(scores, positions, count)
    return _among_best(scores, np.flatnonzero(eligible), count)


def _among_best(
    scores: NDArray[np.float32] | NDArray[np.int16], positions: NDArray[np.intp], count: int
) -> NDArray[np.intp]:
    if positions.size <= count:
        return positions
    values = scores[positions]
    last = np.partition(values, positions.size - count)[positions.size - count]
    best: NDArray[np.intp] = positions[values >= last]
    return best


def _min_max(semantic: NDArray[np.float32]) -> NDArray[np.float32]:
    if semantic.size == 0:
        return semantic.copy()
    low, high = np.fmin.reduce(semantic), np.fmax.reduce(semantic)
    if not high > low:  # one value, or none at all
        return np.where(np.isnan(semantic), np.float32(0), np.float32(1))
    result: NDArray[np.float32] = semantic - low
    result *= np.float32(1.0 / float(high - low))
    if np.isnan(result).any():
        result[np.isnan(result)] = 0.0
    return result


def _share_of_best(keyword: NDArray[np.float32]) -> NDArray[np.float32]:
    best = keyword.max(initial=0.0)
    return keyword / best if best > 0.0 else np.zeros_like(keyword)
