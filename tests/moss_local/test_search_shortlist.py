"""A shortlist gives what scoring everything gives, as far as it reaches; filters come before it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest

from moss_local.search import shortlist
from moss_local.search.filters import parse_filter
from moss_local.search.query import Hit, ask, search, search_several
from moss_local.storage.documents import Document
from moss_local.storage.edits import delete_documents, put_documents
from moss_local.storage.file import SessionFile, open_session_file
from moss_sync import VectorSpace

T = TypeVar("T")
R = TypeVar("R")

DIM = 128
SPACE = VectorSpace("custom", f"custom-{DIM}", DIM, "f4")
COUNT = 400
WORDS = ("refund", "invoice", "late", "monday", "card", "the", "of", "退款", "charge")


def vectors(count: int, seed: int) -> Any:
    """Return vectors in a few heaps, as texts have them."""
    rng = np.random.default_rng(seed)
    middles = np.random.default_rng(7).standard_normal((12, DIM))
    near = middles[rng.integers(0, len(middles), count)]
    return (near + 0.7 * rng.standard_normal((count, DIM))).astype(np.float32)


@pytest.fixture
def file(tmp_path: Path) -> Iterator[SessionFile]:
    opened = open_session_file(tmp_path / "s.sqlite3", session="s", durability="normal")
    rng = np.random.default_rng(3)
    documents = [
        Document(
            f"d{i}",
            " ".join(rng.choice(WORDS, 5)),
            {"tenth": f"{i % 10}", "who": ("Ann", "Bob", "Cy")[i % 3]},
            vector=None if i % 11 == 0 else row,
        )
        for i, row in enumerate(vectors(COUNT, 1))
    ]
    with opened.writing() as conn:
        put_documents(conn, documents, space=SPACE, now_ms=5)
    yield opened
    opened.close()


def both(
    file: SessionFile, monkeypatch: pytest.MonkeyPatch, length: int, **asked: Any
) -> tuple[list[Hit], list[Hit]]:
    """Return what scoring everything finds, and what a shortlist of that length does."""
    whole = search(file, **asked)
    with monkeypatch.context() as patch:
        patch.setattr(shortlist, "SHORTLIST_FROM", 1)
        patch.setattr(shortlist, "SHORTLIST", length)
        patch.setattr(shortlist, "PAYS", 0)
        patch.setattr(shortlist, "PER_RESULT", 0)
        short = search(file, **asked)
    return whole, short


QUERIES = ("refund", "the late invoice of monday", "what did Ann say of the card?", "退款", "?")


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("text", QUERIES)
def test_a_shortlist_as_long_as_the_session_changes_nothing(
    file: SessionFile, monkeypatch: pytest.MonkeyPatch, alpha: float, text: str
) -> None:
    for round, query in enumerate(vectors(4, 2)):
        given = {"text": text, "vector": query, "alpha": alpha, "top_k": 20}
        given |= {"recency": 0.3, "context": 1} if round % 2 else {"threaded": False}
        whole, short = both(file, monkeypatch, COUNT * 2, **given)
        assert [(hit.id, hit.score) for hit in short] == [
            (hit.id, pytest.approx(hit.score, abs=1e-6)) for hit in whole
        ]
        with file.writing() as conn:  # the signs follow what is written
            delete_documents(conn, [f"d{round * 7 + 1}"], now_ms=9)
            row = vectors(1, 100 + round)[0]
            put_documents(conn, [Document(f"d{round}", text, vector=row)], space=SPACE, now_ms=9)


@pytest.mark.parametrize("alpha", [0.5, 1.0])
def test_a_short_list_finds_nearly_the_same(
    file: SessionFile, monkeypatch: pytest.MonkeyPatch, alpha: float
) -> None:
    shares = []
    for query in vectors(40, 2):
        given = {"text": "late refund", "vector": query, "alpha": alpha, "top_k": 10}
        whole, short = both(file, monkeypatch, 100, **given)
        shares.append(len({hit.id for hit in whole} & {hit.id for hit in short}) / 10)
        scores = {hit.id: hit.score for hit in whole}
        for hit in short:  # what is found has its exact score, however it was found
            assert hit.score == pytest.approx(scores.get(hit.id, hit.score), abs=1e-6)
    assert np.mean(shares) > 0.9


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_a_filter_comes_before_the_shortlist_so_that_results_are_filled(
    file: SessionFile, monkeypatch: pytest.MonkeyPatch, alpha: float
) -> None:
    filter = parse_filter({"field": "tenth", "condition": {"$eq": "4"}}, now_ms=0)
    for query in vectors(5, 2):
        given = {"text": " ".join(WORDS), "vector": query, "alpha": alpha, "filter": filter}
        whole, short = both(file, monkeypatch, 12, top_k=10, **given)
        assert len(whole) == len(short) == 10
        assert all(hit.metadata and hit.metadata["tenth"] == "4" for hit in [*whole, *short])


def test_a_least_score_is_held_to_the_exact_one(
    file: SessionFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    for query in vectors(10, 2):
        given = {"text": "refund", "vector": query, "min_score": 0.5, "top_k": 300}
        whole, short = both(file, monkeypatch, COUNT, **given)
        assert {hit.id for hit in whole} == {hit.id for hit in short}
        assert all(hit.score >= 0.5 for hit in short)
        assert 0 < len(short) < 100


def test_many_results_are_asked_of_everything(
    file: SessionFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shortlist, "SHORTLIST_FROM", 1)
    monkeypatch.setattr(shortlist, "SHORTLIST", 10)
    found = search(file, text="refund", vector=vectors(1, 2)[0], alpha=1.0, top_k=COUNT)
    assert len(found) == COUNT - len(range(0, COUNT, 11))


def test_sessions_searched_together_by_meaning_give_the_same_with_a_shortlist_in_one_of_them(
    file: SessionFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = open_session_file(tmp_path / "o.sqlite3", session="o", durability="normal")
    documents = [Document(f"o{i}", "card", vector=row) for i, row in enumerate(vectors(40, 5))]
    with other.writing() as conn:
        put_documents(conn, documents, space=SPACE, now_ms=5)
    monkeypatch.setattr(shortlist, "PAYS", 0)
    monkeypatch.setattr(shortlist, "PER_RESULT", 0)
    monkeypatch.setattr(shortlist, "SHORTLIST", 2 * COUNT)

    def one_by_one(fn: Callable[[T], R], items: Iterable[T]) -> list[R]:
        return [fn(item) for item in items]

    def together(vector: Any) -> list[tuple[int, Hit]]:
        question = ask(vector=vector, top_k=30)
        return search_several([file, other], question, at_once=one_by_one)

    for query in vectors(5, 2):
        monkeypatch.setattr(shortlist, "SHORTLIST_FROM", 1 << 60)
        whole = together(query)
        monkeypatch.setattr(shortlist, "SHORTLIST_FROM", 100)  # `file` has more, `other` fewer
        short = together(query)
        assert [(which, hit.id, hit.score) for which, hit in short] == [
            (which, hit.id, pytest.approx(hit.score, abs=1e-6)) for which, hit in whole
        ]
        assert {which for which, _ in short} == {0, 1}
    other.close()
