"""Which model a name means, and what is said about a folder that is none."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

from moss_local.embedding.base import as_stored
from moss_local.embedding.model_files import parse_description, read_description
from moss_local.embedding.models import (
    custom_space,
    default_models_dir,
    open_embedder,
    resolve_model,
)
from moss_local.errors import ModelCorruptError, ModelNotFoundError
from moss_sync import InvalidArgumentError, MossError, VectorSpace
from tests.tiny_model import DIM, describe, write_tiny_model


def vector_of(folder: Path, text: str = "cat") -> np.ndarray:
    return np.asarray(open_embedder(resolve_model(str(folder))).embed([text])[0])


def test_the_built_in_models_need_no_directory() -> None:
    minilm = resolve_model("moss-minilm")
    assert (minilm.id, minilm.space and minilm.space.dim) == ("moss-minilm", 384)
    assert resolve_model("custom").space is None


def test_importing_and_resolving_loads_nothing_heavy() -> None:
    program = (
        "import sys; from moss_local.embedding.models import open_embedder, resolve_model;"
        "open_embedder(resolve_model('moss-minilm'));"
        "print({'onnx', 'onnxruntime', 'tokenizers'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "set()\n"


def test_one_embedder_serves_the_whole_process(tmp_path: Path) -> None:
    folder = write_tiny_model(tmp_path / "tiny")
    assert open_embedder(resolve_model("moss-minilm")) is open_embedder(
        resolve_model("moss-minilm")
    )
    assert open_embedder(resolve_model(str(folder))) is open_embedder(
        resolve_model(f"{folder}/../tiny")
    )


def test_custom_has_no_embedder() -> None:
    with pytest.raises(InvalidArgumentError, match="custom"):
        open_embedder(resolve_model("custom"))


def test_custom_spaces_differ_by_their_width_and_keep_float32() -> None:
    assert custom_space(8) == custom_space(8)
    assert custom_space(8).fingerprint != custom_space(9).fingerprint
    assert (custom_space(8).id, custom_space(8).dtype) == ("custom", "f4")


def test_a_name_is_looked_for_in_the_models_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_tiny_model(tmp_path / "moss-mediumlm", id="moss-mediumlm")
    by_argument = resolve_model("moss-mediumlm", models_dir=tmp_path)
    assert by_argument.folder == folder
    monkeypatch.setenv("MOSS_MODELS_DIR", str(tmp_path))
    assert resolve_model("moss-mediumlm") == by_argument
    assert by_argument.space == resolve_model(str(folder)).space
    assert by_argument.space is not None
    assert (by_argument.space.id, by_argument.space.dim) == ("moss-mediumlm", DIM)


def test_a_model_is_found_by_the_id_that_it_declares_whatever_its_folder_is_called(
    tmp_path: Path,
) -> None:
    write_tiny_model(tmp_path / "b", id="acme-1")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "model.json").write_text("{broken")
    assert resolve_model("acme-1", models_dir=tmp_path).folder == tmp_path / "b"


def test_a_missing_name_says_where_to_put_the_folder() -> None:
    with pytest.raises(ModelNotFoundError) as caught:
        resolve_model("moss-mediumlm")
    assert caught.value.hint is not None
    assert str(default_models_dir() / "moss-mediumlm") in caught.value.hint
    assert caught.value.code == "MODEL_UNAVAILABLE"


@pytest.mark.parametrize("name", ["x" * 5000, "./" + "x" * 5000])
def test_a_name_that_no_folder_can_have_is_no_model(name: str) -> None:
    with pytest.raises(ModelNotFoundError):
        resolve_model(name)


@pytest.mark.parametrize("name", ["a\0b", "./\ud800", "\ud800"])
def test_a_name_that_no_file_system_can_hold_is_refused(name: str) -> None:
    with pytest.raises(InvalidArgumentError, match="model_id '"):
        resolve_model(name)


@pytest.mark.parametrize("path", ["./nowhere", "~/nowhere", "/no/where", ".."])
def test_a_missing_folder_is_named(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "inner").mkdir()
    monkeypatch.chdir(tmp_path / "inner")
    with pytest.raises(ModelNotFoundError, match="there is no model at"):
        resolve_model(path)


@pytest.mark.parametrize("name", ["", "a\0b", None, 7])
def test_what_is_no_name_is_refused(name: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="model_id"):
        resolve_model(name)


@pytest.mark.parametrize("taken", ["moss-minilm", "custom"])
def test_a_folder_cannot_take_the_name_of_a_built_in_model(tmp_path: Path, taken: str) -> None:
    folder = write_tiny_model(tmp_path / "tiny", id=taken)
    with pytest.raises(InvalidArgumentError, match="taken"):
        resolve_model(str(folder))


def test_the_fingerprint_is_of_the_description_and_not_of_the_place(tmp_path: Path) -> None:
    one = write_tiny_model(tmp_path / "one")
    other = write_tiny_model(tmp_path / "deep" / "other")
    reordered = dict(reversed(describe(normalise=True, query_prefix="").items()))
    (other / "model.json").write_text(json.dumps(reordered, indent=3))
    assert resolve_model(str(one)).space == resolve_model(str(other)).space


@pytest.mark.parametrize(
    "change",
    [
        {"id": "other"},
        {"dim": 9},
        {"max_tokens": 17},
        {"pooling": "cls"},
        {"query_prefix": "q: "},
        {"document_prefix": "d: "},
        {"revision": "2"},
    ],
    ids=str,
)
def test_whatever_changes_the_vectors_changes_the_fingerprint(change: dict[str, Any]) -> None:
    before = parse_description(describe(), source="a").space
    assert parse_description(describe(**change), source="a").space.fingerprint != before.fingerprint


def test_the_expected_hashes_are_no_part_of_the_space() -> None:
    described = describe(sha256={"model.onnx": "0" * 64})
    space = parse_description(described, source="a").space
    assert space == parse_description(describe(), source="a").space


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"id": None}, "'id' is missing"),
        ({"pooling": None}, "'pooling' is missing"),
        ({"dims": 8}, "'dims'"),
        ({"id": ""}, "id is ''"),
        ({"id": "a/b"}, "id is 'a/b'"),
        ({"id": "-a"}, "id is"),
        ({"id": "a" * 65}, "id is"),
        ({"id": 7}, "id is 7"),
        ({"dim": 0}, "dim is 0"),
        ({"dim": "8"}, "dim is '8'"),
        ({"dim": True}, "dim is True"),
        ({"dim": 8.0}, "dim is 8.0"),
        ({"dim": 100_000}, "dim is 100000"),
        ({"max_tokens": -1}, "max_tokens is -1"),
        ({"pooling": "max"}, "pooling is 'max'"),
        ({"pooling": ["mean"]}, "pooling is"),
        ({"normalise": False}, "normalise"),
        ({"normalise": 1}, "normalise"),
        ({"query_prefix": 1}, "query_prefix"),
        ({"revision": []}, "revision"),
        ({"sha256": {"model.onnx": "abc"}}, "sha256"),
        ({"sha256": {"other": "0" * 64}}, "sha256"),
        ({"sha256": "0" * 64}, "sha256"),
    ],
    ids=str,
)
def test_a_wrong_description_is_refused_by_the_name_of_its_key(
    tmp_path: Path, change: dict[str, Any], named: str
) -> None:
    path = tmp_path / "model.json"
    path.write_text(json.dumps(describe(**change)))
    with pytest.raises(InvalidArgumentError) as caught:
        read_description(tmp_path)
    assert named in str(caught.value)
    assert str(path) in str(caught.value)
    assert caught.value.hint is not None


@pytest.mark.parametrize("text", ["", "{", "[]", "7", "\ufffe", '"id"', "{}" + " " * 70_000])
def test_a_description_that_is_no_json_object_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "model.json").write_text(text, "utf-8")
    with pytest.raises(InvalidArgumentError):
        read_description(tmp_path)


@pytest.mark.parametrize("missing", ["model.onnx", "tokenizer.json"])
def test_a_missing_part_is_named_when_the_model_is_loaded(tmp_path: Path, missing: str) -> None:
    folder = write_tiny_model(tmp_path / "tiny")
    (folder / missing).unlink()
    with pytest.raises(ModelNotFoundError, match=missing.replace(".", r"\.")):
        vector_of(folder)


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json"])
def test_a_part_with_another_hash_than_described_is_corrupt(tmp_path: Path, name: str) -> None:
    folder = write_tiny_model(tmp_path / "tiny", sha256={name: "0" * 64})
    with pytest.raises(ModelCorruptError, match=name.replace(".", r"\.")):
        vector_of(folder)


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json"])
def test_a_part_that_is_garbage_is_corrupt(tmp_path: Path, name: str) -> None:
    folder = write_tiny_model(tmp_path / "tiny")
    (folder / name).write_bytes(b"garbage")
    with pytest.raises(ModelCorruptError):
        vector_of(folder)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({"inputs": ("input_ids", "pixels")}, "an input 'pixels'"),
        ({"integers": TensorProto.INT32, "graph_dim": 9}, "9 components, not 8"),
        ({"inputs": ("input_ids",), "pooling": "none", "graph_dim": 7}, "7 components, not 8"),
        ({"zero": True}, "length 0.0"),
    ],
    ids=["input", "width", "width of a sentence", "zero"],
)
def test_a_graph_that_does_not_fit_its_description_is_corrupt(
    tmp_path: Path, model: dict[str, Any], said: str
) -> None:
    folder = write_tiny_model(tmp_path / "tiny", **model)
    with pytest.raises(ModelCorruptError) as caught:
        vector_of(folder)
    assert said in str(caught.value)


def test_a_description_of_another_pooling_than_the_graphs_is_corrupt(tmp_path: Path) -> None:
    folder = write_tiny_model(tmp_path / "tiny", pooling="none")
    (folder / "model.json").write_text(json.dumps(describe(pooling="mean")))
    with pytest.raises(ModelCorruptError, match="pooling 'mean'"):
        vector_of(folder)


@pytest.mark.parametrize(
    "model",
    [
        {"inputs": ("input_ids",)},
        {"inputs": ("input_ids", "attention_mask")},
        {"integers": TensorProto.INT32},
        {"inputs": ("input_ids",), "pooling": "none"},
    ],
    ids=["ids only", "mask", "int32", "pooled inside"],
)
def test_models_of_every_shape_give_the_mean_of_their_tokens(
    tmp_path: Path, model: dict[str, Any]
) -> None:
    expected = vector_of(write_tiny_model(tmp_path / "plain"), "cat sat")
    found = vector_of(write_tiny_model(tmp_path / "tiny", **model), "cat sat")
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_cls_pooling_takes_the_first_token(tmp_path: Path) -> None:
    folder = write_tiny_model(tmp_path / "tiny", pooling="cls")
    # The tiny graph does not mix tokens, so the mark at the start is the same for every text.
    np.testing.assert_allclose(vector_of(folder, "cat"), vector_of(folder, "mat"), atol=1e-6)


def test_prefixes_go_before_questions_and_documents(tmp_path: Path) -> None:
    plain = open_embedder(resolve_model(str(write_tiny_model(tmp_path / "plain"))))
    model = write_tiny_model(tmp_path / "tiny", query_prefix="query: ", document_prefix="mat ")
    prefixed = open_embedder(resolve_model(str(model)))
    asked = prefixed.embed(["cat"], kind="query")
    np.testing.assert_allclose(asked, plain.embed(["query: cat"]), atol=1e-6)
    np.testing.assert_allclose(prefixed.embed(["cat"]), plain.embed(["mat cat"]), atol=1e-6)
    several = prefixed.embed(["cat"] * 3, kind="query")
    np.testing.assert_allclose(several, np.repeat(asked, 3, axis=0), atol=1e-6)


def test_an_empty_text_has_a_unit_vector_even_without_marks(tmp_path: Path) -> None:
    vector = vector_of(write_tiny_model(tmp_path / "tiny", marks=False), "")
    assert np.linalg.norm(vector) == pytest.approx(1)


def test_a_failed_load_is_tried_again(tmp_path: Path) -> None:
    folder = write_tiny_model(tmp_path / "tiny")
    tokenizer = (folder / "tokenizer.json").read_bytes()
    (folder / "tokenizer.json").unlink()
    embedder = open_embedder(resolve_model(str(folder)))
    with pytest.raises(ModelNotFoundError):
        embedder.embed(["cat"])
    (folder / "tokenizer.json").write_bytes(tokenizer)
    assert embedder.embed(["cat"]).shape == (1, DIM)


def test_rounding_for_storage_is_exact_for_float32_and_refuses_what_does_not_fit() -> None:
    half = VectorSpace("a", "", 2, "f2")
    single = VectorSpace("a", "", 2, "f4")
    vectors = np.array([[1 / 3, -0.1]], np.float32)
    assert np.array_equal(as_stored(vectors, single), vectors)
    assert np.array_equal(as_stored(vectors, half), vectors.astype(np.float16))
    for bad in (np.nan, np.inf, 1e6):
        with pytest.raises(MossError, match="float16"):
            as_stored(np.array([bad, 0], np.float32), half)
