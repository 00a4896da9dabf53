"""Two devices that follow each other, and nobody calls push: python examples/two_devices.py

Each session is exchanged in the background (`auto_sync`), and tells what the other device changed.
With two machines, each opens its own client on the same bucket or shared folder.
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from moss_local import DocumentInfo, MossClient, SessionIndex

PROJECT_ID, PROJECT_KEY = "support", "a secret that only your devices know"


async def phone(session: SessionIndex) -> None:
    feed = session.changes()
    await session.add_docs([DocumentInfo("turn-1", "Customer asks about the refund.")])
    batch = await anext(feed)
    print(f"phone: others wrote {', '.join(batch.updated)}")


async def laptop(session: SessionIndex) -> None:
    async for batch in session.changes():
        print(f"laptop: others wrote {', '.join(batch.updated)}")
        break
    await session.add_docs([DocumentInfo("turn-2", "Agent confirms it for Friday.")])
    state = await session.close()  # pushes what the background has not pushed yet
    print(f"laptop: {state}")


async def main() -> None:
    with tempfile.TemporaryDirectory() as place:
        store, root = Path(place) / "store", Path(place)
        async with (
            MossClient(PROJECT_ID, PROJECT_KEY, store=store, data_dir=root / "a") as one,
            MossClient(PROJECT_ID, PROJECT_KEY, store=store, data_dir=root / "b") as two,
        ):
            here = await one.session("conv-123", auto_sync=0.5)
            there = await two.session("conv-123", auto_sync=0.5)
            await asyncio.gather(phone(here), laptop(there))


if __name__ == "__main__":
    asyncio.run(main())
