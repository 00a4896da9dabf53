"""Which model a session uses: its vectors' own, else the one it was opened with, else ours."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from moss_local.embedding.base import Embedder
from moss_local.embedding.models import Model, open_embedder, resolve_model
from moss_sync import ModelMismatchError, VectorSpace

CUSTOM_ID = "custom"


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """The model of one session.

    Attributes:
        session: Its name, for messages.
        wanted: What it was opened with; None accepts whatever the session has.
        default: What a session without vectors gets when nothing was wanted.
        cache_dir: Where what is derived from a model is kept.
    """

    session: str
    wanted: Model | None
    default: Model
    cache_dir: Path

    def accepts(self, space: VectorSpace) -> None:
        """Return if vectors of `space` are of the wanted model.

        Raises:
            ModelMismatchError: they are not.
        """
        wanted = self.wanted
        if wanted is None:
            return
        same = space.id == CUSTOM_ID if wanted.space is None else space == wanted.space
        if not same:
            raise ModelMismatchError(self.session, stored=space.id, wanted=wanted.id)

    def id(self, stored: VectorSpace | None) -> str:
        """Return what users call the model of a session whose file says `stored`."""
        return (self.wanted or self.default).id if stored is None else stored.id

    def space(self, stored: VectorSpace | None) -> VectorSpace | None:
        """Return what vectors written now are of; None for a custom space not known yet."""
        return (self.wanted or self.default).space if stored is None else stored

    def embedder(self, stored: VectorSpace | None) -> Embedder:
        """Return what makes vectors for the session; loads nothing yet.

        Raises:
            ModelNotFoundError: the model is not on this machine.
        """
        model = self.wanted or self.default
        if stored is not None and stored != model.space:
            # Opened without naming the model: it is looked for under the name that it goes by.
            model = resolve_model(stored.id)
            ModelChoice(self.session, model, self.default, self.cache_dir).accepts(stored)
        return open_embedder(model, cache_dir=self.cache_dir)
