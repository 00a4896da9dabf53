"""Single texts go before bulk loads, and cannot stop them."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from moss_local.embedding import turns
from moss_local.embedding.turns import Turns


def test_a_load_goes_on_at_once_where_nobody_else_embeds() -> None:
    Turns().step_aside()


def test_a_load_waits_for_all_single_texts_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "PATIENCE_S", 60.0)
    order = Turns()
    waiting, passed = threading.Event(), threading.Event()

    def load() -> None:
        waiting.set()
        order.step_aside()
        passed.set()

    with ThreadPoolExecutor(1) as pool:
        with order.single():
            with order.single():
                pool.submit(load)
                assert waiting.wait(10)
            assert not passed.is_set()
        assert passed.wait(10)


def test_a_single_text_that_fails_holds_nobody_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "PATIENCE_S", 60.0)
    order = Turns()
    with pytest.raises(ZeroDivisionError), order.single():
        raise ZeroDivisionError
    order.step_aside()


def test_an_unbroken_stream_of_single_texts_does_not_stop_a_load(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(turns, "PATIENCE_S", 0.001)
    order = Turns()
    with order.single():
        order.step_aside()
