"""Keyword text comes from people: never syntax, in any script, and it never raises."""

from __future__ import annotations

from typing import Any

import apsw
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from moss_local.search.keywords import (
    MAX_QUERY_TERMS,
    TOKENIZER,
    prepare_text,
    query_terms,
)
from moss_local.search.postings import index_tokenizer


def index(*texts: str) -> apsw.Connection:
    conn = apsw.Connection(":memory:")
    conn.execute(f"""CREATE VIRTUAL TABLE t USING fts5(text, content='', tokenize="{TOKENIZER}")""")
    rows = [(i, prepare_text(text)) for i, text in enumerate(texts)]
    conn.executemany("INSERT INTO t (rowid, text) VALUES (?, ?)", rows)
    conn.execute("CREATE VIRTUAL TABLE v USING fts5vocab(t, instance)")
    return conn


def terms(query: str) -> list[bytes]:
    conn = apsw.Connection(":memory:")
    result = query_terms(query, index_tokenizer(conn))
    conn.close()
    return result


def found(query: str, *texts: str) -> list[str]:
    """Return the texts that the index has under any term of the query."""
    conn = index(*texts)
    wanted = {term.decode() for term in query_terms(query, index_tokenizer(conn))}
    rows: list[Any] = conn.execute("SELECT DISTINCT doc, term FROM v ORDER BY doc").fetchall()
    conn.close()
    return [texts[doc] for doc in sorted({doc for doc, term in rows if term in wanted})]


everything = st.text(st.characters(codec=None), max_size=60)
"""Every code point that a Python string can hold, lone surrogates included."""


@settings(max_examples=400, deadline=None)
@given(query=everything)
@example('"')
@example('"a" OR')
@example("a\0b")
@example("NEAR(a b, 2) ^a* -b (c")
@example("text: {x} + y")
@example("\ud800")
def test_no_query_raises_and_its_terms_are_single_words(query: str) -> None:
    for term in terms(query):
        assert term
        assert not set(term) & set(b' "\0')


@settings(max_examples=300, deadline=None)
@given(text=st.text(max_size=60))
def test_every_text_can_be_indexed_and_is_found_by_itself_if_it_has_any_term(text: str) -> None:
    conn = index(text)
    # An accent alone is a term of no characters.
    has_terms = bool(conn.execute("SELECT count(*) FROM v WHERE term IS NOT NULL").get)
    conn.close()
    assert found(text, text) == ([text] if has_terms else [])
    if any(char.isascii() and char.isalnum() for char in text):
        assert has_terms


@pytest.mark.parametrize("query", ["", "  ", "\n\t", "!?", '"', "\0", "🙂", "_", "\u3000"])
def test_a_query_without_a_word_has_no_terms(query: str) -> None:
    assert terms(query) == []


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("refund", "The REFUNDS were issued"),
        ("49.99", "a duplicate $49.99 charge"),
        ("cafe", "Café"),
        ("CAFÉ", "cafe"),
        ("Cafe\u0301", "Café"),
        ("退款", "客户要求退款并取消订单"),
        ("款", "客户要求退款并取消订单"),
        ("東京", "昨日東京タワーに行きました"),
        ("タワー", "昨日東京タワーに行きました"),
        ("ﾀﾜｰ", "昨日東京タワーに行きました"),
        ("환불", "고객이 환불을 요청했습니다"),
        ("คืนเงิน", "ลูกค้าขอคืนเงินเมื่อวานนี้"),
        ("ប្រាក់", "អតិថិជនសុំប្រាក់វិញ"),
        ("हिन्दी", "यह हिन्दी में लिखा है"),
        ("مرحبا", "مَرْحَبًا بالعالم"),
        ("שלום", "שָׁלוֹם עולם"),
        ("возврат", "Клиент просит ВОЗВРАТ денег"),
        ("Ｒｅｆｕｎｄ", "refund"),
        ("𠀋", "漢字𠀋です"),
        ("iPhone15", "新しいiPhone15を買った"),
        ("a\0refund", "refund\0b"),
        ("snake_case", "a case of snakes"),
        ("STRASSE", "Die Straße"),
        ("straße", "DIE STRASSE"),
        ("οδος", "Η ΟΔΌΣ"),
        ("ΟΔΟΣ", "η οδός"),
        ("istanbul", "İSTANBUL"),
        ("ﬁnal", "FINAL"),
        ("αυτος", "ΑΫΤΌΣ ᾧ"),
        ("елка", "ЁЛКА"),
        ("việt", "VIET NAM"),
        ("Ångström", "ANGSTROM"),
        ("𖹠", "𖹀"),
        ("ა", "Ა"),
        ("ꭰ", "Ꭰ"),
    ],
)
def test_a_word_is_found_in_its_script_also_inside_an_unspaced_sentence(
    query: str, text: str
) -> None:
    other = "nothing of it 别的事情 ほか"
    assert found(query, other, text) == [text]


def test_a_pair_of_characters_says_more_than_the_two_apart() -> None:
    assert found("退款", "退货和付款") == []


def test_a_single_character_of_a_script_with_marks_keeps_them() -> None:
    assert found("ค", "คืน") == []
    assert found("คื", "คืน") == ["คืน"]


def test_spaced_ascii_is_indexed_as_it_is() -> None:
    assert prepare_text("Hello, World 1") == "Hello, World 1"


def test_a_long_query_keeps_its_first_distinct_terms() -> None:
    words = [f"w{i}" for i in range(MAX_QUERY_TERMS * 2)]
    query = " ".join(word for word in words for _ in range(3))
    assert terms(query) == [word.encode() for word in words[:MAX_QUERY_TERMS]]
    assert found(query, words[0], words[-1]) == [words[0]]
    assert len(terms("x" * 10**6)) == 1


def test_words_of_one_stem_are_one_term() -> None:
    assert terms("refund REFUNDS refunded") == [b"refund"]


def test_a_mark_that_makes_another_letter_is_kept() -> None:
    assert found("май", "маи") == []
    assert found("がく", "かく") == []
    assert found("हिन्दी", "हन्द") == []


@settings(max_examples=300, deadline=None)
@given(text=st.text(max_size=30))
def test_case_never_hides_a_word(text: str) -> None:
    conn = index(text)
    tokenize = index_tokenizer(conn)
    own = query_terms(text, tokenize)
    for other in (text.upper(), text.lower(), text.casefold()):
        # What has no other case of its own (ŉ is ʼN in capitals) need not come back.
        if other.casefold() == text.casefold():
            assert query_terms(other, tokenize) == own
    conn.close()
