"""The file that holds a session: what goes in comes out, and nothing else is taken for one."""

from __future__ import annotations

import io
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moss_local import SnapshotCorruptError, portable
from moss_local.portable import MAGIC, MAX_FRAME_BYTES, Header, read, read_header, write
from moss_local.storage.documents import Document
from moss_sync import VectorSpace
from moss_sync.packing import pack
from tests.strategies import ids, metadata, texts

GOLDEN = Path(__file__).parents[1] / "golden" / "export-1.moss"
F2 = VectorSpace("moss-minilm", "f" * 32, 4, "f2")
F4 = VectorSpace("custom", "c" * 32, 4, "f4")
EXACT = st.sampled_from([-2.0, -1.0, -0.5, 0.0, 0.25, 1.0, 4.0])
"""Numbers that half floats hold."""

vectors = st.lists(EXACT, min_size=4, max_size=4).filter(any)


@st.composite
def contents(draw: st.DrawFn, space: VectorSpace | None) -> list[Document]:
    found = []
    for id in draw(st.lists(ids.filter(bool), unique=True, max_size=6)):
        vector = draw(st.none() | vectors) if space is not None else None
        found.append(
            Document(
                id,
                draw(texts),
                draw(st.none() | metadata),
                draw(st.none() | texts),
                None if vector is None else np.array(vector, np.float32),
            )
        )
    return found


def written(documents: list[Document], space: VectorSpace | None, **wrong: Any) -> bytes:
    out = io.BytesIO()
    count = sum(document.vector is not None for document in documents)
    fields = {"session": "conv", "docs": len(documents), "vectors": count, "space": space}
    write(out, Header(**(fields | wrong)), documents)
    return out.getvalue()


def all_of(data: bytes) -> list[Document]:
    return [each for batch in read(io.BytesIO(data), "x.moss") for each in batch]


def shown(documents: list[Document]) -> list[tuple[Any, ...]]:
    return [
        (
            document.id,
            document.text,
            document.metadata,
            document.payload,
            None if document.vector is None else document.vector.tolist(),
        )
        for document in documents
    ]


@given(st.data(), st.sampled_from([None, F2, F4]))
def test_what_goes_in_comes_out(data: st.DataObject, space: VectorSpace | None) -> None:
    documents = data.draw(contents(space))
    blob = written(documents, space)
    assert shown(all_of(blob)) == shown(documents)
    header = read_header(io.BytesIO(blob), "x.moss")
    assert (header.session, header.docs, header.space) == ("conv", len(documents), space)


@settings(max_examples=20)
@given(st.data())
def test_any_bytes_are_refused_by_name_or_are_a_whole_file(data: st.DataObject) -> None:
    blob = bytearray(written(data.draw(contents(F4)), F4))
    place = data.draw(st.integers(0, len(blob) - 1))
    blob[place] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(SnapshotCorruptError, match=r"x\.moss cannot be read"):
        all_of(bytes(blob))


def test_a_file_that_was_cut_anywhere_or_goes_on_is_refused() -> None:
    blob = written([Document("a", "text", {"k": "v"}, None, np.ones(4, np.float32))], F4)
    for end in range(len(blob)):
        with pytest.raises(SnapshotCorruptError):
            all_of(blob[:end])
    with pytest.raises(SnapshotCorruptError, match="follows its end"):
        all_of(blob + b"\0")


def test_many_documents_are_read_a_bounded_number_at_a_time() -> None:
    long = [Document(f"{n}", "ü" * 200_000) for n in range(20)]
    short = [Document(f"s{n}", "text") for n in range(2_500)]
    blob = written([*long, *short], None)
    batches = list(read(io.BytesIO(blob), "x.moss"))
    assert sum(map(len, batches)) == 2_520
    assert max(map(len, batches)) <= portable.BATCH_DOCUMENTS
    assert max(sum(len(each.text) for each in batch) for batch in batches) < MAX_FRAME_BYTES // 4


def sealed(*frames: bytes) -> bytes:
    body = MAGIC + b"".join(len(frame).to_bytes(4, "big") + frame for frame in frames) + bytes(4)
    return body + blake2b(body, digest_size=32).digest()


MODEL = {"id": "custom", "fp": "c", "dim": 2, "dtype": "f4"}
HEAD = {"v": 1, "session": "conv", "docs": 1, "vectors": 0, "model": MODEL}
DOC = ["a", "text", None, None, None]
ONE = np.ones(2, "<f4").tobytes()


@pytest.mark.parametrize(
    ("frames", "why"),
    [
        ([pack(HEAD | {"v": 2}), pack([DOC])], "version 2"),
        ([pack({}), pack([DOC])], "header"),
        ([pack(HEAD | {"model": MODEL | {"dim": 0}}), pack([DOC])], "header"),
        ([pack(HEAD | {"model": MODEL | {"dim": 9_000}}), pack([DOC])], "header"),
        ([pack(HEAD | {"model": MODEL | {"dtype": "f8"}}), pack([DOC])], "header"),
        ([pack(HEAD | {"model": None, "vectors": 1}), pack([DOC])], "of which model"),
        ([pack(HEAD), pack([DOC, ["b", "text", None, None, None]])], "holds 2 documents"),
        ([pack(HEAD)], "holds 0 documents"),
        ([pack(HEAD), pack([DOC]), pack([DOC])], "twice"),
        ([pack(HEAD), pack([["a", "text"]])], "none"),
        ([pack(HEAD), pack([["", "text", None, None, None]])], "empty"),
        ([pack(HEAD), pack([["a", 7, None, None, None]])], "string"),
        ([pack(HEAD), pack([["a", "text", {"k": 1}, None, None]])], "string"),
        ([pack(HEAD), pack([["a", "text", None, None, b"123"]])], "not of the model"),
        ([pack(HEAD), pack([["a", "text", None, None, bytes(8)]])], "no direction"),
        (
            [pack(HEAD), pack([["a", "text", None, None, np.full(2, np.nan, "<f4").tobytes()]])],
            "no direction",
        ),
        ([pack(HEAD | {"model": None}), pack([["a", "text", None, None, ONE]])], "of the model"),
        ([pack(HEAD), b"no zstd"], "compressed"),
        ([pack(HEAD), pack("a" * (MAX_FRAME_BYTES + 1))], "declares"),
    ],
)
def test_what_somebody_else_has_made_is_refused(frames: list[bytes], why: str) -> None:
    with pytest.raises(SnapshotCorruptError, match=why):
        all_of(sealed(*frames))


def test_a_part_that_says_it_is_huge_is_not_waited_for() -> None:
    with pytest.raises(SnapshotCorruptError, match="4294967295 bytes"):
        all_of(MAGIC + b"\xff" * 4)


def test_a_file_of_the_first_version_is_read_for_ever() -> None:
    documents = all_of(GOLDEN.read_bytes())
    assert shown(documents) == [
        ("turn-1", "Customer: charged twice, 49.99 €.", {"who": "Customer"}, None, [1.0, 0.5]),
        ("turn-2", "返金は三日以内に届きます。", None, '{"n":1}', [-0.25, 4.0]),
        ("turn-3", "", {}, "", None),
    ]
    with GOLDEN.open("rb") as source:
        header = read_header(source, "golden")
    assert header == Header("conv-123", 3, 2, VectorSpace("custom", "space-of-two", 2, "f2"))
