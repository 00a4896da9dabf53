"""Words of a query: no text raises or is syntax; the resident postings and FTS5 find the same; what
a text says is found by that text."""

from __future__ import annotations

from functools import cache

from fuzz.shapes import scratch, text_of
from moss_local.search.query import search
from moss_local.storage.documents import Document
from moss_local.storage.edits import delete_documents, put_documents
from moss_local.storage.file import SessionFile, open_session_file

TEXTS = (
    *("The refund was granted on Monday.", "AND OR NOT NEAR", 'col:umn "quoted" ^star* (x)'),
    *(
        "Straße STRASSE café cafe\u0301",
        "返金は三日以内に届きます。",
        "환불은 사흘 안에",
        "استرداد المال",
    ),
    *("שלום עולם", "ส่งเงินคืนภายในสามวัน", "возврат денег", "a-b_c d.e", "🎉 emoji 👍🏽", "x"),
)
SYNTAX = str.maketrans(dict.fromkeys("\"*:^()+-{}[]<>=,;!?'\\/~`|&%$#@", " "))


@cache
def stored() -> SessionFile:
    file = open_session_file(scratch() / "words.sqlite3", session="s", durability="normal")
    with file.writing() as conn:
        documents = [Document(f"d{n}", text) for n, text in enumerate(TEXTS)]
        put_documents(conn, documents, space=None, now_ms=1)
    return file


def found(text: str, *, low_memory: bool = False) -> list[tuple[str, str]]:
    hits = search(
        stored(),
        low_memory=low_memory,
        text=text,
        vector=None,
        alpha=0.0,
        top_k=len(TEXTS) + 1,
        min_score=None,
        filter=None,
        group_by=None,
        candidate_depth=None,
        context=0,
        recency=0.0,
        threaded=False,
    )
    return [(hit.id, hit.text) for hit in hits]


def one(data: bytes) -> None:
    text = text_of(data)
    hits = found(text)
    assert found(text, low_memory=True) == hits
    assert found(text.translate(SYNTAX)) == hits
    sayable = text.encode("utf-8", "replace").decode()[:2000]
    if not any(character.isalnum() and character.isascii() for character in sayable):
        return
    with stored().writing() as conn:
        put_documents(conn, [Document("own", sayable)], space=None, now_ms=2)
    try:
        assert "own" in {id for id, _ in found(sayable)}
    finally:
        with stored().writing() as conn:
            delete_documents(conn, ["own"], now_ms=3)
