"""Segments: any bytes are a named error, or a value that encodes to bytes that decode equal."""

from __future__ import annotations

from dataclasses import replace

from fuzz.shapes import packed
from moss_sync import MossError, segment


def one(data: bytes) -> None:
    try:
        found = segment.decode(packed(data), what="fuzz", commit_seq=7)
    except MossError:
        return
    counted = replace(found, rejected=())  # what does not count is told, and not written again
    again = segment.decode(segment.encode(counted), what="fuzz", commit_seq=7)
    assert again == counted
