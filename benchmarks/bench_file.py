"""What a session's file costs by itself: given vectors, no embedding, no network.

    python -m benchmarks.bench_file [--sizes 1000 10000 100000] [--directory DIR]

Texts are of 16 words; vectors are random, of 384 dimensions; every write is durable. Figures are
medians and 95th percentiles of one run. The queries have 9 words, most of which occur in most
documents: the worst case for the keyword index.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from moss_local.search.query import search
from moss_local.storage.documents import Document
from moss_local.storage.edits import put_documents
from moss_local.storage.file import SessionFile, open_session_file
from moss_local.storage.replica import SqliteReplica
from moss_sync import Record, Seen, Snapshot, VectorSpace, Version, content_digest

SPACE = VectorSpace("moss-minilm", "bench", 384, "f2")
BATCH = 10_000
QUESTION = "what is the status of the refund for my card"
WORDS = f"""{QUESTION} customer charge statement agent order invoice shipping delay bank account
email phone call ticket policy return window item broken replace""".split()


def timed(work: Callable[[int], object], rounds: int) -> str:
    times = []
    for i in range(rounds):
        start = time.perf_counter()
        work(i)
        times.append((time.perf_counter() - start) * 1e3)
    return f"p50 {np.percentile(times, 50):8.2f} ms   p95 {np.percentile(times, 95):8.2f} ms"


def make_documents(count: int, rng: np.random.Generator) -> list[Document]:
    vectors = rng.standard_normal((count, SPACE.dim)).astype(np.float32)
    return [
        Document(f"turn-{i}", f"{' '.join(rng.choice(WORDS, 16))} {i}", vector=vectors[i])
        for i in range(count)
    ]


def one_turn(directory: Path, document: Document) -> None:
    path = directory / "one.sqlite3"
    file = open_session_file(path, session="one")
    add(file, [document])
    file.close()
    print(f"one turn on disk      {path.stat().st_size:,} bytes")


def add(file: SessionFile, documents: list[Document]) -> None:
    with file.writing() as conn:
        put_documents(conn, documents, space=SPACE, now_ms=1_700_000_000_000)


def bulk(file: SessionFile, documents: list[Document]) -> None:
    start = time.perf_counter()
    for first in range(0, len(documents), BATCH):
        add(file, documents[first : first + BATCH])
    rate = len(documents) / (time.perf_counter() - start)
    print(f"  bulk add            {rate:,.0f} documents/s")


def merge(directory: Path, documents: list[Document]) -> None:
    vectors = [np.asarray(document.vector, "<f2").tobytes() for document in documents]
    records = [
        Record(
            document.id,
            Version(1 << 40, b"device-B", content_digest(document.id, deleted=False)),
            text=document.text,
            vector=vector,
            commit_seq=1,
        )
        for document, vector in zip(documents, vectors, strict=True)
    ]
    file = open_session_file(directory / f"merge{len(documents)}.sqlite3", session="merge")
    start = time.perf_counter()
    SqliteReplica(file).merge(Snapshot(records, 1, space=SPACE), Seen(1, b"h", None, b""))
    rate = len(records) / (time.perf_counter() - start)
    print(f"  merge of a pull     {rate:,.0f} documents/s")
    file.close()


def queries(file: SessionFile, vectors: NDArray[np.float32], rounds: int) -> None:
    for name, text, vector, alpha in (
        ("blended", QUESTION, True, 0.5),
        ("vectors only", "", True, 1.0),
        ("words only", QUESTION, False, 0.0),
    ):

        def ask(i: int, text: str = text, vector: bool = vector, alpha: float = alpha) -> None:
            search(file, text=text, vector=vectors[i] if vector else None, alpha=alpha)

        print(f"  query, {name:12} {timed(ask, rounds)}")


def measure(directory: Path, count: int, rng: np.random.Generator) -> None:
    print(f"{count:,} documents")
    path = directory / f"{count}.sqlite3"
    documents = make_documents(count, rng)
    file = open_session_file(path, session=f"{count}")
    bulk(file, documents)
    file.close()
    print(f"  on disk             {path.stat().st_size / count:,.0f} bytes a document")

    def reopen(_: int) -> None:
        open_session_file(path, session=f"{count}").close()

    print(f"  open and close      {timed(reopen, 20)}")
    file = open_session_file(path, session=f"{count}")
    questions = rng.standard_normal((200, SPACE.dim)).astype(np.float32)
    print(f"  first query         {timed(lambda i: search(file, vector=questions[i]), 1)}")
    queries(file, questions, 200 if count <= BATCH else 30)
    turns = make_documents(100, rng)

    def add_turn(i: int) -> None:
        add(file, [Document(f"new-{i}", turns[i].text, vector=turns[i].vector)])

    print(f"  add one turn        {timed(add_turn, 100)}")
    file.close()
    if count <= BATCH:
        merge(directory, documents)


def main() -> None:
    parser = argparse.ArgumentParser(description="what a session's file costs by itself")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--directory", type=Path, help="where to write; default: temporary")
    arguments = parser.parse_args()
    rng = np.random.default_rng(1)
    with tempfile.TemporaryDirectory(dir=arguments.directory) as name:
        one_turn(Path(name), make_documents(1, rng)[0])
        for count in arguments.sizes:
            measure(Path(name), count, rng)


if __name__ == "__main__":
    main()
