"""Attacks on time: what a store, a file system, a member or a device's own clock may say it is.

Whatever it is: adding works, new turns come after old ones, collection goes on, and once the clocks
are right again everybody agrees.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest

from moss_sync import BlobCorruptError, ClockError
from moss_sync.clock import SessionClock, StoreClock
from moss_sync.hlc import to_ms
from moss_sync.manifest import Manifest
from moss_sync.plan import next_commit
from moss_sync.times import ANSWER_AHEAD_MS, DAY_MS, HOUR_MS, MAX_TIME_MS, latest
from tests.devices import START_MS, Device
from tests.moss_sync.test_clocks import FixedClock, agree, stamps
from tests.moss_sync.world import Crash, Once, World, noise

YEAR_MS = 365 * DAY_MS
YEAR_2099_MS = 4_070_908_800_000
YEAR_2100_MS = 4_102_444_800_000
YEAR_9999_MS = 253_402_300_799_000

WALL_CLOCKS = [-1, 0, YEAR_2100_MS, MAX_TIME_MS, MAX_TIME_MS + 1, YEAR_9999_MS, 2**63, 2**80]
ANSWERS = [-(2**70), -1, 0, START_MS + 10 * YEAR_MS, YEAR_9999_MS, 2**62, 2**70]


def says(world: World, *answers: int | Callable[[], int] | None) -> None:
    """Have the store say these times; the last one from then on."""
    left = list(answers)

    def now() -> int | None:
        answer = left.pop(0) if len(left) > 1 else left[0]
        return answer() if callable(answer) else answer

    world.store.inner._now = now


def is_right(world: World) -> Callable[[], int]:
    """The time as an honest store has it."""
    return lambda: world.clock.now_ms // 1000 * 1000


def order(device: Device) -> list[str]:
    """The ids, in the order of the thread."""
    return sorted(device.texts, key=lambda id: stamps(device)[id])


async def forged(device: Device, **changes: object) -> None:
    """Commit a manifest as a member who writes what they like."""
    keys = await device.repository.attach()
    channel = device.engine._channel
    found = await channel.read_unchecked(keys)
    assert found is not None
    parent, seen = found
    state = device.replica.state()
    author = replace(await channel.author(state, seen), now_ms=0)
    following = next_commit(parent, author, repo_id=parent.repo_id, sid=parent.sid)
    made: Manifest = replace(following, **changes)  # type: ignore[arg-type]  # as they are named
    assert await channel.write_manifest(keys, made, seen) is not None


async def poisoned(device: Device, commit_ms: int) -> None:
    """Have the session's next commit be of this time."""
    seq = (await device.manifest()).seq + 1
    await forged(device, ct=commit_ms, tl=((seq, min(commit_ms, latest(seq))),))


# -- evidence --------------------------------------------------------------------------------------


def clock_of(wall_ms: int, *answers: int, commit_ms: int | None = None) -> SessionClock:
    store = StoreClock(FixedClock(wall_ms))
    for answer in answers:
        store.observe(answer)
    clock = SessionClock(store)
    if commit_ms is not None:
        clock.committed(commit_ms)
    return clock


@pytest.mark.parametrize("wall_ms", WALL_CLOCKS)
@pytest.mark.parametrize("answer", [None, *ANSWERS])
@pytest.mark.parametrize("commit_ms", [None, 0, START_MS, YEAR_2099_MS, latest(9)])
def test_no_clock_and_no_answer_gives_a_time_that_cannot_be_stored(
    wall_ms: int, answer: int | None, commit_ms: int | None
) -> None:
    clock = clock_of(wall_ms, *([] if answer is None else [answer]), commit_ms=commit_ms)
    assert 0 <= clock.now_ms() <= MAX_TIME_MS
    assert 0 <= clock.wall_ms() <= MAX_TIME_MS
    if clock.is_doubtful:
        with pytest.raises(ClockError) as caught:
            clock.check()
        assert caught.value.code == "CLOCK"
        assert "clock" in (caught.value.hint or "")
    else:
        clock.check()


def test_an_answer_moves_a_clock_back_freely_and_forward_by_a_day() -> None:
    back = clock_of(START_MS, START_MS - 50 * YEAR_MS)
    assert not back.is_doubtful
    assert abs(back.now_ms() - (START_MS - 50 * YEAR_MS)) <= 1000
    for ahead_ms, doubtful in ((ANSWER_AHEAD_MS, False), (ANSWER_AHEAD_MS + 1, True)):
        forward = clock_of(START_MS, START_MS + ahead_ms)
        assert forward.is_doubtful is doubtful
        assert forward.now_ms() == START_MS + ANSWER_AHEAD_MS


def test_a_dead_clock_is_lifted_by_what_it_reads() -> None:
    lifted = clock_of(0, START_MS, commit_ms=START_MS - HOUR_MS)
    assert not lifted.is_doubtful
    assert lifted.now_ms() == START_MS
    assert clock_of(0, START_MS).is_doubtful
    silent = clock_of(0, commit_ms=START_MS)
    assert silent.now_ms() == START_MS


def test_a_device_that_was_away_for_a_year_has_a_right_clock() -> None:
    assert clock_of(START_MS, START_MS, commit_ms=START_MS - YEAR_MS).now_ms() == START_MS
    assert clock_of(START_MS, commit_ms=START_MS - YEAR_MS).now_ms() == START_MS


@pytest.mark.parametrize("place", range(5))
def test_one_absurd_answer_among_good_ones_moves_nothing(place: int) -> None:
    answers = [START_MS] * 5
    answers[place] = YEAR_9999_MS
    assert clock_of(START_MS, *answers).now_ms() == START_MS
    assert clock_of(START_MS, YEAR_9999_MS, START_MS).now_ms() == START_MS


def test_what_was_said_about_a_clock_counts_no_longer_once_it_was_set() -> None:
    inner = FixedClock(0)
    inner.monotonic = lambda: 100.0  # type: ignore[method-assign]  # it stands still
    store = StoreClock(inner)
    store.observe(START_MS)
    inner.now_ms = START_MS
    assert SessionClock(store).now_ms() == START_MS


# -- what a store says -----------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [YEAR_9999_MS, START_MS + 10 * YEAR_MS, 2**62])
def test_a_store_that_says_the_future_stops_commits_by_name_and_nothing_else(
    world: World, answer: int
) -> None:
    async def story() -> None:
        one, two = world.device(), world.device()
        one.put("before", "x")
        await one.engine.sync()
        await two.engine.sync()
        says(world, answer)
        await one.engine.pull()
        one.put("meanwhile", "x")
        for verb in (one.engine.push, one.engine.sync):
            with pytest.raises(ClockError) as caught:
                await verb()
        assert caught.value.retryable
        assert "set" in (caught.value.hint or "")
        await one.engine.pull()
        assert one.replica.state().dirty == 1
        one.put("more", "x")
        says(world, lambda: one.clock.now_ms)
        await one.engine.push()
        two.put("last", "x")
        await agree([one, two])
        assert to_ms(max(stamps(one).values())) < START_MS + DAY_MS

    asyncio.run(story())


@pytest.mark.parametrize("answer", [YEAR_9999_MS, 0])
def test_one_absurd_answer_is_asked_about_again_and_stops_nobody(world: World, answer: int) -> None:
    async def story() -> None:
        one, two = world.device(), world.device()
        says(world, answer, lambda: one.clock.now_ms)
        one.put("a", "x")
        await one.engine.push()
        await two.engine.pull()
        one.put("b", "x")
        await one.engine.push()
        await agree([one, two])
        assert order(two) == ["a", "b"]
        assert to_ms(max(stamps(one).values())) < START_MS + DAY_MS

    asyncio.run(story())


def test_a_store_that_says_1970_stops_nobody_and_the_order_stays(world: World) -> None:
    async def story() -> None:
        one, two = world.device(), world.device()
        one.put("a", "x")
        await one.engine.sync()
        says(world, 0)
        for device, id in ((two, "b"), (one, "c"), (two, "d")):
            await device.engine.pull()
            device.put(id, "x")
            await device.engine.push()
        says(world, is_right(world))
        await agree([one, two])
        assert order(one) == ["a", "b", "c", "d"]

    asyncio.run(story())


def test_a_refused_commit_leaves_a_prepared_push_for_the_next_one(world: World) -> None:
    async def story() -> None:
        one, two = world.device(), world.device()
        one.put("a", noise(1, 9000))
        world.store.before = Once("swap", "/m/", Crash())
        with pytest.raises(Crash):
            await one.engine.push()
        says(world, YEAR_9999_MS)
        with pytest.raises(ClockError):
            await one.engine.push()
        assert one.replica.state().pending is not None
        says(world, lambda: one.clock.now_ms)
        assert (await one.engine.push()).sent == 1
        await agree([one, two])

    asyncio.run(story())


def test_collecting_compacting_deleting_and_repairing_are_refused_by_the_same_name(
    world: World,
) -> None:
    async def story() -> None:
        one = world.device()
        one.put("a", "x")
        await one.engine.push()
        says(world, YEAR_9999_MS)
        for _ in range(5):
            await one.engine.pull()
        for verb in (one.engine.delete, one.engine.repair):
            with pytest.raises(ClockError):
                await verb()
        says(world, lambda: one.clock.now_ms)
        assert (await one.engine.repair()).rebuilt

    asyncio.run(story())


# -- what a member says ----------------------------------------------------------------------------


@pytest.mark.parametrize("commit_ms", [YEAR_2099_MS, MAX_TIME_MS, MAX_TIME_MS + 3])
def test_a_commit_of_any_time_that_can_be_stored_stops_nobody(world: World, commit_ms: int) -> None:
    async def story() -> None:
        one, two, late = (world.device() for _ in range(3))
        one.put("a", "x")
        await agree([one, two])
        two.put("unpushed", "x")
        seq = (await one.manifest()).seq + 1
        await poisoned(one, min(commit_ms, latest(seq)))
        for device, id in ((one, "b"), (two, "c"), (one, "d"), (late, "e")):
            await device.engine.sync()
            device.put(id, "x")
            await device.engine.push()
        await agree([one, two, late])
        assert (order(late)[0], order(late)[-4:]) == ("a", ["b", "c", "d", "e"])

    asyncio.run(story())


@pytest.mark.parametrize("too_late_by", [1, 2**60])
def test_a_commit_past_what_can_be_stored_is_refused_by_name_and_repaired(
    world: World, too_late_by: int
) -> None:
    async def story() -> None:
        one, two = world.device(), world.device()
        one.put("a", "x")
        await agree([one, two])
        seq = (await one.manifest()).seq + 1
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("moss_sync.manifest.check_time", lambda *_, **__: None)
            await forged(one, ct=latest(seq) + too_late_by)
        two.put("b", "x")
        for verb in (two.engine.pull, two.engine.sync):
            with pytest.raises(BlobCorruptError, match="year 3000") as caught:
                await verb()
        assert "repair" in (caught.value.hint or "")
        report = await two.engine.repair()
        assert report.rebuilt
        fresh = world.device()
        await agree([two, fresh])
        assert order(fresh) == ["a", "b"]

    asyncio.run(story())


def test_nothing_that_is_written_by_this_version_is_past_what_can_be_stored(world: World) -> None:
    async def story() -> None:
        one = world.device()
        one.put("a", "x")
        await one.engine.push()
        seq = (await one.manifest()).seq + 1
        with pytest.raises(BlobCorruptError, match="year 3000"):
            await forged(one, ct=latest(seq) + 1)

    asyncio.run(story())


# -- a device's own clock --------------------------------------------------------------------------


@pytest.mark.parametrize("wall_ms", [-1, 0, 10**9, YEAR_2100_MS, MAX_TIME_MS - HOUR_MS])
def test_a_device_with_any_clock_writes_and_the_order_stays(world: World, wall_ms: int) -> None:
    async def story() -> None:
        one, wrong = world.device(), world.device()
        one.put("a", "x")
        await one.engine.push()
        wrong.clock.now_ms = wall_ms
        for device, id in ((wrong, "b"), (one, "c"), (wrong, "d"), (one, "e")):
            await device.engine.pull()
            device.put(id, "x")
            await device.engine.push()
        says(world, is_right(world))
        await agree([one, wrong])
        assert order(one) == ["a", "b", "c", "d", "e"]

    asyncio.run(story())


@pytest.mark.parametrize("wall_ms", [MAX_TIME_MS + 1, YEAR_9999_MS, 2**63, 2**80])
def test_a_clock_past_what_can_be_stored_adds_and_does_not_commit_until_something_corrects_it(
    world: World, wall_ms: int
) -> None:
    async def story() -> None:
        one, wrong = world.device(), world.device()
        one.put("a", "x")
        await one.engine.push()
        wrong.clock.now_ms = wall_ms
        wrong.put("b", "x")
        with pytest.raises(ClockError, match="year 3000"):
            await wrong.engine.push()
        wrong.put("c", "x")
        assert set(wrong.texts) >= {"b", "c"}
        says(world, is_right(world))
        await wrong.engine.pull()
        await wrong.engine.push()
        await agree([one, wrong])
        assert order(one) == ["a", "b", "c"]
        assert to_ms(max(stamps(one).values())) < START_MS + DAY_MS

    asyncio.run(story())
