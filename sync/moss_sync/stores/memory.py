"""Blobs in the process's own memory: for tests, simulations and two sessions in one program.

Two stores of one name share one content while the process lives. ETags are hashes of the content,
as on most servers, so whoever forgets that equal bytes have equal ETags finds out here.
What holds: tests/contracts/test_stores.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import blake2b
from threading import Lock

from moss_sync.errors import BlobNotFoundError, InvalidArgumentError
from moss_sync.stores.base import Blob, Conflict, ETag, Listed, NotModified, Swapped
from moss_sync.stores.keys import check_key, check_listing, check_size
from moss_sync.traffic import count

_ETAG_BYTES = 16


class _Content:
    """What all stores of one name share, over any number of threads and event loops."""

    def __init__(self) -> None:
        self.blobs: dict[str, tuple[bytes, ETag]] = {}
        self.lock = Lock()


_named: dict[str, _Content] = {}
_named_lock = Lock()


class MemoryStore:
    """A BlobStore in memory.

    Args:
        name: Stores of one name share their content; None keeps it to this object.
        time_ms: The store's clock; None for a store that has none.
    """

    def __init__(
        self, name: str | None = None, *, time_ms: Callable[[], int] | None = None
    ) -> None:
        if name is not None and not name:
            raise InvalidArgumentError("a memory store's name is empty", hint="memory://NAME")
        self._url = f"memory://{name or ''}"
        self._now = time_ms if time_ms is not None else lambda: None
        self._closed = False
        if name is None:
            self._content = _Content()
        else:
            with _named_lock:
                self._content = _named.setdefault(name, _Content())

    def __repr__(self) -> str:
        return f"<MemoryStore {self._url!r} blobs={len(self._content.blobs)}>"

    @property
    def url(self) -> str:
        return self._url

    async def get(self, key: str, *, if_none_match: ETag | None = None) -> Blob | NotModified:
        self._begin()
        check_key(key)
        with self._content.lock:
            found = self._content.blobs.get(key)
        if found is None:
            count(requests=1)
            raise BlobNotFoundError(key)
        data, etag = found
        if etag == if_none_match:
            count(requests=1)
            return NotModified(self._now())
        count(requests=1, received=len(data))
        return Blob(data, etag, self._now())

    async def put(self, key: str, data: bytes) -> int | None:
        self._begin()
        check_key(key)
        check_size(key, data)
        count(requests=1, sent=len(data))
        with self._content.lock:
            self._content.blobs[key] = (bytes(data), _etag(data))
        return self._now()

    async def compare_and_swap(
        self, key: str, data: bytes, *, etag: ETag | None
    ) -> Swapped | Conflict:
        self._begin()
        check_key(key)
        check_size(key, data)
        count(requests=1, sent=len(data))
        fresh = _etag(data)
        with self._content.lock:
            found = self._content.blobs.get(key)
            if (None if found is None else found[1]) != etag:
                return Conflict(self._now())
            self._content.blobs[key] = (bytes(data), fresh)
        return Swapped(fresh, self._now())

    async def keys(
        self, prefix: str, *, start_after: str = "", limit: int = 1000
    ) -> Sequence[Listed]:
        self._begin()
        check_listing(prefix, start_after, limit)
        count(requests=1)
        with self._content.lock:
            found = [
                Listed(key, etag, len(data))
                for key, (data, etag) in self._content.blobs.items()
                if key.startswith(prefix) and key > start_after
            ]
        return sorted(found, key=lambda listed: listed.key)[:limit]

    async def delete(self, key: str) -> None:
        self._begin()
        check_key(key)
        count(requests=1)
        with self._content.lock:
            self._content.blobs.pop(key, None)

    async def close(self) -> None:
        self._closed = True

    def _begin(self) -> None:
        if self._closed:
            raise RuntimeError(f"the store {self._url} is closed")


def _etag(data: bytes) -> ETag:
    return ETag(blake2b(data, digest_size=_ETAG_BYTES).hexdigest())
