"""Keyword text comes from people: never syntax, in any script, and it never raises."""

from __future__ import annotations

import apsw
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from moss_local.search.keywords import (
    MAX_QUERY_TERMS,
    TOKENIZER,
    match_expression,
    prepare_text,
)


def index(*texts: str) -> apsw.Connection:
    conn = apsw.Connection(":memory:")
    conn.execute(f"""CREATE VIRTUAL TABLE t USING fts5(text, content='', tokenize="{TOKENIZER}")""")
    rows = [(i, prepare_text(text)) for i, text in enumerate(texts)]
    conn.executemany("INSERT INTO t (rowid, text) VALUES (?, ?)", rows)
    return conn


def found(query: str, *texts: str) -> list[str]:
    expression = match_expression(query)
    if expression is None:
        return []
    conn = index(*texts)
    rows = conn.execute("SELECT rowid FROM t WHERE t MATCH ? ORDER BY rowid", (expression,))
    hits = [texts[int(row[0])] for row in rows]
    conn.close()
    return hits


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
def test_no_query_is_syntax_and_none_raises(query: str) -> None:
    expression = match_expression(query)
    if expression is not None:
        index("some text").execute("SELECT rowid FROM t WHERE t MATCH ?", (expression,)).fetchall()


@settings(max_examples=300, deadline=None)
@given(text=st.text(max_size=60))
def test_every_text_can_be_indexed_and_is_found_by_itself_if_it_has_any_term(text: str) -> None:
    conn = index(text)
    terms = conn.execute("CREATE VIRTUAL TABLE v USING fts5vocab(t, row); SELECT count(*) FROM v")
    has_terms = bool(terms.get)
    conn.close()
    if any(char.isascii() and char.isalnum() for char in text):
        assert has_terms
        assert found(text, text) == [text]


@pytest.mark.parametrize("query", ["", "  ", "\n\t", "!?", '"', "\0", "🙂", "_", "\u3000"])
def test_a_query_without_a_word_is_none(query: str) -> None:
    assert match_expression(query) is None


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
    expression = match_expression(" ".join(word for word in words for _ in range(3)))
    assert expression == " OR ".join(f'"{word}"' for word in words[:MAX_QUERY_TERMS])
    assert found(" ".join(words), words[0], words[-1]) == [words[0]]
    assert match_expression("x" * 10**6) is not None
