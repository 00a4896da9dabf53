"""Virtual time passes by waiting and by nothing else."""

from __future__ import annotations

import asyncio
import random

import pytest

from moss_sync.testing.clock import EPOCH_MS, VirtualClock
from moss_sync.testing.loop import VirtualTime, run_virtual


def test_a_year_of_waiting_takes_no_time_and_passes() -> None:
    time = VirtualTime()

    async def main() -> str:
        await asyncio.sleep(365 * 86_400)
        return "done"

    assert run_virtual(main(), time=time) == "done"
    assert time.seconds == pytest.approx(365 * 86_400)
    assert time.ms == int(time.seconds * 1000)


def test_sleepers_wake_in_the_order_of_their_times_whatever_order_they_began_in() -> None:
    async def main() -> list[int]:
        woken: list[int] = []

        async def sleeper(seconds: int) -> None:
            await asyncio.sleep(seconds)
            woken.append(seconds)

        await asyncio.gather(*(sleeper(seconds) for seconds in (5, 1, 4, 2, 3)))
        return woken

    assert run_virtual(main()) == [1, 2, 3, 4, 5]


def test_a_program_that_waits_for_nothing_that_can_come_is_told_so() -> None:
    async def main() -> None:
        await asyncio.Event().wait()

    with pytest.raises(RuntimeError, match="never come"):
        run_virtual(main())


def test_a_timeout_ends_in_virtual_time() -> None:
    async def main() -> None:
        await asyncio.wait_for(asyncio.Event().wait(), timeout=3_600)

    with pytest.raises(TimeoutError):
        run_virtual(main())


def test_work_for_a_thread_runs_at_once_and_its_error_comes_back() -> None:
    async def main() -> int:
        with pytest.raises(ZeroDivisionError):
            await asyncio.to_thread(lambda: 1 // 0)
        return await asyncio.to_thread(lambda: 7)

    assert run_virtual(main()) == 7


def test_tasks_that_are_left_behind_are_cancelled() -> None:
    ended: list[str] = []

    async def main() -> None:
        async def forever() -> None:
            try:
                await asyncio.sleep(1e9)
            finally:
                ended.append("cancelled")

        task = asyncio.ensure_future(forever())
        await asyncio.sleep(1)
        assert not task.done()

    run_virtual(main())
    assert ended == ["cancelled"]


def test_a_virtual_clock_can_be_wrong_jump_and_stand_still() -> None:
    time = VirtualTime()
    clock = VirtualClock(time, random.Random(1), skew_ms=-500)

    async def main() -> None:
        assert clock.wall_ms() == EPOCH_MS - 500
        await clock.sleep(2)
        assert clock.wall_ms() == EPOCH_MS + 1_500
        assert clock.monotonic() == pytest.approx(2)
        clock.freeze()
        await clock.sleep(10)
        assert clock.wall_ms() == EPOCH_MS + 1_500
        clock.thaw()
        clock.skew_ms = 86_400_000
        assert clock.wall_ms() == EPOCH_MS + 12_000 + 86_400_000

    run_virtual(main(), time=time)
    assert VirtualClock(time, random.Random(1)).token(8) == random.Random(1).randbytes(8)
    assert 1 <= clock.uniform(1, 2) <= 2
