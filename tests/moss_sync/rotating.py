"""Devices of one project whose key is rotated, and the store that they meet in."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from moss_sync import derivation, keyring, manifest
from moss_sync.channel import manifest_identity
from moss_sync.keyring import KdfParams
from moss_sync.manifest import Manifest
from moss_sync.rotation import rotate
from moss_sync.seal import unseal
from moss_sync.stores import MemoryStore
from moss_sync.stores.base import Blob, Conflict, ETag, Listed, NotModified, Swapped
from tests.devices import Device, MemoryCache

OLD, NEW = "the old key", "the new key"

Hook = Callable[[str, str], Awaitable[None]]


class Crash(BaseException):
    """The process dies here."""


class WatchedStore:
    """A memory store that asks a test before and after every request."""

    def __init__(self) -> None:
        self.inner = MemoryStore()
        self.calls: list[tuple[str, str]] = []
        self.before: Hook | None = None
        self.after: Hook | None = None

    @property
    def url(self) -> str:
        return self.inner.url

    async def _around(self, verb: str, key: str, call: Callable[[], Awaitable[Any]]) -> Any:
        self.calls.append((verb, key))
        if self.before is not None:
            await self.before(verb, key)
        answer = await call()
        if self.after is not None:
            await self.after(verb, key)
        return answer

    async def get(self, key: str, *, if_none_match: ETag | None = None) -> Blob | NotModified:
        found: Blob | NotModified = await self._around(
            "get", key, lambda: self.inner.get(key, if_none_match=if_none_match)
        )
        return found

    async def put(self, key: str, data: bytes) -> int | None:
        done: int | None = await self._around("put", key, lambda: self.inner.put(key, data))
        return done

    async def compare_and_swap(
        self, key: str, data: bytes, *, etag: ETag | None
    ) -> Swapped | Conflict:
        done: Swapped | Conflict = await self._around(
            "swap", key, lambda: self.inner.compare_and_swap(key, data, etag=etag)
        )
        return done

    async def keys(
        self, prefix: str, *, start_after: str = "", limit: int = 1000
    ) -> Sequence[Listed]:
        return await self.inner.keys(prefix, start_after=start_after, limit=limit)

    async def delete(self, key: str) -> None:
        await self.inner.delete(key)

    async def close(self) -> None:
        await self.inner.close()

    def quiet(self) -> None:
        self.before = self.after = None


class World:
    """One project: its store and its devices, which keep their files and caches over restarts."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.store = WatchedStore()
        self.caches: dict[str, MemoryCache] = {}
        self.open: list[Device] = []

    def device(self, name: str, key: str = OLD, *, session: str = "conv-123") -> Device:
        """Start a process on a device."""
        device = Device(
            self.directory / f"{name}-{session}.sqlite3",
            self.store,
            seed=len(self.open) + 1,
            session=session,
            key=key,
            cache=self.caches.setdefault(name, MemoryCache()),
        )
        self.open.append(device)
        return device

    async def fmt(self) -> bytes:
        blob = await self.store.inner.get(self.open[0].repository.layout.fmt)
        assert isinstance(blob, Blob)
        return blob.data

    async def blobs(self) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        for listed in await self.store.inner.keys(self.open[0].repository.layout.prefix):
            blob = await self.store.inner.get(listed.key)
            assert isinstance(blob, Blob)
            found[listed.key] = blob.data
        return found

    async def manifest_of(self, device: Device) -> tuple[Manifest, bytes]:
        """Return a session's manifest as the store has it, and its sealed bytes."""
        keys = device.repository.opened
        sid = device.engine._channel.sid(keys)
        blob = await self.store.inner.get(device.repository.layout.manifest(sid))
        assert isinstance(blob, Blob)
        plain = unseal(keys.roots, manifest_identity(keys, sid), blob.data, max_plain=2**22)
        return manifest.decode(plain, what="it"), blob.data


def opened_world(directory: Path) -> Iterator[World]:
    """Yield a world and close its devices; the body of a fixture."""
    made = World(directory)
    yield made
    for device in made.open:
        device.close()


def quickly(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Derive keys quickly while yielded: that argon2id does it is tested where keys are."""

    def derive(project_key: str, kdf: KdfParams) -> bytes:
        kdf.checked()
        return hashlib.sha256(kdf.salt + project_key.encode()).digest()

    derivation._derived_once.cache_clear()
    monkeypatch.setattr(keyring, "derive_kek", derive)
    yield
    derivation._derived_once.cache_clear()


async def turned(device: Device, new_key: str | None = NEW) -> int:
    return await rotate(device.repository, device.clock, new_key)


def long_text(number: int) -> str:
    """Text that does not compress below what rides in the manifest."""
    return hashlib.shake_256(bytes([number])).hexdigest(9000)


def act(scenario: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(scenario())  # type: ignore[arg-type]  # a coroutine function
