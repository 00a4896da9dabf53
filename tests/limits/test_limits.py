"""Each limit of docs/limits.md, at the limit and one past it; and no constant without a row."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from moss_local import (
    DocumentInfo,
    GetDocumentsOptions,
    InvalidArgumentError,
    MossClient,
    ParseFileInput,
    QueryOptions,
)
from moss_local.embedding.model_files import read_description
from moss_local.ingest import Cutting, documents_from, read_file, read_given
from moss_local.options import choose_get, choose_query
from moss_local.rounds import check_round
from moss_local.search.filters import parse_filter
from moss_local.search.keywords import MAX_QUERY_CHARS, MAX_QUERY_TERMS, query_terms
from moss_local.storage.documents import Document, check_document
from moss_local.storage.encoding import check_vector
from moss_local.storage.paths import check_name
from tests.keys import KEY
from tests.limits.facts import INSIDE, LIMITS

ROOT = Path(__file__).parents[2]


def nested(levels: int) -> dict[str, Any]:
    found: dict[str, Any] = {"field": "a", "condition": {"$eq": "x"}}
    for _ in range(levels):
        found = {"$not": found}
    return found


def conditions(count: int) -> dict[str, Any]:
    return {"$and": [{"field": "a", "condition": {"$eq": "x"}} for _ in range(count)]}


def values(count: int) -> dict[str, Any]:
    return {"field": "a", "condition": {"$in": ["x"] * count}}


def cut(size: int) -> None:
    documents_from(
        read_given([DocumentInfo("a", "text")], what="test"),
        Cutting(chunker=lambda text: ["x" * size]),
        lambda: None,
    )


def together(count: int) -> None:
    async def story() -> None:
        name = uuid4().hex
        async with MossClient("p", KEY, store=f"memory://{name}", data_dir=Path(name)) as client:
            sessions = [
                await client.session(f"s{n}", "custom", auto_load_on_init=False)
                for n in range(count)
            ]
            await client.query_multi(sessions, "x", QueryOptions(embedding=[1.0]))

    asyncio.run(story())


def files(count: int) -> None:
    async def story() -> None:
        name = uuid4().hex
        async with MossClient("p", KEY, store=f"memory://{name}", data_dir=Path(name)) as client:
            given = [ParseFileInput(f"f{n}", "text/plain", data=b"x") for n in range(count)]
            await client.create_index_from_files("files", given)

    asyncio.run(story())


def description(size: int) -> None:
    Path("model.json").write_text('{"id": "tiny", "dim": 4}'.ljust(size))
    try:
        read_description(Path())
    except InvalidArgumentError as error:
        if "longer than" in str(error):  # what else it lacks does not matter here
            raise


def big_file(size: int) -> None:
    path = Path("big.txt")
    with path.open("wb") as out:
        out.truncate(size)
    read_file(path)


CASES: dict[str, Callable[[int], object]] = {
    "limits.MAX_NAME_BYTES": lambda n: check_name("x" * n),
    "limits.MAX_ID_BYTES": lambda n: check_document(Document("x" * n, "")),
    "limits.MAX_TEXT_BYTES": lambda n: check_document(Document("a", "x" * n)),
    "limits.MAX_PAYLOAD_BYTES": lambda n: check_document(Document("a", "", None, "x" * n)),
    "limits.MAX_METADATA_BYTES": lambda n: check_document(Document("a", "", {"k": "x" * (n - 1)})),
    "limits.MAX_DIMENSIONS": lambda n: check_vector([1.0] * n, dim=None, what="it"),
    "options.MAX_TOP_K": lambda n: (
        choose_query(QueryOptions(top_k=n), now_ms=0),
        choose_get(GetDocumentsOptions(limit=n), now_ms=0),
    ),
    "options.MAX_CONTEXT": lambda n: choose_query(QueryOptions(context=n), now_ms=0),
    "filters.MAX_DEPTH": lambda n: parse_filter(nested(n), now_ms=0),
    "filters.MAX_CONDITIONS": lambda n: parse_filter(conditions(n), now_ms=0),
    "filters.MAX_VALUES": lambda n: parse_filter(values(n), now_ms=0),
    "querying.MAX_SESSIONS": together,
    "rounds.MAX_AT_ONCE": lambda n: check_round("sync", n),
    "file_input.MAX_FILES": files,
    "ingest.MAX_FILE_BYTES": big_file,
    "model_files.MAX_DESCRIPTION_BYTES": description,
    "ingest.MAX_CHUNK_CHARS": cut,
}


def short(constant: str) -> str:
    return ".".join(constant.split(".")[-2:])


BY_SHORT = {short(limit.constant): limit for limit in LIMITS}


@pytest.mark.parametrize("name", CASES)
def test_at_the_limit_it_is_taken_and_one_past_it_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from docs.limits import value_of

    monkeypatch.chdir(tmp_path)
    limit = value_of(BY_SHORT[name].constant)
    CASES[name](limit)
    with pytest.raises(InvalidArgumentError):
        CASES[name](limit + 1)


def test_of_a_long_query_only_so_much_is_searched_for_by_word() -> None:
    def tokenize(text: str) -> list[bytes]:
        return [word.encode() for word in text.split()]

    words = " ".join(f"w{n}" for n in range(MAX_QUERY_TERMS + 1))
    assert len(query_terms(words, tokenize)) == MAX_QUERY_TERMS
    assert query_terms("x " * (MAX_QUERY_CHARS // 2) + "last", tokenize) == [b"x"]
    assert b"last" in query_terms("x " * (MAX_QUERY_CHARS // 2 - 2) + "last", tokenize)


def test_every_limit_is_tried_somewhere() -> None:
    by_word = {"keywords.MAX_QUERY_CHARS", "keywords.MAX_QUERY_TERMS"}
    for name, limit in BY_SHORT.items():
        if limit.test:
            path, _, test = limit.test.partition("::")
            assert f"def {test}" in (ROOT / path).read_text("utf-8"), limit.test
        else:
            assert name in CASES or name in by_word, name


def test_every_bound_of_the_packages_is_in_one_of_the_tables() -> None:
    of_format = (ROOT / "docs" / "format.md").read_text("utf-8")
    known = {limit.constant for limit in LIMITS} | set(INSIDE)
    found = set()
    for package, root in (("moss_local", ROOT), ("moss_sync", ROOT / "sync")):
        for path in (root / package).rglob("*.py"):
            if "testing" in path.parts:
                continue
            module = ".".join(path.relative_to(root).with_suffix("").parts)
            for name in re.findall(r"^(MAX_[A-Z_]+)\b[^=\n]*=", path.read_text("utf-8"), re.M):
                found.add(f"{module}.{name}")
            if module == "moss_local.chunking":
                found.add("moss_local.chunking.MAX_CHARS")
    unknown = {name for name in found - known if f"`{short(name)}`" not in of_format}
    assert unknown == set()
    assert known - found == set()
