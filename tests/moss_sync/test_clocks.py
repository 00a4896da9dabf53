"""Wrong clocks: what they may decide, and that everybody agrees about it."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from moss_sync import OutcomeUnknownError
from moss_sync.clock import StoreClock
from moss_sync.hlc import stamp_limit, to_ms
from moss_sync.times import MAX_DRIFT_MS
from tests.devices import Device, QuickClock
from tests.moss_sync.world import Crash, Once, World, noise


class FixedClock(QuickClock):
    """A clock that stands still."""

    def __init__(self, now_ms: int) -> None:
        super().__init__(0, now_ms)

    def wall_ms(self) -> int:
        return self.now_ms


YEAR_MS = 365 * 24 * 3_600_000


def stamps(device: Device) -> dict[str, int]:
    with device.file.reading() as conn:
        return dict(conn.execute("SELECT id, hlc FROM document ORDER BY id").fetchall())


async def agree(devices: Sequence[Device]) -> None:
    for device in [*devices, *devices]:
        await device.engine.sync()
    first, *others = devices
    for other in others:
        assert other.texts == first.texts
        assert stamps(other) == stamps(first)


def test_a_clock_a_year_ahead_poisons_nobody(world: World) -> None:
    async def story() -> None:
        ahead, right = world.device(), world.device()
        await right.engine.push()
        ahead.clock.now_ms += YEAR_MS
        ahead.put("a", "from the future")
        await ahead.engine.push()
        ahead.clock.now_ms -= YEAR_MS
        await right.engine.pull()
        right.put("a", "corrected")
        await right.engine.push()
        await agree([ahead, right])
        assert ahead.texts == {"a": "corrected"}

    asyncio.run(story())


def test_no_stamp_in_the_session_is_past_what_its_commit_allows(world: World) -> None:
    async def story() -> None:
        ahead, right = world.device(), world.device()
        ahead.put("a", noise(1, 9000))
        world.store.after = Once("put", "/s/", OutcomeUnknownError("lost"))
        # Prepared before the store's time is known, so the stamps go out as they are.
        ahead.clock.now_ms += YEAR_MS
        ahead.put("b", "x")
        await right.engine.push()
        current = await right.manifest()
        assert max(stamps(ahead).values()) > stamp_limit(current.ct)
        world.store.after = None
        await agree([ahead, right])
        current = await right.manifest()
        assert max(stamps(right).values()) <= stamp_limit(current.ct)

    asyncio.run(story())


def test_an_edit_made_after_seeing_a_version_beats_it_however_the_clocks_stand(
    world: World,
) -> None:
    async def story() -> None:
        devices = [world.device() for _ in range(3)]
        for device, shift in zip(devices, (0, YEAR_MS, -YEAR_MS), strict=True):
            device.clock.now_ms += shift
        for turn in range(12):
            device = devices[turn * 7 % 3]
            await device.engine.pull()
            device.put("a", f"turn {turn}")
            await device.engine.push()
        await agree(devices)
        assert devices[0].texts == {"a": "turn 11"}

    asyncio.run(story())


def test_the_author_cuts_its_own_stamps_as_its_readers_do(world: World) -> None:
    async def story() -> None:
        # Its clock jumps ahead between preparing and committing, and the store has no time.
        one, two = world.device(), world.device()
        one.clock.now_ms += YEAR_MS
        one.put("a", "x")
        await one.engine.push()
        one.clock.now_ms -= YEAR_MS
        await two.engine.pull()
        assert stamps(one) == stamps(two)
        two.put("a", "y")
        await two.engine.push()
        await one.engine.pull()
        assert one.texts == {"a": "y"}

    asyncio.run(story())


@pytest.mark.parametrize("seen", [True, False], ids=["exchanged before", "never exchanged"])
def test_a_restored_change_of_a_wrong_clock_does_not_beat_what_was_written_over_it(
    world: World, tmp_path: Path, seen: bool
) -> None:
    async def story() -> None:
        one, other = world.device_here(), world.device_here()
        if seen:
            one.put("a", "the beginning")
            await one.engine.push()
        one.clock.now_ms += YEAR_MS
        one.put("a", "from the future")
        one.put("only here", "from the future")
        one.close()
        shutil.copy(one.file.path, tmp_path / "backup.sqlite3")
        one.clock.now_ms -= YEAR_MS
        again = Device(one.file.path, world.store, clock=world.clock)
        world.devices.append(again)
        await again.engine.push()
        again.put("a", "written over it")
        again.delete("only here")
        await again.engine.push()
        again.close()
        old = Device(tmp_path / "backup.sqlite3", world.store, clock=world.clock)
        world.devices.append(old)
        await agree([old, other])
        assert old.texts == {"a": "written over it"}

    asyncio.run(story())


def test_a_restored_change_of_a_wrong_clock_still_beats_what_it_was_written_over(
    world: World, tmp_path: Path
) -> None:
    async def story() -> None:
        one, other = world.device_here(), world.device_here()
        one.put("a", "the beginning")
        await one.engine.push()
        one.clock.now_ms += YEAR_MS
        one.put("a", "from the future")
        one.close()
        shutil.copy(one.file.path, tmp_path / "backup.sqlite3")
        one.clock.now_ms -= YEAR_MS
        # What makes the backup a copy is about another document.
        again = Device(one.file.path, world.store, clock=world.clock)
        world.devices.append(again)
        with again.file.writing() as conn:
            conn.execute("UPDATE document SET dirty = 0 WHERE id = 'a'")
        again.put("b", "something else")
        await again.engine.push()
        again.close()
        old = Device(tmp_path / "backup.sqlite3", world.store, clock=world.clock)
        world.devices.append(old)
        await agree([old, other])
        assert old.texts == {"a": "from the future", "b": "something else"}

    asyncio.run(story())


@pytest.mark.parametrize("lost", ["before", "after"])
def test_the_author_learns_the_time_of_a_commit_whose_answer_was_lost(
    world: World, lost: str
) -> None:
    async def story() -> None:
        one, two = world.device(), world.device()
        await two.engine.push()
        await one.engine.pull()
        one.clock.now_ms += 2 * MAX_DRIFT_MS
        one.put("a", "x")
        setattr(world.store, lost, Once("swap", "/m/", OutcomeUnknownError("lost")))
        await one.engine.push()
        await two.engine.pull()
        assert stamps(one) == stamps(two)

    asyncio.run(story())


def test_stamps_that_went_out_with_a_wrong_clock_are_cut_alike_by_author_and_readers(
    world: World,
) -> None:
    async def story() -> None:
        one, two = world.device(), world.device()
        await two.engine.push()
        await one.engine.pull()
        one.clock.now_ms += YEAR_MS
        one.put("a", noise(1, 9000))
        world.store.before = Once("swap", "/m/", Crash())
        with pytest.raises(Crash):
            await one.engine.push()
        world.store.before = None
        one.clock.now_ms -= YEAR_MS  # the very bytes that were prepared go out
        await one.engine.push()
        await two.engine.pull()
        current = await two.manifest()
        assert stamps(one) == stamps(two) == {"a": stamp_limit(current.entries[-1].ct)}
        two.put("a", "y")
        await two.engine.push()
        await one.engine.pull()
        assert one.texts == {"a": "y"}

    asyncio.run(story())


def test_a_device_whose_clock_was_put_right_writes_in_the_present_again(world: World) -> None:
    async def story() -> None:
        one, other = world.device(), world.device()
        await other.engine.push()
        await one.engine.pull()
        one.clock.now_ms += YEAR_MS
        one.put("a", "x")
        one.clock.now_ms -= YEAR_MS
        await one.engine.push()
        one.put("b", "x")
        assert to_ms(stamps(one)["b"]) <= one.clock.now_ms + 2 * MAX_DRIFT_MS

    asyncio.run(story())


@pytest.mark.parametrize(
    ("true_ms", "told_ms", "corrected_ms"),
    [
        (1_700_000_000_000, 1_700_000_000_000, 1_700_000_000_000),
        (1_700_000_000_999, 1_700_000_000_000, 1_700_000_000_999),  # rounded down to the second
        (1_700_000_005_000, 1_700_000_000_000, 1_700_000_001_000),
        (1_699_999_990_000, 1_700_000_000_000, 1_700_000_000_000),
    ],
)
def test_a_clock_that_is_right_within_the_second_that_a_store_tells_is_left_alone(
    true_ms: int, told_ms: int, corrected_ms: int
) -> None:
    clock = FixedClock(true_ms)
    time = StoreClock(clock)
    time.observe(told_ms)
    assert time.now_ms() == corrected_ms


def test_the_stores_clock_corrects_a_device_that_is_wrong(world: World) -> None:
    async def story() -> None:
        wrong = world.device()
        wrong.clock.now_ms += YEAR_MS
        right_now = world.clock.now_ms
        world.store.inner._now = lambda: right_now
        wrong.put("before", "x")
        await wrong.engine.push()
        assert abs(wrong.engine.now_ms() - right_now) < 2000
        current = await wrong.manifest()
        assert abs(current.ct - right_now) < 5000
        assert to_ms(stamps(wrong)["before"]) <= current.ct + MAX_DRIFT_MS

    asyncio.run(story())
