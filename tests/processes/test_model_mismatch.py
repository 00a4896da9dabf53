"""Vectors of two models never meet: refused as a ValueError before anything is written."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from moss_local import DocumentInfo, ModelMismatchError, MossClient
from tests.processes.jobs import Where, client_at
from tests.processes.nursery import Nursery
from tests.processes.test_wrong_key import contents


def mismatch(answer: dict[str, Any]) -> None:
    assert {"ModelMismatchError", "ValueError"} <= set(answer["kinds"])
    assert answer["code"] == "INVALID_ARGUMENT"


def documents_only(folder: str) -> dict[str, str]:
    """Return the files of a device without the log that a reader's connection leaves or removes."""
    return {name: hash for name, hash in contents(folder).items() if not name.endswith("-shm")}


def test_another_model_on_a_local_session_is_refused(
    nursery: Nursery, device: Callable[..., Where]
) -> None:
    where = device("laptop")
    nursery.run("act", where=where, steps=[["open", "conv", "custom", True], ["add", "a"]])
    before = documents_only(where["data_dir"])

    for pull in (True, False):
        (refused,) = nursery.run("act", where=where, steps=[["open", "conv", "moss-minilm", pull]])
        mismatch(refused)
        assert "'custom'" in refused["text"]
        assert "'moss-minilm'" in refused["text"]

    assert documents_only(where["data_dir"]) == before


def test_another_model_on_a_session_that_only_the_store_has_is_refused(
    nursery: Nursery, device: Callable[..., Where], tmp_path: Path
) -> None:
    nursery.run(
        "act",
        where=device("laptop"),
        steps=[["open", "conv", "custom", True], ["add", "a"], ["push"]],
    )
    before = contents(tmp_path / "store")
    phone = device("phone")

    (refused,) = nursery.run("act", where=phone, steps=[["open", "conv", "moss-minilm", True]])
    mismatch(refused)

    assert contents(tmp_path / "store") == before
    # The session is not spoiled: opened as what it is, it is there.
    assert nursery.run("act", where=phone, steps=[["open", "conv", None, True], ["ids"]]) == [
        "custom",
        ["a"],
    ]


def test_two_models_that_began_apart_are_told_apart_before_a_push_writes_anything(
    nursery: Nursery, device: Callable[..., Where], tmp_path: Path
) -> None:
    nursery.run(
        "act",
        where=device("laptop"),
        steps=[["open", "conv", "custom", True], ["add", "a"], ["push"]],
    )
    before = contents(tmp_path / "store")
    phone = device("phone")

    _, _, push, pull, ids = nursery.run(
        "act",
        where=phone,
        steps=[
            ["open", "conv", "custom", False],
            ["add vectors of", 5],
            ["push"],
            ["pull"],
            ["ids"],
        ],
    )
    mismatch(push)
    mismatch(pull)
    assert ids == ["odd"]
    assert contents(tmp_path / "store") == before


@pytest.mark.parametrize("dimensions", [1, 7, 9])
def test_own_vectors_of_another_length_are_refused_whole(
    device: Callable[..., Where], dimensions: int
) -> None:
    async def main(client: MossClient) -> None:
        session = await client.session("conv", "custom")
        await session.add_docs([DocumentInfo("a", "text", embedding=[1.0] * 8)])
        mixed = [
            DocumentInfo("b", "text", embedding=[1.0] * 8),
            DocumentInfo("c", "text", embedding=[1.0] * dimensions),
        ]
        with pytest.raises(ValueError, match="'c' has"):
            await session.add_docs(mixed)
        assert [known.id for known in await session.get_docs()] == ["a"]

    with client_at(device("laptop")) as client:
        asyncio.run(main(client))


def test_a_first_call_with_vectors_of_two_lengths_stores_neither(
    device: Callable[..., Where],
) -> None:
    async def main(client: MossClient) -> None:
        session = await client.session("conv", "custom")
        with pytest.raises(ValueError, match="dimensions"):
            await session.add_docs(
                [
                    DocumentInfo("a", "x", embedding=[1.0] * 8),
                    DocumentInfo("b", "x", embedding=[1.0]),
                ]
            )
        assert session.doc_count == 0
        # The session has not taken sides.
        assert await session.add_docs([DocumentInfo("b", "x", embedding=[1.0])]) == (1, 0)

    with client_at(device("laptop")) as client:
        asyncio.run(main(client))


def test_the_error_is_both_of_ours_and_a_value_error() -> None:
    assert issubclass(ModelMismatchError, ValueError)
