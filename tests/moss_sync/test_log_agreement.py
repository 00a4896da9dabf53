"""Both ways to commit, over every store, end in the same documents after the same writes."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moss_sync.engine import SyncEngine
from moss_sync.log_engine import LogEngine
from moss_sync.log_plan import LogPolicy
from moss_sync.stores import BlobStore, FolderStore, MemoryStore, open_store
from tests.devices import START_MS, Device, QuickClock

DEVICES = 3
EAGER = LogPolicy(max_blobs=1, spread=1, kept_blobs=1, min_tombstones=0, purge_after_ms=0)

writes = st.tuples(
    st.just("put"), st.integers(0, DEVICES - 1), st.sampled_from("abc"), st.integers(0, 99)
)
deletes = st.tuples(
    st.just("delete"), st.integers(0, DEVICES - 1), st.sampled_from("abc"), st.just(0)
)
exchanges = st.tuples(
    # Not "push": the first one of a process looks at a log first, and a later deletion would then
    # be of another document than where it does not.
    st.sampled_from(["pull", "sync", "compact"]),
    st.integers(0, DEVICES - 1),
    st.just(""),
    st.just(0),
)
schedules = st.lists(writes | deletes | exchanges, max_size=25)


async def played(
    schedule: list[tuple[str, int, str, int]], store: BlobStore, directory: Path, mode: str
) -> dict[str, str]:
    """Return the documents that all devices, and a fresh one, end with.

    Times are those of the schedule alone: what an exchange costs must not decide who wins.
    """
    clocks = [QuickClock(number) for number in range(DEVICES + 1)]
    devices = [
        Device(
            directory / f"{number}.sqlite3",
            store,
            clock=clock,
            commit="log" if mode == "log" else "cas",
            log_policy=EAGER,
        )
        for number, clock in enumerate(clocks)
    ]
    for device in devices:
        # The same identities in both modes, so that equal stamps are decided alike.
        with device.file.writing() as conn:
            dev = bytes([devices.index(device)]) * 8
            conn.execute("UPDATE state SET dev = ?, inc = ?", (dev, dev))

    def engine(device: Device) -> LogEngine | SyncEngine:
        return device.log if mode == "log" else device.engine

    try:
        for place, (verb, number, id, value) in enumerate(schedule):
            for clock in clocks:
                clock.now_ms = START_MS + 10_000 * place
            if verb == "put":
                devices[number].put(id, f"{number}-{value}", None)
            elif verb == "delete":
                devices[number].delete(id)
            else:
                await getattr(engine(devices[number]), verb)()
        for _ in range(2):
            for device in devices:
                await engine(device).sync()
        texts = [device.texts for device in devices]
        assert all(each == texts[0] for each in texts)
        return texts[0]
    finally:
        for device in devices:
            device.close()


@settings(max_examples=30)
@given(schedule=schedules)
def test_a_log_and_a_manifest_end_in_the_same_documents(
    schedule: list[tuple[str, int, str, int]],
) -> None:
    async def story() -> None:
        ends = []
        for mode in ("cas", "log"):
            with tempfile.TemporaryDirectory() as directory:
                store = MemoryStore(f"agree-{uuid4().hex}")
                ends.append(await played(schedule, store, Path(directory), mode))
        assert ends[0] == ends[1]

    asyncio.run(story())


SCHEDULE = [
    ("put", 0, "a", 1),
    ("push", 0, "", 0),
    ("pull", 1, "", 0),
    ("put", 1, "a", 2),
    ("put", 2, "a", 3),
    ("push", 2, "", 0),
    ("sync", 1, "", 0),
    ("compact", 1, "", 0),
    ("delete", 0, "a", 0),
    ("put", 0, "b", 4),
    ("sync", 0, "", 0),
    ("compact", 0, "", 0),
    ("put", 2, "c", 5),
    ("sync", 2, "", 0),
    ("compact", 2, "", 0),
]


@pytest.mark.parametrize("mode", ["cas", "log"])
@pytest.mark.parametrize("place", ["folder", "bucket"])
def test_folders_and_buckets_end_in_what_memory_ends_in(
    tmp_path: Path, s3_url: str, place: str, mode: str
) -> None:
    async def story() -> None:
        store = FolderStore(tmp_path / "store") if place == "folder" else open_store(s3_url)
        try:
            (tmp_path / "devices").mkdir()
            found = await played(SCHEDULE, store, tmp_path / "devices", mode)
        finally:
            await store.close()
        (tmp_path / "others").mkdir()
        memory = MemoryStore(f"agree-{uuid4().hex}")
        assert found == await played(SCHEDULE, memory, tmp_path / "others", mode)
        # Device 0 deletes "a" without having seen it written anew by 1 and 2, and later than they.
        assert found == {"b": "0-4", "c": "2-5"}

    asyncio.run(story())
