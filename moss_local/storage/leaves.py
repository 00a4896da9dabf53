"""Rows of a damaged SQLite file, read from the leaves of its tables without what leads to them.

Where a table's inner pages are gone, SQLite finds none of its rows, though most of them may be
whole. This looks at every page that is in use for a leaf of a table, and yields the records in it.
Nothing here is believed: any bytes give some records or none, and who asks must know the true ones.

Rules of this file: bytes in, values out; bounded by the image's own size.
Source: sqlite.org/fileformat2.html, sections 1.3 to 1.6 and 2.1.
"""

from __future__ import annotations

from collections.abc import Iterator

HEADER_BYTES = 100
LEAF = 0x0D
MAX_RECORD_BYTES = 64 * 1024 * 1024
"""A length past this is damage: the largest document has a fifth of it."""

Value = int | float | bytes | str | None

_INTS = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}


class Image:
    """A database, as one sequence of pages.

    Attributes:
        whole_free_list: The list of free pages could be followed to its end. If not, records of
            pages that are not in use any more may come out too.
    """

    def __init__(self, data: bytes) -> None:
        self._data = memoryview(data)
        size = int.from_bytes(self._data[16:18])
        self.page_size = 65_536 if size == 1 else size
        if self.page_size not in {1 << n for n in range(9, 17)}:
            self.page_size = 0
            self.pages, self.whole_free_list = 0, False
            return
        self._usable = self.page_size - (self._data[20] if len(self._data) > 20 else 0)
        self.pages = len(self._data) // self.page_size
        self._free: set[int] = set()
        self.whole_free_list = self._walk_free_list()

    def records(self, columns: int) -> Iterator[tuple[int, tuple[Value, ...]]]:
        """Yield (rowid, values) of each record with so many columns, from whichever table."""
        for number in range(2, self.pages + 1):
            if number in self._free:
                continue
            page = self._page(number)
            if page[0] != LEAF:
                continue
            cells = int.from_bytes(page[3:5])
            for cell in range(min(cells, (self.page_size - 8) // 2)):
                at = int.from_bytes(page[8 + 2 * cell : 10 + 2 * cell])
                try:
                    found = self._cell(page, at, columns)
                except (IndexError, ValueError):  # what is no record; UnicodeDecodeError too
                    continue
                if found is not None:
                    yield found

    def _page(self, number: int) -> memoryview:
        if not 1 <= number <= self.pages:
            raise IndexError(number)
        return self._data[(number - 1) * self.page_size : number * self.page_size]

    def _walk_free_list(self) -> bool:
        trunk, count = int.from_bytes(self._data[32:36]), int.from_bytes(self._data[36:40])
        while trunk:
            if trunk in self._free or not 1 < trunk <= self.pages:
                return False
            self._free.add(trunk)
            page = self._page(trunk)
            leaves = int.from_bytes(page[4:8])
            if leaves > self.page_size // 4 - 2:
                return False
            for leaf in range(leaves):
                self._free.add(int.from_bytes(page[8 + 4 * leaf : 12 + 4 * leaf]))
            trunk = int.from_bytes(page[:4])
        return len(self._free) == count

    def _cell(
        self, page: memoryview, at: int, columns: int
    ) -> tuple[int, tuple[Value, ...]] | None:
        length, at = _varint(page, at)
        rowid, at = _varint(page, at)
        if not 0 < length <= min(MAX_RECORD_BYTES, len(self._data)):
            raise ValueError("longer than the file")
        payload = self._payload(page, at, length)
        header_end, place = _varint(payload, 0)
        types: list[int] = []
        while place < header_end and len(types) <= columns:
            kind, place = _varint(payload, place)
            types.append(kind)
        if len(types) != columns or place != header_end:
            return None
        values: list[Value] = []
        for kind in types:
            value, place = _value(payload, place, kind)
            values.append(value)
        return rowid, tuple(values)

    def _payload(self, page: memoryview, at: int, length: int) -> bytes:
        """Return a record, put together from the leaf and the pages that it overflows to."""
        most = self._usable - 35
        if length <= most:
            return _exactly(page[at : at + length], length)
        least = (self._usable - 12) * 32 // 255 - 23
        here = least + (length - least) % (self._usable - 4)
        if here > most:
            here = least
        parts = [_exactly(page[at : at + here], here)]
        following = int.from_bytes(page[at + here : at + here + 4])
        left = length - here
        while left > 0:
            overflow = self._page(following)
            taken = min(left, self._usable - 4)
            parts.append(_exactly(overflow[4 : 4 + taken], taken))
            left -= taken
            following = int.from_bytes(overflow[:4])
        return b"".join(parts)


def _exactly(data: memoryview, length: int) -> bytes:
    if len(data) != length:
        raise IndexError("cut")
    return bytes(data)


def _varint(data: memoryview | bytes, at: int) -> tuple[int, int]:
    """Return a number of one to nine bytes and the place behind it."""
    value = 0
    for n in range(9):
        byte = data[at + n]
        if n == 8:
            value = (value << 8) | byte
            return value - (1 << 64) if value >> 63 else value, at + 9
        value = (value << 7) | (byte & 0x7F)
        if byte < 0x80:
            return value, at + n + 1
    raise AssertionError("nine bytes are the most")


def _value(data: bytes, at: int, kind: int) -> tuple[Value, int]:
    if kind == 0:
        return None, at
    if kind in _INTS:
        end = at + _INTS[kind]
        return int.from_bytes(_exactly(memoryview(data)[at:end], end - at), signed=True), end
    if kind in (8, 9):
        return kind - 8, at
    if kind < 12:
        raise ValueError("a type that our tables have no use for")
    size = (kind - 12) // 2
    raw = _exactly(memoryview(data)[at : at + size], size)
    return (raw.decode() if kind % 2 else raw), at + size
