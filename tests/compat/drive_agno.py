"""agno-moss: a vector database, sync and async."""

from __future__ import annotations

import asyncio

from agno.knowledge.document import Document
from agno_moss import MossRuntime

from tests.compat.facts import ASKED, CHANGED, FACTS


def document(fact: object) -> Document:
    return Document(
        id=fact.id, name=f"name of {fact.id}", content=fact.text, meta_data=fact.metadata
    )


store = MossRuntime("faq", auto_refresh=True)
assert not store.exists()
store.create()  # there is nothing to load yet
store.insert("hash-1", [document(fact) for fact in FACTS])
assert store.exists()
assert store.name_exists("faq")
assert store.id_exists("hours")
assert not store.id_exists("nobody")
# It asks by word for a hash that stands in no text, so it never finds one: a needless upsert.
assert not store.content_hash_exists("hash-1")
sign = {"field": "content_hash", "condition": {"$eq": "hash-1"}}
assert len(store.search(ASKED, filters=sign)) == 3

found = store.search(ASKED, limit=2)
assert [found[0].id, found[0].content] == ["refund", FACTS[0].text], found
assert found[0].name == "name of refund"
assert float(found[0].meta_data["_score"]) > 0
sign = {"field": "source", "condition": {"$eq": "sign"}}
assert [each.id for each in store.search(ASKED, filters=sign)] == ["hours"]

store.upsert("hash-2", [document(CHANGED)])
assert store.search(ASKED, limit=1)[0].content == CHANGED.text
assert store.delete_by_id("refund")
assert not store.id_exists("refund")


async def others() -> None:
    other = MossRuntime("faq")
    await other.async_create()
    assert [each.id for each in await other.async_search("parcels", limit=1)] == ["phone"]
    await other.async_upsert("hash-3", [document(FACTS[0])])
    assert (await other.async_search(ASKED, limit=1))[0].content == FACTS[0].text
    assert other.search(ASKED, limit=1)[0].id == "refund"  # sync, inside a running loop
    await other.async_drop()
    assert not await other.async_exists()


asyncio.run(others())
assert not store.exists()
assert not store.delete()
print("vector store (sync, async): indexed, queried, filtered, updated, deleted")
