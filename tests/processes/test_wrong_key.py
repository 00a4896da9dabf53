"""A key that does not open the project: refused, online and offline, and nothing is written."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from moss_sync.layout import Layout
from moss_sync.stores import open_store
from tests.keys import OTHER_KEY
from tests.processes.jobs import Where
from tests.processes.nursery import Nursery

OPEN = ["open", "conv", "custom", True]
OPEN_ALONE = ["open", "conv", "custom", False]


def contents(folder: str | Path) -> dict[str, str]:
    """Return the hash of every file below a folder, and the folders."""
    return {
        str(path.relative_to(folder)): sha256(path.read_bytes()).hexdigest()
        if path.is_file()
        else ""
        for path in Path(folder).rglob("*")
    }


def stored(url: str) -> dict[str, str]:
    """Return what a store holds of the project: names and hashes, or ETags in a bucket."""
    if not url.startswith("s3:"):
        return contents(url)

    async def listing() -> dict[str, str]:
        store = open_store(url)
        try:
            blobs = await store.keys(Layout.of("project").prefix)
            return {each.key: each.etag for each in blobs}
        finally:
            await store.close()

    return asyncio.run(listing())


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "s3":
        return str(request.getfixturevalue("s3_url"))
    return str(tmp_path / "store")


@pytest.fixture
def act(nursery: Nursery) -> Callable[..., list[Any]]:
    def run(where: Where, *steps: list[Any]) -> list[Any]:
        answers = nursery.run("act", where=where, steps=steps)
        assert isinstance(answers, list)
        return answers

    return run


def test_a_wrong_key_on_a_known_device_is_refused_online_and_offline(
    act: Callable[..., list[Any]], device: Callable[..., Where], store: str, tmp_path: Path
) -> None:
    right = device("laptop", store=store)
    wrong = device("laptop", store=store, key=OTHER_KEY)
    act(right, OPEN, ["add", "a"], ["push"])
    before = contents(right["data_dir"]), stored(store)

    for where in (wrong, device("laptop", store=tmp_path / "elsewhere", key=OTHER_KEY)):
        for open in (OPEN, OPEN_ALONE):
            (refused,) = act(where, open)
            assert refused["code"] == "UNAUTHORIZED"

    assert (contents(right["data_dir"]), stored(store)) == before
    assert not (tmp_path / "elsewhere").exists()


def test_a_wrong_key_on_a_new_device_is_refused_and_leaves_nothing_behind(
    act: Callable[..., list[Any]], device: Callable[..., Where], store: str
) -> None:
    act(device("laptop", store=store), OPEN, ["add", "a"], ["push"])
    before = stored(store)

    (refused,) = act(device("phone", store=store, key=OTHER_KEY), OPEN)

    assert refused["code"] == "UNAUTHORIZED"
    assert stored(store) == before
    phone = device("phone", store=store)
    assert not Path(phone["data_dir"]).exists() or contents(phone["data_dir"]) == {}
    # Who mistyped the key once is not locked out.
    assert act(phone, OPEN, ["ids"]) == ["custom", ["a"]]


def test_a_key_mistyped_offline_is_found_out_at_the_first_contact(
    act: Callable[..., list[Any]], device: Callable[..., Where], store: str
) -> None:
    act(device("laptop", store=store), OPEN, ["add", "a"], ["push"])
    before = stored(store)
    mistyped = device("phone", store=store, key=OTHER_KEY)

    # Without contact nobody can know yet.
    assert act(mistyped, OPEN_ALONE, ["add", "b"], ["ids"]) == ["custom", [1, 0], ["b"]]
    _, push = act(mistyped, OPEN_ALONE, ["push"])
    assert push["code"] == "UNAUTHORIZED"
    assert stored(store) == before

    # With the right key, what was written meanwhile goes where it belongs.
    phone = device("phone", store=store)
    assert act(phone, OPEN, ["push"], ["ids"]) == ["custom", 1, ["a", "b"]]
    (refused,) = act(mistyped, OPEN_ALONE)
    assert refused["code"] == "UNAUTHORIZED"


def test_two_keys_make_two_projects_only_where_there_was_none(
    act: Callable[..., list[Any]], device: Callable[..., Where], tmp_path: Path
) -> None:
    """The same project id in another store is another project: its key is its own."""
    act(device("laptop"), OPEN, ["add", "a"], ["push"])
    other = device("other", store=tmp_path / "other store", key=OTHER_KEY)
    assert act(other, OPEN, ["add", "b"], ["push"], ["ids"])[-1] == ["b"]
