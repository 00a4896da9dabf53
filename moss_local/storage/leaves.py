"""Rows of a damaged SQLite file, read from the leaves of its tables without what leads to them.

Where a table's inner pages, the schema or the header are gone, SQLite finds none of its rows,
though most of them may be whole. This looks at every page that is in use for a leaf of a table, and
yields the records in it; or, where the table's pages all lead to each other still, at its own.
Nothing here is believed: any bytes give some records or none, and who asks must know the true ones.

Rules of this file: bytes in, values out; bounded by the image's own size.
Source: sqlite.org/fileformat2.html, sections 1.3 to 1.6 and 2.1.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

HEADER_BYTES = 100
MAGIC = b"SQLite format 3\0"
LEAF, INTERIOR = 0x0D, 0x05
MAX_RECORD_BYTES = 64 * 1024 * 1024
"""A length past this is damage: the largest document has a fifth of it."""

Value = int | float | bytes | str | None

_INTS = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}


class Image:
    """A database, as pages by their numbers.

    Args:
        data: The file; nothing needs to be whole, and the header and the end may be missing.
        newer: Pages that replace those of the file.
        page_size: In bytes, if that is known; else the header is believed. With it goes that no
            page has bytes at its end that are not used.
    Attributes:
        whole_free_list: The list of free pages could be followed to its end. If not, records of
            pages that are not in use any more may come out too.
    """

    def __init__(
        self, data: bytes, newer: Mapping[int, bytes] | None = None, *, page_size: int = 0
    ) -> None:
        self._data = memoryview(data)
        newer = newer or {}
        header = memoryview(newer.get(1, data[:HEADER_BYTES]))
        declared = _declared(header)
        self.page_size, reserved = (page_size, 0) if page_size else declared
        known = bool(declared[0]) and declared == (self.page_size, reserved)
        page_size = self.page_size
        self._in_file = len(data) // page_size if page_size else 0
        self._usable = page_size - reserved
        self._newer = {number: page for number, page in newer.items() if len(page) == page_size}
        self._free: set[int] = set()
        self.whole_free_list = known and self._walk_free_list(header)

    def pages(self) -> Iterator[int]:
        """Yield the numbers of the pages that are here, one less than all: not the first."""
        if self.page_size:
            yield from range(2, self._in_file + 1)
            yield from sorted(number for number in self._newer if number > max(self._in_file, 1))

    def table(self, root: int) -> list[int] | None:
        """Return the leaves of the table that begins at a page; None if not all can be reached."""
        leaves: list[int] = []
        seen, ahead = {root}, [root]
        while ahead:
            number = ahead.pop()
            try:
                page = self._page(number)
            except IndexError:
                return None
            if page[0] == LEAF:
                leaves.append(number)
                continue
            places = self._cells(page, 12)
            if page[0] != INTERIOR or not self._is_sound(page, places):
                return None
            for child in (int.from_bytes(page[at : at + 4]) for at in [*places, 8]):
                if child in seen:
                    return None
                seen.add(child)
                ahead.append(child)
        return leaves

    def rowids(self, leaves: Iterable[int]) -> set[int] | None:
        """Return the row ids in these pages, whatever the rows; None if not all can be read."""
        found: set[int] = set()
        for number in leaves:
            page = self._page(number)
            places = self._cells(page, 8)
            if not self._is_sound(page, places):
                return None
            try:
                here = [_varint(page, _varint(page, at)[1])[0] for at in places]
            except IndexError:
                return None
            # Each once, and in their order, or one is not what it was.
            if here != sorted(set(here)) or not found.isdisjoint(here):
                return None
            found.update(here)
        return found

    def records(
        self, columns: int, leaves: Iterable[int] | None = None
    ) -> Iterator[tuple[int, tuple[Value, ...]]]:
        """Yield (rowid, values) of each record with so many columns, from whichever table.

        Args:
            leaves: Where to look; None: in all pages that are not known to be free.
        """
        for number in self.pages() if leaves is None else leaves:
            if leaves is None and number in self._free:
                continue
            page = self._page(number)
            if page[0] != LEAF:
                continue
            for at in self._cells(page, 8):
                try:
                    found = self._cell(page, at, columns)
                except (IndexError, ValueError):  # what is no record; UnicodeDecodeError too
                    continue
                if found is not None:
                    yield found

    def _cells(self, page: memoryview, header: int) -> list[int]:
        cells = min(int.from_bytes(page[3:5]), (self.page_size - header) // 2)
        places = range(header, header + 2 * cells, 2)
        return [int.from_bytes(page[place : place + 2]) for place in places]

    def _is_sound(self, page: memoryview, places: Sequence[int]) -> bool:
        """Return whether the cells lie where they may: behind what the page says is before them."""
        first = int.from_bytes(page[5:7]) or 65_536
        fit = len(places) == int.from_bytes(page[3:5])
        return fit and all(first <= place < self._usable for place in places)

    def _page(self, number: int) -> memoryview:
        if (newer := self._newer.get(number)) is not None:
            return memoryview(newer)
        if not 1 <= number <= self._in_file:
            raise IndexError(number)
        return self._data[(number - 1) * self.page_size : number * self.page_size]

    def _walk_free_list(self, header: memoryview) -> bool:
        trunk, count = int.from_bytes(header[32:36]), int.from_bytes(header[36:40])
        while trunk:
            if trunk in self._free or trunk == 1:
                return False
            try:
                page = self._page(trunk)
            except IndexError:
                return False
            self._free.add(trunk)
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
        if not 0 < length <= min(MAX_RECORD_BYTES, self._bytes()):
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

    def _bytes(self) -> int:
        return (self._in_file + len(self._newer)) * self.page_size

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


def _declared(header: memoryview) -> tuple[int, int]:
    """Return the bytes of a page, and how many at its end are not used; (0, 0) for no header."""
    if len(header) < HEADER_BYTES or header[:16] != MAGIC:
        return 0, 0
    size = int.from_bytes(header[16:18])
    size = 65_536 if size == 1 else size
    return (size, header[20]) if size in {1 << n for n in range(9, 17)} else (0, 0)


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
