"""Every legal name is a session of its own, and every legal character comes back as it was."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moss_local import (
    DocumentInfo,
    GetDocumentsOptions,
    InvalidArgumentError,
    MossClient,
    SessionIndex,
)
from tests.keys import KEY
from tests.processes.jobs import Where, client_at

NAMES = [
    "../x",
    "..",
    ".",
    "/",
    "/etc/passwd",
    "a/b",
    "a\\b",
    "con",
    "CON",
    "nul.txt",
    "a",
    "A",
    "a ",
    "a.",
    "ä",  # one code point
    "a\u0308",  # the same letter in two
    "😀",
    "👩‍👩‍👧",
    "e" * 512,
    "é" * 256,
    "a\0b",
    "a\0",
    "line\nbreak",
    "محادثة",
    "%2e%2e%2fx",
    "conv-123; DROP TABLE document",
    " ",
]


def vector(number: int) -> list[float]:
    return [1.0, float(number)]


def test_every_name_is_a_session_of_its_own_here_and_on_another_device(
    device: Callable[..., Where], tmp_path: Path
) -> None:
    async def fill(client: MossClient) -> None:
        for number, name in enumerate(NAMES):
            session = await client.session(name, "custom")
            assert session.name == name
            await session.add_docs(
                [DocumentInfo("mine", name, {"name": name}, vector(number), payload=name)]
            )
            await session.push_index()

    async def resume(client: MossClient) -> None:
        for name in reversed(NAMES):
            session = await client.session(name)
            (found,) = await session.get_docs()
            assert (found.id, found.text, found.metadata, found.payload) == (
                "mine",
                name,
                {"name": name},
                name,
            )

    for where, work in ((device("one"), fill), (device("one"), resume), (device("two"), resume)):
        with client_at(where) as client:
            asyncio.run(work(client))

    # A name never was a path, and devices and store keep within their folders.
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "store", "two"]
    for name in ("one", "two"):
        (project,) = (tmp_path / name).iterdir()
        files = [path.name for path in project.glob("*.sqlite3")]
        assert len({file.casefold() for file in files}) == len(NAMES)
    blobs = [path for path in (tmp_path / "store").rglob("*") if path.is_file()]
    assert blobs
    assert not [path for path in blobs if b"etc/passwd" in path.read_bytes()]


@pytest.mark.parametrize("name", ["", "x" * 513, "é" * 257, "half \ud83d", None, 7])
def test_a_name_that_is_none_is_refused_and_makes_nothing(
    device: Callable[..., Where], tmp_path: Path, name: str
) -> None:
    with client_at(device("one")) as client, pytest.raises(InvalidArgumentError, match="name"):
        asyncio.run(client.session(name))
    assert list(tmp_path.iterdir()) == []


# -- contents ------------------------------------------------------------------------------------


@dataclass
class Pair:
    """Two devices that stay open from one example to the next, and the loop that they run on."""

    runner: asyncio.Runner
    here: SessionIndex
    there: SessionIndex
    examples: int = 0

    def exchange(self, documents: list[DocumentInfo]) -> list[DocumentInfo]:
        """Send the documents from one device to the other and return what arrives."""

        async def both() -> list[DocumentInfo]:
            await self.here.add_docs(documents)
            await self.here.push_index()
            await self.there.pull()
            ids = [document.id for document in documents]
            return await self.there.get_docs(GetDocumentsOptions(doc_ids=ids))

        self.examples += 1
        return self.runner.run(both())


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("pair")
    clients = [
        MossClient("project", KEY, store=folder / "store", data_dir=folder / name)
        for name in ("here", "there")
    ]
    with asyncio.Runner() as runner:
        here, there = (
            runner.run(client.session("contents", "custom", auto_load_on_init=False))
            for client in clients
        )
        yield Pair(runner, here, there)
        for client in clients:
            runner.run(client.close())


HARD = (
    "\0",
    "\uffff",
    "\U0010ffff",
    "\u2028",
    "\r\n",
    "\r",
    "\ufeff",
    "a\u0308\u0323",  # combining marks in an order that normalising would change
    "שלום עולם",
    "\u202eabc\u202c",
    "क्षि",
    "ﷺ",
    "👩🏽‍🚀",
    "ﬁ Å",  # a ligature, the sign of ångström: both change under NFKC
    '"; DROP TABLE document; --',
)
characters = st.characters(exclude_categories=["Cs"])
strings = st.text(characters | st.sampled_from(HARD).map(lambda hard: hard[:1])) | st.lists(
    st.sampled_from(HARD), max_size=5
).map("".join)
ids = strings.filter(lambda text: 0 < len(text.encode()) <= 1024)
metadata = st.none() | st.dictionaries(strings, strings, max_size=4)
documents = st.lists(
    st.builds(
        DocumentInfo,
        id=ids,
        text=strings,
        metadata=metadata,
        embedding=st.just([1.0, 2.0]),
        payload=st.none() | strings,
    ),
    min_size=1,
    max_size=4,
    unique_by=lambda document: document.id,
)


@settings(max_examples=40)
@given(sent=documents)
def test_what_one_device_writes_another_reads_to_the_last_character(
    pair: Pair, sent: list[DocumentInfo]
) -> None:
    assert [contents(each) for each in pair.exchange(sent)] == [contents(each) for each in sent]


def contents(document: DocumentInfo) -> tuple[str, str, list[tuple[str, str]] | None, str | None]:
    """Return what a document holds; the order of metadata is part of it."""
    metadata = None if document.metadata is None else list(document.metadata.items())
    return document.id, document.text, metadata, document.payload


def big(size: int, filler: str) -> str:
    """Return a text of exactly `size` bytes of UTF-8, hard characters at both ends."""
    ends = "".join(HARD)
    middle, rest = divmod(size - 2 * len(ends.encode()), len(filler.encode()))
    return ends + filler * middle + "." * rest + ends


@pytest.mark.parametrize("filler", ["a", "ж", "語", "🙂"])
def test_the_longest_texts_ids_payloads_and_metadata_travel_whole(pair: Pair, filler: str) -> None:
    document = DocumentInfo(
        id=big(1024, filler),
        text=big(1024 * 1024, filler),
        metadata={"": big(600 * 1024, filler), big(2000, filler): ""},
        embedding=[1.0, 2.0],
        payload=big(1024 * 1024, filler),
    )
    assert len(document.text.encode()) == 1024 * 1024

    (found,) = pair.exchange([document])

    assert contents(found) == contents(document)


def test_one_byte_more_is_refused_and_nothing_of_the_call_is_kept(pair: Pair) -> None:
    fine = DocumentInfo("fine", "fine", embedding=[1.0, 2.0])
    long = DocumentInfo("long", "x" * (1024 * 1024 + 1), embedding=[1.0, 2.0])
    named = DocumentInfo("x" * 1025, "fine", embedding=[1.0, 2.0])
    for wrong in (long, named):
        with pytest.raises(InvalidArgumentError, match="more than"):
            pair.runner.run(pair.here.add_docs([fine, wrong]))
    assert pair.runner.run(pair.here.get_docs(GetDocumentsOptions(doc_ids=["fine"]))) == []
