"""The session's file: one that was changed anywhere is refused by name, or answers as a file does
that is whole to the eye; nothing but named errors comes out of opening, reading, searching and
checking it."""

from __future__ import annotations

import itertools
import zlib
from functools import cache
from pathlib import Path

import numpy as np

from fuzz.shapes import Take, scratch
from moss_local.search.query import search
from moss_local.storage.checkup import check_file
from moss_local.storage.file import open_session_file
from moss_local.storage.history import read_history
from moss_local.storage.rows import get_documents
from moss_local.storage.state import read_state
from moss_sync import MossError

TEMPLATE = Path(__file__).parent / "session.sqlite3.zlib"
_numbers = itertools.count()


@cache
def template() -> bytes:
    return zlib.decompress(TEMPLATE.read_bytes())


def damaged(data: bytes) -> bytes:
    """Return the template as the bytes say that it is changed and cut off."""
    take = Take(data)
    whole = bytearray(template())
    cut = take.number(3)
    if take.byte() & 7 == 1:
        del whole[cut % len(whole) :]
    while take.left:
        place, kind, value = take.number(3) % max(1, len(whole)), take.byte(), take.bytes()
        if not whole:
            break
        if kind & 1:
            whole[place : place + len(value)] = value[: len(whole) - place]
        else:
            whole[place] ^= kind
    return bytes(whole)


def one(data: bytes) -> None:
    path = scratch() / f"file-{next(_numbers)}.sqlite3"
    path.write_bytes(damaged(data))
    try:
        use(path)
    except MossError:
        pass
    finally:
        for left in path.parent.glob(path.name + "*"):
            left.unlink()


def use(path: Path) -> None:
    file = open_session_file(path, session="conv", durability="normal")
    try:
        with file.reading() as conn:
            state = read_state(conn)
            get_documents(conn)
            read_history(conn, None)
        dim = 4 if state.space is None else state.space.dim
        for low_memory in (False, True):
            search(
                file,
                low_memory=low_memory,
                text="refund of the charge",
                vector=np.ones(dim, np.float32),
                alpha=0.5,
                top_k=3,
                min_score=None,
                filter=None,
                group_by=None,
                candidate_depth=None,
                context=1,
                recency=0.1,
                threaded=True,
            )
        with file.writing() as conn:
            check_file(conn)
    finally:
        file.close()
