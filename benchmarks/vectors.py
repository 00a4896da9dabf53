"""Real messages with their vectors to measure with, embedded once and kept.

The messages are those of `benchmarks.texts`, each once; the questions come from further on in the
data set, so that none of them is among the documents. Embedding 100 000 takes one to four minutes;
they are kept in the folder `.bench` of the working directory, which git ignores.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.texts import messages
from moss_local.embedding.base import Kind
from moss_local.embedding.models import open_embedder, resolve_model

FOLDER = Path(".bench")
DOCUMENTS, QUESTIONS = 100_000, 1000
QUESTION_EVERY = 100


@dataclass(frozen=True)
class Corpus:
    """Aligned: `vectors[i]` is of `texts[i]`, `asked[i]` of `questions[i]`."""

    texts: list[str]
    vectors: NDArray[np.float32]
    questions: list[str]
    asked: NDArray[np.float32]


def corpus(folder: Path = FOLDER) -> Corpus:
    """Return the messages and the questions with their vectors; makes them the first time."""
    every = list(dict.fromkeys(messages()))
    texts = every[:DOCUMENTS]
    questions = every[DOCUMENTS::QUESTION_EVERY][:QUESTIONS]
    folder.mkdir(exist_ok=True)
    return Corpus(
        texts,
        _kept(folder / "documents.npy", texts, "document"),
        questions,
        _kept(folder / "questions.npy", questions, "query"),
    )


def _kept(path: Path, texts: list[str], kind: Kind) -> NDArray[np.float32]:
    if not path.exists():
        print(f"embedding {len(texts):,} texts into {path} …", flush=True)
        embedder = open_embedder(resolve_model("moss-minilm"))
        np.save(path, embedder.embed(texts, kind=kind))
    found: Any = np.load(path)
    return np.ascontiguousarray(found, np.float32)
