"""Vectors between numbers and bytes, and what a vector must be.

Rules of this file: values in, values out. A vector is checked before it is stored or searched with:
its cosine to another one must exist, so it is finite and not zero. Vectors of a space of dtype "f2"
are scaled to unit length and rounded once, by their author; what lies in the file is exactly
representable in the space's dtype, so the bytes that travel are derived from it without loss.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from moss_sync import InvalidArgumentError, VectorSpace
from moss_sync.limits import MAX_DIMENSIONS

_SMALL, _LARGE = 1e-24, 1e24
"""Squared lengths between these are exact enough in float32, whatever the components are."""


def check_vector(values: ArrayLike, *, dim: int | None, what: str) -> NDArray[np.float32]:
    """Return `values` as float32 if they can be compared by cosine.

    Args:
        dim: The components it must have; None where the session has no vectors yet.
        what: Names it in the error, such as "the embedding of document 'a'".
    Raises:
        InvalidArgumentError: not a flat list of numbers, another dimension, NaN, infinite (also
            when only float32 is too small for it), or zero.
    """
    try:
        raw = np.asarray(values)
    except ValueError as error:
        raise InvalidArgumentError(f"{what} is not a flat list of numbers") from error
    if raw.ndim != 1 or raw.dtype.kind not in "iuf" or raw.size == 0:
        raise InvalidArgumentError(f"{what} is not a flat list of numbers")
    with np.errstate(over="ignore", under="ignore"):
        vector = np.ascontiguousarray(raw, np.float32)
        square = vector.dot(vector)
    if dim is not None and vector.size != dim:
        raise InvalidArgumentError(f"{what} has {vector.size} dimensions; the session has {dim}")
    if vector.size > MAX_DIMENSIONS:
        raise InvalidArgumentError(
            f"{what} has {vector.size} dimensions, more than {MAX_DIMENSIONS}"
        )
    if 0.0 < square < np.inf:
        return vector  # nearly always: a third of the time of looking at each component
    if not np.isfinite(vector).all():
        raise InvalidArgumentError(f"{what} holds a value that is not finite in float32")
    if not vector.any():
        raise InvalidArgumentError(f"{what} is zero: it has no direction to compare")
    return vector


def unit_rows(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the rows scaled to unit length, so that a dot product is a cosine.

    Shape (n, dim) in and out. A row without a direction (zero, or not finite: only a peer's file
    can bring one) becomes zero and is similar to nothing.
    """
    with np.errstate(all="ignore"):
        squares = np.einsum("ij,ij->i", rows, rows)
        if not ((squares > _SMALL) & (squares < _LARGE)).all():
            # In float64 the square of any float32 is finite and not zero, at a fifth of the speed.
            squares = np.einsum("ij,ij->i", rows, rows, dtype=np.float64)
        norms = np.sqrt(squares)
        result: NDArray[np.float32] = np.divide(rows, norms[:, None], dtype=norms.dtype).astype(
            np.float32, copy=False
        )
    result[~(np.isfinite(norms) & (norms > 0.0))] = 0.0
    return result


def to_bytes(space: VectorSpace, rows: NDArray[np.float32]) -> list[bytes]:
    """Return each row in the space's dtype, little endian; "f2" is scaled and rounded here."""
    if space.dtype == "f2":
        data = unit_rows(rows).astype("<f2")
    else:
        data = np.ascontiguousarray(rows, "<f4").view("<f4")
    return [row.tobytes() for row in data]


def narrowed(space: VectorSpace, row: bytes) -> bytes | None:
    """Return a vector as it lies in the file in the space's dtype; None if it has none there.

    Only damage makes one that has none: what is written there is exact in that precision.
    """
    with np.errstate(over="ignore"):
        vector = np.frombuffer(row, "<f4").astype(f"<{space.dtype}")
    return vector.tobytes() if np.isfinite(vector).all() else None


def from_bytes(space: VectorSpace, vectors: Sequence[bytes]) -> NDArray[np.float32]:
    """Return shape (n, dim) of vectors that each have `space.vector_bytes`."""
    flat = np.frombuffer(b"".join(vectors), f"<{space.dtype}").astype(np.float32)
    return flat.reshape(len(vectors), space.dim)
