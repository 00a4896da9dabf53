"""dspy-moss: a retrieval model, from plain code and from inside a running loop."""

from __future__ import annotations

import asyncio

import dspy
from dspy_moss import MossRM
from moss import MossClient

from tests.compat.facts import ASKED, CHANGED, FACTS, refused

rm = MossRM("faq", k=2)  # project and key from the environment
client = MossClient(None, None)
asyncio.run(client.create_index("faq", FACTS))
rm.load_index(auto_refresh=True, polling_interval_in_seconds=600)

found = rm.forward(ASKED)
assert [len(found), found[0].long_text, found[0].id] == [2, FACTS[0].text, "refund"], found
assert found[0].metadata == {"source": "policy"}
assert len(rm.forward([ASKED, "opening hours", ""], k=1)) == 2

dspy.configure(rm=rm)
assert dspy.Retrieve(k=1)(ASKED).passages == [FACTS[0].text]

rm.insert({"id": CHANGED.id, "text": CHANGED.text, "metadata": {"version": 2}})
rm.load_index()
assert rm.forward(ASKED)[0].long_text == CHANGED.text
assert [each["id"] for each in rm.get_objects(10)] == ["hours", "phone", "refund"]
assert rm.get_objects(10)[2]["metadata"] == {"version": "2"}


async def inside() -> list[object]:
    return rm.forward(ASKED)


assert len(asyncio.run(inside())) == 2

asyncio.run(client.delete_docs("faq", ["refund"]))
rm.load_index()
assert all(each.id != "refund" for each in rm.forward(ASKED))
asyncio.run(client.delete_index("faq"))
with refused("faq"):
    rm.load_index()
rm.close()
print("retrieval model: indexed, queried (plain, in a loop, dspy.Retrieve), updated, deleted")
