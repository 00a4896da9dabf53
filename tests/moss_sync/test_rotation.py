"""Rotating the key: nothing is lost, nobody is locked out, and who was shut out learns it."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from moss_sync import (
    BlobCorruptError,
    ContentionError,
    ForkDetectedError,
    InvalidArgumentError,
    KeyRotatedError,
    NetworkError,
    NotFoundError,
    OutcomeUnknownError,
    StoreBusyError,
    StoreChangedError,
    UnauthorizedError,
    UnsupportedFormatError,
    epochs,
    features,
    keyring,
    manifest,
)
from moss_sync.channel import manifest_identity
from moss_sync.directory import list_sessions
from moss_sync.marks import continued
from moss_sync.rotation import rotate
from moss_sync.seal import SALT_BYTES, epoch_of, seal, unseal
from moss_sync.stores.base import Conflict, ETag, Swapped
from tests.devices import Device
from tests.moss_sync.rotating import (
    NEW,
    OLD,
    Crash,
    World,
    act,
    long_text,
    opened_world,
    quickly,
    turned,
)


@pytest.fixture(autouse=True)
def quick_keys(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    yield from quickly(monkeypatch)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    yield from opened_world(tmp_path)


# -- what a rotation does --------------------------------------------------------------------


def test_after_a_rotation_all_that_was_stored_is_read_and_what_is_new_takes_the_new_key(
    world: World,
) -> None:
    async def scenario() -> None:
        laptop = world.device("laptop")
        laptop.put("turn-1", long_text(1))
        await laptop.engine.push()
        keys_before = sorted(await world.blobs())
        assert await turned(laptop) == 2
        assert sorted(await world.blobs()) == keys_before  # nothing moves

        # The process that rotated goes on, and so does a new one with the new key.
        laptop.put("turn-2", long_text(2))
        await laptop.engine.push()
        phone = world.device("phone", NEW)
        await phone.engine.pull()
        assert phone.texts == {"turn-1": long_text(1), "turn-2": long_text(2)}
        sealed = [epoch_of(data) for key, data in (await world.blobs()).items() if "/s/" in key]
        assert sorted(str(epoch) for epoch in sealed) == ["1", "2"]
        current, blob = await world.manifest_of(phone)
        assert (epoch_of(blob), current.epoch) == (2, 2)
        assert [entry.epoch for entry in current.entries] == [1, 2]
        assert [entry.hi for entry in epochs.old_entries(current, 2)] == [1]
        assert [each.name for each in (await list_sessions(phone.repository)).sessions] == [
            "conv-123"
        ]

    act(scenario)


def test_the_key_alone_or_the_root_alone_can_be_rotated_any_number_of_times(world: World) -> None:
    async def scenario() -> None:
        laptop = world.device("laptop")
        laptop.put("turn-1", "hello")
        await laptop.engine.push()
        for number, key in enumerate([None, "second", None, "third"], start=2):
            assert await turned(laptop, key) == number
        assert laptop.repository.project_key == "third"
        for key in (OLD, "second"):
            with pytest.raises(UnauthorizedError, match="key epoch 5"):
                await world.device(f"with {key}", key).engine.pull()
        phone = world.device("phone", "third")
        await phone.engine.pull()
        assert phone.texts == {"turn-1": "hello"}

    act(scenario)


def test_a_device_with_the_right_key_and_an_old_fmt_refreshes_it_by_itself(world: World) -> None:
    async def scenario() -> None:
        laptop, phone = world.device("laptop"), world.device("phone")
        laptop.put("turn-1", "hello")
        await laptop.engine.push()
        await phone.engine.pull()
        await turned(laptop, None)
        # Nothing is sealed under the new key yet, so there is nothing to notice.
        world.store.calls.clear()
        await phone.engine.pull()
        assert len(world.store.calls) == 1
        laptop.put("turn-2", "more")
        await laptop.engine.push()
        world.store.calls.clear()
        await phone.engine.pull()
        assert len(world.store.calls) == 2  # the manifest, and fmt once
        assert phone.texts == {"turn-1": "hello", "turn-2": "more"}
        phone.put("turn-3", "and back")
        await phone.engine.push()
        assert epoch_of((await world.manifest_of(phone))[1]) == 2
        # And it stays refreshed.
        again = world.device("phone")
        assert (await again.repository.keys() or laptop.repository.opened).roots.newest == 2

    act(scenario)


def test_a_device_with_the_old_key_is_told_that_it_was_rotated_and_loses_nothing(
    world: World,
) -> None:
    async def scenario() -> None:
        laptop, phone = world.device("laptop"), world.device("phone")
        laptop.put("turn-1", "hello")
        await laptop.engine.push()
        await phone.engine.pull()
        phone.put("turn-2", "written with the old key")
        await turned(laptop)
        laptop.put("turn-3", "sealed under the new one")
        await laptop.engine.push()
        stored = await world.blobs()

        for work in (phone.engine.pull, phone.engine.push, phone.engine.sync):
            with pytest.raises(KeyRotatedError, match="rotated to") as caught:
                await work()
            assert "moss-local rotate-key --join" in (caught.value.hint or "")
        assert await world.blobs() == stored
        assert phone.texts == {"turn-1": "hello", "turn-2": "written with the old key"}
        assert phone.replica.state().dirty == 1
        # Also in a new process, which opens offline as ever.
        later = world.device("phone")
        await later.repository.check_key(contact=False)
        assert isinstance(await later.repository.rotation_seen(), KeyRotatedError)
        with pytest.raises(KeyRotatedError, match="rotated to"):
            await later.engine.pull()

        joined = world.device("phone", NEW)
        await joined.repository.check_key(contact=True)
        assert await joined.repository.rotation_seen() is None
        await joined.engine.sync()
        await laptop.engine.pull()
        assert laptop.texts == joined.texts
        assert sorted(joined.texts) == ["turn-1", "turn-2", "turn-3"]

    act(scenario)


def test_a_device_that_has_seen_a_rotation_writes_nothing_more_under_the_old_key(
    world: World,
) -> None:
    """Also to a session that nobody has pushed to since, whose manifest it could still replace."""

    async def scenario() -> None:
        laptop, phone = world.device("laptop"), world.device("phone")
        other = world.device("phone", session="conv-124")
        for device in (laptop, other):
            device.put("turn-1", "hello")
            await device.engine.push()
        await phone.engine.pull()
        await turned(laptop)
        laptop.put("turn-2", "under the new key")
        await laptop.engine.push()
        with pytest.raises(KeyRotatedError):
            await phone.engine.pull()

        later = world.device("phone", session="conv-124")
        later.put("turn-2", "late")
        stored = await world.blobs()
        for _ in range(2):
            with pytest.raises(KeyRotatedError):
                await later.engine.push()
        assert await world.blobs() == stored
        assert later.replica.state().dirty == 1

    act(scenario)


def test_a_rotation_that_a_store_has_made_up_is_forgotten_once_the_store_takes_it_back(
    world: World,
) -> None:
    async def scenario() -> None:
        laptop = world.device("laptop")
        laptop.put("turn-1", "hello")
        await laptop.engine.push()
        fmt, _ = await laptop.repository.read_fmt()
        made_up = keyring.rotate(
            fmt,
            laptop.repository.opened,
            bytes(32),
            fmt.kdf,
            fresh=bytes(keyring.rotation_bytes(fmt)),
        )
        await world.store.put(laptop.repository.layout.fmt, made_up.raw)
        with pytest.raises(KeyRotatedError):
            await laptop.repository.refresh()
        assert await world.device("laptop").repository.rotation_seen() is not None
        await world.store.put(laptop.repository.layout.fmt, fmt.raw)
        again = world.device("laptop")
        again.put("turn-2", "goes on")
        await again.engine.push()
        assert await world.device("laptop").repository.rotation_seen() is None

    act(scenario)


def test_a_key_that_was_never_right_is_no_key_of_before(world: World) -> None:
    async def scenario() -> None:
        laptop, phone = world.device("laptop"), world.device("phone")
        laptop.put("turn-1", "hello")
        await laptop.engine.push()
        await phone.repository.check_key(contact=True)
        await turned(laptop)
        for wrong in (world.device("phone", "a third"), world.device("fresh", OLD)):
            with pytest.raises(UnauthorizedError) as caught:
                await wrong.repository.check_key(contact=True)
            assert not isinstance(caught.value, KeyRotatedError)
            assert await wrong.repository.rotation_seen() is None

    act(scenario)


def test_a_known_device_takes_the_new_key_once_the_store_says_so_and_then_offline(
    world: World,
) -> None:
    async def scenario() -> None:
        laptop, phone = world.device("laptop"), world.device("phone")
        laptop.put("turn-1", "hello")
        await laptop.engine.push()
        await phone.repository.check_key(contact=True)
        await phone.engine.pull()
        await turned(laptop)

        async def away(verb: str, key: str) -> None:
            raise NetworkError("no route to the store")

        world.store.before = away
        with pytest.raises(UnauthorizedError):
            await world.device("phone", NEW).repository.check_key(contact=True)
        await world.device("phone", OLD).repository.check_key(contact=True)
        world.store.quiet()
        with pytest.raises(UnauthorizedError):
            await world.device("phone", "a third").repository.check_key(contact=True)
        await world.device("phone", NEW).repository.check_key(contact=True)
        world.store.before = away
        await world.device("phone", NEW).repository.check_key(contact=True)
        # The old one opens what is here for as long as nobody asks for more.
        outdated = world.device("phone", OLD)
        await outdated.repository.check_key(contact=True)
        assert isinstance(await outdated.repository.rotation_seen(), KeyRotatedError)
        world.store.quiet()
        for _ in range(2):
            with pytest.raises(KeyRotatedError, match="rotated to"):
                await outdated.engine.pull()

    act(scenario)


def test_a_session_created_from_an_old_fmt_is_sealed_under_the_newest_key(world: World) -> None:
    async def scenario() -> None:
        laptop = world.device("laptop")
        laptop.put("turn-1", "hello")
        await laptop.engine.push()
        await world.device("phone").engine.pull()
        await turned(laptop, None)
        other = world.device("phone", session="conv-124")
        assert (await other.repository.attach()).roots.newest == 1
        other.put("turn-1", "another thread")
        await other.engine.push()
        assert epoch_of((await world.manifest_of(other))[1]) == 2

    act(scenario)


@pytest.mark.parametrize("moved", [True, False], ids=["the session moved on", "it did not"])
def test_a_push_prepared_before_a_rotation_is_prepared_anew(world: World, moved: bool) -> None:
    """What it sealed under the old key is never listed, and collected; what it held is not lost."""

    async def scenario() -> None:
        laptop, phone = world.device("laptop"), world.device("phone")
        laptop.put("turn-1", "hello")
        await laptop.engine.push()
        await phone.engine.pull()
        phone.put("turn-2", long_text(2))

        async def dies(verb: str, key: str) -> None:
            if verb == "swap":
                raise Crash

        world.store.before = dies
        with pytest.raises(Crash):
            await phone.engine.push()
        world.store.quiet()
        await turned(laptop, None)
        if moved:
            laptop.put("turn-3", "first under the new key")
            await laptop.engine.push()
        phone = world.device("phone")
        await phone.repository.refresh()
        assert (await phone.engine.push()).sent == 1
        current, blob = await world.manifest_of(laptop)
        assert (epoch_of(blob), [entry.epoch for entry in current.entries]) == (2, [2])
        await laptop.engine.pull()
        assert set(laptop.texts) >= {"turn-1", "turn-2"}
        left = {key for key in await world.blobs() if "/s/" in key}
        assert len(left) == 2
        assert await laptop.engine.collect() == 1
        assert {key for key in await world.blobs() if "/s/" in key} == {
            laptop.repository.layout.blob(current.sid, current.entries[0].name)
        }
        assert not phone.replica.state().dirty

    act(scenario)


def test_exchanges_go_on_while_the_key_is_rotated(world: World) -> None:
    async def scenario() -> None:
        laptop = await prepared(world)

        async def in_turns(fn: Callable[..., Any], *args: Any) -> Any:
            await asyncio.sleep(0)
            return fn(*args)

        laptop.repository._run = in_turns
        rotating = asyncio.ensure_future(turned(laptop))
        number = 0
        while not rotating.done():
            laptop.put(f"turn-{number}", long_text(number))
            await laptop.engine.push()
            assert laptop.repository.roots.newest in (1, 2)
            await asyncio.sleep(0)
            number += 1
        assert await rotating == 2
        assert number > 1
        fresh = world.device("fresh", NEW)
        await fresh.engine.pull()
        assert fresh.texts == laptop.texts

    act(scenario)


def test_the_keys_are_there_at_every_moment_of_a_rotation(world: World) -> None:
    async def scenario() -> None:
        laptop = await prepared(world)

        async def watched(fn: Callable[..., Any], *args: Any) -> Any:
            assert laptop.repository.roots.newest in (1, 2)
            return fn(*args)

        laptop.repository._run = watched
        assert await turned(laptop) == 2

    act(scenario)


def test_an_empty_store_has_nothing_to_rotate_and_stays_empty(world: World) -> None:
    async def scenario() -> None:
        with pytest.raises(NotFoundError, match="no repository"):
            await turned(world.device("laptop"))
        assert await world.blobs() == {}

    act(scenario)


@pytest.mark.parametrize("key", ["", OLD, "half \ud800 a pair", 7])
def test_a_new_key_that_is_none_is_refused_before_anything_is_sent(world: World, key: str) -> None:
    async def scenario() -> None:
        laptop = world.device("laptop")
        laptop.put("turn-1", "hello")
        await laptop.engine.push()
        calls = len(world.store.calls)
        with pytest.raises(InvalidArgumentError):
            await turned(laptop, key)
        assert len(world.store.calls) == calls

    act(scenario)


# -- two at once -----------------------------------------------------------------------------


async def at_once(world: World, first: Device, second: Device, keys: Sequence[str | None]) -> Any:
    """Let both have read the old fmt before either swaps."""
    waiting, both = 0, asyncio.Event()

    async def barrier(verb: str, key: str) -> None:
        nonlocal waiting
        if verb == "swap" and key.endswith("/fmt") and not both.is_set():
            waiting += 1
            if waiting == 2:
                both.set()
            await both.wait()

    world.store.before = barrier
    results = await asyncio.gather(
        turned(first, keys[0]), turned(second, keys[1]), return_exceptions=True
    )
    world.store.quiet()
    return results


@pytest.mark.parametrize("keys", [(None, None), ("one", "two"), (None, "two"), ("one", None)])
def test_of_two_rotations_at_once_one_happens_and_the_other_is_told(
    world: World, keys: tuple[str | None, str | None]
) -> None:
    async def scenario() -> None:
        laptop, phone = world.device("laptop"), world.device("phone")
        laptop.put("turn-1", "hello")
        await laptop.engine.push()
        await phone.engine.pull()
        results = await at_once(world, laptop, phone, keys)
        winner = results.index(2)
        refused = results[1 - winner]
        new_key = keys[winner]
        # Where the key is still the same, the other may simply try again.
        assert type(refused) is (ContentionError if new_key is None else UnauthorizedError)
        assert "rotated" in str(refused)
        assert keyring.decode(await world.fmt()).newest == 2
        assert (phone, laptop)[winner].repository.project_key == OLD
        fresh = world.device("fresh", new_key or OLD)
        await fresh.engine.pull()
        assert fresh.texts == {"turn-1": "hello"}

    act(scenario)


def test_two_rotations_at_once_to_the_same_key_both_succeed(world: World) -> None:
    async def scenario() -> None:
        laptop, phone = world.device("laptop"), world.device("phone")
        laptop.put("turn-1", "hello")
        await laptop.engine.push()
        await phone.engine.pull()
        assert await at_once(world, laptop, phone, (NEW, NEW)) == [2, 2]
        for device in (laptop, phone):
            device.put(f"of {device.clock}", "more")
            await device.engine.sync()

    act(scenario)


def test_a_rotation_whose_answer_was_lost_is_known_again_under_a_later_one(world: World) -> None:
    """The root key made here is in fmt, so it was me, though fmt is no longer what I wrote."""

    async def scenario() -> None:
        laptop, phone = world.device("laptop"), world.device("phone")
        laptop.put("turn-1", "hello")
        await laptop.engine.push()
        await phone.engine.pull()

        async def lost(verb: str, key: str) -> None:
            if verb == "swap":
                world.store.quiet()
                assert await turned(phone, None) == 3
                raise OutcomeUnknownError("no answer")

        world.store.after = lost
        assert await turned(laptop, None) == 3
        assert laptop.repository.roots.newest == 3

    act(scenario)


# -- dying, and answers that do not come -----------------------------------------------------


async def prepared(world: World) -> Device:
    laptop = world.device("laptop")
    await laptop.repository.check_key(contact=True)
    laptop.put("turn-1", "hello")
    await laptop.engine.push()
    world.store.calls.clear()
    return laptop


async def check_and_finish(world: World, new_key: str) -> None:
    """One of the keys opens everything; the same call again ends the rotation."""
    opened = []
    for key in (OLD, new_key):
        fresh = world.device(f"fresh with {key} {len(world.open)}", key)
        try:
            await fresh.engine.pull()
        except UnauthorizedError:
            continue
        assert fresh.texts == {"turn-1": "hello"}
        opened.append(key)
    assert len(opened) == 1
    # On the device itself, whichever of the keys its user tries next.
    own = world.device("laptop", opened[0])
    await own.repository.check_key(contact=True)
    await own.engine.pull()
    again = world.device("laptop", OLD)
    await rotate(again.repository, again.clock, new_key)
    later = world.device("laptop", new_key)
    await later.repository.check_key(contact=True)
    later.put("turn-2", "sealed under the new key")
    await later.engine.sync()
    fresh = world.device(f"fresh at last {len(world.open)}", new_key)
    await fresh.engine.pull()
    assert sorted(fresh.texts) == ["turn-1", "turn-2"]
    with pytest.raises(UnauthorizedError):
        await world.device(f"old at last {len(world.open)}", OLD).engine.pull()


async def requests_of_a_rotation(directory: Path) -> int:
    counted = World(directory)
    laptop = await prepared(counted)
    await turned(laptop)
    for device in counted.open:
        device.close()
    return len(counted.store.calls)


@pytest.mark.parametrize("side", ["before", "after"])
@pytest.mark.parametrize(
    "error",
    [Crash(), OutcomeUnknownError("no answer"), StoreBusyError("slow down", retry_after=1.0)],
    ids=["crash", "lost answer", "busy"],
)
def test_a_rotation_that_dies_or_hears_nothing_at_any_request_leaves_one_key_that_opens(
    tmp_path: Path, side: str, error: BaseException
) -> None:
    async def scenario() -> None:
        (tmp_path / "counted").mkdir()
        total = await requests_of_a_rotation(tmp_path / "counted")
        assert total >= 3
        for at in range(total):
            directory = tmp_path / str(at)
            directory.mkdir()
            world = World(directory)
            laptop = await prepared(world)

            async def hook(verb: str, key: str, at: int = at, world: World = world) -> None:
                if len(world.store.calls) == at + 1:
                    raise error

            setattr(world.store, side, hook)
            with suppress(Crash, NetworkError):
                await turned(laptop)
            world.store.quiet()
            await check_and_finish(world, NEW)
            for device in world.open:
                device.close()

    act(scenario)


def test_a_crash_between_the_files_of_the_cache_leaves_one_key_that_opens(world: World) -> None:
    async def scenario() -> None:
        laptop = await prepared(world)
        save, cache = laptop.cache.save, laptop.cache

        def dying(name: str, data: bytes) -> None:
            if name == "key":
                raise Crash
            save(name, data)

        cache.save = dying  # type: ignore[method-assign]  # a disk that dies
        with pytest.raises(Crash):
            await turned(laptop)
        cache.save = save  # type: ignore[method-assign]  # and comes back
        await check_and_finish(world, NEW)

    act(scenario)


def test_a_swap_that_arrives_late_harms_nobody(world: World) -> None:
    async def scenario() -> None:
        laptop = await prepared(world)
        late: list[tuple[str, bytes, ETag | None]] = []
        swap = world.store.compare_and_swap

        async def delayed(key: str, data: bytes, *, etag: ETag | None) -> Swapped | Conflict:
            if not late:
                late.append((key, data, etag))
                raise OutcomeUnknownError("no answer")
            return await swap(key, data, etag=etag)

        world.store.compare_and_swap = delayed  # type: ignore[method-assign]  # its first is slow
        assert await turned(laptop) == 2
        [(key, data, etag)] = late
        done = await world.store.inner.compare_and_swap(key, data, etag=etag)
        assert isinstance(done, Conflict)
        await check_and_finish(world, NEW)

    act(scenario)


def test_a_store_that_falls_silent_leaves_the_outcome_open_and_says_so(world: World) -> None:
    async def scenario() -> None:
        laptop = await prepared(world)

        async def silent(verb: str, key: str) -> None:
            if verb == "swap":
                world.store.before = away
                raise OutcomeUnknownError("no answer")

        async def away(verb: str, key: str) -> None:
            raise NetworkError("no route to the store")

        world.store.after = silent
        with pytest.raises(OutcomeUnknownError, match="either the old key opens it or the new"):
            await turned(laptop)
        world.store.quiet()
        await check_and_finish(world, NEW)

    act(scenario)


# -- what was sealed before ------------------------------------------------------------------


def test_rewriting_leaves_nothing_listed_that_the_old_keys_open(world: World) -> None:
    async def scenario() -> None:
        laptop = world.device("laptop")
        old_keys = await laptop.repository.attach()
        for number in range(3):
            laptop.put(f"long-{number}", long_text(number))
            await laptop.engine.push()
        laptop.put("short", "rides in the manifest")
        await laptop.engine.push()
        laptop.delete("long-0")
        await laptop.engine.push()
        assert await laptop.engine.rewrite() == 0  # there was no rotation
        await turned(laptop)
        assert await laptop.engine.rewrite() >= 1
        assert await laptop.engine.rewrite() == 0

        fresh = world.device("fresh", NEW)
        await fresh.engine.pull()
        assert fresh.texts == laptop.texts
        current, sealed = await world.manifest_of(fresh)
        assert not epochs.is_old(current, 2)
        blobs = await world.blobs()
        listed = [
            blobs[fresh.repository.layout.blob(current.sid, each.name)] for each in current.entries
        ]
        assert listed
        for blob in [sealed, *listed]:
            assert epoch_of(blob) == 2
            with pytest.raises(BlobCorruptError, match="key epoch 2"):
                unseal(
                    old_keys.roots,
                    manifest_identity(old_keys, current.sid),
                    blob,
                    max_plain=2**25,
                )

    act(scenario)


def test_rewriting_goes_on_when_others_commit_meanwhile(world: World) -> None:
    async def scenario() -> None:
        laptop, phone = world.device("laptop"), world.device("phone")
        laptop.put("turn-1", long_text(1))
        await laptop.engine.push()
        await phone.engine.pull()
        await turned(laptop, None)
        once = iter([None])

        async def meanwhile(verb: str, key: str) -> None:
            if verb == "put" and "/b/" in key and next(once, 0) is None:
                phone.put("turn-2", "from the phone")
                await phone.engine.push()

        world.store.before = meanwhile
        assert await laptop.engine.rewrite() >= 1
        world.store.quiet()
        current, _ = await world.manifest_of(laptop)
        assert not epochs.is_old(current, 2)
        await laptop.engine.pull()
        assert sorted(laptop.texts) == ["turn-1", "turn-2"]

    act(scenario)


def test_a_session_that_nobody_ever_pushed_needs_no_rewriting(world: World) -> None:
    async def scenario() -> None:
        laptop = world.device("laptop")
        assert await laptop.engine.rewrite() == 0
        assert await world.blobs() == {}

    act(scenario)


async def forged(world: World, device: Device, keys: keyring.Keys, **changes: Any) -> None:
    """Write the next manifest under the keys of before, as somebody who was shut out would."""
    current, sealed = await world.manifest_of(device)
    following = replace(
        current,
        seq=current.seq + 1,
        prev=manifest.ciphertext_hash(sealed),
        marks=continued(
            current.seq, current.marks, manifest.ciphertext_hash(sealed), current.seq + 1
        ),
        **changes,
    )
    blob = seal(
        keys.roots,
        manifest_identity(keys, current.sid),
        manifest.encode(following),
        salt=bytes(SALT_BYTES),
    )
    await world.store.inner.put(device.repository.layout.manifest(current.sid), blob)


@pytest.mark.parametrize(("said", "refusal"), [(1, ForkDetectedError), (2, BlobCorruptError)])
def test_a_manifest_written_with_the_old_keys_after_the_new_ones_is_refused(
    world: World, said: int, refusal: type[Exception]
) -> None:
    async def scenario() -> None:
        laptop = world.device("laptop")
        laptop.put("turn-1", "hello")
        await laptop.engine.push()
        shut_out = laptop.repository.opened
        await turned(laptop)
        laptop.put("turn-2", "more")
        await laptop.engine.push()
        await forged(world, laptop, shut_out, epoch=said)
        texts = laptop.texts
        with pytest.raises(refusal, match="epoch 1"):
            await laptop.engine.pull()
        assert laptop.texts == texts

    act(scenario)


def test_a_blob_that_claims_a_newer_epoch_costs_one_look_at_fmt_and_is_corrupt(
    world: World,
) -> None:
    async def scenario() -> None:
        laptop, phone = world.device("laptop"), world.device("phone")
        laptop.put("turn-1", "hello")
        await laptop.engine.push()
        await phone.engine.pull()
        _, sealed = await world.manifest_of(laptop)
        key = laptop.repository.layout.manifest(laptop.engine._channel.sid(phone.repository.opened))
        await world.store.inner.put(key, sealed[:8] + struct.pack(">I", 2**32 - 1) + sealed[12:])
        world.store.calls.clear()
        with pytest.raises(BlobCorruptError, match="which this device"):
            await phone.engine.pull()
        assert len(world.store.calls) == 2

    act(scenario)


# -- a bucket that was emptied, or restored ---------------------------------------------------


async def emptied(world: World) -> None:
    for key in await world.blobs():
        await world.store.inner.delete(key)


def test_an_emptied_store_gets_its_keys_back_from_any_device_that_knows_them(world: World) -> None:
    async def scenario() -> None:
        laptop = world.device("laptop")
        laptop.put("turn-1", "hello")
        await laptop.engine.push()
        await turned(laptop)
        before = await world.fmt()
        await emptied(world)
        later = world.device("laptop", NEW)
        assert (await later.repository.mend()).restored
        assert await world.fmt() == before
        assert not (await later.repository.mend()).restored  # it is there now
        assert later.repository.layout.probe in await world.blobs()
        assert later.repository.roots.newest == 2

    act(scenario)


def test_who_knows_no_keys_restores_nothing(world: World) -> None:
    async def scenario() -> None:
        with pytest.raises(NotFoundError, match="remembers no keys") as caught:
            await world.device("laptop").repository.mend()
        assert "moss-local repair" in (caught.value.hint or "")
        assert await world.blobs() == {}

    act(scenario)


def test_another_repository_in_the_store_is_left_alone(world: World) -> None:
    async def scenario() -> None:
        laptop = world.device("laptop")
        laptop.put("turn-1", "hello")
        await laptop.engine.push()
        await emptied(world)
        other = world.device("other")
        other.put("turn-1", "of another repository")
        await other.engine.push()
        before = await world.blobs()
        with pytest.raises(StoreChangedError, match="another repository"):
            await world.device("laptop").repository.mend()
        assert {key: data for key, data in (await world.blobs()).items() if "probe" not in key} == {
            key: data for key, data in before.items() if "probe" not in key
        }

    act(scenario)


@pytest.mark.parametrize("side", ["before", "after"])
@pytest.mark.parametrize(
    "error", [Crash(), OutcomeUnknownError("no answer")], ids=["crash", "lost answer"]
)
def test_a_restoration_that_dies_or_hears_nothing_can_be_repeated(
    world: World, side: str, error: BaseException
) -> None:
    async def scenario() -> None:
        laptop = world.device("laptop")
        laptop.put("turn-1", "hello")
        await laptop.engine.push()
        before = await world.fmt()
        await emptied(world)

        async def hook(verb: str, key: str) -> None:
            if verb == "swap" and key.endswith("/fmt"):
                world.store.quiet()
                raise error

        setattr(world.store, side, hook)
        try:
            assert (await laptop.repository.mend()).restored
        except Crash:
            assert (await world.device("laptop").repository.mend()).restored == (side == "before")
        assert await world.fmt() == before

    act(scenario)


def test_keys_of_before_a_rotation_are_noticed_and_replaced_by_newer_ones(world: World) -> None:
    async def scenario() -> None:
        laptop = world.device("laptop")
        laptop.put("turn-1", "hello")
        await laptop.engine.push()
        backup = await world.fmt()
        await turned(laptop, None)
        after = await world.fmt()
        await world.store.inner.put(laptop.repository.layout.fmt, backup)
        with pytest.raises(
            StoreChangedError, match="epoch 1 and the floor 1, after 2 and 1"
        ) as caught:
            await laptop.repository.refresh()
        assert "moss-local repair" in (caught.value.hint or "")
        with pytest.raises(StoreChangedError):
            await turned(laptop)
        new = world.device("laptop", session="conv-124")
        new.put("turn-1", "another")
        with pytest.raises(StoreChangedError):
            await new.engine.push()
        assert (await laptop.repository.mend()).restored
        assert await world.fmt() == after
        await new.engine.push()

    act(scenario)


def test_a_device_that_knows_older_keys_restores_nothing_over_newer_ones(world: World) -> None:
    async def scenario() -> None:
        laptop, phone = world.device("laptop"), world.device("phone")
        laptop.put("turn-1", "hello")
        await laptop.engine.push()
        await phone.engine.pull()
        await turned(laptop, None)
        after = await world.fmt()
        assert not (await phone.repository.mend()).restored
        assert await world.fmt() == after
        assert phone.repository.roots.newest == 2

    act(scenario)


def test_other_keys_under_the_same_number_are_another_repository(world: World) -> None:
    """Restored from a backup and then rotated by somebody else: nobody can be right about both."""

    async def scenario() -> None:
        laptop, phone = world.device("laptop"), world.device("phone")
        laptop.put("turn-1", "hello")
        await laptop.engine.push()
        await phone.engine.pull()
        backup = await world.fmt()
        await turned(laptop, None)
        await world.store.inner.put(laptop.repository.layout.fmt, backup)
        await turned(phone, None)
        with pytest.raises(StoreChangedError, match="other keys than before"):
            await laptop.repository.refresh()

    act(scenario)


# -- features of later versions --------------------------------------------------------------


async def upgraded(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commit, as a later version would, a manifest that asks writers for a feature."""
    channel, keys = device.engine._channel, device.repository.opened
    found = await channel.read_manifest(keys, device.replica.state())
    assert found is not None
    current, seen = found
    with monkeypatch.context() as later:
        later.setattr(features, "WRITER_FEATURES", frozenset({"later"}))
        following = replace(
            current,
            seq=current.seq + 1,
            prev=seen.hash,
            features_w=("later",),
            marks=continued(current.seq, current.marks, seen.hash, current.seq + 1),
        )
        assert await channel.write_manifest(keys, following, seen) is not None


def test_a_stale_writer_cannot_commit_past_an_upgrade_of_its_session(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        laptop, phone = world.device("laptop"), world.device("phone")
        laptop.put("turn-1", "hello")
        await laptop.engine.push()
        await phone.engine.pull()
        await upgraded(laptop, monkeypatch)
        upgrade = (await world.manifest_of(laptop))[1]
        # The phone has not read since: it writes on top of the manifest that it remembers.
        phone.put("turn-2", "of an older version")
        with pytest.raises(UnsupportedFormatError, match="'later'") as caught:
            await phone.engine.push()
        assert "only read" in (caught.value.hint or "")
        assert (await world.manifest_of(laptop))[1] == upgrade
        await phone.engine.pull()
        assert phone.replica.state().dirty == 1
        assert phone.texts == {"turn-1": "hello", "turn-2": "of an older version"}

    act(scenario)


def test_no_path_writes_to_a_session_that_needs_a_later_writer(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        laptop = world.device("laptop")
        for number in range(6):  # enough to be compacted
            laptop.put(f"turn-{number}", long_text(number))
            await laptop.engine.push()
        await upgraded(laptop, monkeypatch)
        await turned(laptop, None)  # of the repository, which asks for nothing
        await laptop.engine.pull()
        stored = await world.blobs()
        laptop.put("turn-7", "more")
        for work in (laptop.engine.push, laptop.engine.compact, laptop.engine.rewrite):
            with pytest.raises(UnsupportedFormatError, match="'later'"):
                await work()
        assert await world.blobs() == stored
        # The last line of defence: whatever a path forgets, the commit itself asks.
        state = laptop.replica.state()
        known = laptop.engine._channel.remembered(state)
        assert known is not None
        with pytest.raises(UnsupportedFormatError, match="'later'"):
            await laptop.engine._channel.write_manifest(laptop.repository.opened, *known)

    act(scenario)


async def demanding(world: World, device: Device, **lists: list[str]) -> None:
    """Make the store's fmt ask for features, as a later version's rotation would."""
    fmt = keyring.decode(await world.fmt())
    fields = keyring._fields(fmt)
    fields.update(lists)
    kek = await device.repository.kek(fmt.kdf)
    fields["check"] = keyring._wrap(kek, bytes(12), b"", fmt.repo_id, keyring._header(fields))
    await world.store.inner.put(device.repository.layout.fmt, keyring._framed(fields))


def test_no_path_writes_to_a_repository_that_needs_a_later_writer(world: World) -> None:
    async def scenario() -> None:
        laptop = world.device("laptop")
        laptop.put("turn-1", "hello")
        await laptop.engine.push()
        await demanding(world, laptop, feat_w=["later"])
        await world.store.inner.delete(laptop.repository.layout.probe)
        stored = await world.blobs()
        phone = world.device("phone")
        await phone.engine.pull()
        assert phone.texts == {"turn-1": "hello"}
        phone.put("turn-2", "more")
        for work in (phone.engine.push, lambda: turned(phone), phone.engine.repair):
            with pytest.raises(UnsupportedFormatError, match="'later'"):
                await work()
        assert await world.blobs() == stored

    act(scenario)


def test_setting_up_a_store_that_a_later_version_sets_up_meanwhile_writes_nothing(
    world: World,
) -> None:
    async def scenario() -> None:
        laptop, phone = world.device("laptop"), world.device("phone")

        async def meanwhile(verb: str, key: str) -> None:
            if verb == "swap" and key.endswith("/fmt"):
                world.store.quiet()
                await laptop.repository.attach()
                await demanding(world, laptop, feat_w=["later"])
                await world.store.inner.delete(laptop.repository.layout.probe)

        phone.put("turn-1", "hello")
        world.store.before = meanwhile
        with pytest.raises(UnsupportedFormatError, match="'later'"):
            await phone.engine.push()
        assert list(await world.blobs()) == [phone.repository.layout.fmt]

    act(scenario)


def test_a_repository_that_needs_a_later_reader_is_not_read_and_the_feature_is_named(
    world: World,
) -> None:
    async def scenario() -> None:
        laptop = world.device("laptop")
        laptop.put("turn-1", "hello")
        await laptop.engine.push()
        await demanding(world, laptop, feat_r=["zz", "later"])
        phone = world.device("phone")
        with pytest.raises(UnsupportedFormatError, match="'later'"):
            await phone.engine.pull()
        assert phone.texts == {}
        with pytest.raises(UnsupportedFormatError, match="'later'"):
            await turned(laptop)

    act(scenario)
