"""What others make of the same documents: each peer as its users call it, from Python.

A peer is loaded with ids, texts and vectors on disk where it keeps a file, and asked for the ten
nearest with their texts. One that is not installed is left out, and the page says so.
"""

from __future__ import annotations

import asyncio
import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moss_local import DocumentInfo, MossClient, QueryOptions, SessionIndex

TOP_K = 10
BATCH = 10_000
CHROMA_BATCH = 5_000
DIM = 384


class Peer(ABC):
    """Something that keeps documents and finds the nearest."""

    name: str
    needs: str
    largest = 1 << 60

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def installed(cls) -> bool:
        return importlib.util.find_spec(cls.needs) is not None

    @abstractmethod
    def load(self, texts: Sequence[str], vectors: NDArray[np.float32]) -> None:
        """Keep documents; the id of each is its position."""

    @abstractmethod
    def ask(self, vector: NDArray[np.float32], text: str) -> list[tuple[int, str]]:
        """Return position and text of the ten nearest."""

    def close(self) -> None:  # noqa: B027  # most have nothing to do
        """Let everything go."""


class Ours(Peer):
    name = "moss_local"
    needs = "moss_local"
    alpha = 1.0

    def load(self, texts: Sequence[str], vectors: NDArray[np.float32]) -> None:
        self.loop = asyncio.new_event_loop()
        self.client = MossClient("bench", "key", store="memory://peers", data_dir=self.folder)
        self.session: SessionIndex = self.loop.run_until_complete(
            self.client.session(f"s{len(texts)}", auto_load_on_init=False, warm_up=False)
        )
        for first in range(0, len(texts), BATCH):
            self.loop.run_until_complete(
                self.session.add_docs(
                    DocumentInfo(f"{i}", texts[i], embedding=vectors[i])
                    for i in range(first, min(first + BATCH, len(texts)))
                )
            )

    def ask(self, vector: NDArray[np.float32], text: str) -> list[tuple[int, str]]:
        options = QueryOptions(embedding=vector, top_k=TOP_K, alpha=self.alpha)
        found = self.loop.run_until_complete(self.session.query(text, options))
        return [(int(doc.id), doc.text) for doc in found.docs]

    def close(self) -> None:
        self.loop.run_until_complete(self.client.close())
        self.loop.close()


class OursBlended(Ours):
    name = "moss_local, blended with words"
    alpha = 0.5


class SqliteVec(Peer):
    name = "sqlite-vec"
    needs = "sqlite_vec"

    def load(self, texts: Sequence[str], vectors: NDArray[np.float32]) -> None:
        import apsw  # many builds of Python's own sqlite3 load no extensions
        import sqlite_vec

        self.conn = apsw.Connection(str(self.folder / "vec.sqlite3"))
        self.conn.enable_load_extension(True)
        self.conn.load_extension(sqlite_vec.loadable_path())
        self.conn.pragma("journal_mode", "wal")
        self.conn.execute("BEGIN")
        self.conn.execute("CREATE TABLE document (rowid INTEGER PRIMARY KEY, text TEXT)")
        self.conn.execute(
            f"CREATE VIRTUAL TABLE vec USING vec0(embedding float[{DIM}] distance_metric=cosine)"
        )
        self.conn.executemany("INSERT INTO document VALUES (?, ?)", enumerate(texts))
        self.conn.executemany(
            "INSERT INTO vec (rowid, embedding) VALUES (?, ?)",
            ((i, row.tobytes()) for i, row in enumerate(vectors)),
        )
        self.conn.execute("COMMIT")

    def ask(self, vector: NDArray[np.float32], text: str) -> list[tuple[int, str]]:
        found: Any = self.conn.execute(
            "SELECT document.rowid, document.text FROM vec JOIN document"
            " ON document.rowid = vec.rowid WHERE embedding MATCH ? AND k = ? ORDER BY distance",
            (vector.tobytes(), TOP_K),
        ).fetchall()
        return list(found)

    def close(self) -> None:
        self.conn.close()


class Usearch(Peer):
    """An index alone: texts in a list beside it, nothing durable until it is saved."""

    name = "usearch (HNSW, in memory)"
    needs = "usearch"

    def load(self, texts: Sequence[str], vectors: NDArray[np.float32]) -> None:
        from usearch.index import Index

        self.texts = texts
        self.index = Index(ndim=DIM, metric="cos", dtype="f32")
        self.index.add(np.arange(len(texts)), vectors, threads=2)
        self.index.save(str(self.folder / "index.usearch"))

    def ask(self, vector: NDArray[np.float32], text: str) -> list[tuple[int, str]]:
        return [(int(key), self.texts[int(key)]) for key in self.index.search(vector, TOP_K).keys]


class Chroma(Peer):
    name = "Chroma"
    needs = "chromadb"

    def load(self, texts: Sequence[str], vectors: NDArray[np.float32]) -> None:
        import chromadb

        settings = chromadb.Settings(anonymized_telemetry=False)
        client = chromadb.PersistentClient(str(self.folder / "chroma"), settings=settings)
        self.found = client.create_collection(
            f"s{len(texts)}", configuration={"hnsw": {"space": "cosine"}}, embedding_function=None
        )
        for first in range(0, len(texts), CHROMA_BATCH):
            part = range(first, min(first + CHROMA_BATCH, len(texts)))
            self.found.add(
                ids=[f"{i}" for i in part],
                embeddings=vectors[part.start : part.stop],
                documents=list(texts[part.start : part.stop]),
            )

    def ask(self, vector: NDArray[np.float32], text: str) -> list[tuple[int, str]]:
        found: Any = self.found.query(
            query_embeddings=vector[None, :], n_results=TOP_K, include=["documents"]
        )
        return [(int(i), t) for i, t in zip(found["ids"][0], found["documents"][0], strict=True)]


class Lance(Peer):
    name = "LanceDB (exact)"
    needs = "lancedb"

    def load(self, texts: Sequence[str], vectors: NDArray[np.float32]) -> None:
        import lancedb
        import pyarrow

        flat = pyarrow.array(vectors.ravel())
        rows = pyarrow.table(
            {
                "id": pyarrow.array(np.arange(len(texts))),
                "text": pyarrow.array(list(texts)),
                "vector": pyarrow.FixedSizeListArray.from_arrays(flat, DIM),
            }
        )
        self.table: Any = lancedb.connect(str(self.folder / "lance")).create_table("t", rows)

    def ask(self, vector: NDArray[np.float32], text: str) -> list[tuple[int, str]]:
        found = self.table.search(vector).distance_type("cosine")
        found = found.select(["id", "text", "_distance"])  # it warns of the column left out
        return [(row["id"], row["text"]) for row in found.limit(TOP_K).to_list()]


class Qdrant(Peer):
    name = "qdrant-client, local"
    needs = "qdrant_client"
    largest = 20_000  # it says itself that the local mode is not for more

    def load(self, texts: Sequence[str], vectors: NDArray[np.float32]) -> None:
        from qdrant_client import QdrantClient, models

        self.client = QdrantClient(path=str(self.folder / "qdrant"))
        self.client.create_collection(
            "t",
            vectors_config=models.VectorParams(size=DIM, distance=models.Distance.COSINE),
        )
        self.client.upload_collection(
            "t",
            vectors=vectors,
            payload=({"text": text} for text in texts),
            ids=range(len(texts)),
        )

    def ask(self, vector: NDArray[np.float32], text: str) -> list[tuple[int, str]]:
        found = self.client.query_points("t", query=vector, limit=TOP_K, with_payload=True)
        return [(int(each.id), each.payload["text"]) for each in found.points]

    def close(self) -> None:
        self.client.close()


PEERS: Sequence[type[Peer]] = (Ours, OursBlended, SqliteVec, Usearch, Chroma, Lance, Qdrant)
