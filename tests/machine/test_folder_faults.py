"""A folder store on a disk that is full, fails, or may not be written, at every single call."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from moss_local import DocumentInfo, MossClient, MossError, SessionIndex
from tests.keys import KEY

EVERY = int(os.environ.get("EVERY", "17"))
"""Each so manieth call fails; 1 takes ten minutes."""

CALLS = ("open", "write", "fsync", "replace", "unlink", "mkdir", "scandir", "stat", "fstat")


class FailingOs:
    """`os` as the store sees it: from the so manieth call on, one call fails, or all do.

    Attributes:
        calls: How many there were; refused: how many of them failed.
    """

    def __init__(self) -> None:
        self.calls = self.refused = 0
        self.fails_from: int | None = None
        self.lasting = False
        self.error = errno.EIO
        self._open: set[int] = set()

    def _is_the_stores(self, target: Any, options: dict[str, Any]) -> bool:
        folder = options.get("dir_fd", options.get("src_dir_fd"))
        if isinstance(target, int) or folder is not None:
            return (target if folder is None else folder) in self._open
        return "store" in Path(target).parts  # the devices' own files are on other disks

    def close(self, fd: int) -> None:
        self._open.discard(fd)
        os.close(fd)

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        if name not in CALLS:
            return real

        def call(*args: Any, **kwargs: Any) -> Any:
            if not self._is_the_stores(args[0], kwargs):
                return real(*args, **kwargs)
            number, first = self.calls, self.fails_from
            self.calls += 1
            if first is not None and (number == first or (self.lasting and number > first)):
                self.refused += 1
                raise OSError(self.error, os.strerror(self.error), str(args[0]))
            answer = real(*args, **kwargs)
            if name == "open":
                self._open.add(answer)
            return answer

        return call


async def tried(call: Callable[[], Any], must: bool, told: list[MossError]) -> None:
    try:
        await call()
    except MossError as error:
        if must:
            raise
        told.append(error)


async def scene(folder: Path, failing: FailingOs) -> list[MossError]:
    """Two devices that exchange; whatever fails is done again on the mended disk."""
    told: list[MossError] = []

    async def opened(device: str) -> tuple[MossClient, SessionIndex]:
        client = MossClient("p", KEY, store=folder / "store", data_dir=folder / device)
        return client, await client.session("s", "custom", auto_load_on_init=False, warm_up=False)

    one, mine = await opened("one")
    two, theirs = await opened("two")
    await mine.add_docs([DocumentInfo("a", "alpha", None, [1.0, 2.0])])
    await theirs.add_docs([DocumentInfo("b", "beta", None, [2.0, 1.0])])
    for must in (False, True):
        if must:
            failing.fails_from = None
        for session in (mine, theirs):
            await tried(session.push_index, must, told)
            await tried(session.pull, must, told)
    await mine.pull()
    for session in (mine, theirs):
        assert {each.id: each.text for each in await session.get_docs()} == {
            "a": "alpha",
            "b": "beta",
        }
        assert session.sync_state.pending == 0
    await one.close()
    await two.close()
    return told


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO, errno.EROFS])
@pytest.mark.parametrize("lasting", [False, True])
def test_a_fault_at_any_call_is_told_and_loses_nothing(
    tmp_path: Path, error: int, lasting: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = FailingOs()
    monkeypatch.setattr("moss_sync.stores.folder.os", failing)
    monkeypatch.setattr("moss_sync.stores.beneath.os", failing)
    monkeypatch.setattr("moss_sync.stores.folder_blob.os", failing)
    monkeypatch.setattr("moss_sync.stores.durable.os", failing)
    asyncio.run(scene(tmp_path / "whole", failing))
    calls = failing.calls
    assert calls > 60
    hit = 0
    for at in range(0, calls, EVERY):
        failing.calls = failing.refused = 0
        failing.error, failing.lasting, failing.fails_from = error, lasting, at
        told = asyncio.run(scene(tmp_path / str(at), failing))
        assert all(each.hint or each.retryable for each in told), told
        hit += failing.refused > 0
    kind = f"{errno.errorcode[error]}, {'lasting' if lasting else 'once'}"
    print(f"folder store, fault ({kind}): {hit} injected, 0 lost")
    assert hit > calls // EVERY // 2
