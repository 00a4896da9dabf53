"""What the rest of the library asks of an embedding model.

An embedder is right when it passes tests/contracts/test_embedders.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from moss_sync import VectorSpace

Progress = Callable[[int, int], None]
"""Called with (texts done, texts in all), on the embedding thread."""


class Embedder(Protocol):
    """Texts to unit vectors. Blocking and safe to call from several threads."""

    @property
    def space(self) -> VectorSpace:
        """The vector space that the vectors live in; known before the weights are loaded."""
        ...

    @property
    def max_tokens(self) -> int:
        """Past this many tokens, the model's own marks included, a text is cut."""
        ...

    def embed(
        self, texts: Sequence[str], *, progress: Progress | None = None
    ) -> NDArray[np.float32]:
        """Return one unit-length vector per text, in order.

        Loads the weights on first use. A single text never waits behind a bulk load of another
        thread for longer than one batch.

        Args:
            texts: Any strings, the empty one and NUL included; past `max_tokens` a text is cut.
        Returns:
            Shape (len(texts), dim), rows L2-normalised; (0, dim) for no texts.
        Raises:
            ModelNotFoundError: the weights, or a part of them, are not on this machine.
            ModelCorruptError: the weights are there and not what their hash says.
        """
        ...
