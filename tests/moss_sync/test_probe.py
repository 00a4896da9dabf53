"""The probe passes the stores that keep the promise and refuses those that break it, by name."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from moss_sync import (
    BlobCorruptError,
    BlobNotFoundError,
    NetworkError,
    OutcomeUnknownError,
    PermissionDeniedError,
    StoreBusyError,
    StoreLacksCasError,
)
from moss_sync.clock import SystemClock
from moss_sync.probe import LONG_ROUNDS, Check, ProbeReport, ProbeVerdict, probe
from moss_sync.stores import (
    Blob,
    BlobStore,
    Conflict,
    ETag,
    Listed,
    MemoryStore,
    NotModified,
    S3Store,
    Swapped,
    open_store,
)
from moss_sync.traffic import metered
from tests.wire import Answering, FakeBucket, PretendingBucket, WireServer

GOOD: dict[str, object] = {"v": 1, "etag_form": "bare", "rounds": 0, "failed": ""}


class NoWaiting(SystemClock):
    """The system's clock, but nobody waits; notes for how long they would have."""

    def __init__(self) -> None:
        self.waited: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.waited.append(seconds)


class Wrapped:
    """A memory store with one promise to be broken by a subclass."""

    url = "memory://wrapped"

    def __init__(self) -> None:
        self.inner = MemoryStore()

    async def get(self, key: str, *, if_none_match: ETag | None = None) -> Blob | NotModified:
        return await self.inner.get(key, if_none_match=if_none_match)

    async def put(self, key: str, data: bytes) -> int | None:
        return await self.inner.put(key, data)

    async def compare_and_swap(
        self, key: str, data: bytes, *, etag: ETag | None
    ) -> Swapped | Conflict:
        return await self.inner.compare_and_swap(key, data, etag=etag)

    async def keys(
        self, prefix: str, *, start_after: str = "", limit: int = 1000
    ) -> Sequence[Listed]:
        return await self.inner.keys(prefix, start_after=start_after, limit=limit)

    async def delete(self, key: str) -> None:
        await self.inner.delete(key)

    async def close(self) -> None:
        await self.inner.close()

    async def etag(self, key: str) -> ETag | None:
        try:
            found = await self.inner.get(key)
        except BlobNotFoundError:
            return None
        assert isinstance(found, Blob)
        return found.etag


class Racy(Wrapped):
    """Checks, lets others go first, then writes: several of those who race win."""

    async def compare_and_swap(
        self, key: str, data: bytes, *, etag: ETag | None
    ) -> Swapped | Conflict:
        held = await self.etag(key)
        await asyncio.sleep(0)
        if held != etag:
            return Conflict()
        await self.inner.put(key, data)
        fresh = await self.etag(key)
        assert fresh is not None
        return Swapped(fresh)


class Pretending(Wrapped):
    """Checks the condition, writes 2 ms later, and holds no lock meanwhile.

    The first request on a connection takes longer, as one does: a race over new connections is
    none, because the racer that has one is done before the others arrive.
    """

    def __init__(self, connect_s: float = 0.02) -> None:
        super().__init__()
        self.idle = 0
        self.connect_s = connect_s

    async def get(self, key: str, *, if_none_match: ETag | None = None) -> Blob | NotModified:
        async with self.connection():
            return await super().get(key, if_none_match=if_none_match)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[None]:
        self.idle -= 1
        if self.idle < 0:
            self.idle = 0
            await asyncio.sleep(self.connect_s)
        yield
        self.idle += 1

    async def compare_and_swap(
        self, key: str, data: bytes, *, etag: ETag | None
    ) -> Swapped | Conflict:
        async with self.connection():
            if await self.etag(key) != etag:
                return Conflict()
            await asyncio.sleep(0.002)
            await self.inner.put(key, data)
            fresh = await self.etag(key)
            assert fresh is not None
            return Swapped(fresh)


class WritesAndDenies(Wrapped):
    """Says Conflict to a stale ETag and writes all the same."""

    async def compare_and_swap(
        self, key: str, data: bytes, *, etag: ETag | None
    ) -> Swapped | Conflict:
        answer = await self.inner.compare_and_swap(key, data, etag=etag)
        if isinstance(answer, Conflict):
            await self.inner.put(key, data)
        return answer


class CreatesUnderAnEtag(Wrapped):
    """Ignores If-Match where there is nothing to match, as MinIO once did."""

    async def compare_and_swap(
        self, key: str, data: bytes, *, etag: ETag | None
    ) -> Swapped | Conflict:
        if await self.etag(key) is None:
            etag = None
        return await self.inner.compare_and_swap(key, data, etag=etag)


class SentTwice(Wrapped):
    """Sits behind something that sends every request twice and returns the second answer."""

    async def compare_and_swap(
        self, key: str, data: bytes, *, etag: ETag | None
    ) -> Swapped | Conflict:
        await self.inner.compare_and_swap(key, data, etag=etag)
        return await self.inner.compare_and_swap(key, data, etag=etag)


class OneWriteASecond(Wrapped):
    """Turns away every second write, as a store with a rate limit per key does."""

    def __init__(self) -> None:
        super().__init__()
        self.tired = False

    async def compare_and_swap(
        self, key: str, data: bytes, *, etag: ETag | None
    ) -> Swapped | Conflict:
        self.tired = not self.tired
        if not self.tired:
            raise StoreBusyError("slow down", retry_after=2.5)
        return await self.inner.compare_and_swap(key, data, etag=etag)


class Raising(Wrapped):
    """Cannot be asked at all."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    async def compare_and_swap(
        self, key: str, data: bytes, *, etag: ETag | None
    ) -> Swapped | Conflict:
        raise self.error


class KeepsEverything(Wrapped):
    """Lets nobody delete."""

    async def delete(self, key: str) -> None:
        raise PermissionDeniedError("no")


def asked(store: BlobStore, *, rounds: int = 0, prefix: str = "p/") -> ProbeReport:
    async def main() -> ProbeReport:
        try:
            return await probe(store, clock=NoWaiting(), prefix=prefix, rounds=rounds)
        finally:
            await store.close()

    return asyncio.run(main())


def failed(report: ProbeReport) -> list[str]:
    return [check.name for check in report.checks if not check.passed]


@pytest.fixture(params=["memory", "folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> BlobStore:
    if request.param == "memory":
        return MemoryStore()
    if request.param == "folder":
        return open_store(str(tmp_path / "root"))
    return open_store(str(request.getfixturevalue("s3_url")))


def test_a_good_store_passes_the_short_form_in_forty_six_requests_and_is_left_as_it_was(
    store: BlobStore,
) -> None:
    async def main() -> None:
        with metered() as meter:
            report = await probe(store, clock=NoWaiting(), prefix="p/")
        assert report.require() == ProbeVerdict("quoted")
        assert report.requests == meter.requests == 46
        assert all(check.passed for check in report.checks)
        assert list(await store.keys("p/_probe/")) == []
        await store.close()

    asyncio.run(main())


def test_a_good_store_passes_every_check_of_the_long_form(store: BlobStore) -> None:
    rounds = 1 if isinstance(store, S3Store) else LONG_ROUNDS  # each takes 3 to 6 s there
    report = asked(store, rounds=rounds, prefix="")
    assert failed(report) == []
    assert report.require() == ProbeVerdict("quoted", rounds)
    assert [check.name for check in report.checks] == [
        "create",
        "create again",
        "swap with the right ETag",
        "swap with a stale ETag",
        "swap of a missing key",
        "read after write",
        "unchanged",
        "list after write",
        *(f"race of 4 on 16 keys, round {number}" for number in range(1, rounds + 1)),
        "delete",
    ]


@pytest.mark.parametrize(
    ("broken", "check"),
    [
        (Racy, "race of 4 on 4 keys"),
        (Pretending, "race of 4 on 4 keys"),
        (WritesAndDenies, "read after write"),
    ],
)
def test_a_store_that_breaks_the_promise_is_refused_by_the_check_that_it_failed(
    broken: type[Wrapped], check: str
) -> None:
    store = broken()
    with pytest.raises(StoreLacksCasError) as error:
        asked(store)
    assert error.value.check == check
    assert "AWS S3" in str(error.value.hint)
    assert error.value.detail


@pytest.mark.parametrize(
    ("broken", "checks"),
    [
        (Racy, [f"race of 4 on 16 keys, round {number}" for number in range(1, 5)]),
        (WritesAndDenies, ["swap of a missing key", "read after write"]),
        (CreatesUnderAnEtag, ["swap of a missing key"]),
    ],
)
def test_the_long_form_goes_on_after_a_failure_and_reports_everything(
    broken: type[Wrapped], checks: list[str]
) -> None:
    report = asked(broken(), rounds=LONG_ROUNDS)
    assert set(checks) <= set(failed(report))
    assert report.checks[-1].name == "delete"
    assert report.verdict is None
    with pytest.raises(StoreLacksCasError):
        report.require()


def over_http(answering: Answering, monkeypatch: pytest.MonkeyPatch) -> tuple[S3Store, ProbeReport]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")

    async def main() -> tuple[S3Store, ProbeReport]:
        async with WireServer(answering) as server:
            store = open_store(server.url())
            assert isinstance(store, S3Store)
            try:
                return store, await probe(store, clock=NoWaiting(), prefix="p/")
            finally:
                await store.close()

    return asyncio.run(main())


def test_a_server_that_ignores_conditions_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = FakeBucket(ignores=True)
    with pytest.raises(StoreLacksCasError) as error:
        over_http(bucket, monkeypatch)
    assert error.value.check == "create again"
    assert bucket.objects == {}


def test_a_server_that_has_no_conditional_writes_is_refused_before_a_byte_is_stored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bucket = FakeBucket(refuses=501)
    with pytest.raises(StoreLacksCasError) as error:
        over_http(bucket, monkeypatch)
    assert error.value.check == "conditional write"
    assert bucket.objects == {}


def test_a_server_that_takes_only_bare_etags_is_found_out_in_forty_seven_requests(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bucket = FakeBucket(bare=True)
    store, report = over_http(bucket, monkeypatch)
    assert report.require().etag_form == store.etag_form == "bare"
    assert report.requests == 47
    assert bucket.objects == {}


def test_a_server_that_tells_losers_500_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    _, report = over_http(FakeBucket(lost_race=500), monkeypatch)
    assert report.require() == ProbeVerdict()


def test_the_etag_form_stays_as_it_was_when_the_store_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")

    class Stubborn(FakeBucket):
        def _may_write(self, request: Any, etag: str | None) -> bool:
            return "if-match" not in request.headers and super()._may_write(request, etag)

    async def main() -> None:
        async with WireServer(Stubborn()) as server:
            store = open_store(server.url())
            assert isinstance(store, S3Store)
            with pytest.raises(StoreLacksCasError) as error:
                await probe(store, clock=NoWaiting(), prefix="p/")
            assert error.value.check == "swap with the right ETag"
            assert store.etag_form == "quoted"
            await store.close()

    asyncio.run(main())


def test_a_server_that_checks_and_writes_without_a_lock_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Over HTTP and new connections, where a racer that has one already is done alone."""
    bucket = PretendingBucket(window_s=0.002, connect_s=0.01)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")

    async def main() -> None:
        async with WireServer(bucket) as server:
            for _ in range(3):  # each misses it once in some hundred times
                store = open_store(server.url())
                try:
                    await probe(store, clock=NoWaiting(), prefix="p/")
                finally:
                    await store.close()

    with pytest.raises(StoreLacksCasError) as error:
        asyncio.run(main())
    assert error.value.check == "race of 4 on 4 keys"


class SendsSomeTwice(SentTwice):
    """Sits behind something that now and then sends a request twice."""

    def __init__(self) -> None:
        super().__init__()
        self.swaps = 0

    async def compare_and_swap(
        self, key: str, data: bytes, *, etag: ETag | None
    ) -> Swapped | Conflict:
        self.swaps += 1
        return await (super() if self.swaps % 9 == 0 else self.inner).compare_and_swap(
            key, data, etag=etag
        )


def test_a_store_is_not_refused_for_a_request_that_was_sent_twice_on_its_way() -> None:
    assert asked(SendsSomeTwice()).require() == ProbeVerdict()


class DecidesNothing(Wrapped):
    """Answers no race at all."""

    def __init__(self) -> None:
        super().__init__()
        self.swaps = 0

    async def compare_and_swap(
        self, key: str, data: bytes, *, etag: ETag | None
    ) -> Swapped | Conflict:
        self.swaps += 1
        if self.swaps > 4:
            raise StoreBusyError("slow down")
        return await super().compare_and_swap(key, data, etag=etag)


def test_a_store_that_is_too_busy_for_a_race_is_not_judged() -> None:
    with pytest.raises(StoreBusyError, match="decided none"):
        asked(DecidesNothing())


def test_a_refusal_by_a_success_of_one_s_own_is_seen_through() -> None:
    # As when something on the way sends a request again: the blob tells who wrote it.
    store = SentTwice()
    with pytest.raises(StoreLacksCasError) as error:
        asked(store)
    assert error.value.check == "race of 4 on 4 keys"  # where nobody is ever told that he won


def test_a_store_with_a_limit_on_writes_is_given_the_time_it_asks_for() -> None:
    async def main() -> None:
        clock = NoWaiting()
        report = await probe(OneWriteASecond(), clock=clock, prefix="p/")
        assert report.require() == ProbeVerdict()
        assert 2.5 in clock.waited

    asyncio.run(main())


@pytest.mark.parametrize(
    "error",
    [NetworkError("off"), PermissionDeniedError("no"), StoreBusyError("slow"),
     OutcomeUnknownError("lost")],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
def test_a_store_that_cannot_be_asked_is_not_judged(error: NetworkError) -> None:
    with pytest.raises(type(error)) as raised:
        asked(Raising(error))
    assert raised.value is error
    report = asked(Raising(error), rounds=1)
    assert report.error is error
    assert report.checks == [Check("create", False, str(error), report.checks[0].ms)]


class DeniesSome(Wrapped):
    """Denies the last swaps that are sent: those of the race."""

    def __init__(self) -> None:
        super().__init__()
        self.swaps = 0

    async def compare_and_swap(
        self, key: str, data: bytes, *, etag: ETag | None
    ) -> Swapped | Conflict:
        self.swaps += 1
        if self.swaps > 5:
            raise PermissionDeniedError("no")
        return await super().compare_and_swap(key, data, etag=etag)


def test_a_denial_in_the_middle_of_a_race_is_told_as_it_is() -> None:
    with pytest.raises(PermissionDeniedError):
        asked(DeniesSome())


class Forgets(Wrapped):
    """Has nothing of what was written to it."""

    async def get(self, key: str, *, if_none_match: ETag | None = None) -> Blob | NotModified:
        raise BlobNotFoundError(key)


def test_a_store_that_does_not_show_what_was_written_is_refused_by_name() -> None:
    with pytest.raises(StoreLacksCasError, match="read after write"):
        asked(Forgets()).require()


def test_a_store_where_nothing_may_be_deleted_passes_and_says_what_lies_around() -> None:
    report = asked(KeepsEverything())
    assert report.verdict == ProbeVerdict()
    assert len(report.left_behind) == 5
    assert all(key.startswith("p/_probe/") for key in report.left_behind)


@pytest.mark.parametrize(
    "verdict", [ProbeVerdict(), ProbeVerdict("bare", 3), ProbeVerdict("quoted", 1, "races of 4")]
)
def test_a_verdict_survives_being_stored_and_reaches_the_next_device(
    verdict: ProbeVerdict,
) -> None:
    stored = verdict.to_dict()
    assert ProbeVerdict.from_dict({**stored, "from a later version": 1}) == verdict
    store = S3Store("bucket")
    verdict.apply(store)
    assert store.etag_form == verdict.etag_form
    verdict.apply(MemoryStore())


@pytest.mark.parametrize(
    "stored",
    [{}, {"v": 1}, {**GOOD, "etag_form": "odd"}, {**GOOD, "v": "1"}, {**GOOD, "v": 0},
     {**GOOD, "etag_form": ["bare"]}, {**GOOD, "rounds": -1}, {**GOOD, "rounds": 10**9},
     {**GOOD, "failed": "x" * 201}, {**GOOD, "failed": None}, [], b"v", None],
)  # fmt: skip
def test_what_is_no_verdict_is_refused(stored: object) -> None:
    with pytest.raises(BlobCorruptError):
        ProbeVerdict.from_dict(stored)
