"""Documents out of JSON and text files."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moss_local.ingest import given_of_file
from moss_local.inputs import documents_of_json
from moss_local.types import DocumentInfo
from moss_sync import InvalidArgumentError


def of(name: str, text: str) -> list[DocumentInfo]:
    return [each.document for each in given_of_file(name, text.encode())]


def test_an_array_and_json_lines_of_the_same_documents_give_the_same() -> None:
    values = [{"id": "a", "text": "one"}, {"id": "b", "text": "two", "payload": "{}"}]
    lines = "\n".join(json.dumps(value) for value in values)
    for name, text in (
        ("t.json", json.dumps(values)),
        ("t.json", json.dumps(values, indent=2)),
        ("t.jsonl", lines),
        ("t.ndjson", lines + "\n\n"),
        ("t.json", lines),
    ):
        found = of(name, text)
        assert [(each.id, each.text, each.payload) for each in found] == [
            ("a", "one", None),
            ("b", "two", "{}"),
        ]


def test_a_single_object_over_several_lines_is_one_document() -> None:
    (found,) = of("t.json", json.dumps({"id": "a", "text": "one"}, indent=2))
    assert (found.id, found.text) == ("a", "one")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('{"id": "a", "text": "x"\n{"id": "b", "text": "y"}\n', 1),
        ('{"id": "a", "text": "x",}\n{"id": "b", "text": "y"}\n', 1),
        ('{"id": "a", "text": "x"}\n{"id": "b", "text": "y"\n{"id": "c", "text": "z"}', 2),
        ('\n\n{"id": "a", "text": "x"\n', 3),
        ('\n\n{"id": "a"}\n', 3),
        ('{"id": "a", "text": "x"}\n\n\nrubbish\n', 4),
        ('{"id": "a",\n "text": "x",\n "metadata": {\n "k": 1,\n }\n}', 5),
        ('{"id": "a",\n "text": "x"\n', 2),
        ('[{"id": "a", "text": "x"},\n\n {"id": "b" "text": "y"}]\n', 3),
        ('[{"id": "a", "text": "x"}]\n[{"id": "b", "text": "y"}]\n', 2),
    ],
)
def test_what_is_broken_is_named_with_the_line_that_it_is_in(text: str, line: int) -> None:
    for name in ("t.json", "t.jsonl"):
        with pytest.raises(InvalidArgumentError, match=f"^{name}, line {line}: "):
            of(name, text)


def test_a_byte_order_mark_and_windows_line_ends_are_no_part_of_a_document() -> None:
    (found,) = given_of_file("t.jsonl", b'\xef\xbb\xbf{"id": "a", "text": "one"}\r\n')
    assert found.document.id == "a"


def test_a_blank_file_holds_no_documents() -> None:
    assert of("t.json", " \n") == of("t.jsonl", "") == []


def test_integer_ids_and_plain_metadata_become_strings() -> None:
    metadata = {
        "n": 30,
        "x": 30.0,
        "yes": True,
        "no": False,
        "s": "text",
        "big": 10**20,
        "tiny": 1e-7,
        "huge": 1e22,
    }
    (found,) = documents_of_json(
        json.dumps([{"id": 7, "text": "t", "metadata": metadata}]), source="t"
    )
    assert found.id == "7"
    assert found.metadata == {
        "n": "30",
        "x": "30.0",
        "tiny": "0.0000001",
        "huge": "1" + "0" * 22,
        "yes": "true",
        "no": "false",
        "s": "text",
        "big": "100000000000000000000",
    }


def test_an_embedding_is_a_list_of_numbers() -> None:
    (found,) = of("t.jsonl", '{"id": "a", "text": "t", "embedding": [1, -0.5]}')
    assert found.embedding == [1.0, -0.5]


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ('{"text": "t"}', "'id' is missing"),
        ('{"id": "a"}', "'text' is missing"),
        ('{"id": "a", "text": "t", "metdata": {}}', "unknown key 'metdata'"),
        ('{"id": true, "text": "t"}', "'id' is a boolean"),
        ('{"id": 1.5, "text": "t"}', "'id' is a number"),
        ('{"id": "a", "text": null}', "'text' is null"),
        ('{"id": "a", "text": "t", "payload": {"k": 1}}', "'payload' is an object"),
        ('{"id": "a", "text": "t", "metadata": []}', "'metadata' is an array"),
        ('{"id": "a", "text": "t", "metadata": {"k": null}}', "metadata 'k' is null"),
        ('{"id": "a", "text": "t", "metadata": {"k": ["x"]}}', "metadata 'k' is an array"),
        ('{"id": "a", "text": "t", "embedding": "x"}', "'embedding' is a string"),
        ('{"id": "a", "text": "t", "embedding": [0, true]}', "a boolean at position 1"),
        ('{"id": "a", "text": "t", "embedding": [NaN]}', "NaN is not JSON"),
        ('{"id": "a", "text": "t", "embedding": [1e999]}', "too large"),
        ('{"id": "a", "text": "t", "id": "b"}', "'id' stands twice"),
        ('["a", "t"]', "a document is a JSON object, not an array"),
        ('{"id": "a", "text": "t"', "not JSON"),
    ],
)
def test_what_is_no_document_is_refused_with_its_line_and_key(line: str, named: str) -> None:
    good = '{"id": "ok", "text": "fine"}'
    with pytest.raises(InvalidArgumentError) as caught:
        of("turns.jsonl", f"{good}\n\n{line}")
    assert str(caught.value).startswith("turns.jsonl, line 3: ")
    assert named in str(caught.value)


def test_in_an_array_the_item_is_named() -> None:
    with pytest.raises(InvalidArgumentError, match=r"t\.json, item 1: the key 'text' is missing"):
        of("t.json", '[{"id": "a", "text": "t"}, {"id": "b"}]')


def test_broken_json_in_a_document_over_several_lines_is_placed() -> None:
    with pytest.raises(InvalidArgumentError, match=r"t\.json, line 3: not JSON"):
        of("t.json", '{\n "id": "a",\n "text" "t"\n}')


@pytest.mark.parametrize("text", ["3", '"text"', "null"])
def test_json_that_is_not_documents_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgumentError, match="not documents"):
        of("t.json", text)


def test_nesting_without_end_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="nested too deeply"):
        of("t.json", "[" * 100_000)


def test_other_endings_are_refused_by_name() -> None:
    with pytest.raises(InvalidArgumentError, match=r"'\.exe'") as caught:
        of("report.exe", "x")
    assert ".docx" in str(caught.value.hint)


def test_bytes_that_are_not_utf8_are_placed() -> None:
    with pytest.raises(InvalidArgumentError, match=r"notes\.txt, line 2: not UTF-8 at byte 4"):
        given_of_file("notes.txt", b"one\n\xff")


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), max_size=5))
def test_every_text_comes_back_exactly_from_json_lines(texts: list[str]) -> None:
    lines = "\n".join(
        json.dumps({"id": n, "text": text}, ensure_ascii=False) for n, text in enumerate(texts)
    )
    assert [each.text for each in of("t.jsonl", lines)] == texts
