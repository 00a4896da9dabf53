"""What every embedder promises, tried on the built-in model and on a folder of a user's own."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from moss_local.embedding.base import Embedder, as_stored
from moss_local.embedding.models import open_embedder, resolve_model
from tests.tiny_model import write_tiny_model

SCRIPTS = [
    "Customer reported a duplicate $49.99 charge.",
    "Der Kunde möchte sein Geld zurück.",
    "Où est mon remboursement ?",
    "Где мой возврат?",
    "Πού είναι τα χρήματά μου;",
    "我的订单在哪里",
    "返金はいつですか。カードに戻りますか",
    "환불 상태를 알려주세요",
    "أين استرداد أموالي؟",
    "איפה ההחזר שלי?",
    "मेरा पैसा कब वापस आएगा",
    "เงินคืนของฉันอยู่ที่ไหน",
    "Բարեւ ձեզ",
    "გამარჯობა",
    "👩‍👩‍👧‍👦 🏳️‍🌈 ½ ﬁ ™",
    "e\u0301 and \u00e9",
    "\u202eright to left\u202c",
]
ODD = ["", " ", "\n\t", "\0", "before\0after", "\ufeff", "\ufffd", "a" * 5000, "\u0301" * 300]

TOLERANCE = 1e-6
"""Largest difference of a component between a text alone and the same text among others: one text
is one run, so all that may differ is how float sums are shared between threads."""


@pytest.fixture(scope="module", params=["moss-minilm", "folder"])
def embedder(
    request: pytest.FixtureRequest,
    shared_cache: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Embedder:
    if request.param == "moss-minilm":
        return open_embedder(resolve_model("moss-minilm"), cache_dir=shared_cache)
    folder = write_tiny_model(tmp_path_factory.mktemp("models") / "tiny")
    return open_embedder(resolve_model(str(folder)))


def assert_unit_rows(vectors: np.ndarray, count: int, embedder: Embedder) -> None:
    assert vectors.shape == (count, embedder.space.dim)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_no_texts_give_no_rows_of_the_right_width(embedder: Embedder) -> None:
    vectors = embedder.embed([])
    assert vectors.shape == (0, embedder.space.dim)
    assert vectors.dtype == np.float32


@pytest.mark.parametrize("text", [*SCRIPTS, *ODD], ids=ascii)
def test_every_text_has_a_unit_vector(embedder: Embedder, text: str) -> None:
    assert_unit_rows(embedder.embed([text]), 1, embedder)


def test_rows_stand_in_the_order_of_the_texts_and_equal_the_texts_embedded_alone(
    embedder: Embedder,
) -> None:
    texts = [*SCRIPTS, *ODD, "word " * 400, *SCRIPTS]
    together = embedder.embed(texts)
    assert_unit_rows(together, len(texts), embedder)
    for text, row in zip(texts, together, strict=True):
        np.testing.assert_allclose(embedder.embed([text])[0], row, atol=TOLERANCE)


def test_a_text_has_the_same_vector_each_time(embedder: Embedder) -> None:
    # More than enough repetitions for the embedder to have tried every way it has to run.
    first = embedder.embed(["refund of the cat"])
    for _ in range(12):
        np.testing.assert_allclose(embedder.embed(["refund of the cat"]), first, atol=TOLERANCE)


def test_different_texts_have_different_vectors(embedder: Embedder) -> None:
    one, other = embedder.embed(["refund", "kitten"])
    assert float(one @ other) < 0.9


def test_a_text_is_cut_at_the_limit_and_not_before(embedder: Embedder) -> None:
    room = embedder.max_tokens - 2  # the two marks that both models put around a text
    full = " ".join(["cat"] * room)
    nearly = " ".join(["cat"] * (room - 1))
    cut, whole, other, shorter = embedder.embed(
        [f"{full} refund", full, f"{nearly} refund", nearly]
    )
    np.testing.assert_allclose(cut, whole, atol=TOLERANCE)
    assert np.abs(other - shorter).max() > 100 * TOLERANCE


def test_a_megabyte_of_text_is_its_beginning(embedder: Embedder) -> None:
    text = "money mat " * 105_000
    start = " ".join(text.split()[: embedder.max_tokens])
    vectors = embedder.embed([text, start])
    np.testing.assert_allclose(vectors[0], vectors[1], atol=TOLERANCE)


def test_threads_get_what_one_thread_gets(embedder: Embedder) -> None:
    loads = [[f"{text} {number}" for text in SCRIPTS[: 1 + number]] for number in range(8)]
    expected = [embedder.embed(load) for load in loads]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            for mine, alone in zip(pool.map(embedder.embed, loads), expected, strict=True):
                np.testing.assert_allclose(mine, alone, atol=TOLERANCE)


def test_progress_rises_to_the_number_of_texts_on_the_callers_thread(embedder: Embedder) -> None:
    told: list[tuple[int, int]] = []
    threads: set[int] = set()

    def progress(done: int, of: int) -> None:
        told.append((done, of))
        threads.add(threading.get_ident())

    embedder.embed([f"cat {number}" for number in range(40)], progress=progress)
    assert told == sorted(told)
    assert told[-1] == (40, 40)
    assert {of for _, of in told} == {40}
    assert threads == {threading.get_ident()}


def test_a_single_text_is_done_while_a_bulk_load_is_under_way(embedder: Embedder) -> None:
    answered: list[bool] = []

    def progress(done: int, of: int) -> None:
        if not answered:
            # The load cannot end before this returns, so the text did not wait for its end.
            with ThreadPoolExecutor(1) as pool:
                answered.append(pool.submit(embedder.embed, ["refund"]).result().shape[0] == 1)

    embedder.embed([f"cat {number}" for number in range(40)], progress=progress)
    assert answered == [True]


def test_an_error_in_progress_ends_the_load_and_harms_nothing(embedder: Embedder) -> None:
    def refuse(done: int, of: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        embedder.embed(["cat", "mat", "sat"] * 10, progress=refuse)
    assert_unit_rows(embedder.embed(["cat", "mat"]), 2, embedder)


def test_a_closed_embedder_loads_again(embedder: Embedder) -> None:
    before = embedder.embed(["money"])
    embedder.close()
    embedder.close()
    np.testing.assert_allclose(embedder.embed(["money"]), before, atol=TOLERANCE)


def test_vectors_survive_storage_once_rounded(embedder: Embedder) -> None:
    vectors = embedder.embed(SCRIPTS)
    stored = as_stored(vectors, embedder.space)
    assert np.array_equal(as_stored(stored, embedder.space), stored)
    assert np.array_equal(stored.astype("<f2").astype(np.float32), stored)
    np.testing.assert_allclose(stored, vectors, atol=5e-4)
