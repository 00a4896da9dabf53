"""Blobs and heads of a log: a named error, or a value that stands for itself again."""

from __future__ import annotations

from dataclasses import replace

from fuzz.shapes import packed
from moss_sync import MossError, layout, log_blob, segment
from moss_sync.layout import SegmentName

SID, DEV = "s" * 26, b"device-A"
NAMES = (
    SegmentName("s", 0, DEV, 1, "a" * layout.TAG_CHARS),
    SegmentName("b", 0, DEV, 1, "a" * layout.TAG_CHARS),
)


def one(data: bytes) -> None:
    log_blob.arrived(data)
    plain = packed(data)
    for name in NAMES:
        try:
            found = log_blob.decode(plain, name)
        except MossError:
            continue
        counted = replace(found.segment, rejected=())
        again = log_blob.encode(
            segment.encode(counted),
            ct=found.ct,
            since=found.since,
            covers=found.covers,
            replaces=found.replaces,
            whole=dict(found.whole),
            forgot=found.forgot,
        )
        assert log_blob.decode(again, name).segment == counted
    try:
        head = log_blob.decode_head(plain, SID, DEV)
    except MossError:
        return
    assert log_blob.decode_head(log_blob.encode_head(head), SID, DEV) == head
