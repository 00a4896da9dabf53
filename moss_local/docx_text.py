"""The text of a DOCX file, paragraph by paragraph, in memory that is bounded by what it says.

A DOCX is a zip of XML. Only the parts that have text are unpacked, each once and a piece at a time,
and what is read is counted while it is read: nothing is built of the XML but the lines. A file that
declares entities is refused, so none is resolved.
What holds: tests/moss_local/test_office_bombs.py.
"""

from __future__ import annotations

import io
import posixpath
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from xml.parsers import expat

from moss_sync import InvalidArgumentError

MAX_UNPACKED_BYTES = 256 * 1024 * 1024
"""Of the parts with text; pictures are not unpacked. A thousand pages have a tenth of it."""

MAX_LINES = 500_000
"""Paragraphs, cells of tables and styles of one file; a long book has 20 000."""

MAX_DEPTH = 500
"""Elements inside each other. Word itself stops at some dozens of tables."""

MAX_TAG_BYTES = 1024 * 1024
"""One tag with its attributes; a small picture may stand in one."""

MAX_NAMES = 10_000
"""Different names of elements and attributes, which the parser keeps. Word has some thousands."""

MAX_DIRECTORY_BYTES = 4 * 1024 * 1024
"""Of the zip: some ten thousand entries."""

_PIECE_BYTES = 64 * 1024
_DIRECTORY_END, _DIRECTORY_END_64 = b"PK\x05\x06", b"PK\x06\x07"
_DIRECTORY_END_BYTES, _DIRECTORY_END_64_BYTES = 22, 20
_METHODS = (
    zipfile.ZIP_STORED,
    zipfile.ZIP_DEFLATED,
)  # others may ask for gigabytes, and none is one

_BREAKS = {"tab": "\t", "br": "\n", "cr": "\n", "noBreakHyphen": "-", "ptab": "\t"}
_DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    expat.ExpatError,
    EOFError,
    KeyError,  # a part that the zip does not have
    RuntimeError,  # a zip under a password
    NotImplementedError,  # a zip of another kind
    ValueError,
    OSError,
)

Line = tuple[str, int]
"""A paragraph or a row of a table, and its level as a heading; 0 is no heading's."""


def lines_of(name: str, data: bytes, *, max_chars: int) -> list[Line]:
    """Return the lines of the body, then those of foot- and endnotes; none of them is blank.

    Args:
        name: What messages call it.
    Raises:
        InvalidArgumentError: it is none, damaged, or larger than one of the limits.
    """
    counted = _Counted(name, max_chars)
    try:
        return list(_read(_Package(data, counted), counted))
    except InvalidArgumentError:
        raise
    except _DAMAGED as error:
        raise InvalidArgumentError(
            f"{name} cannot be read as DOCX: {type(error).__name__}",
            hint="open it in the program that made it, and save it anew",
        ) from error


def _read(package: _Package, counted: _Counted) -> Iterator[Line]:
    document = next(iter(package.related("", "/officeDocument")), "word/document.xml")
    levels: dict[str, int] = {}
    for part in package.related(document, "/styles"):
        package.parse(part, _Styles(levels, counted))
    body = _Text(levels, counted)
    package.parse(document, body)
    yield from body.lines
    for kind in ("/footnotes", "/endnotes"):
        for part in package.related(document, kind):
            notes = _Text({}, counted)
            package.parse(part, notes)
            yield "", 1  # under no heading of the body
            yield from notes.lines


@dataclass
class _Counted:
    """What was read so far; each count raises InvalidArgumentError past its limit."""

    name: str
    max_chars: int
    chars: int = 0
    lines: int = 0
    unpacked: int = 0

    def char(self, count: int) -> None:
        self.chars += count
        self.check(self.chars, self.max_chars, "characters of text")

    def line(self) -> None:
        self.lines += 1
        self.check(self.lines, MAX_LINES, "paragraphs, cells and styles")

    def byte(self, count: int) -> None:
        self.unpacked += count
        self.check(self.unpacked, MAX_UNPACKED_BYTES, "bytes of text and marks")

    def check(self, found: int, limit: int, what: str) -> None:
        if found > limit:
            raise InvalidArgumentError(
                f"{self.name} has more than {limit} {what}",
                hint="save it in several files, or save its text as .txt and add that",
            )


class _Package:
    """The parts of the file by their names; each is read once."""

    def __init__(self, data: bytes, counted: _Counted) -> None:
        _check_directory(data, counted)
        self._archive = zipfile.ZipFile(io.BytesIO(data))
        self._counted = counted
        self._read: set[str] = set()

    def related(self, part: str, kind: str) -> list[str]:
        """Return the parts of a kind that a part names; the file itself is the part ""."""
        folder, name = posixpath.split(part)
        links = _Links(kind)
        try:
            self.parse(posixpath.join(folder, "_rels", f"{name}.rels"), links, again=True)
        except KeyError:
            return []
        found = [posixpath.normpath(posixpath.join("/", folder, each)) for each in links.targets]
        return [each.lstrip("/") for each in dict.fromkeys(found)]

    def parse(self, part: str, reader: _Reader, *, again: bool = False) -> None:
        """Let a reader see a part, unless that has been read before and is not read `again`."""
        if part in self._read and not again:
            return
        self._read.add(part)
        item = self._archive.getinfo(part)
        if item.compress_type not in _METHODS:
            raise NotImplementedError("a method that DOCX does not have")
        with self._archive.open(item) as file:
            _parse(iter(lambda: file.read(_PIECE_BYTES), b""), reader, self._counted)


def _check_directory(data: bytes, counted: _Counted) -> None:
    """Look at the size of the zip's directory, all of which zipfile takes into memory."""
    end = data.rfind(_DIRECTORY_END)
    if end < 0 or end + _DIRECTORY_END_BYTES > len(data):
        raise zipfile.BadZipFile("no directory")
    size = int.from_bytes(data[end + 12 : end + 16], "little")
    if data[max(0, end - _DIRECTORY_END_64_BYTES) : end].startswith(_DIRECTORY_END_64):
        raise zipfile.BadZipFile("a directory for files of 4 GiB")
    counted.check(size, MAX_DIRECTORY_BYTES, "bytes of names of parts")


class _Reader:
    """Sees the tags and texts of one part; names come without their prefixes."""

    def start(self, tag: str, attributes: dict[str, str], depth: int) -> None:
        """Take an opening tag; the outermost element has depth 1."""

    def text(self, text: str) -> None:
        """Take a piece of text."""

    def end(self, depth: int) -> None:
        """Take a closing tag."""


def _parse(pieces: Iterator[bytes], reader: _Reader, counted: _Counted) -> None:
    depth = 0

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        counted.check(depth, MAX_DEPTH, "elements inside each other")
        reader.start(_local(tag), attributes, depth)

    def end(tag: str) -> None:
        nonlocal depth
        reader.end(depth)
        depth -= 1

    def refuse(*_: object) -> None:
        raise ValueError("a document type, which no DOCX has")

    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = refuse
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = reader.text
    fed = 0
    for piece in pieces:
        counted.byte(len(piece))
        parser.Parse(piece, False)
        fed += len(piece)
        counted.check(fed - parser.CurrentByteIndex, MAX_TAG_BYTES, "bytes in one tag")
        counted.check(len(parser.intern), MAX_NAMES, "different names of elements")
    parser.Parse(b"", True)


def _local(name: str) -> str:
    return name.rpartition(":")[2]


class _Links(_Reader):
    """The relationships of a part to parts of one kind."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self.targets: list[str] = []

    def start(self, tag: str, attributes: dict[str, str], depth: int) -> None:
        if (
            tag == "Relationship"
            and attributes.get("Type", "").endswith(self._kind)
            and attributes.get("TargetMode") != "External"
            and len(self.targets) < MAX_NAMES
        ):
            self.targets.append(attributes.get("Target", ""))


class _Styles(_Reader):
    """Writes down the level of each style that is a heading's, by the style's id."""

    def __init__(self, levels: dict[str, int], counted: _Counted) -> None:
        self._levels = levels
        self._counted = counted
        self._style = ""

    def start(self, tag: str, attributes: dict[str, str], depth: int) -> None:
        if tag == "style":
            self._counted.line()
            self._style = _attribute(attributes, "styleId")
        elif tag == "name" and depth == 3:  # styles, style, name
            level = _level_of(_attribute(attributes, "val"))
            if level and self._style:
                self._levels[self._style] = level


def _level_of(style: str) -> int:
    """Return the level of a heading's style: "Title", or "heading 1" to "heading 9"; else 0."""
    if style.lower() == "title":
        return 1
    word, _, number = style.rpartition(" ")
    return int(number) if word.lower() == "heading" and number in tuple("123456789") else 0


def _attribute(attributes: dict[str, str], name: str) -> str:
    return next((value for key, value in attributes.items() if _local(key) == name), "")


@dataclass
class _Lines:
    """What holds paragraphs and rows: a body, a cell, a text box, a note."""

    depth: int
    lines: list[Line] = field(default_factory=list)


@dataclass
class _Row:
    depth: int
    cells: list[str] = field(default_factory=list)


@dataclass
class _Paragraph:
    depth: int
    text: io.StringIO = field(default_factory=io.StringIO)
    style: str = ""
    boxes: list[Line] = field(default_factory=list)


class _Text(_Reader):
    """Collects the lines of a part: what stands open is a stack, of whatever depth the XML is."""

    def __init__(self, levels: dict[str, int], counted: _Counted) -> None:
        self._levels = levels
        self._counted = counted
        self._whole = _Lines(0)
        self._open: list[_Lines | _Row | _Paragraph] = [self._whole]
        self._left_out = 0
        """The depth of an element whose contents are not read; 0 outside of any."""
        self._said = 0
        """The depth of the element whose text is read."""
        self._starts: dict[type, Callable[[str, dict[str, str], int], None]] = {
            _Lines: self._in_lines,
            _Row: self._in_row,
            _Paragraph: self._in_paragraph,
        }

    @property
    def lines(self) -> list[Line]:
        return self._whole.lines

    def start(self, tag: str, attributes: dict[str, str], depth: int) -> None:
        if self._left_out:
            return
        if tag == "Fallback":  # the same again, for readers that know less
            self._left_out = depth
            return
        self._starts[type(self._open[-1])](tag, attributes, depth)

    def _in_lines(self, tag: str, attributes: dict[str, str], depth: int) -> None:
        if tag == "p":
            self._counted.line()
            self._open.append(_Paragraph(depth))
        elif tag == "tr":
            self._open.append(_Row(depth))

    def _in_row(self, tag: str, attributes: dict[str, str], depth: int) -> None:
        if tag in ("tc", "sdt"):
            self._counted.line()
            self._open.append(_Lines(depth))

    def _in_paragraph(self, tag: str, attributes: dict[str, str], depth: int) -> None:
        paragraph = self._open[-1]
        assert isinstance(paragraph, _Paragraph)
        if tag == "txbxContent":
            self._open.append(_Lines(depth))
        elif tag == "t":
            self._said = depth
        elif tag == "pStyle" and depth == paragraph.depth + 2:  # not one of before a change
            paragraph.style = _attribute(attributes, "val")
        elif tag == "tabs":  # where they are, not that there is one
            self._left_out = depth
        elif tag in _BREAKS:
            self._say(_BREAKS[tag])

    def text(self, text: str) -> None:
        if self._said:
            self._say(text)

    def _say(self, text: str) -> None:
        self._counted.char(len(text))
        paragraph = self._open[-1]
        if isinstance(paragraph, _Paragraph):
            paragraph.text.write(text)

    def end(self, depth: int) -> None:
        if self._said == depth:
            self._said = 0
        if self._left_out == depth:
            self._left_out = 0
        ended = self._open[-1]
        if ended.depth != depth:
            return
        self._open.pop()
        above = self._open[-1]
        if isinstance(ended, _Paragraph) and isinstance(above, _Lines):
            text = ended.text.getvalue()
            if text.strip():
                above.lines.append((text, self._levels.get(ended.style, 0)))
            above.lines += ended.boxes
        elif isinstance(ended, _Row) and isinstance(above, _Lines):
            self._counted.char(3 * len(ended.cells))
            above.lines.append((" | ".join(ended.cells), 0))
        elif isinstance(ended, _Lines) and isinstance(above, _Row):
            above.cells.append(" ".join(text for text, _ in ended.lines))
        elif isinstance(ended, _Lines) and isinstance(above, _Paragraph):
            above.boxes += ended.lines
