"""Counts what an exchange costs: requests and bytes, as they go over the wire.

A store calls `count` once per request that it really sends, retries included. The engine opens a
`Meter` around an exchange; tasks that it starts inherit it through the context, so parallel
downloads of one exchange add to one meter and two exchanges at once do not mix. In the same way a
store that may keep its caller waiting says with `answered` that it has answered; somebody may be
about to give it up (`moss_sync.patience`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(slots=True)
class Meter:
    """Totals of one exchange. Bytes are bodies; headers are not counted."""

    requests: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0


_current: ContextVar[Meter | None] = ContextVar("moss_sync_meter", default=None)


@contextmanager
def metered() -> Iterator[Meter]:
    """Count everything that stores send inside the block."""
    meter = Meter()
    token = _current.set(meter)
    try:
        yield meter
    finally:
        _current.reset(token)


def count(*, requests: int = 0, sent: int = 0, received: int = 0) -> None:
    """Add to the meter of the current context; without one, do nothing."""
    meter = _current.get()
    if meter is not None:
        meter.requests += requests
        meter.bytes_sent += sent
        meter.bytes_received += received


_hears: ContextVar[Callable[[], None] | None] = ContextVar("moss_sync_hears", default=None)


@contextmanager
def answers_heard(hear: Callable[[], None]) -> Iterator[None]:
    """Call `hear` at each answer of a store inside the block, on the loop's thread."""
    token = _hears.set(hear)
    try:
        yield
    finally:
        _hears.reset(token)


def answered() -> None:
    """Say that a store has answered, whatever it said."""
    hear = _hears.get()
    if hear is not None:
        hear()
