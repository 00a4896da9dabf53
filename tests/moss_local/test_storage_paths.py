"""Any name is a file name, and different names are different files."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moss_local.storage.paths import check_name, session_path
from moss_sync import InvalidArgumentError

ROOT = Path("root")
names = st.text(min_size=1, max_size=100).filter(lambda name: len(name.encode()) <= 512)
AWKWARD = ["../x", "..", ".", "con", "CON", "nul.txt", "a/b", "a\\b", "A", "a", "é", "e\u0301"]
AWKWARD += ["x", "x ", " ", "x.", "🙂", "\0", "a" * 512, "a" * 511, "C:", "-", "~", "話題", "CON "]


@given(name=names)
def test_a_file_name_is_short_lower_case_ascii_whatever_the_session_is_called(name: str) -> None:
    path = session_path(ROOT, "project", name)
    assert path.parent.parent == ROOT
    assert re.fullmatch(r"([a-z0-9][a-z0-9-]{0,39}-)?[a-z2-7]{26}\.sqlite3", path.name)


@given(a=names, b=names)
def test_different_names_have_different_files_also_where_case_does_not_count(
    a: str, b: str
) -> None:
    same = session_path(ROOT, "p", a).name.lower() == session_path(ROOT, "p", b).name.lower()
    assert same == (a == b)


def test_names_that_are_paths_or_devices_elsewhere_stay_apart() -> None:
    paths = {str(session_path(ROOT, "p", name)).lower() for name in AWKWARD}
    assert len(paths) == len(set(AWKWARD))


def test_projects_of_equal_slug_have_different_directories() -> None:
    assert session_path(ROOT, "a b", "s").parent != session_path(ROOT, "a-b", "s").parent


def test_a_slug_tells_people_which_session_it_is() -> None:
    path = session_path(ROOT, "Acme Inc.", "Conv 123: Refund")
    assert path.parent.name.startswith("acme-inc-")
    assert path.name.startswith("conv-123-refund-")


@pytest.mark.parametrize("name", ["", "a\ud800", "é" * 257, 7])
def test_what_cannot_be_a_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidArgumentError):
        check_name(name)
    with pytest.raises(InvalidArgumentError):
        session_path(ROOT, name, "s")
