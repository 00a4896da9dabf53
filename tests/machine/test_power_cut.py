"""The power cut at any change of the disk: what was acknowledged is there, whole, and goes on."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from moss_local.storage.checkup import check_file
from moss_local.storage.connection import Durability
from moss_local.storage.file import open_session_file
from moss_local.storage.rows import get_documents
from moss_sync.stores.memory import MemoryStore
from tests.devices import Device
from tests.machine.faulty_disk import Disk, Event, disk_in_place
from tests.machine.power_cut import after_cut

CUTS = 250
Texts = dict[str, str]


def scene(path: Path, disk: Disk, durability: Durability) -> list[Texts]:
    """Write, change, delete, push, merge and rewrite; note each state as it is acknowledged."""
    states: list[Texts] = [{}]
    store = MemoryStore()

    def acknowledged(texts: Texts) -> None:
        states.append(dict(texts))
        disk.note(len(states) - 1)

    async def told() -> None:
        # A device's own wish is the weaker one; the stronger of two owners counts.
        owner = open_session_file(path, session="conv-123", durability=durability)
        device = Device(path, store, seed=1)
        other = Device(path.with_name("other.sqlite3"), store, seed=2)
        texts: Texts = {}
        for number in range(12):
            ids = [f"{number}.{n}" for n in range(1 + 7 * (number % 3))]
            for id in ids:
                texts[id] = f"turn {id} " * (1 + 40 * (number % 4))
                device.put(id, texts[id])
                acknowledged(texts)
            if number % 4 == 1:
                gone = ids[0]
                device.delete(gone)
                del texts[gone]
                acknowledged(texts)
            if number % 4 == 2:
                texts["0.0"] = f"changed {number}"
                device.put("0.0", texts["0.0"])
                acknowledged(texts)
            if number % 4 == 3:
                await device.engine.push()
                await other.engine.pull()
                other.put(f"other.{number}", "from elsewhere")
                await other.engine.push()
                await device.engine.pull()
                texts[f"other.{number}"] = "from elsewhere"
                acknowledged(texts)
            if number in (4, 9):
                owner.rewrite()
        device.close()
        other.close()
        owner.close()

    asyncio.run(told())
    return states


def cuts(events: list[Event], chance: random.Random) -> Iterator[tuple[int, int]]:
    """Yield (changes that have happened, the state that was acknowledged last)."""
    for end in sorted(chance.randrange(len(events) + 1) for _ in range(CUTS)):
        notes: list[Any] = [event.note for event in events[:end] if event.kind == "note"]
        yield end, notes[-1] if notes else 0


@pytest.mark.parametrize("durability", ["full", "normal"])
def test_after_a_power_cut_at_any_change_what_was_acknowledged_is_there(
    durability: Durability, tmp_path: Path
) -> None:
    """With "normal" the last writes may be lost, but nothing in the middle, and nothing torn."""
    with disk_in_place(record=True) as disk:
        disk.only = "here.sqlite3"
        states = scene(tmp_path / "here.sqlite3", disk, durability)
        events = list(disk.events)
    assert len(states) > 50
    assert sum(event.kind == "sync" for event in events) > (50 if durability == "full" else 3)
    chance = random.Random(20_261_127)
    behind = 0
    for end, last in cuts(events, chance):
        folder = tmp_path / f"cut-{end}-{chance.random()}"
        folder.mkdir()
        for name, data in after_cut(events[:end], chance).items():
            (folder / Path(name).name).write_bytes(data)
        file = open_session_file(folder / "here.sqlite3", session="conv-123", durability="normal")
        try:
            with file.reading() as conn:
                found = {each.id: each.text for each in get_documents(conn)}
            # What was being written when the power went may be there, whole, or not.
            least = last if durability == "full" else 0
            allowed = states[least : last + 2]
            assert found in allowed, f"cut after {end} changes: not state {least} to {last + 1}"
            behind += found != states[last] and found != states[min(last + 1, len(states) - 1)]
            with file.writing() as conn:
                assert check_file(conn) == []
        finally:
            file.close()
    print(f"power cut, durability={durability}: {CUTS} cuts, {behind} fell behind, 0 damaged")
    if durability == "normal":
        assert behind, "no cut has lost anything: it is not tried what happens then"
