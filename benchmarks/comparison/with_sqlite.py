"""sqlite-vec by its own SQL, and bare indexes (usearch, faiss) with the documents in SQLite."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import apsw
import numpy as np

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

_DOCUMENTS = "CREATE TABLE IF NOT EXISTS document(rowid INTEGER PRIMARY KEY, id, text, metadata)"
_DEPTH = 50
_HYBRID = f"""
WITH near AS (
  SELECT rowid, row_number() OVER (ORDER BY distance) AS place
  FROM vec WHERE embedding MATCH ?1 AND k = {_DEPTH}
), said AS (
  SELECT rowid, row_number() OVER (ORDER BY rank) AS place
  FROM (SELECT rowid, rank FROM words WHERE words MATCH ?2 ORDER BY rank LIMIT {_DEPTH})
), best AS (
  SELECT rowid, sum(1.0 / (60 + place)) AS score
  FROM (SELECT * FROM near UNION ALL SELECT * FROM said) GROUP BY rowid
  ORDER BY score DESC LIMIT {TOP_K}
)
SELECT id, text, metadata, score FROM best JOIN document USING (rowid) ORDER BY score DESC
"""


class SqliteVec(Engine):
    exact = True
    settings = (
        "vec0 with `distance_metric=cosine` and the filtered fields as metadata columns, WAL with"
        " `synchronous=NORMAL`; hybrid: FTS5 (porter) beside it, the 50 best of each by reciprocal"
        " rank fusion in SQL"
    )

    def __init__(self) -> None:
        import sqlite_vec

        self._extension = sqlite_vec.loadable_path()

    def open(self, folder: Path) -> None:
        self._conn = apsw.Connection(str(folder / "bench.sqlite3"))
        self._conn.enable_load_extension(True)
        self._conn.load_extension(self._extension)
        self._conn.execute("PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL")
        self._conn.execute(_DOCUMENTS)
        fields = ", ".join(f"{field} text" for field in FIELDS)
        self._conn.execute(
            "CREATE VIRTUAL TABLE IF NOT EXISTS vec USING"
            f" vec0(embedding float[{DIM}] distance_metric=cosine, {fields});"
            "CREATE VIRTUAL TABLE IF NOT EXISTS words USING"
            " fts5(text, content='document', content_rowid='rowid', tokenize='porter unicode61')"
        )

    def load(self, batch: Batch) -> None:
        rows = zip(batch.ids, batch.texts, batch.metadata, batch.vectors, strict=True)
        with self._conn:
            for id, text, metadata, vector in rows:
                self._conn.execute(
                    "INSERT INTO document(id, text, metadata) VALUES(?, ?, ?)",
                    (id, text, json.dumps(metadata)),
                )
                rowid = self._conn.last_insert_rowid()
                self._conn.execute("INSERT INTO words(rowid, text) VALUES(?, ?)", (rowid, text))
                self._conn.execute(
                    f"INSERT INTO vec(rowid, embedding, {', '.join(FIELDS)}) VALUES(?, ?, ?, ?, ?)",
                    (rowid, vector.tobytes(), *(metadata[field] for field in FIELDS)),
                )

    def ask(self, kind: str, question: Question) -> Any:
        if kind == HYBRID:
            words = " OR ".join(f'"{word}"' for word in re.findall(r"\w+", question.text))
            return self._conn.execute(_HYBRID, (question.vector.tobytes(), words)).fetchall()
        where, values = "", ()
        if kind in FILTERS:
            field, value = FILTERS[kind]
            where, values = f"AND {field} = ?", (value,)
        return self._conn.execute(
            "SELECT id, text, metadata, distance FROM vec JOIN document USING (rowid)"
            f" WHERE embedding MATCH ? AND k = {TOP_K} {where} ORDER BY distance",
            (question.vector.tobytes(), *values),
        ).fetchall()

    def found(self, answer: Any) -> list[tuple[str, str, Any]]:
        return [(id, text, json.loads(metadata)) for id, text, metadata, _ in answer]

    def close(self) -> None:
        self._conn.close()


class _Bare(Engine):
    """An index of vectors by number, and a table that has the documents of these numbers."""

    kinds = (VECTOR,)

    def open(self, folder: Path) -> None:
        self._path = folder / "index"
        self._conn = apsw.Connection(str(folder / "documents.sqlite3"))
        self._conn.execute("PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL")
        self._conn.execute(_DOCUMENTS)
        self._index = self.restored() if self._path.exists() else self.new()

    def new(self) -> Any: ...
    def restored(self) -> Any: ...
    def add(self, keys: Any, vectors: Any) -> None: ...
    def nearest(self, vector: Any) -> Any: ...
    def save(self) -> None: ...

    def load(self, batch: Batch) -> None:
        start = self._conn.execute("SELECT count(*) FROM document").get
        keys = np.arange(start, start + len(batch.ids))
        rows = zip(keys.tolist(), batch.ids, batch.texts, batch.metadata, strict=True)
        with self._conn:
            self._conn.executemany(
                "INSERT INTO document VALUES(?, ?, ?, ?)",
                ((key, id, text, json.dumps(metadata)) for key, id, text, metadata in rows),
            )
        self.add(keys, batch.vectors)

    def loaded(self) -> None:
        self.save()

    def ask(self, kind: str, question: Question) -> Any:
        return [
            self._conn.execute(
                "SELECT id, text, metadata FROM document WHERE rowid = ?", (int(key),)
            ).get
            for key in self.nearest(question.vector)
        ]

    def found(self, answer: Any) -> list[tuple[str, str, Any]]:
        return [(id, text, json.loads(metadata)) for id, text, metadata in answer]

    def close(self) -> None:
        self.save()
        self._conn.close()


class Usearch(_Bare):
    settings = (
        "HNSW, metric `cos`, else its defaults; documents by row id from SQLite; the index is saved"
        " when all is loaded, so an added document is not durable; no filters, no words"
    )

    def __init__(self) -> None:
        import usearch.index

        self._usearch = usearch.index

    def new(self) -> Any:
        return self._usearch.Index(ndim=DIM, metric="cos")

    def restored(self) -> Any:
        return self._usearch.Index.restore(str(self._path))

    def add(self, keys: Any, vectors: Any) -> None:
        self._index.add(keys, vectors)

    def nearest(self, vector: Any) -> Any:
        return self._index.search(vector, TOP_K).keys

    def save(self) -> None:
        self._index.save(str(self._path))


class Faiss(_Bare):
    exact = True
    settings = (
        "`IndexFlatIP`, exact; documents by row id from SQLite; the index is saved when all is"
        " loaded, so an added document is not durable; no words, filters only by lists of numbers"
    )

    def __init__(self) -> None:
        import faiss

        self._faiss = faiss

    def new(self) -> Any:
        return self._faiss.IndexFlatIP(DIM)

    def restored(self) -> Any:
        return self._faiss.read_index(str(self._path))

    def add(self, keys: Any, vectors: Any) -> None:
        self._index.add(np.ascontiguousarray(vectors))

    def nearest(self, vector: Any) -> Any:
        return self._index.search(vector[None, :], TOP_K)[1][0]

    def save(self) -> None:
        self._faiss.write_index(self._index, str(self._path))
