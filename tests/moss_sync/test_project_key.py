"""The form of a generated key, and what deriving from each kind of key costs."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moss_sync.keyring import KdfParams, log_kdf
from moss_sync.project_key import (
    GENERATED,
    RANDOM_BYTES,
    TYPED,
    cost_of,
    generate,
    is_generated,
    is_mistyped,
)

randoms = st.binary(min_size=RANDOM_BYTES, max_size=RANDOM_BYTES)


def test_a_generated_key_is_nine_groups_of_four_and_stays_as_it_is() -> None:
    key = generate(bytes(range(RANDOM_BYTES)))
    assert key == "aaaq-eaye-auda-ocaj-bifq-ydio-b4ib-ceqt-j37o"
    assert re.fullmatch("(?:[a-z2-7]{4}-){8}[a-z2-7]{4}", key)
    with pytest.raises(ValueError, match="20 random bytes"):
        generate(bytes(19))


@given(randoms)
def test_what_is_generated_is_known_as_such(random: bytes) -> None:
    key = generate(random)
    assert is_generated(key)
    assert not is_mistyped(key)
    assert cost_of(key) == GENERATED


@given(randoms, st.integers(0, 43), st.sampled_from("abcdefghijklmnopqrstuvwxyz234567"))
def test_one_wrong_character_makes_it_a_mistyped_key(random: bytes, at: int, wrong: str) -> None:
    key = generate(random)
    changed = key[:at] + wrong + key[at + 1 :]
    if key[at] in ("-", wrong):
        return
    assert not is_generated(changed)
    assert is_mistyped(changed)
    assert cost_of(changed) == TYPED


@given(randoms)
def test_a_key_that_was_copied_loosely_is_mistyped(random: bytes) -> None:
    key = generate(random)
    for loose in (
        key.upper(),
        key + "\n",
        f" {key}",
        key.replace("-", " "),
        key.replace("-", "--"),
    ):
        assert is_mistyped(loose)
        assert cost_of(loose) == TYPED


@given(st.text())
def test_every_other_text_is_a_typed_key(text: str) -> None:
    assert not is_generated(text)
    assert cost_of(text) == TYPED
    assert KdfParams.choose(text, bytes(16)) == KdfParams(bytes(16), 64 * 1024, 3, 4).checked()


@pytest.mark.parametrize(
    "key",
    [
        "aaaq-eaye-auda-ocaj-bifq-ydio-b4ib-ceqt",
        "aaaq-eaye-auda-ocaj-bifq-ydio-b4ib-ceqt-j37o-",
        "aaaq-eaye-auda-ocaj-bifq-ydio-b4ib-ceqt-j37O",
        "aaaqeayeaudaocajbifqydiob4ibceqtj37o",
        "",
    ],
)
def test_nearly_the_form_is_not_the_form(key: str) -> None:
    assert not is_generated(key)


def test_the_parameters_of_a_log_follow_from_project_and_key() -> None:
    generated = generate(bytes(RANDOM_BYTES))
    assert log_kdf("p", "typed") == log_kdf("p", "typed")
    assert log_kdf("p", "typed").salt == log_kdf("p", generated).salt
    assert log_kdf("p", "typed").iterations == TYPED.iterations
    assert log_kdf("p", generated).iterations == GENERATED.iterations


def test_less_memory_or_fewer_passes_do_not_suit_a_typed_key() -> None:
    generated = generate(bytes(RANDOM_BYTES))
    for weak in (KdfParams(bytes(16), 32 * 1024, 3, 4), KdfParams(bytes(16), 64 * 1024, 2, 4)):
        assert not weak.suits("typed")
        assert weak.suits(generated)
    assert KdfParams(bytes(16), 128 * 1024, 4, 1).suits("typed")
