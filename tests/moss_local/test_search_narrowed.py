"""Searches that are narrowed: by filter, score, depth; grouped; over several files together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moss_local.search.filters import parse_filter
from moss_local.search.matching import matches
from moss_local.search.query import Hit, ask, search, search_several
from moss_local.storage.documents import Document
from moss_local.storage.edits import put_documents
from moss_local.storage.file import SessionFile, open_session_file
from moss_local.storage.rows import get_documents
from moss_local.types import ParentGrouping
from moss_sync import InvalidArgumentError, VectorSpace
from tests.strategies import filters

SPACE = VectorSpace("custom", "custom-3", 3, "f4")
WORDS = ["refund", "invoice", "lawyer", "weather", "printer", "holiday"]

T = TypeVar("T")
R = TypeVar("R")


def one_by_one(fn: Callable[[T], R], items: Iterable[T]) -> list[R]:
    return [fn(item) for item in items]


def document(n: int, rng: np.random.Generator) -> Document:
    words = " ".join(rng.choice(WORDS, 3))
    metadata = {"n": str(n), "call": f"call {n // 5}", "even": str(n % 2 == 0).lower()}
    if n % 7 == 0:
        del metadata["call"]
    vector = rng.standard_normal(3).astype("f4") if n % 11 else None
    return Document(f"d{n}", f"{n}: {words}", metadata, "same", vector)


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[[str, list[Document]], SessionFile]]:
    with ExitStack() as opened:

        def made(name: str, documents: list[Document]) -> SessionFile:
            file = open_session_file(tmp_path / name, session=name, durability="normal")
            opened.callback(file.close)
            with file.writing() as conn:
                put_documents(conn, documents, space=SPACE, now_ms=5)
            return file

        yield made


@pytest.fixture
def file(make: Callable[[str, list[Document]], SessionFile]) -> SessionFile:
    rng = np.random.default_rng(3)
    return make("s", [document(n, rng) for n in range(60)])


def ids(hits: list[Hit]) -> list[str]:
    return [hit.id for hit in hits]


def where(field: str, **operators: Any) -> Any:
    condition = {f"${name}": value for name, value in operators.items()}
    return parse_filter({"field": field, "condition": condition}, now_ms=0)


ASKED: list[dict[str, Any]] = [
    {"text": "refund invoice", "vector": [1, 0, 0]},
    {"text": "refund", "vector": [0, 1, 1], "alpha": 0.0},
    {"vector": [0, -1, 1]},
    {"text": "weather"},
]


@pytest.mark.parametrize("low_memory", [False, True])
@pytest.mark.parametrize("asked", ASKED)
def test_a_filtered_search_is_the_whole_order_without_what_does_not_match(
    file: SessionFile, asked: dict[str, Any], low_memory: bool
) -> None:
    whole = search(file, top_k=100, low_memory=low_memory, **asked)
    wanted = where("n", gte=10, lt=40)
    found = search(file, top_k=7, filter=wanted, low_memory=low_memory, **asked)
    assert found == [hit for hit in whole if matches(wanted, hit.metadata)][:7]
    assert found


def test_rare_documents_are_found_however_poor_they_are(file: SessionFile) -> None:
    worst = search(file, vector=[1, 0, 0], top_k=100)[-2:]
    wanted = where("n", **{"in": [hit.id[1:] for hit in worst]})
    assert search(file, vector=[1, 0, 0], top_k=2, filter=wanted) == worst
    assert search(file, vector=[1, 0, 0], filter=where("n", eq="none")) == []


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(filter=filters(), asked=st.sampled_from(ASKED))
def test_whatever_the_filter_resident_and_stored_find_the_same(
    file: SessionFile, filter: dict[str, Any], asked: dict[str, Any]
) -> None:
    parsed = parse_filter(filter, now_ms=0)
    found = search(file, top_k=100, filter=parsed, **asked)
    stored = search(file, top_k=100, filter=parsed, low_memory=True, **asked)
    assert ids(found) == ids(stored)
    assert all(matches(parsed, hit.metadata) for hit in found)


def test_min_score_and_filter_and_top_k_hold_together(file: SessionFile) -> None:
    asked: dict[str, Any] = {"text": "refund", "vector": [1, 0, 0]}
    wanted = where("even", eq=True)
    found = search(file, top_k=4, min_score=0.5, filter=wanted, **asked)
    whole = search(file, top_k=100, **asked)
    fitting = [hit for hit in whole if hit.score >= 0.5 and matches(wanted, hit.metadata)]
    assert found == fitting[:4]
    assert len(found) == 4


def test_candidate_depth_leaves_only_the_best_of_either_kind(file: SessionFile) -> None:
    asked: dict[str, Any] = {"text": "refund", "vector": [1, 0, 0]}
    by_meaning = search(file, vector=[1, 0, 0], alpha=1.0, top_k=100)
    by_word = search(file, text="refund", vector=[1, 0, 0], alpha=0.0, top_k=100)
    whole = search(file, top_k=100, **asked)
    near = {*ids(by_meaning[:10]), *ids(by_word[:10])}
    found = search(file, top_k=8, candidate_depth=10, **asked)
    assert found == [hit for hit in whole if hit.id in near][:8]
    assert ids(found) != ids(whole[:8])
    # Raised to top_k, and of no effect where only one of the two counts.
    assert len(search(file, top_k=8, candidate_depth=1, **asked)) == 8
    deep = search(file, vector=[1, 0, 0], alpha=1.0, top_k=5, candidate_depth=1)
    assert deep == by_meaning[:5]


def test_a_group_is_whole_and_stands_where_its_best_document_does(file: SessionFile) -> None:
    asked: dict[str, Any] = {"text": "refund", "vector": [1, 0, 0]}
    by = ParentGrouping("call", "n")
    flat = search(file, top_k=100, **asked)
    places = list(dict.fromkeys((hit.metadata or {}).get("call", hit.id) for hit in flat))
    found = search(file, top_k=6, group_by=by, **asked)
    assert ids(found) == places[:6]
    with file.reading() as conn:
        documents = get_documents(conn)
    for hit in found:
        if hit.id.startswith("d"):
            assert hit == next(other for other in flat if other.id == hit.id)
            continue
        members = [d for d in documents if (d.metadata or {}).get("call") == hit.id]
        members.sort(key=lambda member: int((member.metadata or {})["n"]))
        assert hit.text == "\n".join(member.text for member in members)
        assert hit.metadata == {"call": hit.id}
        assert hit.payload == "same"
        own = [other for other in flat if other.id in [member.id for member in members]]
        assert hit.score == max(other.score for other in own)
        assert hit.blended == own[0].blended
    assert len(search(file, top_k=100, group_by=by, **asked)) == len(places)
    assert search(file, top_k=6, group_by=by, low_memory=True, **asked)[:3] == found[:3]


def test_a_group_holds_nothing_that_the_filter_leaves_out(file: SessionFile) -> None:
    wanted = where("even", eq="true")
    by = ParentGrouping("call", "n")
    for hit in search(file, vector=[1, 0, 0], top_k=100, group_by=by, filter=wanted):
        numbers = [int(line.split(":")[0]) for line in hit.text.splitlines()]
        assert numbers == sorted(numbers)
        assert all(n % 2 == 0 for n in numbers)


def test_several_files_are_one_order_and_every_result_names_its_file(
    make: Callable[[str, list[Document]], SessionFile],
) -> None:
    rng = np.random.default_rng(3)
    documents = [document(n, rng) for n in range(60)]
    one = make("one", documents)
    parts = [make(f"part {n}", documents[n * 20 : n * 20 + 20]) for n in range(3)]
    empty = make("empty", [])
    question = ask(vector=[1, 0, 0], top_k=12, filter=where("n", lt=50))
    found = search_several([empty, *parts], question, at_once=one_by_one)
    together = search(one, vector=[1, 0, 0], top_k=12, filter=where("n", lt=50))
    assert [(hit.id, hit.score, hit.blended) for _, hit in found] == [
        (hit.id, hit.score, hit.blended) for hit in together
    ]
    assert [which for which, _ in found] == [1 + int(hit.id[1:]) // 20 for _, hit in found]
    assert search_several([empty], question, at_once=one_by_one) == []


def test_words_of_several_files_are_measured_against_the_best_of_all(
    make: Callable[[str, list[Document]], SessionFile],
) -> None:
    much = make("much", [Document("a", "refund refund refund"), *fillers("x")])
    little = make("little", [Document("b", f"refund {'and so on ' * 40}"), *fillers("y")])
    found = search_several([little, much], ask(text="refund", alpha=0.0), at_once=one_by_one)
    assert [(which, hit.id) for which, hit in found] == [(1, "a"), (0, "b")]
    assert found[0][1].blended == 1 > found[1][1].blended


def fillers(name: str) -> list[Document]:
    return [Document(f"{name}{n}", "nothing of note") for n in range(10)]


def test_when_one_of_several_fails_the_others_are_let_go(
    make: Callable[[str, list[Document]], SessionFile],
) -> None:
    good = make("good", [Document("a", "x", vector=np.array([1, 0, 0], "f4"))])
    with pytest.raises(InvalidArgumentError, match="2 dimensions"):
        search_several([good, good], ask(vector=[1.0, 2.0]), at_once=one_by_one)
    assert good._in_use == 0
    assert good.release()
