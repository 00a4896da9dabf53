"""The names of the hosted SDK's inference module; see `moss_local.hosted`."""

from __future__ import annotations

from moss_local.hosted import MossInference
from moss_sync import MossError

__all__ = ["InferenceError", "MossInference"]


class InferenceError(MossError):
    """A failure of the hosted inference gateway; never raised here."""
