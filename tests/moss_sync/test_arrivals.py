"""What a member of the project has written over the limits stops nobody and counts for nobody."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

from moss_local.storage import edits
from moss_local.storage.rejections import read_rejected
from moss_sync import InvalidArgumentError, ModelMismatchError, VectorSpace
from moss_sync.directory import list_sessions
from moss_sync.floors import Policy
from moss_sync.replica import KEPT_REJECTED
from moss_sync.report import SHOWN_REJECTIONS
from moss_sync.segment import planes
from tests.devices import Device
from tests.moss_sync.hostile import Harm, segments_harmed, sets
from tests.moss_sync.world import World, noise

MODEL = VectorSpace("moss-minilm", "00ff", 4, "f2")


def vectors_become(*values: float) -> Harm:
    def apply(fields: dict[str, Any]) -> None:
        space = fields["space"]
        dtype = space["dtype"]
        held = sum(1 for each in fields["flags"] if each & 2)
        bad = np.resize(np.array(values, f"<{dtype}"), held * space["dim"])
        fields["emb"] = planes(bad.tobytes(), int(dtype[1]))

    return apply


def told(device: Device) -> list[str]:
    with device.file.reading() as conn:
        return [str(each) for each in read_rejected(conn)]


def lacking(device: Device) -> list[str]:
    with device.file.reading() as conn:
        rows = conn.execute("SELECT id FROM document WHERE deleted = 0 AND vector = 0 ORDER BY id")
        return [id for (id,) in rows.fetchall()]


RECORDS: dict[str, Harm] = {
    "a text over the limit": sets("text", "bad", "x" * (2**20 + 1)),
    "an id over the limit": sets("id", "bad", "x" * 1025),
    "an empty id": sets("id", "bad", ""),
    "an id of half a pair": sets("id", "bad", "\ud800"),
    "a text of half a pair": sets("text", "bad", "\udc00"),
    "a payload over the limit": sets("payload", "bad", "x" * (2**20 + 1)),
    "metadata of numbers": sets("meta", "bad", {"k": 1}),
    "metadata over the limit": sets("meta", "bad", {"k": "x" * 2**20}),
    "metadata of many": sets("meta", "bad", {f"{n:07}": "123456789" for n in range(70_000)}),
}


@pytest.mark.parametrize("inline", [True, False], ids=["inline", "segment"])
@pytest.mark.parametrize("harm", RECORDS.values(), ids=RECORDS)
def test_a_record_over_the_limits_is_as_if_it_had_not_been_written(
    world: World, harm: Harm, inline: bool
) -> None:
    async def story() -> None:
        one, member, two = world.device(), world.device(), world.device()
        one.put("bad", "the older good version")
        one.put("other", "stays")
        await one.engine.push()
        await member.engine.pull()
        member.put("bad", "replaced by somebody without our checks")
        member.put("good", "counts" if inline else noise(1, 9000))
        with segments_harmed(harm):
            await member.engine.push()
        assert inline or (await member.manifest()).entries
        for device in (one, two, world.device()):
            report = await device.engine.pull()
            assert device.texts["bad"] == "the older good version"
            assert set(device.texts) == {"bad", "other", "good"}
            assert report.rejected == 1
            [sentence] = report.rejections
            assert told(device) == [sentence]
            assert (await device.engine.pull()).rejected == 0
        # Everybody goes on: writing, erasing, deleting.
        two.put("more", "x")
        await two.engine.sync()
        await one.engine.pull()
        assert one.texts == two.texts
        two.delete("bad")
        await two.engine.sync()
        await one.engine.sync()
        assert "bad" not in one.texts
        assert one.texts == two.texts

    asyncio.run(story())


def test_compaction_repair_and_erasure_leave_it_out_of_the_store(world: World) -> None:
    async def story() -> None:
        tight = Policy(small_session_entries=2)
        one = world.device(policy=tight)
        member = world.device()
        one.put("bad", "good")
        await one.engine.push()
        await member.engine.pull()
        for number in range(4):
            member.put("bad", f"version {number}")
            member.put(f"d{number}", noise(number, 9000))
            with segments_harmed(sets("text", "bad", "x" * (2**20 + 1))):
                await member.engine.push()
        await one.engine.pull()
        assert await one.engine.compact()
        fresh = world.device()
        report = await fresh.engine.pull()
        assert fresh.texts == one.texts
        assert fresh.texts["bad"] == "good"
        assert report.rejected < 4
        for end in (one.engine.erase, one.engine.repair):
            await end()
            newest = world.device()
            await newest.engine.pull()
            assert newest.texts == one.texts
            if end == one.engine.erase:
                assert told(newest) == []

    asyncio.run(story())


@pytest.mark.parametrize("values", [(math.nan,), (math.inf, 1), (0.0, -0.0)])
@pytest.mark.parametrize("size", [100, 9000], ids=["inline", "segment"])
def test_a_bad_vector_of_a_model_is_dropped_and_its_text_stays(
    world: World, values: tuple[float, ...], size: int
) -> None:
    async def story() -> None:
        member, one = world.device(space=MODEL), world.device(space=MODEL)
        member.put("a", noise(1, size))
        with segments_harmed(vectors_become(*values)):
            await member.engine.push()
        report = await one.engine.pull()
        assert one.texts == member.texts
        assert lacking(one) == ["a"]
        assert report.rejected == 0
        one.put("b", "goes on")
        await one.engine.sync()

    asyncio.run(story())


@pytest.mark.parametrize("values", [(math.nan,), (math.inf, 1), (0.0, -0.0)])
@pytest.mark.parametrize("size", [100, 9000], ids=["inline", "segment"])
def test_a_bad_vector_of_the_callers_own_sets_its_record_aside(
    world: World, values: tuple[float, ...], size: int
) -> None:
    async def story() -> None:
        one, member = world.device(), world.device()
        one.put("a", "older")
        await one.engine.push()
        await member.engine.pull()
        member.put("a", noise(1, size))
        member.put("text only", "counts", vector=None)
        with segments_harmed(vectors_become(*values)):
            await member.engine.push()
        for device in (one, world.device()):
            report = await device.engine.pull()
            assert device.texts == {"a": "older", "text only": "counts"}
            assert report.rejected == 1
            assert "vector" in report.rejections[0]

    asyncio.run(story())


@pytest.mark.parametrize("space", [MODEL, None], ids=["of a model", "of the caller's own"])
def test_vectors_of_another_size_than_the_session_has(
    world: World, space: VectorSpace | None
) -> None:
    def longer(fields: dict[str, Any]) -> None:
        fields["space"] = {**fields["space"], "dim": 3, "fp": "another"}
        fields["emb"] = b"\1" * (3 * int(fields["space"]["dtype"][1]))

    async def story() -> None:
        options = {} if space is None else {"space": space}
        one, member = world.device(**options), world.device(**options)
        one.put("a", "first")
        await one.engine.push()
        await member.engine.pull()
        member.put("b", "of another size")
        with segments_harmed(longer):
            await member.engine.push()
        report = await one.engine.pull()
        assert report.rejected == (space is None)
        assert ("b" in one.texts) == (space is not None)
        [listed] = (await list_sessions(one.repository)).sessions
        assert listed.documents == len(one.texts)
        if space is not None:
            assert lacking(one) == ["b"]

    asyncio.run(story())


def test_a_column_of_vectors_of_a_wrong_size_costs_only_what_was_in_it(world: World) -> None:
    def cut(fields: dict[str, Any]) -> None:
        fields["emb"] = fields["emb"][:-1]

    async def story() -> None:
        for space, kept in ((MODEL, {"a", "b"}), (None, {"b"})):
            here = {"session": f"with {kept}"} | ({} if space is None else {"space": space})
            one, member = world.device(**here), world.device(**here)
            member.put("a", "with a vector")
            member.put("b", "without", vector=None)
            with segments_harmed(cut):
                await member.engine.push()
            report = await one.engine.pull()
            assert set(one.texts) == kept
            assert report.rejected == (space is None)

    asyncio.run(story())


def test_what_was_told_is_not_told_again_and_goes_when_a_good_version_comes(world: World) -> None:
    async def story() -> None:
        one, member = world.device(), world.device()
        member.put("bad", "x")
        with segments_harmed(sets("text", "bad", 1)):
            await member.engine.push()
        assert (await one.engine.pull()).rejected == 1
        await member.engine.repair()  # everybody reads everything anew
        assert (await one.engine.sync()).rejected <= 1
        assert len(told(one)) <= 1
        member.put("bad", "good again")
        await member.engine.push()
        await one.engine.pull()
        assert one.texts == {"bad": "good again"}
        assert told(one) == []

    asyncio.run(story())


def test_of_very_many_only_so_many_are_kept_and_shown(world: World) -> None:
    def all_of_them(fields: dict[str, Any]) -> None:
        fields["text"] = [1] * len(fields["text"])

    async def story() -> None:
        one, member = world.device(), world.device()
        for number in range(KEPT_REJECTED + 50):
            member.put(f"d{number}", "x")
        with segments_harmed(all_of_them):
            await member.engine.push()
        report = await one.engine.pull()
        assert report.rejected == KEPT_REJECTED + 50
        assert len(report.rejections) == SHOWN_REJECTIONS
        assert len(told(one)) == KEPT_REJECTED

    asyncio.run(story())


def test_a_writer_refuses_before_it_writes_and_the_change_stays_pending(world: World) -> None:
    async def story() -> None:
        one = world.device()
        with patch.object(edits, "check_document"):  # as if another program had written it
            one.put("a", "x" * (2**20 + 1))
        with pytest.raises(InvalidArgumentError, match=r"document 'a' cannot be pushed: its text"):
            await one.engine.push()
        state = one.replica.state()
        assert (state.dirty, state.pending) == (1, None)
        assert world.blobs() == set()

    asyncio.run(story())


def test_an_author_in_another_space_does_not_keep_as_committed_what_others_leave_out(
    world: World,
) -> None:
    async def story() -> None:
        one = world.device()
        other = world.device(space=replace(one.space, dim=2, fingerprint="other"))
        other.put("b", noise(2, 9000), vector=(1, 0))
        # Its segment waits in the store; the other one commits first and takes it along.
        name: Callable[[], Any] = other.engine._swap  # type: ignore[assignment]

        async def lost(*_: object) -> None:
            one.put("a", "first")
            one.engine._streak.looks = lambda now: True  # type: ignore[method-assign]
            await one.engine.pull()
            await one.engine.push()

        other.engine._swap = lost  # type: ignore[method-assign,assignment]
        with pytest.raises(ModelMismatchError):
            await other.engine.push()
        other.engine._swap = name  # type: ignore[method-assign]
        assert other.replica.state().dirty == 1
        with pytest.raises(ModelMismatchError):
            await other.engine.pull()
        assert other.replica.state().dirty == 1

    asyncio.run(story())
