"""How results look. Data goes to stdout, talk to stderr, and nothing else is ever printed.

Names and texts come from other people. What moves the cursor, begins a line, turns the direction
of writing or cannot be seen is written as Python writes it (`\\n`, `\\x1b`, `\\u202e`), and never
as it is (`visible`). A terminal gets columns that wrap; a pipe gets one line per row, and programs
get `--json`, which is exact, and ASCII whatever the locale is.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from unicodedata import category

if TYPE_CHECKING:
    from moss_local.embedding.base import Progress
    from moss_local.types import SyncState

SHORT_DEVICE = 6
"""Hex digits of a device id that are shown: 1 in 16 million for two devices of one session."""

PROGRESS_FROM = 32
"""Texts; fewer are embedded before a bar could be read."""

_DIRECTION = frozenset([*range(0x202A, 0x202F), *range(0x2066, 0x206A)])
"""Marks that turn the direction of what stands around them."""

_HIDDEN_KINDS = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp", "Zs"})
"""Controls, formats (marks of direction, characters without width), half characters, and what looks
like a space or a line break."""

_BLANK = frozenset(
    [
        *(0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2800, 0x3164, 0xFFA0),
        *range(0x180B, 0x1810),
        *range(0xFE00, 0xFE10),
        *range(0xE0100, 0xE01F0),
    ]
)
"""Letters, marks and symbols that show nothing."""


class _Escapes(dict[int, str | int]):
    """What stands for each character, for `str.translate`; worked out when it is first met."""

    def __init__(self, is_hidden: Callable[[int], bool]) -> None:
        super().__init__()
        self._is_hidden = is_hidden

    def __missing__(self, code: int) -> str | int:
        if not self._is_hidden(code):
            shown: str | int = code
        elif code < 0x100:
            shown = repr(chr(code))[1:-1]
        else:
            shown = f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
        self[code] = shown
        return shown


def _hidden_in_a_line(code: int) -> bool:
    return code != 0x20 and (category(chr(code)) in _HIDDEN_KINDS or code in _BLANK)


def _hidden_in_a_text(code: int) -> bool:
    kinds = ("Cc", "Cs", "Zl", "Zp")
    return code not in (0x09, 0x0A) and (category(chr(code)) in kinds or code in _DIRECTION)


_IN_A_LINE, _IN_A_TEXT = _Escapes(_hidden_in_a_line), _Escapes(_hidden_in_a_text)


def say(*lines: str) -> None:
    """Print lines of data; an empty one without an argument."""
    print("\n".join(map(visible, lines)))


def talk(*lines: str) -> None:
    """Print lines about what is going on."""
    print("\n".join(map(visible, lines)), file=sys.stderr)


def say_json(value: Any) -> None:
    """Print one JSON document."""
    print(json.dumps(value, indent=1))


def visible(text: str, *, is_text: bool = False) -> str:
    """Return `text` with everything escaped that could not be seen, or would show another thing.

    Args:
        is_text: It is the text of a document and no name: line breaks and tabs stay, and so do the
            marks that scripts and emoji are written with. Controls and what turns the direction do
            not.
    """
    return text.translate(_IN_A_TEXT if is_text else _IN_A_LINE)


_LAST_MS = 253_402_214_400_000
"""A day before the year 10 000, where Python's calendar ends, in every time zone."""


def _moment(ms: int) -> datetime:
    """Return a time in UTC; one past the calendar, of a clock that is wrong, as its last day."""
    return datetime.fromtimestamp(min(max(0, ms), _LAST_MS) / 1000, UTC)


def clock_time(ms: int | None) -> str:
    """Return a time of the wall clock in this machine's time zone."""
    if ms is None:
        return "never"
    return _moment(ms).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def sync_state(state: SyncState) -> str:
    """Return where a session stands, in a word or two; why it does is told apart from it."""
    if state.reason is None:
        return str(state)
    return f"{state.status}, {state.pending} pending" if state.pending else state.status


def iso_time(ms: int | None) -> str | None:
    """Return a time as ISO 8601 in UTC with milliseconds, for JSON."""
    if ms is None:
        return None
    stamp = _moment(ms).isoformat(timespec="milliseconds")
    return stamp.replace("+00:00", "Z")


def size(count: int) -> str:
    """Return a number of bytes as people read it."""
    if count < 1000:
        return f"{count} B"
    kilo = count / 1000
    return f"{kilo:.1f} kB" if kilo < 1000 else f"{kilo / 1000:.1f} MB"


def plural(count: int, noun: str) -> str:
    """Return `1 document`, `2 documents`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def device(id: str, own: str) -> str:
    """Return what a device is called: its first digits, or that it is this one."""
    return "this device" if id == own else id[:SHORT_DEVICE]


def table(
    rows: Sequence[Sequence[str]], *, header: Sequence[str] | None = None, texts: bool = False
) -> None:
    """Print rows of equal length; only the last column may be long.

    Args:
        texts: The last column has the texts of documents, not names.
    """
    lines = [[*map(visible, row[:-1]), visible(row[-1], is_text=texts)] for row in rows]
    if sys.stdout.isatty():
        _wrapped(lines, header)
        return
    titles = [] if header is None else [list(header)]
    flat = titles + [[cell.replace("\n", " ") for cell in row] for row in lines]
    if not flat:
        return
    widths = [max(len(row[place]) for row in flat) for place in range(len(flat[0]) - 1)]
    for row in flat:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        print("  ".join([*cells, row[-1]]).rstrip())


def _wrapped(lines: Sequence[Sequence[str]], header: Sequence[str] | None) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    columns = len(lines[0]) if lines else len(header or ())
    grid = Table(box=None, show_header=header is not None, pad_edge=False, padding=(0, 2, 0, 0))
    for place in range(columns):
        title = "" if header is None else header[place]
        last = place == columns - 1
        grid.add_column(title, no_wrap=not last, overflow="fold" if last else "ellipsis")
    for line in lines:
        # Text, not str: brackets in a document are no markup.
        grid.add_row(*map(Text, line))
    Console(highlight=False).print(grid)


@contextmanager
def progress(what: str, total: int) -> Iterator[Progress | None]:
    """Show a bar on stderr while the block runs, if it is a terminal and the work is long."""
    if total < PROGRESS_FROM or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    bars = Bars(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    with bars:
        task = bars.add_task(what, total=total)

        def update(done: int, of: int) -> None:
            bars.update(task, completed=done, total=of)

        yield update


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """Show on stderr that something takes a while, if it is a terminal."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console
    from rich.text import Text

    with Console(stderr=True).status(Text(visible(what))):
        yield
