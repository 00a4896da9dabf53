"""Retrieval quality: which share of the evidence stands among the first k, and what each idea adds.

    python -m benchmarks.bench_quality DIRECTORY

Measured, on conversations with questions whose answers' turns are known: a session a conversation,
a document a turn ("speaker: text"), each question as the query; recall@k is the share of a
question's evidence among the first k, averaged over all questions. Everything runs as users call
it, with `moss-minilm`. Held out: the setting of a small grid that is best on all other
conversations, asked of the one that had no say. With `--float32` the same with the vectors of the
packaged graph, whose products are float32: what the int8 products cost.

DIRECTORY holds `threads.jsonl`, a line of JSON a conversation: `turns` (id, speaker, text,
image_caption) and `questions` (question, evidence: ids of turns), as LoCoMo has them (Maharana et
al., ACL 2024). It is not part of this project.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.bench_embed import Embed, PackagedGraph
from moss_local.embedding.models import open_embedder, resolve_model
from moss_local.search import fusion
from moss_local.search.bm25 import Bm25
from moss_local.search.query import search
from moss_local.search.resident import Resident
from moss_local.storage.documents import Document
from moss_local.storage.edits import put_documents
from moss_local.storage.file import SessionFile, open_session_file
from moss_sync import VectorSpace

SPACE = VectorSpace("moss-minilm", "bench", 384, "f2")
DEPTHS = (5, 10, 20)
OURS, FTS5 = Bm25(), Bm25(1.2, 0.75, 1.0)


@dataclass(frozen=True)
class Setting:
    """What ranks. The defaults are what the library does."""

    alpha: float = 0.5
    bm25: Bm25 = OURS
    before: tuple[float, ...] = fusion.BEFORE
    after: tuple[float, ...] = fusion.AFTER
    speaker: float = fusion.NAMED_SPEAKER


PLAIN = Setting(bm25=FTS5, before=(), after=(), speaker=0.0)
ABLATION = {
    "semantic only": replace(PLAIN, alpha=1.0),
    "words only, FTS5's BM25": replace(PLAIN, alpha=0.0),
    "words only, ours": Setting(alpha=0.0),
    "convex blend, FTS5's BM25": PLAIN,
    "+ k1 0.9, b 0.4": (no_idf := replace(PLAIN, bm25=Bm25(idf_power=1.0))),
    "+ idf squared": (bag := replace(no_idf, bm25=OURS)),
    "+ a quarter of each neighbour": replace(bag, before=(0.25,), after=(0.25,)),
    "+ two neighbours, unequal": (two := replace(bag, before=fusion.BEFORE, after=fusion.AFTER)),
    "+ named speakers (the library)": replace(two, speaker=fusion.NAMED_SPEAKER),
    "the library, alpha 0.3": Setting(alpha=0.3),
    "the library, alpha 0.4": Setting(alpha=0.4),
    "the library, alpha 0.6": Setting(alpha=0.6),
    "the library, alpha 0.8": Setting(alpha=0.8),
    "the library without neighbours": Setting(before=(), after=()),
    "the library without speakers": Setting(speaker=0.0),
    "the library, FTS5's BM25": Setting(bm25=FTS5),
}
GRID = [
    Setting(alpha, bm25, before, after, speaker)
    for alpha, bm25, (before, after), speaker in product(
        (0.4, 0.5, 0.6),
        (FTS5, Bm25(idf_power=1.0), OURS),
        (((), ()), ((0.25,), (0.25,)), ((0.4, 0.2), (0.2, 0.1)), ((0.5, 0.3), (0.3, 0.2))),
        (0.0, 0.1, 0.2, 0.3),
    )
]


@dataclass(frozen=True)
class Thread:
    """A conversation in its file; `asked[i]` is the vector of question i."""

    file: SessionFile
    questions: list[dict[str, Any]]
    asked: NDArray[np.float32]


@contextmanager
def ranked_by(setting: Setting, threads: Sequence[Thread]) -> Iterator[None]:
    usual = fusion.BEFORE, fusion.AFTER, fusion.NAMED_SPEAKER
    given = setting.before, setting.after, setting.speaker
    fusion.BEFORE, fusion.AFTER, fusion.NAMED_SPEAKER = given  # type: ignore[misc]  # as tried
    for thread in threads:
        thread.file.derived(Resident, Resident).postings._bm25 = setting.bm25  # type: ignore[attr-defined]  # of the resident ones
    try:
        yield
    finally:
        fusion.BEFORE, fusion.AFTER, fusion.NAMED_SPEAKER = usual  # type: ignore[misc]


def turn_text(turn: dict[str, Any]) -> str:
    caption = turn.get("image_caption")
    image = f" [image: {caption}]" if caption else ""
    return f"{turn['speaker']}: {turn['text']}{image}"


def opened(path: Path, directory: Path, *, float32: bool = False) -> list[Thread]:
    documents_of: Embed
    queries_of: Embed
    if float32:
        documents_of = queries_of = PackagedGraph().embed
    else:
        embedder = open_embedder(resolve_model("moss-minilm"))
        documents_of, queries_of = embedder.embed, partial(embedder.embed, kind="query")
    threads = []
    for number, line in enumerate(path.read_text("utf-8").splitlines()):
        if not line.strip():
            continue
        told = json.loads(line)
        texts = [turn_text(turn) for turn in told["turns"]]
        file = open_session_file(directory / f"{number}.sqlite3", session=f"thread {number}")
        with file.writing() as conn:
            documents = [
                Document(turn["id"], text, vector=vector)
                for turn, text, vector in zip(
                    told["turns"], texts, documents_of(texts), strict=True
                )
            ]
            put_documents(conn, documents, space=SPACE, now_ms=0)
        questions = [question["question"] for question in told["questions"]]
        asked = queries_of(questions)
        threads.append(Thread(file, told["questions"], asked))
    return threads


def recalls(threads: Sequence[Thread], setting: Setting) -> list[NDArray[np.float64]]:
    """Return the recall of each question at each depth, an array a thread."""
    with ranked_by(setting, threads):
        return [_recall(thread, setting.alpha) for thread in threads]


def _recall(thread: Thread, alpha: float) -> NDArray[np.float64]:
    rows = []
    for question, vector in zip(thread.questions, thread.asked, strict=True):
        hits = search(
            thread.file,
            text=question["question"],
            vector=vector,
            alpha=alpha,
            top_k=max(DEPTHS),
        )
        ids = [hit.id for hit in hits]
        evidence = set(question["evidence"])
        rows.append([len(evidence.intersection(ids[:k])) / len(evidence) for k in DEPTHS])
    return np.array(rows)


def line(name: str, found: Sequence[NDArray[np.float64]], taken: str = "") -> None:
    means = "  ".join(f"{value:.3f}" for value in np.concatenate(found).mean(axis=0))
    each = " ".join(f"{rows[:, 1].mean():.3f}" for rows in found)
    print(f"{name:34}{means}   {each}   {taken}", flush=True)


def held_out(threads: Sequence[Thread]) -> None:
    tried = [(setting, recalls(threads, setting)) for setting in GRID]

    def elsewhere(found: Sequence[NDArray[np.float64]], out: int) -> float:
        others = [rows for number, rows in enumerate(found) if number != out]
        return float(np.concatenate(others)[:, :2].mean())

    result = []
    for out in range(len(threads)):
        _, found = max(tried, key=lambda each, out=out: elsewhere(each[1], out))  # type: ignore[misc]
        result.append(found[out])
    line("held out, best of the grid", result)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path, help="holds threads.jsonl")
    parser.add_argument("--float32", action="store_true", help="vectors of the packaged graph")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        path = chosen.directory / "threads.jsonl"
        threads = opened(path, Path(name), float32=chosen.float32)
        count = sum(len(thread.questions) for thread in threads)
        print(f"{count} questions; recall @5, @10, @20; @10 by thread; ms a question")
        for title, setting in ABLATION.items():
            started = perf_counter()
            found = recalls(threads, setting)
            taken = (perf_counter() - started) / count * 1e3
            line(title, found, f"{taken:.2f} ms")
        held_out(threads)
        for thread in threads:
            thread.file.close()


if __name__ == "__main__":
    main()
