"""Files as `create_index_from_files` takes them: a name, a kind, and a path or bytes."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

from moss_local.arguments import path_of
from moss_local.errors import NotOfferedError
from moss_local.ingest import Given, given_of_file, read_file
from moss_sync import InvalidArgumentError

MAX_FILES = 20
"""In one call, as in the hosted SDK."""

_SUFFIX = {
    "text/plain": ".txt",
    "text/markdown": ".md",
    "application/json": ".json",
    "application/jsonl": ".jsonl",
    "application/x-ndjson": ".ndjson",
    "application/pdf": ".pdf",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": ".docx",
}


@dataclass(slots=True)
class ParseFileInput:
    """One file.

    Attributes:
        name: What its chunks are called: `{name}#{n}`.
        content_type: "text/plain", "text/markdown", "application/json", "application/jsonl",
            "application/pdf", or that of DOCX
            ("application/vnd.openxmlformats-officedocument.wordprocessingml.document").
        path: Where it lies; give this or `data`.
        data: What it holds.
    """

    name: str
    content_type: str
    path: str | os.PathLike[str] | None = None
    data: bytes | None = None


@dataclass(slots=True)
class ParseOptions:
    """How the hosted parser is to read scanned pages; there is none here, so any value is refused.

    Attributes:
        ocr_mode: "auto_ocr" or "full_ocr" there.
        use_high_resolution: Of scanned pages.
    """

    ocr_mode: str | None = None
    use_high_resolution: bool | None = None


def read_files(files: Iterable[ParseFileInput], options: ParseOptions | None) -> list[Given]:
    """Return what files hold. Blocking.

    Raises:
        InvalidArgumentError: a file is none of the kinds that are read, or not what it says.
        ReaderMissingError: it is PDF, and the extra `files` is not installed.
        NotOfferedError: text is to be recognised from an image.
        NotFoundError, PermissionDeniedError: it cannot be read.
    """
    if isinstance(files, str | bytes) or not isinstance(files, Iterable):
        raise InvalidArgumentError(f"files is a list of ParseFileInput, not {type(files).__name__}")
    if options is not None and options != ParseOptions():
        raise NotOfferedError(
            "recognising the text of scanned pages is a service of the hosted SDK",
            instead="recognise it with a tool of your choice, and add the text",
        )
    given = list(files)
    if len(given) > MAX_FILES:
        raise InvalidArgumentError(f"{len(given)} files are more than {MAX_FILES} in one call")
    found: list[Given] = []
    for place, file in enumerate(given):
        if not isinstance(file, ParseFileInput):
            raise InvalidArgumentError(
                f"files takes ParseFileInput; item {place} is {type(file).__name__}"
            )
        found += _read(file)
    return found


def _read(file: ParseFileInput) -> list[Given]:
    for field in ("name", "content_type"):
        if not isinstance(value := getattr(file, field), str):
            raise InvalidArgumentError(
                f"{field} of a ParseFileInput is a str, not {type(value).__name__}"
            )
    kind = file.content_type.split(";")[0].strip().lower()
    if kind not in _SUFFIX:
        raise InvalidArgumentError(
            f"{file.name}: files of type {file.content_type!r} are not read",
            hint=f"types that are: {', '.join(_SUFFIX)}",
        )
    if (file.path is None) == (file.data is None):
        raise InvalidArgumentError(f"{file.name}: give one of path and data")
    return given_of_file(file.name, _bytes_of(file), suffix=_SUFFIX[kind])


def _bytes_of(file: ParseFileInput) -> bytes:
    if file.path is not None:
        return read_file(path_of(file.path, f"the path of {file.name}"))
    if not isinstance(file.data, bytes | bytearray | memoryview):
        raise InvalidArgumentError(
            f"{file.name}: data is bytes, not {type(file.data).__name__}",
            hint="write text.encode() for a text",
        )
    return bytes(file.data)
