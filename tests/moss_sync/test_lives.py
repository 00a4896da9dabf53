"""A session that is deleted, created again, rolled back, wiped and put together anew."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from moss_sync import (
    BlobCorruptError,
    BlobMissingError,
    BlobNotFoundError,
    ForkDetectedError,
    HistoryError,
    Life,
    LostCommitError,
    ManifestMissingError,
    NotFoundError,
    StaleReadError,
)
from moss_sync.stores.base import Blob, NotModified
from tests.devices import Device
from tests.moss_sync.world import Crash, Once, World, noise


def aside(device: Device) -> list[tuple[str, str]]:
    with device.file.reading() as conn:
        rows = conn.execute("SELECT id, text FROM quarantine ORDER BY id").fetchall()
        return [(id, text) for id, text in rows]


async def backup(world: World) -> dict[str, tuple[bytes, object]]:
    return dict(world.store.inner._content.blobs)


def restore(world: World, blobs: dict[str, tuple[bytes, object]]) -> None:
    world.store.inner._content.blobs.clear()
    world.store.inner._content.blobs.update(blobs)  # type: ignore[arg-type]  # its own content


# -- deleted and created again -----------------------------------------------------------------


def test_a_deleted_session_is_gone_everywhere_and_nothing_of_it_is_left_in_the_store(
    world: World,
) -> None:
    async def story() -> None:
        one, two = world.device(), world.device()
        for number in range(3):
            one.put(f"d{number}", noise(number, 9000))
            await one.engine.push()
        await two.engine.pull()
        await one.engine.delete()
        assert one.texts == {}
        assert world.blobs() == set()
        report = await two.engine.pull()
        assert two.texts == {}
        assert report.quarantined == 0
        fresh = world.device()
        await fresh.engine.pull()
        assert fresh.texts == {}

    asyncio.run(story())


def test_what_was_not_pushed_before_a_deletion_is_set_aside_and_not_published(
    world: World,
) -> None:
    async def story() -> None:
        one, two = world.device(), world.device()
        one.put("a", "x")
        await one.engine.push()
        await two.engine.pull()
        two.put("mine", "written offline")
        await one.engine.delete()
        report = await two.engine.sync()
        assert report.quarantined == 1
        assert aside(two) == [("mine", "written offline")]
        assert two.texts == {}
        assert (await two.manifest()).inline == ()

    asyncio.run(story())


def test_a_session_can_be_created_again_and_remembers_nothing(world: World) -> None:
    async def story() -> None:
        one, two, away = world.device(), world.device(), world.device()
        one.put("a", "before")
        await one.engine.push()
        for device in (two, away):
            await device.engine.pull()
        await one.engine.delete()
        await two.engine.pull()
        two.put("b", "after")
        await two.engine.push()
        current = await two.manifest()
        assert (current.gen, current.deleted) == (1, False)
        for device in (one, away):
            await device.engine.sync()
            assert device.texts == {"b": "after"}
        fresh = world.device()
        fresh.put("c", "never exchanged before")
        await fresh.engine.sync()
        assert fresh.texts == {"b": "after", "c": "never exchanged before"}
        assert aside(fresh) == []

    asyncio.run(story())


def test_a_push_that_was_in_flight_at_the_deletion_is_set_aside(world: World) -> None:
    async def story() -> None:
        one, two = world.device(), world.device()
        await one.engine.push()
        await two.engine.pull()
        two.put("late", noise(1, 9000))
        world.store.before = Once("swap", "/m/", Crash())
        with pytest.raises(Crash):
            await two.engine.push()
        world.store.before = None
        await one.engine.delete()
        await two.engine.push()
        assert [id for id, _ in aside(two)] == ["late"]
        await one.engine.pull()
        assert one.texts == {}

    asyncio.run(story())


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_deletion_that_was_cut_off_is_done_or_not_and_can_be_done_again(
    world: World, moment: str
) -> None:
    async def story() -> None:
        one, two = world.device(), world.device()
        one.put("a", noise(1, 9000))
        await one.engine.push()
        await two.engine.pull()
        setattr(world.store, moment, Once("swap", "/m/", Crash()))
        with pytest.raises(Crash):
            await one.engine.delete()
        setattr(world.store, moment, None)
        await two.engine.pull()
        assert two.texts.keys() == ({"a"} if moment == "before" else set())
        await one.engine.delete()
        await two.engine.pull()
        assert (one.texts, two.texts) == ({}, {})
        assert (await one.manifest()).gen == 1

    asyncio.run(story())


def test_deleting_what_was_never_pushed_touches_no_manifest(world: World) -> None:
    async def story() -> None:
        one = world.device()
        await one.engine.delete()
        assert not [key for verb, key in world.store.calls if verb == "swap" and "/m/" in key]

    asyncio.run(story())


# -- put together anew -------------------------------------------------------------------------


@pytest.fixture
def rolled_back(world: World) -> tuple[World, Device, Device]:
    """A store that went back to yesterday, behind two devices that know more."""
    one, two = world.device(), world.device()

    async def story() -> None:
        one.put("a", "old")
        await one.engine.push()
        await two.engine.pull()
        yesterday = await backup(world)
        one.put("a", "new")
        one.put("b", "of one")
        await one.engine.push()
        await two.engine.pull()
        two.put("c", "of two")
        await two.engine.push()
        await one.engine.pull()
        restore(world, yesterday)

    asyncio.run(story())
    return world, one, two


def test_a_store_that_went_back_is_named_and_left_alone(
    rolled_back: tuple[World, Device, Device],
) -> None:
    world, one, two = rolled_back
    before = dict(world.store.inner._content.blobs)

    async def story() -> None:
        for device in (one, two):
            device.put("more", "x")
            with pytest.raises(StaleReadError):
                await device.engine.sync()
            assert {"a", "b", "c", "more"} == set(device.texts)

    asyncio.run(story())
    assert world.store.inner._content.blobs == before


def test_one_healthy_device_puts_back_what_all_of_them_hold(
    rolled_back: tuple[World, Device, Device],
) -> None:
    world, one, two = rolled_back

    async def story() -> None:
        two.put("d", "never pushed")
        await one.engine.repair()
        fresh = world.device()
        await fresh.engine.pull()
        assert fresh.texts == {"a": "new", "b": "of one", "c": "of two"}
        # The other one finds by itself that it must add what it holds.
        await two.engine.sync()
        await one.engine.pull()
        await fresh.engine.pull()
        assert one.texts == two.texts == fresh.texts
        assert one.texts["d"] == "never pushed"
        assert one.replica.state().life == two.replica.state().life == Life(1, 0)

    asyncio.run(story())


def test_what_only_one_device_knows_comes_back_by_itself_after_anothers_repair(
    world: World,
) -> None:
    async def story() -> None:
        one, two = world.device(), world.device()
        one.put("a", "x")
        await one.engine.push()
        await two.engine.pull()
        yesterday = await backup(world)
        two.put("b", "acknowledged, and then rolled back")
        await two.engine.push()
        restore(world, yesterday)
        await one.engine.repair()
        report = await two.engine.sync()
        assert report.sent == 1
        await one.engine.pull()
        assert one.texts == two.texts == {"a": "x", "b": "acknowledged, and then rolled back"}

    asyncio.run(story())


def test_a_repair_brings_nothing_back_to_life_that_its_device_knows_to_be_deleted(
    world: World,
) -> None:
    async def story() -> None:
        one, two = world.device(), world.device()
        one.put("a", "x")
        one.put("gone", "x")
        await one.engine.push()
        await two.engine.pull()
        yesterday = await backup(world)
        one.delete("gone")
        await one.engine.push()
        restore(world, yesterday)
        await one.engine.repair()
        await two.engine.sync()
        await one.engine.sync()
        assert one.texts == two.texts == {"a": "x"}

    asyncio.run(story())


def test_a_blob_that_is_lost_is_written_again_from_what_a_device_holds(world: World) -> None:
    async def story() -> None:
        one, two = world.device(), world.device()
        for number in range(3):
            one.put(f"d{number}", noise(number, 9000))
            await one.engine.push()
        await two.engine.pull()
        [lost] = [key for key in world.store.inner._content.blobs if "/s/" in key][:1]
        await world.store.inner.delete(lost)
        fresh = world.device()
        with pytest.raises(BlobMissingError, match="repair"):
            await fresh.engine.pull()
        await two.engine.repair()
        await fresh.engine.pull()
        await one.engine.sync()
        assert fresh.texts == one.texts == two.texts
        assert len(fresh.texts) == 3

    asyncio.run(story())


@pytest.mark.parametrize("spoilt", ["missing", "cut short"])
@pytest.mark.parametrize("part", ["/s/", "/m/"])
def test_an_answer_that_is_damaged_on_its_way_takes_nothing_off_a_healthy_session(
    world: World, spoilt: str, part: str
) -> None:
    async def story() -> None:
        one, other = world.device(), world.device()
        other.put("of another", noise(1, 9000))
        await other.engine.push()
        await one.engine.pull()
        other.put("not yet seen", noise(2, 9000))
        await other.engine.push()
        sound = world.store.inner.get
        left = [1]

        async def damaged(key: str, **options: object) -> Blob | NotModified:
            answer = await sound(key, **options)  # type: ignore[arg-type]  # as it came
            if part in key and left[0] and isinstance(answer, Blob):
                left[0] -= 1
                if spoilt == "missing":
                    raise BlobNotFoundError(key)
                return Blob(answer.data[:-5], answer.etag)
            return answer

        world.store.inner.get = damaged  # type: ignore[method-assign]  # a bad line
        await one.engine.repair()
        world.store.inner.get = sound  # type: ignore[method-assign]
        fresh = world.device()
        await fresh.engine.pull()
        assert set(fresh.texts) == {"of another", "not yet seen"}

    asyncio.run(story())


def test_a_manifest_that_is_lost_is_made_again_on_the_users_word(world: World) -> None:
    async def story() -> None:
        one, two = world.device(), world.device()
        one.put("a", "x")
        await one.engine.push()
        await two.engine.pull()
        await world.store.inner.delete(await world.manifest_key())
        for device in (one, two):
            device.put(f"more-{device.replica.state().dev.hex()}", "x")
            with pytest.raises(ManifestMissingError):
                await device.engine.push()
        await one.engine.repair()
        await two.engine.sync()
        await one.engine.pull()
        assert one.texts == two.texts
        assert len(one.texts) == 3

    asyncio.run(story())


def test_two_devices_that_repair_at_once_agree(rolled_back: tuple[World, Device, Device]) -> None:
    _, one, two = rolled_back

    async def story() -> None:
        await asyncio.gather(one.engine.repair(), two.engine.repair())
        for device in (one, two, one):
            await device.engine.sync()
        assert one.texts == two.texts == {"a": "new", "b": "of one", "c": "of two"}

    asyncio.run(story())


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("swap", [1, 2])
def test_a_repair_that_was_cut_off_is_gone_on_with(
    rolled_back: tuple[World, Device, Device], moment: str, swap: int
) -> None:
    world, one, two = rolled_back
    left = [swap]

    async def cut(verb: str, key: str) -> None:
        if verb == "swap" and "/m/" in key:
            left[0] -= 1
            if left[0] == 0:
                raise Crash

    async def story() -> None:
        one.put("d", "not pushed yet")  # else one swap is all
        setattr(world.store, moment, cut)
        with pytest.raises(Crash):
            await one.engine.repair()
        setattr(world.store, moment, None)
        await one.engine.repair()
        await two.engine.sync()
        await one.engine.sync()
        assert one.texts == two.texts
        assert one.texts.keys() == {"a", "b", "c", "d"}

    asyncio.run(story())


def test_a_state_from_before_a_repair_is_refused(rolled_back: tuple[World, Device, Device]) -> None:
    world, one, two = rolled_back

    async def story() -> None:
        before = await backup(world)
        await one.engine.repair()
        await two.engine.sync()
        restore(world, before)
        for device in (one, two):
            with pytest.raises(HistoryError):
                await device.engine.pull()

    asyncio.run(story())


def test_a_device_that_had_missed_deletions_does_not_bring_them_back_after_a_repair(
    world: World,
) -> None:
    from tests.moss_sync.test_forgetting import QUICK, hours, purged, push_all

    async def story() -> None:
        one, away = world.device_here(policy=QUICK), world.device_here(policy=QUICK)
        one.put("gone", "x")
        one.put("kept", "x")
        await push_all(one, away)
        one.delete("gone")
        await one.engine.push()
        hours(world, 24 * 91)
        await purged(world, one)
        await one.engine.repair()
        await away.engine.sync()
        await one.engine.sync()
        assert "gone" not in away.texts
        assert one.texts == away.texts
        assert "kept" in one.texts

    asyncio.run(story())


def test_a_fork_is_named(world: World) -> None:
    async def story() -> None:
        one, two = world.device(), world.device()
        one.put("a", "x")
        await one.engine.push()
        await two.engine.pull()
        yesterday = await backup(world)
        one.put("b", "x")
        await one.engine.push()
        restore(world, yesterday)
        two.put("c", "x")
        await two.engine.push()
        for _ in range(2):
            with pytest.raises((ForkDetectedError, LostCommitError)):
                await one.engine.sync()
        assert set(one.texts) == {"a", "b"}
        await one.engine.repair()
        await two.engine.sync()
        await one.engine.pull()
        assert one.texts == two.texts
        assert set(one.texts) == {"a", "b", "c"}

    asyncio.run(story())


def test_what_a_lost_manifest_listed_is_taken_over_where_it_can_still_be_read(
    world: World,
) -> None:
    async def story() -> None:
        one, two = world.device(), world.device()
        one.put("a", noise(1, 9000))
        await one.engine.push()
        await two.engine.pull()
        one.put("b", noise(2, 9000))
        await one.engine.push()
        # It has seen the second push, and not merged it.
        keys = await two.repository.attach()
        found = await two.engine._channel.read_manifest(keys, two.replica.state())
        assert found is not None
        two.replica.set_seen(found[1])
        await world.store.inner.delete(await world.manifest_key())
        report = await two.engine.repair()
        assert (report.blobs, report.lost_blobs) == (2, 0)
        assert two.texts.keys() == {"a", "b"}

    asyncio.run(story())


def test_a_repair_that_is_not_needed_is_an_ordinary_exchange(world: World) -> None:
    async def story() -> None:
        one, two = world.device(), world.device()
        one.put("a", noise(1, 9000))
        await one.engine.push()
        two.put("b", "x")
        report = await two.engine.repair(force=False)
        assert (report.trouble, report.rebuilt, report.blobs) == (None, False, 1)
        assert (report.received, report.sent) == (1, 1)
        assert (await two.manifest()).repairs == 0

    asyncio.run(story())


def test_a_manifest_of_before_a_rotation_is_not_believed_by_a_repair(world: World) -> None:
    """Whoever has only the old key could have written anything."""
    from moss_sync.rotation import rotate

    async def story() -> None:
        one, two = world.device(), world.device()
        one.put("a", noise(1, 9000))
        await one.engine.push()
        await two.engine.pull()
        key = await world.manifest_key()
        old = world.store.inner._content.blobs[key]
        two.put("foreign", "x")
        await two.engine.push()
        forged = world.store.inner._content.blobs[key]
        world.store.inner._content.blobs[key] = old
        await rotate(one.repository, one.clock)
        one.put("b", "x")
        await one.engine.push()
        world.store.inner._content.blobs[key] = forged
        with pytest.raises(HistoryError):
            await one.engine.pull()
        report = await one.engine.repair(force=False)
        assert report.rebuilt
        assert one.texts.keys() == {"a", "b"}

    asyncio.run(story())


def test_a_repair_leaves_a_manifest_alone_whose_key_only_another_device_can_put_back(
    world: World,
) -> None:
    from moss_sync.rotation import rotate

    async def story() -> None:
        one, two = world.device(), world.device()
        one.put("a", "x")
        await one.engine.push()
        await two.engine.pull()
        fmt = one.repository.layout.fmt
        before = world.store.inner._content.blobs[fmt]
        await rotate(one.repository, one.clock)
        one.put("b", "x")
        await one.engine.push()
        world.store.inner._content.blobs[fmt] = before
        blobs = dict(world.store.inner._content.blobs)
        with pytest.raises(BlobCorruptError) as caught:
            await two.engine.repair()
        assert "moss-local repair --all" in (caught.value.hint or "")
        assert world.store.inner._content.blobs == blobs
        assert (await one.engine.repair(force=False)).keys_restored
        await two.engine.sync()
        assert two.texts == one.texts

    asyncio.run(story())


def test_a_damaged_manifest_is_no_start_for_a_device_that_never_saw_it_whole(world: World) -> None:
    async def story() -> None:
        one, fresh = world.device(), world.device()
        one.put("a", "x")
        await one.engine.push()
        await world.store.inner.put(await world.manifest_key(), b"\0" * 200)
        with pytest.raises(NotFoundError, match="never seen it whole") as caught:
            await fresh.engine.repair()
        assert "moss-local repair conv-123" in (caught.value.hint or "")
        await one.engine.repair()
        await fresh.engine.pull()
        assert fresh.texts == {"a": "x"}

    asyncio.run(story())


# -- copies ------------------------------------------------------------------------------------


def test_a_backup_restored_after_a_purge_sets_aside_what_may_have_been_deleted_since(
    world: World, tmp_path: Path
) -> None:
    import shutil

    from tests.moss_sync.test_forgetting import QUICK, hours, purged, push_all

    async def story() -> None:
        one, two = world.device_here(policy=QUICK), world.device_here(policy=QUICK)
        await push_all(one, two)
        two.put("maybe", "pushed after the backup was made")
        with two.file.writing() as conn:
            conn.execute("SELECT 1")
        two.close()
        shutil.copy(two.file.path, tmp_path / "backup.sqlite3")
        again = Device(two.file.path, world.store, clock=world.clock, policy=QUICK)
        world.devices.append(again)
        await push_all(again, one)
        one.delete("maybe")
        await one.engine.push()
        again.close()
        hours(world, 24 * 91)
        await purged(world, one)
        old = Device(tmp_path / "backup.sqlite3", world.store, clock=world.clock, policy=QUICK)
        world.devices.append(old)
        report = await old.engine.sync()
        assert report.quarantined == 1
        assert aside(old) == [("maybe", "pushed after the backup was made")]
        await one.engine.pull()
        assert "maybe" not in one.texts
        assert one.texts == old.texts

    asyncio.run(story())
