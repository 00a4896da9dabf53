"""The session API as its users call it, on the real model and a real file."""

from __future__ import annotations

import asyncio
import os
import stat
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest

import moss_local.project
from moss_local import (
    DocumentInfo,
    GetDocumentsOptions,
    InvalidArgumentError,
    ModelMismatchError,
    ModelNotFoundError,
    MossClient,
    MossError,
    MutationOptions,
    NetworkError,
    ParentGrouping,
    QueryOptions,
    SessionIndex,
    UnauthorizedError,
)
from moss_sync.stores import FolderStore, S3Store, s3_client
from tests.keys import KEY

Story = Callable[[SessionIndex], Coroutine[Any, Any, None]]

TURNS = [
    DocumentInfo("turn-1", "Customer reported a duplicate $49.99 charge.", {"channel": "voice"}),
    DocumentInfo("turn-2", "Agent confirmed a refund in 3-5 business days.", payload="{}"),
    DocumentInfo("turn-3", "It rains in Lisbon today."),
]


@pytest.fixture
def client(tmp_path: Path) -> MossClient:
    return MossClient("p", KEY, store=f"memory://{uuid4().hex}", data_dir=tmp_path)


def run(client: MossClient, story: Story, **options: Any) -> None:
    async def told() -> None:
        async with client, await client.session("conv-123", **options) as session:
            await story(session)

    asyncio.run(told())


def test_adding_counts_what_is_new_and_what_was_there(client: MossClient) -> None:
    async def story(session: SessionIndex) -> None:
        assert await session.add_docs(TURNS) == (3, 0)
        assert await session.add_docs([*TURNS[:2], DocumentInfo("turn-4", "New.")]) == (1, 2)
        assert session.doc_count == 4
        keep = MutationOptions(upsert=False)
        assert await session.add_docs([DocumentInfo("turn-1", "Other")], keep) == (0, 0)
        [kept] = await session.get_docs(GetDocumentsOptions(["turn-1"]))
        assert kept.text == TURNS[0].text
        assert await session.add_docs([]) == (0, 0)
        assert await session.add_docs(iter([DocumentInfo("turn-5", "From an iterator.")])) == (1, 0)

    run(client, story)


def test_deleting_counts_what_was_there_and_ignores_the_rest(client: MossClient) -> None:
    async def story(session: SessionIndex) -> None:
        await session.add_docs(TURNS)
        assert await session.delete_docs(["turn-1", "turn-1", "unknown"]) == 1
        assert await session.delete_docs(["turn-1"]) == 0
        assert session.doc_count == 2
        found = await session.query("duplicate charge", QueryOptions(top_k=5))
        assert "turn-1" not in [doc.id for doc in found.docs]

    run(client, story)


def test_documents_come_back_as_they_went_in_and_in_the_order_asked_for(
    client: MossClient,
) -> None:
    async def story(session: SessionIndex) -> None:
        await session.add_docs(reversed(TURNS))
        everything = await session.get_docs()
        assert [doc.id for doc in everything] == ["turn-1", "turn-2", "turn-3"]
        chosen = await session.get_docs(GetDocumentsOptions(["turn-3", "unknown", "turn-1"]))
        assert [doc.id for doc in chosen] == ["turn-3", "turn-1"]
        assert await session.get_docs(GetDocumentsOptions([])) == []
        for given, stored in zip(TURNS, everything, strict=True):
            assert (stored.text, stored.metadata, stored.payload) == (
                given.text,
                given.metadata,
                given.payload,
            )

    run(client, story)


def test_a_query_finds_by_meaning_and_names_its_source(client: MossClient) -> None:
    async def story(session: SessionIndex) -> None:
        await session.add_docs(TURNS)
        found = await session.query("when do I get my money back?", QueryOptions(top_k=1))
        [doc] = found.docs
        assert (doc.id, doc.index_name, doc.payload) == ("turn-2", "conv-123", "{}")
        assert 0.0 < doc.score <= 1.0
        assert type(found.time_taken_ms) is int
        assert (found.query, found.index_name) == ("when do I get my money back?", "conv-123")
        assert found.model_id == "moss-minilm"

    run(client, story)


def test_top_k_is_five_unless_said_and_zero_gives_none(client: MossClient) -> None:
    async def story(session: SessionIndex) -> None:
        await session.add_docs([DocumentInfo(f"d{i}", f"rain and number {i}") for i in range(9)])
        assert len((await session.query("rain")).docs) == 5
        assert len((await session.query("rain", QueryOptions(top_k=9))).docs) == 9
        assert (await session.query("rain", QueryOptions(top_k=0))).docs == []

    run(client, story)


@pytest.mark.parametrize("query", ["", "   ", "\n\t\u3000"])
@pytest.mark.parametrize("alpha", [None, 0.0, 1.0])
def test_a_blank_query_finds_nothing_unless_it_brings_a_vector(
    client: MossClient, query: str, alpha: float | None
) -> None:
    async def story(session: SessionIndex) -> None:
        await session.add_docs(TURNS)
        assert (await session.query(query, QueryOptions(alpha=alpha))).docs == []
        vector = np.ones(384).tolist()
        found = await session.query(query, QueryOptions(embedding=vector, alpha=alpha))
        assert len(found.docs) == 3

    run(client, story)


def test_alpha_zero_finds_only_what_has_the_word_and_scores_it_by_meaning(
    client: MossClient,
) -> None:
    async def story(session: SessionIndex) -> None:
        await session.add_docs(TURNS)
        words = await session.query("refund Lisbon", QueryOptions(alpha=0.0))
        assert {doc.id for doc in words.docs} == {"turn-2", "turn-3"}
        meaning = await session.query("refund Lisbon", QueryOptions(alpha=1.0))
        scores = {doc.id: doc.score for doc in meaning.docs}
        for doc in words.docs:
            assert doc.score == pytest.approx(scores[doc.id], abs=1e-6)

    run(client, story)


def test_min_score_leaves_out_what_is_less_similar(client: MossClient) -> None:
    async def story(session: SessionIndex) -> None:
        await session.add_docs(TURNS)
        everything = await session.query("refund", QueryOptions(top_k=3))
        bar = sorted(doc.score for doc in everything.docs)[1]
        found = await session.query("refund", QueryOptions(top_k=3, min_score=bar))
        assert len(found.docs) == 2
        assert all(doc.score >= bar for doc in found.docs)

    run(client, story)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (QueryOptions(top_k=-1), "top_k"),
        (QueryOptions(top_k=True), "top_k"),
        (QueryOptions(top_k=2.0), "top_k"),  # type: ignore[arg-type]  # what a caller may do
        (QueryOptions(alpha=1.1), "alpha"),
        (QueryOptions(alpha=float("nan")), "alpha"),
        (QueryOptions(min_score=2.0), "min_score"),
        (QueryOptions(min_score=0.5, alpha=0.0), "min_score"),
        (QueryOptions(filter={"$and": [{"field": "a"}]}), r"filter\.\$and\[0\] lacks"),
        (QueryOptions(group_by=("a", "b")), "group_by"),  # type: ignore[arg-type]  # the same
        (QueryOptions(group_by=ParentGrouping("a", 3)), "group_by.order_field"),  # type: ignore[arg-type]  # the same
        (QueryOptions(group_by=ParentGrouping("\ud800", "b")), "group_by.parent_field holds half"),
        (QueryOptions(context=-1), "context is an int from 0 to 100, not -1"),
        (QueryOptions(context=101), "context is an int from 0 to 100, not 101"),
        ({"top_k": 3}, "options is a QueryOptions, not a dict"),
        (QueryOptions(candidate_depth=0), "candidate_depth"),
        (QueryOptions(embedding=[]), "embedding"),
        (QueryOptions(embedding=[1.0, 2.0]), "2 dimensions"),
        (QueryOptions(embedding=[0.0] * 384), "zero"),
        (QueryOptions(embedding=[float("inf")] * 384), "finite"),
        (QueryOptions(embedding=["a"] * 384), "numbers"),  # type: ignore[list-item]  # the same
    ],
)
def test_a_wrong_option_is_refused_by_name(
    client: MossClient, options: QueryOptions, named: str
) -> None:
    async def story(session: SessionIndex) -> None:
        await session.add_docs(TURNS)
        with pytest.raises(InvalidArgumentError, match=named) as refusal:
            await session.query("refund", options)
        assert isinstance(refusal.value, ValueError)
        assert refusal.value.code == "INVALID_ARGUMENT"

    run(client, story)


def test_a_text_that_no_utf8_can_say_is_refused_and_not_shown(client: MossClient) -> None:
    async def story(session: SessionIndex) -> None:
        await session.add_docs(TURNS)
        for options in (None, QueryOptions(alpha=0.0), QueryOptions(embedding=[1.0] * 384)):
            for ask in (session.query, lambda *given: client.query_multi([session], *given)):
                with pytest.raises(InvalidArgumentError, match="at character 6") as refusal:
                    await ask("secret\ud800", options)
                assert "secret" not in str(refusal.value)

    run(client, story)


def test_options_of_the_wrong_kind_are_refused_by_their_kind(client: MossClient) -> None:
    async def story(session: SessionIndex) -> None:
        with pytest.raises(InvalidArgumentError, match="options is a MutationOptions, not a dict"):
            await session.add_docs(TURNS, {"upsert": False})  # type: ignore[arg-type]  # on purpose
        with pytest.raises(InvalidArgumentError, match="options is a GetDocumentsOptions"):
            await session.get_docs(["turn-1"])  # type: ignore[arg-type]  # on purpose
        with pytest.raises(InvalidArgumentError, match="sort_by holds half"):
            await session.get_docs(GetDocumentsOptions(sort_by="\udfff"))
        assert session.doc_count == 0

    run(client, story)


def test_a_query_honours_filter_grouping_depth_and_score(client: MossClient) -> None:
    async def story(session: SessionIndex) -> None:
        await session.add_docs(
            [
                DocumentInfo("a#1", "The refund", {"call": "a", "n": "1"}),
                DocumentInfo("a#2", "was issued.", {"call": "a", "n": "2"}),
                DocumentInfo("b#1", "A refund is due.", {"call": "b", "n": "1"}),
            ]
        )
        in_a = {"field": "call", "condition": {"$eq": "a"}}
        filtered = await session.query("refund", QueryOptions(filter=in_a))
        assert {doc.id for doc in filtered.docs} == {"a#1", "a#2"}
        by = ParentGrouping("call", "n")
        grouped = await session.query("refund", QueryOptions(group_by=by, filter=in_a, top_k=1))
        assert [(doc.id, doc.text) for doc in grouped.docs] == [("a", "The refund\nwas issued.")]
        near = await session.query("refund is due", QueryOptions(top_k=1, candidate_depth=1))
        assert [doc.id for doc in near.docs] == ["b#1"]
        good = await session.query("refund", QueryOptions(filter=in_a, min_score=0.4))
        assert [doc.id for doc in good.docs] == ["a#1"]
        fetched = await session.get_docs(GetDocumentsOptions(filter=in_a, group_by=by))
        assert [doc.id for doc in fetched] == ["a"]
        assert [turn.id for turn in await session.thread(filter={"$not": in_a})] == ["b#1"]

    run(client, story)


def test_one_bad_document_of_a_hundred_is_named_and_none_is_stored(client: MossClient) -> None:
    async def story(session: SessionIndex) -> None:
        docs = [DocumentInfo(f"d{i}", "fine") for i in range(100)]
        for bad, named in [
            (DocumentInfo("", "no id"), "id is empty"),
            (DocumentInfo("x" * 1025, "long id"), "1024"),
            (DocumentInfo("d-bad", "x" * (1024 * 1024 + 1)), "d-bad"),
            (DocumentInfo("d-bad", "half \ud800 a pair"), "d-bad"),
            (DocumentInfo("d-bad", "text", {"key": "\udfff"}), "d-bad"),
            (DocumentInfo("d-bad", "text", embedding=[1.0]), "d-bad"),
            (DocumentInfo("d-bad", "text", embedding=[float("nan")] * 384), "d-bad"),
        ]:
            with pytest.raises(InvalidArgumentError, match=named):
                await session.add_docs([*docs[:50], bad, *docs[50:]])
            assert session.doc_count == 0

    run(client, story)


def test_what_is_no_document_is_refused_with_its_place(client: MossClient) -> None:
    async def story(session: SessionIndex) -> None:
        for wrong, named in (
            ("text", "line 1: not JSON"),
            (b"text", "line 1: not JSON"),
            (7, "documents"),
            ([TURNS[0], 7], "item 1"),
            ([TURNS[0], {"id": "a"}], "item 1: the key 'text' is missing"),
        ):
            with pytest.raises(InvalidArgumentError, match=named):
                await session.add_docs(wrong)  # type: ignore[arg-type]  # what a caller may do
        with pytest.raises(InvalidArgumentError, match="list of ids"):
            await session.delete_docs("turn-1")
        assert session.doc_count == 0

    run(client, story)


@pytest.mark.parametrize(
    "arguments",
    [
        {"id": 1, "text": "a"},
        {"id": "a", "text": None},
        {"id": "a", "text": "b", "metadata": {"k": 1}},
        {"id": "a", "text": "b", "metadata": [("k", "v")]},
        {"id": "a", "text": "b", "payload": b"bytes"},
    ],
)
def test_a_document_of_wrong_types_is_a_type_error(arguments: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        DocumentInfo(**arguments)


def test_a_custom_session_needs_vectors_and_keeps_them_as_float32(client: MossClient) -> None:
    async def story(session: SessionIndex) -> None:
        assert session.model_id == "custom"
        with pytest.raises(InvalidArgumentError, match="'b', 'c'"):
            await session.add_docs(
                [
                    DocumentInfo("a", "x", embedding=[1.0, 0.1, 0.0]),
                    DocumentInfo("b", "y"),
                    DocumentInfo("c", "z", embedding=[]),
                ]
            )
        assert session.doc_count == 0
        await session.add_docs(
            [
                DocumentInfo("a", "apples", embedding=[1.0, 0.1, 0.0]),
                DocumentInfo("b", "pears", embedding=[0.0, 0.1, 1.0]),
            ]
        )
        for query in ("apples", ""):
            with pytest.raises(InvalidArgumentError, match="embedding"):
                await session.query(query)
        found = await session.query("", QueryOptions([10.0, 1.0, 0.0], 1))
        assert found.docs[0].id == "a"
        assert found.docs[0].score == pytest.approx(1.0, abs=1e-6)
        with pytest.raises(InvalidArgumentError, match="4 dimensions"):
            await session.add_docs([DocumentInfo("c", "x", embedding=[1.0, 0, 0, 0])])

    run(client, story, model_id="custom")


def test_a_session_keeps_its_model_and_refuses_another(client: MossClient) -> None:
    async def story() -> None:
        async with client:
            session = await client.session("conv", "custom")
            await session.add_docs([DocumentInfo("a", "x", embedding=[1.0, 0.0])])
            await session.close()
            again = await client.session("conv")
            assert again.model_id == "custom"
            await again.close()
            with pytest.raises(ModelMismatchError, match="custom") as refusal:
                await client.session("conv", "moss-minilm")
            assert isinstance(refusal.value, ValueError)
            with pytest.raises(ModelNotFoundError) as missing:
                await client.session("other", "moss-mediumlm")
            assert missing.value.code == "MODEL_UNAVAILABLE"
            assert missing.value.hint is not None

    asyncio.run(story())


def test_after_close_names_stay_and_everything_else_is_refused(client: MossClient) -> None:
    async def story() -> None:
        session = await client.session("conv")
        await session.add_docs(TURNS[:1])
        await session.close()
        await session.close()
        assert (session.name, session.model_id) == ("conv", "moss-minilm")
        for call in (
            session.add_docs(TURNS),
            session.query("x"),
            session.push_index(),
            session.pull(),
            session.get_docs(),
            session.delete_docs(["a"]),
        ):
            with pytest.raises(InvalidArgumentError, match="closed"):
                await call
        with pytest.raises(InvalidArgumentError, match="closed"):
            _ = session.doc_count
        assert "closed" in repr(session)
        await client.close()
        await client.close()
        with pytest.raises(RuntimeError, match=r"^MossClient is closed$") as closed:
            await client.session("conv")
        assert not isinstance(closed.value, MossError)

    asyncio.run(story())


def test_client_and_session_work_as_plain_context_managers_too(tmp_path: Path) -> None:
    with MossClient("p", KEY, store="memory://plain", data_dir=tmp_path) as client:
        session = asyncio.run(client.session("conv"))
        with session:
            asyncio.run(session.add_docs(TURNS))
            assert asyncio.run(session.query("refund")).docs[0].id == "turn-2"
    with pytest.raises(RuntimeError, match="MossClient is closed"):
        asyncio.run(client.session("conv"))


def test_closing_a_client_closes_its_sessions(client: MossClient) -> None:
    async def story() -> None:
        session = await client.session("conv")
        await client.close()
        with pytest.raises(InvalidArgumentError, match="closed"):
            await session.add_docs(TURNS)

    asyncio.run(story())


def test_a_push_says_what_it_did(client: MossClient) -> None:
    async def story(session: SessionIndex) -> None:
        await session.add_docs(TURNS)
        assert str(session.sync_state) == "pending(3)"
        result = await session.push_index()
        assert (result.status, result.doc_count, result.index_name) == ("completed", 3, "conv-123")
        assert result.job_id == f"push-{result.report.session_id}-{result.report.seq}"
        assert result.report.sent == 3
        assert result.report.requests > 0
        assert session.sync_state.status == "synced"
        assert repr(session) == "<SessionIndex 'conv-123' docs=3 synced>"

    run(client, story)


def test_without_credentials_the_error_names_every_place_they_may_come_from(
    tmp_path: Path,
) -> None:
    with pytest.raises(UnauthorizedError) as missing:
        MossClient(data_dir=tmp_path)
    for place in ("project_id", "MOSS_PROJECT_ID", "credentials.json"):
        assert place in str(missing.value)
    assert missing.value.hint is not None
    assert "moss-local init" in missing.value.hint
    with pytest.raises(UnauthorizedError, match="MOSS_PROJECT_KEY"):
        MossClient("p", data_dir=tmp_path)


def test_credentials_and_places_come_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in [
        ("MOSS_PROJECT_ID", "from-env"),
        ("MOSS_PROJECT_KEY", "key"),
        ("MOSS_STORE", f"memory://{uuid4().hex}"),
        ("MOSS_DATA_DIR", str(tmp_path / "data")),
    ]:
        monkeypatch.setenv(name, value)

    async def story() -> None:
        async with MossClient(None, None) as client:
            assert "from-env" in repr(client)
            assert "key" not in repr(client)
            session = await client.session("conv")
            await session.add_docs(TURNS[:1])

    asyncio.run(story())
    assert list((tmp_path / "data").glob("from-env-*/conv-*.sqlite3"))


@pytest.mark.parametrize(
    "arguments",
    [
        {"project_id": 7, "project_key": "k"},
        {"project_id": "x" * 600, "project_key": "k"},
        {"project_id": "p", "project_key": "k", "store": "ftp://host/x"},
        {"project_id": "p", "project_key": "k\ud800"},
        {"project_id": "p", "project_key": "k", "store": 7},
        {"project_id": "p", "project_key": "k", "store": "a\ud800"},
        {"project_id": "p", "project_key": "k", "cache_path": "a\0b"},
        {"project_id": "p", "project_key": "k", "cache_path": 7},
        {"project_id": "p", "project_key": "k", "data_dir": "a\0b"},
        {"project_id": "p", "project_key": "k", "data_dir": 7},
    ],
)
def test_a_wrong_argument_of_the_client_is_refused_at_once(
    arguments: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(InvalidArgumentError):
        MossClient(**{"data_dir": tmp_path} | arguments)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("value", "named"), [(False, "at_rest is False, not"), ("", "empty str"), (b"k", "type bytes")]
)
def test_a_wrong_at_rest_is_refused_with_what_it_may_be(
    value: Any, named: str, tmp_path: Path
) -> None:
    with pytest.raises(InvalidArgumentError, match=named) as refused:
        MossClient("p", KEY, data_dir=tmp_path, at_rest=value)
    assert str(refused.value.hint).startswith("leave it out to take session files as they are")


@pytest.mark.skipif(os.name != "posix", reason="modes")
@pytest.mark.parametrize("auto_load", [True, False])
def test_whatever_the_umask_the_data_directory_is_this_user_s_alone(
    tmp_path: Path, auto_load: bool
) -> None:
    (tmp_path / "there").mkdir(mode=0o750)
    made, there = tmp_path / "new" / "data", tmp_path / "there"

    async def story() -> None:
        for data_dir in (made, there):
            async with MossClient("p", KEY, store=tmp_path / "store", data_dir=data_dir) as client:
                session = await client.session("conv", "custom", auto_load_on_init=auto_load)
                await session.add_docs([DocumentInfo("a", "text", embedding=[1.0])])
                await session.push_index()

    before = os.umask(0)
    try:
        asyncio.run(story())
    finally:
        os.umask(before)
    for path in (made.parent, made, *made.rglob("*"), *there.rglob("*")):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), path
    assert stat.S_IMODE(there.stat().st_mode) == 0o750  # what is there is left as it is


def test_a_store_that_refuses_the_credentials_leaves_the_session_usable(
    tmp_path: Path, s3_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "expired")

    async def story() -> None:
        async with MossClient("p", KEY, store=s3_url, data_dir=tmp_path) as client:
            session = await client.session("conv")
            assert session.sync_state.status == "offline"
            await session.add_docs(TURNS)
            with pytest.raises(MossError) as refusal:
                await session.push_index()
            assert refusal.value.code == "PERMISSION_DENIED"
            assert session.sync_state.pending == 3

    asyncio.run(story())


def test_a_store_that_never_answers_holds_up_neither_opening_nor_closing(
    tmp_path: Path, silent_store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each wait that is shortened here would by itself be longer than the test may take."""
    monkeypatch.setattr(moss_local.project, "FIRST_ANSWER_S", 0.2)
    monkeypatch.setattr(s3_client, "BULK_READ_TIMEOUT_S", 600)

    async def story() -> None:
        async with MossClient("p", KEY, store=silent_store, data_dir=tmp_path) as client:
            for _ in range(2):  # on a device that is new, and on one that knows the session
                session = await client.session("conv", "custom")
                state = session.sync_state
                assert (state.status, state.code) == ("offline", "NETWORK")
                assert "no answer" in str(state.reason)
                await session.add_docs([DocumentInfo("a", "A turn.", embedding=[1.0, 0.0])])
                assert [doc.id for doc in await session.get_docs()] == ["a"]
                await session.close()
            with pytest.raises(NetworkError, match="no answer"):
                await client.session("elsewhere", create=False)
            with pytest.raises(NetworkError, match="no answer"):
                await client.stored_sessions()
            following = await client.session("conv", auto_sync=0.1)
            assert (await following.close(timeout=0.1)).pending == 1

    asyncio.run(asyncio.wait_for(story(), 60))


def test_an_exchange_with_a_store_that_never_answers_ends(
    tmp_path: Path, silent_store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("BULK_READ_TIMEOUT_S", "CAS_READ_TIMEOUT_S"):
        monkeypatch.setattr(s3_client, name, 0.2)

    async def story() -> None:
        async with MossClient("p", KEY, store=silent_store, data_dir=tmp_path) as client:
            session = await client.session("conv", "custom", auto_load_on_init=False)
            await session.add_docs([DocumentInfo("a", "A turn.", embedding=[1.0, 0.0])])
            for exchange in (session.push_index, session.pull, session.sync):
                with pytest.raises(NetworkError, match="no answer"):
                    await exchange()
            [done] = await client.sync_sessions(["conv"])
            assert isinstance(done.error, NetworkError)
            assert session.sync_state.pending == 1

    asyncio.run(asyncio.wait_for(story(), 60))


def test_a_folder_that_hangs_does_not_hold_up_opening(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read that never returns stands for a network mount that hangs."""
    monkeypatch.setattr(moss_local.project, "FIRST_ANSWER_S", 0.2)
    back = threading.Event()

    def hanging(self: FolderStore, key: str, known: object) -> None:
        back.wait()

    monkeypatch.setattr(FolderStore, "_read_back", hanging)

    async def story() -> None:
        client = MossClient("p", KEY, store=tmp_path / "store", data_dir=tmp_path / "device")
        session = await client.session("conv", "custom")
        assert session.sync_state.code == "NETWORK"
        await session.add_docs([DocumentInfo("a", "A turn.", embedding=[1.0, 0.0])])
        await session.close()
        back.set()  # the mount is back
        await client.close()

    asyncio.run(asyncio.wait_for(story(), 60))


def test_a_store_that_answers_slowly_is_waited_for(
    tmp_path: Path, s3_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What bounds the first answer leaves everything after it alone."""
    whole = S3Store.get

    async def slow(self: S3Store, key: str, **options: Any) -> Any:
        found = await whole(self, key, **options)
        await asyncio.sleep(1.6)  # and it takes two: the keys, and the manifest
        return found

    async def story(device: str) -> int:
        async with MossClient("p", KEY, store=s3_url, data_dir=tmp_path / device) as client:
            session = await client.session("conv", "custom")
            if not session.doc_count:
                await session.add_docs([DocumentInfo("a", "A turn.", embedding=[1.0, 0.0])])
                await session.push_index()
            return session.doc_count

    assert asyncio.run(story("first")) == 1
    monkeypatch.setattr(S3Store, "get", slow)
    monkeypatch.setattr(moss_local.project, "FIRST_ANSWER_S", 3.0)

    async def second() -> None:
        async with MossClient("p", KEY, store=s3_url, data_dir=tmp_path / "second") as client:
            session = await client.session("conv", "custom")
            assert (session.sync_state.status, session.doc_count) == ("synced", 1)

    asyncio.run(second())
