"""What the drives index and ask for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from moss import DocumentInfo

PROJECT = ("compat", "a key for this drive")

FACTS = [
    DocumentInfo("refund", "Refunds are paid within five days.", {"source": "policy"}),
    DocumentInfo("hours", "The shop is open from nine to five.", {"source": "sign"}),
    DocumentInfo("phone", "Call us at 555-0100 about lost parcels.", {"source": "card"}),
]

CHANGED = DocumentInfo("refund", "Refunds are paid within two weeks.", {"source": "policy"})

ASKED = "When do I get my money back?"


@contextmanager
def refused(words: str) -> Iterator[None]:
    """The block raises what the hosted SDK's errors are too, with these words in it."""
    try:
        yield
    except RuntimeError as error:
        if words not in str(error):
            raise
    else:
        raise AssertionError(f"nothing was refused with {words!r}")
