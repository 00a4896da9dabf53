"""What every engine is asked to do: load, open, answer, add; measured around each call.

An engine holds documents (id, text, three metadata fields) with their vectors in a folder. It
answers as its users would have it answer: a query gives the documents themselves, and what it
returns is made into ids only after the clock has stopped.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

DIM = 384
TOP_K = 10
FILTERS = {"0.1 %": ("thousandth", "7"), "10 %": ("tenth", "3"), "90 %": ("most", "yes")}
FIELDS = ("thousandth", "tenth", "most")
VECTOR, HYBRID = "vector", "hybrid"
KINDS = (VECTOR, HYBRID, *FILTERS)
"""By vector alone; by vector and words; by vector with a filter that lets so many through."""


@dataclass(frozen=True)
class Batch:
    """Documents to load, aligned; `vectors` are of unit length, shape (documents, DIM)."""

    ids: list[str]
    texts: list[str]
    metadata: list[dict[str, str]]
    vectors: NDArray[np.float32]


@dataclass(frozen=True)
class Question:
    text: str
    vector: NDArray[np.float32]


class Engine(ABC):
    """One way to keep and search documents. A process has one of them, for one folder.

    Attributes:
        settings: What was chosen, in words, for the page; what is not named is the default.
        kinds: Of KINDS, those that it has.
        exact: It compares every vector at any size: fewer questions tell its recall.
        largest: What it is meant for by its own word, in documents.
    """

    settings: str
    kinds: Sequence[str] = KINDS
    exact = False
    largest: int | None = None

    @abstractmethod
    def open(self, folder: Path) -> None:
        """Open what is in the folder; make it, if the folder is empty."""

    @abstractmethod
    def load(self, batch: Batch) -> None:
        """Add new documents."""

    def loaded(self) -> None:
        """Build whatever is built once all documents are there."""
        return

    @abstractmethod
    def ask(self, kind: str, question: Question) -> Any:
        """Return the best TOP_K as the engine returns them."""

    @abstractmethod
    def found(self, answer: Any) -> list[tuple[str, str, Any]]:
        """Return (id, text, metadata) of each document of an answer, best first."""

    def ask_all(
        self, kind: str, questions: Sequence[Question], *, seconds: float
    ) -> tuple[list[float], list[Any]]:
        """Return milliseconds and answer of each question; stops when the time is over."""
        times, answers = [], []
        stop = perf_counter() + seconds
        for question in questions:
            start = perf_counter()
            answers.append(self.ask(kind, question))
            end = perf_counter()
            times.append((end - start) * 1e3)
            if end > stop:
                break
        return times, answers

    def add_each(self, batch: Batch) -> list[float]:
        """Add documents one by one and return the milliseconds of each."""
        times = []
        for i in range(len(batch.ids)):
            one = Batch(
                batch.ids[i : i + 1],
                batch.texts[i : i + 1],
                batch.metadata[i : i + 1],
                batch.vectors[i : i + 1],
            )
            start = perf_counter()
            self.load(one)
            times.append((perf_counter() - start) * 1e3)
        return times

    def close(self) -> None:
        """Write what is not written yet."""
        return
