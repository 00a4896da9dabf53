"""The documents of a session as turns of a thread: in which order they were said, and by whom.

A thread is more than a bag of documents: the turn before often holds the question that a turn
answers, and people ask about people. Both are read from what documents carry by convention (see
docs/threads.md): `when` in the metadata, else the moment of writing; `who` in the metadata, else a
name before a colon at the start of the text.

What holds (tests/moss_local/test_search_turns.py): after any writes of two connections it equals
what a fresh read gives.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import apsw
import numpy as np
from numpy.typing import NDArray

from moss_local.search.follower import Follower
from moss_local.search.keywords import prepare_text
from moss_local.search.postings import index_tokenizer
from moss_local.storage.documents import read_metadata
from moss_local.storage.state import State
from moss_sync.hlc import from_ms

WHO, WHEN = "who", "when"
"""The metadata fields of the convention."""

MAX_NAME_CHARS = 40
MAX_NAME_TERMS = 4
"""Longer beginnings of a text are no names."""

_NAME = re.compile(rf"\s*([^\s:][^:\r\n]{{0,{MAX_NAME_CHARS - 1}}}):\s")
_BEGINNING = MAX_NAME_CHARS + 24
"""Characters of a text read for its name, blanks before it included."""

_SELECT = (
    f"SELECT rowid, deleted, hlc, dev, metadata, substr(text, 1, {_BEGINNING}) FROM document WHERE "
)


class ResidentTurns(Follower):
    """The order and the speakers of one file's documents: about 30 bytes a document."""

    def __init__(self) -> None:
        super().__init__()
        self._clear()

    @property
    def rowids(self) -> NDArray[np.int64]:
        """Row ids of all documents, in the order of the thread; another array after a change.

        Eight bytes each: numpy takes twice the time to look things up by narrower ones.
        """
        return self._order

    @property
    def moments(self) -> NDArray[np.int64]:
        """When each turn was said, as a clock's stamp, in the order of the thread."""
        return self._moment[self._order]

    def spoken_by_named(self, terms: Sequence[bytes]) -> NDArray[np.bool_] | None:
        """Return which turns, in their order, are of a speaker whom a query names.

        None when it names nobody, or everybody: then the name tells nothing.

        Args:
            terms: Of the query, as the index has them.
        """
        given = set(terms)
        named = [
            code
            for term in given
            for name, code in self._by_first_term.get(term, ())
            if self._spoken[code] and given.issuperset(name)
        ]
        if not named or len(named) == np.count_nonzero(self._spoken):
            return None
        mark = np.zeros(len(self._spoken), np.bool_)
        mark[named] = True
        mark[0] = False
        return mark[self._speaker[self._order]]

    def _size(self) -> int:
        return self._order.size

    def _clear(self) -> None:
        self._order: NDArray[np.int64] = np.empty(0, np.int64)
        # By row id. Two devices may have written in the same moment; the device then decides.
        self._moment: NDArray[np.int64] = np.empty(0, np.int64)
        self._device: NDArray[np.uint64] = np.empty(0, np.uint64)
        self._speaker: NDArray[np.int32] = np.empty(0, np.int32)
        # Speaker 0 is nobody; how many turns each of the others has.
        self._spoken: list[int] = [0]
        self._codes: dict[str, int] = {}
        self._names: dict[tuple[bytes, ...], int] = {}
        self._by_first_term: dict[bytes, list[tuple[tuple[bytes, ...], int]]] = {}

    def _load(self, conn: apsw.Connection, state: State) -> None:
        self._clear()
        rowids = self._read(conn, conn.execute(_SELECT + "deleted = 0"))
        self._order = self._sorted(rowids)

    def _catch_up(self, conn: apsw.Connection, state: State, since: int) -> None:
        changes: list[Any] = conn.execute(_SELECT + "changed > ?", (since,)).fetchall()
        changed = np.array([row[0] for row in changes], np.int64)
        known = changed[changed < self._speaker.size]
        gone = np.zeros(max(self._speaker.size, int(changed.max(initial=0)) + 1), np.bool_)
        gone[changed] = True
        for code in self._speaker[known[np.isin(known, self._order)]].tolist():
            self._spoken[code] -= code > 0
        order = self._order[~gone[self._order]] if known.size else self._order
        new = self._sorted(self._read(conn, (row for row in changes if not row[1])))
        if order.size and new.size and self._before(int(order[-1]), int(new[0])):
            self._order = np.concatenate([order, new])
        else:
            self._order = self._sorted(np.concatenate([order, new])) if new.size else order

    def _read(self, conn: apsw.Connection, rows: Any) -> NDArray[np.int64]:
        tokenize = index_tokenizer(conn)

        def terms_of(name: str) -> tuple[bytes, ...]:
            return tuple(dict.fromkeys(tokenize(prepare_text(name))))

        rowids = []
        for rowid, _, hlc, device, metadata, beginning in rows:
            fields = read_metadata(metadata) or {}
            self._reserve(rowid + 1)
            when = _moment(fields.get(WHEN))
            self._moment[rowid] = hlc if when is None else when
            self._device[rowid] = int.from_bytes(device, "big")
            code = self._code(_name(fields.get(WHO), beginning), terms_of)
            self._speaker[rowid] = code
            self._spoken[code] += code > 0
            rowids.append(rowid)
        return np.array(rowids, np.int64)

    def _code(self, name: str, terms_of: Callable[[str], tuple[bytes, ...]]) -> int:
        if not name:
            return 0
        code = self._codes.get(name)
        if code is None:
            terms = terms_of(name)
            if not 0 < len(terms) <= MAX_NAME_TERMS:
                code = 0
            elif terms in self._names:
                code = self._names[terms]
            else:
                code = self._names[terms] = len(self._spoken)
                self._spoken.append(0)
                self._by_first_term.setdefault(terms[0], []).append((terms, code))
            self._codes[name] = code
        return code

    def _sorted(self, rowids: NDArray[np.int64]) -> NDArray[np.int64]:
        order = np.lexsort((rowids, self._device[rowids], self._moment[rowids]))
        return rowids[order]

    def _before(self, one: int, other: int) -> bool:
        return (self._moment[one], self._device[one]) < (self._moment[other], self._device[other])

    def _reserve(self, rows: int) -> None:
        size = self._moment.size
        if rows > size:
            more = max(64, rows + rows // 2) - size
            self._moment = np.append(self._moment, np.zeros(more, np.int64))
            self._device = np.append(self._device, np.zeros(more, np.uint64))
            self._speaker = np.append(self._speaker, np.zeros(more, np.int32))


def _name(who: str | None, beginning: str) -> str:
    if who is not None:
        return who.strip()
    found = _NAME.match(beginning)
    return found.group(1) if found else ""


def _moment(when: str | None) -> int | None:
    """Return an ISO 8601 moment (UTC if it names no zone) as a clock's stamp; else None."""
    if when is None:
        return None
    try:
        moment = datetime.fromisoformat(when.strip())
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return from_ms(int(moment.timestamp() * 1000))
    except (ValueError, OverflowError):
        return None
