"""Blobs of a log that no version can read, or that a record is left out of, stop nobody."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from moss_local.storage.rejections import read_rejected
from moss_sync import log_blob
from moss_sync.coverage import Coverage
from moss_sync.log_plan import LogPolicy
from moss_sync.segment import Segment
from moss_sync.stores.base import Blob
from tests.devices import Device
from tests.moss_sync.hostile import Harm, packed_as_it_is, segments_harmed, sets
from tests.moss_sync.world import World

EAGER = LogPolicy(max_blobs=2, spread=1, kept_blobs=1)


def device(world: World, **options: Any) -> Device:
    return world.device(commit="log", **options)


def told(one: Device) -> list[str]:
    with one.file.reading() as conn:
        return [str(each) for each in read_rejected(conn)]


def columns_of_other_lengths(fields: dict[str, Any]) -> None:
    fields["text"] = []


def wrapped(harm: Harm) -> Any:
    """Blobs whose header is harmed, and not their segment."""
    shipped = log_blob.encode

    def encode(payload: bytes, **header: Any) -> bytes:
        from moss_sync.packing import unpack

        plain = shipped(payload, **header)
        fields = unpack(plain, max_bytes=log_blob.MAX_BLOB_PLAIN_BYTES, what="a blob")
        harm(fields)
        return packed_as_it_is(fields)

    return patch.object(log_blob, "encode", encode)


def header(**changes: Any) -> Any:
    return wrapped(lambda fields: fields.update(changes))


MALFORMED: dict[str, Any] = {
    "columns of other lengths": lambda: segments_harmed(columns_of_other_lengths),
    "no columns": lambda: segments_harmed(lambda fields: fields.clear()),
    "covers too much": lambda: header(covers={b"device-X": [[1, 2**40]]}),
    "covers nothing": lambda: header(covers={}),
    "a time past every limit": lambda: header(ct=2**63 - 1),
    "a number past 2^63": lambda: header(forgot=2**64 - 1),
    "names that are none": lambda: header(replaces=["x"]),
    "no segment": lambda: header(segment=b""),
}


@pytest.mark.parametrize("harmed", MALFORMED.values(), ids=MALFORMED)
def test_a_blob_of_another_form_counts_as_an_empty_one(world: World, harmed: Any) -> None:
    async def story() -> None:
        one, member, two = device(world), device(world), device(world, log_policy=EAGER)
        one.put("a", "good")
        await one.log.push()
        await member.log.pull()
        member.put("b", "lost to everybody")
        with harmed():
            await member.log.push()
        member.put("c", "after it")
        await member.log.push()
        for each in (one, two):
            report = await each.log.pull()
            assert each.texts == {"a": "good", "c": "after it"}
            assert report.rejected == 1
            assert report.rejections[0].startswith("blob s/")
            assert report.waiting == ()
            assert (await each.log.pull()).rejected == 0
        two.put("d", "goes on")
        await two.log.sync()
        while await two.log.compact():
            pass
        fresh = device(world)
        report = await fresh.log.sync()
        assert fresh.texts == two.texts
        assert report.rejected == 0  # the merge took it along

    asyncio.run(story())


def test_a_base_that_a_record_is_left_out_of_stands_in_the_place_of_no_other(
    world: World,
) -> None:
    async def story() -> None:
        one, member = device(world), device(world, log_policy=EAGER)
        for number in range(5):
            one.put("bad", f"version {number}")
            one.put(f"d{number}", "x")
            await one.log.push()
        await member.log.pull()
        with segments_harmed(sets("text", "bad", 1)):
            assert await member.log.compact()
        fresh = device(world)
        report = await fresh.log.pull()
        assert report.rejected == 1
        assert fresh.texts == one.texts
        await one.log.pull()
        assert one.texts["bad"] == "version 4"
        assert set(one.texts) == {"bad", *(f"d{number}" for number in range(5))}

    asyncio.run(story())


def test_a_bad_base_neither_forgets_nor_hides_older_good_versions(world: World) -> None:
    async def story() -> None:
        one, member, two = device(world), device(world), device(world)
        one.put("bad", "good version")
        await one.log.push()
        await two.log.pull()
        await member.log.pull()
        keys = await member.repository.attach()
        channel = member.log._channel
        listed = await channel.listing(keys)
        state = member.replica.state()
        blobs, _ = await channel.read(keys, list(listed.names))
        floor = Coverage().plus(*(blob.covers for blob in blobs))
        from moss_sync import segment

        with segments_harmed(sets("text", "bad", 1)):
            payload = segment.encode(
                Segment(state.dev, 0, 0, member.space, b"", blobs[0].segment.records)
            )
        plain = log_blob.encode(
            payload,
            ct=0,
            since=blobs[0].since,
            covers=floor,
            replaces=tuple(listed.names),
            whole=floor.floor(),
            forgot=1,
        )
        await write_base(member, plain)
        fresh = device(world)
        for each in (one, two, fresh):
            report = await each.log.pull()
            assert report.rejected == 1
            await each.log.compact()
            assert each.texts == {"bad": "good version"}
        assert set(listed.names) <= set((await channel.listing(keys)).names)

    asyncio.run(story())


async def write_base(member: Device, plain: bytes) -> None:
    keys = await member.repository.attach()
    channel = member.log._channel
    dev = member.replica.state().dev
    name, sealed = await channel.sealed(keys, plain, kind="b", dev=dev, number=0)
    await channel.put(channel.key(keys, str(name)), sealed)


def test_a_damaged_blob_is_named_and_read_when_it_is_whole_again(world: World) -> None:
    async def story() -> None:
        one, two = device(world), device(world)
        one.put("a", "first")
        await one.log.push()
        one.put("b", "second")
        await one.log.push()
        keys = sorted(key for key in world.store.inner._content.blobs if "/l/" in key)
        blob = await world.store.inner.get(keys[0])
        assert isinstance(blob, Blob)
        await world.store.inner.put(keys[0], b"\xff" * len(blob.data))
        report = await two.log.pull()
        assert two.texts == {"b": "second"}
        [line] = report.waiting
        assert "cannot be read and stands in the way of no other" in line
        reads = len([1 for verb, key in world.store.calls if verb == "get" and key == keys[0]])
        assert (await two.log.pull()).waiting == (line,)
        again = len([1 for verb, key in world.store.calls if verb == "get" and key == keys[0]])
        assert again == reads  # looked at once in this state
        two.put("c", "goes on")
        await two.log.sync()
        await world.store.inner.put(keys[0], blob.data)
        report = await two.log.pull()
        assert two.texts == {"a": "first", "b": "second", "c": "goes on"}
        assert report.waiting == ()

    asyncio.run(story())


def test_a_blob_of_a_newer_version_waits_for_an_upgrade(world: World) -> None:
    async def story() -> None:
        one, member = device(world), device(world)
        member.put("b", "of now")
        await member.log.push()
        member.put("a", "of later")
        with header(v=2):
            await member.log.push()
        report = await one.log.pull()
        assert one.texts == {"b": "of now"}
        assert "version 2" in report.waiting[0]
        assert told(one) == []

    asyncio.run(story())


def test_a_bad_head_stops_neither_the_listing_nor_merging(world: World) -> None:
    async def story() -> None:
        one, two = device(world), device(world, log_policy=EAGER)
        for number in range(6):
            one.put(f"d{number}", "x")
            await one.log.push()
        await two.log.sync()
        for key in [key for key in world.store.inner._content.blobs if "/m/" in key]:
            await world.store.inner.put(key, b"no head")
        assert await two.log.compact()
        fresh = device(world)
        await fresh.log.sync()
        assert fresh.texts == one.texts

    asyncio.run(story())


def test_what_is_remembered_of_unreadable_blobs_is_bounded_by_what_is_listed(
    world: World, tmp_path: Path
) -> None:
    async def story() -> None:
        one, two = device(world), device(world)
        one.put("a", "first")
        await one.log.push()
        [key] = [key for key in world.store.inner._content.blobs if "/l/" in key]
        await world.store.inner.put(key, b"\xff" * 200)
        assert len((await two.log.pull()).waiting) == 1
        await world.store.inner.delete(key)
        assert (await two.log.pull()).waiting == ()
        assert not (await two.log._view()).unread

    asyncio.run(story())


def test_heads_and_headers_out_of_range_are_not_made() -> None:
    good = log_blob.Head("s" * 26, "name", b"device-A", b"incarn-1", 1, 0)
    assert log_blob.decode_head(log_blob.encode_head(good), good.sid, good.dev) == good
    for odd in (
        replace(good, name=""),
        replace(good, name="x" * 513),
        replace(good, name="\ud800"),
        replace(good, n=2**32),
        replace(good, n=-1),
        replace(good, ct=2**63),
        replace(good, dev=b"short"),
        replace(good, inc=b""),
        replace(good, applied={b"device-A": 2**32}),
        replace(good, applied={b"short": 1}),
        replace(good, model_id=""),
    ):
        with pytest.raises(ValueError):
            log_blob.encode_head(odd)
    covers = Coverage.of(b"device-A", 1)
    for change in (
        {"ct": -1},
        {"ct": 2**63},
        {"covers": Coverage.of(b"device-A", 2**32)},
        {"covers": Coverage({b"device-A": ((2, 1),)})},
        {"replaces": ("x",)},
        {"whole": {b"device-A": 2**32}},
        {"forgot": 2**63},
        {"since": log_blob.Since(-1, b"device-A")},
        {"since": log_blob.Since(1, b"short")},
    ):
        with pytest.raises(ValueError):
            log_blob.encode(b"", **({"ct": 0, "since": None, "covers": covers} | change))  # type: ignore[arg-type]  # odd ones too
