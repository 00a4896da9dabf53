"""Vectors as they are taken: what has a direction in float32 is, and nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from moss_local.storage.encoding import check_vector, unit_rows
from moss_sync import InvalidArgumentError

ANY_FLOAT = st.floats(width=32, allow_subnormal=True)


@given(vector=arrays(np.float32, st.integers(1, 12), elements=ANY_FLOAT))
def test_a_vector_is_taken_as_it_is_if_it_is_finite_and_not_zero(vector: Any) -> None:
    if np.isfinite(vector).all() and vector.any():
        assert check_vector(vector, dim=None, what="it").tobytes() == vector.tobytes()
    else:
        with pytest.raises(InvalidArgumentError, match="it "):
            check_vector(vector, dim=None, what="it")


@pytest.mark.parametrize("size", [3e38, 1e-30, 1e-45])
def test_a_vector_whose_square_float32_cannot_hold_still_has_its_direction(size: float) -> None:
    vector = check_vector(np.full(384, size, np.float32), dim=384, what="it")
    assert unit_rows(vector[None, :])[0] == pytest.approx(np.full(384, 384**-0.5), rel=1e-3)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1.0, float("nan")], "not finite"),
        ([1.0, float("inf")], "not finite"),
        ([1.0, 1e39], "not finite"),
        ([0.0, 0.0], "zero"),
        ([1e-60, 0.0], "zero"),
        ([], "flat list"),
        ([[1.0]], "flat list"),
        (["1"], "flat list"),
        ([1.0, 2.0, 3.0], "3 dimensions"),
    ],
)
def test_what_has_no_direction_or_another_size_is_refused_by_name(
    values: Any, message: str
) -> None:
    with pytest.raises(InvalidArgumentError, match=f"it .*{message}"):
        check_vector(values, dim=2, what="it")
