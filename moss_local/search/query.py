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

from moss_local.search.fusion import (
    DEFAULT_ALPHA,
    NAMED_SPEAKER,
    blend,
    eligible,
    top,
    with_neighbours,
)
from moss_local.search.keywords import query_terms
from moss_local.search.postings import index_tokenizer
from moss_local.search.resident import Resident, Small
from moss_local.storage.documents import read_metadata
from moss_local.storage.encoding import check_vector, unit_rows
from moss_local.storage.file import SessionFile
from moss_local.storage.state import State
from moss_sync import InvalidArgumentError

DEFAULT_TOP_K = 5


@dataclass(frozen=True, slots=True)
class Hit:
    """One document found.

    Attributes:
        score: Its cosine to the query's vector, 0 if negative; 0.0 where either has no vector.
            Whatever alpha is: hits stand in the blended order, so scores need not fall.
        blended: What ordered the hits; comparable within one search only.
        hlc: Clock of the version found, which tells when it was written.
    """

    id: str
    text: str
    metadata: dict[str, str] | None
    payload: str | None
    score: float
    blended: float
    hlc: int


def search(
    file: SessionFile,
    *,
    text: str = "",
    vector: ArrayLike | None = None,
    alpha: float = DEFAULT_ALPHA,
    top_k: int = DEFAULT_TOP_K,
    min_score: float | None = None,
    low_memory: bool = False,
) -> list[Hit]:
    """Return the best documents, best first; equal ones in order of the later addition.

    Args:
        text: Words to look for; any string. Blank: only the vector counts, whatever alpha is.
        vector: The query's place in the session's vector space, of any length but zero; None
            searches by words alone.
        alpha: 1.0 is the vectors alone, 0.0 the words alone, and what has no term is not found.
        top_k: At most this many; 0 gives none.
        min_score: Leaves out every document whose score is below this.
        low_memory: Keeps neither vectors nor postings in memory; the same answers, more slowly.
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
    if not text.strip() and query is not None:
        alpha = 1.0
    resident: Resident = (
        file.derived(Small, Small) if low_memory else file.derived(Resident, Resident)
    )
    with file.reading() as conn:
        with resident.at(conn) as state:
            if query is not None and state.space is not None and query.size != state.space.dim:
                raise InvalidArgumentError(
                    f"the query's embedding has {query.size} dimensions;"
                    f" session {state.session!r} has {state.space.dim}"
                )
            if top_k == 0 or not state.live:
                return []
            found = _rank(conn, resident, state, text, query, alpha)
        allowed = eligible(found.semantic, found.keyword, alpha)
        if min_score is not None:
            # A document without a vector has the score 0.0.
            allowed &= np.clip(np.nan_to_num(found.semantic), 0.0, 1.0) >= min_score
        places = top(found.scores, allowed, found.rowids, top_k)
        return [
            _hit(conn, int(found.rowids[place]), found.semantic[place], found.scores[place])
            for place in places
        ]


@dataclass(frozen=True, slots=True)
class _Ranked:
    """Aligned arrays over every document, in the order of the thread."""

    rowids: NDArray[np.int32]
    semantic: NDArray[np.float32]
    keyword: NDArray[np.float32]
    scores: NDArray[np.float32]


def _rank(
    conn: apsw.Connection,
    resident: Resident,
    state: State,
    text: str,
    query: NDArray[np.float32] | None,
    alpha: float,
) -> _Ranked:
    resident.turns.follow(conn, state)
    rowids = resident.turns.rowids
    terms = query_terms(text, index_tokenizer(conn)) if alpha < 1.0 else []
    if query is None:
        semantic = np.full(rowids.size, np.nan, np.float32)
    else:
        resident.vectors.follow(conn, state)
        semantic = resident.vectors.cosines(conn, query, rowids)
    if terms:
        resident.postings.follow(conn, state)
        keyword = resident.postings.scores(conn, terms, rowids)
    else:
        keyword = np.zeros(rowids.size, np.float32)
    scores = blend(semantic, keyword, alpha)
    if query is not None and 0.0 < alpha < 1.0:
        scores = with_neighbours(scores)
        named = resident.turns.spoken_by_named(terms)
        if named is not None:
            scores[named] += np.float32(NAMED_SPEAKER)
    return _Ranked(rowids, semantic, keyword, scores)


def _hit(conn: apsw.Connection, rowid: int, cosine: np.float32, blended: np.float32) -> Hit:
    row: Any = conn.execute(
        "SELECT id, text, metadata, payload, hlc FROM document WHERE rowid = ?", (rowid,)
    ).fetchone()
    id, text, metadata, payload, hlc = row
    score = min(max(float(cosine), 0.0), 1.0) if not np.isnan(cosine) else 0.0
    return Hit(id, text, read_metadata(metadata), payload, score, float(blended), hlc)
