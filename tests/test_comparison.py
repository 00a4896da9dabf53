"""The comparison with other engines: what it counts as right, and that our part of it runs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.comparison import page
from benchmarks.comparison.data import FILES, Truth, read_documents
from benchmarks.comparison.engine import DIM, FILTERS, KINDS, TOP_K, VECTOR
from benchmarks.comparison.worker import ENGINES, Worker, engine_class

ROOT = Path(__file__).parent.parent
COUNT = 300


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Texts, vectors and questions as `prepare` leaves them, but few and drawn by lot."""
    rng = np.random.default_rng(1)
    for name, count in (("documents", COUNT), ("questions", 5)):
        rows = rng.standard_normal((count, DIM)).astype(np.float32)
        np.save(tmp_path / f"{name}.npy", rows / np.linalg.norm(rows, axis=1, keepdims=True))
        texts = [f"message {i} of the {name}" for i in range(count)]
        (tmp_path / FILES[name]).write_text(json.dumps(texts), "utf-8")
    return tmp_path


def test_our_engine_answers_every_kind_with_what_an_exact_search_finds(
    data: Path, tmp_path: Path
) -> None:
    worker = Worker("moss_local", tmp_path / "store", data)
    worker.open()
    worker.load(COUNT, limit=600.0)
    assert worker.load_questions() == 5
    truth = Truth(data, COUNT)
    for kind in engine_class("moss_local").kinds:
        found = dict(enumerate(worker.ask(kind, 0, 5, seconds=60.0)["found"]))
        assert len(found) == 5
        if kind == VECTOR or kind in ("10 %", "90 %"):
            assert truth.recalls(kind, {"ours": found}) == {"ours": 1.0}
    assert len(worker.add(0, 2)["ms"]) == 2
    worker.close()


def test_recall_counts_what_is_as_near_as_the_last_and_nothing_else(data: Path) -> None:
    rows = np.load(data / "documents.npy")
    rows[7] = rows[3]  # two documents that are equally near
    np.save(data / "documents.npy", rows)
    asked = np.load(data / "questions.npy")
    asked[0] = rows[3]
    np.save(data / "questions.npy", asked)
    order = np.argsort(-(rows @ asked[0]), kind="stable").tolist()
    best = order[:TOP_K]
    worse = [*best[:-1], order[TOP_K + 5]]
    answers = {"right": {0: best}, "one wrong": {0: worse}, "one short": {0: best[1:]}}
    recalls = Truth(data, COUNT).recalls(VECTOR, answers)
    assert recalls == pytest.approx({"right": 1.0, "one wrong": 0.9, "one short": 0.9})
    twice = {"twice the same": {0: [best[0]] * TOP_K}}
    assert Truth(data, COUNT).recalls(VECTOR, twice) == pytest.approx({"twice the same": 0.1})


def test_a_filter_lets_through_about_the_share_that_names_it(data: Path) -> None:
    metadata = read_documents(data).metadata
    for kind, (field, value) in FILTERS.items():
        share = sum(each[field] == value for each in metadata) / COUNT
        assert share == pytest.approx(float(kind.rstrip(" %")) / 100, abs=0.05)


def test_the_page_keeps_its_own_words_and_says_who_was_not_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds = {kind: {"p50": 2.0, "p95": 3.0, "recall": 1.0, "asked": 9} for kind in KINDS}
    rest = {"load": 1.0, "add": 1.0, "first": 1.0, "memory": 1e6, "disk": 1e6, "rounds": 2}
    slower = {kind: {**own, "p50": 5.0} for kind, own in kinds.items()}
    figures = {
        "moss_local": {**kinds, **rest},
        "Chroma": {**slower, **rest},
        "usearch + SQLite": {"failed": "not measured: it broke", "rounds": 2},
    }
    place = tmp_path / "benchmarks.md"
    place.write_text(f"Before.\n{page.BEGIN}\nold figures\n{page.END}\nAfter.\n", "utf-8")
    monkeypatch.setattr(page, "PAGE", place)
    monkeypatch.setattr(page, "draw", lambda results, path: None)
    machine = {"processor": "X", "cores": 2, "instructions": [], "system": "S", "python": "3"}
    machine |= {"packages": {"numpy": "2"}, "date": "2026-01-01"}
    page.write({"machine": machine, "load": [0.1, 2.0], "minutes": 3.0, "sizes": {"1000": figures}})
    written = place.read_text("utf-8")
    assert written.startswith("Before.\n")
    assert written.endswith("\nAfter.\n")
    assert "old figures" not in written
    assert "5.00 (2.5 ×)" in written
    assert "not measured: it broke" in written


def test_the_peers_are_pinned_and_come_from_no_host_of_ours() -> None:
    lines = (ROOT / "benchmarks/comparison/requirements.txt").read_text("utf-8").splitlines()
    wanted = [line for line in lines if not line.startswith("#")]
    assert all("==" in line and "/" not in line and not line.startswith("-") for line in wanted)
    assert next(iter(ENGINES)) == "moss_local"
