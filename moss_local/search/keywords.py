"""What people type, made fit for a full-text index: prepared texts, and the terms of queries.

Rules of this file: values in, values out; any string is accepted and nothing ever raises. What
people type is never syntax: a query becomes terms that are looked up one by one, not an expression.

Three things that the index's own tokenizer (FTS5 unicode61) does not do are done here, to texts and
queries alike: forms that look or sound the same become the same (NFKC, Unicode's full case folding,
accents of Latin and Greek and vowel points of Arabic and Hebrew dropped); scripts that put no
spaces between words are cut into overlapping pairs of characters beside the single ones, so that a
word inside an unspaced sentence is found; and combining marks belong to their word (categories Mn
and Mc), or every Indic word would fall apart at its vowels.

`KEYWORD_VERSION` stands in each file; raise it with any change of what `prepare_text` returns or of
`TOKENIZER`, and files re-index themselves when they are opened.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator
from itertools import pairwise

Tokenizer = Callable[[str], list[bytes]]
"""A prepared text to its terms, in order and with repetitions."""

KEYWORD_VERSION = 2

TOKENIZER = "porter unicode61 remove_diacritics 2 categories 'L* N* Co Mn Mc'"
"""The `tokenize` option of the FTS5 table. The porter stemmer touches ASCII words only."""

MAX_QUERY_TERMS = 128
"""Further distinct terms of a query are left out. Every document that has any of them is scored, so
the time grows with them; a question of 128 words has said what it is about."""

MAX_QUERY_CHARS = 8192
"""Further characters of a query are not looked at: room for 128 terms in any language."""

# Han, kana and hangul; Thai, Lao, Burmese and Khmer. Hangul has spaces, but its words carry their
# particles with them, and pairs find the noun inside. The middle dot and the double hyphen of kana
# are punctuation.
_UNSPACED = (
    "\u3005-\u3007\u3041-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uac00-\ud7a3\uf900-\ufaff\U00020000-\U0003fffd"
    "\u0e01-\u0e3a\u0e40-\u0edf\u1000-\u109f\u1780-\u17dd\u17e0-\u17e9"
)
_RUN = re.compile(f"[{_UNSPACED}]+")
_MARKS = "".join(
    chr(point)
    for first, last in ((0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x3099, 0x309A))
    for point in range(first, last + 1)
    if unicodedata.category(chr(point)).startswith("M")
)
# A character with the marks that stand on it is one unit.
_UNIT = re.compile(f".[{_MARKS}]*", re.DOTALL)

# Accents go where people leave them out: on Latin and Greek letters, and in ё. SQLite's own
# remove_diacritics knows Latin only. Elsewhere marks make another letter (й) or are vowels.
_ACCENTS = re.compile("(?<=[a-z\u00df-\u02af\u0370-\u03ff\u0435\u1e00-\u1fff])[\u0300-\u036f]+")

# Points that readers add or leave out at will: Hebrew, Arabic, and the Arabic lengthening stroke.
_POINTS = re.compile(
    "[\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7"
    "\u0610-\u061a\u0640\u064b-\u065f\u0670\u06d6-\u06dc\u06df-\u06e4\u06e7\u06e8\u06ea-\u06ed]"
)


def prepare_text(text: str) -> str:
    """Return what the index is fed instead of `text`; spaced ASCII comes back as it is."""
    if text.isascii():
        return text.replace("\0", " ")
    return _RUN.sub(_pairs_and_singles, _unified(text))


def query_terms(text: str, tokenize: Tokenizer) -> list[bytes]:
    """Return the distinct terms of a query, in order; none when it is blank or nothing but signs.

    Args:
        tokenize: The index's own tokenizer, so that a word of a query meets the same word of a
            text whatever the stemmer makes of both.
    """
    words = " ".join(_words(text[:MAX_QUERY_CHARS]))
    # An accent standing alone is an empty term, which says nothing.
    terms = dict.fromkeys(term for term in tokenize(words) if term) if words else ()
    return list(terms)[:MAX_QUERY_TERMS]


class _WordCharacters(dict[int, str]):
    """What each code point becomes: itself in a word, else a space. Filled as they are met.

    Letters, digits and marks make words; quotes, operators, the underscore, NUL and lone surrogates
    separate them, so nothing in a term can end its quotes. Python decides this for texts and
    queries alike: its Unicode tables are newer than SQLite's, and where the two part, a text and
    the same text as a query would fall apart differently.
    """

    def __missing__(self, point: int) -> str:
        char = chr(point)
        word = char.isalnum() or unicodedata.category(char) in ("Mn", "Mc")
        self[point] = result = char if word else " "
        return result


_WORD_CHARACTERS = _WordCharacters()


def _unified(text: str) -> str:
    folded = unicodedata.normalize("NFKC", text).casefold()
    plain = _ACCENTS.sub("", unicodedata.normalize("NFKD", folded))
    together = unicodedata.normalize("NFC", plain)
    return _POINTS.sub("", together).translate(_WORD_CHARACTERS)


def _pairs_and_singles(run: re.Match[str]) -> str:
    units = _UNIT.findall(run.group())
    pairs = (first + second for first, second in pairwise(units))
    return f" {' '.join(units)} {' '.join(pairs)} "


def _words(text: str) -> Iterator[str]:
    """Yield the words of a query; a run without spaces as its pairs, which say more."""
    text = _unified(text)
    start = 0
    for run in _RUN.finditer(text):
        yield from text[start : run.start()].split()
        units = _UNIT.findall(run.group())
        if len(units) == 1:
            yield units[0]
        for first, second in pairwise(units):
            yield first + second
        start = run.end()
    yield from text[start:].split()
