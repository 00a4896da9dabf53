"""docs/parity.md says what is so: its script compares, and pytest knows the tests that it names."""

from __future__ import annotations

import importlib.util
import inspect
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

import moss_local
from moss_local import IndexStatusValues, InvalidArgumentError, JobStatus, MossError
from moss_local.compat.names import MOSS
from tests.parity.facts import BEHAVIOUR, SECTIONS, Fact
from tests.parity.outcomes import named_tests, unshown

ROOT = Path(__file__).parent.parent.parent
FACTS = [fact for facts in SECTIONS.values() for fact in facts]


@pytest.fixture(scope="module")
def parity() -> ModuleType:
    spec = importlib.util.spec_from_file_location("parity", ROOT / "docs" / "parity.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_name_of_the_hosted_sdk_has_a_row() -> None:
    rows = {fact.name for fact in FACTS}
    classes = {name.split(".")[0] for name in rows}
    assert classes >= MOSS
    assert len(rows) == len(FACTS)


@pytest.mark.parametrize("fact", FACTS, ids=lambda fact: fact.name)
def test_parameters_are_those_of_the_hosted_sdk(parity: ModuleType, fact: Fact) -> None:
    assert list(parity.problems(fact)) == []


def test_pytest_collects_every_test_that_is_named() -> None:
    named = sorted({test for fact in FACTS for test in fact.tests})
    files = sorted({test.split("::")[0] for test in named} - {"tests/parity/test_parity.py"})
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *files],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    collected = {line.split("[")[0] for line in done.stdout.splitlines()}
    collected |= {
        f"tests/parity/test_parity.py::{name}" for name in globals() if name.startswith("test_")
    }
    assert set(named) - collected == set()


def test_a_named_test_must_have_run_and_passed_with_all_its_parameters() -> None:
    ended = {
        "t.py::good": "passed",
        "t.py::each[1]": "passed",
        "t.py::each[2]": "failed",
        "t.py::left_out": "skipped",
    }
    named = ["t.py::each", "t.py::good", "t.py::left_out", "t.py::nobody"]
    assert list(unshown(named, ended)) == [
        "t.py::each: failed",
        "t.py::left_out: skipped",
        "t.py::nobody: did not run",
    ]


def test_a_run_that_is_asked_for_parity_fails_when_named_tests_did_not_run() -> None:
    one = f"tests/parity/test_parity.py::{test_members_are_plain_strings_and_the_same.__name__}"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    for asked, code in (([], 0), (["--parity"], 1)):
        done = subprocess.run([*command, *asked, one], capture_output=True, text=True, cwd=ROOT)
        assert done.returncode == code, done.stdout + done.stderr
        assert "1 passed" in done.stdout
    assert f"{one}: " not in done.stdout
    missing = set(named_tests()) - {one}
    assert all(f"{test}: did not run" in done.stdout for test in missing)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"signature": "name, query"}, "options is ours"),
        ({"signature": "query, name, options=None"}, "parameter"),
        ({"signature": "name, query, options=3"}, "defaults to None"),
        ({"signature": "name, query, *, options=None"}, "keyword-only"),
        ({"signature": "name, query, options=None, more=1"}, "missing"),
        ({"name": "MossClient.nothing"}, "is not there"),
        ({"tests": ("tests/parity/test_parity.py::test_nothing",)}, "no test"),
        ({"tests": ()}, "no test shows it"),
        ({"members": {"nothing": "x"}}, "nothing"),
    ],
)
def test_a_row_that_does_not_hold_is_found(
    parity: ModuleType, change: dict[str, object], said: str
) -> None:
    (right,) = [fact for fact in FACTS if fact.name == "MossClient.query"]
    wrong = replace(right, **change)  # type: ignore[arg-type]  # of whatever field
    if change == {"signature": "name, query"}:
        # What is ours beyond theirs is allowed where it has a default.
        assert list(parity.problems(wrong)) == []
        return
    assert said in " ".join(parity.problems(wrong))


def test_members_are_plain_strings_and_the_same() -> None:
    assert dict(IndexStatusValues) == {
        name: name for name in ("NotStarted", "Building", "Ready", "Failed")
    }
    assert type(JobStatus.COMPLETED) is str
    assert JobStatus("failed").value == "failed"


def test_errors_are_what_handlers_of_the_hosted_sdk_catch() -> None:
    assert issubclass(MossError, RuntimeError)
    assert issubclass(InvalidArgumentError, MossError)
    assert issubclass(InvalidArgumentError, ValueError)
    error = InvalidArgumentError("x", detail="y")
    assert (error.code, error.detail) == ("INVALID_ARGUMENT", "y")
    error.code = "OTHER"
    assert error.code == "OTHER"
    codes = {
        each.default_code
        for name in moss_local.__all__
        if inspect.isclass(each := getattr(moss_local, name)) and issubclass(each, MossError)
    }
    assert codes >= {
        "INVALID_ARGUMENT",
        "NOT_FOUND",
        "UNAUTHORIZED",
        "NETWORK",
        "DESERIALIZATION",
        "MODEL_UNAVAILABLE",
        "INTERNAL",
    }


def test_every_behaviour_has_a_test() -> None:
    assert all(fact.tests for fact in BEHAVIOUR)
