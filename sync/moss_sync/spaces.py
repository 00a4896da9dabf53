"""Whether a session's vectors and this device's are of one space.

Rules of this file: values in, values out. Vectors of different spaces are never mixed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from moss_sync.errors import ModelMismatchError
from moss_sync.record import VectorSpace


def check_space(
    session: str,
    *,
    theirs: VectorSpace | None,
    ours: VectorSpace | None,
    accepts: Callable[[VectorSpace], None],
    former: Collection[str] = (),
) -> None:
    """Refuse a session whose vectors are not of the space that this device has.

    Args:
        theirs: The session's, as the store says; ours: of the vectors here; None where there are
            none.
        accepts: Raises ModelMismatchError for a space that a device without vectors must not take.
        former: Fingerprints of spaces that the session has left: this device goes along.
    Raises:
        ModelMismatchError: they differ.
    """
    if theirs is None:
        return
    if ours is None:
        accepts(theirs)
    elif theirs != ours and ours.fingerprint not in former:
        raise ModelMismatchError(
            session, stored=_described(theirs, ours), wanted=_described(ours, theirs)
        )


def _described(space: VectorSpace, other: VectorSpace) -> str:
    """Return what users call the model, with what differs where the names are equal."""
    if space.id != other.id:
        return space.id
    if space.dim != other.dim:
        return f"{space.id} ({space.dim} dimensions)"
    return f"{space.id} ({space.fingerprint[:12]})"
