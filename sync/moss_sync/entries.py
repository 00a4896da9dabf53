"""The entries of a manifest: one a segment that belongs to the session, written as columns.

Rules of this file: values in, values out.
What holds (tests/moss_sync/test_manifest.py): `decode_entries(encode_entries(x)) == x`; anything
else raises KeyError, TypeError or ValueError.

A name stands in its parts, and what rises from entry to entry as differences: of forty entries
that is 1.5 KB where a map each, with the name as text, would be 2.2 KB. A column that this version
does not know is kept in the entries and written back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from moss_sync.layout import TAG_BYTES, SegmentName, base32, new_stem, parts_of
from moss_sync.packing import as_bytes, as_int, as_kept, as_list, as_map, as_name, as_str, as_uint
from moss_sync.record import DEVICE_BYTES


@dataclass(frozen=True, slots=True)
class Entry:
    """A segment that belongs to the session. Counts are None where the committer did not know.

    Attributes:
        name: "s/…" or "b/…" as in the store.
        bytes: Size of the sealed blob; plain: of the segment before compression and sealing.
        docs, tombs: Live records and tombstones in it; hlc_max: the highest clock in it.
        fp: The vector space of its vectors.
        lo, hi: The commits that it covers; a pushed segment covers exactly one.
        bmin: The lowest `base` of anything merged into it.
        lvl: 0 for a pushed segment, more for the output of a compaction.
        ct: Store time of the commit, milliseconds.
        epoch: Of the key that the blob is sealed under, and its name made with.
        extra: Of columns that this version does not know.
    """

    name: str
    bytes: int
    docs: int | None
    tombs: int | None
    lo: int
    hi: int
    bmin: int
    lvl: int
    ct: int
    epoch: int
    hlc_max: int | None = None
    fp: str | None = None
    plain: int | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


_RISING = ("base", "lo", "hi", "bmin", "ct")
"""Each value but the first stands as its difference to the one before; they may fall too."""

_NUMBERS = ("number", "bytes", "lvl", "epoch")
_UNSURE = ("docs", "tombs", "plain", "hlc_max")
COLUMNS = frozenset(["dev", "tag", "fp", *_RISING, *_NUMBERS, *_UNSURE])


def encode_entries(entries: Sequence[Entry]) -> dict[str, Any]:
    """Return the columns of entries. Raises ValueError for a name that is none, or of another kind.

    The kind of a name does not stand there: it follows from the level.
    """
    names = [parts_of(entry.name) for entry in entries]
    if any(
        (name.kind == "b") != bool(entry.lvl) for name, entry in zip(names, entries, strict=True)
    ):
        raise ValueError("kinds")
    values: dict[str, list[Any]] = {
        "base": [name.base for name in names],
        "number": [name.number for name in names],
    }
    for column in (*_RISING[1:], *_NUMBERS[1:], *_UNSURE, "fp"):
        values[column] = [getattr(entry, column) for entry in entries]
    for column in _RISING:
        values[column] = _differences(values[column])
    later = sorted({column for entry in entries for column in entry.extra})
    return {
        **{column: [entry.extra.get(column) for entry in entries] for column in later},
        "dev": b"".join(name.dev for name in names),
        "tag": b"".join(name.raw_tag for name in names),
        **values,
    }


def decode_entries(fields: Any) -> tuple[Entry, ...]:
    """Return the entries that `encode_entries` got.

    Raises:
        KeyError, TypeError, ValueError: these are no columns of entries.
    """
    columns = as_map(fields)
    size = len(as_list(columns["hi"]))

    def read(column: str, one: Callable[[Any], Any]) -> list[Any]:
        values = as_list(columns[column])
        if len(values) != size:
            raise ValueError("columns of different lengths")
        return [one(value) for value in values]

    known: dict[str, list[Any]] = {
        **{column: _sums(read(column, as_int)) for column in _RISING},
        **{column: read(column, as_uint) for column in _NUMBERS},
        **{column: read(column, _or_none(as_uint)) for column in _UNSURE},
        "fp": read("fp", _or_none(as_name)),
    }
    devs = _cut(as_bytes(columns["dev"], size * DEVICE_BYTES), DEVICE_BYTES)
    tags = _cut(as_bytes(columns["tag"], size * TAG_BYTES), TAG_BYTES)
    later = {as_str(column): read(column, as_kept) for column in columns.keys() - COLUMNS}
    bases, numbers = known.pop("base"), known.pop("number")
    return tuple(
        Entry(
            name=_name(level, bases[row], devs[row], numbers[row], tags[row]),
            extra={
                column: values[row] for column, values in later.items() if values[row] is not None
            },
            **{column: values[row] for column, values in known.items()},
        )
        for row, level in enumerate(known["lvl"])
    )


def _name(level: int, base: int, dev: bytes, number: int, tag: bytes) -> str:
    kind = "b" if level else "s"
    new_stem(kind=kind, base=base, dev=dev, number=number)  # raises where a part does not fit
    return str(SegmentName(kind, base, dev, number, base32(tag)))


def _differences(values: Sequence[int]) -> list[int]:
    return [value - before for before, value in zip([0, *values], values, strict=False)]


def _sums(differences: Iterable[int]) -> list[int]:
    return [as_uint(value) for value in accumulate(differences)]


def _cut(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


def _or_none(one: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else one(value)
