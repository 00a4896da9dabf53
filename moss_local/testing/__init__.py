"""Plugs the session file into the simulator of `moss_sync.testing`."""

from __future__ import annotations

from moss_local.testing.copies import SqliteCopies, SqliteCopy

__all__ = ["SqliteCopies", "SqliteCopy"]
