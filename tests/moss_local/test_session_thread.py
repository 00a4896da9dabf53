"""A session as a thread, and on a small device, as users of the API see it."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest

from moss_local import (
    DocumentInfo,
    InvalidArgumentError,
    MossClient,
    QueryOptions,
    SessionIndex,
    querying,
)
from moss_local.search.resident import Resident, Small
from tests.keys import KEY

TURNS = ("hello there", "Ann: when is the refund due?", "Bob: on Monday", "thanks", "bye")


def client(directory: Path, *, low_memory: bool = False) -> MossClient:
    store = f"memory://{uuid4().hex}"
    return MossClient("p", KEY, store=store, data_dir=directory, low_memory=low_memory)


async def filled(opened: MossClient, name: str = "thread") -> SessionIndex:
    session = await opened.session(name, "custom", warm_up=False)
    rows = np.random.default_rng(1).standard_normal((len(TURNS), 8)).tolist()
    documents = [
        DocumentInfo(f"{i}", text, {"channel": "voice" if i % 2 else "chat"}, embedding=row)
        for i, (text, row) in enumerate(zip(TURNS, rows, strict=True))
    ]
    await session.add_docs(documents)
    return session


ASKED: dict[str, Any] = {"embedding": [1.0] * 8, "alpha": 0.0, "top_k": 1}


@pytest.mark.parametrize("low_memory", [False, True])
def test_context_comes_with_each_result_of_one_session_and_of_several(
    tmp_path: Path, low_memory: bool
) -> None:
    async def told() -> None:
        async with client(tmp_path, low_memory=low_memory) as opened:
            session = await filled(opened)
            other = await filled(opened, "other")
            options = QueryOptions(context=1, **ASKED)
            one = await session.query("refund", options)
            several = await opened.query_multi([session, other], "refund", options)
            for found in (one, several):
                (result,) = found.docs
                assert result.id == "1"
                assert [turn.id for turn in result.before] == ["0"]
                assert [turn.text for turn in result.after] == ["Bob: on Monday"]
                assert result.after[0].metadata == {"channel": "chat"}
            (plain,) = (await session.query("refund", QueryOptions(**ASKED))).docs
            assert (plain.before, plain.after) == ([], [])

    asyncio.run(told())


def test_a_small_device_keeps_nothing_and_answers_the_same(tmp_path: Path) -> None:
    async def told() -> None:
        answers = []
        for low_memory in (False, True):
            async with client(tmp_path / f"{low_memory}", low_memory=low_memory) as opened:
                session = await filled(opened)
                options = QueryOptions(embedding=[1.0] * 8, recency=0.2, top_k=5)
                found = await session.query("Ann: refund on monday", options)
                several = await opened.query_multi([session], "refund", options)
                answers.append(
                    [(each.id, round(each.score, 5)) for each in [*found.docs, *several.docs]]
                )
                kept = session._file.derived(Resident, Resident)
                assert kept.warm is not low_memory
                assert session._file.derived(Small, Small).warm is low_memory
        assert answers[0] == answers[1]

    asyncio.run(told())


def test_a_short_query_runs_on_the_caller_s_thread_once_the_session_is_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[int] = []
    search = querying._search_one

    def noted(*given: Any) -> Any:
        threads.append(threading.get_ident())
        return search(*given)

    monkeypatch.setattr(querying, "_search_one", noted)

    async def told() -> None:
        async with client(tmp_path) as opened:
            session = await filled(opened)
            for _ in range(3):
                await session.query("refund", QueryOptions(**ASKED))

    asyncio.run(told())
    own = threading.get_ident()
    assert [thread == own for thread in threads] == [False, True, True]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"context": -1}, "context"),
        ({"context": 101}, "context"),
        ({"context": 1.5}, "context"),
        ({"recency": -0.1}, "recency"),
        ({"recency": 2}, "recency"),
        ({"recency": float("nan")}, "recency"),
        ({"threaded": 1}, "threaded"),
    ],
)
def test_an_option_of_threads_that_is_wrong_is_refused_by_name(
    tmp_path: Path, options: dict[str, Any], named: str
) -> None:
    async def told() -> None:
        async with client(tmp_path) as opened:
            session = await filled(opened)
            with pytest.raises(InvalidArgumentError, match=named):
                await session.query("refund", QueryOptions(embedding=[1.0] * 8, **options))

    asyncio.run(told())
