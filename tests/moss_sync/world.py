"""A store whose faults can be chosen, and the devices around it."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from uuid import uuid4

from moss_sync.stores import MemoryStore
from moss_sync.stores.base import Blob, Conflict, ETag, Listed, NotModified, Swapped
from tests.devices import Device, QuickClock

Hook = Callable[[str, str], Awaitable[None]]


class Crash(BaseException):
    """The process is gone: nothing of it runs any further."""


class FaultyStore:
    """A memory store that asks a test before and after every call."""

    def __init__(self) -> None:
        self.inner = MemoryStore(f"faulty-{uuid4().hex}")
        self.calls: list[tuple[str, str]] = []
        self.before: Hook | None = None
        self.after: Hook | None = None

    @property
    def url(self) -> str:
        return self.inner.url

    async def _around(self, verb: str, key: str, call: Callable[[], Awaitable[object]]) -> object:
        self.calls.append((verb, key))
        if self.before is not None:
            await self.before(verb, key)
        answer = await call()
        if self.after is not None:
            await self.after(verb, key)
        return answer

    async def get(self, key: str, *, if_none_match: ETag | None = None) -> Blob | NotModified:
        return await self._around(  # type: ignore[return-value]  # what `call` returns
            "get", key, lambda: self.inner.get(key, if_none_match=if_none_match)
        )

    async def put(self, key: str, data: bytes) -> int | None:
        return await self._around(  # type: ignore[return-value]  # what `call` returns
            "put", key, lambda: self.inner.put(key, data)
        )

    async def compare_and_swap(
        self, key: str, data: bytes, *, etag: ETag | None
    ) -> Swapped | Conflict:
        return await self._around(  # type: ignore[return-value]  # what `call` returns
            "swap", key, lambda: self.inner.compare_and_swap(key, data, etag=etag)
        )

    async def keys(
        self, prefix: str, *, start_after: str = "", limit: int = 1000
    ) -> Sequence[Listed]:
        return await self._around(  # type: ignore[return-value]  # what `call` returns
            "keys",
            prefix,
            lambda: self.inner.keys(prefix, start_after=start_after, limit=limit),
        )

    async def delete(self, key: str) -> None:
        await self._around("delete", key, lambda: self.inner.delete(key))

    async def close(self) -> None:
        await self.inner.close()


def noise(number: int, size: int = 100) -> str:
    """Text that does not compress, so that sizes are what they look like."""
    return random.Random(number).randbytes(size).hex()


class Once:
    """A hook that raises at the first call of `verb` on a key that holds `part`."""

    def __init__(self, verb: str, part: str, error: BaseException) -> None:
        self.verb, self.part, self.error = verb, part, error
        self.fired = False

    async def __call__(self, verb: str, key: str) -> None:
        if not self.fired and verb == self.verb and self.part in key:
            self.fired = True
            raise self.error


class World:
    """A store and the devices around it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.store = FaultyStore()
        self.clock = QuickClock()
        self.devices: list[Device] = []

    def device(self, **options: object) -> Device:
        number = len(self.devices)
        device = Device(
            self.directory / f"device-{number}.sqlite3",
            self.store,
            seed=number + 1,
            **options,  # type: ignore[arg-type]  # passed on as they are
        )
        self.devices.append(device)
        return device

    def device_here(self, **options: object) -> Device:
        """A device whose clock is the world's: what one waits, passes for all of them."""
        return self.device(clock=self.clock, **options)

    def blobs(self, kind: str = "") -> set[str]:
        """Names of the segments in the store; "s" for pushed ones, "b" for merged ones."""
        keys = self.store.inner._content.blobs
        names = {"/".join(key.split("/")[-2:]) for key in keys}
        return {name for name in names if name.startswith(kind or ("s/", "b/"))}

    async def manifest_key(self) -> str:
        [key] = [key for verb, key in self.store.calls if "/m/" in key][-1:]
        return key

    async def blob(self, key: str) -> bytes:
        blob = await self.store.inner.get(key)
        assert isinstance(blob, Blob)
        return blob.data
