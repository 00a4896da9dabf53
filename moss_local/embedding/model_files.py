"""What a model is: a description that names a vector space, a graph and a tokenizer.

A user's model is a folder with `model.onnx`, `tokenizer.json` and `model.json`. The description
is read strictly, because a space is named by it: a key that was meant and misspelt would give the
same name to other vectors.

    {"id": "acme-e5", "dim": 384, "max_tokens": 512, "pooling": "mean",
     "query_prefix": "query: ", "document_prefix": "passage: "}

What holds (tests/moss_local/test_embedding_models.py): the same description gives the same
fingerprint wherever the folder lies and in whatever order its keys stand.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b, file_digest
from pathlib import Path
from typing import Any, Literal

from moss_local.errors import ModelCorruptError, ModelNotFoundError
from moss_sync import InvalidArgumentError, VectorSpace

Pooling = Literal["mean", "cls", "none"]
"""How token vectors become one: their mean, the first of them, or the graph does it itself."""

MAX_DIM = 4096
"""Components; the widest public embedding models have this many."""

MAX_TOKENS = 8192
"""Past this a text should be cut into documents rather than into a longer window."""

MAX_DESCRIPTION_BYTES = 64 * 1024

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_POOLINGS = ("mean", "cls", "none")
_REQUIRED = ("id", "dim", "max_tokens", "pooling")
_OPTIONAL = ("normalise", "query_prefix", "document_prefix", "revision", "sha256")
GRAPH_FILE, TOKENIZER_FILE, DESCRIPTION_FILE = "model.onnx", "tokenizer.json", "model.json"


@dataclass(frozen=True, slots=True)
class Description:
    """What a model says of itself.

    Attributes:
        id: What users call it and sessions store; never the path.
        dim: Components per vector.
        max_tokens: Past this a text is cut.
        query_prefix: Put before a question.
        document_prefix: Put before what may answer it.
        revision: Free text; change it when the weights change what vectors mean.
        sha256: Expected hash by file name; checked on load, no part of the space's name.
    """

    id: str
    dim: int
    max_tokens: int
    pooling: Pooling
    query_prefix: str = ""
    document_prefix: str = ""
    revision: str = ""
    sha256: Mapping[str, str] = field(default_factory=dict)

    @property
    def space(self) -> VectorSpace:
        return VectorSpace(id=self.id, fingerprint=fingerprint(self), dim=self.dim, dtype="f2")


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A loaded model: the graph as bytes, or as a path where weights may lie beside it."""

    graph: bytes | Path
    tokenizer: bytes


def fingerprint(description: Description) -> str:
    """Return the name of the vector space: a hash of all that decides what a vector means."""
    facts = {
        "id": description.id,
        "dim": description.dim,
        "max_tokens": description.max_tokens,
        "pooling": description.pooling,
        "normalise": True,
        "query_prefix": description.query_prefix,
        "document_prefix": description.document_prefix,
        "revision": description.revision,
    }
    canonical = json.dumps(facts, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return blake2b(canonical.encode("ascii"), digest_size=16, person=b"moss-space").hexdigest()


def read_description(folder: Path) -> Description:
    """Return the description of the model in a folder.

    Raises:
        ModelNotFoundError: the folder, or its description, is not there.
        InvalidArgumentError: the description is wrong; says which key and why.
    """
    path = folder / DESCRIPTION_FILE
    try:
        with path.open("rb") as file:
            data = file.read(MAX_DESCRIPTION_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError) as error:
        missing = path if folder.is_dir() else folder
        raise ModelNotFoundError(
            f"there is no model at {missing}",
            hint=f"a model is a folder with {GRAPH_FILE}, {TOKENIZER_FILE} and {DESCRIPTION_FILE}",
        ) from error
    except OSError as error:
        raise ModelNotFoundError(
            f"the model at {folder} cannot be read: {error.strerror}",
            hint="check its name, and who owns its files and their modes",
        ) from error
    if len(data) > MAX_DESCRIPTION_BYTES:
        raise InvalidArgumentError(f"{path} is longer than {MAX_DESCRIPTION_BYTES} bytes")
    try:
        facts = json.loads(data)
    except ValueError as error:
        raise InvalidArgumentError(f"{path} is not JSON: {error}") from error
    return parse_description(facts, source=str(path))


def parse_description(facts: Any, *, source: str) -> Description:
    """Return the description that a decoded model.json holds.

    Args:
        source: What messages call it.
    Raises:
        InvalidArgumentError: a key is missing, unknown or has a wrong value.
    """

    def require(holds: bool, message: str) -> None:
        if not holds:
            raise InvalidArgumentError(
                f"{source}: {message}",
                hint=f"keys: {', '.join(_REQUIRED)}; optional: {', '.join(_OPTIONAL)}",
            )

    require(isinstance(facts, dict), "a description is a JSON object")
    unknown = sorted(set(facts) - {*_REQUIRED, *_OPTIONAL})
    require(not unknown, f"unknown key {unknown[0]!r}" if unknown else "")
    missing = [key for key in _REQUIRED if key not in facts]
    require(not missing, f"the key {missing[0]!r} is missing" if missing else "")
    name = facts["id"]
    require(
        isinstance(name, str) and _ID.fullmatch(name) is not None,
        f"id is {name!r}; it must be 1 to 64 letters, digits, dots, underscores or hyphens",
    )
    for key, limit in (("dim", MAX_DIM), ("max_tokens", MAX_TOKENS)):
        value = facts[key]
        whole = isinstance(value, int) and not isinstance(value, bool)
        require(whole and 1 <= value <= limit, f"{key} is {value!r}; it must be 1 to {limit}")
    pooling = facts["pooling"]
    require(
        isinstance(pooling, str) and pooling in _POOLINGS,
        f"pooling is {pooling!r}; it must be one of {', '.join(_POOLINGS)}",
    )
    require(
        facts.get("normalise", True) is True,
        "normalise is not true; vectors are compared by direction and always kept at length one",
    )
    for key in ("query_prefix", "document_prefix", "revision"):
        require(isinstance(facts.get(key, ""), str), f"{key} must be a string")
    hashes = facts.get("sha256", {})
    require(
        isinstance(hashes, dict)
        and set(hashes) <= {GRAPH_FILE, TOKENIZER_FILE}
        and all(isinstance(each, str) and _SHA256.fullmatch(each) for each in hashes.values()),
        f"sha256 must give 64 lower-case hex digits for {GRAPH_FILE} or {TOKENIZER_FILE}",
    )
    return Description(
        id=name,
        dim=facts["dim"],
        max_tokens=facts["max_tokens"],
        pooling=pooling,
        query_prefix=facts.get("query_prefix", ""),
        document_prefix=facts.get("document_prefix", ""),
        revision=facts.get("revision", ""),
        sha256=hashes,
    )


def load_folder(folder: Path, description: Description) -> ModelFiles:
    """Return the files of a user's model.

    Raises:
        ModelNotFoundError: the graph or the tokenizer is not in the folder.
        ModelCorruptError: one is not what the description's sha256 says.
    """
    graph, tokenizer = folder / GRAPH_FILE, folder / TOKENIZER_FILE
    for path in (graph, tokenizer):
        if not path.is_file():
            raise ModelNotFoundError(
                f"the model {description.id!r} lacks {path}", hint=f"put {path.name} there"
            )
        expected = description.sha256.get(path.name)
        if expected is not None and (found := _sha256_of(path)) != expected:
            raise ModelCorruptError(
                f"{path} is not the file that {DESCRIPTION_FILE} describes",
                hint=f"restore it, or correct sha256 in {folder / DESCRIPTION_FILE}",
                detail=f"sha256 {found}, expected {expected}",
            )
    return ModelFiles(graph=graph, tokenizer=tokenizer.read_bytes())


def _sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()
