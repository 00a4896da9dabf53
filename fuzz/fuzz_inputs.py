"""Documents handed in: JSON is refused by name or comes back the same; a chunk is never longer than
allowed, and no letter or digit of a text is lost by cutting it."""

from __future__ import annotations

import json
from collections import Counter

from fuzz.shapes import text_of
from moss_local.chunking import Chunking, chunks_of, chunks_of_markdown, without_front_matter
from moss_local.ingest import given_of_file
from moss_local.inputs import documents_of_json
from moss_sync import InvalidArgumentError


def one(data: bytes) -> None:
    text = text_of(data)
    try:
        found = documents_of_json(text, source="fuzz")
    except InvalidArgumentError:
        found = []
    if found:
        lines = [
            {"id": d.id, "text": d.text, "metadata": d.metadata, "payload": d.payload}
            for d in found
        ]
        again = documents_of_json("\n".join(map(json.dumps, lines)), source="fuzz")
        assert [(d.id, d.text, d.metadata, d.payload) for d in again] == [
            (d.id, d.text, d.metadata, d.payload) for d in found
        ]
    for name in ("fuzz.json", "fuzz.txt", "fuzz.md"):
        try:
            given_of_file(name, data)
        except InvalidArgumentError:
            continue
    size = 200 + (data[0] if data else 0) * 7
    for mode in ("pages", "sentences"):
        chunking = Chunking(chunk_size=size, chunk_overlap=0, mode=mode)
        chunks = chunks_of(text, chunking)
        assert all(0 < len(chunk) <= size for chunk in chunks)
        assert letters("".join(chunks)) == letters(text)
        marked = chunks_of_markdown(text, chunking)
        assert all(0 < len(chunk) <= size for chunk in marked)
        assert not letters("".join(marked)) - letters(text * (len(marked) + 1))
    assert text.endswith(without_front_matter(text))


def letters(text: str) -> Counter[str]:
    return Counter(character for character in text if character.isalnum())
