"""Exported sessions: SnapshotCorruptError, or documents that are written and read again equal."""

from __future__ import annotations

import io
from hashlib import blake2b

import numpy as np

from fuzz.shapes import packed
from moss_local.errors import SnapshotCorruptError
from moss_local.portable import MAGIC, Header, read, read_header, write
from moss_local.storage.documents import Document

FRAME = b"\xff\xfe|\xfe\xff"
"""Parts the frames in a seed."""


def one(data: bytes) -> None:
    body = MAGIC
    for part in data.split(FRAME):
        frame = packed(part)
        body += len(frame).to_bytes(4, "big") + frame
    body += bytes(4)
    for blob in (data, body + blake2b(body, digest_size=32).digest()):
        try:
            found = [each for batch in read(io.BytesIO(blob), "fuzz") for each in batch]
        except SnapshotCorruptError:
            continue
        header = read_header(io.BytesIO(blob), "fuzz")
        out = io.BytesIO()
        write(out, Header(header.session, header.docs, header.vectors, header.space), found)
        again = [each for batch in read(io.BytesIO(out.getvalue()), "fuzz") for each in batch]
        assert len(again) == len(found) == header.docs
        assert all(same(*pair) for pair in zip(found, again, strict=True))


def same(one: Document, other: Document) -> bool:
    if one.vector is None or other.vector is None:
        vectors = one.vector is other.vector
    else:
        vectors = bool(np.array_equal(one.vector, other.vector))
    return vectors and (one.id, one.text, one.metadata, one.payload) == (
        other.id,
        other.text,
        other.metadata,
        other.payload,
    )
