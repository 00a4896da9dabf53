"""Tests that need an `apsw` with ciphers: `make at-rest` has an environment with it."""

from __future__ import annotations

from moss_local.storage import ciphers

collect_ignore_glob = [] if ciphers.available() else ["test_*.py"]
