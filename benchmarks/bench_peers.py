"""We and others on the same real messages with the same vectors, in one run: a table and a plot.

    pip install '.[bench,bench-peers]'
    python -m benchmarks.bench_peers [--sizes 1000 10000 100000] [--write docs]

All that is installed is loaded and then asked in turn, question by question, so that whatever else
the machine does falls on each of them; the first round is not counted. A query brings a vector and
returns ten documents with their texts. Ratios hold from machine to machine, times do not.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from time import perf_counter

import numpy as np

from benchmarks.peers import PEERS, TOP_K, Ours, OursBlended, Peer
from benchmarks.vectors import Corpus, corpus

ROUNDS = 200
PACKAGES = {
    "moss_local": "moss-local",
    "sqlite_vec": "sqlite-vec",
    "qdrant_client": "qdrant-client",
}


@dataclass(frozen=True)
class Row:
    """What one of them did at one size. Times in ms, `load_s` in seconds."""

    name: str
    p50: float
    p95: float
    ratio: float
    recall: float | None
    load_s: float
    bytes_each: float


def measured(data: Corpus, count: int, rounds: int, kinds: Sequence[type[Peer]]) -> list[Row]:
    texts, vectors = data.texts[:count], np.ascontiguousarray(data.vectors[:count])
    with tempfile.TemporaryDirectory() as name:
        peers: list[Peer] = []
        loads: list[float] = []
        for number, kind in enumerate(kinds):
            folder = Path(name) / f"{number}"
            folder.mkdir()
            peer = kind(folder)
            started = perf_counter()
            peer.load(texts, vectors)
            loads.append(perf_counter() - started)
            peers.append(peer)
            print(f"  {peer.name}: loaded in {loads[-1]:.1f} s", flush=True)
        times: list[list[float]] = [[] for _ in peers]
        shares: list[list[float]] = [[] for _ in peers]
        for round in range(-1, rounds):
            vector, text = data.asked[round], data.questions[round]
            nearest = set(np.argpartition(-np.vecdot(vectors, vector), TOP_K)[:TOP_K].tolist())
            for peer, taken, share in zip(peers, times, shares, strict=True):
                started = perf_counter()
                found = peer.ask(vector, text)
                spent = perf_counter() - started
                if round >= 0:
                    taken.append(spent * 1e3)
                    share.append(len({id for id, _ in found} & nearest) / TOP_K)
        own = np.array(times[0])
        rows = []
        for peer, taken, share, load in zip(peers, times, shares, loads, strict=True):
            peer.close()
            size = sum(path.stat().st_size for path in peer.folder.rglob("*") if path.is_file())
            p50, p95 = np.percentile(taken, [50, 95])
            rows.append(
                Row(
                    peer.name,
                    float(p50),
                    float(p95),
                    float(np.median(np.array(taken) / own)),
                    None if isinstance(peer, OursBlended) else float(np.mean(share)),
                    load,
                    size / count,
                )
            )
        return rows


def table(count: int, rows: Sequence[Row]) -> str:
    lines = [
        f"### {count:,} documents\n",
        "| | p50 | p95 | times ours | recall@10 | load | bytes a document on disk |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        recall = "–" if row.recall is None else f"{row.recall:.3f}"
        lines.append(
            f"| {row.name} | {row.p50:.2f} ms | {row.p95:.2f} ms | {row.ratio:.2f} | {recall}"
            f" | {row.load_s:.1f} s | {row.bytes_each:,.0f} |"
        )
    return "\n".join(lines) + "\n"


def plot(found: dict[int, list[Row]], path: Path) -> None:
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.5))
    names = list(dict.fromkeys(row.name for rows in found.values() for row in rows))
    for name in names:
        points = [
            (count, row.p50) for count, rows in found.items() for row in rows if row.name == name
        ]
        own = name.startswith("moss_local")
        axes.plot(*zip(*points, strict=True), "o-", label=name, linewidth=2.5 if own else 1.2)
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="documents",
        ylabel="median of a query, ms",
        title="Ten nearest of real messages, with their texts, from Python",
    )
    axes.grid(visible=True, which="both", alpha=0.25)
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110, metadata={"Software": None})


def page(found: dict[int, list[Row]], kinds: Sequence[type[Peer]], rounds: int) -> str:
    versions = {
        name: version(name)
        for name in dict.fromkeys(PACKAGES.get(kind.needs, kind.needs) for kind in kinds)
    }
    left_out = [kind.name for kind in PEERS if kind not in kinds]
    used = ", ".join(f"{name} {number}" for name, number in versions.items())
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    head = f"""# Benchmarks

Made by `python -m benchmarks.bench_peers --write docs`; do not edit.

Real chat messages (chitchat-dataset) with `moss-minilm` vectors, 384 dimensions. A query brings a
vector and returns ten documents with their texts, as each library's users call it from Python; ours
is awaited, its file durable. All were asked in turn, question by question, in one process:
{rounds} questions, none of them among the documents. "Times ours" is the median of the paired
ratios, and the column to go by: the times are those of a machine that had other work to do.

{machine}, Python {platform.python_version()}; {used}.
Defaults throughout; cosine where there is a choice.
"""
    if left_out:
        head += f"\nNot installed, so not measured: {', '.join(left_out)}.\n"
    return "\n".join(
        [
            head,
            "![medians by size](benchmarks.png)\n",
            *(table(count, rows) for count, rows in found.items()),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--only", nargs="+", help="peers by the module that they need")
    parser.add_argument("--write", type=Path, help="folder for benchmarks.md and benchmarks.png")
    chosen = parser.parse_args()
    kinds = [
        kind
        for kind in PEERS
        if kind.installed()
        and (not chosen.only or kind.needs in chosen.only or issubclass(kind, Ours))
    ]
    data = corpus()
    found = {}
    for count in chosen.sizes:
        print(f"{count:,} documents", flush=True)
        fit = [kind for kind in kinds if count <= kind.largest]
        found[count] = measured(data, count, chosen.rounds, fit)
        print(table(count, found[count]), flush=True)
    if chosen.write is not None:
        (chosen.write / "benchmarks.md").write_text(page(found, kinds, chosen.rounds), "utf-8")
        plot(found, chosen.write / "benchmarks.png")


if __name__ == "__main__":
    main()
