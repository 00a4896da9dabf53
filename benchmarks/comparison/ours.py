"""moss_local, as its users call it: a client, a session, awaited calls."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks.comparison.engine import FILTERS, HYBRID, TOP_K, VECTOR, Batch, Engine, Question
from moss_local import DocumentInfo, MossClient, QueryOptions
from tests.keys import KEY


class MossLocal(Engine):
    settings = (
        "session of model `custom`, defaults (every write durable, `synchronous=FULL`);"
        " `await session.query()`, by vector: `alpha=1.0`, hybrid: `alpha=0.5`"
    )

    def __init__(self) -> None:
        self._runner = asyncio.Runner()

    def open(self, folder: Path) -> None:
        self._client = MossClient("bench", KEY, store="memory://b", data_dir=folder)
        self._session = self._runner.run(self._client.session("bench", "custom"))

    def load(self, batch: Batch) -> None:
        self._runner.run(self._session.add_docs(_documents(batch)))

    def add_each(self, batch: Batch) -> list[float]:
        async def each() -> list[float]:
            times = []
            for document in _documents(batch):
                start = perf_counter()
                await self._session.add_docs([document])
                times.append((perf_counter() - start) * 1e3)
            return times

        return self._runner.run(each())

    def ask(self, kind: str, question: Question) -> Any:
        return self._runner.run(self._session.query(question.text, _options(kind, question)))

    def ask_all(
        self, kind: str, questions: Sequence[Question], *, seconds: float
    ) -> tuple[list[float], list[Any]]:
        async def all_of_them() -> tuple[list[float], list[Any]]:
            times, answers = [], []
            stop = perf_counter() + seconds
            for question in questions:
                start = perf_counter()
                answers.append(await self._session.query(question.text, _options(kind, question)))
                end = perf_counter()
                times.append((end - start) * 1e3)
                if end > stop:
                    break
            return times, answers

        return self._runner.run(all_of_them())

    def found(self, answer: Any) -> list[tuple[str, str, Any]]:
        return [(doc.id, doc.text, doc.metadata) for doc in answer.docs]

    def close(self) -> None:
        self._runner.run(self._client.close())
        self._runner.close()


def _documents(batch: Batch) -> list[DocumentInfo]:
    rows = zip(batch.ids, batch.texts, batch.metadata, batch.vectors, strict=True)
    return [DocumentInfo(*row) for row in rows]


def _options(kind: str, question: Question) -> QueryOptions:
    options = QueryOptions(
        embedding=question.vector, top_k=TOP_K, alpha=0.5 if kind == HYBRID else 1.0
    )
    if kind not in (VECTOR, HYBRID):
        field, value = FILTERS[kind]
        options.filter = {"field": field, "condition": {"$eq": value}}
    return options
