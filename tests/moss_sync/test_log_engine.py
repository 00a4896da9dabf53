"""What an exchange by log promises, rule by rule, on the real file."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch
from uuid import uuid4

import pytest

from moss_sync import (
    InvalidArgumentError,
    ModelMismatchError,
    MossError,
    NetworkError,
    StoreChangedError,
    StoreLacksCasError,
    UnauthorizedError,
    VectorSpace,
)
from moss_sync.directory import has_session, list_sessions
from moss_sync.hlc import from_ms
from moss_sync.log_plan import LogPolicy
from moss_sync.stores import BlobStore, FolderStore, MemoryStore
from moss_sync.stores.base import Blob
from moss_sync.times import DAY_MS, HOUR_MS
from tests.devices import Device, QuickClock
from tests.keys import OTHER_KEY
from tests.replicated import ReplicatedFolder

TIDY = LogPolicy(max_blobs=1, spread=1, kept_blobs=1, min_tombstones=10**9, head_ms=1)
FORGET = LogPolicy(
    max_blobs=1, spread=1, kept_blobs=1, min_tombstones=0, purge_after_ms=0, head_ms=1
)
OTHER = VectorSpace("custom", "another-space", 4, "f4")


class World:
    """A store and the devices around it."""

    def __init__(self, directory: Path, store: BlobStore | None = None) -> None:
        self.directory = directory
        self.store = store or MemoryStore(f"log-{uuid4().hex}")
        self.devices: list[Device] = []

    def device(self, store: BlobStore | None = None, **options: object) -> Device:
        number = len(self.devices)
        options.setdefault("commit", "log")
        device = Device(
            self.directory / f"device-{number}.sqlite3",
            store or self.store,
            seed=number + 1,
            **options,  # type: ignore[arg-type]  # passed on as they are
        )
        self.devices.append(device)
        return device

    async def keys(self) -> list[str]:
        device = self.devices[0]
        prefix = device.repository.layout.prefix
        return [each.key for each in await self.store.keys(prefix)]

    async def blobs(self) -> list[str]:
        return [key for key in await self.keys() if "/l/" in key]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    for device in made.devices:
        device.close()


def tombstones(device: Device) -> set[str]:
    with device.file.reading() as conn:
        return {id for (id,) in conn.execute("SELECT id FROM document WHERE deleted = 1")}


def state_of(device: Device) -> list[tuple[object, ...]]:
    with device.file.reading() as conn:
        return conn.execute("SELECT * FROM document ORDER BY id").fetchall()


# -- exchange ------------------------------------------------------------------------------


def test_what_one_device_pushes_another_pulls(world: World) -> None:
    async def story() -> None:
        a, b = world.device(), world.device()
        a.put("turn-1", "a duplicate charge")
        a.put("turn-2", "a refund")
        report = await a.log.push()
        assert (report.sent, report.seq, report.waiting, report.strays) == (2, 1, (), ())
        pulled = await b.log.pull()
        assert (pulled.received, pulled.deleted) == (2, 0)
        b.delete("turn-1")
        b.put("turn-3", "posted")
        assert (await b.log.push()).sent_deletes == 1
        pulled = await a.log.pull()
        assert (pulled.received, pulled.deleted, pulled.seq) == (1, 1, 2)
        assert a.texts == b.texts == {"turn-2": "a refund", "turn-3": "posted"}

    asyncio.run(story())


def test_a_known_session_costs_one_request_a_push_and_one_an_idle_pull(world: World) -> None:
    async def story() -> None:
        a = world.device()
        a.put("turn-1", "text")
        await a.log.push()
        a.put("turn-2", "text")
        pushed = await a.log.push()
        assert (pushed.requests, pushed.sent) == (1, 1)
        pulled = await a.log.pull()
        assert (pulled.requests, pulled.bytes_received) == (1, 0)
        assert (await a.log.push()).requests == 0

    asyncio.run(story())


def test_devices_that_push_at_once_all_succeed_at_the_first_attempt(world: World) -> None:
    async def story() -> None:
        devices = [world.device() for _ in range(5)]
        for number, device in enumerate(devices):
            device.put(f"turn-{number}", "text")
        reports = await asyncio.gather(*(device.log.push() for device in devices))
        assert [report.sent for report in reports] == [1] * 5
        for device in devices:
            await device.log.pull()
        assert all(device.texts == devices[0].texts for device in devices)
        assert len(devices[0].texts) == 5

    asyncio.run(story())


def test_an_empty_session_can_be_pushed_and_is_listed(world: World) -> None:
    async def story() -> None:
        a, b = world.device(), world.device(session="conv-124")
        await a.log.push()
        b.put("turn-1", "text")
        await b.log.push()
        found = await list_sessions(a.repository)
        assert [session.name for session in found.sessions] == ["conv-123", "conv-124"]
        assert [session.commits for session in found.sessions] == [0, 1]
        assert [session.devices for session in found.sessions] == [1, 1]
        assert found.sessions[1].bytes > 0
        assert found.unreadable == ()
        assert await has_session(a.repository, "conv-124")
        assert not await has_session(a.repository, "conv-125")

    asyncio.run(story())


def test_no_name_id_or_text_stands_in_any_stored_byte(world: World) -> None:
    async def story() -> None:
        a = world.device(session="a-secret-session", log_policy=TIDY)
        a.put("a-secret-id", "a secret text")
        await a.log.push()
        a.put("another-secret-id", "another secret text")
        await a.log.push()
        await a.log.compact()
        for key in await world.keys():
            blob = await world.store.get(key)
            assert isinstance(blob, Blob)
            assert b"secret" not in blob.data
            assert "secret" not in key

    asyncio.run(story())


# -- which mode ----------------------------------------------------------------------------


@pytest.mark.parametrize(("first", "then"), [("cas", "log"), ("log", "cas")])
def test_a_repository_keeps_its_way_to_commit_and_says_so_before_writing(
    world: World, first: str, then: str
) -> None:
    async def story() -> None:
        a, b = world.device(commit=first), world.device(commit=then)
        a.put("turn-1", "text")
        await (a.log if first == "log" else a.engine).push()
        before = await world.keys()
        b.put("turn-2", "text")
        for exchange in (b.log, b.engine):
            with pytest.raises(InvalidArgumentError, match=f"'{first}', not by '{then}'"):
                await exchange.push()
            with pytest.raises(InvalidArgumentError):
                await exchange.pull()
        assert await world.keys() == before

    asyncio.run(story())


def test_two_devices_that_set_a_log_up_at_once_write_the_same_bytes(tmp_path: Path) -> None:
    async def story() -> None:
        folder = ReplicatedFolder(2)
        world = World(tmp_path)
        a, b = world.device(folder.store(0)), world.device(folder.store(1))
        a.put("turn-1", "from a")
        b.put("turn-2", "from b")
        await a.log.push()
        await b.log.push()
        folder.deliver_all()
        assert folder.conflicts == 0
        await a.log.pull()
        await b.log.pull()
        assert a.texts == b.texts == {"turn-1": "from a", "turn-2": "from b"}
        a.close()
        b.close()

    asyncio.run(story())


def test_a_store_without_compare_and_swap_is_told_of_the_log() -> None:
    from moss_sync.stores.remedy import remedy

    hint = remedy("s3://bucket?endpoint_url=https://s3.backblazeb2.com")
    error = StoreLacksCasError("s3://bucket", check="create again", hint=hint)
    assert 'commit="log"' in str(error.hint)
    assert "moss-local init --commit log" in str(error.hint)


def test_a_log_is_set_up_without_a_single_conditional_write(world: World) -> None:
    async def story() -> None:
        async def refuse(*args: object, **named: object) -> object:
            raise AssertionError("nobody compares and swaps in a log")

        world.store.compare_and_swap = refuse  # type: ignore[assignment,method-assign]  # a fault
        a, b = world.device(), world.device()
        a.put("turn-1", "text")
        await a.log.push()
        await b.log.sync()
        assert b.texts == {"turn-1": "text"}

    asyncio.run(story())


# -- what cannot be trusted ----------------------------------------------------------------


def test_another_key_is_refused_and_writes_nothing(world: World) -> None:
    async def story() -> None:
        a, b = world.device(), world.device(key=OTHER_KEY)
        a.put("turn-1", "text")
        await a.log.push()
        before = await world.keys()
        b.put("turn-2", "text")
        for exchange in (b.log.pull, b.log.push):
            with pytest.raises(UnauthorizedError):
                await exchange()
        assert await world.keys() == before

    asyncio.run(story())


@pytest.mark.parametrize("how", ["flip", "cut", "longer", "swap", "another session"])
def test_a_damaged_or_exchanged_blob_is_refused_and_changes_nothing(world: World, how: str) -> None:
    async def story() -> None:
        a, b = world.device(), world.device()
        other = world.device(session="another")
        for device, text in ((a, "one"), (other, "two")):
            device.put("turn-1", text)
            await device.log.push()
        a.put("turn-2", "three")
        await a.log.push()
        sid = (await a.log.pull()).session_id
        mine = [key for key in await world.blobs() if sid in key]
        theirs = [key for key in await world.blobs() if sid not in key]
        first = await world.store.get(mine[0])
        assert isinstance(first, Blob)
        data = bytearray(first.data)
        if how == "flip":
            data[len(data) // 2] ^= 1
        elif how == "cut":
            del data[-1]
        elif how == "longer":
            data += b"x"
        else:
            source = await world.store.get(mine[1] if how == "swap" else theirs[0])
            assert isinstance(source, Blob)
            data = bytearray(source.data)
        await world.store.put(mine[0], bytes(data))
        report = await b.log.pull()
        assert [line for line in report.waiting if "cannot be read" in line]
        assert "text" not in b.texts.values()
        await world.store.put(mine[0], first.data)
        await b.log.pull()
        assert b.texts == a.texts

    asyncio.run(story())


def test_a_blob_under_a_name_that_no_key_holder_made_is_never_read(world: World) -> None:
    async def story() -> None:
        a, b = world.device(), world.device()
        a.put("turn-1", "text")
        await a.log.push()
        [key] = await world.blobs()
        made_up = key[:-4] + ("aaaa" if not key.endswith("aaaa") else "baaa")
        await world.store.put(made_up, b"anything")
        report = await b.log.pull()
        assert report.strays == (made_up,)
        assert b.texts == {"turn-1": "text"}

    asyncio.run(story())


def test_a_store_that_was_emptied_is_not_taken_for_a_session_without_documents(
    world: World,
) -> None:
    async def story() -> None:
        a = world.device()
        a.put("turn-1", "text")
        await a.log.push()
        for key in await world.keys():
            await world.store.delete(key)
        with pytest.raises(StoreChangedError, match="holds no repository any more"):
            await a.log.pull()
        assert a.texts == {"turn-1": "text"}

    asyncio.run(story())


# -- folders that are replicated -----------------------------------------------------------


def test_what_a_replication_leaves_in_a_folder_is_reported_and_left_alone(tmp_path: Path) -> None:
    async def story() -> None:
        root = tmp_path / "shared"
        world = World(tmp_path, FolderStore(root))
        a, b = world.device(), world.device()
        a.put("turn-1", "text")
        await a.log.push()
        [blob] = [path for path in root.glob("*/*/l/*") if path.is_file()]
        head = next(root.glob("*/m/*"))
        leavings = [
            blob.with_name(f"{blob.name} (Ada's conflicted copy 2026-01-02)"),
            blob.with_name(f"{blob.name}.sync-conflict-20260102-030405-ABCDEFG"),
            blob.with_name(f"~{blob.name}"),
            blob.with_name(f".{blob.name}.icloud"),
            blob.with_name(f"{blob.name}.part"),
            blob.with_name(f"{blob.name}-laptop"),
            head.with_name(f"{head.name} 2"),
            head.parent.parent / "fmt (conflicted copy)",
        ]
        for path in leavings:
            path.write_bytes(blob.read_bytes())
        (blob.parent / ".stversions").mkdir()
        report = await b.log.sync()
        assert {stray.rsplit("/", 1)[1] for stray in report.strays} == {
            path.name for path in leavings
        } | {".stversions"}
        assert (b.texts, report.waiting) == ({"turn-1": "text"}, ())
        assert all(path.exists() for path in leavings)
        await world.store.close()
        a.close()
        b.close()

    asyncio.run(story())


def test_a_file_that_has_partly_arrived_is_waited_for_and_said(tmp_path: Path) -> None:
    async def story() -> None:
        folder = ReplicatedFolder(2)
        world = World(tmp_path)
        a, b = world.device(folder.store(0)), world.device(folder.store(1))
        await b.log.push()
        a.put("turn-1", "text" * 100)
        a.put("turn-2", "another", None)
        await a.log.push()
        folder.deliver_all()
        key, data = next((k, d) for k, d in folder.copies[1].files.items() if "/l/" in k)
        for part in (b"", data[:3], data[:50], data[:-1], data[:200].ljust(len(data), b"\0")):
            folder.copies[1].files[key] = part
            report = await b.log.pull()
            assert b.texts == {}
            [sentence] = report.waiting
            assert "bytes have arrived" in sentence
        b.clock.now_ms += 2 * HOUR_MS
        [sentence] = (await b.log.pull()).waiting
        assert "for 120 minutes" in sentence
        folder.copies[1].files[key] = data
        assert (await b.log.pull()).waiting == ()
        assert b.texts == a.texts
        a.close()
        b.close()

    asyncio.run(story())


def test_a_whole_file_with_a_wrong_byte_is_damage_in_a_folder_too(tmp_path: Path) -> None:
    async def story() -> None:
        folder = ReplicatedFolder(2)
        world = World(tmp_path)
        a, b = world.device(folder.store(0)), world.device(folder.store(1))
        a.put("turn-1", "text")
        await a.log.push()
        folder.deliver_all()
        key, data = next((k, d) for k, d in folder.copies[1].files.items() if "/l/" in k)
        for place in (0, 60, 100, len(data) - 1):
            wrong = bytearray(data)
            wrong[place] ^= 0x55
            folder.copies[1].files[key] = bytes(wrong)
            report = await b.log.pull()
            assert [line for line in report.waiting if "cannot be read" in line]
        assert b.texts == {}
        a.close()
        b.close()

    asyncio.run(story())


def test_a_push_that_has_not_arrived_though_a_later_one_has_is_named(tmp_path: Path) -> None:
    async def story() -> None:
        folder = ReplicatedFolder(2)
        world = World(tmp_path)
        a, b = world.device(folder.store(0)), world.device(folder.store(1))
        for number in (1, 2, 3):
            a.put(f"turn-{number}", "text")
            await a.log.push()
        inbox = folder.copies[1].inbox
        late = [n for n, change in enumerate(inbox) if "-00000002-" in change.key]
        kept = [inbox.pop(n) for n in late]
        folder.deliver_all()
        report = await b.log.pull()
        [sentence] = report.waiting
        assert "push 2 of device" in sentence
        assert set(b.texts) == {"turn-1", "turn-3"}
        inbox.extend(kept)
        folder.deliver_all()
        assert (await b.log.pull()).waiting == ()
        assert set(b.texts) == {"turn-1", "turn-2", "turn-3"}
        a.close()
        b.close()

    asyncio.run(story())


def test_a_merged_blob_whose_inputs_vanish_before_it_arrives_loses_nothing(
    tmp_path: Path,
) -> None:
    async def story() -> None:
        folder = ReplicatedFolder(3)
        world = World(tmp_path)
        a = world.device(folder.store(0), log_policy=TIDY)
        b, c = world.device(folder.store(1)), world.device(folder.store(2))
        for number in range(3):
            a.put(f"turn-{number}", "text")
            await a.log.push()
        folder.deliver_all()
        a.clock.now_ms += 1000
        await a.log.compact()
        a.clock.now_ms += 2 * HOUR_MS
        await a.log.compact()
        # Deletions first, the base last: for a while the copy shows nothing at all.
        inbox = folder.copies[2].inbox
        inbox.sort(key=lambda change: change.data is not None)
        while inbox and inbox[0].data is None:
            folder.deliver(2, 0)
        assert not any("/l/s-" in key for key in folder.copies[2].files)
        await c.log.pull()
        folder.deliver_all()
        await b.log.pull()
        await c.log.pull()
        assert a.texts == b.texts == c.texts
        for device in world.devices:
            device.close()

    asyncio.run(story())


# -- merging blobs -------------------------------------------------------------------------


def test_many_small_pushes_become_few_blobs_that_hold_all_of_them(world: World) -> None:
    async def story() -> None:
        a, b = world.device(), world.device()
        for number in range(60):
            a.put(f"turn-{number}", f"text {number}")
            await a.log.push()
            while await a.log.compact():
                pass
        assert len(await world.blobs()) <= 24
        report = await b.log.pull()
        assert b.texts == a.texts
        assert len(b.texts) == 60
        assert (report.seq, report.waiting) == (60, ())

    asyncio.run(story())


def test_what_a_base_was_made_of_stays_an_hour_in_a_folder_unless_another_device_has_it(
    tmp_path: Path,
) -> None:
    async def story() -> None:
        folder = ReplicatedFolder(2)
        world = World(tmp_path)
        a = world.device(folder.store(0), log_policy=TIDY)
        b = world.device(folder.store(1), log_policy=TIDY)

        def pushes(machine: int) -> int:
            return sum("/l/s-" in key for key in folder.copies[machine].files)

        for number in range(3):
            a.put(f"turn-{number}", "text")
            await a.log.push()
        assert await a.log.compact()
        assert pushes(0) == 3
        a.clock.now_ms += HOUR_MS // 2
        await a.log.compact()
        assert pushes(0) == 3
        folder.deliver_all()
        await b.log.pull()
        await b.log.compact()  # it has the base: two copies of it exist
        assert pushes(1) == 0
        a.clock.now_ms += HOUR_MS
        await a.log.compact()
        assert pushes(0) == 0
        for device in world.devices:
            device.close()

    asyncio.run(story())


def test_devices_that_merge_the_same_blobs_at_once_lose_nothing(world: World) -> None:
    async def story() -> None:
        devices = [world.device(log_policy=TIDY) for _ in range(3)]
        for round in range(4):
            for number, device in enumerate(devices):
                device.put(f"turn-{round}-{number}", "text")
                await device.log.sync()
            await asyncio.gather(*(device.log.compact() for device in devices))
        fresh = world.device()
        await fresh.log.pull()
        assert len(fresh.texts) == 12
        for device in devices:
            await device.log.pull()
            assert device.texts == fresh.texts

    asyncio.run(story())


# -- forgetting ----------------------------------------------------------------------------


async def everybody(*devices: Device, rounds: int = 2) -> None:
    for _ in range(rounds):
        for device in devices:
            device.clock.now_ms += 10
            await device.log.sync()
            await device.log.compact()


def test_a_deletion_that_everybody_has_applied_is_forgotten_everywhere(world: World) -> None:
    async def story() -> None:
        a, b = world.device(log_policy=FORGET), world.device(log_policy=FORGET)
        a.put("turn-1", "text")
        a.put("turn-2", "text")
        await a.log.push()
        await b.log.push()
        await b.log.pull()
        a.delete("turn-1")
        await everybody(a, b, rounds=4)
        assert tombstones(a) == tombstones(b) == set()
        fresh = world.device()
        await fresh.log.pull()
        assert fresh.texts == a.texts == b.texts == {"turn-2": "text"}
        assert tombstones(fresh) == set()

    asyncio.run(story())


def test_a_device_that_has_not_said_so_holds_a_deletion_back_for_370_days(world: World) -> None:
    async def story() -> None:
        a, b = world.device(log_policy=FORGET), world.device(log_policy=FORGET)
        a.put("turn-1", "text")
        await a.log.push()
        await b.log.push()
        await b.log.pull()
        a.delete("turn-1")
        await everybody(a, rounds=4)
        assert tombstones(a) == {"turn-1"}
        a.clock.now_ms += 369 * DAY_MS
        await everybody(a)
        assert tombstones(a) == {"turn-1"}
        a.clock.now_ms += 2 * DAY_MS
        await everybody(a)
        assert tombstones(a) == set()
        # It comes back: what it still shows goes, and what it changed meanwhile stays.
        assert b.texts == {"turn-1": "text"}
        b.put("turn-2", "written meanwhile")
        report = await b.log.sync()
        assert report.deleted == 1
        await a.log.pull()
        assert a.texts == b.texts == {"turn-2": "written meanwhile"}

    asyncio.run(story())


def test_an_edit_of_a_document_whose_deletion_is_forgotten_is_stamped_anew_and_kept(
    world: World,
) -> None:
    # A device that has only pulled is not known, and so not waited for.
    async def story() -> None:
        a, b = world.device(log_policy=FORGET), world.device(log_policy=FORGET)
        a.put("turn-1", "text")
        await a.log.push()
        await b.log.pull()
        b.put("turn-1", "edited offline")
        a.clock.now_ms = b.clock.now_ms + 5000
        a.delete("turn-1")
        await everybody(a)
        assert tombstones(a) == set()
        report = await b.log.sync()
        assert report.reasserted == 1
        await a.log.pull()
        assert a.texts == b.texts == {"turn-1": "edited offline"}

    asyncio.run(story())


def test_an_old_file_that_comes_back_after_a_deletion_was_forgotten_brings_nothing_back(
    world: World,
) -> None:
    async def story() -> None:
        a = world.device(log_policy=FORGET)
        a.put("turn-1", "text")
        a.put("turn-2", "text")
        await a.log.push()
        [old] = await world.blobs()
        kept = await world.store.get(old)
        assert isinstance(kept, Blob)
        a.delete("turn-1")
        await everybody(a, rounds=3)
        assert tombstones(a) == set()
        for number in (3, 4, 5):  # until no base names what it was once made of
            a.put(f"turn-{number}", "text")
            await everybody(a)
        assert len(await world.blobs()) == 1
        expected = a.texts
        assert "turn-1" not in expected
        await world.store.put(old, kept.data)  # a backup, a machine that was off, a conflict
        fresh = world.device()
        for device in (a, fresh):
            await device.log.pull()
            assert device.texts == expected
        await everybody(a)
        assert old not in await world.blobs()
        later = world.device()
        await later.log.pull()
        assert later.texts == expected

    asyncio.run(story())


def test_a_deletion_stays_while_an_older_push_of_who_knows_of_it_is_under_way(
    tmp_path: Path,
) -> None:
    async def story() -> None:
        folder = ReplicatedFolder(3)
        world = World(tmp_path)
        a, b = (world.device(folder.store(n), log_policy=FORGET) for n in range(2))
        a.put("turn-1", "text")
        await a.log.push()
        folder.deliver_all()
        await b.log.pull()
        b.put("turn-1", "an edit that will lose")
        await b.log.push()
        late = [c for c in folder.copies[0].inbox if "/l/" in c.key]
        assert len(late) == 1
        a.clock.now_ms = b.clock.now_ms + 5000
        a.delete("turn-1")
        await a.log.push()
        for _ in range(3):
            while folder.copies[1].inbox:
                folder.deliver(1, 0)
            await everybody(b, rounds=1)  # has applied the deletion, and says so
            folder.copies[0].inbox = [c for c in folder.copies[0].inbox if "/m/" in c.key]
            while folder.copies[0].inbox:
                folder.deliver(0, 0)
            await everybody(a, rounds=1)
        folder.copies[0].inbox += late
        folder.deliver_all()
        fresh = world.device(folder.store(2))
        for device in (a, fresh):
            await device.log.pull()
            assert device.texts == {}
        for device in world.devices:
            device.close()

    asyncio.run(story())


def test_a_base_made_of_old_pushes_alone_brings_nothing_back(tmp_path: Path) -> None:
    async def story() -> None:
        folder = ReplicatedFolder(3)
        world = World(tmp_path)
        a, b = (world.device(folder.store(n), log_policy=FORGET) for n in range(2))
        for number in (1, 2):
            a.put(f"turn-{number}", "text")
            await a.log.push()
        await b.log.push()
        folder.deliver_all()
        await b.log.pull()
        # b merges the two pushes before it hears of the deletion; its base travels slowly.
        await b.log.compact()
        late = [c for c in folder.copies[0].inbox if "/l/b-" in c.key]
        folder.copies[0].inbox = [c for c in folder.copies[0].inbox if c not in late]
        assert len(late) == 1
        a.delete("turn-1")
        await a.log.push()
        for _ in range(4):
            folder.copies[0].inbox = [c for c in folder.copies[0].inbox if c not in late]
            while folder.copies[0].inbox:
                folder.deliver(0, 0)
            while folder.copies[1].inbox:
                folder.deliver(1, 0)
            await everybody(a, b, rounds=1)
            late += [c for c in folder.copies[0].inbox if "/l/b-" in c.key and c not in late]
        assert tombstones(a) == set()
        folder.copies[0].inbox += late
        folder.deliver_all()
        fresh = world.device(folder.store(2))
        for device in (a, b, fresh):
            await device.log.pull()
            assert device.texts == {"turn-2": "text"}
        for device in world.devices:
            device.close()

    asyncio.run(story())


# -- who and what --------------------------------------------------------------------------


def test_a_copied_file_goes_on_as_another_device_and_neither_loses_a_write(
    world: World, tmp_path: Path
) -> None:
    async def story() -> None:
        a = world.device()
        a.put("turn-1", "text")
        await a.log.push()
        with a.file.writing() as conn:
            conn.execute("SELECT 1")
        a.close()
        shutil.copy(tmp_path / "device-0.sqlite3", tmp_path / "device-1.sqlite3")
        world.devices[0] = a = Device(
            tmp_path / "device-0.sqlite3", world.store, seed=31, commit="log"
        )
        b = world.device()
        assert a.replica.state().dev == b.replica.state().dev
        a.put("turn-2", "from the original")
        b.put("turn-3", "from the copy")
        b.put("turn-2", "from the copy too")
        await a.log.push()
        await b.log.push()
        for _ in range(3):
            await a.log.sync()
            await b.log.sync()
        assert a.replica.state().dev != b.replica.state().dev
        assert a.texts == b.texts
        assert set(a.texts) == {"turn-1", "turn-2", "turn-3"}
        fresh = world.device()
        await fresh.log.pull()
        assert fresh.texts == a.texts

    asyncio.run(story())


def test_the_space_that_was_pushed_first_is_the_sessions_and_another_is_refused(
    world: World,
) -> None:
    async def story() -> None:
        a, b = world.device(), world.device(space=OTHER)
        a.put("turn-1", "text")
        b.clock.now_ms += 5000
        b.put("turn-2", "text")
        await a.log.push()
        before = await world.keys()
        with pytest.raises(ModelMismatchError):
            await b.log.push()
        assert await world.keys() == before
        assert b.texts == {"turn-2": "text"}

    asyncio.run(story())


def test_of_two_spaces_pushed_at_once_the_first_stays_and_nobody_else_is_stopped(
    tmp_path: Path,
) -> None:
    async def story() -> None:
        folder = ReplicatedFolder(3)
        world = World(tmp_path)
        a, b = world.device(folder.store(0)), world.device(folder.store(1), space=OTHER)
        a.put("turn-1", "text")
        await a.log.push()
        b.clock.now_ms += 5000
        b.put("turn-2", "text")
        await b.log.push()
        folder.deliver_all()
        with pytest.raises(ModelMismatchError):
            await b.log.pull()
        fresh = world.device(folder.store(2))
        for device in (a, fresh):
            report = await device.log.pull()
            assert device.texts == {"turn-1": "text"}
            [sentence] = report.waiting
            assert "must embed it anew" in sentence
        for device in world.devices:
            device.close()

    asyncio.run(story())


def test_stamps_of_a_wrong_clock_that_nobody_has_seen_are_set_right_before_a_push(
    world: World,
) -> None:
    async def story() -> None:
        a, b = world.device(), world.device()
        now = a.clock.now_ms
        a.clock.now_ms += 365 * DAY_MS
        a.put("turn-1", "from a year ahead")
        a.put("turn-2", "from a year ahead too")
        a.clock.now_ms = now + 1000
        await a.log.push()
        await b.log.pull()
        assert b.texts == a.texts
        with b.file.reading() as conn:
            highest = conn.execute("SELECT max(hlc) FROM document").get
        assert highest <= from_ms(now + 10 * 60_000)
        b.put("turn-1", "a later edit")
        await b.log.push()
        await a.log.pull()
        assert a.texts["turn-1"] == "a later edit"

    asyncio.run(story())


def test_what_is_written_after_a_pushed_stamp_of_a_wrong_clock_comes_after_it(
    world: World,
) -> None:
    async def story() -> None:
        a, b = world.device(), world.device()
        a.clock.now_ms += 365 * DAY_MS  # and no store time to tell it so
        world.store._now = lambda: None  # type: ignore[attr-defined]  # of a MemoryStore
        a.put("turn-1", "from a year ahead")
        await a.log.push()
        await b.log.pull()
        b.put("turn-2", "now")
        with b.file.reading() as conn:
            [(stamp,)] = conn.execute("SELECT hlc FROM document WHERE id = 'turn-2'").fetchall()
            [(future,)] = conn.execute("SELECT hlc FROM document WHERE id = 'turn-1'").fetchall()
        assert future < stamp < future + 2**16
        b.put("turn-1", "edited by who has seen it")
        await b.log.push()
        await a.log.pull()
        assert a.texts == b.texts == {"turn-1": "edited by who has seen it", "turn-2": "now"}

    asyncio.run(story())


# -- crashes -------------------------------------------------------------------------------


class Death(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("verb", ["push", "pull", "compact"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_process_that_dies_at_any_request_is_gone_on_from(
    tmp_path: Path, verb: str, when: str
) -> None:
    """Every request of the verb is the last one once; then the same device goes on."""

    async def once(number: int) -> bool:
        directory = tmp_path / str(number)
        directory.mkdir()
        folder = ReplicatedFolder(2)
        world = World(directory)
        a = world.device(folder.store(0), log_policy=FORGET)
        b = world.device(folder.store(1), log_policy=FORGET)
        for text in ("one", "two"):
            b.put(f"b-{text}", text)
            await b.log.push()
        folder.deliver_all()
        if verb == "compact":
            a.put("a-1", "text")
            await a.log.sync()
            a.delete("a-1")
            await a.log.push()
            a.clock.now_ms += 2 * HOUR_MS
        a.put("a-2", "text")
        store = a.repository.store
        store.calls = 0  # type: ignore[attr-defined]  # of a CopyStore
        call = store._call  # type: ignore[attr-defined]  # of a CopyStore
        died = False

        def dying(moment: str) -> None:
            nonlocal died
            call(moment)
            if moment == when and store.calls == number:  # type: ignore[attr-defined]  # as above
                died = True
                raise Death

        store._call = dying  # type: ignore[attr-defined]  # of a CopyStore
        with contextlib.suppress(Death):
            await getattr(a.log, verb)()
        a.close()
        clock = QuickClock(77, a.clock.now_ms)
        again = Device(
            directory / "device-0.sqlite3",
            folder.store(0),
            clock=clock,
            commit="log",
            log_policy=FORGET,
        )
        for _ in range(3):
            await again.log.sync()
            await again.log.compact()
            folder.deliver_all()
            await b.log.sync()
            await b.log.compact()
            folder.deliver_all()
        await again.log.pull()
        assert again.texts == b.texts == {"b-one": "one", "b-two": "two", "a-2": "text"}
        assert again.replica.state().pending is None
        again.close()
        b.close()
        return died

    number = 1
    while asyncio.run(once(number)):
        number += 1
    assert number > 2


def test_an_error_keeps_the_report_of_what_was_done(world: World) -> None:
    async def story() -> None:
        a, b = world.device(), world.device()
        a.put("turn-1", "text")
        await a.log.push()
        shipped = b.log._channel._get

        async def away(wanted: str) -> Blob:
            blob = await shipped(wanted)
            raise NetworkError(f"{blob.etag} did not arrive")

        with patch.object(b.log._channel, "_get", away), pytest.raises(MossError) as caught:
            await b.log.pull()
        assert caught.value.report is not None
        assert caught.value.report.requests >= 3

    asyncio.run(story())
