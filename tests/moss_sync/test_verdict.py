"""The verdict on a store: who finds it, who hears of it, and what follows from it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from unittest.mock import patch

import pytest

from moss_sync import NetworkError, StoreLacksCasError
from moss_sync.probe import LONG_ROUNDS, ProbeReport, ProbeVerdict, probe
from moss_sync.stores.base import Blob
from moss_sync.verdict import LOOK_AGAIN_S, LOOK_AGAIN_SOON_S
from tests.devices import Device, MemoryCache
from tests.moss_sync.world import Crash, Once, World

pytestmark = pytest.mark.usefixtures("long_form")


def verdict(world: World) -> Sequence[str]:
    return [key for key in world.store.inner._content.blobs if key.endswith("/probe")]


async def pushed(device: Device, id: str = "a") -> None:
    device.put(id, "text")
    await device.engine.push()


async def again(world: World, device: Device) -> Device:
    """The same device's next process: another file here, but what it remembers is the same."""
    later = world.device(cache=device.cache)
    await later.engine.pull()
    return later


async def finds(*_: object, rounds: int = 0, **__: object) -> ProbeReport:
    """A probe of a store that is found out in its races."""
    error = StoreLacksCasError("memory://", check="race of 16", hint="use another")
    return ProbeReport(error=error)


async def found_out(device: Device) -> None:
    with patch("moss_sync.verdict.probe", finds), pytest.raises(StoreLacksCasError):
        await device.repository.probe_further()


def test_the_long_form_runs_a_round_at_a_time_whoever_comes_and_ends(world: World) -> None:
    async def story() -> None:
        a = world.device()
        assert not await a.repository.probe_further()  # nothing is known of the store yet
        await pushed(a)
        assert await a.repository.verdict() == ProbeVerdict()
        assert await a.repository.probe_further()
        assert await a.repository.verdict() == ProbeVerdict(rounds=1)
        b = world.device()
        await pushed(b, "b")
        for number in range(2, LONG_ROUNDS + 1):
            assert await b.repository.probe_further()
            assert await b.repository.verdict() == ProbeVerdict(rounds=number)
        known = await b.repository.verdict()
        assert known is not None
        assert known.is_full
        assert not await b.repository.probe_further()
        later = await again(world, a)
        await pushed(later, "c")
        assert await later.repository.verdict() == known
        assert not await later.repository.probe_further()
        assert not [key for key in world.store.inner._content.blobs if "_probe/" in key]

    asyncio.run(story())


def test_a_round_that_is_cut_off_is_not_counted_and_the_next_process_goes_on(world: World) -> None:
    async def story() -> None:
        a = world.device()
        await pushed(a)
        assert await a.repository.probe_further()
        world.store.before = Once("swap", "race", Crash())
        with pytest.raises(Crash):
            await a.repository.probe_further()
        world.store.before = None
        later = await again(world, a)
        await pushed(later, "b")
        assert await later.repository.verdict() == ProbeVerdict(rounds=1)
        assert await later.repository.probe_further()
        assert await later.repository.verdict() == ProbeVerdict(rounds=2)

    asyncio.run(story())


def test_a_round_without_the_store_counts_for_nothing(world: World) -> None:
    async def story() -> None:
        a = world.device()
        await pushed(a)
        world.store.before = Once("swap", "race", NetworkError("off"))
        with pytest.raises(NetworkError):
            await a.repository.probe_further()
        assert await a.repository.verdict() == ProbeVerdict()
        await pushed(a, "b")

    asyncio.run(story())


def test_a_store_that_is_found_out_is_written_to_by_nobody_any_more_and_is_still_read(
    world: World,
) -> None:
    async def story() -> None:
        a, b = world.device(), world.device()
        await pushed(a)
        await b.engine.pull()
        await pushed(b, "b")
        await found_out(a)
        blobs = dict(world.store.inner._content.blobs)
        fresh, later = world.device(), await again(world, b)
        for device in (a, fresh, later):
            device.put("more", "text")
            with pytest.raises(StoreLacksCasError) as caught:
                await device.engine.push()
            assert caught.value.check == "race of 16"
            assert "moss-local doctor" in (caught.value.hint or "")
            with pytest.raises(StoreLacksCasError):
                await device.engine.delete()
            await device.engine.pull()
            assert {"a", "b", "more"} <= device.texts.keys()
            assert device.replica.state().dirty
        assert world.store.inner._content.blobs == blobs

    asyncio.run(story())


@pytest.mark.parametrize("full", [False, True])
def test_a_process_that_goes_on_looks_again_after_a_while(world: World, full: bool) -> None:
    async def story() -> None:
        a, b = world.device(), world.device()
        await pushed(a)
        if full:
            while await a.repository.probe_further():
                pass
        await pushed(b, "b")
        await a.repository._verdict.overrule(ProbeVerdict(failed="race of 16"), a.repository.opened)
        b.clock.now_ms += int(1000 * (LOOK_AGAIN_S if full else LOOK_AGAIN_SOON_S))
        b.put("c", "text")
        with pytest.raises(StoreLacksCasError):
            await b.engine.push()

    asyncio.run(story())


def test_looking_again_is_one_request_a_process_and_none_a_push(world: World) -> None:
    async def story() -> None:
        a = world.device()
        await pushed(a)
        while await a.repository.probe_further():
            pass
        later = await again(world, a)
        later.put("b", "text")
        first = await later.engine.push()
        later.put("c", "text")
        second = await later.engine.push()
        assert (first.requests, second.requests) == (2, 1)

    asyncio.run(story())


def test_a_store_that_doctor_finds_good_is_written_to_again_by_everybody(world: World) -> None:
    async def story() -> None:
        a, b = world.device(), world.device()
        await pushed(a)
        await b.engine.pull()
        await found_out(a)
        report = await probe(
            world.store, clock=a.clock, prefix=a.repository.layout.prefix, rounds=LONG_ROUNDS
        )
        await b.repository.publish_probe(report)
        await pushed(b, "b")
        later = await again(world, a)
        await pushed(later, "c")
        known = await later.repository.verdict()
        assert known is not None
        assert known.is_full

    asyncio.run(story())


def test_a_verdict_that_doctor_found_bad_overrules_one_that_is_full(world: World) -> None:
    async def story() -> None:
        a, b = world.device(), world.device()
        await pushed(a)
        while await a.repository.probe_further():
            pass
        await b.engine.pull()
        await b.repository.publish_probe(await finds())
        later = await again(world, a)
        later.put("b", "text")
        with pytest.raises(StoreLacksCasError):
            await later.engine.push()

    asyncio.run(story())


def test_a_round_that_passed_does_not_overrule_one_that_failed_meanwhile(world: World) -> None:
    async def story() -> None:
        a, b = world.device(), world.device()
        await pushed(a)
        await pushed(b, "b")
        report = await b.repository._verdict.round()
        assert report is not None
        await found_out(a)
        await b.repository._verdict.count(report, b.repository.opened)
        for device in (b, world.device()):
            device.put("c", "text")
            with pytest.raises(StoreLacksCasError):
                await device.engine.push()

    asyncio.run(story())


@pytest.mark.parametrize("damage", ["removed", "emptied", "cut", "flipped", "overwritten"])
@pytest.mark.parametrize("failed", [False, True])
def test_a_verdict_that_is_gone_or_damaged_is_put_back_by_who_remembers_it(
    world: World, damage: str, failed: bool
) -> None:
    async def story() -> None:
        a = world.device()
        await pushed(a)
        assert await a.repository.probe_further()
        if failed:
            await found_out(a)
        [key] = verdict(world)
        whole = await world.blob(key)
        changed = {
            "emptied": b"",
            "cut": whole[:50],
            "flipped": whole[:4] + b"\2" + whole[5:],
            "overwritten": bytes(len(whole)),
        }
        if damage == "removed":
            await world.store.inner.delete(key)
        else:
            await world.store.inner.put(key, changed[damage])
        later = await again(world, a)
        later.put("b", "text")
        if failed:
            with pytest.raises(StoreLacksCasError):
                await later.engine.push()
        else:
            await later.engine.push()
        known = await later.repository.verdict()
        assert known == await a.repository.verdict()
        fresh = world.device()
        fresh.put("c", "text")
        if failed:
            with pytest.raises(StoreLacksCasError):
                await fresh.engine.push()
        else:
            await fresh.engine.push()
        assert await fresh.repository.verdict() == known

    asyncio.run(story())


def test_every_bit_of_a_verdict_may_be_flipped_and_a_new_device_writes(world: World) -> None:
    async def story() -> None:
        a, fresh = world.device(), world.device()
        await pushed(a)
        await fresh.engine.pull()
        [key] = verdict(world)
        whole = await world.blob(key)
        for bit in range(8 * len(whole)):
            changed = bytearray(whole)
            changed[bit // 8] ^= 1 << bit % 8
            await world.store.inner.put(key, bytes(changed))
            fresh.repository._verdict.known = fresh.repository._verdict._etag = None
            fresh.cache.held = {k: v for k, v in fresh.cache.held.items() if "probe" not in k}
            await fresh.repository.ready_to_write()
            assert await world.blob(key) not in (whole, bytes(changed))

    asyncio.run(story())


def test_an_answer_that_is_damaged_on_its_way_overrules_nothing(world: World) -> None:
    async def story() -> None:
        a, fresh = world.device(), world.device()
        await pushed(a)
        await found_out(a)
        [key] = verdict(world)
        whole = world.store.inner.get
        damaged = 0

        async def get(wanted: str, **options: object) -> object:
            nonlocal damaged
            answer = await whole(wanted, **options)  # type: ignore[arg-type]  # passed on
            if wanted == key and not damaged and isinstance(answer, Blob):
                damaged += 1
                return replace(answer, data=answer.data[:-1])
            return answer

        with patch.object(world.store.inner, "get", get):
            fresh.put("b", "text")
            with pytest.raises(StoreLacksCasError):
                await fresh.engine.push()
        assert damaged == 1

    asyncio.run(story())


@pytest.mark.parametrize("name", ["key", "probe", "fmt"])
def test_what_is_remembered_here_may_be_damaged_in_any_bit(world: World, name: str) -> None:
    async def story() -> None:
        a = world.device()
        await pushed(a)
        [held] = [each for each in a.cache.held if each.startswith(name)]
        whole = a.cache.held[held]
        step = 7  # of a prime, so that every bit of a byte has its turn
        for bit in range(0, 8 * len(whole), step):
            changed = bytearray(whole)
            changed[bit // 8] ^= 1 << bit % 8
            a.cache.held[held] = bytes(changed)
            cache = MemoryCache()
            cache.held = dict(a.cache.held)
            later = Device(a.path, world.store, seed=bit, cache=cache)
            await later.repository.check_key(contact=True)
            later.put("a", f"text {bit}")
            await later.engine.push()
            later.close()

    asyncio.run(story())
