"""A versioned record: what replicas exchange, and the one total order between its versions.

Rules of this file: values in, values out.
What holds (tests/properties/test_merge.py): two versions of one id are never equal unless their
contents are, because the third component of a version is a digest of the content; so comparing
versions is a total order even between devices that share an identity by accident.
Source: SYNC-PROTOCOL 2.8, described byte by byte in docs/format.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Literal, NamedTuple

import msgpack

DEVICE_BYTES = 8
"""A device id: 64 random bits, enough that 10 000 devices collide with probability 3e-12."""

DIGEST_BYTES = 8

VectorType = Literal["f2", "f4"]


class Version(NamedTuple):
    """When and by whom a record was written; tuples compare in the order of the protocol.

    Attributes:
        hlc: Hybrid logical clock, 48 bits of milliseconds and 16 of counter.
        dev: The writing device, 8 bytes.
        digest: blake2b-64 of the content.
    """

    hlc: int
    dev: bytes
    digest: bytes


@dataclass(frozen=True, slots=True)
class VectorSpace:
    """Which vectors a session holds. Spaces with different fingerprints are never mixed.

    Attributes:
        id: What users call the model, such as "moss-minilm".
        fingerprint: Hex name of the space; a faster graph of the same model keeps it.
        dim: Components per vector.
        dtype: "f2" (built-in models: rounded once, by the author) or "f4" (the caller's own).
    """

    id: str
    fingerprint: str
    dim: int
    dtype: VectorType

    @property
    def vector_bytes(self) -> int:
        return self.dim * int(self.dtype[1])


@dataclass(frozen=True, slots=True)
class Record:
    """One version of one document, or of its deletion (a tombstone).

    Attributes:
        id: Exact code points; no normalisation.
        version: Compare these to know which of two records wins.
        deleted: A tombstone; the content fields are then empty.
        vector: Little-endian components in the session's dtype; None when there is none.
        commit_seq: Sequence number of the commit that carried it; None before it is committed.
    """

    id: str
    version: Version
    deleted: bool = False
    text: str = ""
    metadata: Mapping[str, str] | None = None
    payload: str | None = None
    vector: bytes | None = None
    commit_seq: int | None = None


def content_digest(
    id: str,
    *,
    deleted: bool,
    text: str = "",
    metadata: Mapping[str, str] | None = None,
    payload: str | None = None,
    own_vector: bytes | None = None,
) -> bytes:
    """Return the 8-byte digest that stands third in a version.

    Args:
        own_vector: The vector where the caller brought it ("custom"); None for a built-in model,
            whose vectors follow from the text and may be made again by another graph.
    """
    items = None if metadata is None else sorted(metadata.items())
    body = msgpack.packb(
        [id, bool(deleted), text, items, payload, own_vector], use_bin_type=True, strict_types=False
    )
    return blake2b(body, digest_size=DIGEST_BYTES).digest()
