"""One search of one session's file: by meaning, by word, or blended, in one read transaction.

What the file says, what is resident and what is returned are of one moment: the local sequence
number, the keyword index and the documents are read in the same transaction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import apsw
import numpy as np
from numpy.typing import ArrayLike, NDArray

from moss_local.search.fusion import DEFAULT_ALPHA, blend, eligible, top
from moss_local.search.keywords import match_expression
from moss_local.search.vectors import ResidentVectors
from moss_local.storage.documents import read_metadata
from moss_local.storage.encoding import check_vector, unit_rows
from moss_local.storage.file import SessionFile
from moss_sync import InvalidArgumentError

DEFAULT_TOP_K = 5


@dataclass(frozen=True, slots=True)
class Hit:
    """One document found.

    Attributes:
        score: Its cosine to the query's vector, 0 if negative; 0.0 where either has no vector.
            Whatever alpha is: hits stand in the blended order, so scores need not fall.
        blended: What ordered the hits: 0..1, comparable within one search only.
        hlc: Clock of the version found, which tells when it was written.
    """

    id: str
    text: str
    metadata: dict[str, str] | None
    payload: str | None
    score: float
    blended: float
    hlc: int


@dataclass(frozen=True, slots=True)
class _Candidates:
    """Aligned arrays over every document that has a vector or a term of the query."""

    rowids: NDArray[np.int64]
    semantic: NDArray[np.float32]
    keyword: NDArray[np.float32]


def search(
    file: SessionFile,
    *,
    text: str = "",
    vector: ArrayLike | None = None,
    alpha: float = DEFAULT_ALPHA,
    top_k: int = DEFAULT_TOP_K,
    min_score: float | None = None,
) -> list[Hit]:
    """Return the best documents, best first; equal ones in order of the later addition.

    Args:
        text: Words to look for; any string. Blank: only the vector counts, whatever alpha is.
        vector: The query's place in the session's vector space, of any length but zero; None
            searches by words alone.
        alpha: 1.0 is the vectors alone, 0.0 the words alone, and what has no term is not found.
        top_k: At most this many; 0 gives none.
        min_score: Leaves out every document whose score is below this.
    Raises:
        InvalidArgumentError: alpha outside 0..1, a negative top_k, or a vector that is not finite,
            is zero, or has another dimension than the session's.
    """
    if not 0.0 <= alpha <= 1.0:  # also refuses NaN
        raise InvalidArgumentError(f"alpha is {alpha!r}; it goes from 0.0 (words) to 1.0 (meaning)")
    if top_k < 0:
        raise InvalidArgumentError(f"top_k is {top_k}; it cannot be negative")
    query = None
    if vector is not None:
        checked = check_vector(vector, dim=None, what="the query's embedding")
        query = unit_rows(checked[None, :])[0]
    blank = not text.strip()
    if blank and query is not None:
        alpha = 1.0
    expression = match_expression(text) if alpha < 1.0 else None
    resident = file.derived(ResidentVectors, ResidentVectors)
    with file.reading() as conn:
        found = _candidates(conn, resident, query, expression)
        if found is None or top_k == 0:
            return []
        allowed = eligible(found.semantic, found.keyword, alpha)
        if min_score is not None:
            # A document without a vector has the score 0.0.
            allowed &= np.clip(np.nan_to_num(found.semantic), 0.0, 1.0) >= min_score
        scores = blend(found.semantic, found.keyword, alpha)
        places = top(scores, allowed, found.rowids, top_k)
        return [
            _hit(conn, int(found.rowids[place]), found.semantic[place], scores[place])
            for place in places
        ]


def _candidates(
    conn: apsw.Connection,
    resident: ResidentVectors,
    query: NDArray[np.float32] | None,
    expression: str | None,
) -> _Candidates | None:
    if query is None:
        if expression is None:
            return None
        rowids, keyword = _keyword_scores(conn, expression)
        return _Candidates(rowids, np.full(rowids.size, np.nan, np.float32), keyword)
    scan = resident.scan(conn, query)
    keyword = np.zeros(scan.rowids.size, np.float32)
    if expression is None:
        return _Candidates(scan.rowids, scan.cosines, keyword)
    words, matched = _keyword_scores(conn, expression)
    places = scan.places(words)
    known = places >= 0
    keyword[places[known]] = matched[known]
    # Documents without a vector follow those that have one.
    rest = words[~known]
    return _Candidates(
        np.concatenate([scan.rowids, rest]),
        np.concatenate([scan.cosines, np.full(rest.size, np.nan, np.float32)]),
        np.concatenate([keyword, matched[~known]]),
    )


def _keyword_scores(
    conn: apsw.Connection, expression: str
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return row ids and BM25 scores, greater is better, of all documents with any term."""
    rows: list[Any] = conn.execute(
        "SELECT rowid, -bm25(keyword) FROM keyword WHERE keyword MATCH ?", (expression,)
    ).fetchall()
    pairs = np.array(rows, np.float64).reshape(len(rows), 2)
    return pairs[:, 0].astype(np.int64), pairs[:, 1].astype(np.float32)


def _hit(conn: apsw.Connection, rowid: int, cosine: np.float32, blended: np.float32) -> Hit:
    row: Any = conn.execute(
        "SELECT id, text, metadata, payload, hlc FROM document WHERE rowid = ?", (rowid,)
    ).fetchone()
    id, text, metadata, payload, hlc = row
    score = min(max(float(cosine), 0.0), 1.0) if not np.isnan(cosine) else 0.0
    return Hit(id, text, read_metadata(metadata), payload, score, float(blended), hlc)
