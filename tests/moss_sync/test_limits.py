"""The limits of the format: at each one it counts, past it it does not, and nothing raises."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moss_sync import limits
from moss_sync.limits import content_fault, name_fault, vector_fault

ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=3)
    | st.text(st.characters(categories=["Cs"]), max_size=2)
    | st.binary(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=1), inner),
    max_leaves=3,
)


@pytest.mark.parametrize("letter", ["x", "é", "🦀", "\0", "\u202e"])
def test_what_is_at_a_limit_counts_and_what_is_one_past_it_does_not(letter: str) -> None:
    def filled(size: int) -> str:
        wide = len(letter.encode())
        return letter * (size // wide) + "x" * (size % wide)

    for limit, fault in (
        (limits.MAX_ID_BYTES, lambda text: content_fault(text, "", None, None)),
        (limits.MAX_TEXT_BYTES, lambda text: content_fault("a", text, None, None)),
        (limits.MAX_PAYLOAD_BYTES, lambda text: content_fault("a", "", None, text)),
        (limits.MAX_METADATA_BYTES, lambda text: content_fault("a", "", {"": text}, None)),
        (limits.MAX_METADATA_BYTES, lambda text: content_fault("a", "", {text: ""}, None)),
        (limits.MAX_NAME_BYTES, name_fault),
    ):
        assert fault(filled(limit)) is None
        assert f"{limit + 1} bytes" in str(fault(filled(limit + 1)))


def test_metadata_count_together() -> None:
    half = "x" * (limits.MAX_METADATA_BYTES // 2 - 1)
    assert content_fault("a", "", {"k": half, "l": half}, None) is None
    assert content_fault("a", "", {"k": half, "l": half, "": "x"}, None) is not None


@given(id=ANYTHING, text=ANYTHING, metadata=ANYTHING, payload=ANYTHING)
def test_no_value_of_any_type_raises_and_what_has_no_fault_has_its_type(
    id: object, text: object, metadata: object, payload: object
) -> None:
    if content_fault(id, text, metadata, payload) is None:
        assert isinstance(id, str)
        assert id
        assert isinstance(text, str)
        assert metadata is None or isinstance(metadata, dict)
        assert payload is None or isinstance(payload, str)
        for value in (id, text, payload or ""):
            assert value.encode() is not None
        for pair in (metadata or {}).items():
            assert all(isinstance(each, str) and each.encode() is not None for each in pair)


@given(values=st.lists(st.floats(width=32), min_size=1, max_size=5), wide=st.booleans())
def test_a_vector_counts_if_it_is_finite_and_not_zero(values: list[float], wide: bool) -> None:
    with np.errstate(over="ignore"):
        vector = np.array(values, "<f4" if wide else "<f2")
    fault = vector_fault(vector.tobytes(), "f4" if wide else "f2")
    assert (fault is None) == (bool(np.isfinite(vector).all()) and bool(vector.any()))


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, 0.0, -0.0])
def test_vectors_without_a_direction_have_a_fault(value: float) -> None:
    for dtype in ("f2", "f4"):
        assert vector_fault(np.full(3, value, f"<{dtype}").tobytes(), dtype) is not None


@pytest.mark.parametrize("dtype", ["f2", "f4"])
def test_the_smallest_and_the_largest_vectors_count(dtype: str) -> None:
    info = np.finfo(dtype)
    for value in (info.max, info.min, info.smallest_subnormal, info.tiny):
        assert vector_fault(np.array([0, value], f"<{dtype}").tobytes(), dtype) is None


def test_what_is_told_of_a_record_is_short_and_ascii() -> None:
    for id in ("x" * 10**6, "\u202e\n", "\ud800", ["a"] * 10**5, None):
        told = str(limits.rejected(id, -(2**70), b"", "reason"))
        assert told.isascii()
        assert len(told) < 150
