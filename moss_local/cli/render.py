"""How results look. Data goes to stdout, talk to stderr, and nothing else is ever printed.

Texts come from other people: control characters, with which a document could move the cursor or
retitle the window, are shown as symbols. A terminal gets columns that wrap; a pipe gets one line
per row, and programs get `--json`, which is ASCII whatever the locale is.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from moss_local.embedding.base import Progress
    from moss_local.types import SyncState

SHORT_DEVICE = 6
"""Hex digits of a device id that are shown: 1 in 16 million for two devices of one session."""

PROGRESS_FROM = 32
"""Texts; fewer are embedded before a bar could be read."""

_CONTROLS = {code: chr(0x2400 + code) for code in range(0x20) if code not in (0x09, 0x0A)}
_CONTROLS[0x7F] = "\u2421"
_CONTROLS.update(dict.fromkeys(range(0x80, 0xA0), "\ufffd"))
# Marks that reorder what stands around them.
_CONTROLS.update(dict.fromkeys([*range(0x202A, 0x202F), *range(0x2066, 0x206A)], "\ufffd"))


def say(text: str = "") -> None:
    """Print a line of data."""
    print(visible(text))


def talk(text: str) -> None:
    """Print a line about what is going on."""
    print(visible(text), file=sys.stderr)


def say_json(value: Any) -> None:
    """Print one JSON document."""
    print(json.dumps(value, indent=1))


def visible(text: str) -> str:
    """Return `text` with every control character but tab and newline shown as a symbol."""
    return text.translate(_CONTROLS)


def clock_time(ms: int | None) -> str:
    """Return a time of the wall clock in this machine's time zone."""
    if ms is None:
        return "never"
    return datetime.fromtimestamp(ms / 1000, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def sync_state(state: SyncState) -> str:
    """Return where a session stands, in a word or two; why it does is told apart from it."""
    if state.reason is None:
        return str(state)
    return f"{state.status}, {state.pending} pending" if state.pending else state.status


def iso_time(ms: int | None) -> str | None:
    """Return a time as ISO 8601 in UTC with milliseconds, for JSON."""
    if ms is None:
        return None
    stamp = datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds")
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


def table(rows: Sequence[Sequence[str]], *, header: Sequence[str] | None = None) -> None:
    """Print rows of equal length; only the last column may be long."""
    lines = [list(map(visible, row)) for row in rows]
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
        TextColumn("{task.description}"),
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

    with Console(stderr=True).status(what):
        yield
