"""The power of the machine that keeps a folder store is cut: what was acknowledged is in the store.

What is there afterwards is what was synced, and any part of what was not: a file's bytes only after
its own fsync, its name only after the folder's. The devices' own files are whole; they go on.
"""

from __future__ import annotations

import asyncio
import errno
import os
import random
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from moss_local import DocumentInfo, MossClient, MossError, SessionIndex
from moss_sync.stores.base import Blob
from moss_sync.stores.beneath import Folder
from moss_sync.stores.folder import FolderStore
from tests.keys import KEY

CUTS = int(os.environ.get("CUTS", "40"))

LONG = {str(n): random.Random(n).randbytes(9_000).hex() for n in range(9)}
"""Too long for the manifest: every other push is a segment of its own."""


@dataclass
class Inode:
    content: bytes = b""
    synced: bool = False


@dataclass
class Naming:
    """A change of a name: made, given to a file, or taken away (`inode` is None)."""

    path: Path
    inode: Inode | None
    is_folder: bool = False
    durable: bool = False


@dataclass
class Disk:
    """`os` as the store sees it, and what of its doings would survive.

    Attributes:
        root: What lies elsewhere is on other disks.
        cut_at: The power goes before the change of this number: it and all later calls fail.
    """

    root: Path
    changes: int = 0
    cut_at: int | None = None
    namings: list[Naming] = field(default_factory=list)
    _open: dict[int, Path] = field(default_factory=dict)
    _files: dict[Path, Inode] = field(default_factory=dict)
    _lock: threading.RLock = field(default_factory=threading.RLock)
    """Two exchanges at once take turns, call by call: a call and what is noted of it are one."""

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    @property
    def is_cut(self) -> bool:
        return self.cut_at is not None and self.changes >= self.cut_at

    def change(self) -> None:
        self.check()
        self.changes += 1

    def check(self) -> None:
        if self.is_cut:
            raise OSError(errno.EIO, "the power is cut")

    def has(self, path: str | Path) -> bool:
        return Path(path).is_relative_to(self.root)

    def open(self, path: Path, flags: int, *mode: int, dir_fd: int | None = None) -> int:
        with self._lock:
            return self._open_file(path, flags, *mode, dir_fd=dir_fd)

    def _open_file(self, name: Path, flags: int, *mode: int, dir_fd: int | None) -> int:
        path = self._whole(name, dir_fd)
        if not self.has(path) and path != self.root.parent:  # which has the root's name
            return os.open(name, flags, *mode, dir_fd=dir_fd)
        makes = bool(flags & os.O_CREAT) and not path.exists()
        if makes:
            self.change()
        else:
            self.check()
        fd = os.open(name, flags, *mode, dir_fd=dir_fd)
        self._open[fd] = path
        if makes:
            self._files[path] = inode = Inode()
            self.namings.append(Naming(path, inode))
        return fd

    def _whole(self, name: str | Path, dir_fd: int | None) -> Path:
        return Path(name) if dir_fd is None else self._open.get(dir_fd, Path()) / name

    def close(self, fd: int) -> None:
        with self._lock:
            self._open.pop(fd, None)
            os.close(fd)

    def write(self, fd: int, data: Any) -> int:
        with self._lock:
            if fd not in self._open:
                return os.write(fd, data)
            self.change()
            written = os.write(fd, data)
            self._files[self._open[fd]].content += bytes(data[:written])
            return written

    def fsync(self, fd: int) -> None:
        with self._lock:
            path = self._open.get(fd)
            if path is not None:
                self.change()
                if path in self._files:
                    self._files[path].synced = True
                for naming in self.namings:
                    naming.durable |= naming.path.parent == path
            os.fsync(fd)

    def replace(
        self,
        source: str | Path,
        target: str | Path,
        *,
        src_dir_fd: int | None = None,
        dst_dir_fd: int | None = None,
    ) -> None:
        with self._lock:
            before, after = self._whole(source, src_dir_fd), self._whole(target, dst_dir_fd)
            if self.has(after):
                self.change()
                self._files[after] = inode = self._files.pop(before)
                self.namings += [Naming(after, inode), Naming(before, None)]
            os.replace(source, target, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    def unlink(self, name: str, *, dir_fd: int | None) -> None:
        with self._lock:
            self.change()
            path = self._whole(name, dir_fd)
            os.unlink(name, dir_fd=dir_fd)
            self._files.pop(path, None)
            self.namings.append(Naming(path, None))

    def mkdir(self, name: str, mode: int, *, dir_fd: int | None) -> None:
        path = self._whole(name, dir_fd)
        self.make_folder(path, partial(os.mkdir, name, mode, dir_fd=dir_fd))

    def make_folder(self, path: Path, make: Callable[[], None]) -> None:
        with self._lock:
            self.change()
            self.namings.append(Naming(path, None, is_folder=True))
            make()

    def after_the_cut(self, chance: random.Random) -> None:
        """Leave in `root` what the disk has kept."""
        shutil.rmtree(self.root, ignore_errors=True)
        share = chance.choice([0.0, 0.2, 0.8, 1.0])
        kept = [each for each in self.namings if each.durable or chance.random() < share]
        if chance.random() < 0.5:  # a journal that keeps the order: then a prefix
            last = max((n for n, each in enumerate(self.namings) if each.durable), default=-1)
            kept = self.namings[: chance.randint(last + 1, len(self.namings))]
        names: dict[Path, Inode | None] = {}
        for naming in kept:
            if not naming.is_folder:
                names[naming.path] = naming.inode
            elif naming.path.parent.is_dir():
                naming.path.mkdir(exist_ok=True)
        for path, inode in names.items():
            if inode is not None and path.parent.is_dir():
                size = len(inode.content)
                left = size if inode.synced else chance.choice([0, chance.randint(0, size), size])
                path.write_bytes(inode.content[:left])


@contextmanager
def disk_below(root: Path) -> Iterator[Disk]:
    """Put a disk in place of the store's `os`, and of the method of paths that makes its root."""
    disk = Disk(root)
    mkdir = Path.mkdir

    def made(path: Path, *arguments: Any, **options: Any) -> None:
        make = partial(mkdir, path, *arguments, **options)
        if disk.has(path):
            disk.make_folder(path, make)
        else:
            make()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("moss_sync.stores.folder.os", disk)
        patch.setattr("moss_sync.stores.beneath.os", disk)
        patch.setattr("moss_sync.stores.folder_blob.os", disk)
        patch.setattr("moss_sync.stores.durable.os", disk)
        patch.setattr(Path, "mkdir", made)
        yield disk


async def until_the_cut(folder: Path, disk: Disk) -> tuple[set[str], set[str], set[str]]:
    """Return what was written, what of that is acknowledged by the store, and what is forgotten."""
    written: set[str] = set()
    pushed: set[str] = set()
    forgotten: set[str] = set()
    one, two = await opened(folder, "one"), await opened(folder, "two")
    for number in range(9):
        _, mine = (one, two)[number % 2]
        id = f"{number}"
        await mine.add_docs([DocumentInfo(id, f"turn {id} {LONG[id]}", None, [1.0, 2.0])])
        written.add(id)
        before = {each.id for each in await mine.get_docs()}
        try:
            if number % 3 == 2:
                await mine.pull()
            if number == 7:
                await mine.forget(["2"])
                forgotten = {"2"}
            await mine.push_index()
            pushed |= before
        except MossError:
            assert disk.is_cut
            if number == 7 and "2" in before:
                forgotten = {"2"}  # it is gone here in any case
    for client, _ in (one, two):
        await client.close(timeout=0)
    return written, pushed, forgotten


async def together_until_the_cut(folder: Path, disk: Disk) -> tuple[set[str], set[str], set[str]]:
    """The same of two devices that push at once, without forgetting."""
    written: set[str] = set()
    pushed: set[str] = set()

    async def turns(session: SessionIndex, numbers: range) -> None:
        for number in numbers:
            id = f"{number}"
            await session.add_docs([DocumentInfo(id, f"turn {id} {LONG[id]}", None, [1.0, 2.0])])
            written.add(id)
            before = {each.id for each in await session.get_docs()}
            try:
                await session.push_index()
                pushed.update(before)
            except MossError:
                assert disk.is_cut

    devices = await opened(folder, "one"), await opened(folder, "two")
    await asyncio.gather(*(turns(mine, range(n, 8, 2)) for n, (_, mine) in enumerate(devices)))
    for client, _ in devices:
        await client.close(timeout=0)
    return written, pushed, set()


def store_in(folder: Path) -> Path:
    return folder / "disk" / "store"


async def opened(folder: Path, device: str) -> tuple[MossClient, SessionIndex]:
    place = store_in(folder).parent  # which is on the store's disk too
    place.mkdir(parents=True, exist_ok=True)
    client = MossClient("p", KEY, store=store_in(folder), data_dir=folder / device)
    return client, await client.session("s", "custom", auto_load_on_init=False, warm_up=False)


async def ids_of(session: SessionIndex) -> set[str]:
    return {each.id for each in await session.get_docs()}


async def after_the_cut(
    folder: Path, written: set[str], pushed: set[str], forgotten: set[str]
) -> None:
    fresh, theirs = await opened(folder, "fresh")
    await theirs.pull()
    assert pushed - forgotten <= await ids_of(theirs)
    devices = [await opened(folder, "one"), await opened(folder, "two"), (fresh, theirs)]
    for _ in range(2):
        for _, session in devices:
            await session.sync()
    for client, session in devices:
        assert await ids_of(session) == written - forgotten
        assert session.sync_state.pending == 0
        await client.close()


def test_what_the_store_acknowledged_is_there_after_a_power_cut_and_devices_go_on(
    tmp_path: Path,
) -> None:
    with disk_below(store_in(tmp_path / "whole")) as whole:
        written, pushed, forgotten = asyncio.run(until_the_cut(tmp_path / "whole", whole))
    assert (len(written), pushed | forgotten, forgotten) == (9, written, {"2"})
    assert whole.changes > 120
    chance, lost, was_cut = random.Random(20_261_128), 0, 0
    for number in range(CUTS):
        folder = tmp_path / str(number)
        root = store_in(folder)
        with disk_below(root) as disk:
            disk.cut_at = chance.randrange(whole.changes)
            told = asyncio.run(until_the_cut(folder, disk))
            assert disk.changes <= disk.cut_at
            was_cut += disk.is_cut
        before = {path for path in root.rglob("*") if path.is_file() and path.name != "lock"}
        disk.after_the_cut(chance)
        lost += not before <= set(root.rglob("*"))
        asyncio.run(after_the_cut(folder, *told))
    print(f"folder store, power cut: {was_cut} cuts, {lost} took names away, 0 lost")
    assert was_cut > 0.9 * CUTS
    assert lost > CUTS // 10, "no cut has lost anything: it is not tried what happens then"


def test_the_same_of_two_devices_that_push_at_once(tmp_path: Path) -> None:
    with disk_below(store_in(tmp_path / "whole")) as whole:
        written, pushed, _ = asyncio.run(together_until_the_cut(tmp_path / "whole", whole))
    assert (len(written), pushed) == (8, written)
    chance, was_cut = random.Random(20_261_129), 0
    for number in range(CUTS):
        folder = tmp_path / str(number)
        with disk_below(store_in(folder)) as disk:
            disk.cut_at = chance.randrange(whole.changes)
            told = asyncio.run(together_until_the_cut(folder, disk))
            was_cut += disk.is_cut
        disk.after_the_cut(chance)
        asyncio.run(after_the_cut(folder, *told))
    print(f"folder store, power cut, two at once: {was_cut} cuts, 0 lost")
    assert was_cut > 0.6 * CUTS


@pytest.mark.parametrize("verb", ["put", "swap"])
def test_what_somebody_has_read_is_there_after_a_power_cut(tmp_path: Path, verb: str) -> None:
    """A name is seen before it lasts, and whoever sees it goes on from it: answers for what is in
    it, or names it in a manifest."""

    def failing(folder: Folder) -> None:
        if folder.inside == "m":  # which has the blob's name
            raise OSError(errno.EIO, "the power is cut", str(folder.path))

    async def story() -> None:
        one, two = FolderStore(tmp_path / "store"), FolderStore(tmp_path / "store")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Folder, "sync", failing)
            write = one.put if verb == "put" else partial(one.compare_and_swap, etag=None)
            with pytest.raises(MossError):
                await write("m/key", b"content")
        blob = await two.get("m/key")
        assert isinstance(blob, Blob)
        assert blob.data == b"content"
        for store in (one, two):
            await store.close()

    with disk_below(tmp_path / "store") as disk:
        asyncio.run(story())
    path = tmp_path / "store" / "m" / "key"
    assert [each.durable for each in disk.namings if each.path == path] == [True]
