"""Listings of many pages, and of a store that never comes to an end."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from moss_sync import NetworkError
from moss_sync.stores import ETag, Listed, MemoryStore, listing
from moss_sync.stores.listing import list_all


class Endless(MemoryStore):
    """Names one blob after another, for ever."""

    asked = 0

    async def keys(
        self, prefix: str, *, start_after: str = "", limit: int = 1000
    ) -> Sequence[Listed]:
        first = self.asked * limit
        self.asked += 1
        return [Listed(f"{prefix}{n:012}", ETag("e"), 1) for n in range(first, first + limit)]


def test_all_pages_are_put_together_and_end_where_the_beginning_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(listing, "PAGE", 2)

    async def story() -> None:
        store = MemoryStore()
        for name in ("a1", "a2", "b1", "b2", "b3", "c1"):
            await store.put(f"m/{name}", b"")
        found = await list_all(store, "m/")
        assert [each.key for each in found] == ["m/a1", "m/a2", "m/b1", "m/b2", "m/b3", "m/c1"]
        found = await list_all(store, "m/", start_after="m/b", beginning="b")
        assert [each.key for each in found] == ["m/b1", "m/b2", "m/b3"]
        assert await list_all(store, "m/", start_after="m/d", beginning="d") == []

    asyncio.run(story())


def test_a_store_that_never_comes_to_an_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "MAX_LISTED", 5_000)

    async def story() -> None:
        store = Endless()
        with pytest.raises(NetworkError, match="more than 5000 blobs below 'm/'"):
            await list_all(store, "m/")
        assert store.asked == 6

    asyncio.run(story())
