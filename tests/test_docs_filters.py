"""Every example in docs/filters.md finds what the page says, fetched and searched."""

from __future__ import annotations

import ast
import asyncio
import json
import re
from pathlib import Path
from uuid import uuid4

from moss_local import DocumentInfo, GetDocumentsOptions, MossClient, QueryOptions
from moss_local.search.filters import OPERATORS
from tests.keys import KEY

PAGE = (Path(__file__).parent.parent / "docs" / "filters.md").read_text("utf-8")


EXAMPLES = re.findall(r"^\| `(\{.*\})` \| (.*) \|$", PAGE, re.MULTILINE)
"""Filters as written in Python, and the ids of what they find."""


def test_every_operator_is_explained_and_used() -> None:
    table = PAGE[PAGE.index("| operator |") :]
    for operator in OPERATORS:
        assert f"`{operator}`" in table
    used = set(re.findall(r"\$[a-z]+", " ".join(written for written, _ in EXAMPLES)))
    assert used >= {*OPERATORS, "$and", "$or", "$not"} - {"$nin", "$lte"}


def test_every_example_finds_what_the_page_says(tmp_path: Path) -> None:
    [given_documents] = re.findall(r"^```json\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    documents = [
        DocumentInfo(
            given["id"], given["text"], given.get("metadata"), embedding=[1.0, float(place)]
        )
        for place, given in enumerate(json.loads(given_documents))
    ]

    async def story() -> None:
        client = MossClient("p", KEY, store=f"memory://{uuid4().hex}", data_dir=tmp_path)
        async with client, await client.session("s", "custom") as session:
            await session.add_docs(documents)
            for written, said in EXAMPLES:
                expected = [] if said == "none" else said.split()
                filter = ast.literal_eval(written)
                fetched = await session.get_docs(GetDocumentsOptions(filter=filter))
                assert [document.id for document in fetched] == expected, written
                options = QueryOptions(embedding=[1.0, 0.5], filter=filter)
                found = await session.query("refund", options)
                assert sorted(document.id for document in found.docs) == expected, written

    asyncio.run(story())
