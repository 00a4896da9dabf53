"""An agent in the field, without a network: python examples/field_agent.py

A technician takes the site's session along, works in a cellar (search included), and comes back.
Meanwhile the office wrote too, also to the same document. Afterwards both have the same: of each
document the change that was made last, and what lost is in the history.
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from moss_local import DocumentInfo, MossClient, MossError

PROJECT_ID, PROJECT_KEY = "service", "a secret that only your devices know"


async def main() -> None:
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        share = root / "network" / "share"  # a folder on the network; a bucket would do as well
        share.parent.mkdir()
        async with MossClient(PROJECT_ID, PROJECT_KEY, store=share, data_dir=root / "o") as client:
            office = await client.session("site-12")
            await office.add_docs(
                [
                    DocumentInfo("pump", "The pump of cellar B was replaced in May."),
                    DocumentInfo("valve", "Valve 3 is closed."),
                    DocumentInfo("status", "Waiting for the technician."),
                ]
            )
            await office.push_index()
            async with MossClient(
                PROJECT_ID, PROJECT_KEY, store=share, data_dir=root / "tablet"
            ) as before_leaving:
                await before_leaving.session("site-12")  # opening it takes it along

            # In the cellar there is no network (here: something else is where it was).
            (root / "network").rename(root / "unplugged")
            (root / "network").touch()
            async with MossClient(
                PROJECT_ID, PROJECT_KEY, store=share, data_dir=root / "tablet"
            ) as offline:
                tablet = await offline.session("site-12")
                found = await tablet.query("when was the pump changed?")
                print(f"tablet, {tablet.sync_state.status}, finds: {found.docs[0].text}")
                await tablet.add_docs([DocumentInfo("leak", "The seal of valve 3 leaks.")])
                await tablet.delete_docs(["valve"])
                await tablet.add_docs([DocumentInfo("status", "Technician on site.")])
                try:
                    await tablet.push_index()
                except MossError as error:
                    print(f"tablet: {error.code}, {tablet.sync_state.pending} changes are kept")

            await office.add_docs([DocumentInfo("bill", "Send the bill to the landlord.")])
            await office.add_docs([DocumentInfo("status", "The customer calls: it is urgent.")])
            (root / "network").unlink()
            (root / "unplugged").rename(root / "network")
            await office.push_index()

            # Back in the network, after a restart of the tablet.
            async with MossClient(
                PROJECT_ID, PROJECT_KEY, store=share, data_dir=root / "tablet"
            ) as online:
                tablet = await online.session("site-12")
                await tablet.push_index()
                await office.pull()
                for name, session in (("tablet", tablet), ("office", office)):
                    documents = {doc.id: doc.text for doc in await session.get_docs()}
                    print(f"{name}: {' '.join(sorted(documents))}; {documents['status']}")
                lost = [each for each in await tablet.history("status") if each.reason == "lost"]
                print(f"kept in the tablet's history: {lost[0].text}")


if __name__ == "__main__":
    asyncio.run(main())
