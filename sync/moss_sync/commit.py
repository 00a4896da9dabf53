"""The two ways in which a repository's sessions are committed; fixed when it is made."""

from __future__ import annotations

from typing import Literal

Commit = Literal["cas", "log"]
"""By compare-and-swap of a manifest, or by adding blobs to a log."""

MODES: tuple[Commit, ...] = ("cas", "log")
