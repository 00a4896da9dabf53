"""What may be handed in as documents, and what becomes of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from moss_local import (
    Chunking,
    DocumentInfo,
    InvalidArgumentError,
    MossClient,
    MossError,
    NotFoundError,
    NotOfferedError,
    ParseFileInput,
    ParseOptions,
)
from moss_local.chunking import Window
from moss_local.embedding.models import open_embedder, resolve_model
from moss_local.ingest import Cutting, documents_from, read_given
from tests.keys import KEY

Story = Callable[[MossClient], Coroutine[Any, Any, None]]


@pytest.fixture
def tell(tmp_path: Path) -> Callable[[Story], None]:
    def told(story: Story) -> None:
        async def inside() -> None:
            client = MossClient("p", KEY, store=f"memory://{uuid4().hex}", data_dir=tmp_path / "d")
            async with client:
                await story(client)

        asyncio.run(inside())

    return told


def read(docs: Any, **cutting: Any) -> list[DocumentInfo]:
    return documents_from(read_given(docs, what="test"), Cutting(**cutting), lambda: None)


def test_documents_mappings_json_and_lines_say_the_same() -> None:
    document = {"id": 7, "text": "hello", "metadata": {"n": 30, "ok": True}, "payload": "x"}
    array = json.dumps([document])
    for given in ([document], (document,), array, array.encode(), json.dumps(document) + "\n"):
        (found,) = read(given)
        assert (found.id, found.text, found.payload) == ("7", "hello", "x")
        assert found.metadata == {"n": "30", "ok": "true"}
    own = DocumentInfo("a", "b")
    assert read(iter([own, document]))[0] is own


def test_files_of_documents_and_of_text_are_read_by_their_ending(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.json").write_text('[{"id": "one", "text": "1"}]')
    Path("b.jsonl").write_text('{"id": "two", "text": "2"}\n')
    Path("c.txt").write_text("First. Second.")
    Path("d.markdown").write_text("---\nt: x\n---\n# Top\nBody.\n# None\n")
    found = read([Path("a.json"), Path("b.jsonl"), Path("c.txt"), Path("d.markdown")])
    assert [(each.id, each.text) for each in found] == [
        ("one", "1"),
        ("two", "2"),
        ("c.txt#0", "First. Second."),
        ("d.markdown#0", "Top\nBody."),
    ]
    assert found[2].metadata == {"parentId": "c.txt"}
    assert [each.id for each in read(Path("c.txt"), chunking=Chunking(mode="sentences"))] == [
        "c.txt#0",
        "c.txt#1",
    ]


def test_a_chunker_and_a_chunking_cut_every_text_and_keep_what_belongs_to_it() -> None:
    given = [DocumentInfo("a", "x. y", {"k": "v"}, payload="p")]
    for cutting in (
        {"chunker": lambda text: text.split(" ")},
        {"chunking": Chunking(mode="sentences")},
    ):
        found = read(given, **cutting)
        assert [(each.id, each.text) for each in found] == [("a#0", "x."), ("a#1", "y")]
        for each in found:
            assert (each.metadata, each.payload) == ({"k": "v", "parentId": "a"}, "p")
    assert given[0].metadata == {"k": "v"}


@pytest.mark.parametrize(
    ("docs", "named"),
    [
        ("notes.txt", "Path"),
        (b"\xff", "UTF-8"),
        (3, "iterable"),
        ({"id": "a", "text": "b"}, "iterable"),
        (["a.txt"], "item 0"),
        ([{"id": "a"}], "'text' is missing"),
        ([{"id": "a", "text": "b", "txt": ""}], "unknown key 'txt'"),
        ([{"id": "a", "text": "b", "metadata": {"k": [1]}}], "'k'"),
    ],
)
def test_what_is_no_document_is_named(docs: Any, named: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        read(docs)
    assert named in f"{caught.value} {caught.value.hint}"


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"none\.txt"):
        read(tmp_path / "none.txt")
    with pytest.raises(InvalidArgumentError, match="directory"):
        read(tmp_path)
    odd = tmp_path / "a.xyz"
    odd.write_text("x")
    with pytest.raises(InvalidArgumentError, match=r"\.xyz"):
        read([odd])
    for docs in (Path("a\0b.txt"), [Path("a\0b.txt")]):
        with pytest.raises(InvalidArgumentError, match=r"'a\\x00b\.txt' holds a NUL"):
            read(docs)
    with pytest.raises(InvalidArgumentError, match="surrogate"):
        read(Path("\ud800.txt"))


def test_a_chunker_that_does_not_do_its_work_is_named() -> None:
    given = [DocumentInfo("a", "x")]
    for chunker, named in (
        (lambda text: ["y" * 2001], "2001 characters for document 'a'"),
        (lambda text: "xy", "returned str for document 'a'"),
        (lambda text: [1], "int among the chunks of 'a'"),
    ):
        with pytest.raises(InvalidArgumentError, match=named):
            read(given, chunker=chunker)
    with pytest.raises(InvalidArgumentError, match="embedding"):
        read([DocumentInfo("a", "x", embedding=[1.0])], chunking=Chunking())
    for wrong in ({"chunker": str.split, "chunking": Chunking()}, {"chunker": 1}, {"chunking": 1}):
        with pytest.raises(InvalidArgumentError):
            Cutting(**wrong).check()  # type: ignore[arg-type]  # that is what is wrong


def test_the_built_in_model_reads_every_chunk_whole(shared_cache: Path) -> None:
    embedder = open_embedder(resolve_model("moss-minilm"), cache_dir=shared_cache)
    window = Window(embedder.token_count, embedder.max_tokens)
    text = "Ünïcödé wörds ärë mäny tökëns, 123456789 as well. " * 200
    given = [DocumentInfo("a", text)]
    found = documents_from(
        read_given(given, what="t"), Cutting(chunking=Chunking(2000)), lambda: window
    )
    counts = [embedder.token_count(each.text) for each in found]
    assert max(counts) <= embedder.max_tokens
    assert max(counts) > embedder.max_tokens * 3 // 4  # and is given as much as it reads


def test_sessions_and_indexes_take_paths_and_chunking(
    tell: Callable[[Story], None], tmp_path: Path
) -> None:
    page = tmp_path / "guide.md"
    page.write_text("# Refunds\nThey take five days.\n# Hours\nWe open at nine.\n")

    async def story(client: MossClient) -> None:
        session = await client.session("call")
        assert await session.add_docs(page) == (2, 0)
        assert await session.add_docs('[{"id": "a", "text": "One. Two."}]') == (1, 0)
        added = await session.add_docs(
            [{"id": "a", "text": "One. Two."}], chunking=Chunking(mode="sentences")
        )
        assert added == (2, 0)
        made = await client.create_index("guide", [page])
        assert made.doc_count == 2
        more = [{"id": 1, "text": "x y"}]
        assert (await client.add_docs("guide", more, chunker=str.split)).doc_count == 2
        await client.load_index("guide")
        found = await client.query("guide", "when do I get my money back")
        assert found.docs[0].text == "Refunds\nThey take five days."
        assert (found.docs[0].metadata or {})["parentId"] == page.as_posix()

    tell(story)


def test_chunks_of_custom_indexes_have_no_vector_and_are_refused_before_anything_is_written(
    tell: Callable[[Story], None],
) -> None:
    async def story(client: MossClient) -> None:
        own = [DocumentInfo("a", "x", embedding=[1.0, 0.0])]
        await client.create_index("own", own)
        for call in (
            client.add_docs("own", own, chunking=Chunking()),
            client.create_index("new", own, chunking=Chunking()),
            client.create_index("new", own, "custom", chunker=str.split),
            client.create_index_from_files("new", [], model_id="custom"),
        ):
            with pytest.raises(ValueError, match="custom"):
                await call
        assert [each.name for each in await client.list_indexes()] == ["own"]

    tell(story)


def test_an_index_is_made_of_files(tell: Callable[[Story], None], tmp_path: Path) -> None:
    note = tmp_path / "note.txt"
    note.write_text("It rains.")

    async def story(client: MossClient) -> None:
        made = await client.create_index_from_files(
            "files",
            [
                ParseFileInput("note", "text/plain; charset=utf-8", path=str(note)),
                ParseFileInput("page", "text/markdown", data=b"# Top\nIt shines.\n"),
                ParseFileInput("rows", "application/json", data=b'[{"id": "r", "text": "x"}]'),
            ],
        )
        assert made.doc_count == 3
        assert [doc.id for doc in await client.get_docs("files")] == ["note#0", "page#0", "r"]
        one = ParseFileInput("a", "text/plain", data=b"x")
        docx = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
        for files, options, kind in (
            ([ParseFileInput("a.pdf", "application/pdf", data=b"x")], None, InvalidArgumentError),
            ([ParseFileInput("a.docx", docx, data=b"x")], None, InvalidArgumentError),
            ([one], ParseOptions(ocr_mode="full_ocr"), NotOfferedError),
            ([ParseFileInput("a", "image/png", data=b"x")], None, InvalidArgumentError),
            ([ParseFileInput("a", "text/plain")], None, InvalidArgumentError),
            ([ParseFileInput("a", "text/plain", path="a\0b")], None, InvalidArgumentError),
            ([ParseFileInput("a", "text/plain", data="x")], None, InvalidArgumentError),  # type: ignore[arg-type]  # that is what is wrong
            ([ParseFileInput("a", None, data=b"x")], None, InvalidArgumentError),  # type: ignore[arg-type]  # the same
            ([ParseFileInput(1, "text/plain", data=b"x")], None, InvalidArgumentError),  # type: ignore[arg-type]  # the same
            ([one] * 21, None, InvalidArgumentError),
            (["a.txt"], None, InvalidArgumentError),
            ("a.txt", None, InvalidArgumentError),
        ):
            with pytest.raises(MossError) as caught:
                await client.create_index_from_files("more", files, parse_options=options)  # type: ignore[arg-type]  # that is what is wrong
            assert type(caught.value) is kind

    tell(story)


@pytest.mark.parametrize("one", [DocumentInfo("a", "b"), {"id": "a", "text": "b"}])
def test_a_single_document_is_refused_with_the_list_that_was_meant(one: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="takes an iterable of documents") as refused:
        read_given(one, what="add_docs")
    assert refused.value.hint == "put a single document into a list"


@pytest.mark.parametrize("kind", [str, lambda name: name.encode()])
def test_a_str_is_json_and_never_a_path(
    kind: Callable[[str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What comes over a network must not make a server read its own files.
    monkeypatch.chdir(tmp_path)
    Path("a.txt").write_text("a secret of the server")
    for name in ("a.txt", str(tmp_path / "a.txt")):
        with pytest.raises(InvalidArgumentError, match="not JSON") as refused:
            read_given(kind(name), what="add_docs")
        assert "a secret" not in f"{refused.value} {refused.value.hint}"
