"""What programs of the hosted SDK count on, beyond names and parameters."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

import moss_local
from moss_local import (
    Chunking,
    DocumentInfo,
    GetDocumentsOptions,
    InvalidArgumentError,
    LoadIndexesResult,
    MossClient,
    MossError,
    MutationOptions,
    ParseFileInput,
    QueryOptions,
    SessionIndex,
)
from tests.keys import KEY

DOCS = [
    DocumentInfo("a", "apples are red", {"rank": "2"}, [1.0, 0.0], "kept"),
    DocumentInfo("b", "bananas are yellow", None, [0.0, 2.0]),
]
Call = Callable[[MossClient], Coroutine[Any, Any, object]]


@pytest.fixture
def client(tmp_path: Path) -> MossClient:
    return MossClient("p", KEY, store=f"memory://{uuid4().hex}", data_dir=tmp_path)


def refusal(client: MossClient, call: Call) -> BaseException:
    async def inside() -> None:
        await call(client)

    with pytest.raises((MossError, RuntimeError, ValueError)) as caught:
        asyncio.run(inside())
    return caught.value


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.session("x", artifact_version="1"),
        lambda client: client.session("x", manifest_sha256="00"),
        lambda client: client.session("made", "moss-minilm"),
        lambda client: client.create_index("x", [DocumentInfo("a", "b")], "custom"),
        lambda client: client.create_index("x", [{"id": "a", "text": "b", "embedding": []}]),
        lambda client: client.create_index("x", DOCS, "custom", chunking=Chunking()),
        lambda client: client.create_index("x", DOCS, "custom", chunker=lambda text: [text]),
        lambda client: client.create_index_from_files(
            "x", [ParseFileInput("a.txt", b"text")], model_id="custom"
        ),
    ],
)
def test_what_is_a_value_error_there_is_one_here_and_writes_nothing(
    client: MossClient, call: Call
) -> None:
    asyncio.run(client.create_index("made", DOCS))
    assert isinstance(refusal(client, call), ValueError)
    assert [each.name for each in asyncio.run(client.list_indexes())] == ["made"]
    assert "x" not in {each.name for each in asyncio.run(client.local_sessions()).sessions}


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.session("x"),
        lambda client: client.create_index_from_files("x", []),
        lambda client: client.list_web_sources(),
        lambda client: client.query_multi(["made"], "x"),
    ],
)
def test_a_client_that_was_closed_says_so_to_the_rest_too(client: MossClient, call: Call) -> None:
    asyncio.run(client.close())
    error = refusal(client, call)
    assert str(error) == "MossClient is closed"
    assert type(error) is RuntimeError


def test_io_is_awaited_and_the_rest_are_properties() -> None:
    for owner in (MossClient, SessionIndex):
        for name in (
            "add_docs delete_docs get_docs query close"
            + (" session create_index load_index" if owner is MossClient else " push_index")
        ).split():
            assert inspect.iscoroutinefunction(getattr(owner, name)), name
    for name in ("doc_count", "model_id"):
        assert isinstance(inspect.getattr_static(SessionIndex, name), property)


def test_the_module_has_a_version_and_no_names_of_chance() -> None:
    assert moss_local.__version__
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        moss_local.nothing  # noqa: B018  # reading it is what raises
    from moss_local.inference import InferenceError, MossInference

    assert MossInference is moss_local.MossInference
    assert issubclass(InferenceError, Exception)


def test_documents_and_options_can_be_changed_after_they_were_made() -> None:
    document = DocumentInfo("a", "text")
    document.id, document.metadata = "b", {"k": "v"}
    assert (document.id, document.metadata) == ("b", {"k": "v"})
    options = QueryOptions()
    options.filter = {"field": "k", "condition": {"$eq": "v"}}
    assert options.filter is not None
    assert QueryOptions([1.0]).embedding == [1.0]
    assert (LoadIndexesResult().loaded, LoadIndexesResult().failed_codes) == ([], {})
    assert (Chunking().chunk_size, Chunking().chunk_overlap) == (1200, 200)


def test_what_comes_back_has_the_shapes_that_clients_rely_on(client: MossClient) -> None:
    async def story() -> None:
        made = await client.create_index("made", DOCS)
        assert (made.index_name, made.doc_count) == ("made", 2)
        await client.load_index("made")
        found = await client.query("made", "x", QueryOptions([1.0, 0.1], alpha=1.0))
        assert type(found.time_taken_ms) is int
        first, second = found.docs
        assert (first.id, first.metadata, first.payload) == ("a", {"rank": "2"}, "kept")
        assert second.metadata is None
        assert 0.0 <= second.score < first.score <= 1.0
        status = await client.get_job_status(made.job_id)
        assert (status.status.value, status.progress, status.error) == ("completed", 100.0, None)
        index = await client.get_index("made")
        assert (index.status, index.doc_count, index.model.id) == ("Ready", 2, "custom")
        for when in (index.created_at, index.updated_at):
            assert isinstance(when, str)
            assert when.endswith("Z")
        assert (await client.delete_index("made")) is True

    asyncio.run(story())


def test_a_loaded_index_shows_a_change_after_loading_it_again(client: MossClient) -> None:
    async def story() -> None:
        every = QueryOptions([1.0, 1.0], top_k=9)
        await client.create_index("made", DOCS[:1])
        await client.load_index("made")
        added = await client.add_docs("made", DOCS)
        assert added.doc_count == 2  # of this call
        assert (await client.get_index("made")).doc_count == 2
        await client.load_index("made")
        assert {doc.id for doc in (await client.query("made", "x", every)).docs} == {"a", "b"}
        kept = await client.add_docs(
            "made",
            [DocumentInfo("a", "pears", None, [1.0, 0.0])],
            MutationOptions(upsert=False),
        )
        assert kept.doc_count == 0
        wanted = GetDocumentsOptions(doc_ids=["b", "nobody", "a"])
        texts = [doc.text for doc in await client.get_docs("made", wanted)]
        assert texts == [DOCS[1].text, DOCS[0].text]
        assert await client.get_docs("made", GetDocumentsOptions(doc_ids=[])) == []

    asyncio.run(story())


def test_the_signals_of_alpha_and_what_it_takes(client: MossClient) -> None:
    async def story() -> None:
        await client.create_index("made", DOCS)
        await client.load_index("made")
        words = await client.query("made", "bananas", QueryOptions([1.0, 0.0], alpha=0.0))
        assert [doc.id for doc in words.docs] == ["b"]
        nothing = await client.query("made", "cherries", QueryOptions([1.0, 0.0], alpha=0.0))
        assert nothing.docs == []
        meaning = await client.query("made", "bananas", QueryOptions([1.0, 0.1], alpha=1.0))
        assert [doc.id for doc in meaning.docs] == ["a", "b"]
        # Words alone need no vector where several indexes are asked.
        several = await client.query_multi_index(["made"], "bananas", QueryOptions(alpha=0.0))
        assert [(doc.id, doc.index_name, doc.score) for doc in several.docs] == [("b", "made", 0.0)]
        for alone in ("bananas", " "):
            with pytest.raises(InvalidArgumentError, match="embedding"):
                await client.query("made", alone)

    asyncio.run(story())
