"""A damaged session file that is repaired: what is kept was written so by somebody, or is said to
be doubtful, and what is lost is counted, or said not to be."""

from __future__ import annotations

import itertools
from functools import cache

from fuzz.fuzz_file import damaged, template
from fuzz.shapes import scratch
from moss_local.storage.place import Place
from moss_local.storage.remains import REASON
from moss_local.storage.salvage import examine, salvage
from moss_sync import MossError

_numbers = itertools.count()

Kept = tuple[str, int, str]


def one(data: bytes) -> None:
    everything = truth()
    check(damaged(data), everything)


def check(content: bytes, everything: set[Kept]) -> None:
    place = Place(scratch() / f"salvage-{next(_numbers)}")
    place.directory.mkdir()
    path = place.path("conv")
    path.write_bytes(content)
    try:
        if not examine(place, "conv"):
            return
        found = salvage(place, "conv", all_rows=True)
    except MossError:  # busy, of a newer version, or not ours to the eye
        assert path.exists()
        return
    finally:
        for left in place.directory.iterdir():
            left.unlink()
        place.directory.rmdir()
    kept = [(each[0], (each[1], each[5], each[6])) for each in found.edits]
    made_up = {edit for reason, edit in kept if reason == REASON} - everything
    assert not made_up
    if found.exact:
        assert len(kept) + found.unreadable >= len({id for id, *_ in everything})


@cache
def truth() -> set[Kept]:
    """Return each (id, deleted, text) that was ever written into the template."""
    written = {("turn-1", 0, "edited"), ("turn-2", 1, "")}
    for n, who in enumerate(["Ann", "Ben", "Ann", "Cy", "Ben", "Ann"]):
        written.add((f"turn-{n}", 0, f"{who}: the refund of charge {n}"))
    assert b"the refund of charge 5" in template()
    return written
