"""A live call with long-term knowledge beside it: python examples/live_call.py

Three sessions are searched as one: what is being said now, what this customer ever said, and the
handbook. `query_multi` embeds the question once, and each result names where it comes from.
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from moss_local import DocumentInfo, MossClient, QueryOptions

PROJECT_ID, PROJECT_KEY = "support", "a secret that only your devices know"

HANDBOOK = [
    DocumentInfo("returns", "Shoes can be returned within 30 days if they were not worn outside."),
    DocumentInfo("shipping", "Parcels to islands take two days longer."),
    DocumentInfo("vouchers", "A voucher is valid for three years."),
]
CUSTOMER = [
    DocumentInfo("size", "She wears shoe size 39 and has wide feet."),
    DocumentInfo("address", "She lives on the island of Sylt."),
]
SAID = [
    "Caller: the boots that came yesterday are too tight.",
    "Agent: I am sorry, shall we exchange them?",
    "Caller: yes please, before Christmas if that is possible.",
]


async def main() -> None:
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        async with MossClient(
            PROJECT_ID, PROJECT_KEY, store=root / "store", data_dir=root / "device"
        ) as client:
            handbook = await client.session("handbook")
            await handbook.add_docs(HANDBOOK)
            customer = await client.session("customer-42")
            await customer.add_docs(CUSTOMER)
            call = await client.session("call-2025-12-01")
            for number, text in enumerate(SAID, 1):  # as they are said
                await call.add_docs([DocumentInfo(f"turn-{number}", text)])

            for question in (
                "Can she send the shoes back?",
                "Which size does she need?",
                "What is wrong with the boots?",
            ):
                found = await client.query_multi(
                    [call, customer, handbook], question, QueryOptions(top_k=1)
                )
                best = found.docs[0]
                print(f"{question}\n  {best.index_name}: {best.text}")

            # What is worth keeping goes from the call to the customer's memory.
            await customer.add_docs([DocumentInfo("boots", "Boots of December: too tight in 39.")])
            print(f"kept: {customer.doc_count} facts on the customer")


if __name__ == "__main__":
    asyncio.run(main())
