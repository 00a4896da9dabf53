"""The messages, their vectors and metadata as files that every worker reads, and what is right.

Documents and questions are those of `benchmarks.vectors`. Metadata are drawn once: a value that one
document in a thousand has, one that a tenth has, and one that nine tenths have.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks import vectors
from benchmarks.comparison.engine import FILTERS, TOP_K, Batch, Question

SEED = 4
TIE = 1e-5
"""Cosines nearer than this are the same: engines add up in different orders."""

FILES = {"documents": "texts.json", "questions": "questions.json"}
"""Where the texts are; the vectors are in files of the same names, of numpy's."""

Found = Mapping[int, Sequence[int]]
"""By the number of a question, the numbers of the documents found."""


def prepare(folder: Path) -> None:
    """Make the files, unless they are there."""
    if (folder / FILES["documents"]).exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    made = vectors.corpus(folder.parent)
    np.save(folder / "documents.npy", _unit(made.vectors))
    np.save(folder / "questions.npy", _unit(made.asked))
    (folder / FILES["questions"]).write_text(json.dumps(made.questions), "utf-8")
    (folder / FILES["documents"]).write_text(json.dumps(made.texts), "utf-8")


def read_documents(folder: Path) -> Batch:
    texts = json.loads((folder / FILES["documents"]).read_text("utf-8"))
    return Batch(
        [f"turn-{i}" for i in range(len(texts))],
        texts,
        _metadata(len(texts)),
        np.load(folder / "documents.npy", mmap_mode="r"),
    )


def read_questions(folder: Path) -> list[Question]:
    texts = json.loads((folder / FILES["questions"]).read_text("utf-8"))
    rows = np.load(folder / "questions.npy")
    return [Question(text, row) for text, row in zip(texts, rows, strict=True)]


class Truth:
    """What an exact search of the first `count` documents finds."""

    def __init__(self, folder: Path, count: int) -> None:
        self._rows = np.load(folder / "documents.npy")[:count]
        self._asked = np.load(folder / "questions.npy")
        metadata = _metadata(count)
        self._masks = {
            kind: np.array([each[field] == value for each in metadata])
            for kind, (field, value) in FILTERS.items()
        }

    def recalls(self, kind: str, answers: Mapping[str, Found]) -> dict[str, float]:
        """Return of each engine the mean share of the best TOP_K that it found.

        A document as near as the last of them counts as one of them; a question for which nothing
        is right does not count.
        """
        mask = self._masks.get(kind)
        right = min(TOP_K, len(self._rows) if mask is None else int(mask.sum()))
        shares: dict[str, list[float]] = {name: [] for name in answers}
        asked = sorted({number for found in answers.values() for number in found})
        for number in asked if right else ():
            cosines = self._rows @ self._asked[number]
            if mask is not None:
                cosines[~mask] = -np.inf
            last = np.partition(cosines, cosines.size - right)[cosines.size - right] - TIE
            for name, found in answers.items():
                if number in found:
                    hits = sum(1 for place in set(found[number]) if cosines[place] >= last)
                    shares[name].append(min(hits, right) / right)
        return {name: float(np.mean(each)) for name, each in shares.items() if each}


def _metadata(count: int) -> list[dict[str, str]]:
    """Return the metadata of the first `count` documents: the same ones for every count."""
    rng = np.random.default_rng(SEED)
    drawn = rng.random((vectors.DOCUMENTS, 3))[:count]
    return [
        {
            "thousandth": f"{int(thousandth * 1000)}",
            "tenth": f"{int(tenth * 10)}",
            "most": "yes" if most < 0.9 else "no",
        }
        for thousandth, tenth, most in drawn.tolist()
    ]


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    result: NDArray[np.float32] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return result.astype(np.float32)
