"""What the rest of the library asks of an embedding model.

An embedder is right when it passes tests/contracts/test_embedders.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from moss_sync import InvalidArgumentError, VectorSpace

Progress = Callable[[int, int], None]
"""Called with (texts done, texts in all), on the thread that called `embed`."""

Kind = Literal["document", "query"]
"""Some models put another prefix before a question than before what may answer it."""


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

    def token_count(self, text: str) -> int:
        """Return how many tokens a text has as a document, the model's own marks included, uncut.

        Up to `max_tokens` the vector is of the whole text. Loads the tokenizer on first use.

        Raises:
            ModelNotFoundError, ModelCorruptError: as in embed.
        """
        ...

    def embed(
        self,
        texts: Sequence[str],
        *,
        kind: Kind = "document",
        progress: Progress | None = None,
    ) -> NDArray[np.float32]:
        """Return one unit-length vector per text, in order.

        Loads the weights on first use. A text has the same vector whatever it is embedded with.
        A single text never waits behind a bulk load of another thread for longer than one batch.

        Args:
            texts: Any strings, the empty one and NUL included; past `max_tokens` a text is cut.
        Returns:
            Shape (len(texts), dim), rows L2-normalised; (0, dim) for no texts.
        Raises:
            ModelNotFoundError: the weights, or a part of them, are not on this machine.
            ModelCorruptError: the weights are there and not what their hash or description says.
        """
        ...

    def close(self) -> None:
        """Let the weights go. The next `embed` loads them again."""
        ...


def as_stored(vectors: NDArray[np.floating], space: VectorSpace) -> NDArray[np.float32]:
    """Return the vectors as every device will read them back: rounded once to the space's dtype.

    The author of a document rounds before storing and before ranking, so that the same document
    has the same score on the device that wrote it and on those that received it.

    Args:
        vectors: Shape (..., dim).
    Returns:
        The same shape; every component is exactly representable in `space.dtype`.
    Raises:
        InvalidArgumentError: a component is not finite, or too large for the dtype.
    """
    dtype = np.dtype(f"<{space.dtype}")
    with np.errstate(over="ignore"):  # an overflow is reported below, as an error of ours
        rounded = np.asarray(vectors).astype(dtype).astype(np.float32)
    if not np.isfinite(rounded).all():
        raise InvalidArgumentError(
            f"a vector for {space.id!r} has a component that {dtype.name} cannot hold",
            hint="every component must be finite; divide each vector by its length",
        )
    return rounded
