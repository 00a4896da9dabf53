"""The blend: a convex sum of min-max normalised scores, and a stated order of equals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from moss_local.search.fusion import (
    AFTER,
    BEFORE,
    SAMPLE_FROM,
    among_best,
    best_of_each,
    blend,
    eligible,
    top,
    with_neighbours,
)

NAN = float("nan")


def floats(*values: float) -> NDArray[np.float32]:
    return np.array(values, np.float32)


def test_each_score_counts_by_its_share_between_worst_and_best() -> None:
    scores = blend(floats(0.2, 0.6, 1.0), floats(4.0, 0.0, 2.0), 0.25)
    assert scores == pytest.approx([0.75, 0.125, 0.25 + 0.375])


def test_alpha_one_is_the_vectors_alone_and_zero_the_words_alone() -> None:
    semantic, keyword = floats(0.1, NAN, 0.9), floats(0.0, 5.0, 1.0)
    assert list(eligible(semantic, keyword, 1.0)) == [True, False, True]
    assert list(eligible(semantic, keyword, 0.0)) == [False, True, True]
    assert list(eligible(semantic, keyword, 0.5)) == [True, True, True]
    assert blend(semantic, keyword, 1.0) == pytest.approx([0, 0, 1])
    assert blend(semantic, keyword, 0.0) == pytest.approx([0, 1, 0.2])


def test_what_has_no_vector_gets_nothing_for_meaning() -> None:
    assert blend(floats(NAN, 0.5, 0.7), floats(1, 0, 0), 0.5) == pytest.approx([0.5, 0, 0.5])
    assert blend(floats(NAN, NAN), floats(1, 0), 0.5) == pytest.approx([0.5, 0])


def test_equal_cosines_are_all_the_best() -> None:
    assert blend(floats(0.3, 0.3), floats(0, 1), 0.5) == pytest.approx([0.5, 1.0])


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_nothing_to_blend_is_no_error(alpha: float) -> None:
    empty = floats()
    assert blend(empty, empty, alpha).size == 0
    assert top(empty, eligible(empty, empty, alpha), np.empty(0, np.int64), 5).size == 0


candidates = st.lists(
    st.tuples(st.sampled_from([NAN, -1.0, -0.5, 0.0, 0.5, 1.0]), st.sampled_from([0.0, 1.0, 3.0])),
    max_size=12,
)


@given(rows=candidates, alpha=st.floats(0, 1), top_k=st.integers(0, 15), data=st.data())
def test_the_top_is_what_sorting_everything_gives(
    rows: list[tuple[float, float]], alpha: float, top_k: int, data: st.DataObject
) -> None:
    semantic = floats(*(row[0] for row in rows))
    keyword = floats(*(row[1] for row in rows))
    rowids = np.array(data.draw(st.permutations(range(len(rows)))), np.int64)
    allowed = eligible(semantic, keyword, alpha)
    scores = blend(semantic, keyword, alpha)
    assert scores.dtype == np.float32
    assert ((scores >= 0) & (scores <= 1.000001)).all()
    expected = sorted(np.flatnonzero(allowed), key=lambda i: (-scores[i], -rowids[i]))
    assert list(top(scores, allowed, rowids, top_k)) == expected[:top_k]


@given(rows=candidates, alpha=st.floats(0, 1))
def test_more_evidence_never_lowers_a_score(rows: list[tuple[float, float]], alpha: float) -> None:
    rows = [*rows, (-1.0, 3.0), (1.0, 0.0), (1.0, 3.0)]
    scores = blend(floats(*(r[0] for r in rows)), floats(*(r[1] for r in rows)), alpha)
    assert scores[-1] == scores.max()


def test_a_turn_lends_to_its_neighbours_and_more_to_those_after_it() -> None:
    lent = with_neighbours(floats(0, 0, 0, 1, 0, 0, 0))
    assert lent == pytest.approx([0, AFTER[1], AFTER[0], 1, BEFORE[0], BEFORE[1], 0])
    assert BEFORE[0] > AFTER[0] > AFTER[1]


@given(scores=st.lists(st.floats(0, 1, width=32), max_size=9))
def test_a_thread_of_any_length_has_the_neighbours_that_it_has(scores: list[float]) -> None:
    given = floats(*scores)
    expected = [
        scores[place]
        + sum(w * scores[place - d] for d, w in enumerate(BEFORE, 1) if place >= d)
        + sum(w * scores[place + d] for d, w in enumerate(AFTER, 1) if place + d < len(scores))
        for place in range(len(scores))
    ]
    assert with_neighbours(given) == pytest.approx(expected, rel=1e-5)
    assert given.tolist() == floats(*scores).tolist()


@given(st.lists(st.tuples(st.integers(-1, 3), st.integers(0, 3), st.booleans()), max_size=12))
def test_of_each_group_the_one_that_would_come_first_is_left(
    rows: list[tuple[int, int, bool]],
) -> None:
    groups = np.array([row[0] for row in rows], np.int32)
    scores = np.array([row[1] for row in rows], np.float32)
    allowed = np.array([row[2] for row in rows], np.bool_)
    rowids = np.arange(len(rows), dtype=np.int32)
    expected, seen = [], set[int]()
    for place in top(scores, allowed, rowids, len(rows)):
        group = int(groups[place])
        if group < 0 or group not in seen:
            seen.add(group)
            expected.append(int(place))
    left = best_of_each(groups, scores, allowed, rowids)
    assert top(scores, left, rowids, len(rows)).tolist() == expected


@given(
    seed=st.integers(0, 9),
    count=st.sampled_from([0, 1, 5, 300, SAMPLE_FROM, 3 * SAMPLE_FROM]),
    few=st.booleans(),
    steps=st.sampled_from([1, 2, 50, 10**6]),
    rising=st.booleans(),
)
def test_the_best_of_many_are_what_sorting_everything_gives(
    seed: int, count: int, few: bool, steps: int, rising: bool
) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, steps, 2 * SAMPLE_FROM).astype(np.float32)
    if rising:
        scores.sort()  # then a sample is as unlike the best as it can be
    allowed = rng.random(scores.size) < (0.01 if few else 0.9)
    kept = np.flatnonzero(allowed)
    found = among_best(scores, allowed, count)
    if count < kept.size:
        last = np.sort(scores[kept])[::-1][max(count - 1, 0)]
        kept = kept[scores[kept] >= last] if count else kept[:0]
    assert found.tolist() == kept.tolist()
