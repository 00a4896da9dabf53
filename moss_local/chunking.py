"""Cutting texts into chunks that a model reads whole: sentences, packed, under their headings.

Rules of this file: values in, values out. A chunk is a piece of its text, unchanged; together they
hold every letter of it. How long a chunk is counts in characters, and in tokens of the model where
there is one: what a model does not read, nobody finds by meaning.
What holds: tests/moss_local/test_chunking.py.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from moss_sync import InvalidArgumentError

MIN_CHARS, MAX_CHARS, DEFAULT_CHARS = 200, 2000, 1200
DEFAULT_OVERLAP = 200
MAX_DEPTH = 6

Chunker = Callable[[str], list[str]]
"""Cuts one text into chunks; a function of the caller's."""

Mode = Literal["pages", "sentences"]


class Chunking:
    """How to cut texts into chunks.

    Attributes:
        chunk_size: Characters a chunk may have, 200 to 2000; 1200 when None. A chunk is also never
            longer than the model reads.
        chunk_overlap: Characters of whole sentences that a chunk repeats of the one before, at
            most half of `chunk_size`; 200 when None, or that half. Of no effect with "sentences".
        mode: "pages" packs sentences into chunks, "sentences" makes one of each.
        markdown_header_depth: Headings down to this level begin a section, 1 to 6; 6 when None.
    Raises:
        InvalidArgumentError: a value is out of its range.
    """

    __slots__ = ("_depth", "_mode", "_overlap", "_size")

    def __init__(
        self,
        chunk_size: int | None = None,
        chunk_overlap: int | None = None,
        mode: Mode = "pages",
        markdown_header_depth: int | None = None,
    ) -> None:
        self._size = _within("chunk_size", chunk_size, DEFAULT_CHARS, MIN_CHARS, MAX_CHARS)
        half = self._size // 2
        self._overlap = _within("chunk_overlap", chunk_overlap, min(DEFAULT_OVERLAP, half), 0, half)
        if mode not in ("pages", "sentences"):
            raise InvalidArgumentError(f'mode is "pages" or "sentences", not {mode!r:.60}')
        self._mode: Mode = mode
        self._depth = _within(
            "markdown_header_depth", markdown_header_depth, MAX_DEPTH, 1, MAX_DEPTH
        )

    def __repr__(self) -> str:
        return (
            f"Chunking(chunk_size={self._size}, chunk_overlap={self._overlap},"
            f" mode={self._mode!r}, markdown_header_depth={self._depth})"
        )

    @property
    def chunk_size(self) -> int:
        return self._size

    @property
    def chunk_overlap(self) -> int:
        return self._overlap

    @property
    def mode(self) -> Mode:
        return self._mode

    @property
    def markdown_header_depth(self) -> int:
        return self._depth


@dataclass(frozen=True, slots=True)
class Window:
    """What a model reads of a text.

    Attributes:
        count: Tokens of a text, the model's own marks included.
        tokens: How many it reads.
    """

    count: Callable[[str], int]
    tokens: int


def chunks_of(text: str, chunking: Chunking, *, window: Window | None = None) -> list[str]:
    """Return the chunks of a plain text, in order; a text without letters or digits has none."""
    return _packed(text, chunking, "", window)


def chunks_of_markdown(text: str, chunking: Chunking, *, window: Window | None = None) -> list[str]:
    """Return the chunks of a Markdown text, in order, each after the path of its headings.

    Front matter is left out, and so is a section without a letter or digit of its own.
    """
    found: list[str] = []
    for path, body in _sections(without_front_matter(text), chunking.markdown_header_depth):
        found += _packed(body, chunking, _heading(path, chunking.chunk_size), window)
    return found


def chunks_under(
    headings: Sequence[str], text: str, chunking: Chunking, *, window: Window | None = None
) -> list[str]:
    """Return the chunks of a plain text, in order, each after the path of the headings above it."""
    path = headings[: chunking.markdown_header_depth]
    return _packed(text, chunking, _heading(path, chunking.chunk_size), window)


def without_front_matter(text: str) -> str:
    """Return a Markdown text without the front matter that it may begin with.

    It stands between a first line `---`, not followed by a blank one, and the next line that is
    `---` or `...` and in no fence. Where there is no such line, it is no front matter.
    """
    lines = text.splitlines(keepends=True)
    if len(lines) < 2 or lines[0].rstrip() != "---" or not lines[1].strip():
        return text
    fence = ""
    for place, line in enumerate(lines[1:], 1):
        if not fence and line.rstrip() in ("---", "..."):
            return "".join(lines[place + 1 :])
        fence = _fence_after(fence, line)
    return text


# -- sections ------------------------------------------------------------------------------

_ATX = re.compile(r" {0,3}(#{1,6})(?:[ \t]+(.*?))??(?:[ \t]+#+)?[ \t]*\r?\n?")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")


def _sections(text: str, depth: int) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield (headings from the outermost, body) of each section."""
    path: list[tuple[int, str]] = []
    body: list[str] = []
    fence = ""
    for line in text.splitlines(keepends=True):
        heading = None if fence else _ATX.fullmatch(line)
        fence = _fence_after(fence, line)
        if heading is None or len(heading[1]) > depth:
            body.append(line)
            continue
        yield tuple(title for _, title in path), "".join(body)
        level = len(heading[1])
        path = [above for above in path if above[0] < level]
        title = (heading[2] or "").strip()
        if title:
            path.append((level, title))
        body = []
    yield tuple(title for _, title in path), "".join(body)


def _fence_after(fence: str, line: str) -> str:
    """Return the fence that is open after a line: what opened it, or nothing."""
    found = _FENCE.match(line)
    if found is None:
        return fence
    if not fence:
        return found[1]
    closes = found[1].startswith(fence) and not line[found.end() :].strip()
    return "" if closes else fence


def _heading(path: Sequence[str], size: int) -> str:
    """Return the line that a section's chunks begin with: at most half of what they may have.

    Of a path that is longer, the innermost headings stay.
    """
    if not path:
        return ""
    kept = list(path)
    while len(kept) > 1 and len(" > ".join(kept)) > size // 2:
        del kept[0]
    return " > ".join(kept)[: size // 2].rstrip() + "\n"


# -- sentences -----------------------------------------------------------------------------

# Latin, Greek, Cyrillic and others end a sentence with a mark and a space; scripts that are
# written without spaces, with a mark of their own. A blank line ends one in every script.
_END = re.compile(
    r"[.!?…؟۔։܀]+[\"'”’»)\]]*(?=\s)"
    r"|[。！？｡︒﹒．।॥၊။។៕።፧፨]+[\"'”’»」』）〉》\])]*"
    r"|\u037e(?=\s)"
    r"|\n[ \t]*\n"
)


def _sentences(text: str) -> list[str]:
    """Return the text in pieces that end where a sentence does, with the space that follows."""
    found: list[str] = []
    start = 0
    for end in _END.finditer(text):
        stop = end.end()
        while stop < len(text) and text[stop].isspace():
            stop += 1
        if stop > start:
            found.append(text[start:stop])
            start = stop
    if start < len(text):
        found.append(text[start:])
    return found


def _packed(text: str, chunking: Chunking, heading: str, window: Window | None) -> list[str]:
    """Return the chunks of a text, each with `heading` before it."""
    if not any(character.isalnum() for character in text):
        return []
    tokens, marks = None, 0
    if window is not None:
        used, marks = window.count(heading), window.count("")
        if used > window.tokens // 2:  # such a heading would leave no room for what it is about
            heading, used = "", marks
        tokens = window.tokens - used
    size = chunking.chunk_size - len(heading)

    def cost(piece: str) -> int:
        """Tokens of a piece among others."""
        return 0 if window is None else window.count(piece) - marks

    def fits(piece: str) -> bool:
        inside = piece.strip()
        return len(inside) <= size and (
            window is None or window.count(heading + inside) <= window.tokens
        )

    pieces = [part for sentence in _sentences(text) for part in _parted(sentence, fits, chunking)]
    if chunking.mode == "sentences":
        groups = [[piece] for piece in pieces]
    else:
        costs = [cost(piece) for piece in pieces]
        groups = _pages(pieces, costs, size, tokens, chunking.chunk_overlap)
    found: list[str] = []
    for group in groups:
        # Tokens of a whole may be more than of its parts, where two of them meet.
        for piece in _parted("".join(group), fits, chunking):
            inside = piece.strip()
            if any(character.isalnum() for character in inside):
                found.append(heading + inside)
    return found


def _pages(
    pieces: Sequence[str], costs: Sequence[int], size: int, tokens: int | None, overlap: int
) -> list[list[str]]:
    """Pack pieces into pages, each beginning with the last of the one before."""
    pages: list[list[str]] = []
    start = place = 0
    while place < len(pieces):
        length = cost = 0
        place = start
        while place < len(pieces):
            longer, dearer = length + len(pieces[place]), cost + costs[place]
            tight = longer > size + _blank_end(pieces[place])
            if place > start and (tight or (tokens is not None and dearer > tokens)):
                break
            length, cost = longer, dearer
            place += 1
        pages.append(list(pieces[start:place]))
        # The next page repeats whole pieces of this one, and is never the same again.
        repeated, first = 0, place
        while first - 1 > start and repeated + len(pieces[first - 1]) <= overlap:
            first -= 1
            repeated += len(pieces[first])
        if place < len(pieces):
            # It has room for at least one piece more: else it would be all repetition.
            while first < place and (
                repeated + len(pieces[place]) > size
                or (tokens is not None and sum(costs[first : place + 1]) > tokens)
            ):
                repeated -= len(pieces[first])
                first += 1
        start = first
    return pages


def _blank_end(piece: str) -> int:
    return len(piece) - len(piece.rstrip())


def _parted(piece: str, fits: Callable[[str], bool], chunking: Chunking) -> list[str]:
    """Return a piece, or its parts where it does not fit: cut at a space, or inside a word."""
    parts: list[str] = []
    while not fits(piece):
        # The longest start that fits, found by halving; one character always goes on.
        low, high = 1, min(len(piece), chunking.chunk_size + _blank_start(piece))
        while low < high:
            middle = (low + high + 1) // 2
            if fits(piece[:middle]):
                low = middle
            else:
                high = middle - 1
        cut = _good_cut(piece, low)
        parts.append(piece[:cut])
        piece = piece[cut:]
        if not piece:
            return parts
    parts.append(piece)
    return parts


def _blank_start(piece: str) -> int:
    return len(piece) - len(piece.lstrip())


def _good_cut(piece: str, most: int) -> int:
    """Return where to cut at or before `most`: after a space, else before a whole character."""
    if most < len(piece):
        for place in range(most, most // 2, -1):
            if piece[place - 1].isspace():
                return place
    cut = most
    # A letter keeps its accents, and an emoji what is joined to it.
    while 1 < cut < len(piece) and (
        unicodedata.combining(piece[cut])
        or piece[cut] in "\u200d\ufe0f"
        or piece[cut - 1] == "\u200d"
    ):
        cut -= 1
    return cut


def _within(name: str, value: int | None, default: int, least: int, most: int) -> int:
    if value is None:
        return default
    if type(value) is not int or not least <= value <= most:
        raise InvalidArgumentError(f"{name} is an int from {least} to {most}, not {value!r:.60}")
    return value
