"""One file on disk for the graph that takes half a second to build and loads in a tenth of that.

The file is a convenience, never a truth: before it is used it must have the SHA-256 that the code
pins, and one that has another is built anew. Where nothing can be written the graph is built in
memory. Several processes may start at once: each writes a file of its own and renames it, and all
of them write the same bytes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from hashlib import file_digest, sha256
from pathlib import Path

from moss_sync.stores.durable import make_folders, replacing

_log = logging.getLogger(__name__)


def cached(directory: Path, name: str, expected: str, build: Callable[[], bytes]) -> Path | bytes:
    """Return the file of this name if it is the expected one; else make it; else return the bytes.

    A file where that is possible: given bytes, a session of the runtime keeps them (23 MB).

    Args:
        directory: Made if it is not there, with mode 0700 as all that is made above it; nothing is
            raised if it cannot be.
        name: A file name that says everything that the bytes depend on.
        expected: The SHA-256 of the graph, in hex. Of another graph no file is kept.
        build: Makes a serialised ONNX model.
    """
    path = directory / name
    if _is_expected(path, expected):
        return path
    made = build()
    if sha256(made).hexdigest() != expected:
        _log.warning("the graph comes out otherwise with these libraries, so it is not kept")
        return made
    try:
        _write(path, made)
    except OSError as error:
        _log.warning("%s cannot be kept, so every process builds it: %s", path, error)
        return made
    return path


def _is_expected(path: Path, expected: str) -> bool:
    try:
        if not path.is_file():  # nothing there, or what would be waited for, as a pipe
            return False
        with path.open("rb") as file:
            found = file_digest(file, "sha256").hexdigest()
    except OSError as error:
        _log.warning("%s cannot be read and is built anew: %s", path, error)
        return False
    if found == expected:
        return True
    _log.warning("%s is damaged or another graph, and is built anew", path)
    return False


def _write(path: Path, content: bytes) -> None:
    make_folders(path.parent)
    with replacing(path) as file:
        file.write(content)
