"""The background of a session in virtual time, over a store that comes and goes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from moss_local.auto_sync import (
    LONGEST_NAP_S,
    SHORTEST_INTERVAL_S,
    AutoSync,
    check_interval,
)
from moss_local.schedule import LONGEST_RETRY_S, LONGEST_UNPUSHED_S, QUIET_S, Work
from moss_sync import (
    ForkDetectedError,
    HistoryError,
    InvalidArgumentError,
    MossError,
    NetworkError,
    StoreBusyError,
    StoreLacksCasError,
    SyncReport,
    UnauthorizedError,
)
from tests.moss_local.virtual import VirtualClock, in_virtual_time


class Session:
    """What the background sees of a session: a number of unpushed changes, and a store."""

    def __init__(self, clock: VirtualClock, interval_s: float = 30.0, takes_s: float = 0.0) -> None:
        self.name = "conv"
        self.clock = clock
        self.takes_s = takes_s
        self.fault: Exception | None = None
        self.unpushed = self.written = 0
        self.done: list[tuple[float, Work]] = []
        self.tried: list[float] = []
        self.under_way = self.most_at_once = 0
        self.shown: Exception | None = None
        self.outcome: Callable[[Work, MossError | None], None] | None = None
        self.start = clock.now
        self.turn = asyncio.Semaphore(8)
        self.auto = AutoSync(
            self, interval_s, clock=clock, unpushed=self.newest_unpushed, turn=lambda: self.turn
        )
        self.task = asyncio.ensure_future(self.auto.run())

    async def newest_unpushed(self) -> int | None:
        return self.written if self.unpushed else None

    def write(self) -> None:
        self.unpushed += 1
        self.written += 1
        self.auto.written()

    async def pull(self) -> SyncReport:
        return await self._exchange("pull")

    async def push(self) -> SyncReport:
        return await self._exchange("push")

    async def sync(self) -> SyncReport:
        return await self._exchange("sync")

    def stop(self, error: Exception) -> None:
        self.shown = error

    async def _exchange(self, work: Work) -> SyncReport:
        self.tried.append(self.clock.now - self.start)
        self.under_way += 1
        self.most_at_once = max(self.most_at_once, self.under_way)
        sent = self.unpushed
        try:
            if self.takes_s:
                await self.clock.sleep(self.takes_s)
            if self.fault is not None:
                raise self.fault
        except MossError as error:
            self._tell(work, error)
            raise
        finally:
            self.under_way -= 1
        self.done.append((self.clock.now - self.start, work))
        if work != "pull":
            self.unpushed -= sent
        self.auto.written()  # as everything that an exchange itself writes to the file
        self._tell(work, None)
        return SyncReport()

    def _tell(self, work: Work, error: MossError | None) -> None:
        assert self.outcome is not None
        self.outcome(work, error)

    def times(self, *works: Work) -> list[float]:
        return [at for at, work in self.done if work in works]


Story = Callable[[VirtualClock], Coroutine[Any, Any, None]]


def test_it_pulls_in_its_rhythm_and_pushes_nothing_when_nothing_is_written() -> None:
    async def story(clock: VirtualClock) -> None:
        session = Session(clock)
        await clock.run_for(100)
        assert session.done == [(0.0, "pull"), (30.0, "pull"), (60.0, "pull"), (90.0, "pull")]
        await clock.finish(session.auto.close(5))
        await clock.run_for(100)
        assert len(session.done) == 4
        assert session.task.done()

    in_virtual_time(story)


def test_writes_are_pushed_once_they_are_quiet() -> None:
    async def story(clock: VirtualClock) -> None:
        session = Session(clock)
        await clock.run_for(5)
        for _ in range(4):
            session.write()
            await clock.run_for(1)
        await clock.run_for(10)
        assert session.times("push", "sync") == [8.0 + QUIET_S]
        assert session.unpushed == 0

    in_virtual_time(story)


def test_an_unbroken_stream_of_writes_is_pushed_all_the_same() -> None:
    async def story(clock: VirtualClock) -> None:
        session = Session(clock, interval_s=1000)
        await clock.run_for(5)
        for _ in range(60):
            session.write()
            await clock.run_for(1)
        pushed = session.times("push", "sync")
        assert pushed[0] == 5 + LONGEST_UNPUSHED_S
        assert all(0 < b - a <= LONGEST_UNPUSHED_S + 1 for a, b in pairwise(pushed))
        assert session.unpushed <= LONGEST_UNPUSHED_S

    in_virtual_time(story)


@settings(max_examples=25, deadline=None)
@given(
    interval_s=st.floats(SHORTEST_INTERVAL_S, 4.0),
    gaps=st.lists(st.floats(0.05, 6.0), min_size=1, max_size=8),
)
@example(interval_s=0.3, gaps=[1.0])
@example(interval_s=1.0, gaps=[1.0, 1.5])
def test_when_writes_are_pushed_does_not_depend_on_how_often_is_pulled(
    interval_s: float, gaps: list[float]
) -> None:
    pushed: list[list[float]] = []

    async def story(clock: VirtualClock) -> None:
        for each_s in (interval_s, 1000.0):
            session = Session(clock, interval_s=each_s)
            await clock.run_for(5)
            for gap in gaps:
                await clock.run_for(gap)
                session.write()
            await clock.run_for(LONGEST_UNPUSHED_S + 0.1)
            assert session.unpushed == 0
            pushed.append(session.times("push", "sync"))
            await clock.finish(session.auto.close(5))

    in_virtual_time(story)
    assert pushed[0] == pytest.approx(pushed[1], abs=0.001)


def test_news_from_others_do_not_hold_up_what_was_written_here() -> None:
    async def story(clock: VirtualClock) -> None:
        session = Session(clock, interval_s=1000)
        await clock.run_for(5)
        session.write()
        for _ in range(30):
            await clock.run_for(0.1)
            session.auto.written()  # a pull that somebody asked for has merged something
        assert session.times("push") == [5 + QUIET_S]

    in_virtual_time(story)


def test_what_was_left_unpushed_before_goes_soon_after_opening() -> None:
    async def story(clock: VirtualClock) -> None:
        session = Session(clock, interval_s=1000)
        session.unpushed = session.written = 3
        await clock.run_for(QUIET_S + 0.1)
        assert session.unpushed == 0

    in_virtual_time(story)


def test_what_another_process_wrote_goes_after_the_next_pull() -> None:
    async def story(clock: VirtualClock) -> None:
        session = Session(clock)
        await clock.run_for(10)
        session.unpushed = session.written = 1  # and nobody says so
        await clock.run_for(20 + QUIET_S + 0.1)
        assert session.unpushed == 0

    in_virtual_time(story)


def test_a_store_that_goes_away_is_asked_ever_more_rarely_and_recovered_from_at_once() -> None:
    async def story(clock: VirtualClock) -> None:
        session = Session(clock, interval_s=5)
        await clock.run_for(6)
        session.fault = NetworkError("away")
        session.write()
        await clock.run_for(3600)
        outage = [at for at in session.tried if at > 6]
        waits = [b - a for a, b in pairwise(outage)]
        assert all(wait <= LONGEST_RETRY_S for wait in waits)
        assert min(waits[6:]) >= LONGEST_RETRY_S / 2
        assert len(outage) < 3600 / (LONGEST_RETRY_S / 2) + 10
        session.fault = None
        back = clock.now - session.start
        await clock.run_for(LONGEST_RETRY_S)
        assert session.unpushed == 0
        assert session.done[2] == (session.times("sync")[0], "sync")
        assert session.times("sync")[0] <= back + LONGEST_RETRY_S
        after = len(session.times("pull", "sync"))
        await clock.run_for(50)
        assert len(session.times("pull", "sync")) - after == 10  # the old rhythm

    in_virtual_time(story)


def test_an_exchange_that_the_caller_asked_for_ends_the_waiting_too() -> None:
    async def story(clock: VirtualClock) -> None:
        session = Session(clock, interval_s=5)
        session.fault = NetworkError("away")
        await clock.run_for(600)
        session.fault = None
        await session.pull()
        begun = len(session.done)
        await clock.run_for(11)
        assert len(session.done) == begun + 2

    in_virtual_time(story)


def test_a_store_that_asks_for_patience_gets_it() -> None:
    async def story(clock: VirtualClock) -> None:
        session = Session(clock, interval_s=5)
        session.fault = StoreBusyError("slow down", retry_after=200.0)
        await clock.run_for(250)
        assert session.tried == [0.0, 200.0]

    in_virtual_time(story)


@pytest.mark.parametrize(
    "error",
    [
        ForkDetectedError("two histories"),
        UnauthorizedError("not the key"),
        StoreLacksCasError("memory://x", check="race", hint="use another"),
        HistoryError("older than seen"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_that_somebody_must_see_to_stops_it_until_an_exchange_succeeds(
    error: MossError, caplog: pytest.LogCaptureFixture
) -> None:
    async def story(clock: VirtualClock) -> None:
        session = Session(clock, interval_s=5)
        await clock.run_for(1)
        session.fault = error
        session.write()
        await clock.run_for(1000)
        assert len(session.tried) == 2
        session.fault = None
        await clock.run_for(1000)
        assert len(session.tried) == 2
        await session.sync()  # the caller's, after having repaired what was wrong
        await clock.run_for(11)
        assert session.times("pull")[-2:] == [2001 + 5.0, 2001 + 10.0]

    in_virtual_time(story)
    assert len([record for record in caplog.records if record.levelno == logging.WARNING]) == 1


def test_a_bug_stops_it_and_shows_instead_of_spinning(caplog: pytest.LogCaptureFixture) -> None:
    async def story(clock: VirtualClock) -> None:
        session = Session(clock, interval_s=5)
        session.fault = ZeroDivisionError("a bug")
        await clock.run_for(1000)
        assert session.tried == [0.0]
        assert session.shown is session.fault
        await clock.finish(session.auto.close(1))

    in_virtual_time(story)
    assert "ZeroDivisionError" in caplog.text


def test_a_machine_that_slept_exchanges_as_soon_as_it_notices() -> None:
    async def story(clock: VirtualClock) -> None:
        session = Session(clock, interval_s=600)
        await clock.run_for(100)
        clock.wall_ahead_s += 8 * 3600  # asleep: the monotonic clock has stood still
        await clock.run_for(LONGEST_NAP_S)
        assert len(session.done) == 2

    in_virtual_time(story)


def test_a_machine_that_slept_through_an_outage_does_not_wait_for_its_patience_to_end() -> None:
    async def story(clock: VirtualClock) -> None:
        session = Session(clock, interval_s=600)
        session.fault = NetworkError("away")
        await clock.run_for(2000)
        session.fault = None
        tried = len(session.tried)
        clock.wall_ahead_s += 8 * 3600
        await clock.run_for(LONGEST_NAP_S)
        assert len(session.tried) == tried + 1
        assert len(session.done) == 1

    in_virtual_time(story)


@pytest.mark.parametrize("ahead_s", [-365 * 86400.0, -10.0, 1.0])
def test_a_wall_clock_that_is_set_changes_nothing(ahead_s: float) -> None:
    async def story(clock: VirtualClock) -> None:
        session = Session(clock, interval_s=30)
        await clock.run_for(50)
        clock.wall_ahead_s += ahead_s
        session.write()
        await clock.run_for(50)
        assert session.times("pull") == [0.0, 30.0, 60.0, 90.0]
        assert session.times("push") == [50 + QUIET_S]

    in_virtual_time(story)


def test_there_is_one_exchange_at_a_time_and_so_many_of_a_process() -> None:
    async def story(clock: VirtualClock) -> None:
        sessions = [Session(clock, interval_s=1, takes_s=3) for _ in range(5)]
        shared = asyncio.Semaphore(2)
        most = 0
        for session in sessions:
            session.turn = shared
        for _ in range(100):
            sessions[0].write()
            await clock.run_for(0.5)
            most = max(most, sum(session.under_way for session in sessions))
        assert most == 2
        assert all(session.most_at_once == 1 for session in sessions)
        assert all(len(session.done) > 3 for session in sessions)

    in_virtual_time(story)


def test_closing_pushes_what_is_not_pushed() -> None:
    async def story(clock: VirtualClock) -> None:
        session = Session(clock, interval_s=1000, takes_s=2)
        await clock.run_for(10)
        session.write()
        await clock.finish(session.auto.close(5), within=5)
        assert session.unpushed == 0

    in_virtual_time(story)


def test_closing_ends_in_time_whatever_the_store_does() -> None:
    async def story(clock: VirtualClock) -> None:
        session = Session(clock, interval_s=1000, takes_s=3600)
        await clock.run_for(10)  # the first pull is still under way
        session.write()
        began = clock.now
        await clock.finish(session.auto.close(5))
        assert clock.now - began <= 6
        await clock.settle()
        assert session.unpushed == 1
        assert session.task.done()
        assert session.under_way == 0

    in_virtual_time(story)


def test_closing_with_no_time_does_not_try() -> None:
    async def story(clock: VirtualClock) -> None:
        session = Session(clock, interval_s=1000, takes_s=1)
        await clock.run_for(10)
        session.write()
        await clock.finish(session.auto.close(0))
        assert session.unpushed == 1

    in_virtual_time(story)


def test_abandoning_ends_it_without_an_exchange() -> None:
    async def story(clock: VirtualClock) -> None:
        session = Session(clock, interval_s=1000)
        await clock.run_for(10)
        session.write()
        session.auto.abandon()
        await clock.run_for(100)
        assert session.task.done()
        assert session.unpushed == 1

    in_virtual_time(story)


@pytest.mark.parametrize("wrong", [0, -1, 0.01, float("nan"), float("inf"), True, "30"])
def test_an_interval_that_is_none_is_refused_by_name(wrong: object) -> None:
    with pytest.raises(InvalidArgumentError, match="auto_sync"):
        check_interval(wrong)
