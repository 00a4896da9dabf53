"""Which terms stand in which documents: in memory, or straight from the full-text index.

FTS5 answers a natural question in 0.8 ms at 1 000 messages and 100 ms at 100 000: it reads and
scores every document that has any of the words, one by one. So FTS5 is where the index lives, and
`ResidentPostings` is what queries read: the same terms in the same documents as arrays, scored by
the same formula in a few passes. `StoredPostings` reads them from FTS5's tables at every query, for
a process that may not spend the memory.

Resident are a base (arrays sorted by term, as after a bulk read) and what came since (a dictionary
per term); documents of the base that changed since are marked and passed over. From time to time
the second is merged into the first.

What holds (tests/moss_local/test_search_postings.py): after any writes of two connections both give
the same scores, and those are FTS5's own when they are given FTS5's parameters.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import apsw
import numpy as np
from numpy.typing import NDArray

from moss_local.search.bm25 import Bm25, Matches
from moss_local.search.follower import Follower
from moss_local.search.keywords import TOKENIZER, Tokenizer, prepare_text
from moss_local.storage.rows import check_rowids
from moss_local.storage.state import State

MERGE_DOCUMENTS = 512
"""So many changed documents are kept aside before they are merged; merging takes about 8 ms per
million postings, and what is kept aside about 30 ns a posting at every query that meets it."""

MAX_TERM_BYTES = 32_768
"""FTS5 cuts a longer term here."""

_MAX_FREQUENCY = np.iinfo(np.uint16).max
"""A term that comes more often in one document is counted so often: BM25 is flat long before."""

_READ_BYTES = 1 << 20
"""Row ids read as text before they are made into arrays: bounds the memory beside them."""

_TOKENIZER = shlex.split(TOKENIZER)

_VOCABULARY = (
    "CREATE VIRTUAL TABLE IF NOT EXISTS temp.keyword_instance"
    " USING fts5vocab(main, keyword, instance)"
)


class Postings(Protocol):
    """Where the words of a file can be looked up."""

    def follow(self, conn: apsw.Connection, state: State) -> None:
        """Become what the current transaction sees; `state` was read in it."""
        ...

    def scores(
        self, conn: apsw.Connection, terms: Sequence[bytes], rowids: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Return each row's BM25 score: above 0 where it has any of the terms, else 0."""
        ...


def index_tokenizer(conn: apsw.Connection) -> Tokenizer:
    """Return the tokenizer of the full-text index itself; of no use after the connection."""
    tokenizer = conn.fts5_tokenizer(_TOKENIZER[0], _TOKENIZER[1:])

    def tokenize(text: str) -> list[bytes]:
        found: Any = tokenizer(
            text.encode(),
            apsw.FTS5_TOKENIZE_DOCUMENT,
            None,
            include_offsets=False,
            include_colocated=False,
        )
        return [term.encode()[:MAX_TERM_BYTES] for term in found]

    return tokenize


class ResidentPostings(Follower):
    """The postings of one file in memory: about 110 bytes for a short message."""

    def __init__(self, bm25: Bm25 | None = None) -> None:
        super().__init__()
        self._bm25 = bm25 if bm25 is not None else Bm25()
        self._live = 0
        self._total = 0
        self._clear()

    def scores(
        self, conn: apsw.Connection, terms: Sequence[bytes], rowids: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """See `Postings`."""
        self._reserve(int(rowids.max(initial=0)) + 1)
        scores = self._bm25.scores(
            [self._matches(term) for term in terms],
            self._lengths,
            documents=self._live,
            terms=self._total,
        )
        return scores.take(rowids)

    def _matches(self, term: bytes) -> Matches:
        number = self._numbers.get(term)
        if number is None:
            found = _NOWHERE
        else:
            part = slice(self._starts[number], self._starts[number + 1])
            found = Matches(self._rowids[part], self._frequencies[part])
            if self._stale_count:
                keep = ~self._stale[found.rowids]
                found = Matches(found.rowids[keep], found.frequencies[keep])
        recent = self._recent.get(term)
        if not recent:
            return found
        return Matches(
            np.concatenate([found.rowids, np.fromiter(recent.keys(), np.int32, len(recent))]),
            np.concatenate([found.frequencies, np.fromiter(recent.values(), np.uint16)]),
        )

    def _size(self) -> int:
        return self._live

    def _clear(self) -> None:
        self._numbers: dict[bytes, int] = {}
        self._starts: NDArray[np.int64] = np.zeros(1, np.int64)
        self._rowids: NDArray[np.int32] = _NOWHERE.rowids
        self._frequencies: NDArray[np.uint16] = _NOWHERE.frequencies
        # By row id: the terms in the document, and whether its postings in the base are void.
        self._lengths: NDArray[np.float32] = np.zeros(0, np.float32)
        self._stale: NDArray[np.bool_] = np.zeros(0, np.bool_)
        self._stale_count = 0
        self._recent: dict[bytes, dict[int, int]] = {}
        self._terms_of: dict[int, list[bytes]] = {}

    def _load(self, conn: apsw.Connection, state: State) -> None:
        self._clear()
        self._live = state.live
        rowids, frequencies, counts = [], [], []
        for terms, instances, of_term in _read_index(conn):
            for term in terms:
                self._numbers[term] = len(self._numbers)
            check_rowids(conn, instances)
            numbers = np.repeat(np.arange(of_term.size), of_term)
            first = _first_of_each(numbers, instances)
            rowids.append(instances[first])
            repeated = np.diff(first, append=instances.size)
            frequencies.append(np.minimum(repeated, _MAX_FREQUENCY).astype(np.uint16))
            counts.append(np.bincount(numbers[first], minlength=of_term.size))
            self._count_terms(instances)
        if rowids:
            self._rowids = np.concatenate(rowids)
            self._frequencies = np.concatenate(frequencies)
            self._starts = np.concatenate([[0], *counts]).cumsum()
        self._total = int(self._lengths.sum(dtype=np.float64))
        self._stale = np.zeros(self._lengths.size, np.bool_)

    def _count_terms(self, instances: NDArray[np.int32]) -> None:
        more = np.bincount(instances, minlength=self._lengths.size)
        self._reserve(more.size)
        self._lengths[: more.size] += more

    def _catch_up(self, conn: apsw.Connection, state: State, since: int) -> None:
        self._live = state.live
        tokenize = index_tokenizer(conn)
        changes: list[Any] = conn.execute(
            "SELECT rowid, deleted, text FROM document WHERE changed > ?", (since,)
        ).fetchall()
        for rowid, deleted, text in changes:
            self._remove(rowid)
            if not deleted:
                self._add(rowid, tokenize(prepare_text(text)))
        if len(self._terms_of) + self._stale_count > MERGE_DOCUMENTS:
            self._merge()

    def _remove(self, rowid: int) -> None:
        if rowid >= self._lengths.size:
            return
        self._total -= int(self._lengths[rowid])
        terms = self._terms_of.pop(rowid, None)
        if terms is not None:
            for term in terms:
                having = self._recent[term]
                del having[rowid]
                if not having:
                    del self._recent[term]
        elif self._lengths[rowid] > 0 and not self._stale[rowid]:
            self._stale[rowid] = True
            self._stale_count += 1
        self._lengths[rowid] = 0

    def _add(self, rowid: int, terms: Sequence[bytes]) -> None:
        counts: dict[bytes, int] = {}
        for term in terms:
            counts[term] = counts.get(term, 0) + 1
        for term, count in counts.items():
            self._recent.setdefault(term, {})[rowid] = min(count, _MAX_FREQUENCY)
        self._reserve(rowid + 1)
        self._terms_of[rowid] = list(counts)
        self._lengths[rowid] = len(terms)
        self._total += len(terms)

    def _merge(self) -> None:
        """Make one base of the base and what came since."""
        numbers = np.repeat(np.arange(len(self._numbers)), np.diff(self._starts))
        keep = ~self._stale[self._rowids]
        numbers, rowids = numbers[keep], self._rowids[keep]
        frequencies = self._frequencies[keep]
        new_numbers: list[int] = []
        new_rowids: list[int] = []
        new_frequencies: list[int] = []
        for term, having in self._recent.items():
            number = self._numbers.setdefault(term, len(self._numbers))
            new_numbers.extend([number] * len(having))
            new_rowids.extend(having.keys())
            new_frequencies.extend(having.values())
        order = np.argsort(new_numbers, kind="stable")
        added = np.array(new_numbers, np.int64)[order]
        places = np.searchsorted(numbers, added, side="right")
        self._rowids = np.insert(rowids, places, np.array(new_rowids, np.int32)[order])
        self._frequencies = np.insert(
            frequencies, places, np.array(new_frequencies, np.uint16)[order]
        )
        counts = np.bincount(numbers, minlength=len(self._numbers))
        counts += np.bincount(added, minlength=len(self._numbers))
        self._starts = np.concatenate([[0], counts]).cumsum()
        self._stale[:] = False
        self._stale_count = 0
        self._recent, self._terms_of = {}, {}

    def _reserve(self, rows: int) -> None:
        if rows > self._lengths.size:
            size = max(64, rows + rows // 8)
            self._lengths = np.append(self._lengths, np.zeros(size - self._lengths.size, "f4"))
            self._stale = np.append(self._stale, np.zeros(size - self._stale.size, np.bool_))


class StoredPostings:
    """The postings of one file as FTS5 keeps them, read at every query."""

    def __init__(self, bm25: Bm25 | None = None) -> None:
        self._bm25 = bm25 if bm25 is not None else Bm25()
        self._live = 0

    def follow(self, conn: apsw.Connection, state: State) -> None:
        """See `Postings`."""
        self._live = state.live

    def scores(
        self, conn: apsw.Connection, terms: Sequence[bytes], rowids: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """See `Postings`."""
        conn.execute(_VOCABULARY)
        matches = [_stored_matches(conn, term) for term in terms]
        having = np.unique(np.concatenate([np.empty(0, np.int32), *(m.rowids for m in matches)]))
        check_rowids(conn, having)
        lengths = np.zeros(int(rowids.max(initial=0)) + 1, np.float32)
        lengths[having] = _stored_lengths(conn, having)
        scores = self._bm25.scores(
            matches, lengths, documents=self._live, terms=_stored_total(conn)
        )
        return scores.take(rowids)


def _stored_matches(conn: apsw.Connection, term: bytes) -> Matches:
    rows: list[Any] = conn.execute(
        "SELECT doc FROM temp.keyword_instance WHERE term = ?", (term.decode(errors="replace"),)
    ).fetchall()
    found = np.fromiter((row[0] for row in rows), np.int32, len(rows))
    rowids, frequencies = np.unique(found, return_counts=True)
    return Matches(rowids, np.minimum(frequencies, _MAX_FREQUENCY).astype(np.uint16))


def _stored_lengths(conn: apsw.Connection, rowids: NDArray[np.int32]) -> NDArray[np.float32]:
    sizes: list[Any] = conn.executemany(
        "SELECT sz FROM keyword_docsize WHERE id = ?", ((rowid,) for rowid in rowids.tolist())
    ).fetchall()
    lengths = [_varints(row[0]) for row in sizes]
    if len(lengths) != rowids.size or not all(lengths):
        raise apsw.CorruptError("the keyword index does not say how long a document is")
    return np.array([length[0] for length in lengths], np.float32)


def _stored_total(conn: apsw.Connection) -> int:
    """Return the terms of all documents together: FTS5 keeps it in a row of its own."""
    row = conn.execute("SELECT block FROM keyword_data WHERE id = 1").get
    if not isinstance(row, bytes):
        raise apsw.CorruptError("the keyword index has no totals")
    numbers = _varints(row)  # rows, then terms by column; nothing at all in an empty index
    return numbers[1] if len(numbers) > 1 else 0


def _varints(data: bytes) -> list[int]:
    """Return SQLite's variable-length integers, up to eight bytes each."""
    numbers, value = [], 0
    for byte in data:
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            numbers.append(value)
            value = 0
    return numbers


def _read_index(
    conn: apsw.Connection,
) -> Iterable[tuple[list[bytes], NDArray[np.int32], NDArray[np.int64]]]:
    """Yield parts of the index: terms, the row ids of their instances, and how many each has.

    A row of fts5vocab for every instance would be a Python object each; SQLite joins them into one
    text per term (a third of the time), in the order of row ids.
    """
    conn.execute(_VOCABULARY)
    terms: list[bytes] = []
    texts: list[str] = []
    counts: list[int] = []
    size = 0
    rows: Any = conn.execute(
        "SELECT CAST(term AS BLOB), count(*), group_concat(doc) FROM temp.keyword_instance"
        " GROUP BY term"
    )
    for term, count, text in rows:
        terms.append(term or b"")  # fts5vocab says NULL for the empty term
        counts.append(count)
        texts.append(text)
        size += len(text)
        if size > _READ_BYTES:
            yield terms, np.fromstring(",".join(texts), np.int32, sep=","), np.array(counts)
            terms, texts, counts, size = [], [], [], 0
    if terms:
        yield terms, np.fromstring(",".join(texts), np.int32, sep=","), np.array(counts)


def _first_of_each(numbers: NDArray[Any], rowids: NDArray[Any]) -> NDArray[np.intp]:
    """Return where each run of one document in one term begins."""
    new = np.ones(rowids.size, np.bool_)
    new[1:] = (numbers[1:] != numbers[:-1]) | (rowids[1:] != rowids[:-1])
    return np.flatnonzero(new)


_NOWHERE = Matches(np.empty(0, np.int32), np.empty(0, np.uint16))
