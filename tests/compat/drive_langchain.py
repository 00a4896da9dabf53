"""langchain-moss: a retriever, sync and async, and a tool."""

from __future__ import annotations

import asyncio

from inferedge_moss import MossClient
from moss_langchain import MossRetriever, get_moss_tool

from tests.compat.facts import ASKED, CHANGED, FACTS, PROJECT, refused

client = MossClient(*PROJECT)
asyncio.run(client.create_index("faq", FACTS))

retriever = MossRetriever(
    project_id=PROJECT[0], project_key=PROJECT[1], index_name="faq", top_k=2, alpha=0.8
)
first = retriever.invoke(ASKED)
assert first[0].page_content == FACTS[0].text, first
assert first[0].metadata["id"] == "refund"
assert 0 < first[0].metadata["score"] <= 1
assert len(asyncio.run(retriever.ainvoke(ASKED))) == 2

tool = get_moss_tool(*PROJECT, "faq", top_k=1, alpha=0.0)
assert FACTS[2].text in tool.invoke("parcels")

asyncio.run(client.add_docs("faq", [CHANGED]))
assert retriever.invoke(ASKED)[0].page_content == CHANGED.text

asyncio.run(client.delete_docs("faq", ["refund"]))
assert all(found.metadata["id"] != "refund" for found in retriever.invoke(ASKED))

asyncio.run(client.delete_index("faq"))
fresh = MossRetriever(project_id=PROJECT[0], project_key=PROJECT[1], index_name="faq")
with refused("faq"):
    fresh.invoke(ASKED)
print("retriever (sync, async) and tool: indexed, queried, updated, deleted")
