"""A damaged file and its log, read from the leaves: what was asked for, within their bounds."""

from __future__ import annotations

from collections.abc import Mapping

from moss_local.storage.leaves import Image
from moss_local.storage.wal import HEADER_BYTES, read_log

COLUMNS = (2, 13)
MAGIC = b"SQLite format 3\0"
MOST_LOG_FRAMES = 3


def one(data: bytes) -> None:
    check(Image(data), len(data))
    headless = bytearray(data)
    headless[:16] = MAGIC[: len(data)]
    check(Image(bytes(headless)), len(data))
    check(Image(data, page_size=512), len(data))
    log = read_log(data)
    assert log is None or len(log.pages) * log.page_size <= len(data)
    check(Image(data, as_log(data), page_size=512), 2 * len(data))


def as_log(data: bytes) -> Mapping[int, bytes]:
    """Return the end of the bytes as pages of a log, whose numbers any bytes give too."""
    end = data[HEADER_BYTES:]
    starts = range(0, min(len(end) - 515, MOST_LOG_FRAMES * 516), 516)
    return {int.from_bytes(end[at : at + 4]): end[at + 4 : at + 516] for at in starts}


def check(image: Image, size: int) -> None:
    assert sum(1 for _ in image.pages()) * max(image.page_size, 1) <= max(size, 1)
    for columns in COLUMNS:
        for rowid, values in image.records(columns):
            assert -(2**63) <= rowid < 2**63
            assert len(values) == columns
            held = sum(len(value) for value in values if isinstance(value, str | bytes))
            assert held <= size  # whatever its pages lead to, in a circle too
    for root in (2, 3):
        leaves = image.table(root)
        if leaves is None:
            continue
        assert len(set(leaves)) == len(leaves)
        rowids = image.rowids(leaves)
        found = {rowid for columns in COLUMNS for rowid, _ in image.records(columns, leaves)}
        assert rowids is None or found <= rowids
