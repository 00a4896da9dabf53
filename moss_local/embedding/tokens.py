"""Texts to token ids, cut at the model's limit."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from moss_local.errors import ModelCorruptError

_CHARS_PER_TOKEN = 12
"""Enough that ordinary prose fills the window long before its end (English: about 4)."""


class Tokens:
    """One model's tokenizer; safe to call from several threads."""

    def __init__(
        self, serialised: bytes, *, max_tokens: int, breaks: re.Pattern[str] | None
    ) -> None:
        """Read a tokenizer.json; its own truncation and padding are replaced by ours.

        Args:
            breaks: Matches characters before which this tokenizer always splits, so that the
                start of a text has the same tokens as that start alone; None for unknown ones.
        Raises:
            ModelCorruptError: the bytes are no tokenizer, or its marks leave no room for a text.
        """
        from tokenizers import Tokenizer

        try:
            self._tokenizer = Tokenizer.from_str(serialised.decode("utf-8"))
            self._tokenizer.no_padding()
            self._tokenizer.enable_truncation(max_tokens)
            self._uncut = Tokenizer.from_str(serialised.decode("utf-8"))
            self._uncut.no_padding()
            self._uncut.no_truncation()
        except Exception as error:  # the library raises plain Exception for every cause
            raise ModelCorruptError(f"tokenizer.json cannot be used: {error}") from error
        self._max_tokens = max_tokens
        self._breaks = breaks
        self._enough_chars = max_tokens * _CHARS_PER_TOKEN

    def ids(self, text: str) -> NDArray[np.int64]:
        """Return the ids of the text's first tokens and the model's marks, shape (tokens,)."""
        if self._breaks is not None and len(text) > self._enough_chars:
            # Encoding a megabyte to keep 256 tokens of it takes a second; its first 3 000
            # characters nearly always fill the window, and if they do, the rest says nothing.
            end = self._breaks.search(text, self._enough_chars)
            if end is not None:
                start: list[int] = self._tokenizer.encode(text[: end.start()]).ids
                if len(start) == self._max_tokens:
                    return np.array(start, np.int64)
        return np.array(self._tokenizer.encode(text).ids, np.int64)

    def count(self, text: str) -> int:
        """Return how many tokens the whole text and the model's marks are."""
        return len(self._uncut.encode(text).ids)
