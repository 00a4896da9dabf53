"""Who embeds next: a single text goes before the next text of any bulk load.

Two sessions of the runtime share the cores, so a query is never *queued* behind a bulk load; but
its threads would share the cores with the load's. A load therefore asks before each text, and
waits while single texts are being embedded. It never waits for ever: past `PATIENCE_S` it takes
one text's turn, so that an unbroken stream of queries slows a load and cannot stop it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

PATIENCE_S = 0.05
"""Some ten queries' time: under an unbroken stream of queries a load keeps 20 texts/s a worker."""


class Turns:
    """Counts the single texts under way; bulk loads step aside for them."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._single = 0

    @contextmanager
    def single(self) -> Iterator[None]:
        """Hold bulk loads back for as long as the block runs. Never waits."""
        with self._changed:
            self._single += 1
        try:
            yield
        finally:
            with self._changed:
                self._single -= 1
                if not self._single:
                    self._changed.notify_all()

    def step_aside(self) -> None:
        """Wait until no single text is under way, but not longer than `PATIENCE_S`."""
        if self._single:  # read without the lock: one text too early or too late is no harm
            with self._changed:
                self._changed.wait_for(lambda: not self._single, PATIENCE_S)
