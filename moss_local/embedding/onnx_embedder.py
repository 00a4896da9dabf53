"""An `Embedder` on ONNX Runtime: one text a run, loaded on first use.

One text a run means no padding, vectors that do not depend on what else is embedded, and a bulk
load that steps aside after each text. Two sessions share the work: *narrow* runs a text on one
core, and a bulk load runs several texts so at once, which loses nothing to waiting between nodes;
*wide* spreads one text over the cores, for the latency of a query where cores are idle (`Pace`
decides). Figures: docs/design/0002-embedding.md.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moss_local.embedding.base import Kind, Progress
from moss_local.embedding.model_files import Description, ModelFiles, Pooling
from moss_local.embedding.pace import Pace
from moss_local.embedding.tokens import Tokens
from moss_local.embedding.turns import Turns
from moss_local.errors import ModelCorruptError
from moss_local.settings import telemetry_is_off
from moss_sync import VectorSpace

WIDE_THREADS = 4
"""At most this many cores for one text: a short query has too little work for more."""

BULK_THREADS = 8
"""At most this many texts at once in a bulk load; the machine has other work too."""

Run = Callable[[NDArray[np.int64]], NDArray[np.float32]]


class OnnxEmbedder:
    """Embeds with a graph and a tokenizer; safe to call from several threads."""

    def __init__(
        self,
        description: Description,
        space: VectorSpace,
        load: Callable[[], ModelFiles],
        *,
        optimised: bool = False,
        breaks: re.Pattern[str] | None = None,
    ) -> None:
        """Remember how to load; nothing is read before the first text.

        Args:
            optimised: The graph is already as it should be run; the runtime must not rewrite it.
            breaks: See `Tokens`.
        """
        self._description = description
        self._space = space
        self._load = load
        self._optimised = optimised
        self._breaks = breaks
        self._turns = Turns()
        self._lock = threading.Lock()
        self._loaded: _Loaded | None = None

    @property
    def space(self) -> VectorSpace:
        return self._space

    @property
    def max_tokens(self) -> int:
        return self._description.max_tokens

    def __repr__(self) -> str:
        state = "ready" if self._loaded is not None else "not loaded"
        return f"<OnnxEmbedder {self._space.id!r} dim={self._space.dim} {state}>"

    def embed(
        self,
        texts: Sequence[str],
        *,
        kind: Kind = "document",
        progress: Progress | None = None,
    ) -> NDArray[np.float32]:
        """See `Embedder.embed`."""
        if not texts:
            return np.empty((0, self._space.dim), np.float32)
        about = self._description
        prefix = about.query_prefix if kind == "query" else about.document_prefix
        loaded = self._ready()
        if len(texts) == 1:
            with self._turns.single():
                vectors = loaded.vector(prefix + texts[0], loaded.fastest)[None]
            if progress is not None:
                progress(1, 1)
            return vectors

        def one(text: str) -> NDArray[np.float32]:
            self._turns.step_aside()
            return loaded.vector(prefix + text, loaded.narrow)

        workers = min(_cores(), BULK_THREADS, len(texts))
        return _in_parallel(one, texts, self._space.dim, workers, progress)

    def token_count(self, text: str) -> int:
        """See `Embedder.token_count`."""
        return self._ready().token_count(self._description.document_prefix + text)

    def warm_up(self) -> None:
        """Load now what the first query would load."""
        self.embed([""], kind="query")

    def close(self) -> None:
        """See `Embedder.close`. Calls under way finish on what they have."""
        with self._lock:
            self._loaded = None

    def _ready(self) -> _Loaded:
        with self._lock:
            if self._loaded is None:
                self._loaded = _Loaded(
                    self._description, self._load, optimised=self._optimised, breaks=self._breaks
                )
            return self._loaded


class _Loaded:
    """Sessions and tokenizer of one model."""

    def __init__(
        self,
        about: Description,
        load: Callable[[], ModelFiles],
        *,
        optimised: bool,
        breaks: re.Pattern[str] | None,
    ) -> None:
        self._about = about
        self._optimised = optimised
        self._pace = Pace()
        files = load()
        self._tokens = Tokens(files.tokenizer, max_tokens=about.max_tokens, breaks=breaks)
        self.narrow = self._session(files.graph, 1)
        cores = _cores()
        self.wide = (
            self.narrow if cores == 1 else self._session(files.graph, min(cores, WIDE_THREADS))
        )

    def fastest(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Run on one core or several, whichever has lately been faster for such a length."""
        if self.wide is self.narrow:
            return self.narrow(ids)
        way = self._pace.choose(ids.size)
        start = time.perf_counter()
        vector = self.wide(ids) if way == "wide" else self.narrow(ids)
        self._pace.took(way, ids.size, time.perf_counter() - start)
        return vector

    def vector(self, text: str, run: Run) -> NDArray[np.float32]:
        """Return the unit vector of a text, shape (dim,)."""
        ids = self._tokens.ids(text)
        if not len(ids):
            # A tokenizer without marks of its own finds nothing in an empty text. Some unit vector
            # must stand for "nothing"; this one is near to no text in particular.
            nothing = np.zeros(self._about.dim, np.float32)
            nothing[0] = 1
            return nothing
        vector = run(ids[None])
        length = float(np.sqrt(np.dot(vector, vector)))
        if not 0 < length < np.inf:
            raise ModelCorruptError(
                f"the model {self._about.id!r} gave a vector of length {length}",
                hint="the graph is damaged, or its pooling is not what the description says",
            )
        return vector / np.float32(length)

    def token_count(self, text: str) -> int:
        """Return how many tokens a text has, uncut."""
        return self._tokens.count(text)

    def _session(self, graph: bytes | Path, threads: int) -> Run:
        import onnxruntime as ort

        if telemetry_is_off():
            ort.disable_telemetry_events()  # older runtimes on Windows do not know the variable
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4  # what is fatal is raised; nothing is printed
        if self._optimised:
            # The runtime would fuse Add and LayerNormalization into a kernel five times slower.
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        # Workers spin between the nodes of a run, where waking them would cost more than the
        # node, and sleep as soon as it ends: by default one query keeps a core busy for 10 ms
        # and more after its answer.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        source = graph if isinstance(graph, bytes) else str(graph)
        try:
            session = ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the runtime's errors have no class in common but this
            raise ModelCorruptError(
                f"the graph of {self._about.id!r} cannot be run: {error}"
            ) from error
        shape = _shape_of(session, self._about)
        return _runner(session, shape)


@dataclass(frozen=True, slots=True)
class _Shape:
    """What a graph takes and gives."""

    ids: Any  # the numpy dtype of its integers
    mask: bool
    types: bool
    output: str
    pooling: Pooling


_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
_INTEGERS = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}


def _shape_of(session: Any, about: Description) -> _Shape:
    """Compare a graph with its description.

    Raises:
        ModelCorruptError: they do not fit each other.
    """

    def require(holds: bool, message: str) -> None:
        if not holds:
            raise ModelCorruptError(
                f"the graph of {about.id!r} does not fit its description: {message}",
                hint="export it with the inputs input_ids and attention_mask (int64), any batch "
                "and length, and with the output that pooling and dim describe",
            )

    inputs = {each.name: each for each in session.get_inputs()}
    unknown = sorted(set(inputs) - set(_INPUTS))
    require(not unknown, f"it has an input {unknown[0]!r}" if unknown else "")
    require("input_ids" in inputs, "it has no input 'input_ids'")
    kinds = {each.type for each in inputs.values()}
    require(len(kinds) == 1 and kinds <= set(_INTEGERS), f"its inputs are {sorted(kinds)}")
    for each in inputs.values():
        # A size that any text fits is a name or None in the graph; a batch of one fits as well.
        require(
            len(each.shape) == 2
            and each.shape[0] in (1, None, str(each.shape[0]))
            and not isinstance(each.shape[1], int),
            f"{each.name} is of shape {each.shape}",
        )
    # By position: exporters name outputs as they like, and put the tokens or the sentence first.
    output = session.get_outputs()[0]
    rank = 2 if about.pooling == "none" else 3
    require(output.type == "tensor(float)", f"its output is {output.type}")
    require(
        len(output.shape) == rank,
        f"pooling {about.pooling!r} needs an output of {rank} dimensions, not {output.shape}",
    )
    last = output.shape[-1]
    require(
        not isinstance(last, int) or last == about.dim,
        f"its vectors have {last} components, not {about.dim}",
    )
    return _Shape(
        ids=_INTEGERS[kinds.pop()],
        mask="attention_mask" in inputs,
        types="token_type_ids" in inputs,
        output=output.name,
        pooling=about.pooling,
    )


def _runner(session: Any, shape: _Shape) -> Run:
    def run(ids: NDArray[np.int64]) -> NDArray[np.float32]:
        given = {"input_ids": ids.astype(shape.ids, copy=False)}
        if shape.mask:
            given["attention_mask"] = np.ones_like(given["input_ids"])
        if shape.types:
            given["token_type_ids"] = np.zeros_like(given["input_ids"])
        (out,) = session.run([shape.output], given)
        result: NDArray[np.float32] = out[0]
        if shape.pooling == "mean":
            result = result.mean(axis=0)
        elif shape.pooling == "cls":
            result = result[0]
        return result

    return run


def _in_parallel(
    one: Callable[[str], NDArray[np.float32]],
    texts: Sequence[str],
    dim: int,
    workers: int,
    progress: Progress | None,
) -> NDArray[np.float32]:
    """Embed on this thread and `workers` - 1 others; the longest first, so that all end together.

    Progress is told on this thread only. The first error of any thread ends the work of all.
    """
    result = np.empty((len(texts), dim), np.float32)
    order = iter(sorted(range(len(texts)), key=lambda place: -len(texts[place])))
    lock = threading.Lock()
    done, errors = 0, list[BaseException]()

    def places() -> Iterator[int]:
        while True:
            with lock:
                place = None if errors else next(order, None)
            if place is None:
                return
            yield place

    def work(told: Progress | None) -> None:
        nonlocal done
        try:
            for place in places():
                result[place] = one(texts[place])
                with lock:
                    done += 1
                if told is not None:
                    told(done, len(texts))
        except BaseException as error:  # raised again by the caller's thread
            errors.append(error)

    threads = [
        threading.Thread(target=work, args=(None,), name=f"moss-embed-{number}", daemon=True)
        for number in range(1, workers)
    ]
    for thread in threads:
        thread.start()
    work(progress)
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    if progress is not None and workers > 1:
        progress(len(texts), len(texts))
    return result


def _cores() -> int:
    """Cores that this process may use: fewer than the machine has, inside a container."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
