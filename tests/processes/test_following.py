"""Processes that only write and listen: the exchange happens in the background of each."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from tests.processes.audit import assert_settled, audit, path_of, replica_state
from tests.processes.documents import text_of
from tests.processes.jobs import Where
from tests.processes.nursery import Nursery


def test_two_devices_in_two_processes_follow_each_other_through_a_folder(
    nursery: Nursery, device: Callable[..., Where], tmp_path: Path
) -> None:
    rounds = 8
    pair = [("laptop", "phone"), ("phone", "laptop")]
    answers = [tmp_path / f"{name}.json" for name, _ in pair]
    started = [
        nursery.start(
            "follow", where=device(name), tag=name, other=other, rounds=rounds, answer=answer
        )
        for (name, other), answer in zip(pair, answers, strict=True)
    ]
    for process in started:
        process.finish()
    ids = {f"{name}.{number}" for name, _ in pair for number in range(rounds)}
    for (name, _), answer in zip(pair, answers, strict=True):
        assert json.loads(answer.read_text()) == ["synced", 0]
        assert audit(path_of(device(name), "s")) == {id: text_of(id) for id in ids}
        assert_settled(replica_state(device(name), "s"))


def test_two_processes_of_one_device_follow_each_other_through_their_file(
    nursery: Nursery, device: Callable[..., Where]
) -> None:
    where, rounds = device("laptop"), 8
    started = [
        nursery.start("follow", where=where, tag=tag, other=other, rounds=rounds)
        for tag, other in [("one", "two"), ("two", "one")]
    ]
    for process in started:
        process.finish()
    assert len(audit(path_of(where, "s"))) == 2 * rounds
    assert_settled(replica_state(where, "s"))


def test_devices_whose_store_was_away_meet_when_it_is_back(
    nursery: Nursery, device: Callable[..., Where], tmp_path: Path
) -> None:
    open_and_push = [["open", "s", "custom", True], ["add", "first"], ["push"]]
    for name in ("laptop", "phone"):
        nursery.run("act", where=device(name), steps=open_and_push)
    shutil.move(tmp_path / "store", tmp_path / "unplugged")
    started = [
        nursery.start("follow", where=device(name), tag=name, other=other, rounds=2)
        for name, other in [("laptop", "phone"), ("phone", "laptop")]
    ]
    deadline = time.monotonic() + 30
    for name in ("laptop", "phone"):
        while not replica_state(device(name), "s").dirty:  # its first turn, that nobody has seen
            assert time.monotonic() < deadline, f"{name} has written nothing"
            time.sleep(0.01)
    shutil.move(tmp_path / "unplugged", tmp_path / "store")
    for process in started:
        process.finish()
    texts = [audit(path_of(device(name), "s")) for name in ("laptop", "phone")]
    assert texts[0] == texts[1]
    assert len(texts[0]) == 5


def test_a_process_that_forks_goes_on_exchanging_and_so_do_its_children(
    nursery: Nursery, device: Callable[..., Where]
) -> None:
    where = device("laptop")
    nursery.start("fork_in_the_background", where=where).finish()
    texts = audit(path_of(where, "s"))
    assert len(texts) == 5 * 50 + 5 + 1
    assert_settled(replica_state(where, "s"))
    *_, elsewhere = nursery.run(
        "act", where=device("phone"), steps=[["open", "s", "custom", True], ["texts"]]
    )
    assert elsewhere == texts
