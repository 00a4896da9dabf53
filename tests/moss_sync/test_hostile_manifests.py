"""A manifest that a member made so that nobody could go on: named, and with a way out."""

from __future__ import annotations

import asyncio
import random
import struct
from contextlib import suppress
from typing import Any

import pytest

from moss_sync import BlobCorruptError, InvalidArgumentError, MossError, UnsupportedFormatError
from moss_sync.limits import MAX_SEQ
from moss_sync.marks import marks_size
from moss_sync.stores.base import ETag
from tests.moss_sync.hostile import Harm, manifests_harmed, packed_as_it_is, segments_harmed
from tests.moss_sync.world import World, noise

NOISE = random.Random(1).randbytes(300_000)


def sets(**changes: Any) -> Harm:
    def apply(fields: dict[str, Any]) -> None:
        fields.update(changes)

    return apply


def of_every_device(**changes: Any) -> Harm:
    def apply(fields: dict[str, Any]) -> None:
        for device in fields["devs"].values():
            device.update(changes)

    return apply


def as_commit(seq: int) -> Harm:
    def apply(fields: dict[str, Any]) -> None:
        fields.update(seq=seq, marks=bytes(marks_size(seq)))

    return apply


def inline_becomes(payload: bytes) -> Harm:
    def apply(fields: dict[str, Any]) -> None:
        fields["inl"][-1]["payload"] = payload

    return apply


DAMAGED: dict[str, Harm] = {
    "300 KB that nobody knows": sets(zz_later=NOISE),
    "17 KB that nobody knows": sets(zz_later=NOISE[:17_000]),
    "300 KB in a device": of_every_device(zz_later=NOISE),
    "more deletions than commits": sets(gen=2**63 - 1),
    "more repairs than commits": sets(repairs=2**63 - 1),
    "a floor at the end": sets(gc_floor=2**63 - 1),
    "a device that has applied too much": of_every_device(acked_seq=2**63 - 1),
    "a push number at the end": of_every_device(n=2**63 - 1),
    "numbers past 2^63": sets(retired=2**64 - 1),
    "a commit number at the end": sets(seq=2**63 - 1),
    "a commit number past the limit": as_commit(MAX_SEQ + 1),
    "a huge name": sets(name="x" * 1_000_000),
    "an inline push of nothing": inline_becomes(b""),
    "an inline push of another form": inline_becomes(packed_as_it_is({"v": 1})),
    "a huge level": sets(E=[{"lvl": 2**62}]),
}


@pytest.mark.parametrize("harm", DAMAGED.values(), ids=DAMAGED)
def test_what_nobody_could_go_on_from_is_refused_and_repair_loses_nothing(
    world: World, harm: Harm
) -> None:
    async def story() -> None:
        one, member, two = world.device(), world.device(), world.device()
        one.put("a", "first")
        one.put("large", noise(1, 9000))
        await one.engine.push()
        await two.engine.pull()
        await member.engine.pull()
        two.put("unpushed", "of two")
        member.put("b", "of the member")
        with manifests_harmed(harm):
            await member.engine.push()
        fresh = world.device()
        for device in (one, two, fresh):
            with pytest.raises(BlobCorruptError) as raised:
                await device.engine.sync()
            assert "moss-local repair" in str(raised.value.hint)
        report = await one.engine.repair(force=False)
        assert report.rebuilt
        for device in (two, one, fresh):
            await device.engine.sync()
        await one.engine.pull()
        assert {"a", "large", "unpushed"} <= one.texts.keys()
        assert one.texts == two.texts
        await fresh.engine.pull()
        assert fresh.texts == one.texts

    asyncio.run(story())


FEATURES: dict[str, Harm] = {
    "of readers": sets(feat_r=["made-up"]),
    "of writers": sets(feat_w=["made-up"]),
    "of both, long": sets(feat_r=["x" * 1000], feat_w=["y" * 1000]),
}


@pytest.mark.parametrize("harm", FEATURES.values(), ids=FEATURES)
def test_an_invented_feature_has_a_way_out_that_must_be_asked_for(world: World, harm: Harm) -> None:
    async def story() -> None:
        one, member = world.device(), world.device()
        one.put("a", "first")
        await one.engine.push()
        await member.engine.pull()
        member.put("b", "second")
        # It is committed, though the member's own version may not read it again.
        with manifests_harmed(harm), suppress(UnsupportedFormatError):
            await member.engine.push()
        one.put("c", "waits")
        with pytest.raises(UnsupportedFormatError) as raised:
            await one.engine.sync()
        assert "moss-local repair --drop-unknown conv-123" in str(raised.value.hint)
        with pytest.raises(UnsupportedFormatError):
            await one.engine.repair()
        report = await one.engine.repair(force=False, drop_unknown=True)
        assert report.trouble is not None
        fresh = world.device()
        await fresh.engine.pull()
        assert fresh.texts == {"a": "first", "b": "second", "c": "waits"}
        current = await one.manifest()
        assert current.features_r == current.features_w == ()

    asyncio.run(story())


@pytest.mark.parametrize("number", [0, 2, 2**63 - 1])
def test_an_invented_version_has_a_way_out_that_must_be_asked_for(
    world: World, number: int
) -> None:
    async def story() -> None:
        one, member = world.device(), world.device()
        one.put("a", "first")
        await one.engine.push()
        await member.engine.pull()
        member.put("b", "second")
        with manifests_harmed(sets(v=number)), suppress(UnsupportedFormatError):
            await member.engine.push()
        one.put("c", "waits")
        with pytest.raises(UnsupportedFormatError) as raised:
            await one.engine.repair()
        assert "moss-local repair --drop-unknown conv-123" in str(raised.value.hint)
        report = await one.engine.repair(force=False, drop_unknown=True)
        assert (report.rebuilt, len(report.aside)) == (True, 1)
        fresh = world.device()
        await fresh.engine.pull()
        assert fresh.texts == {"a": "first", "c": "waits"}

    asyncio.run(story())


def test_a_rotation_that_never_was_has_a_way_out_that_must_be_asked_for(world: World) -> None:
    """Whoever can write to the store can leave a blob that says it is of any later key epoch."""

    async def story() -> None:
        one = world.device()
        one.put("a", "first")
        await one.engine.push()
        one.put("b", "waits")
        header = struct.pack(">4sBBBxI32s32sQ", b"XSEG", 1, 1, 0, 9, NOISE[:32], NOISE[32:64], 100)
        made_up = header + NOISE[: 100 + 16]
        world.store.inner._content.blobs[await world.manifest_key()] = (made_up, ETag("made up"))
        with pytest.raises(BlobCorruptError) as raised:
            await one.engine.repair()
        assert "moss-local repair --drop-unknown conv-123" in str(raised.value.hint)
        report = await one.engine.repair(drop_unknown=True)
        assert report.aside
        fresh = world.device()
        await fresh.engine.pull()
        assert fresh.texts == {"a": "first", "b": "waits"}

    asyncio.run(story())


def test_blobs_of_a_made_up_version_go_with_drop_unknown(world: World) -> None:
    def later(fields: dict[str, Any]) -> None:
        fields["v"] = 2

    async def story() -> None:
        one, member = world.device(), world.device()
        one.put("a", "first")
        await one.engine.push()
        await member.engine.pull()
        for size in (100, 9000):
            member.put("b", noise(2, size))
            with segments_harmed(later):
                await member.engine.push()
            with pytest.raises(UnsupportedFormatError) as raised:
                await one.engine.pull()
            assert "--drop-unknown" in str(raised.value.hint)
            with pytest.raises(UnsupportedFormatError):
                await one.engine.repair()
            await one.engine.repair(drop_unknown=True)
            await member.engine.sync()
            await one.engine.pull()
            assert one.texts == member.texts

    asyncio.run(story())


def test_at_the_last_commit_reading_goes_on_and_writing_says_how(world: World) -> None:
    async def story() -> None:
        one, member = world.device(), world.device()
        one.put("a", "first")
        await one.engine.push()
        await member.engine.pull()
        member.put("b", "last")
        with manifests_harmed(as_commit(MAX_SEQ)):
            await member.engine.push()
        await one.engine.pull()
        assert one.texts == {"a": "first", "b": "last"}
        one.put("c", "one more")
        with pytest.raises(InvalidArgumentError, match="can be no more") as raised:
            await one.engine.push()
        assert "import FILE --session" in str(raised.value.hint)
        assert one.replica.state().dirty == 1

    asyncio.run(story())


def test_a_manifest_of_another_session_name_is_no_raw_error(world: World) -> None:
    async def story() -> None:
        one, member = world.device(), world.device()
        member.put("b", "x")
        with manifests_harmed(sets(name="another")):
            await member.engine.push()
        with pytest.raises(MossError):
            await one.engine.pull()

    asyncio.run(story())
