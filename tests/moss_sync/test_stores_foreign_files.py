"""What lies in a folder store and is not the store's: never followed, waited for or removed.

Links, named pipes, sockets, folders, files that are too big or not to be read, each in the place of
everything that a store has. Whatever is asked for by name is named in an error; the rest goes on.
"""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from moss_sync import (
    BlobCorruptError,
    BlobDeniedError,
    ForeignFileError,
    NetworkError,
)
from moss_sync.stores import (
    MAX_BLOB_BYTES,
    Blob,
    FolderStore,
    Swapped,
    beneath,
    folder_blob,
    folder_listing,
)
from moss_sync.stores.folder import LOCK_STRIPES, TEMP_MAX_AGE_MS, is_left_behind

OTHERS = b"somebody else's"


@pytest.fixture(params=["descriptors", "paths"])
def root(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store's root, reached through a link; what is in it once as on Windows."""
    monkeypatch.setattr(beneath, "DESCRIPTORS", request.param == "descriptors")
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    return tmp_path / "link" / "root"


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder of somebody else, with the shape of a store."""
    folder = tmp_path / "outside"
    for key in ("k", "m/k", "tmp/k", "locks/k"):
        path = folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(OTHERS)
    return folder


def run(root: Path, body: Callable[[FolderStore], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        store = FolderStore(root)
        try:
            async with asyncio.timeout(20):
                await body(store)
        finally:
            await store.close()

    asyncio.run(main())


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def link_to_file(path: Path, outside: Path) -> None:
    path.symlink_to(outside / "k")


def link_to_folder(path: Path, outside: Path) -> None:
    path.symlink_to(outside)


def link_to_nothing(path: Path, outside: Path) -> None:
    path.symlink_to(outside / "nothing")


def link_to_itself(path: Path, outside: Path) -> None:
    path.symlink_to(path.name)


def pipe(path: Path, outside: Path) -> None:
    os.mkfifo(path)


def unix_socket(path: Path, outside: Path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)  # the path of a socket may not be long
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


def device(path: Path, outside: Path) -> None:
    try:
        os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3))
    except PermissionError:
        path.symlink_to("/dev/null")  # only the superuser makes devices; a link to one is a link


def folder(path: Path, outside: Path) -> None:
    path.mkdir()


def file(path: Path, outside: Path) -> None:
    path.write_bytes(OTHERS)


LINKS = (link_to_file, link_to_folder, link_to_nothing, link_to_itself)
NO_FILES = (*LINKS, pipe, unix_socket, device, folder)
NO_FOLDERS = (*LINKS, pipe, unix_socket, device, file)

Plant = Callable[[Path, Path], None]


def verbs(store: FolderStore, key: str) -> Iterator[tuple[str, Coroutine[Any, Any, Any]]]:
    yield "get", store.get(key)
    yield "put", store.put(key, b"new")
    yield "compare_and_swap", store.compare_and_swap(key, b"new", etag=None)
    yield "delete", store.delete(key)


@pytest.mark.parametrize("plant", NO_FILES)
def test_what_is_no_file_in_the_place_of_a_blob_is_named_and_stops_nothing_else(
    root: Path, outside: Path, plant: Plant
) -> None:
    before = contents(outside)

    async def body(store: FolderStore) -> None:
        await store.put("m/other", b"1")
        plant(root / "m" / "k", outside)
        about = os.lstat(root / "m" / "k")
        for _, call in verbs(store, "m/k"):
            with pytest.raises(ForeignFileError, match="'m/k' in the store") as error:
                await call
            assert f"mv -- {root / 'm' / 'k'} ELSEWHERE" in str(error.value.hint)
            assert not error.value.retryable
        assert os.path.samestat(os.lstat(root / "m" / "k"), about)
        # The others are as they were, and it is told of apart from them.
        assert [each.key for each in await store.keys("m/")] == ["m/other"]
        assert list(await store.strays("m/", folders=True)) == ["m/k"]
        other = await store.get("m/other")
        assert isinstance(other, Blob)
        assert isinstance(await store.compare_and_swap("m/other", b"2", etag=other.etag), Swapped)
        await store.put("m/new", b"3")
        await store.delete("m/other")

    run(root, body)
    assert contents(outside) == before


@pytest.mark.parametrize("plant", NO_FOLDERS)
def test_what_is_no_folder_in_the_place_of_one_is_named_and_stops_nothing_else(
    root: Path, outside: Path, plant: Plant
) -> None:
    before = contents(outside)

    async def body(store: FolderStore) -> None:
        await store.put("p/s/other", b"1")
        plant(root / "p" / "m", outside)
        calls = [*verbs(store, "p/m/k"), ("keys", store.keys("p/m/"))]
        for _, call in [*calls, ("strays", store.strays("p/m/"))]:
            with pytest.raises(ForeignFileError, match="'p/m' in the store"):
                await call
        assert [each.key for each in await store.keys("p/s/")] == ["p/s/other"]
        await store.put("p/s/new", b"2")
        assert ("p/m" in await store.strays("p/")) == (plant is not file)

    run(root, body)
    assert contents(outside) == before


@pytest.mark.parametrize("plant", NO_FOLDERS)
@pytest.mark.parametrize("place", [".moss", ".moss/tmp", ".moss/locks"])
def test_what_is_no_folder_in_the_place_of_a_working_folder_is_named_and_reading_goes_on(
    root: Path, outside: Path, place: str, plant: Plant
) -> None:
    before = contents(outside)

    async def body(store: FolderStore) -> None:
        await store.put("m/k", b"1")
        (root / place).rename(root / "away")
        plant(root / place, outside)
        for call in (store.put("m/k", b"2"), store.compare_and_swap("m/k", b"2", etag=None)):
            with pytest.raises(ForeignFileError, match=f"'{place}' in the store"):
                await call
        found = await store.get("m/k")
        assert isinstance(found, Blob)
        assert found.data == b"1"
        assert [each.key for each in await store.keys("m/")] == ["m/k"]

    run(root, body)
    assert contents(outside) == before


@pytest.mark.parametrize("plant", NO_FILES)
def test_what_is_no_file_in_the_place_of_a_lock_is_named_and_not_opened(
    root: Path, outside: Path, plant: Plant
) -> None:
    before = contents(outside)

    async def body(store: FolderStore) -> None:
        await store.put("m/k", b"1")
        (lock,) = (root / ".moss" / "locks").iterdir()
        lock.unlink()
        plant(lock, outside)
        for call in (store.put("m/k", b"2"), store.compare_and_swap("m/k", b"2", etag=None)):
            with pytest.raises(ForeignFileError, match=f"'.moss/locks/{lock.name}' in the store"):
                await call
        assert not list((root / ".moss" / "tmp").iterdir())
        await store.put("m/of-another-lock-file", b"3")

    run(root, body)
    assert contents(outside) == before


def test_a_second_name_of_somebody_s_file_is_locked_and_replaced_and_the_file_is_as_it_was(
    root: Path, outside: Path
) -> None:
    async def body(store: FolderStore) -> None:
        await store.put("m/k", b"1")
        for path in ((root / "m" / "k"), *(root / ".moss" / "locks").iterdir()):
            path.unlink()
            os.link(outside / "k", path)
        await store.put("m/k", b"2")
        assert (root / "m" / "k").read_bytes() == b"2"
        assert (outside / "k").read_bytes() == OTHERS

    run(root, body)


def test_only_left_files_of_this_user_with_a_name_of_ours_are_swept(
    root: Path, outside: Path
) -> None:
    temps = root / ".moss" / "tmp"
    temps.mkdir(parents=True)
    name = "0123456789abcdef" * 2
    file(temps / name, outside)
    link_to_file(temps / name.replace("0", "1"), outside)
    link_to_folder(temps / name.replace("0", "2"), outside)
    pipe(temps / name.replace("0", "3"), outside)
    folder(temps / name.replace("0", "4"), outside)
    for other in ("letter.txt", name.upper(), name[1:], name + "0", f"{name}\n", "tmp"):
        file(temps / other, outside)
    about = os.lstat(temps / name)
    old = about.st_mtime - TEMP_MAX_AGE_MS / 1000 - 60
    for path in temps.iterdir():
        os.utime(path, (old, old), follow_symlinks=False)
    others = {path.name for path in temps.iterdir()} - {name}
    before = contents(outside)

    async def body(store: FolderStore) -> None:
        await store.put("m/k", b"1")
        assert {path.name for path in temps.iterdir()} == others

    run(root, body)
    assert contents(outside) == before


def test_a_file_of_another_user_is_not_left_behind(tmp_path: Path) -> None:
    path = tmp_path / ("0" * 32)
    path.touch()
    about = path.stat()
    later = about.st_mtime_ns // 1_000_000 + TEMP_MAX_AGE_MS + 1
    user = about.st_uid
    assert is_left_behind(path.name, about, user=user, now_ms=later)
    assert not is_left_behind(path.name, about, user=user + 1, now_ms=later)
    assert not is_left_behind(path.name, about, user=user, now_ms=later - 2)


def test_a_sparse_file_in_the_place_of_a_blob_is_not_read_and_stops_no_listing(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = 0
    real = folder_listing.read_blob

    def counted(*place: Any) -> bytes:
        nonlocal read
        data = real(*place)
        read += len(data)
        return data

    monkeypatch.setattr(folder_listing, "read_blob", counted)

    async def body(store: FolderStore) -> None:
        await store.put("m/other", b"1")
        with open(root / "m" / "k", "wb") as huge:
            huge.truncate(100 * 1024**3)
        with pytest.raises(BlobCorruptError, match=r"'m/k' .* no blob has more") as error:
            await store.get("m/k")
        assert "mv -- " in str(error.value.hint)
        with pytest.raises(BlobCorruptError):
            await store.compare_and_swap("m/k", b"2", etag=None)
        listed = {each.key: each.size for each in await store.keys("m/")}
        assert listed == {"m/k": 100 * 1024**3, "m/other": 1}
        assert read == 1

    run(root, body)


def test_a_file_that_grows_while_it_is_read_is_read_no_further_than_a_blob_goes(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(store: FolderStore) -> None:
        await store.put("m/k", b"1")
        check = folder_blob.check_length

        def grows(folder: beneath.Folder, name: str, size: int) -> None:
            check(folder, name, size)
            os.truncate(root / "m" / "k", 10 * MAX_BLOB_BYTES)

        monkeypatch.setattr(folder_blob, "check_length", grows)
        with pytest.raises(BlobCorruptError, match=f"{MAX_BLOB_BYTES + 1} bytes or more"):
            await store.get("m/k")

    run(root, body)


def test_a_blob_that_may_not_be_read_is_named_and_stops_no_listing(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def denied(path: Any, flags: int, *args: Any, **options: Any) -> int:
        if Path(path).name == "k" and not flags & os.O_CREAT:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, flags, *args, **options)

    async def body(store: FolderStore) -> None:
        await store.put("m/k", b"1")
        await store.put("m/other", b"22")
        monkeypatch.setattr(os, "open", denied)
        with pytest.raises(BlobDeniedError, match=r"'m/k' .* may not be read") as error:
            await store.get("m/k")
        assert error.value.code == "PERMISSION_DENIED"
        assert [(each.key, each.size) for each in await store.keys("m/")] == [
            ("m/k", 1),
            ("m/other", 2),
        ]

    run(root, body)


NAMES = (
    "K",
    "k ",
    ".k",
    "k (conflicted copy)",
    "k\n",
    "\x1b[31mk",
    "\u202ek",
    "k" * 201,
    "ä",
    "\udcff",
)


def test_odd_names_are_no_keys_and_are_told_of(root: Path) -> None:
    async def body(store: FolderStore) -> None:
        await store.put("m/k", b"1")
        for name in NAMES:
            file(root / "m" / name, root)
        assert [each.key for each in await store.keys("m/")] == ["m/k"]
        assert set(await store.strays("m/")) == {f"m/{name}" for name in NAMES}

    run(root, body)


@pytest.mark.parametrize("plant", NO_FILES)
def test_what_a_blob_turns_into_between_two_looks_is_not_followed(
    root: Path, outside: Path, plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = beneath.Folder.about

    def turning(place: beneath.Folder, name: str) -> os.stat_result:
        about = real(place, name)
        if name == "k" and stat.S_ISREG(about.st_mode):
            (root / "m" / "k").unlink()
            plant(root / "m" / "k", outside)
        return about

    async def body(store: FolderStore) -> None:
        await store.put("m/k", b"1")
        monkeypatch.setattr(beneath.Folder, "about", turning)
        with pytest.raises(ForeignFileError):
            await store.get("m/k")

    run(root, body)


def test_a_folder_that_turns_into_a_link_while_it_is_used_is_used_as_it_was_opened(
    tmp_path: Path, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "root"
    before = contents(outside)
    real = beneath.Folder.move

    def turning(temps: beneath.Folder, name: str, into: beneath.Folder, to: str) -> None:
        (root / "m").rename(root / "as-it-was")
        link_to_folder(root / "m", outside)
        (root / ".moss" / "tmp").rename(root / "temps")
        link_to_folder(root / ".moss" / "tmp", outside)
        real(temps, name, into, to)

    async def body(store: FolderStore) -> None:
        await store.put("m/other", b"1")
        monkeypatch.setattr(beneath.Folder, "move", turning)
        await store.put("m/k", b"2")
        assert (root / "as-it-was" / "k").read_bytes() == b"2"
        assert not list((root / "temps").iterdir())

    run(root, body)
    assert contents(outside) == before


def test_a_root_that_leads_nowhere_is_a_disk_that_is_away(tmp_path: Path) -> None:
    (tmp_path / "root").symlink_to(tmp_path / "unmounted" / "root")

    async def body(store: FolderStore) -> None:
        with pytest.raises(NetworkError, match="a link to a place that is not there"):
            await store.put("m/k", b"1")

    run(tmp_path / "root", body)


def test_who_gives_a_call_up_does_not_wait_for_its_lock(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("moss_sync.stores.folder.LOCK_WAIT_S", 60.0)  # the test waits for 20

    async def body(store: FolderStore) -> None:
        for number in range(3 * LOCK_STRIPES):
            await store.put(f"m/{number}", b"")
        locks = [FileLock(path) for path in (root / ".moss" / "locks").iterdir()]
        for lock in locks:
            lock.acquire()
        task = asyncio.create_task(store.put("m/0", b"new"))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await store.close()  # waits for the threads, of which none waits for 30 s
        assert not any(each.name.startswith("moss-folder") for each in threading.enumerate())
        for lock in locks:
            lock.release()

    run(root, body)


def test_who_gives_a_listing_up_does_not_wait_for_the_blobs_that_are_yet_to_be_hashed(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand files of the greatest length that a blob may have take minutes."""
    begun, go_on = threading.Event(), threading.Event()
    hashed = 0

    def slow(folder: beneath.Folder, name: str) -> bytes:
        nonlocal hashed
        hashed += 1
        begun.set()
        go_on.wait(20)
        return b""

    async def body(store: FolderStore) -> None:
        for number in range(40):
            await store.put(f"m/{number:02}", b"")
        monkeypatch.setattr(folder_listing, "read_blob", slow)
        task = asyncio.create_task(store.keys("m/"))
        await asyncio.to_thread(begun.wait, 20)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        go_on.set()
        await store.close()  # waits for the thread, which is at its first blob
        assert hashed == 1

    run(root, body)


WITH_A_PIPE = """
import asyncio, sys
from moss_sync.stores import FolderStore
from moss_sync import MossError

async def main():
    store = FolderStore(sys.argv[1])
    for call in (store.get("p/m/k"), store.put("p/m/k", b"1"), store.keys("p/m/"),
                 store.compare_and_swap("p/m/k", b"1", etag=None), store.delete("p/m/k"),
                 store.strays("p/m/")):
        try:
            await call
        except MossError as error:
            print(error.code)
    await store.close()

asyncio.run(main())
"""


@pytest.mark.parametrize("place", ["p", "p/m", "p/m/k", ".moss", ".moss/tmp", ".moss/locks/lock"])
def test_a_process_ends_whatever_a_pipe_stands_in_the_place_of(tmp_path: Path, place: str) -> None:
    root = tmp_path / "root"
    asyncio.run(_filled(root))
    if place.endswith("/lock"):
        (path,) = (root / ".moss" / "locks").iterdir()
    else:
        path = root / place
    path.rename(tmp_path / "away")
    os.mkfifo(path)
    done = subprocess.run(
        [sys.executable, "-c", WITH_A_PIPE, str(root)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) == {"FOREIGN_FILE"}


async def _filled(root: Path) -> None:
    store = FolderStore(root)
    await store.put("p/m/k", b"1")
    await store.close()
