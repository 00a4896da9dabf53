"""The second half: another agent, another channel, another device."""

import asyncio
import os

from moss_local import DocumentInfo, MossClient, QueryOptions

MOSS_PROJECT_ID = os.environ["MOSS_PROJECT_ID"]
MOSS_PROJECT_KEY = os.environ["MOSS_PROJECT_KEY"]


async def main() -> None:
    client = MossClient(MOSS_PROJECT_ID, MOSS_PROJECT_KEY)
    session = await client.session(index_name="conv-123")
    print(f"Resumed with {session.doc_count} turns of prior context")
    results = await session.query("status of the refund", QueryOptions(top_k=3))
    for doc in results.docs:
        print(f"{doc.id} score={doc.score:.3f} {doc.text}")
    await session.add_docs(
        [DocumentInfo(id="turn-3", text="Customer confirmed the refund posted to their statement.")]
    )
    await session.push_index()


asyncio.run(main())
