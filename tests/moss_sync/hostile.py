"""A member who holds the key and writes what our encoders refuse."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import msgpack
import zstandard

from moss_sync import manifest, segment
from moss_sync.manifest import Manifest
from moss_sync.packing import unpack
from moss_sync.segment import Segment

Harm = Callable[[dict[str, Any]], None]


def packed_as_it_is(fields: object) -> bytes:
    """Return what somebody without our checks would write."""
    plain = msgpack.packb(fields, use_bin_type=True, unicode_errors="surrogatepass")
    return zstandard.ZstdCompressor(write_content_size=True).compress(plain)


@contextmanager
def segments_harmed(harm: Harm) -> Iterator[None]:
    """Every segment that is encoded meanwhile is changed before it is sealed."""
    shipped = segment.encode

    def encode(given: Segment) -> bytes:
        fields = unpack(shipped(given), max_bytes=segment.MAX_PLAIN_BYTES, what="a segment")
        harm(fields)
        return packed_as_it_is(fields)

    with patch.object(segment, "encode", encode):
        yield


def sets(field: str, id: str, value: object) -> Harm:
    """Return a harm that gives one record's field another value."""

    def apply(fields: dict[str, Any]) -> None:
        if id in fields["id"]:
            fields[field][fields["id"].index(id)] = value

    return apply


def put(*path: Any, value: Any) -> Harm:
    """Return a harm that puts a value at a path of keys and places."""

    def apply(fields: dict[str, Any]) -> None:
        place: Any = fields
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = value

    return apply


@contextmanager
def manifests_harmed(harm: Harm) -> Iterator[None]:
    """Every manifest that is encoded meanwhile is changed before it is sealed."""
    shipped = manifest.encode

    def encode(given: Manifest) -> bytes:
        fields = unpack(shipped(given), max_bytes=manifest.MAX_PLAIN_BYTES, what="a manifest")
        harm(fields)
        return packed_as_it_is(fields)

    with (
        patch.object(manifest, "encode", encode),
        patch.object(manifest, "MAX_MANIFEST_BYTES", 2**26),
    ):
        yield
