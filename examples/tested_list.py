"""A shopping list on two phones, with a property test: python examples/tested_list.py

The app is fifteen lines. The test lets two phones do anything, over a store that loses answers,
repeats requests and is away half of the time, and then asks what must hold: the phones agree, and
what was put on the list and never taken off is on it. It needs hypothesis, which comes with
`pip install 'moss-local[testing]'`.
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.configuration import set_hypothesis_home_dir

from moss_local import DocumentInfo, MossClient, SessionIndex
from moss_local.testing import use_store
from moss_sync import MossError
from moss_sync.stores import MemoryStore
from moss_sync.testing import Fault, FaultyStore, SeededFaults


class ShoppingList:
    """What there is to buy, on every phone that has the list."""

    def __init__(self, session: SessionIndex) -> None:
        self._session = session

    async def add(self, item: str) -> None:
        await self._session.add_docs([DocumentInfo(item, item, embedding=[1.0, 0.0])])

    async def bought(self, item: str) -> None:
        await self._session.delete_docs([item])

    async def items(self) -> set[str]:
        return {doc.id for doc in await self._session.get_docs()}

    async def exchange(self) -> None:
        await self._session.pull()
        await self._session.push_index()


items = st.sampled_from(["bread", "milk", "tea"])
phones = st.integers(0, 1)
days = st.lists(
    st.tuples(phones, st.sampled_from(["add", "bought"]), items)
    | st.tuples(phones, st.just("exchange"), st.just("")),
    min_size=4,
    max_size=12,
)
weights = {Fault.LOST: 3, Fault.TWICE: 3, Fault.REFUSED: 2, Fault.CONFLICT: 1}

faults_met = 0


@settings(max_examples=10, deadline=None, derandomize=True, database=None)
@given(days, st.integers(0, 1000))
def phones_agree(day: list[tuple[int, str, str]], seed: int) -> None:
    asyncio.run(live(day, SeededFaults(seed, rate=0.0, weights=weights)))


async def live(day: list[tuple[int, str, str]], faults: SeededFaults) -> None:
    global faults_met
    blobs = MemoryStore()
    never_taken_off = {item for _, what, item in day if what == "add"} - {
        item for _, what, item in day if what == "bought"
    }
    with tempfile.TemporaryDirectory() as place:
        clients = [MossClient("home", "our key", data_dir=Path(place) / name) for name in "ab"]
        stores = [FaultyStore(faults, blobs) for _ in clients]
        for client, store in zip(clients, stores, strict=True):
            use_store(client, store)
        sessions = [await client.session("list", "custom") for client in clients]
        lists = [ShoppingList(session) for session in sessions]
        await lists[0].exchange()  # sets the store up
        faults.rate = 0.4
        for phone, what, item in day:
            try:
                await getattr(lists[phone], what)(*[item] if item else [])
            except MossError as error:
                if not error.retryable:
                    raise  # anything but "the store was away" would be a bug
                faults_met += 1
        faults.rate = 0.0
        for each in (*lists, *lists):
            await each.exchange()
        assert await lists[0].items() == await lists[1].items()
        assert never_taken_off <= await lists[0].items()
        for client in clients:
            await client.close()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        set_hypothesis_home_dir(place)  # or it would leave its notes where you are
        phones_agree()
    print(f"the phones agreed after 10 days, though the store was away {faults_met} times")
