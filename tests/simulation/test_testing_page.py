"""What docs/testing.md shows runs, and what it names is there."""

from __future__ import annotations

import functools
import re
from pathlib import Path

import pytest
from hypothesis import given, settings

import moss_sync.testing
from moss_local import MossClient
from moss_local.testing import use_store
from moss_local.testing.__main__ import copies_of
from moss_sync.stores import MemoryStore
from moss_sync.testing import Fault, Schedule, simulate
from moss_sync.testing.strategies import schedules
from tests.keys import KEY

PAGE = Path(__file__).parents[2] / "docs" / "testing.md"


@pytest.mark.parametrize("number", range(3))
def test_every_python_block_of_the_page_runs(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.S)
    assert len(blocks) == 3
    monkeypatch.chdir(tmp_path)
    exec(compile(blocks[number], f"{PAGE.name}, block {number + 1}", "exec"), {"__name__": "page"})


def test_the_page_tells_every_fault_and_every_public_name_is_there() -> None:
    page = PAGE.read_text("utf-8")
    assert [fault.name for fault in Fault if f"`{fault.name}`" not in page] == []
    names = moss_sync.testing.__all__
    assert names == sorted(names)
    assert all(getattr(moss_sync.testing, name) is not None for name in names)


def test_a_client_s_store_can_be_chosen_only_before_it_is_used(tmp_path: Path) -> None:
    client = MossClient("p", KEY, data_dir=tmp_path)
    store = MemoryStore()
    assert use_store(client, store) is client
    client._opened()
    with pytest.raises(RuntimeError, match="in use"):
        use_store(client, store)


@settings(max_examples=8)
@given(schedules())
def test_any_part_of_any_schedule_violates_nothing(schedule: Schedule) -> None:
    outcome = simulate(schedule, functools.partial(copies_of, schedule.seed))
    assert outcome.violation is None, outcome.violation
