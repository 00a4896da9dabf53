"""`python -m moss_local.testing 0..1999` simulates those seeds on real session files."""

from __future__ import annotations

import sys
from collections.abc import Callable

from moss_local.testing.copies import SqliteCopies
from moss_sync.testing.campaign import main
from moss_sync.testing.copies import Copies

VECTORS_EVERY = 8
"""One seed in so many gives its documents vectors, which costs the rest of the schedule's time."""


def copies_of(seed: int, step: Callable[[], None]) -> Copies:
    """Return the copies that a seed is simulated on."""
    return SqliteCopies(step, vectors=seed % VECTORS_EVERY == 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], "moss_local.testing.__main__:copies_of"))
