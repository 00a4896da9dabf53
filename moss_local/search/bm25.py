"""How well a document's words answer a query's: BM25 over aligned arrays, and its parameters.

Rules of this file: values in, values out. A term that is in every other document tells nothing and
counts next to nothing, as in FTS5's own bm25(); the rarity of a term counts twice (squared), once
for the query and once for the document, which does for every language what a list of stop words
does for one. Measured in docs/design/0010-search.md.
What holds (tests/moss_local/test_search_postings.py): with FTS5's parameters it gives FTS5's
scores, on texts of every script.
Source: Robertson & Zaragoza 2009, "The Probabilistic Relevance Framework: BM25 and Beyond".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

LEAST_IDF = 1e-6
"""Of a term that half of the documents have, or more: so little that it never decides, but enough
that a document that has it is found. FTS5 has the same."""


class Matches(NamedTuple):
    """Where one term stands: aligned arrays, a document once."""

    rowids: NDArray[np.int32]
    frequencies: NDArray[np.uint16]


@dataclass(frozen=True, slots=True)
class Bm25:
    """The parameters.

    Attributes:
        k1: How soon repeating a term stops to help.
        b: How much a longer document is held against it, 0..1.
        idf_power: How often the rarity of a term counts.
    """

    k1: float = 0.9
    b: float = 0.4
    idf_power: float = 2.0

    def scores(
        self,
        matches: Sequence[Matches],
        lengths: NDArray[np.float32],
        *,
        documents: int,
        terms: int,
    ) -> NDArray[np.float32]:
        """Return a score by row id: above 0 where a document has any of the terms, else 0.

        Args:
            matches: One element per term of the query.
            lengths: By row id, the number of terms in each document.
            documents: How many there are.
            terms: In all of them together.
        """
        given = [each for each in matches if each.rowids.size]
        if not given:
            return np.zeros(lengths.size, np.float32)
        counts = [each.rowids.size for each in given]
        rowids = np.concatenate([each.rowids for each in given])
        frequencies = np.concatenate([each.frequencies for each in given], dtype=np.float32)
        weights = [self._weight(count, documents) for count in counts]
        average = max(terms, 1) / max(documents, 1)
        flat, slope = self.k1 * (1.0 - self.b), self.k1 * self.b / average
        values: NDArray[Any] = lengths[rowids]
        values *= np.float32(slope)
        values += np.float32(flat)
        values += frequencies
        np.divide(frequencies, values, out=values)
        values *= np.repeat(np.array(weights, np.float32), counts)
        return np.bincount(rowids, values, minlength=lengths.size).astype(np.float32)

    def _weight(self, having: int, documents: int) -> float:
        idf = log(max(documents - having, 0) + 0.5) - log(having + 0.5)
        return float(max(idf, LEAST_IDF) ** self.idf_power * (self.k1 + 1.0))
