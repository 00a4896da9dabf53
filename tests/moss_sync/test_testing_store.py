"""Each fault does what its name says, to a request and to the store."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from moss_sync import (
    BlobNotFoundError,
    NetworkError,
    OutcomeUnknownError,
    PermissionDeniedError,
    StoreBusyError,
)
from moss_sync.stores import Blob, Conflict, ETag, MemoryStore, NotModified, Swapped
from moss_sync.testing.faults import POSSIBLE, Fault, ScriptedFaults, SeededFaults, Verb
from moss_sync.testing.store import LATE_REQUESTS, FaultyStore, Request
from moss_sync.traffic import metered


def run(main: Coroutine[Any, Any, None]) -> None:
    asyncio.run(main)


def scripted(*script: tuple[Verb, Fault], seed: int = 0) -> FaultyStore:
    return FaultyStore(ScriptedFaults([(verb, "", fault) for verb, fault in script], seed=seed))


async def data(store: FaultyStore, key: str) -> bytes | None:
    try:
        found = await store.inner.get(key)
    except BlobNotFoundError:
        return None
    assert isinstance(found, Blob)
    return found.data


BEFORE: dict[Fault, type[Exception]] = {
    Fault.REFUSED: NetworkError,
    Fault.BUSY: StoreBusyError,
    Fault.DENIED: PermissionDeniedError,
}


@pytest.mark.parametrize("fault", BEFORE)
def test_a_request_that_never_arrives_changes_nothing(fault: Fault) -> None:
    async def main() -> None:
        store = scripted(("put", fault), ("swap", fault), ("delete", fault), ("get", fault),
                         ("list", fault))  # fmt: skip
        with pytest.raises(BEFORE[fault]):
            await store.put("a", b"1")
        with pytest.raises(BEFORE[fault]) as error:
            await store.compare_and_swap("b", b"1", etag=None)
        assert isinstance(error.value, OutcomeUnknownError) == (fault is Fault.REFUSED)
        await store.inner.put("c", b"1")
        with pytest.raises(BEFORE[fault]):
            await store.delete("c")
        with pytest.raises(BEFORE[fault]):
            await store.get("c")
        with pytest.raises(BEFORE[fault]):
            await store.keys("a/")
        assert [await data(store, key) for key in "abc"] == [None, None, b"1"]

    run(main())


def test_a_lost_answer_is_an_error_though_it_happened() -> None:
    async def main() -> None:
        store = scripted(("put", Fault.LOST), ("swap", Fault.LOST), ("delete", Fault.LOST))
        with pytest.raises(NetworkError):
            await store.put("a", b"1")
        with pytest.raises(OutcomeUnknownError):
            await store.compare_and_swap("b", b"2", etag=None)
        assert [await data(store, key) for key in "ab"] == [b"1", b"2"]
        with pytest.raises(NetworkError):
            await store.delete("a")
        assert await data(store, "a") is None

    run(main())


def test_a_late_effect_comes_after_further_requests_and_on_nobody_s_account() -> None:
    async def main() -> None:
        store = scripted(("swap", Fault.LATE), ("put", Fault.LATE))
        with pytest.raises(OutcomeUnknownError):
            await store.compare_and_swap("a", b"1", etag=None)
        with pytest.raises(NetworkError):
            await store.put("b", b"2")
        for _ in range(LATE_REQUESTS + 1):
            with metered() as meter:
                await store.keys("c/")
            assert meter.requests == 1
        assert [await data(store, key) for key in "ab"] == [b"1", b"2"]

    run(main())


def test_what_is_still_late_can_be_made_to_land() -> None:
    async def main() -> None:
        store = scripted(("delete", Fault.LATE))
        await store.put("a", b"1")
        with pytest.raises(NetworkError):
            await store.delete("a")
        await store.land()
        assert await data(store, "a") is None

    run(main())


def test_a_swap_that_comes_late_fails_if_others_were_faster() -> None:
    async def main() -> None:
        store = scripted(("swap", Fault.LATE))
        with pytest.raises(OutcomeUnknownError):
            await store.compare_and_swap("a", b"late", etag=None)
        assert isinstance(await store.compare_and_swap("a", b"first", etag=None), Swapped)
        await store.land()
        assert await data(store, "a") == b"first"

    run(main())


def test_a_swap_that_is_sent_twice_conflicts_with_itself() -> None:
    async def main() -> None:
        store = scripted(("swap", Fault.TWICE))
        assert isinstance(await store.compare_and_swap("a", b"1", etag=None), Conflict)
        assert await data(store, "a") == b"1"

    run(main())


def test_a_false_conflict_changes_nothing() -> None:
    async def main() -> None:
        store = scripted(("swap", Fault.CONFLICT))
        assert isinstance(await store.compare_and_swap("a", b"1", etag=None), Conflict)
        assert await data(store, "a") is None

    run(main())


def test_a_stale_read_shows_an_earlier_state_of_a_swapped_blob() -> None:
    async def main() -> None:
        store = scripted(*[("get", Fault.STALE)] * 30, seed=3)
        etag: ETag | None = None
        for number in range(3):
            answer = await store.compare_and_swap("a", str(number).encode(), etag=etag)
            assert isinstance(answer, Swapped)
            etag = answer.etag
        shown: set[bytes | None] = set()
        for _ in range(30):
            try:
                found = await store.get("a", if_none_match=etag)
            except BlobNotFoundError:
                shown.add(None)
                continue
            assert isinstance(found, Blob)
            shown.add(found.data)
        assert shown == {None, b"0", b"1"}

    run(main())


def test_a_stale_read_of_the_very_state_that_is_known_is_not_sent_again() -> None:
    async def main() -> None:
        store = scripted(("get", Fault.STALE), ("get", Fault.STALE))
        first = await store.compare_and_swap("a", b"1", etag=None)
        assert isinstance(first, Swapped)
        with pytest.raises(BlobNotFoundError):
            await store.get("a")
        store._before["a"].clear()
        await store.compare_and_swap("a", b"2", etag=first.etag)
        assert isinstance(await store.get("a", if_none_match=first.etag), NotModified)

    run(main())


@pytest.mark.parametrize("fault", [Fault.FLIPPED, Fault.CUT])
def test_a_damaged_body_is_not_the_blob_and_the_blob_is_whole(fault: Fault) -> None:
    async def main() -> None:
        store = scripted(("get", fault))
        await store.put("a", b"a whole body")
        found = await store.get("a")
        assert isinstance(found, Blob)
        assert found.data != b"a whole body"
        assert len(found.data) <= 12
        assert await data(store, "a") == b"a whole body"

    run(main())


def test_a_partial_listing_leaves_out_keys_and_makes_up_none() -> None:
    async def main() -> None:
        store = scripted(("list", Fault.PARTIAL))
        for number in range(40):
            await store.put(f"p/{number:02}", b"")
        some = [item.key for item in await store.keys("p/")]
        every = [item.key for item in await store.keys("p/")]
        assert some != every
        assert set(some) < set(every)
        assert len(every) == 40

    run(main())


def test_an_absent_blob_is_there_for_the_next_who_asks() -> None:
    async def main() -> None:
        store = scripted(("get", Fault.ABSENT))
        await store.put("a", b"1")
        with pytest.raises(BlobNotFoundError):
            await store.get("a")
        assert isinstance(await store.get("a"), Blob)

    run(main())


def test_an_answer_without_a_time_is_otherwise_the_same() -> None:
    async def main() -> None:
        plan = ScriptedFaults(
            [("put", "", Fault.TIMELESS), ("swap", "", Fault.TIMELESS), ("get", "", Fault.TIMELESS)]
        )
        store = FaultyStore(plan, MemoryStore(time_ms=lambda: 5))
        assert await store.put("a", b"1") is None
        answer = await store.compare_and_swap("b", b"1", etag=None)
        assert isinstance(answer, Swapped)
        assert answer.time_ms is None
        found = await store.get("b")
        assert (found.time_ms, await store.put("a", b"1")) == (None, 5)

    run(main())


def test_seeded_faults_repeat_themselves_and_keep_to_what_a_verb_can_meet() -> None:
    verbs: list[Verb] = ["get", "put", "swap", "list", "delete"]
    one, two = (SeededFaults(7, rate=0.5) for _ in range(2))
    drawn = [(verb, one.next(verb, "k")) for _ in range(200) for verb in verbs]
    assert drawn == [(verb, two.next(verb, "k")) for _ in range(200) for verb in verbs]
    assert all(fault is None or fault in POSSIBLE[verb] for verb, fault in drawn)
    assert {fault for _, fault in drawn} == {None, *Fault}
    never = SeededFaults(7, rate=0)
    assert {never.next("get", "k") for _ in range(100)} == {None}
    only = SeededFaults(7, rate=1, weights={Fault.BUSY: 1})
    assert {only.next("get", "k") for _ in range(50)} == {Fault.BUSY}


def test_who_watches_sees_every_request_with_its_fault_and_outcome() -> None:
    seen: list[Request] = []

    async def main() -> None:
        store = FaultyStore(ScriptedFaults([("get", "a", Fault.REFUSED)]), watch=seen.append)
        await store.put("a", b"1")
        with pytest.raises(NetworkError):
            await store.get("a")
        await store.close()

    run(main())
    assert seen == [
        Request("put", "a", None, "ok"),
        Request("get", "a", Fault.REFUSED, "NetworkError"),
    ]
