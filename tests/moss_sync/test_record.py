"""The digest that stands third in a version: equal exactly when the contents are."""

from __future__ import annotations

from hashlib import blake2b

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moss_sync.record import Record, VectorSpace, Version, content_digest
from tests.strategies import ids, metadata, texts


@given(
    id=ids,
    text=texts,
    first=metadata,
    second=metadata,
    payload=st.none() | texts,
)
def test_the_digest_tells_every_difference_in_metadata(
    id: str,
    text: str,
    first: dict[str, str] | None,
    second: dict[str, str] | None,
    payload: str | None,
) -> None:
    digests = {
        content_digest(id, deleted=False, text=text, metadata=meta, payload=payload)
        for meta in (first, second)
    }
    assert len(digests) == (1 if first == second else 2)


@given(meta=st.dictionaries(texts, texts, min_size=2, max_size=5), data=st.data())
def test_the_order_in_which_metadata_was_written_does_not_matter(
    meta: dict[str, str], data: st.DataObject
) -> None:
    shuffled = dict(data.draw(st.permutations(list(meta.items()))))
    assert content_digest("a", deleted=False, metadata=meta) == content_digest(
        "a", deleted=False, metadata=shuffled
    )


def test_each_part_of_the_content_counts() -> None:
    digests = [
        content_digest("a", deleted=False),
        content_digest("b", deleted=False),
        content_digest("a", deleted=True),
        content_digest("a", deleted=False, text="x"),
        content_digest("a", deleted=False, metadata={}),
        content_digest("a", deleted=False, metadata={"x": ""}),
        content_digest("a", deleted=False, metadata={"": "x"}),
        content_digest("a", deleted=False, payload=""),
        content_digest("a", deleted=False, payload="x"),
        content_digest("a", deleted=False, own_vector=b""),
        content_digest("a", deleted=False, own_vector=b"\0\0"),
        content_digest("e\u0301", deleted=False),
        content_digest("\u00e9", deleted=False),
    ]
    assert len(set(digests)) == len(digests)
    assert {len(digest) for digest in digests} == {8}


def test_the_digest_is_blake2b_over_the_msgpack_list_that_the_format_describes() -> None:
    body = bytes.fromhex(
        "96"  # a list of six
        "a6 7475726e2d31"  # the id "turn-1"
        "c2"  # not deleted
        "a3 c39c00"  # the text "Ü", NUL
        "92 92 a161 a131 92 a162 a132"  # metadata sorted by key
        "a2 7b7d"  # the payload "{}"
        "c4 02 0102"  # the caller's own vector
    )
    assert (
        content_digest(
            "turn-1",
            deleted=False,
            text="Ü\0",
            metadata={"b": "2", "a": "1"},
            payload="{}",
            own_vector=b"\1\2",
        )
        == blake2b(body, digest_size=8).digest()
    )
    tombstone = bytes.fromhex("96 a6 7475726e2d31 c3 a0 c0 c0 c0")
    assert content_digest("turn-1", deleted=True) == blake2b(tombstone, digest_size=8).digest()


@pytest.mark.parametrize("deleted", [1, True])
def test_a_truth_value_read_from_a_database_digests_like_one_of_the_language(
    deleted: bool,
) -> None:
    assert content_digest("a", deleted=deleted) == content_digest("a", deleted=True)


def test_versions_compare_by_clock_then_device_then_content() -> None:
    ordered = [
        Version(1, b"\xff" * 8, b"\xff" * 8),
        Version(2, b"\0" * 8, b"\xff" * 8),
        Version(2, b"\1" * 8, b"\0" * 8),
        Version(2, b"\1" * 8, b"\1" * 8),
    ]
    assert sorted([ordered[at] for at in (2, 0, 3, 1)]) == ordered


def test_a_vector_has_as_many_bytes_as_its_components_need() -> None:
    assert VectorSpace("m", "00", 384, "f2").vector_bytes == 768
    assert VectorSpace("custom", "00", 3, "f4").vector_bytes == 12


def test_a_record_is_a_document_that_is_not_committed_unless_it_says_otherwise() -> None:
    record = Record("a", Version(1, b"device-A", bytes(8)))
    assert (record.deleted, record.text, record.metadata, record.commit_seq) == (
        False,
        "",
        None,
        None,
    )
