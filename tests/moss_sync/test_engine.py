"""What an exchange promises, on the real file, over a store whose faults can be chosen."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import pytest

from moss_sync import (
    BlobCorruptError,
    BlobMissingError,
    ForkDetectedError,
    LostCommitError,
    ManifestMissingError,
    ModelMismatchError,
    MossError,
    NetworkError,
    OutcomeUnknownError,
    StaleReadError,
    StoreBusyError,
    StoreChangedError,
    UnauthorizedError,
    VectorSpace,
)
from moss_sync.floors import DEFAULT_POLICY, Policy
from moss_sync.stores import MemoryStore
from moss_sync.stores.base import Conflict, ETag, Swapped
from tests.devices import SPACE, Device
from tests.keys import OTHER_KEY
from tests.moss_sync.world import Crash, Once, World, noise


def test_what_one_device_pushes_another_pulls(world: World) -> None:
    async def story() -> None:
        a, b = world.device(), world.device()
        a.put("turn-1", "a duplicate charge")
        a.put("turn-2", "a refund")
        report = await a.engine.push()
        assert (report.sent, report.seq, report.lost_races) == (2, 1, 0)
        pulled = await b.engine.pull()
        assert (pulled.received, pulled.deleted) == (2, 0)
        assert b.texts == a.texts == {"turn-1": "a duplicate charge", "turn-2": "a refund"}
        b.delete("turn-1")
        b.put("turn-3", "posted")
        assert (await b.engine.push()).sent_deletes == 1
        pulled = await a.engine.pull()
        assert (pulled.received, pulled.deleted) == (1, 1)
        assert a.texts == b.texts == {"turn-2": "a refund", "turn-3": "posted"}

    asyncio.run(story())


def test_two_devices_that_push_at_once_merge_and_lose_nothing(world: World) -> None:
    async def story() -> None:
        a, b = world.device(), world.device()
        a.put("seed", "known to both")
        await a.engine.push()
        await b.engine.pull()
        for number in range(5):
            a.put(f"a-{number}", "from a")
            b.put(f"b-{number}", "from b")
            await asyncio.gather(a.engine.push(), b.engine.push())
        await a.engine.pull()
        await b.engine.pull()
        assert a.texts == b.texts
        assert len(a.texts) == 11

    asyncio.run(story())


def test_of_two_edits_to_one_document_the_later_wins_on_both_and_is_counted(world: World) -> None:
    async def story() -> None:
        a, b = world.device(), world.device()
        a.put("turn-1", "first")
        await a.engine.push()
        await b.engine.pull()
        a.put("turn-1", "a's edit")
        b.clock.now_ms += 10_000
        b.put("turn-1", "b's later edit")
        await b.engine.push()
        report = await a.engine.sync()
        assert report.superseded == 1
        await b.engine.pull()
        assert a.texts == b.texts == {"turn-1": "b's later edit"}

    asyncio.run(story())


def test_an_edit_of_what_was_seen_wins_though_the_clock_is_an_hour_slow(world: World) -> None:
    async def story() -> None:
        a, b = world.device(), world.device()
        b.clock.now_ms -= 3_600_000
        a.put("turn-1", "first")
        await a.engine.push()
        await b.engine.pull()
        b.put("turn-1", "b's correction")
        await b.engine.push()
        await a.engine.pull()
        assert a.texts == {"turn-1": "b's correction"}

    asyncio.run(story())


def test_a_pull_with_nothing_new_is_one_request_without_a_body(world: World) -> None:
    async def story() -> None:
        a, b = world.device(), world.device()
        a.put("turn-1", "text")
        await a.engine.push()
        await b.engine.pull()
        report = await b.engine.pull()
        assert (report.requests, report.bytes_received, report.bytes_sent) == (1, 0, 0)

    asyncio.run(story())


def test_a_push_of_one_turn_is_one_request_when_the_manifest_is_current(world: World) -> None:
    async def story() -> None:
        a = world.device()
        a.put("turn-1", "text")
        await a.engine.push()
        a.put("turn-2", "text")
        report = await a.engine.push()
        assert report.requests == 1
        assert report.bytes_sent < 48 * 1024

    asyncio.run(story())


def test_a_push_with_nothing_to_say_asks_nobody(world: World) -> None:
    async def story() -> None:
        a = world.device()
        a.put("turn-1", "text")
        await a.engine.push()
        assert (await a.engine.push()).requests == 0

    asyncio.run(story())


def test_an_empty_session_can_be_pushed_and_is_there_for_others(world: World) -> None:
    async def story() -> None:
        a, b = world.device(), world.device()
        assert (await a.engine.push()).seq == 1
        assert (await b.engine.pull()).seq == 1
        assert b.texts == {}

    asyncio.run(story())


def test_a_session_never_pushed_is_pulled_as_empty_in_one_request(world: World) -> None:
    async def story() -> None:
        a, b = world.device(), world.device(session="another")
        await a.engine.push()
        await b.engine.pull()
        assert (await b.engine.pull()).requests == 1
        assert b.texts == {}

    asyncio.run(story())


def test_a_large_push_goes_as_a_segment_of_its_own(world: World) -> None:
    async def story() -> None:
        a, b = world.device(), world.device()
        a.put("warm-up", "so that the store is known")
        await a.engine.push()
        for number in range(300):
            a.put(f"turn-{number}", noise(number))
        report = await a.engine.push()
        assert (report.sent, report.requests) == (300, 2)
        await b.engine.pull()
        assert a.texts == b.texts

    asyncio.run(story())


def test_a_lost_answer_to_the_swap_is_found_to_be_a_success_and_sent_once(world: World) -> None:
    async def story() -> None:
        a, b = world.device(), world.device()
        a.put("turn-1", "text")
        await a.engine.push()
        a.put("turn-2", "text")
        world.store.after = Once("swap", "/m/", OutcomeUnknownError("no answer"))
        report = await a.engine.push()
        assert (report.sent, report.seq) == (1, 2)
        await b.engine.pull()
        assert set(b.texts) == {"turn-1", "turn-2"}
        state = a.replica.state()
        assert (state.dirty, state.pending, state.acked_n) == (0, None, 2)

    asyncio.run(story())


def test_a_request_that_never_arrived_is_sent_again(world: World) -> None:
    async def story() -> None:
        a = world.device()
        a.put("turn-1", "text")
        await a.engine.push()
        a.put("turn-2", "text")
        world.store.before = Once("swap", "/m/", OutcomeUnknownError("no answer"))
        assert (await a.engine.push()).seq == 2
        assert a.replica.state().dirty == 0
        b = world.device()
        await b.engine.pull()
        assert b.texts == a.texts

    asyncio.run(story())


def test_a_false_conflict_after_ones_own_success_is_no_failure(world: World) -> None:
    # What an HTTP client that sends twice makes of it: the second copy loses to the first.
    async def story() -> None:
        a = world.device()
        a.put("turn-1", "text")
        await a.engine.push()
        real = world.store.inner.compare_and_swap

        async def twice(key: str, data: bytes, *, etag: ETag | None) -> Swapped | Conflict:
            await real(key, data, etag=etag)
            return await real(key, data, etag=etag)

        world.store.inner.compare_and_swap = twice  # type: ignore[method-assign]  # a fault
        a.put("turn-2", "text")
        report = await a.engine.push()
        assert (report.seq, report.sent) == (2, 1)

    asyncio.run(story())


def test_the_answer_was_lost_and_others_have_committed_since(world: World) -> None:
    async def story() -> None:
        a, b = world.device(), world.device()
        a.put("turn-1", "text")
        await a.engine.push()
        await b.engine.pull()
        a.put("turn-2", "from a")
        world.store.after = Once("swap", "/m/", NetworkError("gone after sending"))
        with pytest.raises(NetworkError):
            await a.engine.push()
        for number in range(3):
            b.put(f"b-{number}", "from b")
            await b.engine.push()
        report = await a.engine.push()
        assert report.sent == 1
        state = a.replica.state()
        assert (state.dirty, state.pending) == (0, None)
        await a.engine.pull()
        await b.engine.pull()
        assert a.texts == b.texts
        assert len(a.texts) == 5

    asyncio.run(story())


def test_a_busy_store_is_waited_for_as_long_as_it_asks(world: World) -> None:
    async def story() -> None:
        a = world.device()
        a.put("turn-1", "text")
        await a.engine.push()
        a.put("turn-2", "text")
        world.store.before = Once("swap", "/m/", StoreBusyError("429", retry_after=3.0))
        await a.engine.push()
        assert max(a.clock.slept) >= 1.5

    asyncio.run(story())


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("size", ["inline", "segment"])
def test_a_crash_at_any_request_of_a_push_loses_nothing_and_commits_once(
    world: World, moment: str, size: str
) -> None:
    async def story() -> None:
        a, b = world.device(), world.device()
        a.put("turn-0", "text")
        await a.engine.push()
        await b.engine.pull()
        texts = 1 if size == "inline" else 200
        for request in range(8):
            world.store.calls.clear()
            for number in range(texts):
                a.put(f"turn-{request}-{number}", noise(number))
            seen = 0

            async def crash(verb: str, key: str, at: int = request % 4) -> None:
                nonlocal seen
                seen += 1
                if seen == at + 1:
                    raise Crash

            setattr(world.store, moment, crash)
            with suppress(Crash):
                await a.engine.push()
            setattr(world.store, moment, None)
            # The process is started again on the same file.
            path, cache = a.file.path, a.cache
            a.close()
            a = Device(path, world.store, seed=100 + request)
            a.cache.held.update(cache.held)
            world.devices[0] = a
            await a.engine.push()
            assert a.replica.state().dirty == 0
        await b.engine.pull()
        assert len(a.texts) == 1 + 8 * texts
        assert a.texts == b.texts

    asyncio.run(story())


def test_a_crash_while_pulling_changes_nothing(world: World) -> None:
    async def story() -> None:
        a, b = world.device(), world.device()
        for number in range(200):
            a.put(f"turn-{number}", noise(number))
        await a.engine.push()
        world.store.before = Once("get", "/s/", Crash())
        with pytest.raises(Crash):
            await b.engine.pull()
        assert b.texts == {}
        await b.engine.pull()
        assert b.texts == a.texts

    asyncio.run(story())


def test_a_wrong_key_is_refused_and_writes_nothing(world: World) -> None:
    async def story() -> None:
        a = world.device()
        a.put("turn-1", "secret")
        await a.engine.push()
        b = world.device(key=OTHER_KEY)
        b.put("turn-2", "text")
        world.store.calls.clear()
        for attempt in (b.engine.push, b.engine.pull):
            with pytest.raises(UnauthorizedError):
                await attempt()
        assert {verb for verb, _ in world.store.calls} == {"get"}
        assert b.texts == {"turn-2": "text"}

    asyncio.run(story())


def test_nothing_readable_is_in_the_store(world: World) -> None:
    async def story() -> None:
        a = world.device(session="the-secret-session")
        for number in range(100):
            a.put(f"secret-id-{number}", f"secret text {number}")
        await a.engine.push()
        a.put("secret-id-inline", "secret text inline")
        await a.engine.push()
        stored = b""
        names = ""
        for listed in await world.store.inner.keys(a.repository.layout.prefix):
            stored += await world.blob(listed.key)
            names += listed.key
        assert len(stored) > 1000
        assert b"secret" not in stored
        assert "secret" not in names

    asyncio.run(story())


def damage_none_survives() -> list[tuple[str, Callable[[bytes], bytes]]]:
    return [
        ("a flipped bit", lambda data: data[:-20] + bytes([data[-20] ^ 1]) + data[-19:]),
        ("a flipped header bit", lambda data: data[:12] + bytes([data[12] ^ 1]) + data[13:]),
        ("a cut end", lambda data: data[:-1]),
        ("nothing left", lambda _: b""),
        ("a byte more", lambda data: data + b"\0"),
        ("something foreign", lambda _: b"<html>please log in</html>"),
    ]


@pytest.mark.parametrize(("how", "damage"), damage_none_survives())
@pytest.mark.parametrize("which", ["/m/", "/s/"])
def test_a_damaged_blob_is_named_and_changes_nothing_here(
    world: World, which: str, how: str, damage: Callable[[bytes], bytes]
) -> None:
    async def story() -> None:
        a, b = world.device(), world.device()
        b.put("mine", "a local turn")
        for number in range(100):
            a.put(f"turn-{number}", noise(number))
        await a.engine.push()
        [key] = {key for verb, key in world.store.calls if which in key and verb != "get"}
        whole = await world.blob(key)
        await world.store.inner.put(key, damage(whole))
        with pytest.raises(BlobCorruptError):
            await b.engine.pull()
        assert b.texts == {"mine": "a local turn"}
        assert b.replica.state().applied_seq == 0
        await world.store.inner.put(key, whole)
        await b.engine.sync()
        assert len(b.texts) == 101

    asyncio.run(story())


def test_two_segments_that_changed_places_are_refused(world: World) -> None:
    async def story() -> None:
        a, b = world.device(), world.device()
        for batch in range(2):
            for number in range(100):
                a.put(f"turn-{batch}-{number}", noise(number))
            await a.engine.push()
        one, two = sorted({key for verb, key in world.store.calls if "/s/" in key})
        blobs = await world.blob(one), await world.blob(two)
        await world.store.inner.put(one, blobs[1])
        await world.store.inner.put(two, blobs[0])
        with pytest.raises(BlobCorruptError):
            await b.engine.pull()
        assert b.texts == {}

    asyncio.run(story())


def test_a_segment_that_is_gone_is_named_and_changes_nothing(world: World) -> None:
    async def story() -> None:
        a, b = world.device(), world.device()
        for number in range(100):
            a.put(f"turn-{number}", noise(number))
        await a.engine.push()
        [key] = {key for verb, key in world.store.calls if "/s/" in key}
        await world.store.inner.delete(key)
        with pytest.raises(BlobMissingError):
            await b.engine.pull()
        assert b.texts == {}

    asyncio.run(story())


def test_an_older_manifest_is_refused_by_who_has_seen_a_newer_one(world: World) -> None:
    async def story() -> None:
        a, b = world.device(), world.device()
        a.put("turn-1", "text")
        await a.engine.push()
        key = await world.manifest_key()
        older = await world.blob(key)
        a.put("turn-2", "text")
        await a.engine.push()
        await b.engine.pull()
        await world.store.inner.put(key, older)
        with pytest.raises(StaleReadError):
            await b.engine.pull()
        assert set(b.texts) == {"turn-1", "turn-2"}

    asyncio.run(story())


def test_a_history_that_was_rewritten_behind_a_device_is_refused(world: World) -> None:
    async def story() -> None:
        a, b, c = world.device(), world.device(), world.device()
        a.put("turn-1", "text")
        await a.engine.push()
        await c.engine.pull()
        key = await world.manifest_key()
        common = await world.blob(key)
        b.put("b-1", "text")
        await b.engine.push()
        await a.engine.pull()
        # The store goes back, and the other half of the world goes on from there.
        await world.store.inner.put(key, common)
        for number in range(2):
            c.put(f"c-{number}", "text")
            await c.engine.push()
        with pytest.raises(ForkDetectedError):
            await a.engine.pull()
        with pytest.raises((ForkDetectedError, LostCommitError)):
            await b.engine.pull()

    asyncio.run(story())


def test_a_manifest_that_was_removed_is_not_made_again(world: World) -> None:
    async def story() -> None:
        a = world.device()
        a.put("turn-1", "text")
        await a.engine.push()
        await world.store.inner.delete(await world.manifest_key())
        with pytest.raises(ManifestMissingError):
            await a.engine.pull()
        a.put("turn-2", "text")
        with pytest.raises(ManifestMissingError):
            await a.engine.push()
        assert set(a.texts) == {"turn-1", "turn-2"}

    asyncio.run(story())


def test_a_file_does_not_change_its_store_by_accident(world: World, tmp_path: Path) -> None:
    async def story() -> None:
        a = world.device()
        a.put("turn-1", "text")
        await a.engine.push()
        path = a.file.path
        other = Device(path, MemoryStore(f"another-{uuid4().hex}"), seed=50)
        world.devices.append(other)
        with pytest.raises(StoreChangedError):
            await other.engine.push()

    asyncio.run(story())


def test_a_bucket_that_was_emptied_is_not_filled_under_the_old_keys(world: World) -> None:
    async def story() -> None:
        a = world.device()
        a.put("turn-1", "text")
        await a.engine.push()
        for listed in await world.store.inner.keys(a.repository.layout.prefix):
            await world.store.inner.delete(listed.key)
        b = world.device(session="new here")
        b.cache.held.update(a.cache.held)
        b.put("turn-2", "text")
        with pytest.raises(StoreChangedError):
            await b.engine.push()

    asyncio.run(story())


def test_vectors_of_another_model_are_refused_before_anything_is_written(world: World) -> None:
    async def story() -> None:
        a = world.device()
        a.put("turn-1", "text")
        await a.engine.push()
        b = world.device(space=VectorSpace("custom", "other-space", 3, "f4"))
        b.put("turn-2", "text", (1, 0, 0))
        world.store.calls.clear()
        for attempt in (b.engine.pull, b.engine.push):
            with pytest.raises(ModelMismatchError):
                await attempt()
        assert {verb for verb, _ in world.store.calls} == {"get"}
        assert b.texts == {"turn-2": "text"}

    asyncio.run(story())


def test_a_copied_file_becomes_a_device_of_its_own_and_neither_loses_an_edit(
    world: World,
) -> None:
    async def story() -> None:
        a, c = world.device(), world.device()
        a.put("turn-1", "text")
        await a.engine.push()
        a.file.release()
        copy = world.directory / "copy.sqlite3"
        copy.write_bytes(a.file.path.read_bytes())
        b = Device(copy, world.store, seed=77)
        world.devices.append(b)
        assert b.replica.state().dev == a.replica.state().dev
        a.put("from-a", "text")
        b.put("from-b", "text")
        await a.engine.push()
        await b.engine.push()
        assert b.replica.state().dev != a.replica.state().dev
        await b.engine.pull()
        await a.engine.pull()
        await c.engine.pull()
        assert a.texts == b.texts == c.texts
        assert set(a.texts) == {"turn-1", "from-a", "from-b"}

    asyncio.run(story())


def copied(world: World, device: Device, seed: int) -> Device:
    """A device on a copy of another's file, as it is now."""
    device.file.release()
    path = world.directory / f"copy-{seed}.sqlite3"
    path.write_bytes(device.file.path.read_bytes())
    world.devices.append(Device(path, world.store, seed=seed))
    return world.devices[-1]


def test_a_copy_that_gave_up_a_number_still_gets_what_the_other_committed_under_it(
    world: World,
) -> None:
    async def story() -> None:
        a = world.device()
        a.put("turn-1", "text")
        await a.engine.push()
        b = copied(world, a, 77)
        b.put("from-b", "text")
        world.store.before = Once("swap", "/m/", MossError("cut off"))
        with pytest.raises(MossError, match="cut off"):
            await b.engine.push()
        b.replica.abandon_pending()
        a.put("from-a", "text")
        await a.engine.push()
        assert b.replica.state().n == a.replica.state().n
        await b.engine.sync()
        await a.engine.pull()
        assert set(a.texts) == set(b.texts) == {"turn-1", "from-a", "from-b"}

    asyncio.run(story())


def test_a_pull_beside_a_push_of_the_same_file_does_not_take_it_for_a_copy(world: World) -> None:
    async def story() -> None:
        a, b = world.device(), world.device()
        a.put("turn-1", "text")
        await a.engine.push()
        await b.engine.pull()
        b.put("turn-2", "text")
        dev = b.replica.state().dev
        pushed = asyncio.Event()

        async def wait_for_the_push(verb: str, key: str) -> None:
            if verb == "get" and "/m/" in key:
                await pushed.wait()

        world.store.before = wait_for_the_push
        pull = asyncio.ensure_future(b.engine.pull())
        await asyncio.sleep(0)
        await b.engine.push()
        pushed.set()
        await pull
        world.store.before = None
        assert b.replica.state().dev == dev
        b.put("turn-3", "text")
        await b.engine.push()
        await a.engine.pull()
        assert a.texts == b.texts

    asyncio.run(story())


@pytest.mark.parametrize("space", [SPACE, VectorSpace("custom", "another-space", 3, "f4")])
def test_a_first_vector_that_comes_while_a_push_begins_goes_with_it_or_is_refused(
    world: World, space: VectorSpace
) -> None:
    async def story() -> None:
        a, b = world.device(), world.device(space=space)
        a.put("turn-1", "text")
        await a.engine.push()
        b.put("turn-2", "text", vector=None)
        state = b.replica.state

        def then_a_vector_comes() -> object:
            found = state()
            if found.pending is None and "turn-3" not in b.texts:
                b.put("turn-3", "text", vector=[1.0] * space.dim)
            return found

        b.replica.state = then_a_vector_comes  # type: ignore[assignment,method-assign]  # a verb
        if space == a.space:
            await b.engine.push()
            await a.engine.pull()
            assert set(a.texts) == {"turn-1", "turn-2", "turn-3"}
        else:
            with pytest.raises(ModelMismatchError):
                await b.engine.push()
            assert (await a.engine.pull()).received == 0

    asyncio.run(story())


def test_an_old_backup_does_not_use_the_numbers_of_a_device_that_was_retired(
    world: World,
) -> None:
    async def story() -> None:
        a, b = world.device(), world.device()
        backup = b.file.path.with_name("backup")
        b.file.release()
        backup.write_bytes(b.file.path.read_bytes())
        b.put("turn-1", "text")
        await b.engine.push()
        dev = b.replica.state().dev
        await a.engine.pull()
        a.put("turn-2", "text")
        a.engine._channel.policy = Policy(grace_ms=0, max_devices=1, retire_after_ms=0, max_crowd=1)
        for _ in range(2):
            a.put("turn-2", "text")
            await a.engine.push()
        restored = Device(backup, world.store, seed=78)
        world.devices.append(restored)
        restored.put("turn-3", "text")
        await restored.engine.push()
        assert restored.replica.state().dev != dev
        b.put("turn-4", "text")
        for device in (b, a, restored):
            await device.engine.sync()
        assert set(a.texts) == {"turn-1", "turn-2", "turn-3", "turn-4"}

    asyncio.run(story())


def test_inline_pushes_find_room_again_and_a_cold_open_stays_a_handful_of_requests(
    world: World,
) -> None:
    async def story() -> None:
        a, b = world.device(), world.device()
        for number in range(150):
            a.put(f"turn-{number}", noise(number, 400))
            report = await a.engine.push()
            assert report.requests <= 2 or number == 0
            while await a.engine.compact():
                pass
        cold = await b.engine.pull()
        # fmt, manifest and the entries
        assert cold.requests <= 2 + DEFAULT_POLICY.small_session_entries
        assert a.texts == b.texts
        a.delete("turn-7")
        await a.engine.push()
        b.put("turn-9", "changed")
        await b.engine.sync()
        await a.engine.sync()
        assert a.texts == b.texts
        assert len(a.texts) == 149

    asyncio.run(story())


@pytest.mark.parametrize("who", ["another device", "this device"])
def test_a_push_while_a_compaction_runs_is_not_held_up_and_both_are_kept(
    world: World, who: str
) -> None:
    async def story() -> None:
        a, b = world.device(), world.device()
        for number in range(15):
            a.put(f"turn-{number}", noise(number, 700))
            await a.engine.push()
        await b.engine.pull()
        pusher = b if who == "another device" else a
        pusher.put("meanwhile", "text")

        async def push_meanwhile(verb: str, key: str) -> None:
            if verb == "put" and "/b/" in key:
                world.store.before = None
                await pusher.engine.push()

        world.store.before = push_meanwhile
        assert await a.engine.compact() is True
        c = world.device()
        report = await c.engine.pull()
        assert report.requests <= 2 + DEFAULT_POLICY.small_session_entries
        await a.engine.pull()
        await b.engine.pull()
        assert a.texts == b.texts == c.texts
        assert len(c.texts) == 16

    asyncio.run(story())


def test_of_two_compactions_of_the_same_segments_one_is_kept_and_nothing_lost(
    world: World,
) -> None:
    async def story() -> None:
        a, b = world.device(), world.device()
        for number in range(15):
            a.put(f"turn-{number}", noise(number, 700))
            await a.engine.push()
        await b.engine.pull()

        async def compact_meanwhile(verb: str, key: str) -> None:
            if verb == "put" and "/b/" in key:
                world.store.before = None
                assert await b.engine.compact() is True

        world.store.before = compact_meanwhile
        assert await a.engine.compact() is False
        c = world.device()
        await c.engine.pull()
        await a.engine.pull()
        assert a.texts == c.texts
        assert len(c.texts) == 15

    asyncio.run(story())


def test_a_failed_exchange_says_what_it_had_done_and_cost(world: World) -> None:
    async def story() -> None:
        a = world.device()
        a.put("turn-1", "text")
        await a.engine.push()
        a.put("turn-2", "text")
        world.store.before = Once("swap", "/m/", NetworkError("unreachable"))
        with pytest.raises(MossError) as failure:
            await a.engine.push()
        assert failure.value.report is not None
        assert failure.value.report.sent == 0
        assert a.replica.state().dirty == 1

    asyncio.run(story())


def test_the_first_contact_with_an_empty_store_stays_within_fifty_two_requests(
    world: World,
) -> None:
    async def story() -> None:
        a = world.device()
        a.put("turn-1", "text")
        report = await a.engine.push()
        assert report.requests <= 52

    asyncio.run(story())


def test_two_devices_that_meet_an_empty_store_at_once_share_one_repository(world: World) -> None:
    async def story() -> None:
        a, b = world.device(), world.device()
        a.put("from-a", "text")
        b.put("from-b", "text")
        await asyncio.gather(a.engine.push(), b.engine.push())
        await a.engine.pull()
        await b.engine.pull()
        assert a.texts == b.texts == {"from-a": "text", "from-b": "text"}

    asyncio.run(story())


def test_a_pull_from_an_empty_store_writes_nothing_to_it(world: World) -> None:
    async def story() -> None:
        a = world.device()
        a.put("turn-1", "text")
        report = await a.engine.pull()
        assert report.requests == 2  # `fmt`, and whether it was only lost
        assert {verb for verb, _ in world.store.calls} == {"get", "keys"}
        await a.engine.push()
        assert a.replica.state().dirty == 0

    asyncio.run(story())
