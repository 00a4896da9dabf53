"""Compaction, collection, tombstones and who comes back after they are gone."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from moss_sync.floors import (
    DEFAULT_POLICY,
    TIMELINE_SAMPLES,
    Policy,
    sampled,
    seq_at,
    tidied,
)
from moss_sync.manifest import Device as Row
from moss_sync.tiers import plan_compaction
from moss_sync.times import DAY_MS, HOUR_MS
from tests.devices import Device
from tests.moss_sync.manifests import A, B, history
from tests.moss_sync.world import Crash, Once, World, noise

QUICK = Policy(
    grace_ms=HOUR_MS,
    purge_after_ms=DAY_MS,
    min_tombstones=3,
    spill_bytes=0,
    small_session_entries=1,
)


def hours(world: World, number: float) -> None:
    world.clock.now_ms += int(number * HOUR_MS)


async def push_all(*devices: Device) -> None:
    for device in devices:
        await device.engine.sync()
    for device in devices:
        await device.engine.pull()


async def settle_down(device: Device) -> None:
    while await device.engine.compact():
        pass


# -- time --------------------------------------------------------------------------------------


def test_the_samples_of_time_stay_few_and_know_the_recent_past_best() -> None:
    timeline: tuple[tuple[int, int], ...] = ()
    for seq in range(1, 100_001):
        timeline = sampled(timeline, seq, seq * 60_000)
    assert len(timeline) <= TIMELINE_SAMPLES
    assert [seq for seq, _ in timeline] == sorted(seq for seq, _ in timeline)
    now = 100_000
    for minutes in (1, 60, 24 * 60, 60 * 24 * 60):
        known = seq_at(timeline, (now - minutes) * 60_000, now * 60_000)
        assert now - 1.35 * minutes - 1 <= known <= now - minutes
    assert seq_at(timeline, 0, now * 60_000) == 0


# -- collection --------------------------------------------------------------------------------


def test_what_was_merged_away_stays_an_hour_and_then_goes(world: World) -> None:
    async def story() -> None:
        device = world.device_here(policy=QUICK)
        for number in range(4):
            device.put(f"d{number}", noise(number, 9000))
            await device.engine.push()
        await settle_down(device)
        assert len(world.blobs("s")) == 4
        listed = {entry.name for entry in (await device.manifest()).entries}
        assert await device.engine.collect() == 0
        hours(world, 1.1)
        device.put("later", "x")
        await device.engine.push()
        await device.engine.collect()
        assert world.blobs("s") == set()
        assert listed <= world.blobs()
        fresh = world.device_here()
        await fresh.engine.pull()
        assert fresh.texts == device.texts

    asyncio.run(story())


def test_a_waiting_segment_below_the_floor_goes_and_its_author_loses_nothing(
    world: World,
) -> None:
    async def story() -> None:
        late, other = world.device_here(policy=QUICK), world.device_here(policy=QUICK)
        await push_all(other, late)
        late.put("late", noise(1, 9000))
        world.store.before = Once("swap", "/m/", Crash())
        with pytest.raises(Crash):
            await late.engine.push()
        world.store.before = None
        orphan = world.blobs("s")
        assert len(orphan) == 1
        for number in range(4):
            hours(world, 1)
            other.put(f"d{number}", "x")
            await other.engine.push()
        await other.engine.collect()
        assert not orphan & world.blobs("s")
        await late.engine.push()
        await other.engine.pull()
        assert other.texts == late.texts
        assert "late" in other.texts

    asyncio.run(story())


def test_what_waits_above_the_floor_is_kept(world: World) -> None:
    async def story() -> None:
        late, other = world.device_here(policy=QUICK), world.device_here(policy=QUICK)
        other.put("a", "x")
        await push_all(other, late)
        hours(world, 2)
        other.put("b", "x")
        await push_all(other, late)
        late.put("late", noise(1, 9000))
        before = world.blobs("s")

        async def meanwhile(verb: str, key: str) -> None:
            if verb == "put" and "/s/" in key:
                world.store.after = None
                await other.engine.collect()
                assert len(world.blobs("s") - before) == 1

        world.store.after = meanwhile
        await late.engine.push()
        assert (await other.manifest()).gc_floor > 0
        await other.engine.pull()
        assert "late" in other.texts

    asyncio.run(story())


def test_what_is_committed_while_the_store_is_listed_is_kept(world: World) -> None:
    async def story() -> None:
        device, other = world.device_here(policy=QUICK), world.device_here(policy=QUICK)
        for number in range(4):
            device.put(f"d{number}", noise(number, 9000))
            await device.engine.push()
        await settle_down(device)
        hours(world, 2)
        device.put("later", "x")
        await device.engine.push()
        await other.engine.pull()

        async def meanwhile(verb: str, key: str) -> None:
            if verb == "keys":
                world.store.after = None
                for number in range(3):
                    other.put(f"other-{number}", noise(50 + number, 9000))
                    await other.engine.push()
                await settle_down(other)

        world.store.after = meanwhile
        assert await device.engine.collect() > 0
        current = await device.manifest()
        assert {entry.name for entry in current.entries} <= world.blobs()

    asyncio.run(story())


def test_a_collection_that_was_cut_off_is_gone_on_with(world: World) -> None:
    async def story() -> None:
        device = world.device_here(policy=QUICK)
        for number in range(4):
            device.put(f"d{number}", noise(number, 9000))
            await device.engine.push()
        await settle_down(device)
        hours(world, 2)
        device.put("later", "x")
        await device.engine.push()
        world.store.after = Once("delete", "/s/", Crash())
        with pytest.raises(Crash):
            await device.engine.collect()
        world.store.after = None
        await device.engine.collect()
        current = await device.manifest()
        floor = current.gc_floor
        old = {name for name in world.blobs() if int(name[2:18], 16) < floor}
        assert old <= {entry.name for entry in current.entries}

    asyncio.run(story())


def test_many_turns_leave_few_blobs_and_few_entries(world: World) -> None:
    # What a quiescent session weighs is bounded by its documents, not by how they came.
    async def story() -> None:
        device = world.device_here()
        for number in range(300):
            device.put(f"d{number % 40}", noise(number, 700))
            hours(world, 0.1)
            await device.engine.push()
            await settle_down(device)
        hours(world, 2)
        device.put("last", "x")
        await device.engine.push()
        await device.engine.collect()
        current = await device.manifest()
        assert len(current.entries) <= DEFAULT_POLICY.small_session_entries
        assert len(world.blobs()) <= len(current.entries) + 40

    asyncio.run(story())


# -- tombstones ----------------------------------------------------------------------------------


async def purged(world: World, *devices: Device) -> None:
    """Let enough time pass and enough be deleted that the first device drops tombstones."""
    first = devices[0]
    for number in range(8):
        first.put(f"filler-{number}", "x")
    await push_all(*devices)
    for number in range(8):
        first.delete(f"filler-{number}")
    await push_all(*devices)
    hours(world, 25)
    for device in devices:
        device.put(f"tick-{device.replica.state().dev.hex()}", str(world.clock.now_ms))
    await push_all(*devices)
    hours(world, 25)
    first.put("tock", str(world.clock.now_ms))
    await push_all(*devices)
    await settle_down(first)
    current = await first.manifest()
    assert current.tomb_seq > 0
    assert current.gc_floor >= current.tomb_seq


def rows(device: Device) -> int:
    with device.file.reading() as conn:
        count: int = conn.execute("SELECT count(*) FROM document WHERE deleted").get
        return count


def test_tombstones_go_once_everybody_has_seen_them_for_a_day(world: World) -> None:
    async def story() -> None:
        one, two = world.device_here(policy=QUICK), world.device_here(policy=QUICK)
        await purged(world, one, two)
        current = await one.manifest()
        assert sum(entry.tombs or 0 for entry in current.entries) == 0
        assert (rows(one), rows(two)) == (0, 8)
        await push_all(one, two)
        assert (rows(one), rows(two)) == (0, 0)
        fresh = world.device_here()
        await fresh.engine.pull()
        assert fresh.texts == one.texts == two.texts

    asyncio.run(story())


def test_a_device_that_has_not_seen_a_deletion_holds_its_tombstone_back(world: World) -> None:
    async def story() -> None:
        one, two = world.device_here(policy=QUICK), world.device_here(policy=QUICK)
        for number in range(8):
            two.put(f"d{number}", "x")
        await push_all(one, two)
        for number in range(8):
            one.delete(f"d{number}")
        for _ in range(5):
            hours(world, 20)
            one.put("tick", str(world.clock.now_ms))
            await one.engine.sync()
            await settle_down(one)
        current = await one.manifest()
        assert current.tomb_seq <= current.devs[two.replica.state().dev].acked_seq
        assert sum(entry.tombs or 0 for entry in current.entries) == 8
        hours(world, 24 * 91)  # after the retention it no longer does
        for _ in range(3):
            hours(world, 25)
            one.put("tick", str(world.clock.now_ms))
            await one.engine.sync()
            await settle_down(one)
        assert (await one.manifest()).tomb_seq > current.tomb_seq

    asyncio.run(story())


def test_who_comes_back_after_a_purge_brings_nothing_back_to_life(world: World) -> None:
    async def story() -> None:
        one, away = world.device_here(policy=QUICK), world.device_here(policy=QUICK)
        for number in range(4):
            one.put(f"old-{number}", "x")
        one.put("kept", "x")
        await push_all(one, away)
        for number in range(4):
            one.delete(f"old-{number}")
        await one.engine.push()
        hours(world, 24 * 91)
        await purged(world, one)
        away.put("own", "never pushed")
        report = await away.engine.sync()
        assert report.reasserted == 0
        assert {"own", "kept"} <= set(away.texts)
        assert not any(id.startswith("old-") for id in away.texts)
        await one.engine.pull()
        assert one.texts == away.texts

    asyncio.run(story())


def test_an_unpushed_edit_of_a_document_whose_deletion_is_forgotten_survives(
    world: World,
) -> None:
    async def story() -> None:
        one, away = world.device_here(policy=QUICK), world.device_here(policy=QUICK)
        one.put("edited", "x")
        await push_all(one, away)
        away.put("edited", "on the train")
        one.delete("edited")
        await one.engine.push()
        hours(world, 24 * 91)
        await purged(world, one)
        report = await away.engine.sync()
        assert report.reasserted == 1
        await one.engine.pull()
        assert one.texts["edited"] == away.texts["edited"] == "on the train"

    asyncio.run(story())


def test_a_fresh_write_on_a_slow_clock_beats_a_forgotten_deletion(world: World) -> None:
    async def story() -> None:
        one = world.device_here(policy=QUICK)
        one.put("again", "x")
        await push_all(one)
        one.delete("again")
        await purged(world, one)
        slow = world.device(policy=QUICK)
        slow.clock.now_ms -= 400 * DAY_MS
        await slow.engine.pull()
        slow.put("again", "written anew")
        await slow.engine.push()
        await one.engine.pull()
        fresh = world.device_here()
        await fresh.engine.pull()
        assert one.texts["again"] == fresh.texts["again"] == "written anew"

    asyncio.run(story())


def test_a_push_prepared_before_a_purge_is_prepared_anew(world: World) -> None:
    async def story() -> None:
        one, late = world.device_here(policy=QUICK), world.device_here(policy=QUICK)
        one.put("gone", "x")
        await push_all(one, late)
        late.put("gone", "edited late")
        world.store.before = Once("swap", "/m/", Crash())
        with pytest.raises(Crash):
            await late.engine.push()
        world.store.before = None
        one.delete("gone")
        await one.engine.push()
        hours(world, 24 * 91)
        await purged(world, one)
        before = late.replica.state().pending
        assert before is not None
        report = await late.engine.push()
        assert (report.sent, report.reasserted) == (1, 1)
        assert late.replica.state().acked_n > before.n
        await one.engine.pull()
        assert one.texts["gone"] == "edited late"

    asyncio.run(story())


def test_a_push_whose_answer_was_lost_is_settled_before_what_was_forgotten_is_dropped(
    world: World,
) -> None:
    async def story() -> None:
        one, away = world.device_here(policy=QUICK), world.device_here(policy=QUICK)
        await push_all(one, away)
        away.put("pushed", "and deleted by another since")
        world.store.after = Once("swap", "/m/", Crash())
        with pytest.raises(Crash):
            await away.engine.push()
        world.store.after = None
        await one.engine.pull()
        one.delete("pushed")
        await one.engine.push()
        hours(world, 24 * 91)
        await purged(world, one)
        report = await away.engine.pull()
        assert report.sent == 1
        assert (report.reasserted, report.quarantined) == (0, 0)
        await away.engine.push()
        await one.engine.pull()
        assert "pushed" not in away.texts
        assert one.texts == away.texts

    asyncio.run(story())


def test_a_tombstone_stays_while_an_older_put_may_still_be_listed() -> None:
    # A late segment may carry a put that the tombstone beats: it is rewritten together with it.
    from moss_sync.tiers import to_purge
    from tests.moss_sync.manifests import entry

    old, late = entry(lo=0, hi=3), entry(lo=8, hi=9, base=2, dev=B)
    young = entry(lo=9, hi=10, base=9)
    current = replace(history(10), entries=(old, late, young), inline=())
    merged = to_purge(current, 5)
    assert merged is not None
    assert merged.entries == (old, late)


def test_few_tombstones_are_not_worth_a_rewrite() -> None:
    current = replace(history(10), tl=((9, 0),), inline=(), devs={})
    from tests.moss_sync.manifests import entry

    for tombs, purge in (
        (DEFAULT_POLICY.min_tombstones, 0),
        (DEFAULT_POLICY.min_tombstones + 1, 9),
    ):
        full = replace(entry(lo=0, hi=9), tombs=tombs)
        merged = plan_compaction(replace(current, entries=(full,)), DEFAULT_POLICY, 10 * DAY_MS)
        assert (0 if merged is None else merged.purge) == purge


# -- devices -------------------------------------------------------------------------------------


def crowd(number: int) -> dict[bytes, Row]:
    """Devices that pushed in this order, one a commit from commit 4 on."""
    return {
        at.to_bytes(8, "big"): Row(1, 3, 0, b"i" * 8, b"t" * 16, seq=4 + at) for at in range(number)
    }


def test_devices_that_were_silent_longest_leave_together_with_a_floor() -> None:
    policy = Policy(max_devices=10, retire_after_ms=100)
    current = replace(history(20), devs=crowd(14), tl=((18, 800), (20, 1000)))
    after = tidied(current, policy, ceiling=20, author=A, now_ms=1000)
    assert [int.from_bytes(dev, "big") for dev in after.devs] == list(range(4, 14))
    assert after.gc_floor == after.retired == 7
    for ceiling, now_ms in ((2, 1000), (20, 850)):
        kept = tidied(current, policy, ceiling=ceiling, author=A, now_ms=now_ms)
        assert kept.devs == current.devs
    kept = tidied(current, policy, ceiling=20, author=(0).to_bytes(8, "big"), now_ms=1000)
    assert (0).to_bytes(8, "big") in kept.devs


def test_a_crowd_of_a_day_leaves_however_young_it_is() -> None:
    policy = Policy(max_devices=10, max_crowd=12)
    current = replace(history(20), devs=crowd(14))
    after = tidied(current, policy, ceiling=20, author=A, now_ms=1000)
    assert len(after.devs) == 12
    assert after.gc_floor == 5


def test_a_device_that_was_forgotten_goes_on_as_a_new_one_and_loses_nothing(
    world: World,
) -> None:
    async def story() -> None:
        policy = Policy(max_devices=1)
        old, other = world.device_here(policy=policy), world.device_here(policy=policy)
        old.put("a", "x")
        await push_all(old, other)
        was = old.replica.state().dev
        old.put("b", "unpushed")
        for number in range(4):
            hours(world, 25)
            other.put(f"d{number}", "x")
            await other.engine.sync()
        assert was not in (await other.manifest()).devs
        report = await old.engine.sync()
        assert (report.sent, report.quarantined) == (1, 0)
        assert old.replica.state().dev != was
        await other.engine.pull()
        assert other.texts == old.texts

    asyncio.run(story())


def test_a_device_that_only_reads_is_forgotten_without_noticing(world: World) -> None:
    async def story() -> None:
        policy = Policy(max_devices=1)
        reader, other = world.device_here(policy=policy), world.device_here(policy=policy)
        reader.put("a", "x")
        await push_all(reader, other)
        for number in range(4):
            hours(world, 25)
            other.put(f"d{number}", "x")
            await other.engine.sync()
            await reader.engine.pull()
        assert reader.replica.state().dev not in (await other.manifest()).devs
        assert reader.texts == other.texts
        reader.put("b", "y")
        await reader.engine.push()
        await other.engine.pull()
        assert other.texts["b"] == "y"

    asyncio.run(story())
