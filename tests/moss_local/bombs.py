"""Small PDF and DOCX files that ask their reader for gigabytes, or for hours."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterable

MAIN = "application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"
RELATION = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
W = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
PARAGRAPH = "<w:p><w:r><w:t>word</w:t></w:r></w:p>"


def docx(
    body: str | bytes = PARAGRAPH,
    *,
    head: str = "",
    links: Iterable[tuple[str, str]] = (),
    parts: dict[str, bytes] | None = None,
    method: int = zipfile.ZIP_DEFLATED,
) -> bytes:
    """Return a DOCX; `links` are (kind, target) of its body, `parts` what else is in it."""
    content = body if isinstance(body, bytes) else body.encode()
    document = b'<?xml version="1.0"?>%s<w:document %s><w:body>%s</w:body></w:document>' % (
        head.encode(),
        W.encode(),
        content,
    )
    relations = "".join(
        f'<Relationship Id="r{number}" Type="{RELATION}/{kind}" Target="{target}"/>'
        for number, (kind, target) in enumerate(links)
    )
    types = (
        '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
        '<Default Extension="rels"'
        ' ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
        '<Default Extension="xml" ContentType="application/xml"/>'
        f'<Override PartName="/word/document.xml" ContentType="{MAIN}"/></Types>'
    )
    space = 'xmlns="http://schemas.openxmlformats.org/package/2006/relationships"'
    files = {
        "[Content_Types].xml": types.encode(),
        "_rels/.rels": f'<Relationships {space}><Relationship Id="r"'
        f' Type="{RELATION}/officeDocument" Target="word/document.xml"/></Relationships>'.encode(),
        "word/document.xml": document,
        "word/_rels/document.xml.rels": f"<Relationships {space}>{relations}</Relationships>"
        "".encode(),
        **(parts or {}),
    }
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data, method)
    return out.getvalue()


def notes(count: int, text: str) -> bytes:
    """Return a part of notes."""
    return f"<w:footnotes {W}>{text * count}</w:footnotes>".encode()


class Pdf:
    """Objects of a PDF, numbered from 1."""

    def __init__(self) -> None:
        self.objects: list[bytes] = []

    def add(self, content: bytes | str) -> int:
        self.objects.append(content if isinstance(content, bytes) else content.encode("latin-1"))
        return len(self.objects)

    def stream(self, data: bytes, facts: str = "", *, times: int = 1) -> int:
        """Add a stream, packed so many times."""
        for _ in range(times):
            data = zlib.compress(data, 9)
        filters = " ".join(["/FlateDecode"] * times)
        head = f"<< /Length {len(data)} /Filter [{filters}] {facts} >>\nstream\n".encode()
        return self.add(head + data + b"\nendstream")

    def page_of(self, content: int, resources: str = "") -> bytes:
        """Return the file with one page."""
        pages = len(self.objects) + 2
        page = self.add(
            f"<< /Type /Page /Parent {pages} 0 R /MediaBox [0 0 600 800]"
            f" /Contents {content} 0 R /Resources << {resources} >> >>"
        )
        self.add(f"<< /Type /Pages /Kids [{page} 0 R] /Count 1 >>")
        return self.file(pages)

    def file(self, pages: int) -> bytes:
        """Return the file with this root of its page tree."""
        catalog = self.add(f"<< /Type /Catalog /Pages {pages} 0 R >>")
        out = bytearray(b"%PDF-1.7\n")
        places = []
        for number, content in enumerate(self.objects, 1):
            places.append(len(out))
            out += b"%d 0 obj\n%s\nendobj\n" % (number, content)
        start = len(out)
        out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(places) + 1)
        out += b"".join(b"%010d 00000 n \n" % place for place in places)
        out += b"trailer\n<< /Size %d /Root %d 0 R >>\nstartxref\n%d\n%%%%EOF" % (
            len(places) + 1,
            catalog,
            start,
        )
        return bytes(out)


FONT = "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"
SHOWN = b"BT /F 12 Tf 10 10 Td (some words) Tj ET\n"


def plain() -> bytes:
    """A PDF that is none of the bombs, to see that they are readable otherwise."""
    pdf = Pdf()
    font = pdf.add(FONT)
    return pdf.page_of(pdf.stream(SHOWN), f"/Font << /F {font} 0 R >>")


def nested_forms(levels: int = 12, times: int = 10) -> bytes:
    """Forms, each of which shows the next one ten times."""
    pdf = Pdf()
    font = pdf.add(FONT)
    fonts = f"/Font << /F {font} 0 R >>"
    kind = "/Type /XObject /Subtype /Form /BBox [0 0 9 9] /Resources"
    form = pdf.stream(SHOWN, f"{kind} << {fonts} >>")
    for _ in range(levels):
        more = f"{kind} << {fonts} /XObject << /X {form} 0 R >> >>"
        form = pdf.stream(b"/X Do " * times, more)
    return pdf.page_of(pdf.stream(b"/X Do"), f"/XObject << /X {form} 0 R >>")


def packed_operators(token: bytes = b"[] ", megabytes: int = 70, times: int = 2) -> bytes:
    """Operands without end, packed twice."""
    pdf = Pdf()
    font = pdf.add(FONT)
    content = pdf.stream(token * (megabytes * 2**20 // len(token)) + SHOWN, times=times)
    return pdf.page_of(content, f"/Font << /F {font} 0 R >>")


def many_pages_packed_twice(count: int = 4) -> bytes:
    """Pages with a stream each that unpacks to 70 MB of comment, kept by a reader that caches."""
    pdf = Pdf()
    font = pdf.add(FONT)
    root = count * 2 + 2
    kids = []
    for number in range(count):
        content = pdf.stream(b"%" + b"x" * (70 * 2**20) + b"\n" + SHOWN + b"%%%d" % number, times=2)
        kids.append(
            pdf.add(
                f"<< /Type /Page /Parent {root} 0 R /MediaBox [0 0 9 9] /Contents {content} 0 R"
                f" /Resources << /Font << /F {font} 0 R >> >> >>"
            )
        )
    listed = " ".join(f"{kid} 0 R" for kid in kids)
    assert pdf.add(f"<< /Type /Pages /Kids [{listed}] /Count {count} >>") == root
    return pdf.file(root)


def many_fonts(count: int = 3000) -> bytes:
    """Fonts that share one table of characters, which is of two lines and has 99 000 entries."""
    pdf = Pdf()
    table = pdf.stream(
        b"1 begincodespacerange <000000> <ffffff> endcodespacerange\n"
        b"1 beginbfrange\n<000000> <01ffff> <0041>\n<000000> <0182b7> <0041>\nendbfrange\n"
    )
    fonts = [
        pdf.add(
            "<< /Type /Font /Subtype /Type0 /BaseFont /F /Encoding /Identity-H"
            f" /ToUnicode {table} 0 R /DescendantFonts [<< /Type /Font /Subtype /CIDFontType2"
            " /BaseFont /F /CIDSystemInfo << >> /W [0 [500]] >>] >>"
        )
        for _ in range(count)
    ]
    listed = " ".join(f"/F{number} {font} 0 R" for number, font in enumerate(fonts))
    return pdf.page_of(pdf.stream(b"BT /F0 12 Tf (words) Tj ET"), f"/Font << {listed} >>")


def long_mappings() -> bytes:
    """A page of one letter, which stands for two hundred and fifty."""
    pdf = Pdf()
    line = b"<%02x> <%s>\n"
    table = b"1 begincodespacerange <00> <ff> endcodespacerange\n"
    table += b"1 beginbfchar\n" + line % (0x41, b"d83ddc4d" * 125) + b"endbfchar\n"
    font = pdf.add(
        f"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /ToUnicode {pdf.stream(table)} 0 R >>"
    )
    shown = b"BT /F 12 Tf " + (b"(" + b"A" * 2**20 + b") Tj ") * 64 + b"ET"
    return pdf.page_of(pdf.stream(shown, times=2), f"/Font << /F {font} 0 R >>")


def shared_kids(levels: int = 12, times: int = 10) -> bytes:
    """A page tree whose nodes name the next one ten times."""
    pdf = Pdf()
    font = pdf.add(FONT)
    content = pdf.stream(SHOWN)
    node = pdf.add(
        f"<< /Type /Page /MediaBox [0 0 9 9] /Contents {content} 0 R"
        f" /Resources << /Font << /F {font} 0 R >> >> >>"
    )
    count = 1
    for _ in range(levels):
        count *= times
        kids = f"{node} 0 R " * times
        node = pdf.add(f"<< /Type /Pages /Kids [{kids}] /Count {count} >>")
    return pdf.file(node)


def cyclic_kids() -> bytes:
    """A page tree that leads back to itself."""
    pdf = Pdf()
    first = pdf.add("<< /Type /Pages /Kids [2 0 R 2 0 R] /Count 2 >>")
    pdf.add("<< /Type /Pages /Kids [1 0 R 1 0 R] /Count 2 >>")
    return pdf.file(first)
