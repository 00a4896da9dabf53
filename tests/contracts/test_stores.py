"""What every blob store promises, tried on all: memory, with faults, a folder, a real S3 server."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import pytest

from moss_sync.stores import MemoryStore, open_store
from moss_sync.testing.faults import SeededFaults
from moss_sync.testing.store import FaultyStore
from moss_sync.testing.store_contract import *  # noqa: F403  # the suite
from moss_sync.testing.store_contract import Place


@pytest.fixture(params=["memory", "faulty", "folder", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "memory":
        name = uuid4().hex
        return Place(lambda: MemoryStore(name), tells_time=False)
    if request.param == "faulty":
        # One that never fails is a store like any other.
        name, never = uuid4().hex, SeededFaults(0, rate=0)
        return Place(lambda: FaultyStore(never, MemoryStore(name)), tells_time=False)
    if request.param == "folder":
        return Place(lambda: open_store(str(tmp_path / "root")))
    url = str(request.getfixturevalue("s3_url"))
    return Place(lambda: open_store(url), slow=True)
