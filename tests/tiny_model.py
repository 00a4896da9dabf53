"""A model folder small enough to be made in a test: 8 components, a word a token."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

DIM = 8
WORDS = ["[UNK]", "[CLS]", "[SEP]", "cat", "kitten", "sat", "mat", "refund", "money", "query:"]


def describe(**changes: Any) -> dict[str, Any]:
    """Return a description; a change to None leaves the key out."""
    facts: dict[str, Any] = {
        "id": "tiny",
        "dim": DIM,
        "max_tokens": 16,
        "pooling": "mean",
        **changes,
    }
    return {key: value for key, value in facts.items() if value is not None}


def write_tiny_model(
    folder: Path,
    *,
    inputs: tuple[str, ...] = ("input_ids", "attention_mask", "token_type_ids"),
    integers: int = TensorProto.INT64,
    marks: bool = True,
    zero: bool = False,
    **changes: Any,
) -> Path:
    """Write model.onnx, tokenizer.json and model.json into a new folder.

    Args:
        inputs: What the graph takes besides, or instead of, what it needs.
        integers: The element type of its inputs.
        marks: The tokenizer puts [CLS] and [SEP] around a text.
        zero: Every token's vector is zero.
        changes: Of the description; "graph_dim" changes the graph and not the description.
    """
    folder.mkdir(parents=True)
    dim = changes.pop("graph_dim", DIM)
    facts = describe(**changes)
    (folder / "model.json").write_text(json.dumps(facts), "utf-8")
    _tokenizer(marks).save(str(folder / "tokenizer.json"))
    onnx.save(_graph(inputs, integers, facts["pooling"], dim, zero), str(folder / "model.onnx"))
    return folder


def _tokenizer(marks: bool) -> Tokenizer:
    tokenizer = Tokenizer(
        models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]")
    )
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if marks:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
        )
    return tokenizer


def _graph(
    inputs: tuple[str, ...], integers: int, pooling: str, dim: int, zero: bool
) -> onnx.ModelProto:
    table = np.random.default_rng(7).standard_normal((len(WORDS), dim)).astype(np.float32)
    if zero:
        table[:] = 0
    constants = [numpy_helper.from_array(table, "table")]
    nodes = [helper.make_node("Gather", ["table", "input_ids"], ["rows"])]
    out = "rows"
    for name in inputs:
        if name == "attention_mask":  # padding would count for nothing
            constants.append(numpy_helper.from_array(np.array([2]), "last"))
            nodes.append(helper.make_node("Cast", [name], ["mask"], to=TensorProto.FLOAT))
            nodes.append(helper.make_node("Unsqueeze", ["mask", "last"], ["mask3"]))
            nodes.append(helper.make_node("Mul", [out, "mask3"], ["masked"]))
            out = "masked"
    shape: list[str | int] = ["batch", "tokens", dim]
    if pooling == "none":
        constants.append(numpy_helper.from_array(np.array([1]), "middle"))
        nodes.append(helper.make_node("ReduceMean", [out, "middle"], ["pooled"], keepdims=0))
        out, shape = "pooled", ["batch", dim]
    nodes.append(helper.make_node("Identity", [out], ["vectors"]))
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(name, integers, ["batch", "tokens"]) for name in inputs],
        [helper.make_tensor_value_info("vectors", TensorProto.FLOAT, shape)],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
