"""Which pushes a set of records stands for: for each device, ranges of its push numbers.

Rules of this file: values in, values out.
What holds (tests/moss_sync/test_coverage.py): a coverage is a set of (device, number), and the
operations are those of sets, whatever the order and overlap of what was put in.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from moss_sync.layout import MAX_PUSH
from moss_sync.packing import as_bytes, as_list, as_map, as_uint
from moss_sync.record import DEVICE_BYTES

Spans = tuple[tuple[int, int], ...]
"""Ranges (first, last) of push numbers, both included, rising, never touching."""

Floor = Mapping[bytes, int]
"""All pushes of each device up to a number; 0 and absent are the same."""


@dataclass(frozen=True, slots=True)
class Coverage:
    """A set of pushes."""

    spans: Mapping[bytes, Spans] = field(default_factory=dict)

    @classmethod
    def of(cls, dev: bytes, n: int) -> Coverage:
        return cls({dev: ((n, n),)})

    def has(self, dev: bytes, n: int) -> bool:
        return any(first <= n <= last for first, last in self.spans.get(dev, ()))

    def plus(self, *others: Coverage) -> Coverage:
        gathered: dict[bytes, list[tuple[int, int]]] = {}
        for each in (self, *others):
            for dev, spans in each.spans.items():
                gathered.setdefault(dev, []).extend(spans)
        return Coverage({dev: _joined(spans) for dev, spans in gathered.items()})

    def top(self, dev: bytes) -> int:
        """Return the highest number of a device; 0 where there is none."""
        spans = self.spans.get(dev, ())
        return spans[-1][1] if spans else 0

    def prefix(self, dev: bytes) -> int:
        """Return up to which number all pushes of a device are in."""
        spans = self.spans.get(dev, ())
        return spans[0][1] if spans and spans[0][0] == 1 else 0

    def floor(self) -> dict[bytes, int]:
        """Return `prefix` of every device that has one."""
        return {dev: self.prefix(dev) for dev in self.spans if self.prefix(dev)}

    def gaps(self) -> Iterator[tuple[bytes, int, int]]:
        """Yield (device, first, last) of what is lacking below a device's highest number."""
        for dev, spans in sorted(self.spans.items()):
            after = 1
            for first, last in spans:
                if first > after:
                    yield dev, after, first - 1
                after = last + 1

    @property
    def total(self) -> int:
        """How many pushes there are."""
        return sum(last - first + 1 for spans in self.spans.values() for first, last in spans)

    def fields(self) -> dict[bytes, list[list[int]]]:
        """Return it in plain types."""
        return {dev: [list(span) for span in self.spans[dev]] for dev in sorted(self.spans)}


def coverage_of(fields: Any) -> Coverage:
    """Return the coverage of `Coverage.fields`; raises ValueError or TypeError."""
    found: dict[bytes, Spans] = {}
    for dev, spans in as_map(fields).items():
        ranges = [tuple(as_push(bound) for bound in as_list(span)) for span in as_list(spans)]
        flat = [bound for each in ranges for bound in each]
        # Rising, and with a hole between two ranges: the one form that a set of numbers has.
        if any(len(each) != 2 or not 1 <= each[0] <= each[1] for each in ranges) or any(
            flat[i + 1] < flat[i] + 2 for i in range(1, len(flat) - 1, 2)
        ):
            raise ValueError("ranges")
        if ranges:
            found[as_bytes(dev, DEVICE_BYTES)] = tuple((a, b) for a, b in ranges)
    return Coverage(found)


def floor_fields(floor: Floor) -> dict[bytes, int]:
    """Return a floor in plain types."""
    return {dev: floor[dev] for dev in sorted(floor) if floor[dev]}


def floor_of(fields: Any) -> dict[bytes, int]:
    """Return the floor of `floor_fields`; raises ValueError or TypeError."""
    return {as_bytes(dev, DEVICE_BYTES): as_push(n) for dev, n in as_map(fields).items()}


def as_push(value: Any) -> int:
    """Return a field that must be a push number, or 0. Raises ValueError."""
    if as_uint(value) > MAX_PUSH:
        raise ValueError("push number")
    return int(value)


def below(dev: bytes, n: int, floor: Floor) -> bool:
    """Return whether a push is one of those that `floor` stands for."""
    return n <= floor.get(dev, 0)


def reaches(floor: Floor, other: Floor) -> bool:
    """Return whether `floor` stands for every push that `other` does."""
    return all(n <= floor.get(dev, 0) for dev, n in other.items())


def joined(floors: Iterable[Floor]) -> dict[bytes, int]:
    """Return the floor that stands for every push that any of them does."""
    result: dict[bytes, int] = {}
    for floor in floors:
        for dev, n in floor.items():
            result[dev] = max(n, result.get(dev, 0))
    return result


def highest(floors: Iterable[Floor]) -> tuple[dict[bytes, int], ...]:
    """Return the floors that no other one reaches, each once."""
    kept: list[dict[bytes, int]] = []
    for floor in floors:
        if floor and not any(reaches(known, floor) for known in kept):
            kept = [known for known in kept if not reaches(floor, known)]
            kept.append(dict(floor))
    return tuple(kept)


def _joined(spans: Iterable[tuple[int, int]]) -> Spans:
    result: list[tuple[int, int]] = []
    for first, last in sorted(spans):
        if result and first <= result[-1][1] + 1:
            result[-1] = (result[-1][0], max(last, result[-1][1]))
        else:
            result.append((first, last))
    return tuple(result)
