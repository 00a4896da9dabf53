"""Search: resident vectors, vec0 through SQL and plain numpy give the same order and scores,
whatever was added, replaced and deleted before."""

from __future__ import annotations

import itertools

import numpy as np

from fuzz.shapes import Take, scratch
from moss_local.search.query import Hit, search
from moss_local.storage.documents import Document
from moss_local.storage.edits import delete_documents, put_documents
from moss_local.storage.file import open_session_file
from moss_sync import InvalidArgumentError, VectorSpace

DIM = 3
SPACE = VectorSpace("custom", "custom-3", DIM, "f4")
_numbers = itertools.count()


def one(data: bytes) -> None:
    take = Take(data)
    path = scratch() / f"search-{next(_numbers)}.sqlite3"
    file = open_session_file(path, session="s", durability="normal")
    held: dict[str, np.ndarray] = {}
    try:
        query = vector_of(take)
        while take.left:
            id = f"d{take.byte() % 16}"
            if take.byte() % 4 == 0:
                with file.writing() as conn:
                    delete_documents(conn, [id], now_ms=1)
                held.pop(id, None)
            else:
                vector = vector_of(take)
                try:
                    with file.writing() as conn:
                        document = Document(id, "text", vector=vector)
                        put_documents(conn, [document], space=SPACE, now_ms=1)
                except InvalidArgumentError:
                    continue
                held[id] = vector
            if not np.isfinite(query).all() or not query.any() or not held:
                continue
            resident = found(file, query, low_memory=False)
            stored = found(file, query, low_memory=True)
            wanted = {id: max(0.0, cosine(vector, query)) for id, vector in held.items()}
            for hits in (resident, stored):
                assert {hit.id for hit in hits} == set(wanted)
                assert all(abs(hit.score - wanted[hit.id]) < 1e-5 for hit in hits)
                scores = [hit.score for hit in hits]
                assert all(a >= b - 1e-6 for a, b in itertools.pairwise(scores))
    finally:
        file.close()
        for left in path.parent.glob(path.name + "*"):
            left.unlink()


def found(file, query, *, low_memory: bool) -> list[Hit]:  # type: ignore[no-untyped-def]  # above
    return search(
        file,
        low_memory=low_memory,
        text="",
        vector=query,
        alpha=1.0,
        top_k=100,
        min_score=None,
        filter=None,
        group_by=None,
        candidate_depth=None,
        context=0,
        recency=0.0,
        threaded=True,
    )


def vector_of(take: Take) -> np.ndarray:
    """Return three numbers, now and then extreme ones."""
    raw = [take.byte() for _ in range(DIM)]
    special = {255: np.inf, 254: np.nan, 253: 1e30, 252: 1e-30, 251: -1e30}
    return np.array([special.get(each, each - 125.0) for each in raw], np.float32)


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    a, b = one.astype(np.float64), other.astype(np.float64)
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))
