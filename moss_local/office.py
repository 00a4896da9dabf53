"""PDF and DOCX files as parts: a page each, a section each; with the extra `moss-local[files]`.

What a part says is what its file says, in the order of the file. Of a PDF that is the text that a
reader of it would select; pages that are pictures have none, and nothing here recognises any. Of a
DOCX it is the body with its tables and text boxes, then foot- and endnotes; headers, footers,
comments and deleted text are left out.

The files may come from anybody. What is unpacked is bounded (pypdf bounds a stream to 75 MB), no
entity is resolved and nothing is executed; whatever their readers stumble over is told as what is
wrong with the file. How long a malicious one keeps them busy is not bounded.
What holds: tests/moss_local/test_office.py.
"""

from __future__ import annotations

import io
import logging
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from moss_local.errors import ReaderMissingError
from moss_sync import InvalidArgumentError

OFFICE_SUFFIXES = (".pdf", ".docx")

MAX_PAGES = 20_000
"""Of a PDF; the longest printed book has a fifth of it."""

MAX_TEXT_CHARS = 64 * 1024 * 1024
"""Of one file: as much as a text file may have bytes."""

MAX_UNPACKED_BYTES = 512 * 1024 * 1024
"""Of a DOCX, a zip: pictures included. Known bombs unpack to more."""

_NOTES = ("/footnotes", "/endnotes")
_BREAKS = {"tab": "\t", "br": "\n", "cr": "\n", "noBreakHyphen": "-", "ptab": "\t"}


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a file that no chunk reaches across.

    Attributes:
        headings: The titles above it, from the outermost.
        metadata: What its chunks have besides.
    """

    text: str
    headings: tuple[str, ...] = ()
    metadata: dict[str, str] = field(default_factory=dict)


def parts_of(name: str, data: bytes, suffix: str) -> list[Part]:
    """Return what a PDF or a DOCX says.

    Args:
        name: What messages call it.
        suffix: ".pdf" or ".docx".
    Raises:
        ReaderMissingError: the extra `files` is not installed.
        InvalidArgumentError: it is none, damaged, encrypted, too large, or says nothing.
    """
    parts = _of_pdf(name, data) if suffix == ".pdf" else _of_docx(name, data)
    if not any(_says(part.text) for part in parts):
        raise InvalidArgumentError(
            f"{name} has no text in it",
            hint="if its pages are pictures, recognise their text (OCR) first",
        )
    return parts


# -- PDF -----------------------------------------------------------------------------------


def _of_pdf(name: str, data: bytes) -> list[Part]:
    try:
        from pypdf import PdfReader
    except ImportError as error:
        raise ReaderMissingError(name, "pypdf") from error

    with _reading(name, "PDF"):
        reader = PdfReader(io.BytesIO(data))
        # Many are encrypted under no password, only to forbid printing.
        if reader.is_encrypted and not reader.decrypt(""):
            raise InvalidArgumentError(
                f"{name} is encrypted", hint="save a copy of it without a password, and add that"
            )
        if len(reader.pages) > MAX_PAGES:
            raise InvalidArgumentError(f"{name} has more than {MAX_PAGES} pages")
        parts: list[Part] = []
        left = MAX_TEXT_CHARS
        for number, page in enumerate(reader.pages, 1):
            text = _without_surrogates(page.extract_text() or "")
            left -= len(text)
            _check_length(name, left)
            parts.append(Part(text, metadata={"page": str(number)}))
        return parts


# -- DOCX ----------------------------------------------------------------------------------


def _of_docx(name: str, data: bytes) -> list[Part]:
    try:
        import docx
        from docx.oxml.parser import parse_xml
    except ImportError as error:
        raise ReaderMissingError(name, "python-docx") from error

    with _reading(name, "DOCX"):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if sum(item.file_size for item in archive.infolist()) > MAX_UNPACKED_BYTES:
                raise InvalidArgumentError(
                    f"{name} unpacks to more than {MAX_UNPACKED_BYTES // 2**20} MiB"
                )
        document = docx.Document(io.BytesIO(data))
        lines = list(_lines(document.element.body, _levels(document)))
        for relation in document.part.rels.values():
            if not relation.is_external and relation.reltype.endswith(_NOTES):
                lines.append(("", 1))  # under no heading of the body
                lines += _lines(parse_xml(relation.target_part.blob), {})
        _check_length(name, MAX_TEXT_CHARS - sum(len(text) for text, _ in lines))
        return _sections(lines)


def _levels(document: Any) -> dict[str, int]:
    """Return the level of each style that is a heading's, by the style's id."""
    found: dict[str, int] = {}
    for style in document.styles:
        word, _, number = (style.name or "").rpartition(" ")
        if style.name == "Title":
            found[style.style_id] = 1
        elif word.lower() == "heading" and number.isdecimal():
            found[style.style_id] = int(number)
    return found


def _lines(element: Any, levels: dict[str, int]) -> Iterator[tuple[str, int]]:
    """Yield (text, level) of each paragraph and table row; level 0 is no heading's."""
    for child in element:
        tag = _tag(child)
        if tag == "p":
            boxes: list[Any] = []
            text = "".join(_runs(child, boxes))
            yield text, levels.get(_style_of(child), 0) if text.strip() else 0
            for box in boxes:
                yield from _lines(box, levels)
        elif tag == "tr":
            cells = [cell for cell in child.iterchildren() if _tag(cell) in ("tc", "sdt")]
            texts = (" ".join(text for text, _ in _lines(cell, {}) if text) for cell in cells)
            yield " | ".join(texts), 0
        elif tag != "Fallback":  # the same again, for readers that know less
            yield from _lines(child, levels)


def _runs(element: Any, boxes: list[Any]) -> Iterator[str]:
    """Yield the text of a paragraph; text boxes in it go to `boxes`."""
    for child in element:
        tag = _tag(child)
        if tag == "txbxContent":
            boxes.append(child)
        elif tag == "t":
            yield child.text or ""
        elif tag in _BREAKS:
            yield _BREAKS[tag]
        elif tag != "Fallback":
            yield from _runs(child, boxes)


def _style_of(paragraph: Any) -> str:
    for properties in paragraph.iterchildren():
        if _tag(properties) == "pPr":
            for style in properties.iterchildren():
                if _tag(style) == "pStyle":
                    return next(iter(style.attrib.values()), "")
    return ""


def _tag(element: Any) -> str:
    """Return a tag without its namespace; nothing for a comment."""
    return element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""


def _says(text: str) -> bool:
    return any(character.isalnum() for character in text)


def _sections(lines: Sequence[tuple[str, int]]) -> list[Part]:
    """Return the body under each heading; a heading with nothing below it is text itself."""
    parts: list[Part] = []
    path: list[tuple[int, str]] = []
    body: list[str] = []
    carried: list[tuple[int, str]] = []  # the headings that some part has already

    def end(next_level: int) -> None:
        nonlocal carried
        text, above = "\n\n".join(line for line in body if line.strip()), list(path)
        # Nothing is cut from a text of signs alone, so it could not carry its headings along.
        while not _says(text) and above and next_level <= above[-1][0] and above != carried:
            text = "\n\n".join(filter(None, [above.pop()[1], text]))
        if text:
            parts.append(Part(text, tuple(title for _, title in above)))
        if _says(text):
            carried = list(path)

    for text, level in lines:
        if not level:
            body.append(text)
            continue
        end(level)
        title, body = " ".join(text.split()), []
        path = [above for above in path if above[0] < level]
        carried = carried[: len(path)] if carried[: len(path)] == path else []
        if title:
            path.append((level, title))
    end(0)
    return parts


# -- both ----------------------------------------------------------------------------------


@contextmanager
def _reading(name: str, kind: str) -> Iterator[None]:
    """Tell whatever a reader raises as what is wrong with the file."""
    logger = logging.getLogger("pypdf")
    level = logger.level
    # Its modules each have a logger below this one. They quote what they find in the file.
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    except InvalidArgumentError:
        raise
    # Both readers raise whatever they stumble over: KeyError, RecursionError, errors of their own.
    except Exception as error:
        raise InvalidArgumentError(
            f"{name} cannot be read as {kind}: {type(error).__name__}",
            hint="open it in the program that made it, and save it anew",
        ) from error
    finally:
        logger.setLevel(level)


def _check_length(name: str, left: int) -> None:
    if left < 0:
        raise InvalidArgumentError(f"{name} has more than {MAX_TEXT_CHARS} characters of text")


def _without_surrogates(text: str) -> str:
    """Return what a PDF with a broken table of characters says, where it can be stored at all."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
