"""Who was removed stays out: whatever they leave in the store, or put back, nobody takes.

The attacker here has the real key of before the rotation, all bytes that the store ever held, and
may still write to it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from moss_sync import (
    BlobCorruptError,
    ContentionError,
    HistoryError,
    OutcomeUnknownError,
    RevokedKeyError,
    StoreChangedError,
    UnauthorizedError,
    keyring,
    manifest,
    plan,
    race,
    segment,
    tiers,
)
from moss_sync.channel import manifest_identity, segment_identity
from moss_sync.directory import list_sessions
from moss_sync.layout import is_name, named, new_stem, parts_of
from moss_sync.manifest import Inline, Manifest, ciphertext_hash
from moss_sync.marks import continued, marks_size
from moss_sync.packing import pack
from moss_sync.record import Record, Version, content_digest
from moss_sync.revocation import revoke_older
from moss_sync.rotation import rotate
from moss_sync.seal import SALT_BYTES, BlobIdentity, epoch_of, seal
from moss_sync.segment import Segment
from tests.devices import Device
from tests.moss_sync.manifests import A, B, author, entry, history, inline_push, segment_push, state
from tests.moss_sync.rotating import (
    NEW,
    Crash,
    World,
    act,
    long_text,
    opened_world,
    quickly,
    turned,
)
from tests.strategies import NAME_KEY, SID, new_name

INTRUDER = b"intruder"
FORGED = "what the intruder wants to be read"


@pytest.fixture(autouse=True)
def quick_keys(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    yield from quickly(monkeypatch)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    yield from opened_world(tmp_path)


@dataclass
class Removed:
    """Somebody who had the key, and still has the store.

    Attributes:
        keys: The real ones, of before the rotation.
        kept: Every blob of the store as it was then.
    """

    world: World
    keys: keyring.Keys
    sid: str
    prefix: str
    kept: dict[str, bytes]

    @classmethod
    async def of(cls, world: World, device: Device) -> Removed:
        keys = device.repository.opened
        sid = device.engine._channel.sid(keys)
        return cls(world, keys, sid, device.repository.layout.prefix, await world.blobs())

    def payload(self, dev: bytes, n: int, base: int, text: str = FORGED) -> bytes:
        digest = content_digest("turn-1", deleted=False, text=text)
        record = Record("turn-1", Version(2**61, dev, digest), text=text)
        return segment.encode(Segment(dev, n, min(base, 2**62), None, b"", [record]))

    def sealed(self, stem: str, payload: bytes, *, salt: int = 1) -> bytes:
        identity = segment_identity(self.keys, self.sid, stem)
        return seal(self.keys.roots, identity, payload, salt=bytes([salt]) * SALT_BYTES)

    def name_of(self, stem: str, blob: bytes) -> str:
        return str(named(self.keys.roots.tag_key(1), self.sid, stem, blob))

    async def put(self, key: str, blob: bytes) -> None:
        await self.world.store.inner.put(key, blob)

    async def overwrite(self, name: str) -> None:
        """Put another segment under a listed name, sealed as well as the old key can."""
        parts = parts_of(name)
        n = parts.number if parts.kind == "s" else 0
        blob = self.sealed(parts.stem, self.payload(parts.dev, n, parts.base))
        await self.put(f"{self.prefix}{self.sid}/{name}", blob)

    async def plant(self, *, base: int, kind: str = "s", number: int = 1) -> str:
        """Leave a segment that nobody has listed; return its key."""
        stem = new_stem(kind=kind, base=base, dev=INTRUDER, number=number)
        blob = self.sealed(stem, self.payload(INTRUDER, number if kind == "s" else 0, base))
        key = f"{self.prefix}{self.sid}/{self.name_of(stem, blob)}"
        await self.put(key, blob)
        return key

    async def litter(self, count: int, *, garbage: bool = False) -> list[str]:
        """Leave empty files, under names that the old key has made, or that nobody has."""
        keys = []
        for number in range(1, count + 1):
            stem = new_stem(kind="s", base=3, dev=INTRUDER, number=number)
            name = self.name_of(stem, b"")
            if garbage:
                name = name[:-9] + "a" * 9
            assert is_name(name)
            keys.append(f"{self.prefix}{self.sid}/{name}")
            await self.put(keys[-1], b"")
        return keys

    async def forge(self, current: Manifest, *, header: int | None = None, **changes: Any) -> None:
        """Put a manifest in the place of the newest one, sealed as well as the old key can."""
        seq = changes.get("seq", current.seq)
        following = replace(current, **{"marks": bytes(marks_size(seq)), **changes})
        blob = seal(
            self.keys.roots,
            manifest_identity(self.keys, self.sid),
            manifest.encode(following),
            salt=bytes(SALT_BYTES),
        )
        if header is not None:
            blob = blob[:8] + header.to_bytes(4, "big") + blob[12:]
        await self.put(f"{self.prefix}m/{self.sid}", blob)

    async def put_back(self, *parts: str) -> None:
        """Put back every blob of before whose key has one of these parts."""
        for key, blob in self.kept.items():
            if any(part in key for part in parts):
                await self.put(key, blob)


async def scene(world: World) -> tuple[Device, Device, Removed]:
    """Return two devices that hold a session, and who is to be removed."""
    laptop, phone = world.device("laptop"), world.device("phone")
    for number in (1, 2):
        laptop.put(f"turn-{number}", long_text(number))
        await laptop.engine.push()
    laptop.put("short", "rides in the manifest")
    await laptop.engine.push()
    await phone.engine.pull()
    return laptop, phone, await Removed.of(world, laptop)


async def rewritten(device: Device, *others: Device) -> None:
    """Seal anew all that there is, and let nothing older count, as rotate-key --rewrite-now."""
    for each in (device, *others):
        await each.engine.rewrite()
    await revoke_older(device.repository, device.clock, device.repository.roots.newest)


async def joined(world: World, name: str, *, session: str = "conv-123") -> Device:
    """Start a device again with the new key, as rotate-key --join leaves it."""
    device = world.device(name, NEW, session=session)
    await device.repository.refresh()
    return device


async def in_a_crowd(device: Device, id: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """Push as somebody who lists what waits; return how much of that was taken along."""
    with monkeypatch.context() as patched:
        patched.setattr(race, "ADOPT_AFTER", 0)
        device.put(id, long_text(9))
        return (await device.engine.push()).adopted


async def texts_of_a_new_device(world: World, name: str = "new") -> dict[str, str]:
    device = world.device(name, NEW)
    await device.engine.pull()
    return device.texts


# -- what they overwrite ---------------------------------------------------------------------


@pytest.mark.parametrize("rewrite", [False, True], ids=["rotated", "rewritten"])
def test_a_listed_segment_that_was_overwritten_is_refused_and_never_merged(
    world: World, rewrite: bool
) -> None:
    async def scenario() -> None:
        laptop, _, removed = await scene(world)
        await turned(laptop)
        if rewrite:
            await rewritten(laptop)
        current, _ = await world.manifest_of(laptop)
        for each in current.entries:
            await removed.overwrite(each.name)
        fresh = world.device("new", NEW)
        with pytest.raises(BlobCorruptError, match="is not the blob that was listed") as told:
            await fresh.engine.pull()
        assert "moss-local repair conv-123" in (told.value.hint or "")
        assert fresh.texts == {}
        with pytest.raises(BlobCorruptError, match="is not the blob that was listed"):
            await laptop.engine._merge(tiers.everything)
        report = await laptop.engine.repair(force=False)
        assert (report.rebuilt, report.lost_blobs) == (True, len(current.entries))
        assert await texts_of_a_new_device(world, "newer") == laptop.texts
        assert FORGED not in laptop.texts.values()

    act(scenario)


def test_a_blob_under_another_key_than_its_entry_says_is_refused_unopened(world: World) -> None:
    """Even where the name fits: a member, not the removed, can have made such an entry."""

    async def scenario() -> None:
        laptop, _, removed = await scene(world)
        await turned(laptop)
        stem = new_stem(kind="s", base=3, dev=INTRUDER, number=1)
        blob = removed.sealed(stem, removed.payload(INTRUDER, 1, 3))
        roots = laptop.repository.roots
        name = str(named(roots.tag_key(2), removed.sid, stem, blob))
        await removed.put(f"{removed.prefix}{removed.sid}/{name}", blob)
        current, _ = await world.manifest_of(laptop)
        listed = replace(current.entries[0], name=name, epoch=2)
        plain = manifest.encode(replace(current, entries=(listed,), epoch=2))
        identity = manifest_identity(laptop.repository.opened, removed.sid)
        await removed.put(
            f"{removed.prefix}m/{removed.sid}", seal(roots, identity, plain, salt=bytes(SALT_BYTES))
        )
        with pytest.raises(BlobCorruptError, match="under key epoch 1, and listed with 2"):
            await texts_of_a_new_device(world)

    act(scenario)


# -- what they leave to be adopted -----------------------------------------------------------


@pytest.mark.parametrize("planted", ["before", "after"])
@pytest.mark.parametrize("base", [0, 3, 4, 2**63, 2**64 - 1], ids=hex)
def test_a_waiting_segment_of_the_old_key_is_never_listed_and_is_collected_whatever_its_base(
    world: World, monkeypatch: pytest.MonkeyPatch, planted: str, base: int
) -> None:
    async def scenario() -> None:
        laptop, _, removed = await scene(world)
        if planted == "before":
            key = await removed.plant(base=base)
        await turned(laptop)
        if planted == "after":
            key = await removed.plant(base=base)
        assert await in_a_crowd(laptop, "turn-3", monkeypatch) == 0
        await rewritten(laptop)
        assert await in_a_crowd(laptop, "turn-4", monkeypatch) == 0
        assert key in await world.blobs()
        await laptop.engine.collect()
        assert key not in await world.blobs()
        assert await texts_of_a_new_device(world) == laptop.texts
        assert FORGED not in laptop.texts.values()

    act(scenario)


@pytest.mark.parametrize("base", [4, 2**63, 2**64 - 1], ids=hex)
def test_a_base_that_there_is_not_yet_keeps_a_segment_from_being_listed(base: int) -> None:
    """Of members as well: it would lie above every floor, and could never be collected."""
    current = history(3, B)
    good = new_name(NAME_KEY, SID, kind="s", base=3, dev=B, number=4)
    bad = new_name(NAME_KEY, SID, kind="s", base=base, dev=B, number=5)
    assert plan.adoptable(current, [(bad, 500), (good, 500)], dev=A) == [(good, 500)]


def test_what_is_too_small_to_be_a_blob_is_not_listed() -> None:
    current = history(3, B)
    name = new_name(NAME_KEY, SID, kind="s", base=3, dev=B, number=4)
    for size, taken in ((0, False), (100, False), (101, True)):
        assert plan.adoptable(current, [(name, size)], dev=A) == [(name, size)] * taken


def test_a_number_far_past_its_devices_last_is_not_listed() -> None:
    current = history(3, B)
    for ahead, taken in ((2**16, True), (2**16 + 1, False), (2**32 - 4, False)):
        name = new_name(NAME_KEY, SID, kind="s", base=3, dev=B, number=3 + ahead)
        assert plan.adoptable(current, [(name, 500)], dev=A) == [(name, 500)] * taken


def test_what_one_commit_takes_along_is_bounded_in_all_and_of_each_device() -> None:
    current = history(3, B)
    devices = [bytes([number]) * 8 for number in range(1, 40)]
    waiting = [
        (new_name(NAME_KEY, SID, kind="s", base=3, dev=dev, number=number), 500)
        for dev in devices
        for number in range(1, 21)
    ]
    chosen = plan.adoptable(current, waiting, dev=A)
    assert len(chosen) == plan.MAX_ADOPTED
    assert {name.dev for name, _ in chosen} == set(devices[: plan.MAX_ADOPTED // 8])
    assert max(name.number for name, _ in chosen) == plan.MAX_ADOPTED_EACH


@pytest.mark.parametrize("garbage", [False, True], ids=["named by the old key", "by nobody"])
def test_three_thousand_empty_files_break_neither_pulls_nor_pushes_nor_repairs(
    world: World, monkeypatch: pytest.MonkeyPatch, garbage: bool
) -> None:
    async def scenario() -> None:
        laptop, _, removed = await scene(world)
        left = await removed.litter(3000, garbage=garbage)
        assert await in_a_crowd(laptop, "turn-3", monkeypatch) == 0
        await turned(laptop)
        await rewritten(laptop)
        assert await in_a_crowd(laptop, "turn-4", monkeypatch) == 0
        await laptop.engine.repair()
        there = world.store.inner._content.blobs.keys() & set(left)
        assert len(there) == (3000 if garbage else 0)  # who named it is not known: it is left alone
        phone = await joined(world, "phone")
        await phone.engine.sync()
        assert phone.texts == laptop.texts == await texts_of_a_new_device(world)
        assert len((await world.manifest_of(laptop))[0].entries) < 5

    act(scenario)


def test_the_output_of_a_compaction_under_the_old_key_is_never_listed_and_is_collected(
    world: World,
) -> None:
    async def scenario() -> None:
        laptop, _, removed = await scene(world)
        key = await removed.plant(base=2**63, kind="b", number=3)
        await turned(laptop)
        await rewritten(laptop)
        await laptop.engine.collect()
        assert key not in await world.blobs()
        assert await texts_of_a_new_device(world) == laptop.texts

    act(scenario)


# -- a commit adds only what is of its own epoch ---------------------------------------------


def test_a_commit_lists_no_push_and_no_output_of_another_epoch() -> None:
    parent = history(3, B)
    with pytest.raises(ValueError, match="only what is of that epoch"):
        plan.with_push(
            parent,
            author(state(), parent=parent, epoch=2),
            segment_push(base=3, epoch=1),
            repo_id=bytes(16),
            sid=SID,
        )
    merged = replace(parent, entries=(entry(lo=0, hi=1), entry(lo=1, hi=2)))
    output = entry(kind="b", lo=0, hi=2, lvl=1, base=2)
    compaction = tiers.Compaction(merged.entries, ())
    for epoch, listed in ((1, True), (2, False)):
        found = tiers.with_compaction(
            merged,
            author(state(applied_seq=3), parent=parent, epoch=epoch),
            compaction,
            [output],
            tomb_hlc=0,
        )
        assert (found is not None) == listed


@pytest.mark.parametrize(("epoch", "fenced"), [(1, False), (2, True)])
def test_a_push_prepared_under_an_older_key_than_the_manifest_is_fenced(
    epoch: int, fenced: bool
) -> None:
    parent = replace(history(3, B), epoch=epoch)
    assert plan.may_commit(parent, segment_push(base=3, epoch=1), 3) != fenced
    assert plan.may_commit(parent, inline_push(1, 3), 3)
    assert not plan.may_commit(parent, inline_push(1, 4), 4)  # a base that there is not yet


def test_a_compaction_that_met_a_rotation_is_given_up_and_done_anew(world: World) -> None:
    async def scenario() -> None:
        laptop, phone, _ = await scene(world)

        async def meanwhile(verb: str, key: str) -> None:
            if verb == "put" and "/b/" in key:
                world.store.quiet()
                await turned(phone, None)
                await laptop.repository.refresh()

        world.store.before = meanwhile
        assert await laptop.engine._merge(tiers.everything) is None
        world.store.quiet()
        assert {each.epoch for each in (await world.manifest_of(laptop))[0].entries} == {1}
        assert await laptop.engine.rewrite() >= 1
        current, _ = await world.manifest_of(laptop)
        assert {current.epoch, *(each.epoch for each in current.entries)} == {2}
        assert await texts_of_a_new_device_with(world, "the old key") == laptop.texts

    act(scenario)


async def texts_of_a_new_device_with(world: World, key: str) -> dict[str, str]:
    device = world.device("another", key)
    await device.engine.pull()
    return device.texts


# -- what they put back ----------------------------------------------------------------------


@pytest.mark.parametrize("seen", ["the old one", "the new one", "nothing"])
def test_an_old_manifest_that_is_put_back_is_refused_by_old_and_new_devices(
    world: World, seen: str
) -> None:
    async def scenario() -> None:
        laptop, _, removed = await scene(world)
        await turned(laptop)
        if seen != "nothing":
            await joined(world, "phone")  # knows the new key, and no floor yet
        await rewritten(laptop)
        laptop.put("turn-3", "after the rewrite")
        await laptop.engine.push()
        phone = world.device("phone" if seen != "nothing" else "new", NEW)
        if seen == "the new one":
            await phone.engine.pull()
        before = phone.texts
        await removed.put_back("/m/", f"/{removed.sid}/")
        for work in (phone.engine.pull, phone.engine.sync):
            with pytest.raises(HistoryError) as told:
                await work()
            assert "moss-local repair" in (told.value.hint or "")
        if seen != "the new one":
            assert isinstance(told.value, RevokedKeyError)
        phone.put("turn-5", "mine")
        if seen != "nothing":
            with pytest.raises(HistoryError):
                await phone.engine.push()
        assert phone.texts == {**before, "turn-5": "mine"}
        assert (await world.blobs())[f"{removed.prefix}m/{removed.sid}"] == removed.kept[
            f"{removed.prefix}m/{removed.sid}"
        ]
        await laptop.engine.repair(force=False)
        await phone.engine.sync()
        await laptop.engine.pull()
        assert laptop.texts == phone.texts
        assert {"turn-3", "turn-5"} <= set(laptop.texts)

    act(scenario)


def test_nobody_merges_on_top_of_what_no_longer_counts(world: World) -> None:
    async def scenario() -> None:
        laptop, _, removed = await scene(world)
        await turned(laptop)
        phone = await joined(world, "phone")
        await rewritten(laptop)
        await removed.put_back("/m/", f"/{removed.sid}/")
        await phone.repository.refresh()  # it learns the floor, and remembers the old manifest
        assert await phone.engine._merge(tiers.everything) is None

    act(scenario)


def test_an_old_manifest_is_left_out_of_the_list_of_sessions(world: World) -> None:
    async def scenario() -> None:
        laptop, _, removed = await scene(world)
        await turned(laptop)
        await rewritten(laptop)
        await removed.put_back("/m/")
        new = world.device("new", NEW)
        found = await list_sessions(new.repository)
        assert found.sessions == ()
        assert [type(error) for error in found.unreadable] == [RevokedKeyError]

    act(scenario)


@pytest.mark.parametrize("header", [1, 2])
def test_a_manifest_of_the_new_epoch_cannot_be_made(world: World, header: int) -> None:
    async def scenario() -> None:
        laptop, _, removed = await scene(world)
        await turned(laptop)
        await rewritten(laptop)
        current, _ = await world.manifest_of(laptop)
        push = Inline(INTRUDER, 1, 3, current.seq + 1, 0, removed.payload(INTRUDER, 1, 3))
        await removed.forge(
            current, header=header, seq=current.seq + 1, inline=(push,), ct=current.ct + 1
        )
        for device in (laptop, world.device("new", NEW)):
            with pytest.raises(BlobCorruptError):
                await device.engine.pull()
            assert FORGED not in device.texts.values()

    act(scenario)


@pytest.mark.parametrize("said", [1, 2])
def test_a_repair_believes_no_forged_manifest_whose_header_is_made_to_look_damaged(
    world: World, said: int
) -> None:
    """Where only the header is damaged a repair reads on: under which key, the rest must tell."""

    async def scenario() -> None:
        laptop, _, removed = await scene(world)
        await turned(laptop)
        await rewritten(laptop)
        current, _ = await world.manifest_of(laptop)
        push = Inline(INTRUDER, 1, 3, current.seq + 1, 0, removed.payload(INTRUDER, 1, 3))
        await removed.forge(
            replace(current, entries=()), epoch=said, seq=current.seq + 1, inline=(push,)
        )
        key = f"{removed.prefix}m/{removed.sid}"
        blob = (await world.blobs())[key]
        await removed.put(key, blob[:4] + bytes([9, 9, 9, 9]) + (2).to_bytes(4, "big") + blob[12:])
        before = laptop.texts
        assert (await laptop.engine.repair(force=False)).rebuilt
        assert laptop.texts == before == await texts_of_a_new_device(world)

    act(scenario)


def test_an_inline_push_of_the_old_epoch_is_read_by_nobody(world: World) -> None:
    async def scenario() -> None:
        laptop, _, removed = await scene(world)
        before, _ = await world.manifest_of(laptop)
        await turned(laptop)
        await rewritten(laptop)
        push = Inline(INTRUDER, 1, 3, before.seq + 9, 0, removed.payload(INTRUDER, 1, 3))
        await removed.forge(before, seq=before.seq + 9, inline=(push,))
        for device in (laptop, world.device("new", NEW)):
            with pytest.raises(HistoryError):
                await device.engine.pull()
            assert FORGED not in device.texts.values()

    act(scenario)


def test_an_old_verdict_that_is_put_back_is_not_believed_and_the_store_is_probed_anew(
    world: World,
) -> None:
    async def scenario() -> None:
        laptop, _, removed = await scene(world)
        await turned(laptop)
        await rewritten(laptop)
        probe = f"{removed.prefix}probe"
        assert epoch_of((await world.blobs())[probe]) == 2
        lie = pack({"v": 1, "etag_form": "bare", "long": True})
        identity = BlobIdentity(removed.keys.repo_id, "", "probe", "probe")
        forged = seal(removed.keys.roots, identity, lie, salt=bytes(SALT_BYTES))
        for put_back in (removed.kept[probe], forged):
            await removed.put(probe, put_back)
            device = world.device(f"new-{len(world.open)}", NEW)
            await device.engine.pull()
            device.put("turn-9", f"written by {len(world.open)}")
            world.store.calls.clear()
            await device.engine.push()
            assert any("/_probe/" in key for _, key in world.store.calls)
            assert epoch_of((await world.blobs())[probe]) == 2

    act(scenario)


def test_an_old_verdict_in_a_devices_cache_is_not_believed_either(world: World) -> None:
    async def scenario() -> None:
        laptop, _, _ = await scene(world)
        phone = world.device("phone")
        phone.put("turn-3", "makes it remember the verdict")
        await phone.engine.push()
        await turned(laptop)
        await rewritten(laptop)
        again = await joined(world, "phone")
        again.put("turn-4", "x")
        world.store.calls.clear()
        await again.engine.push()
        assert ("get", f"{again.repository.layout.probe}") in world.store.calls

    act(scenario)


def test_an_old_fmt_that_is_put_back_is_refused_by_who_has_seen_a_newer_one(world: World) -> None:
    async def scenario() -> None:
        laptop, _, removed = await scene(world)
        await turned(laptop)
        between = await world.fmt()
        phone = await joined(world, "phone")
        await rewritten(laptop)
        await phone.repository.refresh()
        floored = await world.fmt()
        fmt = f"{removed.prefix}fmt"
        for old in (removed.kept[fmt], between):
            await removed.put(fmt, old)
            with pytest.raises((StoreChangedError, UnauthorizedError)) as told:
                await phone.repository.refresh()
            assert "moss-local" in (told.value.hint or "")
            assert await phone.repository.mend()
            assert await world.fmt() == floored
        await removed.put(fmt, removed.kept[fmt])
        with pytest.raises(UnauthorizedError):
            await texts_of_a_new_device(world)

    act(scenario)


# -- how the floor is raised -----------------------------------------------------------------


def test_who_never_rotated_pays_no_request_for_it(world: World) -> None:
    async def scenario() -> None:
        await scene(world)
        for name in ("laptop", "phone"):
            again = world.device(name)
            world.store.calls.clear()
            await again.engine.pull()
            again.put(f"by {name}", "x")
            await again.engine.sync()
            assert [key for _, key in world.store.calls if key.endswith("/fmt")] == []

    act(scenario)


def test_of_an_old_session_the_floor_is_asked_for_once_an_exchange_and_of_a_new_one_never(
    world: World,
) -> None:
    async def scenario() -> None:
        laptop, _, _ = await scene(world)
        await turned(laptop)
        phone = await joined(world, "phone")

        async def asked(work: Any) -> int:
            world.store.calls.clear()
            await work()
            return [key.endswith("/fmt") for _, key in world.store.calls].count(True)

        assert await asked(phone.engine.pull) == 1
        assert await asked(phone.engine.sync) == 1
        await rewritten(laptop)
        assert await asked(phone.engine.pull) == 0
        assert await asked(phone.engine.sync) == 0

    act(scenario)


def test_a_session_that_was_not_sealed_anew_keeps_the_floor_where_it_is(world: World) -> None:
    async def scenario() -> None:
        laptop, _, _ = await scene(world)
        other = world.device("laptop", session="conv-124")
        other.put("turn-1", "of another session")
        await other.engine.push()
        await turned(laptop)
        await laptop.engine.rewrite()
        with pytest.raises(RevokedKeyError, match="'conv-124' is not sealed anew") as told:
            await revoke_older(laptop.repository, laptop.clock, 2)
        assert "moss-local rotate-key --rewrite-only" in (told.value.hint or "")
        assert keyring.decode(await world.fmt()).floor == 1
        await rewritten(laptop, await joined(world, "laptop", session="conv-124"))
        assert keyring.decode(await world.fmt()).floor == 2

    act(scenario)


def test_a_session_that_the_store_hid_is_refused_and_a_device_that_holds_it_puts_it_back(
    world: World,
) -> None:
    async def scenario() -> None:
        laptop, _, removed = await scene(world)
        hidden = world.device("phone", session="hidden")
        hidden.put("turn-1", long_text(5))
        hidden.put("turn-2", "a short one")
        await hidden.engine.push()
        attacker = await Removed.of(world, hidden)
        manifest_key = f"{attacker.prefix}m/{attacker.sid}"
        await world.store.inner.delete(manifest_key)
        await turned(laptop)
        await rewritten(laptop)
        await removed.put(manifest_key, attacker.kept[manifest_key])
        new = world.device("new", NEW, session="hidden")
        with pytest.raises(RevokedKeyError):
            await new.engine.pull()
        holder = await joined(world, "phone", session="hidden")
        holder.put("turn-3", "not pushed yet")
        with pytest.raises(RevokedKeyError):
            await holder.engine.push()
        report = await holder.engine.repair(force=False)
        assert (report.rebuilt, report.sent) == (True, 3)
        await new.engine.pull()
        assert new.texts == holder.texts
        current, _ = await world.manifest_of(holder)
        assert {current.epoch, *(each.epoch for each in current.entries)} == {2}

    act(scenario)


def test_a_deleted_session_is_sealed_anew_too_and_can_be_created_again(world: World) -> None:
    async def scenario() -> None:
        laptop, _, _ = await scene(world)
        gone = world.device("phone", session="gone")
        gone.put("turn-1", "x")
        await gone.engine.push()
        await gone.engine.delete()
        await turned(laptop)
        await rewritten(laptop)
        new = world.device("new", NEW, session="gone")
        new.put("turn-9", "of the next life")
        await new.engine.sync()
        again = await joined(world, "phone", session="gone")
        await again.engine.pull()
        assert again.texts == new.texts == {"turn-9": "of the next life"}

    act(scenario)


@pytest.mark.parametrize(
    "planted",
    [b"", b"garbage", bytes(500), b"XSEG" + bytes(500), b"XSEG\x01\x01\x00\x00" + b"\xff" * 500],
    ids=["empty", "garbage", "zeros", "another version", "an epoch to come"],
)
def test_what_no_key_opens_keeps_no_old_key_valid(world: World, planted: bytes) -> None:
    async def scenario() -> None:
        laptop, _, removed = await scene(world)
        await turned(laptop)
        for sid in ("a" * 26, "2" * 26):
            await removed.put(f"{removed.prefix}m/{sid}", planted)
        await removed.put(f"{removed.prefix}m/readme.txt", planted)
        await rewritten(laptop)
        assert keyring.decode(await world.fmt()).floor == 2
        assert len(await texts_of_a_new_device(world)) == 3

    act(scenario)


def test_a_manifest_that_a_key_opens_once_it_is_repaired_keeps_the_floor_where_it_is(
    world: World,
) -> None:
    async def scenario() -> None:
        laptop, _, _ = await scene(world)
        other = world.device("laptop", session="conv-124")
        other.put("turn-1", "of another session")
        await other.engine.push()
        _, blob = await world.manifest_of(other)
        await turned(laptop)
        await laptop.engine.rewrite()
        sid = other.engine._channel.sid(other.repository.opened)
        damaged = bytes([blob[0] ^ 1]) + blob[1:]
        await world.store.inner.put(other.repository.layout.manifest(sid), damaged)
        with pytest.raises(BlobCorruptError):
            await revoke_older(laptop.repository, laptop.clock, 2)
        other = await joined(world, "laptop", session="conv-124")
        await other.engine.repair()
        await rewritten(laptop, other)
        assert keyring.decode(await world.fmt()).floor == 2

    act(scenario)


def test_one_damaged_answer_is_not_taken_for_what_no_key_opens(world: World) -> None:
    async def scenario() -> None:
        laptop, _, removed = await scene(world)
        await turned(laptop)
        key = f"{removed.prefix}m/{removed.sid}"
        whole, reads = removed.kept[key], 0

        async def damage_the_first(verb: str, of: str) -> None:
            nonlocal reads
            if (verb, of) == ("get", key):
                reads += 1
                await removed.put(key, b"garbage" if reads == 1 else whole)

        world.store.before = damage_the_first
        with pytest.raises(BlobCorruptError):
            await revoke_older(laptop.repository, laptop.clock, 2)
        world.store.quiet()
        assert keyring.decode(await world.fmt()).floor == 1

    act(scenario)


@pytest.mark.parametrize("rotations", [1, 2])
def test_nothing_that_counts_no_more_is_sealed_anew(world: World, rotations: int) -> None:
    async def scenario() -> None:
        laptop, _, removed = await scene(world)
        current, _ = await world.manifest_of(laptop)
        await turned(laptop)
        await rewritten(laptop)
        for _ in range(rotations - 1):
            await rotate(laptop.repository, laptop.clock)
        await removed.forge(
            current, seq=60, gen=current.gen + 7, deleted=True, entries=(), inline=()
        )
        await revoke_older(laptop.repository, laptop.clock, rotations + 1)
        forged, _ = await world.manifest_of(laptop)
        assert forged.epoch == 1
        for device in (laptop, world.device("new", NEW)):
            with pytest.raises(HistoryError):
                await device.engine.pull()
        assert len(laptop.texts) == 3

    act(scenario)


def test_what_is_put_in_the_place_of_a_session_that_was_just_sealed_anew_is_not_sealed_anew(
    world: World,
) -> None:
    async def scenario() -> None:
        laptop, _, removed = await scene(world)
        current, _ = await world.manifest_of(laptop)
        await turned(laptop)
        await laptop.engine.rewrite()
        await removed.forge(current, seq=60, gen=7, deleted=True, entries=(), inline=())
        with pytest.raises(
            RevokedKeyError, match="put what is sealed under an old key in its place"
        ):
            await revoke_older(laptop.repository, laptop.clock, 2, sealed=["conv-123"])
        assert (await world.manifest_of(laptop))[0].epoch == 1
        assert keyring.decode(await world.fmt()).floor == 1
        await laptop.engine.repair()
        await rewritten(laptop)
        assert len(await texts_of_a_new_device(world)) == 3

    act(scenario)


@pytest.mark.parametrize("arrives", [True, False], ids=["it arrived", "it did not"])
@pytest.mark.parametrize("how", ["silence", "crash"])
def test_raising_the_floor_ends_whatever_becomes_of_the_request(
    world: World, arrives: bool, how: str
) -> None:
    async def scenario() -> None:
        laptop, _, _ = await scene(world)
        await turned(laptop)
        await laptop.engine.rewrite()
        error: BaseException = OutcomeUnknownError("no answer") if how == "silence" else Crash()
        once = iter([error])

        async def fails(verb: str, key: str) -> None:
            if verb == "swap" and key.endswith("/fmt") and (raised := next(once, None)):
                raise raised

        if arrives:
            world.store.after = fails
        else:
            world.store.before = fails
        if how == "crash":
            with pytest.raises(Crash):
                await revoke_older(laptop.repository, laptop.clock, 2)
            laptop = await joined(world, "laptop")
        await revoke_older(laptop.repository, laptop.clock, 2)
        assert keyring.decode(await world.fmt()).floor == 2
        assert laptop.repository.opened.floor == 2

    act(scenario)


def test_a_rotation_at_the_same_moment_leaves_the_floor_to_the_next_rewrite(world: World) -> None:
    async def scenario() -> None:
        laptop, _, _ = await scene(world)
        await turned(laptop)
        phone = await joined(world, "phone")
        await laptop.engine.rewrite()

        async def meanwhile(verb: str, key: str) -> None:
            if verb == "swap" and key.endswith("/fmt"):
                world.store.quiet()
                await turned(phone, None)

        world.store.before = meanwhile
        with pytest.raises(ContentionError, match="still counts"):
            await revoke_older(laptop.repository, laptop.clock, 2)
        fmt = keyring.decode(await world.fmt())
        assert (fmt.newest, fmt.floor) == (3, 1)
        await rewritten(laptop)
        fmt = keyring.decode(await world.fmt())
        assert (fmt.newest, fmt.floor) == (3, 3)
        await turned(laptop, None)
        fmt = keyring.decode(await world.fmt())
        assert (fmt.newest, fmt.floor) == (4, 3)  # a rotation carries it over

    act(scenario)


def test_a_repair_leaves_out_what_no_longer_counts_and_pushes_what_its_device_holds(
    world: World,
) -> None:
    async def scenario() -> None:
        laptop, _, removed = await scene(world)
        await turned(laptop)
        phone = await joined(world, "phone")
        await rewritten(laptop)
        await removed.put_back("/m/", f"/{removed.sid}/")
        phone.put("turn-3", "unpushed")
        report = await phone.engine.repair()
        assert report.rebuilt
        current, _ = await world.manifest_of(phone)
        assert {current.epoch, *(each.epoch for each in current.entries)} == {2}
        new = world.device("new", NEW)
        await new.engine.pull()
        assert new.texts == phone.texts
        assert {"turn-1", "turn-2", "short", "turn-3"} == set(new.texts)

    act(scenario)


def floors(fmt: Sequence[keyring.Format]) -> list[tuple[int, int]]:
    return [each.age for each in fmt]


def test_a_floor_rises_and_never_past_what_there_is() -> None:
    kek, kdf = bytes(32), keyring.KdfParams(bytes(16), 8 * 1024, 1, 1)
    first = keyring.create(kek, kdf, fresh=bytes(keyring.FRESH_BYTES))
    keys = keyring.unlock(first, kek)
    second = keyring.rotate(first, keys, kek, kdf, fresh=bytes(keyring.rotation_bytes(first)))
    third = keyring.with_floor(second, kek, 2, nonce=bytes(12))
    assert floors([first, second, third]) == sorted(floors([first, second, third]))
    assert keyring.unlock(third, kek).floor == 2
    for floor in (0, 1, 3):
        with pytest.raises(ValueError):
            keyring.with_floor(third, kek, floor, nonce=bytes(12))
    for floor in (0, 3):
        fields = {**keyring._fields(second), "floor": floor}
        with pytest.raises(BlobCorruptError, match="no epoch that it has"):
            keyring.decode(keyring._framed(fields))
    changed = keyring.decode(keyring._framed({**keyring._fields(third), "floor": 1}))
    with pytest.raises(UnauthorizedError):
        keyring.unlock(changed, kek)


TRICKS = {
    "a later life": {"repairs": 3, "gen": 3},
    "repaired": {"repairs": 3},
    "of the very next life": {"repairs": 1},
    "deleted": {"gen": 3, "deleted": True, "tomb_seq": 4, "gc_floor": 4},
    "far ahead": {"seq": 5000},
    "purged": {"seq": 5000, "gc_floor": 5000, "tomb_seq": 5000},
    "one commit more": {},
}


def test_what_a_device_took_from_a_forged_state_goes_to_its_quarantine_and_deletes_nothing(
    world: World,
) -> None:
    async def scenario() -> None:
        laptop, phone, removed = await scene(world)
        current, sealed = await world.manifest_of(laptop)
        phone.put("mine", "not pushed yet")
        await turned(laptop)
        await rewritten(laptop)
        counts, wanted = await world.blobs(), laptop.texts
        await removed.put_back("fmt", "probe", "/s/")
        texts = {"forged": FORGED, "turn-1": FORGED, "turn-2": ""}
        records = [
            Record(
                id,
                Version(2**61, INTRUDER, content_digest(id, deleted=not text, text=text)),
                deleted=not text,
                text=text,
                commit_seq=1,  # as of a commit that there really was
            )
            for id, text in texts.items()
        ]
        payload = segment.encode(Segment(INTRUDER, 1, 1, None, b"", records))
        seq, ct = current.seq + 1, 32_000_000_000_000
        await removed.forge(
            current,
            seq=seq,
            ct=ct,
            prev=ciphertext_hash(sealed),
            marks=continued(current.seq, current.marks, ciphertext_hash(sealed), seq),
            inline=(*current.inline, Inline(INTRUDER, 1, 1, seq, ct, payload)),
        )
        await phone.engine.pull()  # with the old key it cannot tell
        assert (phone.texts["forged"], "turn-2" in phone.texts) == (FORGED, False)
        for key, blob in counts.items():
            await world.store.inner.put(key, blob)
        phone = await joined(world, "phone")
        report = await phone.engine.repair(force=False)
        assert (report.rebuilt, report.quarantined) == (True, 2)
        await laptop.engine.sync()
        wanted = {**wanted, "mine": "not pushed yet"}
        assert await texts_of_a_new_device(world) == laptop.texts == phone.texts == wanted
        assert (await world.manifest_of(laptop))[0].ct < ct // 2

    act(scenario)


@pytest.mark.parametrize("trick", TRICKS.values(), ids=TRICKS)
def test_a_device_that_was_shown_a_forged_state_before_it_had_the_new_key_repairs_without_it(
    world: World, trick: dict[str, Any]
) -> None:
    async def scenario() -> None:
        laptop, phone, removed = await scene(world)
        current, sealed = await world.manifest_of(laptop)
        phone.put("mine", "not pushed yet")
        await turned(laptop)
        await rewritten(laptop)
        laptop.put("later", "after the rotation")
        laptop.put("later-too", long_text(7))
        await laptop.engine.push()
        counts = await world.blobs()
        await removed.put_back("fmt", "probe", "/s/")
        seq = trick.get("seq", current.seq + 1)
        past = continued(current.seq, current.marks, ciphertext_hash(sealed), seq)
        forged = {"seq": seq, "entries": (), "inline": (), "ct": current.ct + 1, "marks": past}
        forged |= trick
        await removed.forge(current, prev=ciphertext_hash(sealed), **forged)
        await phone.engine.pull()  # with the old key it cannot tell
        for key, blob in counts.items():
            await world.store.inner.put(key, blob)
        phone = await joined(world, "phone")
        report = await phone.engine.repair(force=False)
        assert report.rebuilt
        wanted = {"turn-1", "turn-2", "short", "later", "later-too"}
        if "gen" not in trick:  # else it was told of a deletion, and has set its own aside
            wanted.add("mine")
        assert (await texts_of_a_new_device(world)).keys() == wanted
        assert phone.texts.keys() == wanted
        await laptop.engine.sync()
        await phone.engine.sync()
        assert laptop.texts.keys() == phone.texts.keys() == wanted
        assert (await world.manifest_of(laptop))[0].seq < 100

    act(scenario)
