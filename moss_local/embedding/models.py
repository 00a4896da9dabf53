"""Which models there are, where they lie, and one embedder of each for the whole process.

A model goes by a name or by a path. "moss-minilm" is built in; "custom" means that the caller
brings vectors; every other name is a folder in the models directory (`MOSS_MODELS_DIR`, or
`models` in the user's data directory), which is also how "moss-mediumlm" is provided. Nothing is
ever downloaded. Importing this module loads neither the runtime nor a tokenizer.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path

import platformdirs

from moss_local.arguments import path_of
from moss_local.embedding import minilm
from moss_local.embedding.base import Embedder
from moss_local.embedding.model_files import (
    DESCRIPTION_FILE,
    Description,
    load_folder,
    read_description,
)
from moss_local.errors import ModelNotFoundError
from moss_local.settings import models_dir_of_environment
from moss_sync import InvalidArgumentError, MossError, VectorSpace

MINILM_ID = "moss-minilm"
CUSTOM_ID = "custom"


@dataclass(frozen=True, slots=True)
class Model:
    """A model that was found; nothing of it is loaded.

    Attributes:
        id: What users call it and sessions store.
        space: Its vectors' space; None for "custom", whose space the first vector decides.
        description: What it says of itself; None for "custom".
        folder: Where a user's model lies; None for "moss-minilm" and "custom".
    """

    id: str
    space: VectorSpace | None
    description: Description | None = None
    folder: Path | None = None


def custom_space(dim: int) -> VectorSpace:
    """Return the space of a session whose caller brings vectors of `dim` components, as float32."""
    name = blake2b(f"custom:{dim}".encode(), digest_size=16, person=b"moss-space").hexdigest()
    return VectorSpace(id=CUSTOM_ID, fingerprint=name, dim=dim, dtype="f4")


def resolve_model(model_id: str, *, models_dir: Path | None = None) -> Model:
    """Return the model of this name or path; reads no more than its description.

    Args:
        model_id: "moss-minilm", "custom", a path to a model's folder (anything with a separator,
            or ".", ".." or "~" at its start), the name of a folder in the models directory, or
            the id that a model there declares.
        models_dir: The models directory; None takes MOSS_MODELS_DIR, else the user's own.
    Raises:
        InvalidArgumentError: the name is no name, or the folder's description is wrong.
        ModelNotFoundError: there is no such model; the hint says where to put it.
    """
    if not isinstance(model_id, str) or not model_id:
        raise InvalidArgumentError(
            f"model_id is {model_id!r}; it must be a model's name or folder",
            hint='such as "moss-minilm", "custom" or "path/to/folder"',
        )
    path_of(model_id, "model_id")
    if model_id == MINILM_ID:
        return Model(MINILM_ID, minilm.SPACE, minilm.DESCRIPTION)
    if model_id == CUSTOM_ID:
        return Model(CUSTOM_ID, None)
    if _is_path(model_id):
        return _in_folder(Path(model_id).expanduser())
    directory = _models_dir() if models_dir is None else models_dir
    if os.path.isdir(directory / model_id):  # unlike Path.is_dir not of names that are too long
        return _in_folder(directory / model_id)
    declared = _declared(directory, model_id)
    if declared is not None:
        return declared
    raise ModelNotFoundError(
        f"there is no model {model_id!r} on this machine",
        hint=f"put its folder (model.onnx, tokenizer.json, {DESCRIPTION_FILE}) at "
        f'{directory / model_id}, or name the folder: model_id="path/to/folder"',
    )


def open_embedder(model: Model, *, cache_dir: Path | None = None) -> Embedder:
    """Return the process's one embedder of a model; loads nothing before its first text.

    Args:
        cache_dir: Where the built graph of "moss-minilm" is kept; None takes the user's cache
            directory. Used by the call that makes the embedder, and ignored by later ones.
    Raises:
        InvalidArgumentError: the model is "custom", whose caller brings vectors.
    """
    if model.description is None or model.space is None:
        raise InvalidArgumentError(
            f"the model {model.id!r} makes no vectors; the caller brings them",
            hint="pass an embedding with each document and query, or use model_id='moss-minilm'",
        )
    folder = None if model.folder is None else model.folder.resolve()
    key = (os.getpid(), model.space, folder)
    with _lock:
        known = _embedders.get(key)
        if known is None:
            known = _embedders[key] = _make(model.description, model.space, folder, cache_dir)
        return known


def default_models_dir() -> Path:
    """Return `models` in the user's data directory."""
    return Path(platformdirs.user_data_dir("moss_local")) / "models"


def _models_dir() -> Path:
    return models_dir_of_environment() or default_models_dir()


def _is_path(model_id: str) -> bool:
    separators = {os.sep, os.altsep or os.sep}
    return model_id.startswith((".", "~")) or any(each in model_id for each in separators)


def _in_folder(folder: Path) -> Model:
    description = read_description(folder)
    if description.id in (MINILM_ID, CUSTOM_ID):
        raise InvalidArgumentError(
            f"{folder / DESCRIPTION_FILE}: the id {description.id!r} is taken",
            hint="give the model an id of its own",
        )
    return Model(description.id, description.space, description, folder)


def _declared(directory: Path, model_id: str) -> Model | None:
    """Find the folder whose description declares this id: folders may be called anything."""
    try:
        folders = sorted(each for each in directory.iterdir() if each.is_dir())
    except OSError:
        return None  # no models directory: the caller's message says where one would be
    for folder in folders:
        try:
            found = _in_folder(folder)
        except MossError:
            continue  # a folder with a broken description declares no id; naming it says what is
        if found.id == model_id:
            return found
    return None


_lock = threading.Lock()
_embedders: dict[tuple[int, VectorSpace, Path | None], Embedder] = {}
"""By process id too: a forked child has the parent's objects but not the runtime's threads."""


def _make(
    description: Description, space: VectorSpace, folder: Path | None, cache_dir: Path | None
) -> Embedder:
    from moss_local.embedding.onnx_embedder import OnnxEmbedder

    if folder is not None:
        return OnnxEmbedder(description, space, lambda: load_folder(folder, description))
    cache = Path(platformdirs.user_cache_dir("moss_local")) if cache_dir is None else cache_dir
    return OnnxEmbedder(
        replace(description, pooling="none"),  # our graph has the mean inside
        space,
        lambda: minilm.load(cache),
        optimised=True,
        breaks=minilm.BREAKS,
    )
