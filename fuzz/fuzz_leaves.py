"""A damaged file read from its leaves: as many columns as asked for, within the file's bounds."""

from __future__ import annotations

from moss_local.storage.leaves import Image

COLUMNS = (2, 13)


def one(data: bytes) -> None:
    for page_size in (0, 512):
        whole = bytearray(data)
        if page_size and len(whole) > 20:
            whole[16:18] = page_size.to_bytes(2)
        image = Image(bytes(whole))
        assert image.pages * max(image.page_size, 1) <= max(len(data), 1)
        for columns in COLUMNS:
            for rowid, values in image.records(columns):
                assert -(2**63) <= rowid < 2**63
                assert len(values) == columns
                size = sum(len(value) for value in values if isinstance(value, str | bytes))
                assert size <= len(data)  # whatever its pages lead to, in a circle too
