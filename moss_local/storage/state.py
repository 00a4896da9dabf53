"""The one row that says who this copy of a session is and how far it has come."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast, get_args

import apsw

from moss_sync import Life, VectorSpace
from moss_sync.limits import MAX_DIMENSIONS
from moss_sync.record import VectorType


@dataclass(frozen=True, slots=True)
class State:
    """The row, as `moss_sync.ReplicaState` names things, and what only this side needs.

    Attributes:
        repairs, gen: Which life of the session this copy is of.
        known_seq: Deletions up to this commit were applied here before the session was repaired.
        hlc: The highest stamp issued or observed here.
        local_seq: Number of the last change of a document in this file.
        journal_floor: Changes up to this number may have left no trace; who knows less reloads.
        live: Number of documents that are not deleted.
        exchanged_ms: When the last exchange with the store succeeded; None before the first.
    """

    session: str
    dev: bytes
    inc: bytes
    repo_id: bytes | None
    n: int
    acked_n: int
    acked_seq: int
    repairs: int
    gen: int
    applied_seq: int
    known_seq: int
    hlc: int
    local_seq: int
    journal_floor: int
    live: int
    keyword_version: int
    exchanged_ms: int | None
    space: VectorSpace | None

    @property
    def life(self) -> Life:
        return Life(self.repairs, self.gen)


_SELECT = """
SELECT session, dev, inc, repo_id, n, acked_n, acked_seq, repairs, gen, applied_seq, known_seq, hlc,
  local_seq, journal_floor, live, keyword_version, exchanged_ms, model_id, model_fingerprint,
  model_dim, model_dtype FROM state
"""


_TYPES = (str, bytes, bytes, bytes | None, *[int] * 12, int | None)
"""Of the columns before those of the model; a damaged page may give others, whatever the schema."""


def read_state(conn: apsw.Connection) -> State:
    """Return the state as the current transaction sees it."""
    row = conn.execute(_SELECT).fetchone()
    if row is None:
        # Created together with the tables; without it the file has been tampered with.
        raise apsw.CorruptError("the state row is missing")
    *plain, model_id, fingerprint, dim, dtype = row
    if not all(map(isinstance, plain, _TYPES)):
        raise apsw.CorruptError("the state row is damaged")
    space = None
    if dim is not None:
        if not 0 < dim <= MAX_DIMENSIONS or dtype not in get_args(VectorType):
            raise apsw.CorruptError("the state row names vectors that cannot be")
        space = VectorSpace(
            cast(str, model_id), cast(str, fingerprint), cast(int, dim), cast(VectorType, dtype)
        )
    return State(*(*plain, space))


def update_state(conn: apsw.Connection, **values: int | str | bytes | None) -> None:
    """Set columns of the row, named by code and never by data."""
    assignments = ", ".join(f"{name} = ?" for name in values)
    conn.execute(f"UPDATE state SET {assignments}", tuple(values.values()))


def set_space(conn: apsw.Connection, space: VectorSpace) -> None:
    """Write down which vectors the session holds."""
    update_state(
        conn,
        model_id=space.id,
        model_fingerprint=space.fingerprint,
        model_dim=space.dim,
        model_dtype=space.dtype,
    )
