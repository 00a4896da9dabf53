"""Segments: any bytes are a named error, or a value that encodes to bytes that decode equal."""

from __future__ import annotations

from fuzz.shapes import packed
from moss_sync import MossError, segment


def one(data: bytes) -> None:
    try:
        found = segment.decode(packed(data), what="fuzz", commit_seq=7)
    except MossError:
        return
    again = segment.decode(segment.encode(found), what="fuzz", commit_seq=7)
    assert again == found
