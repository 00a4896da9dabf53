"""Searching one session: by meaning, by word and blended, in one moment of the file."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moss_local.search.filters import parse_filter
from moss_local.search.query import Hit, search
from moss_local.storage.documents import Document
from moss_local.storage.edits import delete_documents, put_documents
from moss_local.storage.file import SessionFile, open_session_file
from moss_local.types import ParentGrouping
from moss_sync import InvalidArgumentError, VectorSpace

GROUPS = ParentGrouping("parent", "order")
SPACE = VectorSpace("custom", "custom-2", 2, "f4")
DOCUMENTS = [
    ("east", "the refund was issued", (1, 0)),
    ("north", "an invoice arrived", (0, 5)),
    ("north-east", "refund and invoice", (1, 1)),
    ("west", "nothing to see", (-2, 0)),
    ("nowhere", "a refund without a vector", None),
]


@pytest.fixture
def file(tmp_path: Path) -> Iterator[SessionFile]:
    opened = open_session_file(tmp_path / "s.sqlite3", session="s", durability="normal")
    documents = [
        Document(
            id, text, {"id": id}, f"payload {id}", None if row is None else np.array(row, "f4")
        )
        for id, text, row in DOCUMENTS
    ]
    with opened.writing() as conn:
        put_documents(conn, documents, space=SPACE, now_ms=5)
    yield opened
    opened.close()


def ids(hits: list[Hit]) -> list[str]:
    return [hit.id for hit in hits]


def test_meaning_alone_ranks_everything_that_has_a_vector(file: SessionFile) -> None:
    hits = search(file, text="invoice", vector=[3, 0], alpha=1.0)
    assert ids(hits) == ["east", "north-east", "north", "west"]
    assert [hit.score for hit in hits] == pytest.approx([1, 2**-0.5, 0, 0])


def test_words_alone_find_only_what_has_one_of_them(file: SessionFile) -> None:
    hits = search(file, text="REFUNDS!", vector=[3, 0], alpha=0.0)
    assert set(ids(hits)) == {"east", "north-east", "nowhere"}
    assert {hit.id: hit.score for hit in hits} == pytest.approx(
        {"east": 1, "north-east": 2**-0.5, "nowhere": 0}
    )


def test_without_a_vector_the_words_decide_and_scores_are_zero(file: SessionFile) -> None:
    hits = search(file, text="invoice", alpha=0.5)
    assert set(ids(hits)) == {"north", "north-east"}
    assert [hit.score for hit in hits] == [0, 0]
    assert search(file, text="invoice", alpha=1.0) == []


def test_the_blend_weighs_both(file: SessionFile) -> None:
    hits = search(file, text="invoice", vector=[3, 0], alpha=0.5)
    assert ids(hits)[0] == "north-east"
    assert set(ids(hits)) == {"east", "north", "north-east", "west"}
    assert [hit.blended for hit in hits] == sorted((hit.blended for hit in hits), reverse=True)


def test_a_hit_is_the_whole_document(file: SessionFile) -> None:
    (hit,) = search(file, text="issued", vector=[1, 0], top_k=1)
    assert (hit.id, hit.text) == ("east", "the refund was issued")
    assert (hit.metadata, hit.payload) == ({"id": "east"}, "payload east")


def test_a_blank_query_gives_nothing_or_what_its_vector_says(file: SessionFile) -> None:
    for blank in ("", " \n\t", "\u3000"):
        for alpha in (0.0, 0.5, 1.0):
            assert search(file, text=blank, alpha=alpha) == []
            hits = search(file, text=blank, vector=[0, 1], alpha=alpha)
            assert ids(hits)[0] == "north"


def test_a_query_of_signs_has_no_words_but_may_have_a_meaning(file: SessionFile) -> None:
    assert search(file, text="?!", vector=[0, 1], alpha=0.0) == []
    assert ids(search(file, text="?!", vector=[0, 1], alpha=0.5))[0] == "north"


def test_top_k_limits_and_zero_gives_none(file: SessionFile) -> None:
    assert search(file, text="refund", vector=[1, 0], top_k=0) == []
    assert len(search(file, text="refund", vector=[1, 0], top_k=2)) == 2
    assert len(search(file, text="refund", vector=[1, 0], top_k=100)) == 5


def test_equal_documents_come_latest_first(file: SessionFile) -> None:
    same = [Document(f"same-{i}", "x", vector=np.array([0, -1], "f4")) for i in range(4)]
    with file.writing() as conn:
        put_documents(conn, same, space=SPACE, now_ms=6)
    hits = search(file, vector=[0, -1], top_k=3)
    assert ids(hits) == ["same-3", "same-2", "same-1"]


@pytest.mark.parametrize(
    "options",
    [
        {"alpha": -0.1},
        {"alpha": 1.1},
        {"alpha": float("nan")},
        {"top_k": -1},
        {"vector": [1.0]},
        {"vector": [1.0, 2.0, 3.0]},
        {"vector": [0.0, 0.0]},
        {"vector": [1.0, float("nan")]},
        {"vector": [1.0, float("inf")]},
        {"vector": [1.0, 1e39]},
        {"vector": []},
        {"vector": [[1.0, 2.0]]},
        {"vector": [[1.0], 2.0]},
        {"vector": ["1", "2"]},
        {"vector": [1.0], "alpha": 0.0},
        {"vector": [float("nan"), 1.0], "top_k": 0},
    ],
)
def test_what_cannot_be_searched_with_is_refused(
    file: SessionFile, options: dict[str, Any]
) -> None:
    with pytest.raises(InvalidArgumentError):
        search(file, text="refund", **options)


def test_a_session_without_documents_or_vectors_answers_too(tmp_path: Path) -> None:
    empty = open_session_file(tmp_path / "empty.sqlite3", session="empty", durability="normal")
    assert search(empty, text="refund", vector=[1.0, 2.0]) == []
    with empty.writing() as conn:
        put_documents(conn, [Document("a", "refund")], space=None, now_ms=1)
    assert ids(search(empty, text="refund", vector=[1.0, 2.0])) == ["a"]
    assert search(empty, text="other", vector=[1.0, 2.0]) == []
    empty.close()


def test_what_is_deleted_or_changed_is_not_found_as_it_was(file: SessionFile) -> None:
    search(file, text="refund", vector=[1, 0])
    with file.writing() as conn:
        delete_documents(conn, ["east"], now_ms=9)
        changed = Document("north", "a refund now", vector=np.array([1, 0], "f4"))
        put_documents(conn, [changed], space=SPACE, now_ms=9)
    hits = search(file, text="refund", vector=[1, 0], alpha=1.0)
    assert ids(hits) == ["north", "north-east", "west"]
    assert hits[0].text == "a refund now"
    assert ids(search(file, text="issued", alpha=0.0)) == []


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    text=st.text(st.characters(codec=None), max_size=40),
    alpha=st.floats(0, 1),
    with_vector=st.booleans(),
)
def test_no_text_raises(file: SessionFile, text: str, alpha: float, with_vector: bool) -> None:
    hits = search(file, text=text, vector=[1, 1] if with_vector else None, alpha=alpha)
    assert all(0 <= hit.score <= 1 for hit in hits)
    if not text.strip() and not with_vector:
        assert hits == []


queries = st.text(st.sampled_from("refund invoice\nnorth:"), max_size=20) | st.sampled_from(
    ["refund", "an invoice", "what was issued?", "Ann refund", "退款"]
)


@settings(deadline=None)
@given(
    texts=st.lists(st.sampled_from(["refund", "Ann: an invoice", "Bob: 退款", ""]), max_size=12),
    asked=st.lists(
        st.tuples(queries, st.floats(0, 1), st.none() | st.tuples(st.just(1.0), st.floats(-2, 2)))
    ),
    seed=st.integers(0, 3),
)
def test_a_small_device_gets_the_same_answers(
    texts: list[str],
    asked: list[tuple[str, float, tuple[float, float] | None]],
    seed: int,
) -> None:
    rows = np.random.default_rng(seed).standard_normal((len(texts), 2)).astype("f4")
    with tempfile.TemporaryDirectory() as directory:
        file = open_session_file(Path(directory) / "s.sqlite3", session="s", durability="normal")
        with file.writing() as conn:
            put_documents(
                conn,
                [
                    Document(f"{i}", text, vector=row if i % 4 else None)
                    for i, (text, row) in enumerate(zip(texts, rows, strict=True))
                ],
                space=SPACE,
                now_ms=5,
            )
        for text, alpha, vector in asked:
            plain, small = (
                search(file, text=text, alpha=alpha, vector=vector, top_k=9, low_memory=low)
                for low in (False, True)
            )
            assert [hit.blended for hit in small] == pytest.approx([hit.blended for hit in plain])
            assert {hit.id: hit.score for hit in small} == pytest.approx(
                {hit.id: hit.score for hit in plain}
            )
        file.close()


def test_the_turn_after_a_question_is_found_by_the_question_s_words(tmp_path: Path) -> None:
    file = open_session_file(tmp_path / "t.sqlite3", session="t", durability="normal")
    thread = ["hello", "when is the refund due?", "on monday", "and the weather?", "it rains"]
    rows = np.array([[1, 0], [0, 1], [1, 0.1], [1, 0], [1, 0.1]], "f4")
    with file.writing() as conn:
        put_documents(
            conn,
            [Document(text, text, vector=row) for text, row in zip(thread, rows, strict=True)],
            space=SPACE,
            now_ms=5,
        )
    found = ids(search(file, text="refund", vector=[0, 1], top_k=2))
    assert found == ["when is the refund due?", "on monday"]
    file.close()


def test_of_two_turns_alike_the_one_by_whom_the_question_names_comes_first(
    tmp_path: Path,
) -> None:
    file = open_session_file(tmp_path / "t.sqlite3", session="t", durability="normal")
    speakers = ["Ann", "Bob", "Cy", "Ann", "Bob", "Cy", "Ann"]
    with file.writing() as conn:
        documents = [
            Document(f"{who}-{i}", "a refund", {"who": who}, vector=np.array([1, 1], "f4"))
            for i, who in enumerate(speakers)
        ]
        put_documents(conn, documents, space=SPACE, now_ms=5)
    for who in ("Ann", "Bob", "Cy"):
        found = ids(search(file, text=f"what did {who} say of a refund?", vector=[1, 0], top_k=1))
        assert found[0].startswith(who)
    file.close()


def thread(file: SessionFile, texts: list[str], **metadata: list[str]) -> None:
    with file.writing() as conn:
        put_documents(
            conn,
            [
                Document(
                    f"{i}",
                    text,
                    {name: values[i] for name, values in metadata.items()},
                    vector=np.array([1, 1], "f4"),
                )
                for i, text in enumerate(texts)
            ],
            space=SPACE,
            now_ms=5,
        )


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[SessionFile]:
    opened = open_session_file(tmp_path / "t.sqlite3", session="t", durability="normal")
    yield opened
    opened.close()


def test_a_hit_comes_with_the_turns_around_it(empty: SessionFile) -> None:
    thread(empty, ["a", "b", "refund", "d", "e"])
    for low in (False, True):
        (hit,) = search(empty, text="refund", context=2, top_k=1, alpha=0.0, low_memory=low)
        assert [turn.text for turn in hit.before] == ["a", "b"]
        assert [turn.text for turn in hit.after] == ["d", "e"]
        (hit,) = search(empty, text="a", context=3, top_k=1, alpha=0.0, low_memory=low)
        assert [turn.text for turn in hit.before] == []
        assert [turn.text for turn in hit.after] == ["b", "refund", "d"]
        (hit,) = search(empty, text="refund", top_k=1, low_memory=low)
        assert (hit.before, hit.after) == ((), ())


def test_turns_around_a_hit_that_a_filter_hides_are_not_shown(empty: SessionFile) -> None:
    thread(empty, list("abcdefg"), channel=list("xyxyxyx"))
    only = parse_filter({"field": "channel", "condition": {"$eq": "x"}}, now_ms=0)
    (hit,) = search(empty, text="e", context=1, top_k=1, alpha=0.0, filter=only)
    assert [turn.text for turn in (*hit.before, hit, *hit.after)] == ["c", "e", "g"]


def test_what_is_newer_is_preferred_when_asked(empty: SessionFile) -> None:
    thread(
        empty,
        ["refund", "refund", "refund", "other"],
        when=["2025-01-03", "2025-01-09", "2025-01-01", "2025-01-05"],
    )
    for how in ({"alpha": 0.0}, {"alpha": 0.5, "vector": [1, 0], "threaded": False}):
        found = ids(search(empty, text="refund", recency=0.5, **how))
        assert [id for id in found if id != "3"] == ["1", "0", "2"]
    for refused in (-0.1, 1.1, float("nan")):
        with pytest.raises(InvalidArgumentError):
            search(empty, text="refund", recency=refused)


def test_a_shelf_has_no_neighbours_and_no_speakers(empty: SessionFile) -> None:
    thread(empty, ["Ann: hello", "Bob: the refund", "Ann: x", "Ann: y", "Ann: z"])
    shelf = search(empty, text="Ann refund", vector=[1, 0], threaded=False)
    assert shelf[0].id == "1"
    assert {hit.blended for hit in shelf[1:]} != {shelf[0].blended}
    assert all(hit.blended <= 1.0 for hit in shelf)
    assert any(hit.blended > 1.0 for hit in search(empty, text="Ann refund", vector=[1, 0]))


@pytest.mark.parametrize("given", [{"context": -1}, {"context": 1, "group_by": GROUPS}])
def test_context_that_cannot_be_is_refused(empty: SessionFile, given: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError, match="context"):
        search(empty, text="x", **given)
