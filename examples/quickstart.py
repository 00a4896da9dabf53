"""Two agents, two devices, one thread. Run it as it is: python examples/quickstart.py

The devices are two data directories and the store is a folder beside them; with two machines, both
name the same bucket (`store="s3://bucket/prefix"`) or shared folder instead, and the same project.
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from moss_local import DocumentInfo, MossClient, QueryOptions

PROJECT_ID, PROJECT_KEY = "support", "a secret that only your devices know"


async def voice_agent(device: Path, store: Path) -> None:
    async with MossClient(PROJECT_ID, PROJECT_KEY, store=store, data_dir=device) as client:
        session = await client.session(index_name="conv-123")
        await session.add_docs(
            [
                DocumentInfo(id="turn-1", text="Customer reported a duplicate $49.99 charge."),
                DocumentInfo(id="turn-2", text="Agent confirmed a refund in 3-5 business days."),
            ]
        )
        await session.push_index()  # hand off


async def chat_agent(device: Path, store: Path) -> None:
    async with MossClient(PROJECT_ID, PROJECT_KEY, store=store, data_dir=device) as client:
        session = await client.session(index_name="conv-123")
        print(f"Resumed with {session.doc_count} turns of prior context")
        results = await session.query("status of the refund", QueryOptions(top_k=3))
        for doc in results.docs:
            print(f"{doc.id} score={doc.score:.3f} {doc.text}")
        posted = "Customer confirmed the refund posted to their statement."
        await session.add_docs([DocumentInfo(id="turn-3", text=posted)])
        await session.push_index()


def main() -> None:
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        asyncio.run(voice_agent(root / "phone", root / "store"))
        asyncio.run(chat_agent(root / "laptop", root / "store"))


if __name__ == "__main__":
    main()
