"""Chroma, LanceDB and qdrant-client's local mode: they keep documents and filter them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.comparison.engine import (
    DIM,
    FIELDS,
    FILTERS,
    HYBRID,
    TOP_K,
    VECTOR,
    Batch,
    Engine,
    Question,
)

NO_HYBRID = (VECTOR, *FILTERS)


class Chroma(Engine):
    settings = (
        "`PersistentClient`, HNSW space `cosine`, else its defaults; no hybrid: the local mode"
        " ranks by vector only"
    )
    kinds = NO_HYBRID

    def __init__(self) -> None:
        import chromadb

        self._chromadb = chromadb

    def open(self, folder: Path) -> None:
        quiet = self._chromadb.Settings(anonymized_telemetry=False)
        client = self._chromadb.PersistentClient(str(folder), settings=quiet)
        self._collection = client.get_or_create_collection(
            "bench", embedding_function=None, configuration={"hnsw": {"space": "cosine"}}
        )

    def load(self, batch: Batch) -> None:
        self._collection.add(
            ids=batch.ids,
            embeddings=batch.vectors,
            documents=batch.texts,
            metadatas=batch.metadata,
        )

    def ask(self, kind: str, question: Question) -> Any:
        where = None
        if kind in FILTERS:
            field, value = FILTERS[kind]
            where = {field: value}
        return self._collection.query(
            query_embeddings=[question.vector], n_results=TOP_K, where=where
        )

    def found(self, answer: Any) -> list[tuple[str, str, Any]]:
        return list(
            zip(answer["ids"][0], answer["documents"][0], answer["metadatas"][0], strict=True)
        )


class LanceExact(Engine):
    exact = True
    settings = (
        "exact scan (no vector index), full-text index for hybrid (its reciprocal rank fusion),"
        " `optimize()` after the load"
    )
    index: dict[str, Any] | None = None
    refine: int | None = None

    def __init__(self) -> None:
        import lancedb

        self._lancedb = lancedb
        self._table: Any = None

    def open(self, folder: Path) -> None:
        self._db = self._lancedb.connect(str(folder))
        if "bench" in self._db.list_tables().tables:
            self._table = self._db.open_table("bench")

    def load(self, batch: Batch) -> None:
        import pyarrow as pa

        vectors = pa.FixedSizeListArray.from_arrays(pa.array(batch.vectors.ravel()), DIM)
        columns = {"id": pa.array(batch.ids), "text": pa.array(batch.texts), "vector": vectors}
        for field in FIELDS:
            columns[field] = pa.array([each[field] for each in batch.metadata])
        rows = pa.table(columns)
        if self._table is None:
            self._table = self._db.create_table("bench", rows)
        else:
            self._table.add(rows)

    def loaded(self) -> None:
        if self.index is not None:
            self._table.create_index(metric="cosine", vector_column_name="vector", **self.index)
            for field in FIELDS:
                self._table.create_scalar_index(field, index_type="BITMAP")
        self._table.create_fts_index("text")
        self._table.optimize()

    def ask(self, kind: str, question: Question) -> Any:
        if kind == HYBRID:
            search = (
                self._table.search(query_type="hybrid").vector(question.vector).text(question.text)
            )
        else:
            search = self._table.search(question.vector)
        search = search.distance_type("cosine").limit(TOP_K)
        if self.refine is not None:
            search = search.refine_factor(self.refine)
        if kind in FILTERS:
            field, value = FILTERS[kind]
            search = search.where(f"{field} = '{value}'", prefilter=True)
        if kind != HYBRID:
            # Without the vectors, which nobody reads; hybrid search takes no selection.
            search = search.select(["id", "text", *FIELDS, "_distance"])
        return search.to_list()

    def found(self, answer: Any) -> list[tuple[str, str, Any]]:
        return [(row["id"], row["text"], {f: row[f] for f in FIELDS}) for row in answer]


class LanceIndexed(LanceExact):
    exact = False
    settings = (
        "index `IVF_HNSW_SQ` (its defaults) with `refine_factor=5`, BITMAP indexes on the metadata,"
        " full-text index for hybrid, `optimize()` after the load"
    )
    index = {"index_type": "IVF_HNSW_SQ"}  # noqa: RUF012  # never written
    refine = 5


class Qdrant(Engine):
    exact = True
    largest = 20_000  # it warns above
    settings = (
        "`QdrantClient(path=...)`, cosine: the local mode, an exact scan in numpy, which has no"
        " payload indexes; no hybrid: it takes sparse vectors that the caller makes"
    )
    kinds = NO_HYBRID

    def __init__(self) -> None:
        import qdrant_client

        self._qdrant = qdrant_client

    def open(self, folder: Path) -> None:
        self._client = self._qdrant.QdrantClient(path=str(folder))
        self._next = 0
        if not self._client.collection_exists("bench"):
            models = self._qdrant.models
            vectors = models.VectorParams(size=DIM, distance=models.Distance.COSINE)
            self._client.create_collection("bench", vectors_config=vectors)
        else:
            self._next = self._client.count("bench").count

    def load(self, batch: Batch) -> None:
        rows = zip(batch.ids, batch.texts, batch.metadata, batch.vectors, strict=True)
        points = [
            self._qdrant.models.PointStruct(
                id=self._next + place,
                vector=vector.tolist(),
                payload={"name": id, "text": text, **metadata},
            )
            for place, (id, text, metadata, vector) in enumerate(rows)
        ]
        self._next += len(points)
        self._client.upsert("bench", points)

    def ask(self, kind: str, question: Question) -> Any:
        where = None
        if kind in FILTERS:
            models, (field, value) = self._qdrant.models, FILTERS[kind]
            match = models.FieldCondition(key=field, match=models.MatchValue(value=value))
            where = models.Filter(must=[match])
        return self._client.query_points(
            "bench", query=question.vector, query_filter=where, limit=TOP_K, with_payload=True
        )

    def found(self, answer: Any) -> list[tuple[str, str, Any]]:
        return [
            (point.payload["name"], point.payload["text"], {f: point.payload[f] for f in FIELDS})
            for point in answer.points
        ]

    def close(self) -> None:
        self._client.close()
