"""Counts what an exchange costs: requests and bytes, as they go over the wire.

A store calls `count` once per request that it really sends, retries included. The engine opens a
`Meter` around an exchange; tasks that it starts inherit it through the context, so parallel
downloads of one exchange add to one meter and two exchanges at once do not mix.
"""

from __future__ import annotations

from collections.abc import Iterator
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
