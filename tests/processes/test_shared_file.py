"""Several processes at one session file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.processes.audit import audit, path_of
from tests.processes.documents import text_of
from tests.processes.jobs import Where
from tests.processes.nursery import Nursery

BATCHES, SIZE = 30, 5


@pytest.mark.parametrize("writers", [2, 4])
def test_processes_that_add_to_one_file_at_once_all_get_everything_in(
    nursery: Nursery, device: Callable[..., Where], writers: int
) -> None:
    where = device("shared")
    tags = [f"w{i}" for i in range(writers)]

    # A writer that lost a race for the lock for good would end with FileBusyError.
    started = [
        nursery.start("add_batches", where=where, session="s", tag=tag, batches=BATCHES, size=SIZE)
        for tag in tags
    ]
    for process in started:
        process.finish()

    ids = [f"{tag}.{b}.{i}" for tag in tags for b in range(BATCHES) for i in range(SIZE)]
    assert audit(path_of(where, "s")) == {id: text_of(id) for id in ids}


def test_readers_follow_the_writers_of_other_processes_without_opening_again(
    nursery: Nursery, device: Callable[..., Where], tmp_path: Path
) -> None:
    where = device("shared")
    total = 2 * BATCHES * SIZE
    readers = [tmp_path / "reader-0.json", tmp_path / "reader-1.json"]

    watching = [
        nursery.start("watch", where=where, session="s", total=total, answer=answer)
        for answer in readers
    ]
    writing = [
        nursery.start("add_batches", where=where, session="s", tag=tag, batches=BATCHES, size=SIZE)
        for tag in ("w0", "w1")
    ]
    for process in (*writing, *watching):
        process.finish()

    for answer in readers:
        seen = json.loads(answer.read_text())
        assert seen["counts"] == sorted(seen["counts"])
        assert seen["counts"][-1] == total
        assert seen["found"], "no document of another process was ever found"
