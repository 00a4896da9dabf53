"""The committed pages of a write-ahead log, read without SQLite.

For a database whose header is gone, or which is gone itself: what was written last may stand only
in its log. A page counts where SQLite would count it: every checksum up to it holds, and a commit
follows.

Rules of this file: bytes in, values out; bounded by the log's own size.
What holds: tests/moss_local/test_storage_leaves.py. Source: sqlite.org/fileformat2.html, section 4.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass

HEADER_BYTES = 32
_FRAME_BYTES = 24
_MAGIC = 0x377F0682
"""Its last bit tells the byte order of the checksums."""

Sums = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Log:
    """What was committed in a log.

    Attributes:
        page_size: In bytes.
        pages: What each page holds, by its number, as committed last; within `pages_after`.
        pages_after: How many pages the database has.
    """

    page_size: int
    pages: Mapping[int, bytes]
    pages_after: int


def read_log(log: bytes) -> Log | None:
    """Return what a log holds; None where there is no commit in it that can be read."""
    if len(log) < HEADER_BYTES:
        return None
    magic, _, page_size = struct.unpack(">3I", log[:12])
    if magic & ~1 != _MAGIC or page_size not in {1 << n for n in range(9, 17)}:
        return None
    order = ">" if magic & 1 else "<"
    sums = _checksum(log[:24], order, (0, 0))
    if sums != struct.unpack(">2I", log[24:HEADER_BYTES]):
        return None
    committed: dict[int, bytes] = {}
    written: dict[int, bytes] = {}
    after = 0
    step = _FRAME_BYTES + page_size
    for at in range(HEADER_BYTES, len(log) - step + 1, step):
        head, page = log[at : at + _FRAME_BYTES], log[at + _FRAME_BYTES : at + step]
        number, commit = struct.unpack(">2I", head[:8])
        sums = _checksum(head[:8] + page, order, sums)
        if head[8:16] != log[16:24] or sums != struct.unpack(">2I", head[16:]) or not number:
            break
        written[number] = page
        if commit:
            committed |= written
            written, after = {}, commit
    if not after:
        return None
    pages = {number: page for number, page in committed.items() if number <= after}
    return Log(page_size, pages, after)


def _checksum(data: bytes, order: str, sums: Sums) -> Sums:
    first, second = sums
    words = struct.unpack(f"{order}{len(data) // 4}I", data)
    for n in range(0, len(words), 2):
        first = (first + words[n] + second) & 0xFFFFFFFF
        second = (second + words[n + 1] + first) & 0xFFFFFFFF
    return first, second
