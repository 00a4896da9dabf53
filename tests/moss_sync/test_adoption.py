"""Waiting segments that others commit: what is taken along, by whom, and what its author finds."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from moss_sync import channel, layout, plan, race
from moss_sync.manifest import UNKNOWN_INC, tip_of
from moss_sync.race import ADOPT_AFTER, STREAK_S
from tests.devices import Device
from tests.moss_sync.manifests import A, B, author, history, inline_push, state
from tests.moss_sync.world import Crash, Once, World, noise
from tests.strategies import NAME_KEY, SID, new_name


def between(times: int, push: Callable[[], Awaitable[object]]) -> Callable[..., Awaitable[None]]:
    """Return a hook that lets another device win, before each of the first swaps of a manifest."""
    left = [times]

    async def hook(verb: str, key: str) -> None:
        if verb == "swap" and "/m/" in key and left[0]:
            left[0] -= 1
            await push()

    return hook


async def left_waiting(device: Device, world: World, id: str) -> None:
    """Let a device write its segment and die before the swap."""
    device.put(id, noise(1, 20_000))
    world.store.before = Once("swap", "/m/", Crash())
    with pytest.raises(Crash):
        await device.engine.push()
    world.store.before = None


async def lose(device: Device, rival: Device, world: World, times: int) -> int:
    """Push from `device` while `rival` wins that many races; return what was adopted."""
    count = [0]

    async def win() -> None:
        world.store.before = None
        count[0] += 1
        rival.put(f"rival-{count[0]}", "x")
        await rival.engine.push()
        world.store.before = hook

    hook = between(times, win)
    world.store.before = hook
    report = await device.engine.push()
    world.store.before = None
    assert report.lost_races == times
    return report.adopted


def test_who_loses_twice_commits_what_waits_and_its_author_finds_it_done(world: World) -> None:
    async def story() -> None:
        dead, pusher, rival = world.device(), world.device(), world.device()
        await rival.engine.push()
        await left_waiting(dead, world, "waiting")
        await pusher.engine.pull()
        pusher.put("own", "y")
        assert await lose(pusher, rival, world, ADOPT_AFTER) == 1
        current = await pusher.manifest()
        assert current.devs[dead.replica.state().dev].n == 1

        fresh = world.device()
        await fresh.engine.pull()
        assert {"waiting", "own"} <= set(fresh.texts)

        world.store.calls.clear()
        report = await dead.engine.push()
        assert report.sent == 1
        assert [verb for verb, _ in world.store.calls] == ["get"]
        assert dead.replica.state().dirty == 0
        assert (await dead.manifest()).devs[dead.replica.state().dev].n == 1

    asyncio.run(story())


@pytest.mark.parametrize("pages", [1, channel.MAX_WAITING_PAGES - 1, channel.MAX_WAITING_PAGES])
def test_names_that_nobody_of_the_project_made_hide_nothing_that_waits_up_to_a_bound(
    world: World, pages: int
) -> None:
    async def story() -> None:
        dead, pusher, rival = world.device(), world.device(), world.device()
        await rival.engine.push()
        await left_waiting(dead, world, "waiting")
        [waiting] = [key for _, key in world.store.calls if "/s/" in key]
        folder = waiting.rpartition("/")[0]
        for number in range(pages * 1000):
            stray = f"{folder}/{0:016x}-{0:016x}-{number:08x}-{'a' * layout.TAG_CHARS}"
            assert stray < waiting
            await world.store.inner.put(stray, b"x")
        await pusher.engine.pull()
        pusher.put("own", "y")
        taken = await lose(pusher, rival, world, ADOPT_AFTER)
        assert taken == (1 if pages < channel.MAX_WAITING_PAGES else 0)
        await pusher.engine.pull()
        assert pusher.texts["own"] == "y"

    asyncio.run(story())


@pytest.mark.parametrize("slow_line", [False, True])
def test_who_loses_after_a_long_wait_has_met_a_crowd_unless_the_line_is_slow(
    world: World, slow_line: bool
) -> None:
    async def story() -> None:
        dead, pusher, rival = world.device(), world.device(), world.device()
        await rival.engine.push()
        await left_waiting(dead, world, "waiting")
        await pusher.engine.pull()
        pusher.put("own", "y")
        won: list[str] = []

        async def slow(verb: str, key: str) -> None:
            if verb == "swap" and not won:
                won.append(key)
                rival.put("theirs", "x")
                await rival.engine.push()
                pusher.clock.now_ms += 3_000
            elif verb == "get" and slow_line:
                pusher.clock.now_ms += 1_000

        world.store.before = slow
        world.store.calls.clear()
        report = await pusher.engine.push()
        assert report.lost_races == 1
        assert report.adopted == (0 if slow_line else 1)

    asyncio.run(story())


def test_who_was_taken_along_while_it_gathered_sends_no_swap(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(race, "ADOPT_AFTER", 0)  # everybody sees a crowd everywhere

    async def story() -> None:
        pusher, rival = world.device(), world.device()
        rival.put("first", "z")
        await rival.engine.push()
        pusher.put("earlier", "y")
        await pusher.engine.sync()
        pusher.put("own", "y")
        rival.put("theirs", "x")
        adopted: list[int] = []

        async def uploaded(verb: str, key: str) -> None:
            if verb == "put" and not adopted:
                world.store.after = None
                adopted.append((await rival.engine.push()).adopted)

        world.store.after = uploaded
        world.store.calls.clear()
        report = await pusher.engine.push()
        assert adopted == [1]
        assert (report.sent, report.lost_races, report.adopted) == (1, 0, 0)
        assert report.requests == 2  # its own upload and one look
        assert [verb for verb, _ in world.store.calls].count("swap") == 1
        assert pusher.replica.state().dirty == 0

    asyncio.run(story())


def test_who_loses_once_lists_nothing(world: World) -> None:
    async def story() -> None:
        pusher, rival = world.device(), world.device()
        await rival.engine.push()
        await pusher.engine.pull()
        pusher.put("own", "y")
        world.store.calls.clear()
        assert await lose(pusher, rival, world, ADOPT_AFTER - 1) == 0
        assert "keys" not in [verb for verb, _ in world.store.calls]

    asyncio.run(story())


@pytest.mark.parametrize("size", [1, 20_000])
def test_who_pushes_in_a_loop_keeps_nobody_out(world: World, size: int) -> None:
    # It needs no reading before its next swap, so it is always there first, and never loses.
    async def story() -> None:
        pusher, rival = world.device_here(), world.device_here()
        await rival.engine.push()
        await pusher.engine.pull()
        pusher.put("own", noise(1, size))
        wins, adopted, started = [0], [0], world.clock.now_ms

        async def win(verb: str, key: str) -> None:
            if verb != "swap" or "/m/" not in key:
                return
            world.store.before = None
            for _ in range(3):
                wins[0] += 1
                rival.put(f"rival-{wins[0]}", "x")
                report = await rival.engine.push()
                assert report.lost_races == 0
                adopted[0] += report.adopted
                world.clock.now_ms += 300
            world.store.before = win

        world.store.before = win
        report = await pusher.engine.push()
        world.store.before = None
        assert (report.sent, adopted[0]) == (1, 1)
        assert world.clock.now_ms - started <= 1000 * 3 * STREAK_S
        await rival.engine.pull()
        assert rival.texts["own"] == pusher.texts["own"]

    asyncio.run(story())


def test_who_pushes_in_a_loop_lists_now_and_then_and_who_pushes_each_turn_never(
    world: World,
) -> None:
    async def story() -> None:
        device = world.device_here()

        async def listings(pushes: int, pause_s: float) -> int:
            world.store.calls.clear()
            for number in range(pushes):
                device.put(f"{pause_s}-{number}", "x")
                await device.engine.push()
                world.clock.now_ms += int(pause_s * 1000)
            return [verb for verb, _ in world.store.calls].count("keys")

        await listings(1, 0.0)  # first contact looks whether the store is empty
        world.clock.now_ms += int(1100 * STREAK_S)
        assert await listings(20, 1.1 * STREAK_S) == 0
        assert 7 <= await listings(50, 0.2 * STREAK_S) <= 10

    asyncio.run(story())


def test_a_small_push_that_loses_twice_waits_where_others_can_take_it_along(world: World) -> None:
    async def story() -> None:
        pusher, rival = world.device(), world.device()
        await rival.engine.push()
        await pusher.engine.pull()
        pusher.put("own", "y")
        assert world.blobs("s") == set()
        await lose(pusher, rival, world, ADOPT_AFTER)
        assert len(world.blobs("s")) == 1
        current = await pusher.manifest()
        assert current.devs[pusher.replica.state().dev].n == 2  # the first form was given up
        await rival.engine.pull()
        assert rival.texts["own"] == "y"

    asyncio.run(story())


def test_what_was_taken_along_is_still_read_by_who_took_it(world: World) -> None:
    async def story() -> None:
        dead, pusher, rival = world.device(), world.device(), world.device()
        await rival.engine.push()
        await left_waiting(dead, world, "waiting")
        await pusher.engine.pull()
        pusher.put("own", "y")
        assert await lose(pusher, rival, world, ADOPT_AFTER) == 1
        assert "waiting" not in pusher.texts
        await pusher.engine.pull()
        assert "waiting" in pusher.texts

    asyncio.run(story())


def test_a_device_whose_first_push_others_committed_is_no_copy(world: World) -> None:
    async def story() -> None:
        dead, pusher, rival = world.device(), world.device(), world.device()
        await rival.engine.push()
        await left_waiting(dead, world, "waiting")
        was = dead.replica.state()
        await pusher.engine.pull()
        pusher.put("own", "y")
        await lose(pusher, rival, world, ADOPT_AFTER)
        assert (await pusher.manifest()).devs[was.dev].inc == UNKNOWN_INC
        dead.put("more", "z")
        await dead.engine.sync()
        assert dead.replica.state().dev == was.dev
        assert (await dead.manifest()).devs[was.dev].inc == was.inc

    asyncio.run(story())


def test_a_listing_that_fails_does_not_fail_the_push(world: World) -> None:
    from moss_sync import NetworkError

    async def story() -> None:
        pusher, rival = world.device(), world.device()
        await rival.engine.push()
        await pusher.engine.pull()
        pusher.put("own", "y")
        count = [0]

        async def hook(verb: str, key: str) -> None:
            if verb == "keys":
                raise NetworkError("no listing today")
            if verb == "swap" and "/m/" in key and count[0] < ADOPT_AFTER:
                count[0] += 1
                world.store.before = None
                rival.put(f"r{count[0]}", "x")
                await rival.engine.push()
                world.store.before = hook

        world.store.before = hook
        report = await pusher.engine.push()
        assert (report.sent, report.adopted, report.lost_races) == (1, 0, ADOPT_AFTER)

    asyncio.run(story())


def test_what_was_taken_along_while_its_author_wrote_it_again_is_what_its_author_meant(
    world: World,
) -> None:
    # Others may have read the first writing of a name: a second one with newer edits in it would
    # never be read again, and its author would believe that it had been.
    async def story() -> None:
        author, pusher, rival = world.device(), world.device(), world.device()
        await rival.engine.push()
        await pusher.engine.pull()
        await left_waiting(author, world, "waiting")
        author.put("waiting", "edited since")
        pusher.put("own", "y")
        done = [False]

        async def meanwhile(verb: str, key: str) -> None:
            if verb == "put" and "/s/" in key and not done[0]:
                done[0] = True
                world.store.before = None
                assert await lose(pusher, rival, world, ADOPT_AFTER) == 1
                await rival.engine.pull()
                assert rival.texts["waiting"] == noise(1, 20_000)

        world.store.before = meanwhile
        await author.engine.push()
        world.store.before = None
        assert done[0]
        await author.engine.push()
        await rival.engine.pull()
        assert rival.texts["waiting"] == author.texts["waiting"] == "edited since"

    asyncio.run(story())


# -- which names ------------------------------------------------------------------------------


def waiting(
    dev: bytes, number: int, base: int, *, kind: str = "s"
) -> tuple[layout.SegmentName, int]:
    return new_name(NAME_KEY, SID, kind=kind, base=base, dev=dev, number=number), 5000


def test_only_next_pushes_of_others_above_the_floor_are_taken_along() -> None:
    current = replace(history(9, B), gc_floor=5)
    other = b"device-C"
    good = [waiting(B, 10, 5), waiting(B, 11, 8), waiting(other, 1, 6)]
    bad = [
        waiting(A, 1, 6),  # the committer's own, given up
        waiting(B, 9, 8),  # its device has committed that number
        waiting(other, 2, 4),  # below the floor: it may have missed a deletion
        waiting(other, 3, 9, kind="b"),  # the output of a compaction
    ]
    chosen = plan.adoptable(current, [*bad, *reversed(good)], dev=A)
    assert chosen == good


def test_what_is_listed_already_is_not_taken_twice() -> None:
    name, size = waiting(B, 10, 5)
    pushed = plan.with_push(
        history(9, B),
        author(state(), parent=history(9, B)),
        inline_push(1, 9),
        repo_id=bytes(16),
        sid=SID,
        adopted=[(name, size)],
    )
    entry = pushed.entries[-1]
    assert (entry.name, entry.bytes, entry.docs, entry.lo, entry.hi, entry.bmin) == (
        str(name),
        size,
        None,
        9,
        10,
        5,
    )
    assert pushed.devs[B].n == 10
    assert pushed.devs[B].tip == tip_of(str(name).encode())
    assert plan.adoptable(pushed, [(name, size)], dev=A) == []
    forgotten = replace(pushed, devs={A: pushed.devs[A]})
    assert plan.adoptable(forgotten, [(name, size)], dev=A) == []


def test_the_list_does_not_grow_past_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "MAX_LISTED", 2)
    names = [waiting(B, number, 9) for number in range(10, 15)]
    assert plan.adoptable(history(9, B), names, dev=A) == names[:2]


def test_the_floor_of_a_commit_stays_below_everything_that_it_adds() -> None:
    parent = history(9, B)
    late = replace(author(state(), parent=parent), now_ms=10**9)
    name, size = waiting(B, 10, 3)
    alone = plan.with_push(parent, late, inline_push(1, 9), repo_id=bytes(16), sid=SID)
    taking = plan.with_push(
        parent, late, inline_push(1, 9), repo_id=bytes(16), sid=SID, adopted=[(name, size)]
    )
    assert alone.gc_floor == 9
    assert taking.gc_floor == 3


def test_a_name_that_no_holder_of_the_key_made_is_never_listed(world: World) -> None:
    async def story() -> None:
        pusher, rival = world.device(), world.device()
        rival.put("a", "x")
        await rival.engine.push()
        await pusher.engine.pull()
        sid = rival.engine._channel.sid(await rival.repository.attach())
        forged = new_name(bytes(32), sid, kind="s", base=1, dev=b"intruder", number=1)
        key = rival.repository.layout.blob(sid, str(forged))
        await world.store.inner.put(key, b"what it wants to be read" * 9)
        pusher.put("own", "y")
        assert await lose(pusher, rival, world, ADOPT_AFTER) == 0
        assert str(forged) not in {entry.name for entry in (await pusher.manifest()).entries}

    asyncio.run(story())
