"""The first half of the main job: a voice agent writes two turns and hands off."""

import asyncio
import os

from moss_local import DocumentInfo, MossClient

MOSS_PROJECT_ID = os.environ["MOSS_PROJECT_ID"]
MOSS_PROJECT_KEY = os.environ["MOSS_PROJECT_KEY"]


async def main() -> None:
    client = MossClient(MOSS_PROJECT_ID, MOSS_PROJECT_KEY)
    session = await client.session(index_name="conv-123")
    await session.add_docs(
        [
            DocumentInfo(id="turn-1", text="Customer reported a duplicate $49.99 charge."),
            DocumentInfo(id="turn-2", text="Agent confirmed a refund in 3-5 business days."),
        ]
    )
    await session.push_index()  # hand off


asyncio.run(main())
