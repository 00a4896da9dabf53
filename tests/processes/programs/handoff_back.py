"""The end: the first device comes back, and says what it embedded to get there."""

import asyncio
from collections.abc import Sequence
from typing import Any

from moss_local import MossClient
from moss_local.session import SessionIndex

embedded: list[str] = []
_embed = SessionIndex._embed


def listening(self: SessionIndex, texts: Sequence[str], **options: Any) -> Any:
    embedded.extend(texts)
    return _embed(self, texts, **options)


SessionIndex._embed = listening  # type: ignore[method-assign]  # to listen, not to change it


async def main() -> None:
    async with MossClient() as client:
        session = await client.session("conv-123")
        print(session.doc_count)
        for document in await session.get_docs():
            print(document.id, document.text)
    print("embedded:", sorted(set(embedded) - {"warm up"}))


asyncio.run(main())
