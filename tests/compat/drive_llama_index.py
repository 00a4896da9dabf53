"""llama-index-tools-moss: the tool spec of an agent."""

from __future__ import annotations

import asyncio

from inferedge_moss import MossClient
from llama_index.tools.moss import MossToolSpec, QueryOptions

from tests.compat.facts import ASKED, CHANGED, FACTS, PROJECT, refused


async def drive() -> None:
    client = MossClient(*PROJECT)
    spec = MossToolSpec(client, "faq", QueryOptions(top_k=1, alpha=0.6))
    await spec.index_docs(FACTS)
    answer = await spec.query(ASKED)
    assert FACTS[0].text in answer, answer
    assert "Source: policy" in answer
    assert FACTS[1].text not in answer
    assert "faq (docs: 3, status: Ready)" in await spec.list_indexes()

    tools = {tool.metadata.name: tool for tool in spec.to_tool_list()}
    assert set(tools) == {"query", "list_indexes", "delete_index"}

    await client.add_docs("faq", [CHANGED])
    assert CHANGED.text in str(await tools["query"].acall(query=ASKED))
    await client.delete_docs("faq", ["refund"])
    assert CHANGED.text not in await spec.query(ASKED)
    with refused("already exists"):
        await spec.index_docs(FACTS)

    assert "deleted" in await spec.delete_index("faq")
    assert await spec.list_indexes() == "No indexes found."
    await spec.index_docs(FACTS)
    assert FACTS[0].text in await spec.query(ASKED)


asyncio.run(drive())
print("tool spec: indexed, queried, listed, updated, deleted, indexed again")
