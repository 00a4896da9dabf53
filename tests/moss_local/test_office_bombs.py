"""PDF and DOCX files that were made to be expensive: refused or read, within the stated memory."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from moss_local import InvalidArgumentError, docx_text, office
from moss_local.docx_text import MAX_DEPTH
from moss_local.office import MAX_READER_BYTES, Part, parts_of
from tests.moss_local import bombs
from tests.moss_local.bombs import PARAGRAPH, W, docx, notes

DOCX_BYTES = 512 * 1024 * 1024
"""What docs/limits.md promises of a DOCX, besides the file."""

HEADINGS = f'<w:styles {W}><w:style w:styleId="H"><w:name w:val="heading 3"/></w:style></w:styles>'
HEADED = '<w:p><w:pPr><w:pStyle w:val="H"/></w:pPr><w:t>a title</w:t></w:p><w:p><w:t>is</w:t></w:p>'
STYLES = [("styles", "styles.xml")]

MEASURED = """
import resource, sys
from pathlib import Path
from moss_local import InvalidArgumentError
from moss_local.office import parts_of

def peak():  # getrusage would tell that of the parent, which survives exec
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])

path = Path(sys.argv[1])
data = path.read_bytes()
before = peak()
try:
    said = f"{len(parts_of(path.name, data, path.suffix))} parts"
except InvalidArgumentError as error:
    said = str(error).splitlines()[0]
print(peak() - before, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, said)
"""


def measured(path: Path, data: bytes) -> tuple[int, int, str]:
    """Read a file in a process of its own: bytes that it and its child took, and the result."""
    path.write_bytes(data)
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, str(path)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    own, child, said = done.stdout.strip().split(maxsplit=2)
    print(
        f"{path.name}: {len(data)} bytes, {int(own) // 1024} and {int(child) // 1024} MiB, {said}"
    )
    return int(own) * 1024, int(child) * 1024, said


def filled(text: str, megabytes: int) -> str:
    return text * (megabytes * 2**20 // len(text))


DOCX_BOMBS: dict[str, tuple[Callable[[], bytes], str]] = {
    "paragraphs without text": (lambda: docx(filled("<w:p/>", 8)), "paragraphs, cells and styles"),
    "cells": (lambda: docx(f"<w:tr>{filled('<w:tc/>', 8)}</w:tr>"), "paragraphs, cells and styles"),
    "text of wide characters": (
        lambda: docx(filled(f"<w:p><w:t>{'👍' * 999}x</w:t></w:p>", 24)),
        "characters of text",
    ),
    "headings": (
        lambda: docx(HEADED * 200_000, links=STYLES, parts={"word/styles.xml": HEADINGS.encode()}),
        "200000 parts",
    ),
    "elements inside each other": (lambda: docx(filled("<w:tbl>", 20)), "inside each other"),
    "one attribute": (lambda: docx(f'<w:p a="{filled("x", 200)}"/>'), "bytes in one tag"),
    "one name": (lambda: docx(f"<{filled('x', 200)}/>"), "bytes in one tag"),
    "names": (lambda: docx("".join(f"<n{n}/>" for n in range(10**6))), "different names"),
    "names of attributes": (
        lambda: docx("".join(f'<p a{n}=""/>' for n in range(10**6))),
        "different names",
    ),
    "entities": (
        lambda: docx(
            "<w:p><w:t>&c;</w:t></w:p>",
            head=f'<!DOCTYPE w [<!ENTITY a "{"x" * 9999}"><!ENTITY b "{"&a;" * 9999}">'
            f'<!ENTITY c "{"&b;" * 9999}">]>',
        ),
        "cannot be read as DOCX",
    ),
    "one part named often": (
        lambda: docx(
            links=[("footnotes", "notes.xml")] * 50_000,
            parts={"word/notes.xml": notes(1000, PARAGRAPH)},
        ),
        "2 parts",
    ),
    "a method that takes memory": (lambda: docx(method=zipfile.ZIP_LZMA), "cannot be read as DOCX"),
}


def test_what_a_docx_unpacks_to_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Comments are nothing that is counted otherwise."""
    data = docx(filled("<!-- -->", 4) + PARAGRAPH)
    assert parts_of("x.docx", data, ".docx") == [Part("word")]
    monkeypatch.setattr(docx_text, "MAX_UNPACKED_BYTES", 4 * 2**20)
    with pytest.raises(InvalidArgumentError, match="more than 4194304 bytes"):
        parts_of("x.docx", data, ".docx")
    pictures = docx(parts={"word/media/picture.png": bytes(5 * 2**20)})
    assert parts_of("x.docx", pictures, ".docx") == [Part("word")]


def test_the_directory_of_a_docx_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    data = docx(parts={f"word/{n}": b"" for n in range(1000)})
    assert parts_of("x.docx", data, ".docx") == [Part("word")]
    monkeypatch.setattr(docx_text, "MAX_DIRECTORY_BYTES", 40_000)
    with pytest.raises(InvalidArgumentError, match="more than 40000 bytes of names of parts"):
        parts_of("x.docx", data, ".docx")


@pytest.mark.skipif(sys.platform != "linux", reason="measures memory as Linux counts it")
@pytest.mark.parametrize("name", DOCX_BOMBS)
def test_a_docx_takes_no_more_memory_than_stated(tmp_path: Path, name: str) -> None:
    make, said = DOCX_BOMBS[name]
    own, _, found = measured(tmp_path / "x.docx", make())
    assert said in found
    assert own < DOCX_BYTES


PDF_BOMBS: dict[str, tuple[Callable[[], bytes], str]] = {
    "none": (bombs.plain, "1 parts"),
    "forms in forms": (bombs.nested_forms, ""),
    "operands packed twice": (bombs.packed_operators, "cannot be read"),
    "operators packed twice": (lambda: bombs.packed_operators(b"q "), "cannot be read"),
    "tables of characters": (bombs.many_fonts, ""),
    "pages named often": (bombs.shared_kids, ""),
    "pages in a circle": (bombs.cyclic_kids, ""),
}


@pytest.mark.skipif(sys.platform != "linux", reason="measures memory as Linux counts it")
@pytest.mark.parametrize("name", PDF_BOMBS)
def test_a_pdf_is_read_by_a_process_of_its_own_in_no_more_memory_than_stated(
    tmp_path: Path, name: str
) -> None:
    make, said = PDF_BOMBS[name]
    own, child, found = measured(tmp_path / "x.pdf", make())
    assert said in found
    assert child < MAX_READER_BYTES
    assert own < 64 * 2**20


@pytest.mark.skipif(sys.platform != "linux", reason="needs limits that the system enforces")
@pytest.mark.parametrize(
    ("limit", "to", "make"),
    [
        ("MAX_READER_BYTES", 192 * 2**20, bombs.many_pages_packed_twice),
        ("MAX_READER_SECONDS", 2, bombs.long_mappings),
    ],
)
def test_a_pdf_that_wants_more_memory_or_time_than_it_may_have_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, limit: str, to: int, make: Callable[[], bytes]
) -> None:
    assert len(parts_of("x.pdf", bombs.plain(), ".pdf")) == 1
    monkeypatch.setattr(office, limit, to)
    assert len(parts_of("x.pdf", bombs.plain(), ".pdf")) == 1
    with pytest.raises(InvalidArgumentError, match=r"x\.pdf cannot be read in") as refused:
        parts_of("x.pdf", make(), ".pdf")
    assert refused.value.hint is not None


def test_a_program_that_can_start_no_python_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    with pytest.raises(InvalidArgumentError, match="in a process of their own"):
        parts_of("x.pdf", bombs.plain(), ".pdf")
    monkeypatch.delattr(sys, "frozen")
    monkeypatch.setattr(sys, "executable", "no such program")
    with pytest.raises(InvalidArgumentError, match="No such file"):
        parts_of("x.pdf", bombs.plain(), ".pdf")


def test_tables_in_tables_are_read_as_deep_as_word_can_write_them() -> None:
    deep = MAX_DEPTH // 4
    row = "<w:tbl><w:tr><w:tc>"
    body = row * deep + PARAGRAPH + "</w:tc></w:tr></w:tbl>" * deep
    assert parts_of("x.docx", docx(body), ".docx") == [Part("word")]
