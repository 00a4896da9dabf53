"""A checkpoint written down elsewhere: what it refuses, what passes, and when it cannot say."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moss_sync import (
    ForkDetectedError,
    InvalidArgumentError,
    ManifestMissingError,
    Seen,
    StaleReadError,
)
from moss_sync.checkpoint import Checkpoint, check
from moss_sync.manifest import Manifest
from moss_sync.marks import continued
from moss_sync.replica import Life
from moss_sync.stores import MemoryStore
from moss_sync.stores.base import Blob
from tests.devices import Device

MARK = bytes(range(32))
NOW = Checkpoint(7, MARK[:16])


@given(
    seq=st.integers(0, 2**63 - 1),
    mark=st.binary(min_size=16, max_size=16),
    repairs=st.integers(0, 10**9 - 1),
)
def test_a_checkpoint_is_read_as_it_was_printed(seq: int, mark: bytes, repairs: int) -> None:
    given = Checkpoint(seq, mark, repairs)
    text = str(given)
    assert Checkpoint.parse(text) == Checkpoint.parse(f" {text}\n") == given
    assert len(text) < 60
    assert text.isascii()


def test_a_checkpoint_is_short() -> None:
    assert str(NOW) == "7-aaaqeayeaudaocajbifqydiob4"
    assert str(Checkpoint(7, MARK[:16], 2)) == "7.2-aaaqeayeaudaocajbifqydiob4"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "7",
        "7-",
        "-aaaqeayeaudaocajbifqydiob4",
        "7-aaaqeayeaudaocajbifqydiob",
        "7-aaaqeayeaudaocajbifqydiob5",  # bits that no hash has
        "07-aaaqeayeaudaocajbifqydiob4",
        "7.0-aaaqeayeaudaocajbifqydiob4",
        "7-AAAQEAYEAUDAOCAJBIFQYDIOB4",
        "٧-aaaqeayeaudaocajbifqydiob4",
        "7-aaaqeayeaudaocajbifqydiob4 more",
        7,
        None,
    ],
)
def test_what_is_no_checkpoint_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgumentError, match="is not a checkpoint") as caught:
        Checkpoint.parse(text)
    assert "moss-local status SESSION --checkpoint" in (caught.value.hint or "")


def shown(seq: int, before: dict[int, bytes] | None = None, *, repairs: int = 0) -> Manifest:
    """A manifest; `before` has hashes of those before it, the others are of another history."""
    marks = b""
    for at in range(1, seq):
        marks = continued(at, marks, (before or {}).get(at, bytes([255]) * 32), at + 1)
    return Manifest(
        repo_id=bytes(16),
        sid="s" * 26,
        name="conv-123",
        seq=seq,
        commit_id=bytes(16),
        by=bytes(8),
        ct=0,
        prev=(before or {}).get(seq - 1, bytes([255]) * 32),
        marks=marks,
        repairs=repairs,
    )


def seen_at(seq: int, repairs: int = 0) -> Seen:
    return Seen(seq, MARK, None, b"", Life(repairs, 0))


def test_that_very_state_and_what_has_it_in_its_past_pass() -> None:
    check(NOW, shown(7), MARK, None)
    for seq in (8, 9, 39):
        check(NOW, shown(seq, {7: MARK}), bytes(32), None)


@pytest.mark.parametrize("seen", [None, seen_at(3)])
def test_a_state_of_before_is_stale(seen: Seen | None) -> None:
    with pytest.raises(StaleReadError, match=r"shows commit 6.*checkpoint is of commit 7"):
        check(NOW, shown(6), MARK, seen)
    with pytest.raises(StaleReadError):
        check(replace(NOW, repairs=1), shown(9, {7: MARK}), MARK, seen)


@pytest.mark.parametrize("seen", [None, seen_at(3), seen_at(7), seen_at(8)])
def test_another_history_is_a_fork_also_for_who_has_seen_more(seen: Seen | None) -> None:
    for other in (shown(7), shown(8), shown(39, {8: MARK}), shown(40), shown(69)):
        with pytest.raises(ForkDetectedError, match="does not have the checkpoint of commit 7"):
            check(NOW, other, bytes(32), seen)


def test_one_that_is_too_old_to_tell_says_so_and_holds_up_nobody_who_has_seen_more() -> None:
    """A short mark that agrees is no proof: who holds a key could look for one that does."""
    for later in (shown(40, {7: MARK}), shown(69, {7: MARK}), shown(70), shown(70, {7: MARK})):
        for seen in (None, seen_at(6)):
            with pytest.raises(
                InvalidArgumentError, match=f"too old to tell: the store is at commit {later.seq}"
            ):
                check(NOW, later, bytes(32), seen)
        check(NOW, later, bytes(32), seen_at(7))
    repaired = shown(9, repairs=1)
    with pytest.raises(InvalidArgumentError, match="too old to tell: the session was repaired"):
        check(NOW, repaired, bytes(32), None)
    check(NOW, repaired, bytes(32), seen_at(9, repairs=1))
    check(NOW, shown(9, {7: MARK}, repairs=1), bytes(32), None)  # the repair went on from there


# -- in an exchange --------------------------------------------------------------------------


class World:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.store = MemoryStore()
        self.devices: list[Device] = []

    def device(self, checkpoint: str | None = None) -> Device:
        device = Device(
            self.directory / f"{len(self.devices)}.sqlite3",
            self.store,
            seed=len(self.devices),
            checkpoint=None if checkpoint is None else Checkpoint.parse(checkpoint),
        )
        self.devices.append(device)
        return device

    async def pushed(self, device: Device, text: str) -> str:
        """Push a document; return the checkpoint after it."""
        device.put(text, text)
        await device.engine.push()
        seen = device.replica.state().seen
        assert seen is not None
        return str(Checkpoint.of(seen))

    async def manifest(self) -> tuple[str, bytes]:
        prefix = self.devices[0].repository.layout.manifests
        [listed] = await self.store.keys(prefix)
        blob = await self.store.get(listed.key)
        assert isinstance(blob, Blob)
        return listed.key, blob.data


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    for device in made.devices:
        device.close()


def act(scenario: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(scenario())  # type: ignore[arg-type]  # a coroutine function


def test_a_first_attach_is_held_to_the_checkpoint(world: World) -> None:
    async def scenario() -> None:
        laptop = world.device()
        await world.pushed(laptop, "one")
        key, yesterday = await world.manifest()
        at_two = await world.pushed(laptop, "two")
        at_three = await world.pushed(laptop, "three")
        _, today = await world.manifest()
        for checkpoint in (at_two, at_three):
            fresh = world.device(checkpoint)
            await fresh.engine.pull()
            assert fresh.texts == laptop.texts

        # The store shows a new device the state of yesterday: without a checkpoint it cannot know.
        await world.store.put(key, yesterday)
        trusting = world.device()
        await trusting.engine.pull()
        assert list(trusting.texts) == ["one"]
        held = world.device(at_two)
        held.put("mine", "written before the first exchange")
        for work in (held.engine.pull, held.engine.push):
            with pytest.raises(StaleReadError, match="checkpoint"):
                await work()
        assert list(held.texts) == ["mine"]
        assert await world.manifest() == (key, yesterday)
        await world.store.put(key, today)
        await held.engine.sync()
        assert sorted(held.texts) == ["mine", "one", "three", "two"]

    act(scenario)


def test_a_device_that_has_seen_less_is_held_to_it_also_where_nothing_has_changed(
    world: World,
) -> None:
    async def scenario() -> None:
        laptop, phone = world.device(), world.device()
        await world.pushed(laptop, "one")
        await phone.engine.pull()
        key, yesterday = await world.manifest()
        at_two = await world.pushed(laptop, "two")
        await world.store.put(key, yesterday)
        phone.engine._channel._checkpoint = Checkpoint.parse(at_two)
        with pytest.raises(StaleReadError, match="checkpoint"):
            await phone.engine.pull()

    act(scenario)


def test_an_empty_store_is_refused_where_a_checkpoint_says_that_there_was_something(
    world: World,
) -> None:
    async def scenario() -> None:
        laptop = world.device()
        at_one = await world.pushed(laptop, "one")
        key, _ = await world.manifest()
        await world.store.delete(key)
        for emptied in (False, True):
            if emptied:
                for listed in await world.store.keys(laptop.repository.layout.prefix):
                    await world.store.delete(listed.key)
            fresh = world.device(at_one)
            fresh.put("mine", "mine")
            with pytest.raises(ManifestMissingError, match="checkpoint is of its commit 1"):
                await fresh.engine.pull()
            with pytest.raises(ManifestMissingError, match="checkpoint is of its commit 1"):
                await fresh.engine.push()
            assert list(await world.store.keys(laptop.repository.layout.manifests)) == []
            assert fresh.replica.state().dirty == 1

    act(scenario)


def test_a_checkpoint_that_goes_on_being_given_never_gets_in_the_way(world: World) -> None:
    async def scenario() -> None:
        laptop = world.device()
        at_one = await world.pushed(laptop, "one")
        phone = world.device(at_one)
        await phone.engine.pull()
        for number in range(40):
            await world.pushed(laptop, f"turn-{number}")
        await phone.engine.sync()
        assert phone.texts == laptop.texts
        with pytest.raises(InvalidArgumentError, match="too old to tell"):
            await world.device(at_one).engine.pull()

    act(scenario)
