"""The folder store among processes that die, disks that are full and files that are not its own."""

from __future__ import annotations

import asyncio
import errno
import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from moss_sync import (
    BlobCorruptError,
    BlobNotFoundError,
    ForeignFileError,
    InvalidArgumentError,
    MossError,
    NetworkError,
    OutcomeUnknownError,
    PermissionDeniedError,
    StoreBusyError,
    StoreLacksCasError,
)
from moss_sync.stores import (
    MAX_BLOB_BYTES,
    Blob,
    ETag,
    FolderStore,
    Swapped,
    folder,
    folder_listing,
)
from moss_sync.stores.beneath import Folder
from moss_sync.stores.folder import LOCK_STRIPES, TEMP_MAX_AGE_MS
from moss_sync.stores.folder_listing import FolderListing

KILLS = 25


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


def run(root: Path, body: Callable[[FolderStore], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        store = FolderStore(root)
        try:
            await body(store)
        finally:
            await store.close()

    asyncio.run(main())


async def swap(store: FolderStore, key: str, data: bytes, etag: ETag | None) -> ETag:
    answer = await store.compare_and_swap(key, data, etag=etag)
    assert isinstance(answer, Swapped)
    return answer.etag


def test_only_a_write_creates_the_root_and_only_its_owner_may_look_inside(root: Path) -> None:
    async def body(store: FolderStore) -> None:
        with pytest.raises(BlobNotFoundError):
            await store.get("m/k")
        assert list(await store.keys("m/")) == []
        await store.delete("m/k")
        assert not root.exists()
        await store.put("m/k", b"1")
        await swap(store, "m/l", b"2", None)
        for path in [root, *root.rglob("*")]:
            assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path

    run(root, body)


def test_no_more_than_the_root_is_created_where_a_disk_may_be_missing(tmp_path: Path) -> None:
    disk = tmp_path / "my disk"
    store = FolderStore(disk / "store")

    async def story() -> None:
        assert await store.keys("m/") == []
        for write in (store.put("k", b"1"), store.compare_and_swap("k", b"1", etag=None)):
            with pytest.raises(NetworkError, match="my disk, in which the store 'store'") as error:
                await write
            assert f"mkdir -p '{disk}'" in str(error.value.hint)
        assert not disk.exists()
        disk.mkdir()
        await store.put("k", b"1")
        await store.close()

    asyncio.run(story())


def test_a_root_that_is_a_file_is_refused_by_every_verb(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"mine")

    async def body(store: FolderStore) -> None:
        for call in (
            store.get("m/k"),
            store.put("m/k", b""),
            store.compare_and_swap("m/k", b"", etag=None),
            store.keys("m/"),
            store.delete("m/k"),
        ):
            with pytest.raises(InvalidArgumentError, match="is a file"):
                await call

    run(file, body)
    assert file.read_bytes() == b"mine"


def test_a_key_where_a_folder_is_and_a_key_below_a_blob_are_refused(root: Path) -> None:
    async def body(store: FolderStore) -> None:
        await store.put("m/k", b"1")
        for key, told in (("m", "'m' .* is a folder"), ("m/k/below", "'m/k' .* is a file")):
            for call in (
                store.get(key),
                store.put(key, b"2"),
                store.compare_and_swap(key, b"2", etag=None),
                store.delete(key),
            ):
                with pytest.raises(ForeignFileError, match=told):
                    await call
        assert [item.key for item in await store.keys("m/")] == ["m/k"]
        assert not list((root / ".moss" / "tmp").iterdir())

    run(root, body)


def test_what_is_none_of_ours_is_neither_listed_nor_touched(root: Path) -> None:
    async def body(store: FolderStore) -> None:
        await store.put("m/k", b"1")
        (root / "m" / "k (conflicted copy)").write_bytes(b"2")
        (root / "m" / "Thumbs.db").write_bytes(b"3")
        (root / "m" / ".hidden").write_bytes(b"4")
        (root / "m" / "link").symlink_to(root)
        assert [item.key for item in await store.keys("m/")] == ["m/k"]
        assert len(list((root / "m").iterdir())) == 5

    run(root, body)


def test_files_of_dead_writers_are_swept_and_those_of_living_ones_are_not(root: Path) -> None:
    temps = root / ".moss" / "tmp"
    temps.mkdir(parents=True)
    old, young = temps / ("0" * 32), temps / ("1" * 32)
    for path in (old, young):
        path.write_bytes(b"half a blob")
    long_ago = old.stat().st_mtime - TEMP_MAX_AGE_MS / 1000 - 60
    os.utime(old, (long_ago, long_ago))

    async def body(store: FolderStore) -> None:
        await store.put("m/k", b"1")
        assert list(temps.iterdir()) == [young]

    run(root, body)


def test_the_number_of_lock_files_does_not_grow_with_the_number_of_keys(root: Path) -> None:
    async def body(store: FolderStore) -> None:
        for number in range(3 * LOCK_STRIPES):
            await store.put(f"m/{number}", b"")
        assert len(list((root / ".moss" / "locks").iterdir())) <= LOCK_STRIPES

    run(root, body)


def test_a_listing_shows_the_new_etag_of_a_blob_that_was_replaced(root: Path) -> None:
    async def body(store: FolderStore) -> None:
        for number in range(20):  # equal sizes, within one tick of many a file system's clock
            etag = (await store.put("m/k", b"%02d" % number), (await store.get("m/k")))[1]
            assert isinstance(etag, Blob)
            assert [item.etag for item in await store.keys("m/")] == [etag.etag]

    run(root, body)


def test_a_listing_reads_the_folder_once_and_each_blob_once(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def paged(store: FolderStore) -> list[str]:
        found: list[str] = []
        while page := await store.keys("m/", start_after=found[-1] if found else "", limit=10):
            found += [listed.key for listed in page]
        return found

    async def body(store: FolderStore) -> None:
        keys = [f"m/{n:03}" for n in range(95)]
        for key in keys:
            await store.put(key, key.encode())
        walks, reads = 0, 0
        walk, read = FolderListing._walk, folder_listing.read_blob

        def walked(*place: Any) -> Any:
            nonlocal walks
            walks += 1
            return walk(*place)

        def was_read(*place: Any) -> Any:
            nonlocal reads
            reads += 1
            return read(*place)

        monkeypatch.setattr(FolderListing, "_walk", walked)
        monkeypatch.setattr(folder_listing, "read_blob", was_read)
        assert await paged(store) == await paged(store) == keys
        # Two listings, each with a last page that is empty and has nothing to go on from.
        assert (walks, reads) == (4, 95)

    run(root, body)


def test_a_page_shows_what_was_written_after_the_page_before(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(store: FolderStore) -> None:
        for n in range(0, 20, 2):
            await store.put(f"m/{n:03}", b"x")
        first = await store.keys("m/", limit=3)
        await store.put("m/009", b"own")
        assert "m/009" in [each.key for each in await store.keys("m/", start_after=first[-1].key)]
        again = await store.keys("m/", limit=3)
        assert again == first
        (root / "m" / "011").write_bytes(b"another process's")
        monkeypatch.setattr(folder_listing, "_WALK_AGE_S", 0.0)
        assert "m/011" in [each.key for each in await store.keys("m/", start_after=first[-1].key)]
        # What is removed meanwhile is not shown, at any age.
        monkeypatch.undo()
        await store.keys("m/", limit=3)
        (root / "m" / "011").unlink()
        assert "m/011" not in [each.key for each in await store.keys("m/", start_after="m/004")]

    run(root, body)


def test_a_file_over_the_limit_is_corrupt_and_not_read(root: Path) -> None:
    async def body(store: FolderStore) -> None:
        await store.put("k", b"")
        with open(root / "k", "wb") as file:
            file.truncate(MAX_BLOB_BYTES + 1)
        with pytest.raises(BlobCorruptError):
            await store.get("k")

    run(root, body)


FAULTS: list[tuple[int, type[MossError], str]] = [
    (errno.EACCES, PermissionDeniedError, "mode"),
    (errno.EROFS, PermissionDeniedError, "mount it for writing"),
    (errno.ENOSPC, NetworkError, "make room"),
    (errno.EIO, NetworkError, ""),
]


@pytest.mark.parametrize(("number", "kind", "hint"), FAULTS)
def test_a_disk_that_refuses_becomes_an_error_that_names_the_root_and_changes_nothing(
    root: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[MossError], hint: str
) -> None:
    def failing(fd: int, data: bytes) -> int:
        os.write(fd, data[: len(data) // 2])
        os.close(fd)
        raise OSError(number, os.strerror(number))

    async def body(store: FolderStore) -> None:
        etag = await swap(store, "m/k", b"old", None)
        monkeypatch.setattr(folder, "write_file", failing)
        for call in (
            store.put("m/k", b"newer"),
            store.compare_and_swap("m/k", b"newer", etag=etag),
        ):
            with pytest.raises(kind) as error:
                await call
            assert type(error.value) is kind
            assert str(root) in str(error.value)
            assert hint in str(error.value.hint)
        found = await store.get("m/k")
        assert isinstance(found, Blob)
        assert found.data == b"old"
        assert not list((root / ".moss" / "tmp").iterdir())

    run(root, body)


def test_a_disk_that_fails_after_the_replacement_leaves_the_outcome_open(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(folder: Folder) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(folder.path))

    async def body(store: FolderStore) -> None:
        etag = await swap(store, "m/k", b"old", None)
        monkeypatch.setattr(Folder, "sync", failing)
        with pytest.raises(OutcomeUnknownError):
            await store.compare_and_swap("m/k", b"new", etag=etag)
        # Read back now it would pass for committed, and its name might not outlast the power.
        with pytest.raises(NetworkError):
            await store.get("m/k")
        monkeypatch.undo()
        found = await store.get("m/k")
        assert isinstance(found, Blob)
        assert found.data == b"new"

    run(root, body)


def test_every_swap_syncs_its_own_name_whatever_other_threads_have_synced(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Emptied(set[Path]):
        """As if another thread had ended its sync in between, each time."""

        def add(self, element: Path) -> None:
            pass

    async def body(store: FolderStore) -> None:
        await swap(store, "m/a", b"1", None)
        store._unsynced = Emptied()
        synced: list[Path] = []
        real = Folder.sync

        def counted(folder: Folder) -> None:
            synced.append(folder.path)
            real(folder)

        monkeypatch.setattr(Folder, "sync", counted)
        for n in range(3):
            await swap(store, f"m/b{n}", b"1", None)
        assert synced == [root / "m"] * 3

    run(root, body)


def test_the_disk_is_never_touched_on_the_event_loop(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: set[int] = set()
    for name in ("open", "replace", "scandir", "unlink"):
        real = getattr(os, name)

        def noted(*args: Any, real: Callable[..., Any] = real, **kwargs: Any) -> Any:
            if any(str(root) in str(arg) for arg in args) or any(
                "dir_fd" in each for each in kwargs
            ):
                threads.add(threading.get_ident())
            return real(*args, **kwargs)

        monkeypatch.setattr(os, name, noted)

    async def body(store: FolderStore) -> None:
        await swap(store, "m/k", b"1", None)
        await store.put("m/k", b"2")
        await store.get("m/k")
        await store.keys("m/")
        await store.delete("m/k")
        assert threads
        assert threading.get_ident() not in threads

    run(root, body)


def test_a_store_known_to_hold_something_is_away_when_its_folder_is_gone_or_empty(
    root: Path,
) -> None:
    async def body(store: FolderStore) -> None:
        await store.put("m/k", b"1")
        store.must_exist = True
        with pytest.raises(BlobNotFoundError):
            await store.get("m/other")
        root.rename(root.with_name("unmounted"))
        for empty in (False, True):
            if empty:
                root.mkdir()
            for call in (
                store.get("m/k"),
                store.put("m/k", b"2"),
                store.compare_and_swap("m/k", b"2", etag=None),
                store.keys("m/"),
                store.delete("m/k"),
            ):
                with pytest.raises(NetworkError, match="does not hold the store"):
                    await call
        assert not list(root.iterdir())

    run(root, body)


def test_a_lock_that_another_process_keeps_makes_the_store_busy_and_changes_nothing(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder, "LOCK_WAIT_S", 0.01)

    async def body(store: FolderStore) -> None:
        etag = await swap(store, "m/k", b"old", None)
        (lock_file,) = (root / ".moss" / "locks").iterdir()
        with FileLock(lock_file):
            for call in (
                store.put("m/k", b"new"),
                store.compare_and_swap("m/k", b"new", etag=etag),
            ):
                with pytest.raises(StoreBusyError):
                    await call
            found = await store.get("m/k")  # readers need no lock
            assert isinstance(found, Blob)
            assert found.data == b"old"
        await swap(store, "m/k", b"new", etag)

    run(root, body)


def test_a_file_system_without_locks_is_refused(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    def missing(fd: int, operation: int) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    async def body(store: FolderStore) -> None:
        monkeypatch.setattr(fcntl, "flock", missing)
        with pytest.raises(StoreLacksCasError) as error:
            await store.compare_and_swap("m/k", b"1", etag=None)
        assert error.value.check == "file lock"
        with pytest.raises(BlobNotFoundError):
            await store.get("m/k")

    run(root, body)


COUNT = """
import asyncio, sys
from moss_sync.stores import FolderStore, Swapped
from moss_sync import BlobNotFoundError

async def main(root, times):
    store = FolderStore(root)
    while times:
        try:
            found = await store.get("m/counter")
            value, etag = int(found.data), found.etag
        except BlobNotFoundError:
            value, etag = 0, None
        answer = await store.compare_and_swap("m/counter", b"%d" % (value + 1), etag=etag)
        times -= isinstance(answer, Swapped)
    await store.close()

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


def test_processes_that_count_in_one_blob_lose_no_count(root: Path) -> None:
    processes, times = 5, 40
    running = [
        subprocess.Popen([sys.executable, "-c", COUNT, str(root), str(times)])
        for _ in range(processes)
    ]
    assert [process.wait() for process in running] == [0] * processes

    async def body(store: FolderStore) -> None:
        found = await store.get("m/counter")
        assert isinstance(found, Blob)
        assert int(found.data) == processes * times

    run(root, body)


# Says "<" before each swap and ">" after it, so that the test knows where the kill fell.
SWAP_FOR_EVER = """
import asyncio, hashlib, os, sys
from moss_sync.stores import FolderStore, Swapped

async def main(root, number):
    store = FolderStore(root)
    etag = (await store.get("m/k")).etag
    while True:
        number += 1
        content = b"%08d" % number + os.urandom(200_000)
        body = content + hashlib.blake2b(content).digest()
        os.write(1, b"<")
        answer = await store.compare_and_swap("m/k", body, etag=etag)
        os.write(1, b">")
        assert isinstance(answer, Swapped)
        etag = answer.etag

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


def test_who_may_read_a_blob_and_not_its_folder_reads_it(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(folder: Folder) -> None:
        raise OSError(errno.EACCES, "Permission denied", str(folder.path))

    async def body(store: FolderStore) -> None:
        await store.put("m/k", b"content")
        with monkeypatch.context() as patch:
            patch.setattr(Folder, "sync", refused)
            found = await store.get("m/k")
        assert isinstance(found, Blob)
        assert found.data == b"content"

    run(root, body)


def test_a_process_killed_at_any_moment_leaves_whole_blobs_and_no_lock(root: Path) -> None:
    from hashlib import blake2b

    rng = random.Random()
    inside = 0
    number = 0

    def stored(data: bytes) -> int:
        content, digest = data[:-64], data[-64:]
        assert blake2b(content).digest() == digest, "torn"
        return int(content[:8])

    async def body(store: FolderStore) -> None:
        nonlocal inside, number
        content = b"%08d" % 0
        await store.put("m/k", content + blake2b(content).digest())
        for _ in range(KILLS):
            child = subprocess.Popen(
                [sys.executable, "-c", SWAP_FOR_EVER, str(root), str(number)],
                stdout=subprocess.PIPE,
            )
            assert child.stdout is not None
            said = child.stdout.read(rng.randint(1, 12))
            child.kill()
            said += child.stdout.read()
            child.stdout.close()
            assert child.wait() == -9
            inside += said.endswith(b"<")
            found = await store.get("m/k")
            assert isinstance(found, Blob)
            # Everything acknowledged is there; the one in flight may be.
            assert stored(found.data) - number in (said.count(b">"), said.count(b"<"))
            number = stored(found.data) + 1
            content = b"%08d" % number
            await swap(store, "m/k", content + blake2b(content).digest(), found.etag)
            assert [item.key for item in await store.keys("m/")] == ["m/k"]

    run(root, body)
    assert inside >= KILLS // 5, f"only {inside} of {KILLS} kills fell inside a swap"
