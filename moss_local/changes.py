"""What others have changed in a session: other devices, other processes, other objects.

The file numbers its changes, so a feed is a number in it and loses nothing: not what happens
between two batches, not what happened while nobody listened (`since`). Only what one session
object has written itself is left out of its own feed.
What holds: tests/moss_local/test_changes.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from typing import Self

import apsw

from moss_local.runtime import runtime
from moss_local.storage.changes import Change, changes_since
from moss_local.storage.file import SessionFile
from moss_local.storage.state import read_state
from moss_local.types import Changes
from moss_sync import InvalidArgumentError

BATCH = 1000
"""Ids in one batch at most: one read and one list that nobody minds."""

POLL_S = 0.25
"""Between two looks at the file for what other processes wrote, 24 us each; this process's own
writes are heard of at once."""

MAX_SPANS = 4096
"""Of own writes that are remembered apart from each other. Older ones are reported like others':
once too often, which does no harm."""


class OwnWrites:
    """Which changes of a file one session object has made; safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._spans: list[tuple[int, int]] = []

    @contextlib.contextmanager
    def writing(self, file: SessionFile) -> Iterator[apsw.Connection]:
        """As `SessionFile.writing`, and what is written is remembered as ours."""
        with self._lock:  # held over the commit: nobody asks about changes that may yet be undone
            with file.writing() as conn:
                before = read_state(conn).local_seq
                yield conn
                after = read_state(conn).local_seq
            if after > before:
                self._add(before, after)

    def others(self, changes: Sequence[Change]) -> list[Change]:
        """Return those that are not ours."""
        with self._lock:
            return [change for change in changes if not self._is_own(change.number)]

    def _add(self, before: int, after: int) -> None:
        if self._spans and self._spans[-1][1] == before:
            before = self._spans.pop()[0]
        self._spans.append((before, after))
        del self._spans[:-MAX_SPANS]

    def _is_own(self, number: int) -> bool:
        place = bisect_left(self._spans, number, key=lambda span: span[1])
        return place < len(self._spans) and self._spans[place][0] < number


class ChangeFeed:
    """An endless iterator of `Changes`; ends when its session is closed.

    A call that is cancelled has taken nothing: the next one gives what it would have given.
    """

    def __init__(
        self, file: SessionFile, own: OwnWrites, since: str | None, closed: Callable[[], bool]
    ) -> None:
        """Begin now, or where a cursor says.

        Raises:
            InvalidArgumentError: `since` is no cursor.
        """
        self._file = file
        self._own = own
        self._closed = closed
        with file.reading() as conn:
            state = read_state(conn)
        self._place = state.dev.hex()
        self._at: int | None = state.local_seq
        if since is not None:
            place, self._at = _parsed(since)
            if place != self._place:
                self._at = None  # of another copy, which has numbers of its own

    @property
    def cursor(self) -> str:
        """Where the feed stands: `session.changes(since=cursor)` goes on here."""
        return self._cursor(0 if self._at is None else self._at)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Changes:
        loop, written = asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            with contextlib.suppress(RuntimeError):  # a loop that was left without an end
                loop.call_soon_threadsafe(written.set)

        self._file.listen(wake)
        try:
            while not self._closed():
                written.clear()  # before looking: what is written meanwhile sets it again
                found = await self._look()
                if found is not None:
                    return found
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(written.wait(), POLL_S)
        except InvalidArgumentError:
            if not self._closed():  # closed under our hands
                raise
        finally:
            self._file.ignore(wake)
        raise StopAsyncIteration

    async def _look(self) -> Changes | None:
        with self._file.reading() as conn:
            if read_state(conn).local_seq == self._at:
                return None
        found, at = await runtime.blocking(self._read)
        self._at = at  # not before: whoever is cancelled up to here has taken nothing
        return found

    def _read(self) -> tuple[Changes | None, int]:
        at = self._at
        while True:
            with self._file.reading() as conn:
                newest = read_state(conn).local_seq
                found = None if at is None else changes_since(conn, at, limit=BATCH)
            if at is None or found is None:
                return Changes(reset=True, cursor=self._cursor(newest)), newest
            if not found:
                return None, at
            at = found[-1].number
            others = self._own.others(found)
            if others:
                return self._changes(others, at), at

    def _changes(self, changes: Sequence[Change], at: int) -> Changes:
        return Changes(
            updated=tuple(change.id for change in changes if not change.deleted),
            deleted=tuple(change.id for change in changes if change.deleted),
            cursor=self._cursor(at),
        )

    def _cursor(self, at: int) -> str:
        return f"{self._place}-{at}"


def _parsed(cursor: object) -> tuple[str, int]:
    if isinstance(cursor, str):
        place, _, number = cursor.rpartition("-")
        if place and number.isascii() and number.isdecimal() and len(number) < 20:
            return place, int(number)
    raise InvalidArgumentError(
        f"{cursor!r} is no place in the changes of a session",
        hint="pass the cursor of a Changes, as it was",
    )
