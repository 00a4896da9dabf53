"""strands-agents-moss: a tool of an agent."""

from __future__ import annotations

import asyncio

from strands_agents_moss import MossClient, MossSearchTool

from tests.compat.facts import ASKED, CHANGED, FACTS, refused


async def drive() -> None:
    client = MossClient(None, None)  # both from the environment
    await client.create_index("faq", FACTS)
    moss = MossSearchTool(index_name="faq", top_k=1)
    with refused("not loaded"):
        await moss.search(ASKED)
    await asyncio.gather(moss.load_index(), moss.load_index())
    told = await moss.search(ASKED)
    assert f"1. {FACTS[0].text} (source=policy, score=0." in told, told
    assert moss.tool.tool_name == "moss_search"
    assert "open from nine" in await moss.tool(query="opening hours")

    await client.add_docs("faq", [CHANGED])
    await client.load_index("faq")
    assert CHANGED.text in await moss.search(ASKED)
    await client.delete_docs("faq", ["refund"])
    assert CHANGED.text not in await moss.search(ASKED)
    await client.delete_index("faq")
    again = MossSearchTool(index_name="faq")
    with refused("faq"):
        await again.load_index()


asyncio.run(drive())
print("agent tool: indexed, queried, updated, deleted")
