"""What a repair brings back, and what it never does, whoever makes it, whatever the store shows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

import pytest

from moss_sync import HistoryError, Life, StaleReadError
from moss_sync.stores.base import ETag
from tests.devices import Device
from tests.moss_sync.test_forgetting import QUICK, hours, purged, push_all
from tests.moss_sync.world import Crash, Once, World, noise

State = dict[str, tuple[bytes, ETag]]


def stored(world: World) -> State:
    return dict(world.store.inner._content.blobs)


def put_back(world: World, before: State) -> None:
    """Put an older state of the store in the place of the newest one."""
    world.store.inner._content.blobs.clear()
    world.store.inner._content.blobs.update(before)


def put_back_beside(world: World, before: State) -> None:
    """Put older blobs and the older manifest back, and leave what was written since."""
    world.store.inner._content.blobs.update(before)


def aside(device: Device) -> dict[str, str]:
    with device.file.reading() as conn:
        rows = conn.execute("SELECT id, text FROM quarantine ORDER BY number").fetchall()
        return dict(rows)


async def exchanged(devices: Iterable[Device], *, rounds: int = 3) -> None:
    for _ in range(rounds):
        for device in devices:
            await device.engine.sync()


# -- a deletion of the session -----------------------------------------------------------------


@pytest.mark.parametrize("restore", [put_back, put_back_beside])
@pytest.mark.parametrize("size", [10, 9000])
def test_who_saw_a_session_deleted_repairs_an_empty_one(
    world: World, restore: Callable[[World, State], None], size: int
) -> None:
    async def story() -> None:
        one, two = world.device(), world.device()
        for number in range(3):
            one.put(f"d{number}", noise(number, size))
            await one.engine.push()
        await two.engine.pull()
        before = stored(world)
        await one.engine.delete()
        await two.engine.pull()
        restore(world, before)
        for device in (one, two):
            with pytest.raises(StaleReadError):
                await device.engine.pull()
        await two.engine.repair()
        current = await two.manifest()
        assert (current.entries, current.inline, current.gen) == ((), (), 1)
        await exchanged((one, two))
        fresh = world.device()
        await fresh.engine.pull()
        assert one.texts == two.texts == fresh.texts == {}

    asyncio.run(story())


def test_a_deletion_that_was_seen_and_not_yet_applied_counts(world: World) -> None:
    async def story() -> None:
        one, two = world.device(), world.device()
        one.put("a", noise(1, 9000))
        await one.engine.push()
        await two.engine.pull()
        before = stored(world)
        await one.engine.delete()
        # It learns of the deletion, and is gone before it reads anything of what is there now.
        state = two.replica.state()
        keys = await two.repository.attach()
        found = await two.engine._channel.read_manifest(keys, state)
        assert found is not None
        two.replica.start_life(found[1], b"d" * 8, b"i" * 8, keep="nothing", joint=10)
        put_back(world, before)
        await two.engine.repair()
        assert (await two.manifest()).entries == ()
        await one.engine.pull()
        assert one.texts == two.texts == {}

    asyncio.run(story())


@pytest.mark.parametrize("restore", [put_back, put_back_beside])
def test_a_deletion_outlives_a_repair_by_a_device_that_never_heard_of_it(
    world: World, restore: Callable[[World, State], None]
) -> None:
    async def story() -> None:
        one, away = world.device(), world.device()
        one.put("old", noise(1, 9000))
        await one.engine.push()
        await away.engine.pull()
        before = stored(world)
        await one.engine.delete()
        restore(world, before)
        away.put("new", noise(2, 9000))
        await away.engine.repair()
        assert set(away.texts) == {"old", "new"}  # it cannot know
        with pytest.raises(StaleReadError, match="repair conv-123"):
            await one.engine.pull()
        assert one.texts == {}
        report = await one.engine.repair()
        # What was added by who did not know of the deletion is neither shown nor lost.
        assert report.quarantined == 1
        assert set(aside(one)) == {"new"}
        await exchanged((away, one))
        assert one.texts == away.texts == {}
        assert set(aside(away)) == {"new"}
        assert away.replica.state().life == Life(2, 1)
        fresh = world.device()
        await fresh.engine.pull()
        assert fresh.texts == {}

    asyncio.run(story())


def test_a_session_that_was_created_again_stays_so(world: World) -> None:
    async def story() -> None:
        one, away = world.device(), world.device()
        one.put("old", noise(1, 9000))
        await one.engine.push()
        await away.engine.pull()
        before = stored(world)
        await one.engine.delete()
        one.put("again", noise(3, 9000))
        await one.engine.push()
        put_back(world, before)
        away.put("new", "x")
        await away.engine.push()
        await one.engine.repair()
        await exchanged((away, one))
        assert set(one.texts) == set(away.texts) == {"again"}
        assert set(aside(away)) == {"new"}

    asyncio.run(story())


# -- deletions that are forgotten --------------------------------------------------------------


async def with_a_purged_deletion(world: World) -> tuple[Device, Device, Device, State]:
    """Two devices that know of a forgotten deletion, one that was away, and the store of before."""
    one, two, away = (world.device_here(policy=QUICK) for _ in range(3))
    one.put("gone", noise(1, 4000))
    one.put("kept", noise(2, 4000))
    await push_all(one, two, away)
    before = stored(world)
    one.delete("gone")
    await push_all(one, two)
    hours(world, 24 * 91)
    await purged(world, one, two)
    await two.engine.pull()
    for device in (one, two):
        assert "gone" not in {record.id for record in device.replica.records()}
    return one, two, away, before


@pytest.mark.parametrize("restore", [put_back, put_back_beside])
@pytest.mark.parametrize("order", ["who knows", "who was away", "both", "both, at once"])
def test_a_purged_deletion_stays_one_whoever_repairs_a_store_that_went_back(
    world: World, restore: Callable[[World, State], None], order: str
) -> None:
    async def story() -> None:
        one, two, away, before = await with_a_purged_deletion(world)
        healthy = set(one.texts)
        restore(world, before)
        away.put("unpushed", "x")
        if order == "who knows":
            await one.engine.repair()
        elif order == "who was away":
            await away.engine.repair()
            with pytest.raises(StaleReadError, match="did not know of deletions"):
                await two.engine.pull()
            await two.engine.repair()
        elif order == "both":
            await away.engine.repair()
            await one.engine.repair()
        else:
            await asyncio.gather(away.engine.repair(), one.engine.repair(), return_exceptions=True)
        for device in (one, two):
            try:
                await device.engine.sync()
            except HistoryError:
                await device.engine.repair()
        await exchanged((away, two, one))
        fresh = world.device_here(policy=QUICK)
        await fresh.engine.pull()
        for device in (one, two, away, fresh):
            assert set(device.texts) == {*healthy, "unpushed"}
            assert aside(device).keys() <= {"gone"}
        # What may have been deleted is not lost where it was still held.
        assert set(aside(away)) == {"gone"}

    asyncio.run(story())


def test_a_device_that_holds_its_records_for_long_does_not_bring_back_what_others_delete_meanwhile(
    world: World,
) -> None:
    """It had not changed them: it only offers them again since the session was repaired."""

    async def story() -> None:
        one, two, away = (world.device_here(policy=QUICK) for _ in range(3))
        for number, id in enumerate(("gone", "kept")):
            one.put(id, noise(number, 9000))
        await push_all(one, two, away)
        await one.engine.repair()
        # It learns of the repair and goes away before it has read what the session holds.
        current = (await one.manifest()).entries[0].name
        world.store.before = Once("get", current, Crash())
        with pytest.raises(Crash):
            await away.engine.pull()
        world.store.before = None
        assert away.replica.state().dirty == 2
        away.put("mine", "an edit")
        await push_all(one, two)
        two.delete("gone")
        await push_all(two, one)
        hours(world, 24 * 91)
        await purged(world, one, two)
        await away.engine.sync()
        assert "gone" not in away.texts
        assert set(aside(away)) == {"gone"}
        await push_all(one, two, away)
        assert one.texts == two.texts == away.texts
        assert {"kept", "mine"} <= set(one.texts)

    asyncio.run(story())


def test_what_the_store_lost_is_there_again_with_the_repairing_commit(world: World) -> None:
    """Others see the session whole or not at all, also where deletions are forgotten in it."""

    async def story() -> None:
        one, two, _, before = await with_a_purged_deletion(world)
        healthy = dict(one.texts)
        put_back(world, before)
        swaps = [0]

        async def others_look(verb: str, key: str) -> None:
            if verb == "swap" and "/m/" in key:
                swaps[0] += 1
                if swaps[0] == 1:
                    world.store.after = None
                    await two.engine.sync()
                    assert two.texts == healthy
                    assert aside(two) == {}

        world.store.after = others_look
        await one.engine.repair()
        assert swaps[0] == 1

    asyncio.run(story())


def test_two_branches_that_were_both_repaired_become_one(world: World) -> None:
    """Shown different stores, each side repairs its own; then the store shows one of them."""

    async def story() -> None:
        one, two = world.device(), world.device()
        one.put("a", noise(1, 9000))
        await one.engine.push()
        await two.engine.pull()
        base = stored(world)
        one.put("b", noise(2, 9000))
        await one.engine.repair()
        mine = stored(world)
        put_back(world, base)
        two.put("c", noise(3, 9000))
        await two.engine.repair()
        put_back_beside(world, {key: blob for key, blob in mine.items() if "/m/" not in key})
        with pytest.raises(HistoryError):
            await one.engine.pull()
        await one.engine.repair()
        await exchanged((two, one))
        fresh = world.device()
        await fresh.engine.pull()
        assert set(one.texts) == set(two.texts) == set(fresh.texts) == {"a", "b", "c"}
        assert aside(one) == aside(two) == {}

    asyncio.run(story())


def test_branches_that_have_both_forgotten_deletions_show_none_of_them(world: World) -> None:
    async def story() -> None:
        one, two = (world.device_here(policy=QUICK) for _ in range(2))
        for id in ("first", "second", "kept"):
            one.put(id, noise(1, 4000))
        await push_all(one, two)
        base = stored(world)
        one.delete("first")
        one.put("of one", "x")
        await one.engine.sync()
        hours(world, 24 * 91)
        await purged(world, one)
        mine = stored(world)
        put_back(world, base)
        two.delete("second")
        two.put("of two", "x")
        await two.engine.sync()
        hours(world, 24 * 91)
        await purged(world, two)
        put_back_beside(world, {key: blob for key, blob in mine.items() if "/m/" not in key})
        for device in (one, two, one):
            try:
                await device.engine.sync()
            except HistoryError:
                await device.engine.repair()
        await exchanged((one, two))
        fresh = world.device_here(policy=QUICK)
        await fresh.engine.pull()
        for device in (one, two, fresh):
            assert "first" not in device.texts
            assert "second" not in device.texts
            shown = {*device.texts, *aside(one), *aside(two)}
            assert {"kept", "of one", "of two", "first", "second"} <= shown
        assert one.texts == two.texts == fresh.texts

    asyncio.run(story())


def test_repairs_in_a_row_by_whoever_change_nothing_of_a_healthy_session(world: World) -> None:
    async def story() -> None:
        one, two, away, _ = await with_a_purged_deletion(world)
        healthy = dict(one.texts)
        for device in (one, away, two, away, one):
            await device.engine.repair()
        await exchanged((one, two, away))
        assert one.texts == two.texts == away.texts == healthy
        assert aside(one) == aside(two) == {}
        assert set(aside(away)) == {"gone"}

    asyncio.run(story())


# -- forgotten documents -----------------------------------------------------------------------


@pytest.mark.parametrize("is_purged", [False, True])
@pytest.mark.parametrize("restore", [None, put_back, put_back_beside])
def test_a_forgotten_document_does_not_come_back_from_a_device_with_its_text(
    world: World, restore: Callable[[World, State], None] | None, is_purged: bool
) -> None:
    async def story() -> None:
        one, away = (world.device_here(policy=QUICK) for _ in range(2))
        one.put("secret", noise(1, 4000))
        one.put("kept", noise(2, 4000))
        await push_all(one, away)
        before = stored(world)
        one.delete("secret")
        await one.engine.push()
        await one.engine.erase()
        if is_purged:
            hours(world, 24 * 91)
            await purged(world, one)
        if restore is not None:
            restore(world, before)
        await away.engine.repair()
        try:
            await one.engine.sync()
        except HistoryError:
            await one.engine.repair()
        await exchanged((away, one))
        fresh = world.device_here(policy=QUICK)
        await fresh.engine.pull()
        for device in (one, away, fresh):
            assert "secret" not in device.texts
            assert "kept" in device.texts
        assert "secret" not in aside(fresh)

    asyncio.run(story())
