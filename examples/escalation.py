"""From a frontline bot to a specialist, while the bot goes on: python examples/escalation.py

The bot answers until it is out of its depth, leaves a note and hands the session over. The
specialist resumes it on another device with all that was said. Then both write at once, and both
push: nobody's turns replace anybody's.
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from moss_local import DocumentInfo, MossClient, QueryOptions

PROJECT_ID, PROJECT_KEY = "support", "a secret that only your devices know"
NOTE = {"field": "kind", "condition": {"$eq": "handover"}}


async def main() -> None:
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        async with (
            MossClient(PROJECT_ID, PROJECT_KEY, store=root / "store", data_dir=root / "a") as here,
            MossClient(PROJECT_ID, PROJECT_KEY, store=root / "store", data_dir=root / "b") as there,
        ):
            bot = await here.session("ticket-7")
            await bot.add_docs(
                [
                    DocumentInfo("t1", "Customer: my router restarts every night at three."),
                    DocumentInfo("t2", "Bot: please update it to firmware 4.2."),
                    DocumentInfo("t3", "Customer: I did, it is still the same."),
                    DocumentInfo(
                        "note",
                        "Bot: firmware is current and the power supply was changed, I am stuck.",
                        {"kind": "handover", "priority": "2"},
                    ),
                ]
            )
            await bot.push_index()  # hand over

            specialist = await there.session("ticket-7")
            note = await specialist.query("what was tried?", QueryOptions(filter=NOTE))
            print(f"specialist reads {specialist.doc_count} turns, first: {note.docs[0].text}")

            # The bot keeps the customer company while the specialist looks for the cause.
            await bot.add_docs([DocumentInfo("t4", "Customer: the logs say 'lease expired'.")])
            await specialist.add_docs(
                [DocumentInfo("s1", "Specialist: a DHCP lease of 24 hours fits what we see.")]
            )
            await asyncio.gather(bot.push_index(), specialist.push_index())

            for name, session in (("bot", bot), ("specialist", specialist)):
                await session.pull()
                ids = [doc.id for doc in await session.get_docs()]
                print(f"{name} has {' '.join(sorted(ids))}")
            found = await specialist.query("what do the logs say?", QueryOptions(top_k=1))
            print(f"specialist finds: {found.docs[0].text}")


if __name__ == "__main__":
    asyncio.run(main())
