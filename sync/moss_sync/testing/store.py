"""A blob store that fails as real ones do, by a plan.

Wraps any store; over `MemoryStore` nothing else is needed. With a plan that never says anything it
is a store like any other (the contract suite runs on it).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from moss_sync.errors import (
    BlobNotFoundError,
    NetworkError,
    OutcomeUnknownError,
    PermissionDeniedError,
    StoreBusyError,
)
from moss_sync.stores.base import Blob, BlobStore, Conflict, ETag, Listed, NotModified, Swapped
from moss_sync.stores.memory import MemoryStore
from moss_sync.testing.faults import Fault, FaultPlan, Verb
from moss_sync.traffic import count, metered

T = TypeVar("T")

STALE_VERSIONS = 4
"""How many earlier states of a swapped blob a stale read may show."""

LATE_REQUESTS = 30
"""A late effect comes after at most this many further requests of anybody."""

Effect = Callable[[], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Request:
    """A request as it ended, for whoever watches.

    Attributes:
        outcome: "ok", or how it failed, in words.
    """

    verb: Verb
    key: str
    fault: Fault | None
    outcome: str


async def _no_pause() -> None:
    return None


class FaultyStore:
    """A BlobStore with faults.

    Args:
        plan: Says what happens to each request; replace it at any time.
        inner: Where the blobs are; None: a memory store of its own.
        pause: Awaited before and after the effect of every request: where others get their turn.
        watch: Told every request when it has ended.
        changed: Told the key of every blob right after it was written or deleted (also late).
    """

    def __init__(
        self,
        plan: FaultPlan,
        inner: BlobStore | None = None,
        *,
        pause: Callable[[], Awaitable[None]] = _no_pause,
        watch: Callable[[Request], None] = lambda request: None,
        changed: Callable[[str], None] = lambda key: None,
    ) -> None:
        self.plan = plan
        self.inner = inner if inner is not None else MemoryStore()
        self._pause = pause
        self._watch = watch
        self._changed = changed
        self._before: dict[str, list[Blob | None]] = {}
        self._newest: dict[str, Blob] = {}
        self._late: list[tuple[int, Effect]] = []

    def __repr__(self) -> str:
        return f"<FaultyStore over {self.inner!r} late={len(self._late)}>"

    @property
    def url(self) -> str:
        return self.inner.url

    async def get(self, key: str, *, if_none_match: ETag | None = None) -> Blob | NotModified:
        async def answer(fault: Fault | None) -> Blob | NotModified:
            if fault is Fault.ABSENT:
                raise BlobNotFoundError(key)
            if fault is Fault.STALE and (old := self._before.get(key)):
                found = self.plan.random.choice(old)
                if found is None:
                    raise BlobNotFoundError(key)
                return NotModified(None) if found.etag == if_none_match else found
            got = await self.inner.get(key, if_none_match=if_none_match)
            if isinstance(got, Blob):
                return self._spoilt(got, fault)
            return replace(got, time_ms=None) if fault is Fault.TIMELESS else got

        return await self._request("get", key, answer)

    async def put(self, key: str, data: bytes) -> int | None:
        async def answer(fault: Fault | None) -> int | None:
            time = await self._effect("put", fault, lambda: self._put(key, data))
            return None if fault is Fault.TIMELESS else time

        return await self._request("put", key, answer)

    async def compare_and_swap(
        self, key: str, data: bytes, *, etag: ETag | None
    ) -> Swapped | Conflict:
        async def answer(fault: Fault | None) -> Swapped | Conflict:
            if fault is Fault.CONFLICT:
                return Conflict()
            done = await self._effect("swap", fault, lambda: self._swap(key, data, etag))
            return replace(done, time_ms=None) if fault is Fault.TIMELESS else done

        return await self._request("swap", key, answer)

    async def keys(
        self, prefix: str, *, start_after: str = "", limit: int = 1000
    ) -> Sequence[Listed]:
        async def answer(fault: Fault | None) -> Sequence[Listed]:
            listed = await self.inner.keys(prefix, start_after=start_after, limit=limit)
            if fault is Fault.PARTIAL:
                return [item for item in listed if self.plan.random.random() < 0.5]
            return listed

        return await self._request("list", prefix, answer)

    async def delete(self, key: str) -> None:
        async def answer(fault: Fault | None) -> None:
            await self._effect("delete", fault, lambda: self._delete(key))

        await self._request("delete", key, answer)

    async def close(self) -> None:
        await self.inner.close()

    async def land(self) -> None:
        """Let everything that is still late happen now."""
        while self._late:
            await _on_nobody_s_account(self._late.pop(0)[1])

    async def _request(
        self, verb: Verb, key: str, answer: Callable[[Fault | None], Awaitable[T]]
    ) -> T:
        await self._pause()
        await self._land_what_is_due()
        fault = self.plan.next(verb, key)
        outcome = "cut off"
        try:
            if fault in (Fault.BUSY, Fault.DENIED, Fault.REFUSED, Fault.LATE):
                count(requests=1)
            if fault is Fault.BUSY:
                raise StoreBusyError(f"{self.url} asks for patience")
            if fault is Fault.DENIED:
                raise PermissionDeniedError(f"{self.url} denies {verb} of {key!r}")
            if fault is Fault.REFUSED:
                raise _no_answer(verb)
            result = await answer(fault)
            await self._pause()
            outcome = type(result).__name__.lower() if verb in ("get", "swap") else "ok"
            return result
        except Exception as error:
            outcome = type(error).__name__
            raise
        finally:
            self._watch(Request(verb, key, fault, outcome))

    async def _effect(
        self, verb: Verb, fault: Fault | None, effect: Callable[[], Awaitable[T]]
    ) -> T:
        if fault is Fault.LATE:
            self._late.append((self.plan.random.randrange(LATE_REQUESTS), effect))
            raise _no_answer(verb)
        result = await effect()
        if fault is Fault.TWICE:
            result = await effect()
        if fault is Fault.LOST:
            await self._pause()
            raise _no_answer(verb)
        return result

    async def _land_what_is_due(self) -> None:
        if not self._late:
            return
        waiting = [(left - 1, effect) for left, effect in self._late]
        self._late = [item for item in waiting if item[0] >= 0]
        for left, effect in waiting:
            if left < 0:
                await _on_nobody_s_account(effect)

    async def _put(self, key: str, data: bytes) -> int | None:
        time = await self.inner.put(key, data)
        self._changed(key)
        return time

    async def _swap(self, key: str, data: bytes, etag: ETag | None) -> Swapped | Conflict:
        answer = await self.inner.compare_and_swap(key, data, etag=etag)
        if isinstance(answer, Swapped):
            before = self._before.setdefault(key, [])
            before.append(self._newest.get(key))
            del before[:-STALE_VERSIONS]
            self._newest[key] = Blob(data, answer.etag, answer.time_ms)
            self._changed(key)
        return answer

    async def _delete(self, key: str) -> None:
        await self.inner.delete(key)
        self._changed(key)

    def _spoilt(self, blob: Blob, fault: Fault | None) -> Blob:
        if fault is Fault.TIMELESS:
            return replace(blob, time_ms=None)
        if fault is Fault.CUT and blob.data:
            return replace(blob, data=blob.data[: self.plan.random.randrange(len(blob.data))])
        if fault is Fault.FLIPPED and blob.data:
            data = bytearray(blob.data)
            data[self.plan.random.randrange(len(data))] ^= 1 << self.plan.random.randrange(8)
            return replace(blob, data=bytes(data))
        return blob


def _no_answer(verb: Verb) -> NetworkError:
    if verb == "swap":
        return OutcomeUnknownError("no answer came to a compare-and-swap")
    return NetworkError(f"no answer came to a {verb}")


async def _on_nobody_s_account(effect: Effect) -> None:
    """Run an effect that comes late: it was paid for by whoever sent it."""
    with metered():
        await effect()
