"""The nursery of the run, and devices that know where they lie."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.keys import KEY
from tests.processes.jobs import Where
from tests.processes.nursery import Nursery


@pytest.fixture(scope="session")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    """Forks processes; starts once per run."""
    started = Nursery(tmp_path_factory.mktemp("processes"))
    yield started
    started.close()


@pytest.fixture
def device(tmp_path: Path) -> Callable[..., Where]:
    """Return where a device of the test lies; its store is a folder unless one is named."""

    def at(name: str, *, store: str | Path | None = None, key: str = KEY) -> Where:
        return {
            "project_id": "project",
            "project_key": key,
            "store": str(tmp_path / "store" if store is None else store),
            "data_dir": str(tmp_path / name),
        }

    return at
