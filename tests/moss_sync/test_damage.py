"""Every blob damaged in every way: the command that a user is told mends it, and loses nothing.

Each case damages one blob, repairs on a device that holds the session and has an edit that it has
not pushed, and then reads everything on a new device. What the damage has taken away for good, and
only another device holds, comes back with that device's next exchange.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial

import pytest

from moss_sync import BlobMissingError, MossError, NotFoundError, UnsupportedFormatError, keyring
from moss_sync.commit import Commit
from tests.devices import Device
from tests.moss_sync.world import World, noise

Damage = Callable[[bytes], bytes | None]

BYTES = 128


def flipped(at: int, whole: bytes) -> bytes:
    """Return the blob with one bit of the byte `at` changed; each byte another bit."""
    changed = bytearray(whole)
    changed[at] ^= 1 << (at * 5 + at // 8) % 8
    return bytes(changed)


def cut(size: int, whole: bytes) -> bytes:
    return whole[:size]


def damages(whole: bytes) -> Iterator[tuple[str, Damage]]:
    for at in (*range(12), *range(12, 76, 8), *range(76, 86), *range(86, BYTES, 8)):
        yield f"bit of byte {at}", partial(flipped, at)
    for size in (0, 1, 4, 5, 12, 50, 84, 85, 99, 100, len(whole) // 2, -1):
        yield f"cut to {size}", partial(cut, size)
    yield "zeros", lambda data: bytes(len(data))
    yield "something behind it", lambda data: data + b"\0"
    yield "removed", lambda data: None


async def put(world: World, key: str, data: bytes | None) -> None:
    if data is None:
        await world.store.inner.delete(key)
    else:
        await world.store.inner.put(key, data)


async def session(world: World) -> tuple[Device, Device]:
    """Two devices, of which each has pushed a segment."""
    one, two = world.device_here(), world.device_here()
    one.put("one", noise(1, 9000))
    await one.engine.push()
    await two.engine.pull()
    two.put("two", noise(2, 9000))
    await two.engine.push()
    await one.engine.pull()
    return one, two


def keys(world: World, part: str) -> list[str]:
    return sorted(key for key in world.store.inner._content.blobs if part in key)


async def listed(world: World, device: Device, part: str) -> str:
    """Return the key of a blob of one kind that the session needs."""
    if part not in ("/s/", "/b/"):
        [key] = [key for key in keys(world, part) if "/aside/" not in key]
        return key
    names = [entry.name for entry in (await device.manifest()).entries]
    found = [key for key in keys(world, part) if key.endswith(tuple(names))]
    return found[-1]


@pytest.mark.parametrize("part", ["/fmt", "/m/", "/s/", "/b/"])
def test_a_blob_damaged_in_any_way_is_mended_by_a_repair_for_this_device_and_a_new_one(
    world: World, part: str
) -> None:
    async def story() -> None:
        one, _ = await session(world)
        if part == "/b/":
            await one.engine.erase()
        key = await listed(world, one, part)
        for number, (what, damage) in enumerate(damages(await world.blob(key))):
            one.put("edit", f"not pushed {number}")
            key = await listed(world, one, part)
            whole = await world.blob(key)
            damaged = damage(whole)
            await put(world, key, damaged)
            try:
                report = await one.engine.repair(force=False)
                fresh = world.device_here()
                await fresh.engine.pull()
            except MossError as error:
                error.add_note(f"{part} with {what}")
                raise
            expected = {"one", "two", "edit"}
            assert one.texts.keys() == fresh.texts.keys() == expected, (part, what)
            assert fresh.texts["edit"] == f"not pushed {number}", (part, what)
            assert (report.keys_restored, report.rebuilt) == (part == "/fmt", part != "/fmt"), what
            if damaged is None:
                assert report.aside == ()
            else:
                [aside] = report.aside
                assert await world.blob(aside) == damaged, (part, what)
            fresh.close()
            world.devices.remove(fresh)
            if part == "/b/":
                await one.engine.erase()
            elif part == "/s/":
                one.put("one", noise(number + 10, 9000))
                await one.engine.push()

    asyncio.run(story())


@pytest.mark.parametrize("part", ["/fmt", "/m/", "/s/"])
def test_what_only_another_device_holds_comes_back_with_its_next_exchange(
    world: World, part: str
) -> None:
    async def story() -> None:
        one, two = await session(world)
        two.put("late", noise(3, 9000))
        await two.engine.push()
        for key in keys(world, part):
            await world.store.inner.put(key, flipped(40, await world.blob(key)))
        await one.engine.repair(force=False)
        await two.engine.sync()
        fresh = world.device_here()
        for device in (fresh, one):
            await device.engine.pull()
            assert device.texts.keys() == {"one", "two", "late"}

    asyncio.run(story())


@pytest.mark.parametrize("verb", ["erase", "delete"])
def test_what_a_repair_set_aside_goes_when_the_session_is_erased_or_deleted(
    world: World, verb: str
) -> None:
    async def story() -> None:
        one, _ = await session(world)
        other = world.device_here(session="other")
        other.put("other", noise(5, 9000))
        await other.engine.push()
        for device in (one, other):
            sid = device.engine._channel.sid(await device.repository.attach())
            for part in (f"/m/{sid}", f"/{sid}/s/"):
                key = [each for each in keys(world, part) if "/aside/" not in each][-1]
                await world.store.inner.put(key, flipped(40, await world.blob(key)))
                await device.engine.repair(force=False)
        fmt = one.repository.layout.fmt
        await world.store.inner.put(fmt, flipped(40, await world.blob(fmt)))
        await one.engine.repair(force=False)
        assert len(keys(world, "/aside/")) == 5
        await getattr(one.engine, verb)()
        left = [key.split("/")[-2] for key in keys(world, "/aside/")]
        theirs = other.engine._channel.sid(await other.repository.attach())
        assert sorted(left) == sorted([theirs, theirs, "aside"])

    asyncio.run(story())


# -- a store that seems empty --------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["pull", "push"])
@pytest.mark.parametrize("commit", ["cas", "log"])
def test_a_new_device_makes_no_second_project_where_the_first_one_s_keys_are_gone(
    world: World, verb: str, commit: Commit
) -> None:
    async def story() -> None:
        one, _ = await session(world)
        await world.store.inner.delete(one.repository.layout.fmt)
        blobs = dict(world.store.inner._content.blobs)
        fresh = world.device(commit=commit)
        engine = fresh.log if commit == "log" else fresh.engine
        fresh.put("new", "text")
        if (verb, commit) != ("pull", "log"):  # where `fmt` may be on its way, one waits for it
            with pytest.raises(BlobMissingError, match="not their keys") as caught:
                await (engine.push() if verb == "push" else engine.pull())
            assert "moss-local repair" in (caught.value.hint or "")
        assert world.store.inner._content.blobs == blobs
        with pytest.raises(BlobMissingError, match="not their keys"):
            await world.device().engine.repair()
        assert world.store.inner._content.blobs == blobs
        assert (await one.engine.repair(force=False)).keys_restored
        if commit == "cas":
            await fresh.engine.sync()
            assert fresh.texts.keys() == {"one", "two", "new"}

    asyncio.run(story())


def test_what_a_probe_left_behind_is_no_project(world: World) -> None:
    async def story() -> None:
        one = world.device()
        for name in ("0", "z"):
            await world.store.inner.put(f"{one.repository.layout.prefix}_probe/{name}", b"x")
        one.put("one", "text")
        await one.engine.push()

    asyncio.run(story())


def test_who_loses_the_race_for_setting_up_goes_on_in_the_other_s_project(world: World) -> None:
    async def story() -> None:
        one, two = world.device(), world.device()

        async def meanwhile(verb: str, key: str) -> None:
            if verb == "keys":
                world.store.before = None
                one.put("one", "text")
                await one.engine.push()

        world.store.before = meanwhile
        two.put("two", "text")
        await two.engine.push()
        await one.engine.pull()
        assert one.texts.keys() == {"one", "two"}

    asyncio.run(story())


def test_a_log_that_lost_its_keys_gets_the_same_ones_from_any_device(world: World) -> None:
    async def story() -> None:
        one, two = world.device(commit="log"), world.device(commit="log")
        one.put("one", "text")
        await one.log.push()
        fmt = one.repository.layout.fmt
        whole = await world.blob(fmt)
        await world.store.inner.delete(fmt)
        two.put("two", "text")
        await two.log.push()
        assert await world.blob(fmt) == whole
        await two.log.pull()
        assert two.texts.keys() == {"one", "two"}

    asyncio.run(story())


@pytest.mark.parametrize("damage", ["flipped", "emptied"])
def test_a_new_device_is_told_where_damaged_keys_can_be_put_back(world: World, damage: str) -> None:
    async def story() -> None:
        one, _ = await session(world)
        fmt = one.repository.layout.fmt
        whole = await world.blob(fmt)
        await world.store.inner.put(fmt, b"" if damage == "emptied" else flipped(9, whole))
        for verb in ("pull", "push", "repair"):
            fresh = world.device()
            with pytest.raises(MossError) as caught:
                await getattr(fresh.engine, verb)()
            assert "moss-local repair --all" in (caught.value.hint or "")

    asyncio.run(story())


# -- keys that somebody made up ------------------------------------------------------------------


def made_up(whole: bytes, **changes: object) -> bytes:
    """Return a `fmt` whose checksum is right, as whoever may write to the store can make it."""
    fields = keyring._unpacked(whole)
    return keyring._framed({**fields, **changes})


FORGED: dict[str, Callable[[bytes], bytes]] = {
    "a feature": lambda whole: made_up(whole, feat_r=["invented"]),
    "a writer's feature": lambda whole: made_up(whole, feat_w=["invented"]),
    "another salt": lambda whole: made_up(
        whole, kdf={**keyring._unpacked(whole)["kdf"], "salt": bytes(16)}
    ),
    "another function": lambda whole: made_up(
        whole, kdf={**keyring._unpacked(whole)["kdf"], "name": "argon3"}
    ),
    "another check": lambda whole: made_up(whole, check=bytes(keyring.CHECK_BYTES)),
    "another name key": lambda whole: made_up(whole, names=bytes(keyring.WRAPPED_BYTES)),
    "another root key": lambda whole: made_up(whole, epochs={1: bytes(keyring.WRAPPED_BYTES)}),
    "another kind": lambda whole: made_up(whole, commit="log"),
    "a later major": lambda whole: framed(whole[:4] + b"\2" + whole[5 : -keyring.CHECKSUM_BYTES]),
}


def framed(frame: bytes) -> bytes:
    return frame + keyring._checksum(frame)


@pytest.mark.parametrize("forged", FORGED)
def test_keys_that_no_holder_of_the_project_key_made_are_replaced(
    world: World, forged: str
) -> None:
    async def story() -> None:
        one, _ = await session(world)
        fmt = one.repository.layout.fmt
        whole = await world.blob(fmt)
        changed = FORGED[forged](whole)
        await world.store.inner.put(fmt, changed)
        later = world.device(cache=one.cache)  # this device's next process
        report = await later.engine.repair(force=False)
        assert report.keys_restored
        [aside] = report.aside
        assert await world.blob(aside) == changed
        assert await world.blob(fmt) == whole
        fresh = world.device()
        await fresh.engine.pull()
        assert fresh.texts.keys() == {"one", "two"}

    asyncio.run(story())


def test_keys_that_a_later_version_has_changed_are_left_alone(world: World) -> None:
    async def story() -> None:
        one, _ = await session(world)
        fmt = one.repository.layout.fmt
        whole = await world.blob(fmt)
        fields = {**keyring._unpacked(whole), "feat_r": ["later"]}
        kek = await one.repository.kek(keyring.decode(whole).kdf)
        fields["check"] = keyring._wrap(
            kek, bytes(12), b"", fields["repo_id"], keyring._header(fields)
        )
        later = keyring._framed(fields)
        await world.store.inner.put(fmt, later)
        with pytest.raises(UnsupportedFormatError, match="'later'"):
            await one.engine.repair()
        assert await world.blob(fmt) == later
        assert not keys(world, "/aside/")

    asyncio.run(story())


def by_member(kek: bytes, whole: bytes, **changes: object) -> bytes:
    """Return a `fmt` that whoever has the project key can make: all of it is checked."""
    fields = {**keyring._unpacked(whole), **changes}
    fields["check"] = keyring._wrap(kek, bytes(12), b"", fields["repo_id"], keyring._header(fields))
    return keyring._framed(fields)


def wrapped(kek: bytes, whole: bytes, role: str) -> bytes:
    return keyring._wrap(kek, bytes(12), b"k" * 32, keyring.decode(whole).repo_id, role)


MADE_BY_A_MEMBER: dict[str, Callable[[bytes, bytes], bytes]] = {
    "a reader's feature": lambda kek, whole: by_member(kek, whole, feat_r=["invented"]),
    "a writer's feature": lambda kek, whole: by_member(kek, whole, feat_w=["invented"]),
    "something unknown": lambda kek, whole: by_member(kek, whole, feat_r=["x"], later=[1] * 100),
    "another function": lambda kek, whole: by_member(
        kek, whole, kdf={**keyring._unpacked(whole)["kdf"], "name": "argon3"}
    ),
    "another way to commit": lambda kek, whole: by_member(kek, whole, commit="log"),
    "a way that nobody knows": lambda kek, whole: by_member(kek, whole, commit="later"),
    "another key of names": lambda kek, whole: by_member(
        kek, whole, names=wrapped(kek, whole, "names")
    ),
    "another root key": lambda kek, whole: by_member(
        kek, whole, epochs={1: wrapped(kek, whole, "epoch 1")}
    ),
}


@pytest.mark.parametrize("seen", [False, True])
@pytest.mark.parametrize("made", MADE_BY_A_MEMBER)
def test_what_a_member_did_to_the_keys_has_a_way_out_that_must_be_asked_for(
    world: World, made: str, seen: bool
) -> None:
    async def story() -> None:
        one, _ = await session(world)
        one.put("edit", "not pushed")
        fmt = one.repository.layout.fmt
        whole = await world.blob(fmt)
        kek = await one.repository.kek(keyring.decode(whole).kdf)
        changed = MADE_BY_A_MEMBER[made](kek, whole)
        await world.store.inner.put(fmt, changed)
        if seen:
            with suppress(MossError):
                await one.repository.refresh()
            with suppress(MossError):
                await one.engine.sync()
        with pytest.raises(MossError) as caught:
            await one.engine.repair(force=False)
        assert "moss-local repair --drop-unknown" in (caught.value.hint or "")
        report = await one.engine.repair(force=False, drop_unknown=True)
        assert report.keys_restored
        assert await world.blob(report.aside[0]) == changed
        fresh = world.device_here()
        await fresh.engine.sync()
        assert fresh.texts.keys() == {"one", "two", "edit"}
        for device in (one, fresh):
            assert (await device.engine.repair(force=False, drop_unknown=True)).aside == ()

    asyncio.run(story())


@pytest.mark.parametrize("seen", [False, True])
def test_keys_of_a_rotation_that_never_was_have_a_way_out_that_must_be_asked_for(
    world: World, seen: bool
) -> None:
    async def story() -> None:
        one, _ = await session(world)
        one.put("edit", "not pushed")
        fmt = one.repository.layout.fmt
        whole = await world.blob(fmt)
        epochs = {**keyring._unpacked(whole)["epochs"], 2: bytes(keyring.WRAPPED_BYTES)}
        changed = made_up(whole, epochs=epochs)
        await world.store.inner.put(fmt, changed)
        if seen:
            with pytest.raises(MossError):
                await one.repository.refresh()
            with pytest.raises(MossError):
                await one.engine.sync()
            assert await one.repository.rotation_seen() is not None
        with pytest.raises(MossError) as caught:
            await one.engine.repair(force=False)
        assert "moss-local repair --drop-unknown --all" in (caught.value.hint or "")
        assert await world.blob(fmt) == changed
        report = await one.engine.repair(force=False, drop_unknown=True)
        [aside] = report.aside
        assert await world.blob(aside) == changed
        assert await world.blob(fmt) == whole
        assert await one.repository.rotation_seen() is None
        fresh = world.device_here()
        await fresh.engine.pull()
        assert fresh.texts.keys() == {"one", "two", "edit"}

    asyncio.run(story())


@pytest.mark.parametrize("damage", ["flipped", "emptied"])
def test_a_session_that_nobody_has_seen_whole_is_begun_anew_when_that_is_asked_for(
    world: World, damage: str
) -> None:
    async def story() -> None:
        one, two = await session(world)
        manifest = await listed(world, one, "/m/")
        await put(
            world, manifest, b"" if damage == "emptied" else flipped(90, await world.blob(manifest))
        )
        three = world.device_here()
        three.put("three", "not pushed")
        with pytest.raises(NotFoundError) as caught:
            await three.engine.repair(force=False)
        assert "moss-local repair --drop-unknown conv-123" in (caught.value.hint or "")
        report = await three.engine.repair(force=False, drop_unknown=True)
        assert report.rebuilt
        assert len(report.aside) == 1
        assert three.texts.keys() == {"three"}
        fresh = world.device_here()
        await fresh.engine.pull()
        assert fresh.texts.keys() == {"three"}
        one.put("edit", "not pushed")
        for device in (one, two, three, fresh):  # who holds it after all adds it again
            await device.engine.sync()
        for device in (one, two, three, fresh):
            await device.engine.sync()
            assert device.texts.keys() == {"one", "two", "three", "edit"}

    asyncio.run(story())


# -- a log ---------------------------------------------------------------------------------------


async def log_session(world: World) -> tuple[Device, Device]:
    """Two devices of a log, of which each has pushed."""
    one, two = world.device_here(commit="log"), world.device_here(commit="log")
    one.put("one", noise(1))
    await one.log.push()
    await two.log.pull()
    two.put("two", noise(2))
    await two.log.push()
    await one.log.pull()
    return one, two


@pytest.mark.parametrize("part", ["/fmt", "/l/", "/m/"])
def test_a_blob_of_a_log_damaged_in_any_way_is_mended_by_a_repair(world: World, part: str) -> None:
    async def story() -> None:
        one, _ = await log_session(world)
        [*_, key] = [key for key in keys(world, part) if "/aside/" not in key]
        for number, (what, damage) in enumerate(damages(await world.blob(key))):
            one.put("edit", f"not pushed {number}")
            [*_, key] = [key for key in keys(world, part) if "/aside/" not in key]
            damaged = damage(await world.blob(key))
            await put(world, key, damaged)
            try:
                report = await one.log.repair(force=False)
                fresh = world.device_here(commit="log")
                await fresh.log.pull()
            except MossError as error:
                error.add_note(f"{part} with {what}")
                raise
            expected = {"one", "two", "edit"}
            assert one.texts.keys() == fresh.texts.keys() == expected, (part, what)
            assert fresh.texts["edit"] == f"not pushed {number}", (part, what)
            if damaged is not None:
                [aside] = report.aside
                assert await world.blob(aside) == damaged, (part, what)
            fresh.close()
            world.devices.remove(fresh)

    asyncio.run(story())
