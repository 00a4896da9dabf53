"""A disk that is full or fails, at every single change of a file that a scene makes, or reading.

The scene opens a new session, writes, changes and deletes, pushes, merges another device's push,
and closes. Whatever the disk refuses: the error is of our tree and names the file, whatever was
acknowledged is there afterwards, the file is whole, and the same session goes on when the disk is
mended, and ends where the other device ends.
"""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from moss_local.errors import DiskFullError
from moss_local.storage.checkup import check_file
from moss_sync import MossError
from moss_sync.stores.memory import MemoryStore
from tests.devices import Device
from tests.machine.faulty_disk import Disk, Fault, disk_in_place

STEPS = 8


class Scene:
    """The steps, each done once it has been acknowledged, and what must be there since."""

    def __init__(self, path: Path, store: MemoryStore, other: Device) -> None:
        self.path, self.store, self.other = path, store, other
        self.device: Device | None = None
        self.done = 0
        self.must: dict[str, str] = {}

    async def go_on(self) -> None:
        """Do what is left; what raises is left to be done again."""
        while self.done < STEPS:
            await self._step(self.done)
            self.done += 1

    async def _step(self, number: int) -> None:
        if self.device is None:
            self.device = Device(self.path, self.store, seed=1)
        device = self.device
        if number == 0:
            device.put("a", "first")
            self.must["a"] = "first"
        elif number == 1:
            device.put("b", "long " * 2_000)
            self.must["b"] = "long " * 2_000
        elif number == 2:
            device.put("a", "changed")
            self.must["a"] = "changed"
        elif number in (3, 7):
            await device.engine.push()
        elif number == 4:
            device.delete("b")
            self.must.pop("b")
        elif number == 5:
            await self.other.engine.pull()
            self.other.put("c", "from elsewhere")
            await self.other.engine.push()
        elif number == 6:
            await device.engine.pull()
            self.must["c"] = "from elsewhere"

    def assert_kept(self) -> None:
        """Everything acknowledged is there; the step that failed has happened wholly or not."""
        assert self.device is not None
        texts = self.device.texts
        assert {id: texts.get(id) for id in self.must} == self.must
        with self.device.file.writing() as conn:
            assert check_file(conn) == []

    def close(self) -> None:
        if self.device is not None:
            self.device.close()


def run_once(directory: Path, disk: Disk, at: int | None, fault: Fault, *, lasting: bool) -> int:
    """Run the scene with a fault at one change; return how many changes were refused."""
    directory.mkdir()
    store = MemoryStore()
    disk.mend()
    other = Device(directory / "other.sqlite3", store, seed=2)
    scene = Scene(directory / "here.sqlite3", store, other)
    disk.break_at(1 << 60 if at is None else at, fault, lasting=lasting)
    error: MossError | None = None
    try:
        asyncio.run(scene.go_on())
    except MossError as raised:
        error = raised
    refused = disk.refused
    disk.mend()
    if error is not None:
        assert isinstance(error, DiskFullError)
        assert str(directory) in str(error)
        assert error.hint
        assert refused
        if scene.device is not None:
            scene.assert_kept()
        asyncio.run(scene.go_on())
    scene.assert_kept()
    asyncio.run(other.engine.pull())
    assert other.texts == scene.must
    scene.close()
    other.close()
    return refused


@pytest.mark.parametrize(
    ("fault", "lasting", "every"),
    [
        ("full", True, 1),
        ("io", False, 1),
        ("full", False, 5),
        ("io", True, 5),
        ("read", False, 3),
        ("read", True, 5),
    ],
)
def test_a_fault_of_the_disk_at_any_change_loses_nothing_and_the_session_goes_on(
    tmp_path: Path, fault: Fault, lasting: bool, every: int
) -> None:
    with disk_in_place() as disk:
        disk.only = "here.sqlite3"
        run_once(tmp_path / "whole", disk, None, fault, lasting=lasting)
        changes = disk.changes
        assert changes > 100
        points = range(0, changes, every)
        hit = 0
        for at in points:
            hit += run_once(tmp_path / str(at), disk, at, fault, lasting=lasting) > 0
            shutil.rmtree(tmp_path / str(at))
    print(f"disk fault ({fault}, {'lasting' if lasting else 'once'}): {hit} injected, 0 lost")
    assert hit > len(points) // 2
