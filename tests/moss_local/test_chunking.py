"""Chunks: what they hold, how long they get, what stands before them."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moss_local import Chunking, InvalidArgumentError
from moss_local.chunking import Window, chunks_of, chunks_of_markdown, without_front_matter

WORDS = Window(count=lambda text: len(text.split()) + 2, tokens=20)
"""A model whose tokens are words, with two marks of its own."""

texts = st.text(st.sampled_from("abc é語。．! ?\n\t.#`-ؤ؟"), max_size=900)
sizes = st.builds(
    Chunking,
    chunk_size=st.integers(200, 400),
    chunk_overlap=st.integers(0, 100),
    mode=st.sampled_from(["pages", "sentences"]),
)


def letters(text: str) -> list[str]:
    return [character for character in text if character.isalnum()]


def test_sentences_are_packed_and_the_last_ones_stand_in_the_next_chunk_again() -> None:
    text = " ".join(f"This is sentence number {n:03}." for n in range(40))
    chunks = chunks_of(text, Chunking(chunk_size=200, chunk_overlap=60))
    assert all(len(chunk) <= 200 for chunk in chunks)
    for before, after in itertools.pairwise(chunks):
        last = re.findall(r"This[^.]*\.", before)[-2:]
        assert after.startswith(" ".join(last))
    alone = chunks_of(text, Chunking(chunk_size=200, chunk_overlap=0))
    assert " ".join(alone) == text


def test_one_chunk_a_sentence_if_that_is_wanted() -> None:
    found = chunks_of("One. Two! Three? Four", Chunking(mode="sentences"))
    assert found == ["One.", "Two!", "Three?", "Four"]


@pytest.mark.parametrize(
    "sentences",
    [
        ["今日は晴れです。", "明日は雨ですか？", "はい！"],
        ["هل أنت بخير؟ ", "نعم."],
        ["मेरा नाम राम है। ", "आप कैसे हैं।"],
        ["ሰላም። ", "እንዴት ነህ።"],
        ["Ποῦ εἶ\u037e ", "Ἐνθάδε."],
        ["He said: “No.” ", "Then he left."],
        ["3.5 is a number. ", "v1.2.3 is a version."],
    ],
)
def test_a_sentence_ends_as_its_script_ends_it(sentences: list[str]) -> None:
    found = chunks_of("".join(sentences), Chunking(mode="sentences"))
    assert found == [sentence.strip() for sentence in sentences]


@given(text=texts, chunking=sizes)
def test_no_letter_is_lost_none_is_added_and_no_chunk_is_too_long(
    text: str, chunking: Chunking
) -> None:
    chunks = chunks_of(text, chunking)
    assert all(len(chunk) <= chunking.chunk_size for chunk in chunks)
    assert all(letters(chunk) for chunk in chunks)
    assert all(chunk in text for chunk in chunks)
    alone = Chunking(chunking.chunk_size, 0, chunking.mode)
    joined = [letter for chunk in chunks_of(text, alone) for letter in letters(chunk)]
    assert joined == letters(text)


@given(text=texts, chunking=sizes)
def test_a_model_reads_every_chunk_whole(text: str, chunking: Chunking) -> None:
    for chunk in chunks_of(text, chunking, window=WORDS):
        assert WORDS.count(chunk) <= WORDS.tokens
    for chunk in chunks_of_markdown(f"# A title\n{text}", chunking, window=WORDS):
        assert WORDS.count(chunk) <= WORDS.tokens
        assert len(chunk) <= chunking.chunk_size


def test_repeating_sentences_never_keeps_a_chunk_from_going_on() -> None:
    text = " ".join(["one two three four five six seven eight."] * 30)
    chunks = chunks_of(text, Chunking(chunk_size=400, chunk_overlap=200), window=WORDS)
    assert len(set(map(len, chunks))) <= 2
    assert len(chunks) < 60


def test_a_word_without_an_end_is_cut_and_letters_keep_their_accents() -> None:
    assert chunks_of("x" * 450, Chunking(200, 0)) == ["x" * 200, "x" * 200, "x" * 50]
    accented = "e\u0301" * 201
    chunks = chunks_of(accented, Chunking(201, 0))
    assert "".join(chunks) == accented
    assert all(chunk.startswith("e") for chunk in chunks)


def test_a_section_stands_under_the_path_of_its_headings() -> None:
    text = "Before.\n# Guide\nHello.\n## Setup ##\nRun it.\n### Deep\nDown.\n# Other\nEnd.\n"
    assert chunks_of_markdown(text, Chunking()) == [
        "Before.",
        "Guide\nHello.",
        "Guide > Setup\nRun it.",
        "Guide > Setup > Deep\nDown.",
        "Other\nEnd.",
    ]
    below = "Guide\nHello.\n## Setup ##\nRun it.\n### Deep\nDown."
    flat = chunks_of_markdown(text, Chunking(markdown_header_depth=1))
    assert flat == ["Before.", below, "Other\nEnd."]


def test_a_section_without_a_letter_gives_no_chunk_and_a_fence_hides_headings() -> None:
    text = (
        "# Empty\n\n---\n\n# Code\n```\n# no heading\n```\n~~~\n# nor this\n```\n# nor this\n~~~\n"
    )
    (only,) = chunks_of_markdown(text, Chunking())
    assert only.startswith("Code\n```\n# no heading")
    assert only.count("nor this") == 2


def test_a_path_that_is_too_long_keeps_its_innermost_headings() -> None:
    text = "# " + "a" * 90 + "\n## " + "b" * 90 + "\nbody\n"
    assert chunks_of_markdown(text, Chunking(200, 0)) == ["b" * 90 + "\nbody"]
    (cut,) = chunks_of_markdown("# " + "a" * 500 + "\nbody\n", Chunking(200, 0))
    assert cut == "a" * 100 + "\nbody"


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("---\ntitle: x\n---\nBody\n", "Body\n"),
        ("---\r\ntitle: x\r\n...\r\nBody", "Body"),
        ("---\n\nA rule, then text\n---\n", "---\n\nA rule, then text\n---\n"),
        ("---\ntitle: never closed\n", "---\ntitle: never closed\n"),
        ("---\na: |\n```\n---\n```\n---\nBody", "Body"),
        ("Body\n---\nx\n---\n", "Body\n---\nx\n---\n"),
        ("---", "---"),
    ],
)
def test_front_matter_is_left_out_where_it_is_front_matter(text: str, left: str) -> None:
    assert without_front_matter(text) == left


def test_what_is_not_said_is_the_default_and_what_is_wrong_is_named() -> None:
    usual = Chunking()
    assert (usual.chunk_size, usual.chunk_overlap, usual.mode) == (1200, 200, "pages")
    assert usual.markdown_header_depth == 6
    assert Chunking(chunk_size=300).chunk_overlap == 150
    for wrong in (
        {"chunk_size": 199},
        {"chunk_size": 2001},
        {"chunk_size": 200, "chunk_overlap": 101},
        {"chunk_overlap": -1},
        {"mode": "words"},
        {"markdown_header_depth": 0},
        {"markdown_header_depth": 7},
        {"chunk_size": "300"},
    ):
        with pytest.raises(InvalidArgumentError, match=list(wrong)[-1]):
            Chunking(**wrong)  # type: ignore[arg-type]  # that is what is wrong
