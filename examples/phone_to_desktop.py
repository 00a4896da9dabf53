"""From the phone to the desktop in mid-session: python examples/phone_to_desktop.py

Nobody presses "save": both devices exchange in the background (`auto_sync`). Half a sentence that
was begun on the phone is finished on the desktop, and the phone sees it end. What was written
over stays in the history.
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from moss_local import DocumentInfo, MossClient

PROJECT_ID, PROJECT_KEY = "notes", "a secret that only your devices know"


async def main() -> None:
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        async with (
            MossClient(PROJECT_ID, PROJECT_KEY, store=root / "s", data_dir=root / "phone") as one,
            MossClient(PROJECT_ID, PROJECT_KEY, store=root / "s", data_dir=root / "desk") as two,
        ):
            phone = await one.session("trip", auto_sync=0.5)
            arrived = phone.changes()  # from now on
            await phone.add_docs(
                [
                    DocumentInfo("hotel", "The hotel in Lisbon is booked from the 3rd."),
                    DocumentInfo("draft", "Ask Rui whether"),
                ]
            )
            await phone.sync()  # the screen goes dark: do not wait for the background

            desktop = await two.session("trip", auto_sync=0.5)
            print(f"desktop resumes with {desktop.doc_count} notes")
            draft = "Ask Rui whether the boat leaves on Sundays."
            await desktop.add_docs([DocumentInfo("draft", draft)])
            await desktop.close()  # pushes what is not pushed yet

            batch = await anext(arrived)  # the background has brought it
            (note,) = [doc for doc in await phone.get_docs() if doc.id in batch.updated]
            print(f"phone sees: {note.text}")
            before = (await phone.history("draft"))[-1]
            print(f"it was ({before.reason}): {before.text}")
            found = await phone.query("which hotel did we book?")
            print(f"phone finds: {found.docs[0].text}")


if __name__ == "__main__":
    asyncio.run(main())
