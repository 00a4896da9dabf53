"""Several open sessions asked together: a live call's own and what is known long since."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from moss_local import (
    DocumentInfo,
    InvalidArgumentError,
    MossClient,
    NotFoundError,
    ParentGrouping,
    QueryOptions,
    SessionIndex,
)
from moss_local.local import Local
from moss_local.querying import MAX_SESSIONS
from moss_local.runtime import runtime
from tests.keys import KEY

Story = Callable[[MossClient], Coroutine[Any, Any, None]]


@pytest.fixture
def tell(tmp_path: Path) -> Callable[[Story], None]:
    def told(story: Story) -> None:
        async def inside() -> None:
            client = MossClient("p", KEY, store=f"memory://{uuid4().hex}", data_dir=tmp_path)
            async with client:
                await story(client)

        asyncio.run(inside())

    return told


async def opened(client: MossClient, name: str, *texts: str, **metadata: str) -> SessionIndex:
    session = await client.session(name)
    docs = [DocumentInfo(f"{name}-{n}", text, dict(metadata)) for n, text in enumerate(texts)]
    await session.add_docs(docs)
    return session


def test_results_of_all_sessions_are_one_order_and_name_their_session(
    tell: Callable[[Story], None],
) -> None:
    async def story(client: MossClient) -> None:
        call = await opened(client, "call", "Where is my refund?", "It rains.", kind="live")
        customer = await opened(client, "customer", "Prefers refunds to a voucher.", kind="long")
        policy = await opened(client, "policy", "Refunds take 5 days.", "Closed on Sundays.")
        found = await client.query_multi([call, "customer", policy], "refund")
        assert len(found.docs) == 5
        top = {(doc.index_name, doc.id) for doc in found.docs[:3]}
        assert top == {("call", "call-0"), ("customer", "customer-0"), ("policy", "policy-0")}
        assert (found.query, found.index_name) == ("refund", None)
        assert found.model_id == "moss-minilm"
        assert found.time_taken_ms is not None

        best = await client.query_multi([call, customer, policy], "refund", QueryOptions(top_k=2))
        assert [doc.id for doc in best.docs] == [doc.id for doc in found.docs[:2]]
        live = {"field": "kind", "condition": {"$eq": "live"}}
        only = await client.query_multi(["call", "customer"], "refund", QueryOptions(filter=live))
        assert {doc.index_name for doc in only.docs} == {"call"}
        alone = await customer.query("refund")
        same = await client.query_multi([customer, customer], "refund")
        assert [(d.id, d.score) for d in same.docs] == [(d.id, d.score) for d in alone.docs]

    tell(story)


def test_the_text_is_embedded_once_for_all(
    tell: Callable[[Story], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(client: MossClient) -> None:
        names = [f"s{n}" for n in range(4)]
        sessions = [await opened(client, name, "A refund.") for name in names]
        embedded = []
        real = Local.embed

        def counted(self: Local, texts: Any, **options: Any) -> Any:
            embedded.append(list(texts))
            return real(self, texts, **options)

        monkeypatch.setattr(Local, "embed", counted)
        assert len((await client.query_multi(sessions, "refund")).docs) == 4
        assert embedded == [["refund"]]
        words = await client.query_multi(sessions, "refund", QueryOptions(alpha=0.0))
        assert [doc.score for doc in words.docs] == [0.0] * 4
        assert (await client.query_multi(sessions, " ")).docs == []
        assert (await client.query_multi(sessions, "refund", QueryOptions(top_k=0))).docs == []
        assert len(embedded) == 1

    tell(story)


def test_ten_come_back_unless_said_and_groups_stay_in_their_session(
    tell: Callable[[Story], None],
) -> None:
    async def story(client: MossClient) -> None:
        texts = [f"Refund number {n}." for n in range(8)]
        both = [await opened(client, name, *texts, call="7") for name in ("a", "b")]
        assert len((await client.query_multi(both, "refund")).docs) == 10
        options = QueryOptions(group_by=ParentGrouping("call", "n"))
        grouped = await client.query_multi(both, "refund", options)
        assert sorted((doc.index_name, doc.id) for doc in grouped.docs) == [("a", "7"), ("b", "7")]

    tell(story)


def test_sessions_of_different_models_are_refused_but_words_go(
    tell: Callable[[Story], None],
) -> None:
    async def story(client: MossClient) -> None:
        own = await client.session("own", "custom")
        await own.add_docs([DocumentInfo("o", "A refund.", embedding=[1.0, 0.0])])
        other = await opened(client, "other", "A refund.")
        empty = await client.session("empty")
        with pytest.raises(InvalidArgumentError, match="'own' is of model 'custom'"):
            await client.query_multi([other, own], "refund")
        vector = QueryOptions(embedding=[1.0, 0.0])
        with pytest.raises(InvalidArgumentError, match="cannot compare both"):
            await client.query_multi([own, other], "refund", vector)
        assert len((await client.query_multi([own, empty], "refund", vector)).docs) == 1
        words = await client.query_multi([own, other], "refund", QueryOptions(alpha=0.0))
        assert {doc.index_name for doc in words.docs} == {"own", "other"}
        with pytest.raises(InvalidArgumentError, match="3 dimensions"):
            await client.query_multi([own], "x", QueryOptions(embedding=[1.0, 0.0, 0.0]))

    tell(story)


def test_what_cannot_be_asked_is_refused(tell: Callable[[Story], None]) -> None:
    async def story(client: MossClient) -> None:
        session = await opened(client, "s", "text")
        with pytest.raises(InvalidArgumentError, match="at least one index name"):
            await client.query_multi([], "x")
        with pytest.raises(NotFoundError, match="'unknown' is not open"):
            await client.query_multi([session, "unknown"], "x")
        for sessions in ("s", {"s"}, [3], None):
            with pytest.raises(InvalidArgumentError, match="query_multi takes"):
                await client.query_multi(sessions, "x")  # type: ignore[arg-type]  # on purpose
        with pytest.raises(InvalidArgumentError, match="a query is a str"):
            await client.query_multi([session], 3)  # type: ignore[arg-type]  # on purpose
        wrong = QueryOptions(filter={"field": "x", "condition": {}})
        with pytest.raises(InvalidArgumentError, match=r"filter\.condition is empty"):
            await client.query_multi([session], "x", wrong)
        await session.close()
        with pytest.raises(InvalidArgumentError, match="closed"):
            await client.query_multi([session], "x")

    tell(story)


def test_more_sessions_than_files_can_be_open_are_refused(tell: Callable[[Story], None]) -> None:
    async def story(client: MossClient) -> None:
        many = [
            await client.session(f"s{n}", "custom", auto_load_on_init=False)
            for n in range(MAX_SESSIONS + 1)
        ]
        options = QueryOptions(embedding=[1.0])
        assert (await client.query_multi(many[1:], "x", options)).docs == []
        with pytest.raises(InvalidArgumentError, match="more than"):
            await client.query_multi(many, "x", options)

    tell(story)


def test_callers_of_at_once_do_not_wait_for_each_other() -> None:
    meeting = threading.Barrier(2, timeout=30)
    assert runtime.at_once(lambda n: (meeting.wait(), n)[1], [1, 2]) == [1, 2]
    ended = []

    def work(n: int) -> None:
        if n == 0:
            raise KeyError(n)
        ended.append(n)

    with pytest.raises(KeyError):
        runtime.at_once(work, range(20))
    assert sorted(ended) == list(range(1, 20))
