"""Attacks on time: what a store, a file system, a member or a device's own clock may say it is.

Whatever it is: adding works, new turns come after old ones, collection goes on, and once the clocks
are right again everybody agrees.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest

from moss_sync import BlobCorruptError, ClockError, InvalidArgumentError
from moss_sync.clock import SessionClock, StoreClock
from moss_sync.commit import Commit
from moss_sync.floors import seq_at
from moss_sync.hlc import LAST_OBSERVED, LAST_STAMP, to_ms
from moss_sync.log_plan import LogPolicy
from moss_sync.manifest import Manifest
from moss_sync.plan import next_commit
from moss_sync.times import ANSWER_AHEAD_MS, DAY_MS, HOUR_MS, MAX_TIME_MS, latest
from tests.devices import START_MS, Device
from tests.moss_sync.test_clocks import FixedClock, agree, stamps
from tests.moss_sync.test_forgetting import QUICK, purged, rows, settle_down
from tests.moss_sync.world import Crash, Once, World, noise

YEAR_MS = 365 * DAY_MS
YEAR_2099_MS = 4_070_908_800_000
YEAR_2100_MS = 4_102_444_800_000
YEAR_9999_MS = 253_402_300_799_000

WALL_CLOCKS = [-1, 0, YEAR_2100_MS, MAX_TIME_MS, MAX_TIME_MS + 1, YEAR_9999_MS, 2**63, 2**80]
ANSWERS = [-(2**70), -1, 0, START_MS + 10 * YEAR_MS, YEAR_9999_MS, 2**62, 2**70]


def named(time_ms: int | None) -> str:
    """Name a case alike in every process of the tests: each has a START_MS of its own."""
    since = 0 if time_ms is None else time_ms - START_MS
    return f"start+{since}" if abs(since) < 20 * YEAR_MS else str(time_ms)


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
    parent, seen = await device.view()
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
@pytest.mark.parametrize("answer", [None, *ANSWERS], ids=named)
@pytest.mark.parametrize("commit_ms", [None, 0, START_MS, YEAR_2099_MS, latest(9)], ids=named)
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


@pytest.mark.parametrize("answer", [YEAR_9999_MS, START_MS + 10 * YEAR_MS, 2**62], ids=named)
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
        with pytest.raises(InvalidArgumentError, match="year 3000"):
            await forged(one, ct=latest(seq) + 1)

    asyncio.run(story())


@pytest.mark.parametrize("commit_ms", [YEAR_2099_MS, MAX_TIME_MS])
def test_collection_purges_and_retirement_go_on_in_a_session_of_the_future(
    world: World, commit_ms: int
) -> None:
    policy = replace(QUICK, max_devices=2, retire_after_ms=DAY_MS)

    async def story() -> None:
        one, two = world.device_here(policy=policy), world.device_here(policy=policy)
        gone = world.device_here(policy=policy)
        gone.put("of a device that leaves", "x")
        for device in (gone, one, two):
            await device.engine.sync()
        await poisoned(one, commit_ms)
        for number in range(4):
            one.put(f"d{number}", noise(number, 9000))
            await one.engine.sync()
        await settle_down(one)
        assert len(world.blobs("s")) == 4
        assert await one.engine.collect() == 0  # not before its time either
        await purged(world, one, two)
        await one.engine.collect()
        current = await one.manifest()
        assert current.ct >= commit_ms
        assert world.blobs("s") == set()
        assert gone.replica.state().dev not in current.devs
        assert rows(two) == 8
        await two.engine.sync()
        assert rows(two) == 0

    asyncio.run(story())


def test_a_commit_is_not_older_than_those_before_it_whatever_its_committer_believed() -> None:
    day = [DAY_MS * number for number in range(9)]
    timeline = ((1, day[1]), (2, day[5]), (3, day[0]), (4, YEAR_2099_MS), (5, day[6]))
    for moment_ms, proven in ((day[0], 0), (day[1], 1), (day[4], 1), (day[5], 3), (day[6], 5)):
        assert seq_at(timeline, moment_ms, day[8]) == proven
    assert seq_at(timeline, day[8], day[4]) == 3  # to whom the rest is the future


def test_what_a_device_of_the_future_believed_is_not_believed_by_others(
    world: World,
) -> None:
    async def story() -> None:
        one, two = world.device_here(policy=QUICK), world.device_here(policy=QUICK)
        wrong = world.device(policy=QUICK)
        wrong.clock.now_ms = YEAR_2099_MS
        for number in range(4):
            one.put(f"d{number}", noise(number, 9000))
            await one.engine.push()
        await settle_down(one)
        wrong.put("of 2099", "x")
        await wrong.engine.sync()
        floor = (await one.manifest()).gc_floor  # to itself all of this is old
        await one.engine.pull()
        one.put("after it", "x")
        await one.engine.push()
        assert (await one.manifest()).gc_floor == floor
        await purged(world, one, two)

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


# -- repair ----------------------------------------------------------------------------------------


def near_now(device: Device) -> bool:
    """Whether no stamp here is of a day that has not come."""
    return to_ms(max(stamps(device).values())) < START_MS + DAY_MS


async def in_the_future(world: World) -> list[Device]:
    """Three devices, and what they did while the session was in 2099: each knows a part of it."""
    one, two, behind = (world.device() for _ in range(3))
    for id in ("kept", "edited", "deleted"):
        one.put(id, "before")
    await agree([one, two, behind])
    for device in (one, two):
        device.clock.now_ms = YEAR_2099_MS
    for number in range(6):
        # Whoever writes last has, now and then, the lesser device id.
        device = (one, two)[number % 2]
        await device.engine.pull()
        device.put("edited", f"version {number}")
        device.put(f"turn-{number}", noise(number, 5000 * (number % 3)))
        await device.engine.push()
        if number == 3:
            await behind.engine.pull()
    await one.engine.pull()
    one.delete("deleted")
    await one.engine.sync()
    await two.engine.pull()
    assert not near_now(two)
    for device in (one, two):
        device.clock.now_ms = START_MS + HOUR_MS
    return [one, two, behind]


@pytest.mark.parametrize("repairer", range(3))
def test_a_repair_brings_a_session_back_from_the_future_on_every_device(
    world: World, repairer: int
) -> None:
    async def story() -> None:
        devices = await in_the_future(world)
        devices[1].put("unpushed", "in 2099")
        report = await devices[repairer].engine.repair(force=False)
        assert report.rebuilt
        assert "future" in (report.trouble or "")
        assert report.set_back_ms > 50 * YEAR_MS
        devices.append(world.device())
        await agree(devices)
        expected = ["kept", *(f"turn-{number}" for number in range(5)), "edited", "turn-5"]
        for device in devices:
            assert near_now(device)
            assert device.texts["edited"] == "version 5"
            assert "deleted" not in device.texts
            assert [id for id in order(device) if id != "unpushed"] == expected
            assert order(device)[-1] == "unpushed"
        for number, device in enumerate(devices):
            await device.engine.pull()
            device.put(f"new-{number}", "x")
            await device.engine.push()
        await agree(devices)
        assert order(devices[0])[-4:] == [f"new-{number}" for number in range(4)]
        assert near_now(devices[0])
        again = await devices[0].engine.repair(force=False)
        assert (again.rebuilt, again.set_back_ms, again.trouble) == (False, 0, None)

    asyncio.run(story())


def test_a_repair_that_never_heard_of_the_future_brings_others_back_from_it(world: World) -> None:
    """The store went back to before the commits that have carried the others' stamps."""

    async def story() -> None:
        one, two, three = (world.device() for _ in range(3))
        one.put("doc", "first")
        for device in (one, two, three):
            await device.engine.sync()
        key = await world.manifest_key()
        before = world.store.inner._content.blobs[key]
        for device in (two, three):
            device.clock.now_ms += 2 * DAY_MS
        two.put("doc", "of the future")
        await two.engine.push()
        await three.engine.pull()
        three.put("doc", "written over it, unpushed")
        for device in (two, three):
            device.clock.now_ms -= 2 * DAY_MS
        world.store.inner._content.blobs[key] = before
        await one.engine.repair()
        # Who only holds the text offers it after the edit that has replaced it is in.
        for device in (three, two, one, three):
            await device.engine.sync()
        assert {device.texts["doc"] for device in (one, two, three)} == {
            "written over it, unpushed"
        }

    asyncio.run(story())


def test_a_session_that_was_brought_back_twice_keeps_its_order(world: World) -> None:
    async def story() -> None:
        devices = await in_the_future(world)
        await devices[0].engine.repair()
        await agree(devices)
        for device in devices:
            device.clock.now_ms += 30 * DAY_MS
        devices[2].put("edited", "a month later")
        await agree(devices)
        await poisoned(devices[1], YEAR_2100_MS)
        devices[0].put("between", "x")
        await agree(devices)
        report = await devices[2].engine.repair(force=False)
        assert report.set_back_ms > 50 * YEAR_MS
        devices.append(world.device())  # which reads blobs of before either of them
        await agree(devices)
        for device in devices:
            assert device.texts["edited"] == "a month later"
            assert order(device)[-2:] == ["edited", "between"]
            assert to_ms(max(stamps(device).values())) < START_MS + 32 * DAY_MS

    asyncio.run(story())


def test_a_device_that_comes_back_much_later_falls_with_the_others(world: World) -> None:
    async def story() -> None:
        one, two, behind = await in_the_future(world)
        behind.put("on the train", "x")
        await one.engine.repair()
        await agree([one, two])
        for device in (one, two, behind):
            device.clock.now_ms += 100 * DAY_MS
        two.put("edited", "after the repair")
        await two.engine.sync()
        await agree([one, two, behind])
        assert behind.texts["edited"] == "after the repair"
        assert "deleted" not in behind.texts
        assert "on the train" in one.texts
        assert to_ms(max(stamps(one).values())) < START_MS + 102 * DAY_MS

    asyncio.run(story())


def test_the_device_whose_clock_it_was_gets_well_too(world: World) -> None:
    async def story() -> None:
        wrong, right = world.device(), world.device()
        right.put("a", "x")
        await right.engine.push()
        wrong.clock.now_ms = YEAR_2100_MS
        for id in ("b", "c"):
            await wrong.engine.pull()
            wrong.put(id, "x")
            await wrong.engine.push()
        wrong.put("unpushed", "x")
        assert (await right.engine.repair(force=False)).set_back_ms > 50 * YEAR_MS
        wrong.clock.now_ms = START_MS + HOUR_MS
        await agree([right, wrong])
        wrong.put("d", "x")
        await wrong.engine.push()
        await agree([right, wrong])
        assert order(right) == ["a", "b", "c", "unpushed", "d"]
        assert near_now(right)

    asyncio.run(story())


def test_a_repair_of_a_session_whose_time_is_right_lets_nothing_fall(world: World) -> None:
    async def story() -> None:
        one, two = world.device(), world.device()
        one.put("a", "x")
        await agree([one, two])
        before = stamps(one)
        assert (await one.engine.repair()).set_back_ms == 0
        await agree([one, two])
        assert stamps(one) == before

    asyncio.run(story())


def test_a_clock_that_was_never_set_lets_no_time_fall(world: World) -> None:
    async def story() -> None:
        one, dead = world.device(), world.device()
        one.put("a", "x")
        await agree([one, dead])
        before = stamps(one)
        dead.clock.now_ms = 10**9
        report = await dead.engine.repair()
        assert (report.rebuilt, report.set_back_ms) == (True, 0)
        await agree([one, dead])
        assert stamps(one) == before

    asyncio.run(story())


def test_time_falls_in_a_repair_and_in_no_other_commit(world: World) -> None:
    async def story() -> None:
        one = world.device()
        one.put("a", "x")
        await one.engine.push()
        await poisoned(one, YEAR_2099_MS)
        times = [(await one.manifest()).ct]
        for verb in (one.engine.sync, one.engine.compact, one.engine.erase, one.engine.delete):
            one.put("b", str(len(times)))
            await one.engine.sync()
            await verb()
            times.append((await one.manifest()).ct)
        assert times == sorted(set(times))

    asyncio.run(story())


# -- a log -----------------------------------------------------------------------------------------


def log_device(world: World, **options: object) -> Device:
    return world.device(commit="log", **options)


async def agree_on_a_log(devices: list[Device]) -> list[str]:
    for device in [*devices, *devices]:
        await device.log.sync()
    [first, *others] = devices
    for other in others:
        assert other.texts == first.texts
        assert stamps(other) == stamps(first)
    return order(first)


@pytest.mark.parametrize("wall_ms", [-1, 0, 10**9, YEAR_2100_MS, MAX_TIME_MS - HOUR_MS])
def test_in_a_log_a_device_with_any_clock_writes_and_the_order_stays(
    world: World, wall_ms: int
) -> None:
    async def story() -> None:
        one, wrong, late = (log_device(world) for _ in range(3))
        one.put("a", "x")
        await one.log.push()
        wrong.clock.now_ms = wall_ms
        for device, id in ((wrong, "b"), (one, "c"), (wrong, "d"), (one, "e")):
            await device.log.pull()
            device.put(id, "x")
            await device.log.push()
        says(world, is_right(world))
        assert await agree_on_a_log([one, wrong, late]) == ["a", "b", "c", "d", "e"]

    asyncio.run(story())


@pytest.mark.parametrize("wall_ms", [MAX_TIME_MS + 1, YEAR_9999_MS, 2**63, 2**80])
def test_in_a_log_a_clock_past_what_can_be_stored_adds_and_pushes_once_it_is_corrected(
    world: World, wall_ms: int
) -> None:
    async def story() -> None:
        one, wrong = log_device(world), log_device(world)
        one.put("a", "x")
        await one.log.push()
        wrong.clock.now_ms = wall_ms
        wrong.put("b", "x")
        with pytest.raises(ClockError, match="year 3000"):
            await wrong.log.push()
        says(world, is_right(world))
        await wrong.log.push()
        assert await agree_on_a_log([one, wrong]) == ["a", "b"]
        assert to_ms(max(stamps(one).values())) < START_MS + DAY_MS

    asyncio.run(story())


@pytest.mark.parametrize("answer", [YEAR_9999_MS, START_MS + 10 * YEAR_MS, 2**62], ids=named)
def test_in_a_log_a_store_that_says_the_future_stops_pushes_by_name_and_nothing_else(
    world: World, answer: int
) -> None:
    async def story() -> None:
        one, two = log_device(world), log_device(world)
        one.put("a", "x")
        await one.log.push()
        says(world, answer)
        one.put("b", "x")
        await one.log.push()  # nothing has told it a time yet
        one.put("c", "x")
        with pytest.raises(ClockError) as caught:
            await one.log.push()
        assert "set" in (caught.value.hint or "")
        assert one.replica.state().dirty == 1
        await two.log.pull()
        assert order(two) == ["a", "b"]
        says(world, lambda: one.clock.now_ms)
        await one.log.push()
        assert await agree_on_a_log([one, two]) == ["a", "b", "c"]

    asyncio.run(story())


def test_a_log_with_turns_of_2099_goes_on_compacting_and_forgetting(world: World) -> None:
    policy = LogPolicy(
        max_blobs=2, spread=1, kept_blobs=1, min_tombstones=0, purge_after_ms=HOUR_MS
    )

    async def story() -> None:
        one, wrong = log_device(world, log_policy=policy), log_device(world, log_policy=policy)
        one.put("a", "x")
        await one.log.push()
        wrong.clock.now_ms = YEAR_2099_MS
        wrong.put("b", "x")
        wrong.put("gone", "x")
        await wrong.log.sync()
        wrong.delete("gone")
        await wrong.log.sync()
        # It never comes back, and its head says 2099.
        says(world, lambda: one.clock.now_ms)
        for number in range(4):
            one.clock.now_ms += DAY_MS
            await one.log.pull()
            one.put(f"later-{number}", "x")
            await one.log.sync()
            while await one.log.compact():
                pass
        with one.file.reading() as conn:
            assert conn.execute("SELECT count(*) FROM document WHERE deleted").get == 0
        late = log_device(world)
        await late.log.pull()
        assert order(late) == order(one) == ["a", "b", *(f"later-{n}" for n in range(4))]

    asyncio.run(story())


def test_a_blob_of_a_log_past_what_can_be_stored_is_set_aside_by_name_and_stops_nothing_else(
    world: World,
) -> None:
    async def story() -> None:
        one, member, late = (log_device(world) for _ in range(3))
        one.put("a", "x")
        await one.log.push()
        await member.log.pull()
        member.put("beyond", "x")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("moss_sync.log_blob.check_time", lambda *_, **__: None)
            patch.setattr(SessionClock, "now_ms", lambda self: MAX_TIME_MS + DAY_MS)
            await member.log.push()
        for device in (one, late):
            report = await device.log.pull()
            assert any("year 3000" in sentence for sentence in report.rejections)
            assert set(device.texts) == {"a"}
        one.put("b", "x")
        await one.log.push()
        await late.log.pull()
        assert order(late) == ["a", "b"]

    asyncio.run(story())


@pytest.mark.parametrize("stamp", [LAST_OBSERVED + 1, LAST_STAMP - 1, LAST_STAMP])
def test_in_a_log_a_stamp_that_no_clock_can_give_takes_no_clock_along(
    world: World, stamp: int
) -> None:
    async def story() -> None:
        one, member, late = (log_device(world) for _ in range(3))
        one.put("a", "x")
        one.put("edited", "x")
        await one.log.push()
        await member.log.pull()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("moss_local.storage.edits.tick", lambda *_: stamp)
            for id in ("beyond", "edited"):
                member.put(id, "y")
            patch.setattr(member.replica, "discipline", lambda *_: 0)
            await member.log.push()
        for device, id in ((one, "b"), (late, "c"), (one, "d"), (late, "e")):
            await device.log.pull()
            device.put(id, "x")
            await device.log.push()
        assert await agree_on_a_log([one, late]) == ["a", "b", "c", "d", "e", "beyond", "edited"]
        never_set = log_device(world)
        never_set.clock.now_ms = 0
        says(world, None)
        await never_set.log.pull()
        assert never_set.log.now_ms() < YEAR_2099_MS
        if stamp < LAST_STAMP - 1:
            one.put("edited", "z")
            one.delete("beyond")
            one.put("f", "x")
            await agree_on_a_log([one, late])
            assert late.texts["edited"] == "z"
            assert order(late)[-2:] == ["f", "edited"]

    asyncio.run(story())


def test_in_a_log_a_forgotten_deletion_at_the_end_of_all_stamps_stops_no_device(
    world: World,
) -> None:
    async def story() -> None:
        one = log_device(world)
        one.put("a", "x")
        one.replica.forget({}, (), tomb_limit=LAST_STAMP, now_ms=START_MS)
        one.put("b", "x")
        assert order(one) == ["a", "b"]
        assert to_ms(max(stamps(one).values())) < START_MS + DAY_MS

    asyncio.run(story())


def test_in_a_log_a_first_vector_of_the_last_moment_costs_no_later_push(world: World) -> None:
    async def story() -> None:
        member, one, late = (log_device(world) for _ in range(3))
        with member.file.writing() as conn:
            conn.execute("UPDATE state SET n = 999")
        member.put("a", "x")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(SessionClock, "now_ms", lambda self: latest(999))
            await member.log.push()
        await one.log.pull()
        one.put("b", "x")
        await one.log.push()
        report = await late.log.pull()
        assert report.rejections == ()
        assert set(late.texts) == {"a", "b"}

    asyncio.run(story())


@pytest.mark.parametrize("commit", ["cas", "log"])
def test_one_wrong_answer_of_a_store_that_tells_no_time_otherwise_stops_nobody(
    world: World, commit: Commit
) -> None:
    async def story() -> None:
        one = world.device_here(commit=commit)
        engine = one.log if commit == "log" else one.engine
        one.put("a", "x")
        await engine.push()
        for _ in range(5):
            one.repository.time.observe(YEAR_9999_MS)
        one.put("b", "x")
        assert (await engine.push()).sent == 1

    asyncio.run(story())
