"""What every test of the exchange stands on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.moss_sync.world import World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    for device in made.devices:
        device.close()
