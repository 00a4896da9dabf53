"""What callers hand in as documents: objects, mappings, JSON, paths of files; chunked where wanted.

A `str` is JSON, never a path: what comes over a network must not make a server read its own files.
Of everything that is given, all is read and checked before the first document is stored.
What holds: tests/moss_local/test_ingest.py.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, TypeAlias

from moss_local.arguments import path_of
from moss_local.chunking import Chunker, Chunking, Window, chunks_of_markdown, chunks_under
from moss_local.inputs import (
    JSON_SUFFIXES,
    MARKDOWN_SUFFIXES,
    TEXT_SUFFIXES,
    document_of,
    documents_of_json,
    text_of_file,
)
from moss_local.office import OFFICE_SUFFIXES, Part, parts_of
from moss_local.types import DocumentInfo
from moss_sync import InvalidArgumentError, NotFoundError, PermissionDeniedError

DocsInput: TypeAlias = (
    Iterable[DocumentInfo | Mapping[str, Any] | os.PathLike[str]] | os.PathLike[str] | str | bytes
)
"""What `add_docs` and `create_index` take: documents, mappings and paths, or JSON as text."""

MAX_FILE_BYTES = 64 * 1024 * 1024
"""Of one file: it is read whole, and more than this is not one file of text."""

MAX_CHUNK_CHARS = 2000
"""Of what a chunker of the caller's returns, as in the hosted SDK."""


@dataclass(frozen=True, slots=True)
class Given:
    """One document as it was given.

    Attributes:
        document: Of a text file, all of it; its id is the path.
        file: The text is of a file that is always chunked.
        markdown: It is Markdown.
        parts: Of a file that comes in parts: what it says, piece by piece.
    """

    document: DocumentInfo
    file: bool = False
    markdown: bool = False
    parts: tuple[Part, ...] = ()


@dataclass(frozen=True, slots=True)
class Cutting:
    """How texts are to be cut: by a function of the caller's, by us, or only those of files."""

    chunker: Chunker | None = None
    chunking: Chunking | None = None

    def check(self) -> None:
        """Raise InvalidArgumentError unless at most one is given, and is what it must be."""
        chunker, chunking = self.chunker, self.chunking
        if chunker is not None and chunking is not None:
            raise InvalidArgumentError("give a chunker or a chunking, not both")
        if chunker is not None and not callable(chunker):
            raise InvalidArgumentError(f"chunker is a function, not {type(chunker).__name__}")
        if chunking is not None and not isinstance(chunking, Chunking):
            raise InvalidArgumentError(f"chunking is a Chunking, not {type(chunking).__name__}")

    @property
    def of_all(self) -> bool:
        """Whether every text is to be cut."""
        return self.chunker is not None or self.chunking is not None


def as_they_are(docs: object) -> list[Given] | None:
    """Return documents that need no reading and no parsing; None if these do."""
    if not isinstance(docs, list | tuple):
        return None
    if any(not isinstance(each, DocumentInfo) for each in docs):
        return None
    return [Given(each) for each in docs]


def read_given(docs: DocsInput, *, what: str) -> list[Given]:
    """Return what was given, files read and JSON parsed. Blocking.

    Args:
        what: The caller's name, for messages.
    Raises:
        InvalidArgumentError: something is no document; the message says which and why.
        NotFoundError, PermissionDeniedError: a file cannot be read.
    """
    if isinstance(docs, str | bytes):
        return _of_json(docs, what)
    if isinstance(docs, os.PathLike):
        return _of_path(docs)
    if isinstance(docs, Mapping) or not isinstance(docs, Iterable):
        raise InvalidArgumentError(
            f"{what} takes an iterable of documents, mappings or paths, one path, or JSON as text,"
            f" not {type(docs).__name__}",
            hint="put a single document into a list"
            if isinstance(docs, DocumentInfo | Mapping)
            else None,
        )
    found: list[Given] = []
    for place, item in enumerate(docs):
        if isinstance(item, DocumentInfo):
            found.append(Given(item))
        elif isinstance(item, os.PathLike):
            found += _of_path(item)
        elif isinstance(item, Mapping):
            found.append(Given(document_of(item, source=what, place=f"item {place}")))
        else:
            raise InvalidArgumentError(
                f"{what} takes documents, mappings and paths;"
                f" item {place} is {type(item).__name__}",
                hint="write Path(...) around a path, or DocumentInfo(id=..., text=...)",
            )
    return found


def check_uncut(name: str, cutting: Cutting) -> None:
    """Refuse to cut texts of a session of vectors of the caller's own.

    Raises:
        InvalidArgumentError: they were to be cut.
    """
    if cutting.of_all:
        raise InvalidArgumentError(
            f"session {name!r} is of model 'custom': a chunk would have no embedding",
            hint="cut the texts before embedding them",
        )


def check_own_vectors(name: str, documents: Sequence[DocumentInfo]) -> None:
    """Refuse documents without a vector in a session of vectors of the caller's own.

    Raises:
        InvalidArgumentError: there are some; the message names the first five.
    """
    missing = [each.id for each in documents if each.embedding is None or not len(each.embedding)]
    if missing:
        ids = ", ".join(map(repr, missing[:5]))
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise InvalidArgumentError(
            f"session {name!r} is of model 'custom': these have no embedding: {ids}{more}",
            hint="pass DocumentInfo(..., embedding=[...])",
        )


def documents_from(
    given: Sequence[Given], cutting: Cutting, window: Callable[[], Window | None]
) -> list[DocumentInfo]:
    """Return the documents to store: chunks of what is to be cut, the others as they are.

    Args:
        window: Makes that of the model that will read them, or None where they bring vectors;
            called if something is to be cut by us.
    Raises:
        InvalidArgumentError: a document that is to be cut has a vector, or the chunker's result
            cannot be used; the message names the document.
    """
    found: list[DocumentInfo] = []
    seen: list[Window | None] = []
    for each in given:
        document = each.document
        parts = each.parts or (Part(document.text),)
        if cutting.chunker is not None:
            pieces = [
                (piece, part.metadata)
                for part in parts
                for piece in _checked(cutting.chunker(_told(part)), document.id)
            ]
        elif cutting.chunking is not None or each.file:
            seen = seen or [window()]
            chunking = cutting.chunking or Chunking()
            pieces = [
                (piece, part.metadata)
                for part in parts
                for piece in _cut(part, chunking, seen[0], markdown=each.markdown)
            ]
        else:
            found.append(document)
            continue
        found += _chunks(document, pieces)
    return found


def _told(part: Part) -> str:
    """Return a part as a chunker of the caller's gets it: its headings stand nowhere else."""
    return "\n".join([" > ".join(part.headings), part.text]) if part.headings else part.text


def _cut(part: Part, chunking: Chunking, window: Window | None, *, markdown: bool) -> list[str]:
    if markdown:
        return chunks_of_markdown(part.text, chunking, window=window)
    return chunks_under(part.headings, part.text, chunking, window=window)


def _chunks(
    document: DocumentInfo, pieces: Sequence[tuple[str, Mapping[str, str]]]
) -> list[DocumentInfo]:
    if document.embedding is not None and len(document.embedding):
        raise InvalidArgumentError(
            f"document {document.id!r} has an embedding, which is of no chunk of it",
            hint="leave the embedding out, or cut the text before embedding it",
        )
    metadata = {**(document.metadata or {}), "parentId": document.id}
    return [
        DocumentInfo(f"{document.id}#{n}", piece, {**metadata, **more}, None, document.payload)
        for n, (piece, more) in enumerate(pieces)
    ]


def _checked(pieces: object, id: str) -> list[str]:
    if not isinstance(pieces, Iterable) or isinstance(pieces, str | bytes):
        raise InvalidArgumentError(
            f"the chunker returned {type(pieces).__name__} for document {id!r}, not a list of str"
        )
    found: list[str] = []
    for piece in pieces:
        if not isinstance(piece, str):
            raise InvalidArgumentError(
                f"the chunker returned a {type(piece).__name__} among the chunks of {id!r}"
            )
        if len(piece) > MAX_CHUNK_CHARS:
            raise InvalidArgumentError(
                f"the chunker returned a chunk of {len(piece)} characters for document {id!r},"
                f" more than {MAX_CHUNK_CHARS}"
            )
        found.append(piece)
    return found


def _of_json(docs: str | bytes, what: str) -> list[Given]:
    if isinstance(docs, bytes):
        try:
            docs = docs.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise InvalidArgumentError(f"{what}: not UTF-8 at byte {error.start}") from error
    try:
        return [Given(each) for each in documents_of_json(docs, source=what)]
    except InvalidArgumentError as error:
        if error.hint is None and "not JSON" in str(error):
            raise InvalidArgumentError(
                str(error), hint="a str is JSON; write Path(...) around the path of a file"
            ) from error
        raise


def _of_path(given: os.PathLike[str]) -> list[Given]:
    path = path_of(given, "the path")
    return given_of_file(path.as_posix(), read_file(path))


def read_file(path: Path) -> bytes:
    """Return what a file holds.

    Raises:
        NotFoundError, PermissionDeniedError: it cannot be read.
        InvalidArgumentError: it is a directory, or larger than one text can be.
    """
    try:
        if path.is_dir():
            raise InvalidArgumentError(
                f"{path} is a directory", hint="name its files, such as sorted(path.glob('*.md'))"
            )
        if path.stat().st_size > MAX_FILE_BYTES:
            raise InvalidArgumentError(
                f"{path} has more than {MAX_FILE_BYTES // 2**20} MiB, which is no one text"
            )
        return path.read_bytes()
    except FileNotFoundError:
        raise NotFoundError(f"there is no file {path}") from None
    except OSError as error:
        raise PermissionDeniedError(f"{path} cannot be read: {error.strerror}") from error


def given_of_file(name: str, data: bytes, *, suffix: str | None = None) -> list[Given]:
    """Return what the bytes of a file hold, by the ending of its name.

    Args:
        suffix: What is taken for its ending; None takes its own.
    Raises:
        InvalidArgumentError: another ending, not UTF-8, or something in it is no document.
        ReaderMissingError: it is PDF, and the extra `files` is not installed.
    """
    suffix = PurePath(name).suffix.lower() if suffix is None else suffix
    if suffix in JSON_SUFFIXES:
        return [Given(each) for each in documents_of_json(text_of_file(name, data), source=name)]
    if suffix in OFFICE_SUFFIXES:
        parts = parts_of(name, data, suffix)
        text = "\n\n".join(part.text for part in parts)
        return [Given(DocumentInfo(name, text), file=True, parts=tuple(parts))]
    if suffix not in TEXT_SUFFIXES:
        raise InvalidArgumentError(
            f"{name}: files that end in {suffix or 'nothing'!r} are not read",
            hint=f"endings that are: {' '.join(JSON_SUFFIXES + TEXT_SUFFIXES + OFFICE_SUFFIXES)}",
        )
    text = text_of_file(name, data)
    return [Given(DocumentInfo(name, text), file=True, markdown=suffix in MARKDOWN_SUFFIXES)]
