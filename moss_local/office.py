"""PDF and DOCX files as parts: a page each, a section each; PDF with the extra `moss-local[files]`.

What a part says is what its file says, in the order of the file. Of a PDF that is the text that a
reader of it would select; pages that are pictures have none, and nothing here recognises any. Of a
DOCX it is the body with its tables and text boxes, then foot- and endnotes; headers, footers,
comments and deleted text are left out.

The files may come from anybody. Of a DOCX everything is counted while it is read; a PDF is read in
a process of its own, which the system ends past its memory and time (Linux; macOS knows the time
only, Windows neither, and pypdf's own limits are what is left). Nothing is executed; whatever the
readers stumble over is told as what is wrong with the file.
What holds: tests/moss_local/test_office.py, test_office_bombs.py.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from moss_local.docx_text import lines_of
from moss_local.errors import ReaderMissingError
from moss_sync import InvalidArgumentError

OFFICE_SUFFIXES = (".pdf", ".docx")

MAX_PAGES = 20_000
"""Of a PDF; the longest printed book has a fifth of it."""

MAX_TEXT_CHARS = 16 * 1024 * 1024
"""Of one file: four times the Bible."""

MAX_READER_BYTES = 1024 * 1024 * 1024
"""Address space of the process that reads a PDF; a thousand pages of text take a tenth of it."""

MAX_READER_SECONDS = 120
"""Processor time of that process; a thousand full pages take about 4 s."""


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
        ReaderMissingError: it is a PDF, and the extra `files` is not installed.
        InvalidArgumentError: it is none, damaged, encrypted, too large, or says nothing.
    """
    if suffix == ".pdf":
        parts = _of_pdf(name, data)
    else:
        parts = _sections(lines_of(name, data, max_chars=MAX_TEXT_CHARS))
    if not any(_says(part.text) for part in parts):
        raise InvalidArgumentError(
            f"{name} has no text in it",
            hint="if its pages are pictures, recognise their text (OCR) first",
        )
    return parts


def _of_pdf(name: str, data: bytes) -> list[Part]:
    if importlib.util.find_spec("pypdf") is None:
        raise ReaderMissingError(name, "pypdf")
    parts: list[Part] = []
    for line in _answers_of_process(name, data).splitlines():
        answer = json.loads(line)
        if "text" in answer:
            parts.append(Part(answer["text"], metadata={"page": str(len(parts) + 1)}))
        elif answer["end"] == "read":
            return parts
        else:
            raise _refusal(name, answer)
    raise InvalidArgumentError(
        f"{name} cannot be read in {MAX_READER_BYTES // 2**20} MiB and {MAX_READER_SECONDS} s",
        hint="print it into a new PDF, or save its text as .txt, and add that",
    )


def _answers_of_process(name: str, data: bytes) -> bytes:
    """Return what the process that reads a PDF says; it may have been cut off anywhere."""
    wanted = {
        "path": list(map(str, sys.path)),
        "max_bytes": MAX_READER_BYTES,
        "max_seconds": MAX_READER_SECONDS,
        "max_pages": MAX_PAGES,
        "max_chars": MAX_TEXT_CHARS,
    }
    # A program that was frozen into one file would start itself anew instead of Python.
    if not sys.executable or getattr(sys, "frozen", False):
        raise _no_process(name, "this program has no Python to start")
    command = [sys.executable, "-I", str(Path(__file__).with_name("pdf_process.py"))]
    try:
        done = subprocess.run(
            command,
            input=json.dumps(wanted).encode() + b"\n" + data,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # where pypdf quotes what it finds in the file
            check=False,
        )
    except OSError as error:
        raise _no_process(name, error.strerror or type(error).__name__) from error
    end = done.stdout.rfind(b"\n") + 1  # a line that was cut off is none
    return done.stdout[:end]


def _no_process(name: str, cause: str) -> InvalidArgumentError:
    return InvalidArgumentError(
        f"{name} cannot be read, because PDF files are read in a process of their own: {cause}",
        hint="save its text as .txt elsewhere, and add that",
    )


def _refusal(name: str, answer: dict[str, str]) -> InvalidArgumentError:
    if answer["end"] == "encrypted":
        return InvalidArgumentError(
            f"{name} is encrypted", hint="save a copy of it without a password, and add that"
        )
    if answer["end"] == "pages":
        return InvalidArgumentError(f"{name} has more than {MAX_PAGES} pages")
    if answer["end"] == "chars":
        return InvalidArgumentError(f"{name} has more than {MAX_TEXT_CHARS} characters of text")
    return InvalidArgumentError(
        f"{name} cannot be read as PDF: {answer['error']}",
        hint="open it in the program that made it, and save it anew",
    )


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
