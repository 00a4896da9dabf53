"""PDF and DOCX files: what they say is found, in order, under its headings; nothing breaks."""

from __future__ import annotations

import asyncio
import io
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import docx
import pytest
from docx.oxml import parse_xml
from fpdf import FPDF
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pypdf import PdfReader, PdfWriter

from moss_local import (
    InvalidArgumentError,
    MossClient,
    ParseFileInput,
    QueryOptions,
    ReaderMissingError,
    office,
)
from moss_local.chunking import Chunking
from moss_local.ingest import Cutting, documents_from, given_of_file
from moss_local.office import Part, parts_of
from tests.keys import KEY
from tests.moss_local.cli_harness import Cli

W = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
DOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"


def pdf(*pages: str, password: str | None = None) -> bytes:
    made = FPDF()
    made.set_font("Helvetica", size=11)
    for text in pages:
        made.add_page()
        made.multi_cell(0, 6, text)
    data = bytes(made.output())
    if password is None:
        return data
    writer = PdfWriter(clone_from=PdfReader(io.BytesIO(data)))
    writer.encrypt(password, "owner", algorithm="AES-256")
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


def word(build: Callable[[Any], None]) -> bytes:
    made = docx.Document()
    build(made)
    out = io.BytesIO()
    made.save(out)
    return out.getvalue()


def handbook(made: Any) -> None:
    made.add_heading("Handbook", 0)
    made.add_paragraph("Read me first.")
    made.add_heading("Refunds", 1)
    made.add_heading("Cards", 2)
    made.add_paragraph("A refund to a card takes three days.")
    table = made.add_table(rows=2, cols=2)
    for row, cells in enumerate((("Card", "Days"), ("Visa", "3"))):
        for column, text in enumerate(cells):
            table.cell(row, column).text = text
    made.add_heading("Cash", 2)
    made.add_paragraph("# 1 Cash is paid at once.")
    made.add_heading("Nothing below", 1)


def cut(name: str, data: bytes, **options: Any) -> list[tuple[str, str]]:
    given = given_of_file(name, data)
    found = documents_from(given, Cutting(**options), lambda: None)
    return [(each.id, each.text) for each in found]


def test_a_pdf_is_cut_page_by_page_and_every_chunk_knows_its_page() -> None:
    data = pdf("The first page. It has two sentences.", "Über die zweite Seite: 49,99.")
    given = given_of_file("book.pdf", data)
    found = documents_from(given, Cutting(), lambda: None)
    assert [(each.id, each.text, each.metadata) for each in found] == [
        (
            "book.pdf#0",
            "The first page. It has two sentences.",
            {"parentId": "book.pdf", "page": "1"},
        ),
        ("book.pdf#1", "Über die zweite Seite: 49,99.", {"parentId": "book.pdf", "page": "2"}),
    ]


def test_a_docx_is_cut_under_its_headings_tables_row_by_row() -> None:
    assert cut("h.docx", word(handbook)) == [
        ("h.docx#0", "Handbook\nRead me first."),
        (
            "h.docx#1",
            "Refunds > Cards\nA refund to a card takes three days.\n\nCard | Days\n\nVisa | 3",
        ),
        ("h.docx#2", "Refunds > Cash\n# 1 Cash is paid at once."),
        ("h.docx#3", "Nothing below"),
    ]


def test_text_boxes_content_controls_and_notes_are_read_and_deleted_text_is_not() -> None:
    box = "<w:txbxContent><w:p><w:r><w:t>In the box.</w:t></w:r></w:p></w:txbxContent>"
    xml = f"""<w:p {W} xmlns:mc="http://schemas.openxmlformats.org/markup-compatibility/2006">
      <w:r><w:t>Before</w:t><w:tab/><w:t>after.</w:t></w:r>
      <w:del><w:r><w:delText>Gone.</w:delText></w:r></w:del>
      <w:ins><w:r><w:t xml:space="preserve"> Put in.</w:t></w:r></w:ins>
      <w:r><mc:AlternateContent><mc:Choice>{box}</mc:Choice><mc:Fallback>{box}</mc:Fallback>
      </mc:AlternateContent></w:r></w:p>"""
    control = f"""<w:sdt {W}><w:sdtContent><w:p><w:r><w:t>In the control.</w:t></w:r></w:p>
      </w:sdtContent></w:sdt>"""

    def build(made: Any) -> None:
        body = made.element.body
        body.insert(0, parse_xml(xml))
        body.insert(1, parse_xml(control))

    [part] = parts_of("x.docx", word(build), ".docx")
    assert part.text == "Before\tafter. Put in.\n\nIn the box.\n\nIn the control."


def test_foot_and_endnotes_come_last() -> None:
    from docx.opc.constants import RELATIONSHIP_TYPE
    from docx.opc.packuri import PackURI
    from docx.opc.part import Part as Package

    def build(made: Any) -> None:
        made.add_heading("Title", 1)
        made.add_paragraph("Body.")
        notes = f"<w:footnotes {W}><w:footnote><w:p><w:r><w:t>A note.</w:t></w:r></w:p>"
        notes += "</w:footnote></w:footnotes>"
        kind = "application/vnd.openxmlformats-officedocument.wordprocessingml.footnotes+xml"
        package = Package(PackURI("/word/footnotes.xml"), kind, notes.encode(), made.part.package)
        made.part.relate_to(package, RELATIONSHIP_TYPE.FOOTNOTES)

    assert parts_of("x.docx", word(build), ".docx") == [
        Part("Body.", ("Title",)),
        Part("A note."),
    ]


def test_a_heading_above_signs_alone_is_text_itself() -> None:
    def build(made: Any) -> None:
        made.add_heading("Interlude", 1)
        made.add_paragraph("* * *")
        made.add_heading("Coda", 1)
        made.add_heading("~", 2)
        made.add_heading("End", 1)
        made.add_paragraph("Said.")
        made.add_heading("~", 2)

    assert parts_of("x.docx", word(build), ".docx") == [
        Part("Interlude\n\n* * *"),
        Part("Coda\n\n~"),
        Part("Said.", ("End",)),
        Part("~", ("End",)),
    ]


WORDS = st.text(st.sampled_from("abcxyz 0189äß返金.،#`~-\n"), max_size=120)


@settings(max_examples=25)
@example([(1, "0"), (0, "`")])
@example([(1, "0"), (2, "`")])
@given(st.lists(st.tuples(st.integers(0, 4), WORDS), max_size=8))
def test_no_word_of_a_docx_is_lost(lines: list[tuple[int, str]]) -> None:
    def build(made: Any) -> None:
        made.add_paragraph("begin")
        for level, text in lines:
            made.add_heading(text, level) if level else made.add_paragraph(text)

    chunks = cut("x.docx", word(build), chunking=Chunking(chunk_size=2000))
    found = " ".join(text for _, text in chunks)
    for level, text in lines:
        for each in text.split():
            if any(character.isalnum() for character in each):
                # Of headings a chunk has at most half of what it may have: these are shorter.
                assert each in found, (level, each)


@pytest.mark.parametrize("name", ["x.pdf", "x.docx"])
def test_damaged_files_are_refused_by_name_and_nothing_else_is_raised(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    whole = pdf("Some text here.") if name == "x.pdf" else word(handbook)
    told = [trouble(name, whole[:end]) for end in range(0, len(whole), max(1, len(whole) // 40))]
    for place in range(0, len(whole), max(1, len(whole) // 60)):
        damaged = bytearray(whole)
        damaged[place] ^= 0xFF
        told.append(trouble(name, bytes(damaged)))
    assert all(name in each for each in told if each)
    assert sum(map(bool, told)) > 50
    assert caplog.records == []


def trouble(name: str, data: bytes) -> str:
    """Return what is wrong with a file, nothing if it can be read."""
    try:
        parts_of(name, data, Path(name).suffix)
    except InvalidArgumentError as error:
        return str(error)
    return ""


def test_what_cannot_be_read_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidArgumentError, match=r"x\.pdf is encrypted"):
        parts_of("x.pdf", pdf("secret", password="open"), ".pdf")
    assert "no secret" in parts_of("x.pdf", pdf("no secret", password=""), ".pdf")[0].text
    with pytest.raises(InvalidArgumentError, match="no text in it") as scanned:
        parts_of("x.pdf", pdf("", ""), ".pdf")
    assert "OCR" in str(scanned.value.hint)
    monkeypatch.setattr(office, "MAX_PAGES", 1)
    with pytest.raises(InvalidArgumentError, match="more than 1 pages"):
        parts_of("x.pdf", pdf("a", "b"), ".pdf")
    monkeypatch.setattr(office, "MAX_TEXT_CHARS", 10)
    for name, data in (("x.pdf", pdf("more than ten")), ("x.docx", word(handbook))):
        with pytest.raises(InvalidArgumentError, match="more than 10 characters"):
            parts_of(name, data, Path(name).suffix)


def test_no_entity_is_resolved() -> None:
    whole, out = word(handbook), io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(whole)) as before, zipfile.ZipFile(out, "w") as after:
        for item in before.infolist():
            data = before.read(item)
            if item.filename == "word/document.xml":
                head = b'<!DOCTYPE w [<!ENTITY e SYSTEM "file:///etc/hostname">]>'
                data = data.replace(b"?>", b"?>" + head, 1).replace(b"Read me first.", b"&e;")
            after.writestr(item, data)
    with pytest.raises(InvalidArgumentError, match="cannot be read as DOCX"):
        parts_of("x.docx", out.getvalue(), ".docx")


def test_without_the_extra_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pypdf", None)
    with pytest.raises(ReaderMissingError, match="not installed") as refused:
        parts_of("x.pdf", b"", ".pdf")
    assert refused.value.hint == "install it: pip install 'moss-local[files]'"


def test_files_are_added_indexed_and_found_by_python_and_by_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("h.docx").write_bytes(word(handbook))
    Path("b.pdf").write_bytes(pdf("Parcels arrive on Tuesday.", "Refunds take three days."))

    async def story() -> None:
        async with MossClient("p", KEY, store="memory://office", data_dir=tmp_path) as client:
            session = await client.session("conv")
            assert await session.add_docs([Path("h.docx"), Path("b.pdf")]) == (6, 0)
            [hit] = (await session.query("When do parcels come?", QueryOptions(top_k=1))).docs
            assert (hit.id, (hit.metadata or {})["page"]) == ("b.pdf#0", "1")
            files = [
                ParseFileInput("one", "application/pdf", path="b.pdf"),
                ParseFileInput("two", DOCX, data=Path("h.docx").read_bytes()),
            ]
            made = await client.create_index_from_files("files", files)
            assert made.doc_count == 6

    asyncio.run(story())
    Cli()("init", "--project", "q").ok()
    done = Cli()("add", "conv", "--file", "b.pdf", "--json").ok().json()
    assert done["ids"] == ["b.pdf#0", "b.pdf#1"]
