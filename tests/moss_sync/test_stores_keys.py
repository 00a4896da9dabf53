"""No key that a store accepts leads out of its folder, and no two meet on a file system."""

from __future__ import annotations

from pathlib import PurePosixPath, PureWindowsPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moss_sync import InvalidArgumentError
from moss_sync.stores.keys import MAX_KEY_CHARS, check_key, check_listing, is_key

crooked = st.text(alphabet="abAB09._-/\\: \0~ßıİ", max_size=30)


@given(crooked | st.from_regex(r"[a-z0-9_.\-/]{0,40}", fullmatch=True))
def test_an_accepted_key_stays_below_the_root_on_every_system(key: str) -> None:
    if not is_key(key):
        with pytest.raises(InvalidArgumentError):
            check_key(key)
        return
    check_key(key)
    for kind in (PurePosixPath, PureWindowsPath):
        path = kind(key)
        assert not path.is_absolute()
        assert not path.drive
        assert path.parts == tuple(key.split("/"))
        assert not any(part.startswith(".") for part in path.parts)


@given(crooked, crooked)
def test_two_accepted_keys_differ_also_where_case_does_not_count(one: str, two: str) -> None:
    if is_key(one) and is_key(two) and one != two:
        assert one.casefold() != two.casefold()


def test_the_keys_of_the_protocol_are_accepted() -> None:
    for key in (
        "fmt",
        "m/" + "a" * 26,
        "x2y/s/0000000000000007-00112233aabbccdd-00000001-abcdefghijklmnop234567qrst",
        "_probe/0123456789abcdef-a",
    ):
        check_key(key)
    check_key("/".join(["p" * 127] * 4))
    assert len("/".join(["p" * 127] * 4)) == MAX_KEY_CHARS - 1


def test_an_error_shows_the_beginning_of_what_is_no_key() -> None:
    with pytest.raises(InvalidArgumentError) as error:
        check_key("A" * 5000)
    assert "'AAAA" in str(error.value)
    assert len(str(error.value)) < 200


@pytest.mark.parametrize(("prefix", "after", "limit"), [("m/", "", 1), ("a/b/", "a/b/0f", 1000)])
def test_a_listing_of_a_prefix_is_accepted(prefix: str, after: str, limit: int) -> None:
    check_listing(prefix, after, limit)
