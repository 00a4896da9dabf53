"""A device without its store: it opens, writes, ends, and hands over once the store is there."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.processes.audit import assert_settled, replica_state
from tests.processes.documents import text_of
from tests.processes.jobs import Where
from tests.processes.nursery import Nursery

CUSTOM = ["open", "conv", "custom", True]
OWN_FILE_ONLY = ["open", "conv", "custom", False]


@pytest.fixture(params=["folder", "s3"])
def unreachable(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """A store that nobody can reach: a folder inside of a file, or a port that nobody serves."""
    if request.param == "folder":
        (tmp_path / "a file").write_text("not a folder")
        yield str(tmp_path / "a file" / "store")
        return
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "nothing")
    with socket.socket() as taken:  # bound and not listening: ours, and closed to everybody
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        yield f"s3://bucket/prefix?endpoint_url=http://127.0.0.1:{port}&region=us-east-1"


def test_what_was_written_without_a_store_is_pushed_once_there_is_one(
    nursery: Nursery, device: Callable[..., Where], unreachable: str
) -> None:
    alone = device("laptop", store=unreachable)

    model, fresh, added, edited, *refused, ids = nursery.run(
        "act",
        where=alone,
        steps=[CUSTOM, ["state"], ["add", "a", "b"], ["state"], ["push"], ["pull"], ["ids"]],
    )
    assert model == "custom"
    assert fresh[:3] == ["offline", 0, False]
    assert fresh[3], "it does not say why"
    assert added == [2, 0]
    assert edited == ["offline", 2, False, fresh[3]]
    assert [error["code"] for error in refused] == ["NETWORK", "NETWORK"]
    assert ids == ["a", "b"]

    # Another process of the same device, still without a store.
    *_, state, gone, ids = nursery.run(
        "act",
        where=alone,
        steps=[CUSTOM, ["state"], ["delete", "b"], ["ids"]],
    )
    assert state[:3] == ["offline", 2, False]
    assert (gone, ids) == (1, ["a"])

    # And one that does not even try.
    *_, state = nursery.run("act", where=alone, steps=[OWN_FILE_ONLY, ["state"]])
    assert state == ["pending", 2, False, None]

    # The store is there.
    online = device("laptop")
    *_, before, sent, after = nursery.run(
        "act", where=online, steps=[CUSTOM, ["state"], ["push"], ["state"]]
    )
    assert before == ["pending", 2, False, None]  # nothing of the session was there yet
    assert sent == 1
    assert after == ["synced", 0, True, None]
    assert_settled(replica_state(online, "conv"))

    *_, texts = nursery.run("act", where=device("phone"), steps=[CUSTOM, ["texts"]])
    assert texts == {"a": text_of("a")}


def test_a_session_that_never_met_a_store_says_never(
    nursery: Nursery, device: Callable[..., Where]
) -> None:
    *_, fresh, _, edited = nursery.run(
        "act", where=device("laptop"), steps=[OWN_FILE_ONLY, ["state"], ["add", "a"], ["state"]]
    )
    assert fresh == ["never", 0, False, None]
    assert edited == ["pending", 1, False, None]


def test_a_device_whose_store_went_away_works_on_and_catches_up_when_it_is_back(
    nursery: Nursery, device: Callable[..., Where], tmp_path: Path
) -> None:
    laptop, phone, store = device("laptop"), device("phone"), tmp_path / "store"
    *_, state = nursery.run("act", where=laptop, steps=[CUSTOM, ["add", "a"], ["push"], ["state"]])
    assert state == ["synced", 0, True, None]

    shutil.move(store, tmp_path / "unplugged")
    _, state, _, edited, refused, ids = nursery.run(
        "act",
        where=laptop,
        steps=[CUSTOM, ["state"], ["add", "b"], ["state"], ["push"], ["ids"]],
    )
    assert state[:3] == ["offline", 0, True]
    assert edited[:3] == ["offline", 1, True]
    assert refused["code"] == "NETWORK"
    assert ids == ["a", "b"]
    assert not store.exists(), "a second store was begun where the first one had been"

    shutil.move(tmp_path / "unplugged", store)
    nursery.run("act", where=phone, steps=[CUSTOM, ["add", "c"], ["push"]])
    *_, exchanged, state, ids = nursery.run(
        "act", where=laptop, steps=[OWN_FILE_ONLY, ["sync"], ["state"], ["ids"]]
    )
    assert exchanged == [1, 1]
    assert state == ["synced", 0, True, None]
    assert ids == ["a", "b", "c"]
