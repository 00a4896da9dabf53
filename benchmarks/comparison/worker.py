"""One engine in a process of its own, so that memory and threads are its own.

Started by `benchmarks.comparison`; takes orders as lines of JSON and answers each with one. Engines
may print what they like: the answers go to the pipe that was standard output at the start.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from benchmarks.comparison.data import read_documents, read_questions
from benchmarks.comparison.engine import Batch, Engine, Question

ENGINES = {
    "moss_local": ("ours", "MossLocal"),
    "Chroma": ("databases", "Chroma"),
    "LanceDB, indexed": ("databases", "LanceIndexed"),
    "LanceDB, exact": ("databases", "LanceExact"),
    "qdrant-client, local": ("databases", "Qdrant"),
    "sqlite-vec": ("with_sqlite", "SqliteVec"),
    "usearch + SQLite": ("with_sqlite", "Usearch"),
    "faiss flat + SQLite": ("with_sqlite", "Faiss"),
}

LOAD_BATCH = 5000
"""Documents given at once: Chroma takes at most 5 461."""


def engine_class(name: str) -> type[Engine]:
    module, kind = ENGINES[name]
    found: type[Engine] = getattr(importlib.import_module(f"benchmarks.comparison.{module}"), kind)
    return found


def memory() -> int:
    """Return the resident bytes of this process."""
    import psutil  # only in the peers' environment

    return int(psutil.Process().memory_info().rss)


class Worker:
    def __init__(self, name: str, folder: Path, data: Path) -> None:
        self._data, self._folder = data, folder
        start = perf_counter()
        self._engine = engine_class(name)()
        self._import = perf_counter() - start
        self._questions: list[Question] = []

    def open(self) -> dict[str, Any]:
        start = perf_counter()
        self._engine.open(self._folder)
        return {"seconds": perf_counter() - start}

    def load(self, count: int, limit: float) -> dict[str, Any]:
        """Load the first so many documents; reading them is not timed.

        Stops when the whole would take more than `limit` seconds, and tells how many.
        """
        taken, done = 0.0, 0
        for batch in _batches(self._data, count):
            start = perf_counter()
            self._engine.load(batch)
            taken += perf_counter() - start
            done += len(batch.ids)
            if done < count and taken / done * count > limit:
                return {"seconds": taken / done * count, "given_up": True}
        start = perf_counter()
        self._engine.loaded()
        return {"seconds": taken + perf_counter() - start}

    def ready(self) -> dict[str, Any]:
        """Read the questions, and tell what the engine's import took and left resident."""
        self.load_questions()
        return {"seconds": self._import, "memory": memory()}

    def load_questions(self) -> int:
        self._questions = read_questions(self._data)
        return len(self._questions)

    def ask(self, kind: str, begin: int, end: int, seconds: float) -> dict[str, Any]:
        questions = self._questions[begin:end]
        times, answers = self._engine.ask_all(kind, questions, seconds=seconds)
        found = []
        for answer in answers:
            documents = self._engine.found(answer)
            if not all(text and metadata["tenth"] for _, text, metadata in documents):
                raise ValueError("an answer came without its documents")
            found.append([int(id.removeprefix("turn-")) for id, _, _ in documents])
        return {"ms": times, "found": found}

    def add(self, begin: int, end: int) -> dict[str, Any]:
        """Add questions as documents, one by one."""
        given = self._questions[begin:end]
        batch = Batch(
            [f"turn-{10**9 + begin + i}" for i in range(len(given))],
            [question.text for question in given],
            [{"thousandth": "new", "tenth": "new", "most": "new"} for _ in given],
            np.stack([question.vector for question in given]),
        )
        return {"ms": self._engine.add_each(batch)}

    def memory(self) -> dict[str, Any]:
        return {"memory": memory()}

    def close(self) -> dict[str, Any]:
        self._engine.close()
        return {}


def _batches(data: Path, count: int) -> Iterator[Batch]:
    whole = read_documents(data)
    for first in range(0, count, LOAD_BATCH):
        part = slice(first, min(first + LOAD_BATCH, count))
        yield Batch(
            whole.ids[part],
            whole.texts[part],
            whole.metadata[part],
            np.array(whole.vectors[part]),
        )


def main() -> None:
    name, folder, data = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    warnings.simplefilter("ignore")  # such as qdrant's at more than 20 000 points
    worker = Worker(name, Path(folder), Path(data))
    for line in sys.stdin:
        order = json.loads(line)
        result = getattr(worker, order.pop("do"))(**order)
        answers.write(json.dumps(result) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
