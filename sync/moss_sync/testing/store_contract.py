"""What every blob store promises, as tests that run on any implementation.

In a test module of yours, with pytest:

    from moss_sync.testing.store_contract import *

    @pytest.fixture
    def place(tmp_path: Path) -> Place:
        return Place(lambda: MyStore(tmp_path))

A store that passes is one that sessions can be exchanged through. Where asserts shall explain
themselves, say `pytest.register_assert_rewrite("moss_sync.testing.store_contract")` before.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import pytest

from moss_sync import BlobNotFoundError, InvalidArgumentError
from moss_sync.clock import SystemClock
from moss_sync.stores import (
    MAX_BLOB_BYTES,
    Blob,
    BlobStore,
    Conflict,
    ETag,
    Listed,
    NotModified,
    Swapped,
)
from moss_sync.traffic import metered


@dataclass(frozen=True)
class Place:
    """An empty store under test; every handle opened on it must show the same content.

    Attributes:
        connect: Opens another handle.
        slow: Spare it the larger numbers.
        tells_time: Whether its answers say when they were given.
    """

    connect: Callable[[], BlobStore]
    slow: bool = False
    tells_time: bool = True

    @asynccontextmanager
    async def open(self) -> AsyncIterator[BlobStore]:
        """Open a handle and close it at the end."""
        store = self.connect()
        try:
            yield store
        finally:
            await store.close()

    def run(self, body: Callable[[BlobStore], Coroutine[Any, Any, None]]) -> None:
        """Run `body` on a handle, in an event loop of its own."""

        async def main() -> None:
            async with self.open() as store:
                await body(store)

        asyncio.run(main())


async def blob(store: BlobStore, key: str) -> Blob:
    found = await store.get(key)
    assert isinstance(found, Blob)
    return found


async def created(store: BlobStore, key: str, data: bytes) -> ETag:
    answer = await store.compare_and_swap(key, data, etag=None)
    assert isinstance(answer, Swapped)
    return answer.etag


@pytest.mark.parametrize(
    "data",
    [b"", b"\0", bytes(range(256)) * 3, random.Random(8).randbytes(8 * 1024 * 1024)],
    ids=["empty", "nul", "every byte", "8 MiB"],
)
def test_a_blob_comes_back_byte_for_byte_from_every_handle(place: Place, data: bytes) -> None:
    async def body(store: BlobStore) -> None:
        await store.put("a/put", data)
        await created(store, "a/swapped", data)
        async with place.open() as other:
            assert (await blob(other, "a/put")).data == data
            assert (await blob(other, "a/swapped")).data == data

    place.run(body)


def test_what_is_not_there_is_named_in_the_error(place: Place) -> None:
    async def body(store: BlobStore) -> None:
        for condition in (None, ETag("0" * 32)):
            with pytest.raises(BlobNotFoundError) as error:
                await store.get("m/none", if_none_match=condition)
            assert error.value.key == "m/none"

    place.run(body)


def test_put_replaces_and_repeating_it_is_no_error(place: Place) -> None:
    async def body(store: BlobStore) -> None:
        for data in (b"one", b"two", b"two"):
            await store.put("k", data)
            assert (await blob(store, "k")).data == data

    place.run(body)


def test_a_blob_is_created_only_once(place: Place) -> None:
    async def body(store: BlobStore) -> None:
        await created(store, "k", b"first")
        assert isinstance(await store.compare_and_swap("k", b"second", etag=None), Conflict)
        assert (await blob(store, "k")).data == b"first"

    place.run(body)


def test_the_right_etag_replaces_and_a_stale_one_changes_nothing(place: Place) -> None:
    async def body(store: BlobStore) -> None:
        first = await created(store, "k", b"1")
        second = await store.compare_and_swap("k", b"2", etag=first)
        assert isinstance(second, Swapped)
        assert second.etag != first
        assert isinstance(await store.compare_and_swap("k", b"3", etag=first), Conflict)
        assert (await blob(store, "k")).data == b"2"
        assert isinstance(await store.compare_and_swap("k", b"4", etag=second.etag), Swapped)

    place.run(body)


def test_a_swap_of_a_missing_blob_is_a_conflict_and_creates_nothing(place: Place) -> None:
    async def body(store: BlobStore) -> None:
        etag = await created(store, "k", b"1")
        assert isinstance(await store.compare_and_swap("other", b"2", etag=etag), Conflict)
        with pytest.raises(BlobNotFoundError):
            await store.get("other")

    place.run(body)


def test_a_put_in_between_makes_a_known_etag_stale(place: Place) -> None:
    async def body(store: BlobStore) -> None:
        etag = await created(store, "k", b"1")
        await store.put("k", b"2")
        assert isinstance(await store.compare_and_swap("k", b"3", etag=etag), Conflict)

    place.run(body)


def test_swap_get_and_listing_name_one_state_by_one_etag(place: Place) -> None:
    # Equal bytes may or may not have equal ETags: nothing is promised, so nothing is asserted.
    async def body(store: BlobStore) -> None:
        etag = await created(store, "m/k", b"1")
        assert (await blob(store, "m/k")).etag == etag
        assert [item.etag for item in await store.keys("m/")] == [etag]
        await store.put("m/k", b"2")
        fresh = (await blob(store, "m/k")).etag
        assert fresh != etag
        assert [item.etag for item in await store.keys("m/")] == [fresh]

    place.run(body)


def test_an_unchanged_blob_is_not_sent_again(place: Place) -> None:
    async def body(store: BlobStore) -> None:
        etag = await created(store, "k", b"x" * 1000)
        with metered() as meter:
            assert isinstance(await store.get("k", if_none_match=etag), NotModified)
        assert (meter.requests, meter.bytes_received) == (1, 0)
        await store.put("k", b"y")
        found = await store.get("k", if_none_match=etag)
        assert isinstance(found, Blob)
        assert found.data == b"y"

    place.run(body)


async def race(
    place: Place, racers: int, key: str, etag: ETag | None
) -> list[tuple[bytes, Swapped]]:
    """Swap from one ETag through two handles at once; return who won with what."""
    async with place.open() as one, place.open() as two:
        barrier = asyncio.Event()

        async def racer(number: int) -> tuple[bytes, Swapped | Conflict]:
            data = f"{number} {uuid4()}".encode()
            await barrier.wait()
            store = one if number % 2 else two
            return data, await store.compare_and_swap(key, data, etag=etag)

        tasks = [asyncio.create_task(racer(number)) for number in range(racers)]
        barrier.set()
        answers = await asyncio.gather(*tasks)
    return [(data, answer) for data, answer in answers if isinstance(answer, Swapped)]


def test_of_sixteen_at_once_exactly_one_wins_each_round(place: Place) -> None:
    async def body(store: BlobStore) -> None:
        etag: ETag | None = None  # the first round races to create
        for _ in range(2 if place.slow else 6):
            winners = await race(place, 16, "k", etag)
            assert len(winners) == 1
            data, answer = winners[0]
            found = await blob(store, "k")
            assert (found.data, found.etag) == (data, answer.etag)
            etag = answer.etag

    place.run(body)


def test_listings_page_through_every_key_in_order_with_its_size(place: Place) -> None:
    total, limit = (60, 7) if place.slow else (1_050, 1_000)
    keys = [f"s/s/{number:06x}-{number % 7}" for number in range(total)]

    async def body(store: BlobStore) -> None:
        shuffled = random.Random(3).sample(keys, total)
        for begin in range(0, total, 50):
            await asyncio.gather(
                *(store.put(key, key.encode()) for key in shuffled[begin : begin + 50])
            )
        pages: list[list[Listed]] = []
        last = ""
        while not pages or len(pages[-1]) == limit:
            pages.append(list(await store.keys("s/s/", start_after=last, limit=limit)))
            last = pages[-1][-1].key if pages[-1] else last
        listed = [item for page in pages for item in page]
        assert [item.key for item in listed] == keys
        assert {item.size for item in listed} == {len(keys[0])}
        assert len(pages) == total // limit + 1

    place.run(body)


def test_a_listing_starts_after_any_beginning_of_a_key(place: Place) -> None:
    async def body(store: BlobStore) -> None:
        for key in ("s/0a-x", "s/0b-x", "s/0b-y", "s/0c-x"):
            await store.put(key, b"")
        for after, expected in {
            "": ["s/0a-x", "s/0b-x", "s/0b-y", "s/0c-x"],
            "s/0b": ["s/0b-x", "s/0b-y", "s/0c-x"],
            "s/0b-x": ["s/0b-y", "s/0c-x"],
            "s/0b-x0": ["s/0b-y", "s/0c-x"],
            "s/0c-x": [],
            "t": [],
        }.items():
            assert [item.key for item in await store.keys("s/", start_after=after)] == expected

    place.run(body)


def test_prefixes_are_apart_and_an_unknown_one_is_empty(place: Place) -> None:
    async def body(store: BlobStore) -> None:
        for key in ("m/1", "mm/2", "n/m/3", "fmt"):
            await store.put(key, b"x")
        assert [item.key for item in await store.keys("m/")] == ["m/1"]
        assert [item.key for item in await store.keys("n/m/")] == ["n/m/3"]
        assert list(await store.keys("none/")) == []

    place.run(body)


def test_a_deleted_blob_is_gone_and_deleting_it_again_is_no_error(place: Place) -> None:
    async def body(store: BlobStore) -> None:
        await store.delete("m/never")
        etag = await created(store, "m/k", b"1")
        await store.delete("m/k")
        await store.delete("m/k")
        with pytest.raises(BlobNotFoundError):
            await store.get("m/k")
        assert list(await store.keys("m/")) == []
        assert isinstance(await store.compare_and_swap("m/k", b"2", etag=etag), Conflict)
        await created(store, "m/k", b"3")

    place.run(body)


Call = Callable[[BlobStore], Awaitable[object]]

CALLS: dict[str, Call] = {
    "get": lambda store: store.get("k"),
    "put": lambda store: store.put("k", b""),
    "compare_and_swap": lambda store: store.compare_and_swap("k", b"", etag=None),
    "keys": lambda store: store.keys("m/"),
    "delete": lambda store: store.delete("k"),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_closed_store_answers_no_call_and_may_be_closed_again(place: Place, call: Call) -> None:
    async def body(store: BlobStore) -> None:
        await store.put("k", b"1")
        await store.close()
        await store.close()
        with pytest.raises(RuntimeError, match="is closed"):
            await call(store)

    place.run(body)


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_call_counts_as_one_request(place: Place, call: Call) -> None:
    async def body(store: BlobStore) -> None:
        await store.put("k", b"12345")
        with metered() as meter:
            await call(store)
        assert meter.requests == 1

    place.run(body)


def test_bytes_of_bodies_are_counted_both_ways(place: Place) -> None:
    async def body(store: BlobStore) -> None:
        with metered() as meter:
            await store.put("k", b"x" * 1000)
            await created(store, "l", b"y" * 500)
        assert (meter.bytes_sent, meter.bytes_received) == (1500, 0)
        with metered() as meter:
            await store.get("k")
        assert (meter.bytes_sent, meter.bytes_received) == (0, 1000)

    place.run(body)


@pytest.mark.parametrize(
    "key",
    ["", "/", "a/", "/a", "a//b", "..", "a/../b", ".hidden", "a/.b", "A", "ä", "a b", "a\\b", "a\0",
     "c:", "x" * 201, "/".join(["x" * 100] * 6)],
)  # fmt: skip
def test_what_is_no_key_is_refused_by_every_verb(place: Place, key: str) -> None:
    async def body(store: BlobStore) -> None:
        for call in (
            store.get(key),
            store.put(key, b""),
            store.compare_and_swap(key, b"", etag=None),
            store.delete(key),
        ):
            with pytest.raises(InvalidArgumentError, match="is not a blob key"):
                await call

    place.run(body)


@pytest.mark.parametrize(
    ("prefix", "start_after", "limit"),
    [("", "", 1), ("a", "", 1), ("/", "", 1), ("../", "", 1), ("a/", "ä", 1), ("a/", "", 0),
     ("a/", "", 1001)],
)  # fmt: skip
def test_what_no_listing_can_have_is_refused(
    place: Place, prefix: str, start_after: str, limit: int
) -> None:
    async def body(store: BlobStore) -> None:
        with pytest.raises(InvalidArgumentError):
            await store.keys(prefix, start_after=start_after, limit=limit)

    place.run(body)


def test_a_blob_over_the_limit_is_refused_before_it_is_sent(place: Place) -> None:
    data = bytes(MAX_BLOB_BYTES + 1)

    async def body(store: BlobStore) -> None:
        with metered() as meter:
            with pytest.raises(InvalidArgumentError, match="over the limit"):
                await store.put("k", data)
            with pytest.raises(InvalidArgumentError, match="over the limit"):
                await store.compare_and_swap("k", data, etag=None)
        assert meter.requests == 0

    place.run(body)


def test_writes_tell_the_store_s_time(place: Place) -> None:
    async def body(store: BlobStore) -> None:
        times = [await store.put("k", b"1")]
        answer = await store.compare_and_swap("l", b"1", etag=None)
        assert isinstance(answer, Swapped)
        times.append(answer.time_ms)
        if not place.tells_time:
            assert times == [None, None]  # it has no clock unless it is given one
            return
        for time_ms in times:
            assert time_ms is not None
            assert abs(time_ms - SystemClock().wall_ms()) < 24 * 3_600_000

    place.run(body)


def test_a_cancelled_swap_leaves_the_blob_whole_and_the_store_usable(place: Place) -> None:
    async def body(store: BlobStore) -> None:
        etag = await created(store, "k", b"a" * 100_000)
        for steps in range(12):
            task = asyncio.create_task(store.compare_and_swap("k", b"b" * 100_000, etag=etag))
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            found = await blob(store, "k")
            assert found.data in (b"a" * 100_000, b"b" * 100_000)
        await store.put("k", b"c")
        # The thread of a cancelled call may end later; it must not undo what came after it.
        assert isinstance(await store.compare_and_swap("k", b"d", etag=etag), Conflict)
        assert (await blob(store, "k")).data == b"c"

    place.run(body)


def test_many_tasks_share_one_handle(place: Place) -> None:
    async def body(store: BlobStore) -> None:
        async def one(number: int) -> None:
            data = f"{number}".encode()
            await store.put(f"p/{number:03}", data)
            assert (await blob(store, f"p/{number:03}")).data == data

        await asyncio.gather(*(one(number) for number in range(40)))
        assert len(await store.keys("p/")) == 40

    place.run(body)
