"""A session on this device as one session object uses it: its file, its model, its own writes.

What writes, searches and fills in shares one `Local`, so that a move to another model, or a fork,
is seen by all of them at once. It does not hold the session object, which can be forgotten.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import apsw
import numpy as np
from numpy.typing import NDArray

from moss_local.changes import OwnWrites
from moss_local.embedding.base import Kind, Progress
from moss_local.errors import FileBusyError
from moss_local.model_choice import CUSTOM_ID, ModelChoice
from moss_local.storage.file import SessionFile
from moss_local.storage.state import State, read_state
from moss_sync import VectorSpace

MOVES = 3
"""Moves of the session to another model during one call; each takes an embedding of all of it."""


class Local:
    """One session on this device.

    Attributes:
        name: As it was opened.
        model: Of the session; a move of the session changes it.
        now_ms: The time by this device's clock, as the store's answers have corrected it.
        low_memory: Search from the file instead of keeping the vectors resident.
        own: What this object has written, so that its feed does not report it.
    """

    def __init__(
        self,
        name: str,
        file: SessionFile,
        model: ModelChoice,
        *,
        now_ms: Callable[[], int],
        low_memory: bool,
    ) -> None:
        self.name = name
        self.file = file
        self.model = model
        self.now_ms = now_ms
        self.low_memory = low_memory
        self.own = OwnWrites()

    def begin(self) -> None:
        """Begin anew in a forked child: what the parent has written is another process's."""
        self.own = OwnWrites()

    def state(self) -> State:
        """Return what the file says of itself."""
        with self.file.reading() as conn:
            return read_state(conn)

    def space(self) -> VectorSpace | None:
        """Return what the file's vectors are of; None before the first."""
        return self.state().space

    def model_id(self) -> str:
        """Return the model of the vectors; before the first, the one that they will be of."""
        return self.model.id(self.space())

    def is_custom(self) -> bool:
        """Return whether the vectors are the caller's own."""
        return self.model_id() == CUSTOM_ID

    def embed(
        self, texts: Sequence[str], *, kind: Kind = "document", progress: Progress | None = None
    ) -> NDArray[np.float32]:
        """Return a vector of the session's model for each text, shape (len(texts), dim).

        Raises:
            ModelNotFoundError: the model is not on this machine.
        """
        return self.model.embedder(self.space()).embed(texts, kind=kind, progress=progress)

    def writing(self) -> AbstractContextManager[apsw.Connection]:
        """As `SessionFile.writing`, and what is written is remembered as ours."""
        return self.own.writing(self.file)


def moved_too_often(session: str) -> FileBusyError:
    """Return the error of a call that met `MOVES` moves of its session."""
    return FileBusyError(f"session {session!r} is moved from model to model", hint="try again")
