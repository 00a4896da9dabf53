"""Documents whose whole content follows from an id and a revision.

So a process that writes them needs to tell only the two, and a process that checks them needs no
copy. Vectors have eight components and sessions are of model "custom": what is tested is the file
and the exchange, and no model is loaded.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from hashlib import sha256
from zlib import crc32

from moss_local import DocumentInfo

DIMENSIONS = 8
_WORDS = [
    "refund",
    "ticket",
    "voice",
    "e-mail",
    "退款",
    "استرداد",
    "возврат",
    "ξ",
    "émigré",
    "tomorrow",
    "statement",
    "café",
    "🙂",
]


def text_of(id: str, revision: int = 0) -> str:
    """Return a sentence in many scripts; every fiftieth is long enough for pages of its own."""
    mark = crc32(f"{id}/{revision}".encode())
    words = _WORDS[mark % 7 :] * (300 if mark % 50 == 0 else 1)
    return f"{id} in revision {revision}, {word_of(id)}: {' '.join(words)}"


def word_of(id: str) -> str:
    """Return a word that stands in this document and in no other."""
    return "u" + re.sub(r"\W", "x", id)


def vector_of(id: str) -> list[float]:
    """Return the direction of an id; two ids have different ones."""
    mark = sha256(id.encode()).digest()
    return [1.0 + byte for byte in mark[:DIMENSIONS]]


def document(id: str, revision: int = 0) -> DocumentInfo:
    return DocumentInfo(
        id=id,
        text=text_of(id, revision),
        metadata={"revision": str(revision), "id": id},
        embedding=vector_of(id),
        payload=f"payload of {id}",
    )


def documents(ids: Iterable[str]) -> list[DocumentInfo]:
    return [document(id) for id in ids]
