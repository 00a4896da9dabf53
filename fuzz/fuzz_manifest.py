"""Manifests: as segments; and keys that this version does not know come back as they were."""

from __future__ import annotations

from fuzz.shapes import packed
from moss_sync import MossError, manifest


def one(data: bytes) -> None:
    try:
        found = manifest.decode(packed(data), what="fuzz")
    except MossError:
        return
    again = manifest.decode(manifest.encode(found), what="fuzz")
    assert again == found
    assert again.extra == found.extra
