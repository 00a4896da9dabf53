"""One thread over voice, chat and e-mail: python examples/omni_channel.py

A customer calls, goes on in a chat and follows up by e-mail. Three agents, each a program of its
own on a device of its own, open the same session and have the whole thread: what was said, by
whom, when and where. `who`, `when` and `channel` are plain metadata (docs/threads.md).
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from moss_local import DocumentInfo, GetDocumentsOptions, MossClient, QueryOptions

PROJECT_ID, PROJECT_KEY = "support", "a secret that only your devices know"


def turn(number: int, channel: str, when: str, who: str, text: str) -> DocumentInfo:
    metadata = {"who": who, "when": f"2025-03-{when}:00Z", "channel": channel}
    return DocumentInfo(f"turn-{number}", f"{who}: {text}", metadata)


async def voice_agent(client: MossClient) -> None:
    session = await client.session("customer-42")
    await session.add_docs(
        [
            turn(1, "voice", "01T10:00", "Ada", "I was charged twice for order 881."),
            turn(2, "voice", "01T10:01", "agent", "I have asked for a refund of one charge."),
        ]
    )
    await session.push_index()


async def chat_agent(client: MossClient) -> None:
    session = await client.session("customer-42")
    question = "When will I have my money back?"
    found = await session.query(question, QueryOptions(top_k=1))
    print(f"chat finds what was said on the phone: {found.docs[0].text}")
    await session.add_docs(
        [
            turn(3, "chat", "02T09:00", "Ada", question),
            turn(4, "chat", "02T09:01", "agent", "It arrives on Friday, on your credit card."),
        ]
    )
    await session.push_index()


async def email_agent(client: MossClient) -> None:
    session = await client.session("customer-42")
    for doc in await session.get_docs(GetDocumentsOptions(sort_by="when")):
        metadata = doc.metadata or {}
        print(f"{metadata['when'][:10]} {metadata['channel']:<5} {doc.text}")
    written = QueryOptions(top_k=1, filter={"field": "channel", "condition": {"$eq": "chat"}})
    found = await session.query("the day on which the refund arrives", written)
    print(f"promised in writing: {found.docs[0].text}")


async def main() -> None:
    with tempfile.TemporaryDirectory() as place:
        for agent in (voice_agent, chat_agent, email_agent):
            device = Path(place) / agent.__name__
            store = Path(place) / "store"  # between machines: s3://bucket/prefix, or a share
            async with MossClient(PROJECT_ID, PROJECT_KEY, store=store, data_dir=device) as client:
                await agent(client)


if __name__ == "__main__":
    asyncio.run(main())
