"""The end: the first device comes back, and says what it embedded to get there."""

import asyncio
from collections.abc import Sequence
from typing import Any

from moss_local import MossClient
from moss_local.local import Local

embedded: list[str] = []
_embed = Local.embed


def listening(self: Local, texts: Sequence[str], **options: Any) -> Any:
    embedded.extend(texts)
    return _embed(self, texts, **options)


Local.embed = listening  # type: ignore[method-assign]  # to listen, not to change it


async def main() -> None:
    async with MossClient() as client:
        session = await client.session("conv-123")
        print(session.doc_count)
        for document in await session.get_docs():
            print(document.id, document.text)
    print("embedded:", sorted(set(embedded) - {"warm up"}))


asyncio.run(main())
