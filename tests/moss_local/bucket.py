"""A store as its operator sees it: blobs that can be listed, kept, taken away and put back."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

from moss_local import MossClient
from moss_sync import manifest, segment
from moss_sync.channel import manifest_identity, segment_identity
from moss_sync.layout import Layout, parts_of
from moss_sync.seal import unseal
from moss_sync.stores import open_store
from moss_sync.stores.base import Blob
from tests.keys import KEY


@dataclass
class Bucket:
    """A project's part of a store, as the store's operator sees it."""

    url: str
    project: str = field(default_factory=lambda: f"p-{uuid4().hex}")  # servers are shared

    def client(self, directory: Path) -> MossClient:
        return MossClient(self.project, KEY, store=self.url, data_dir=directory)

    @property
    def prefix(self) -> str:
        return Layout.of(self.project).prefix

    async def backup(self) -> dict[str, bytes]:
        store = open_store(self.url)
        held = {}
        for listed in await store.keys(self.prefix):
            blob = await store.get(listed.key)
            assert isinstance(blob, Blob)
            held[listed.key] = blob.data
        await store.close()
        return held

    async def restore(self, blobs: dict[str, bytes]) -> None:
        """Make these its contents; none: empty it."""
        store = open_store(self.url)
        for listed in await store.keys(self.prefix):
            if listed.key not in blobs:
                await store.delete(listed.key)
        for key, data in blobs.items():
            await store.put(key, data)
        await store.close()

    async def texts(self, client: MossClient) -> set[str]:
        """Every text, superseded ones too, in any blob that there is, with the client's keys."""
        repository = client._opened()._repository
        keys = await repository.attach()
        found: set[str] = set()
        for key, data in (await self.backup()).items():
            parts = key.removeprefix(self.prefix).split("/")
            if parts[0] == "m":
                place = manifest_identity(keys, parts[1])
                plain = unseal(keys.roots, place, data, max_plain=manifest.MAX_PLAIN_BYTES)
                for item in manifest.decode(plain, what=key).inline:
                    found |= {each.text for each in segment.decode(item.payload, what=key).records}
            elif len(parts) == 3:
                stem = parts_of("/".join(parts[1:])).stem
                place = segment_identity(keys, parts[0], stem)
                plain = unseal(keys.roots, place, data, max_plain=segment.MAX_PLAIN_BYTES)
                found |= {each.text for each in segment.decode(plain, what=key).records}
        return found
