"""Every seed of the fuzzers and everything that they ever found holds, without a fuzzer."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

FUZZ = Path(__file__).parents[1] / "fuzz"
TARGETS = sorted(path.stem.removeprefix("fuzz_") for path in FUZZ.glob("fuzz_*.py"))
CASES = sorted(path for kind in ("corpus", "regressions") for path in (FUZZ / kind).glob("*/*"))


@pytest.mark.parametrize("case", CASES, ids=lambda case: "/".join(case.parts[-3:]))
def test_a_seed_or_a_finding_holds(case: Path) -> None:
    importlib.import_module(f"fuzz.fuzz_{case.parent.name}").one(case.read_bytes())


def test_every_target_has_seeds_and_says_what_it_holds_to() -> None:
    assert len(TARGETS) >= 13
    page = (FUZZ / "README.md").read_text("utf-8")
    for target in TARGETS:
        assert any((FUZZ / "corpus" / target).iterdir())
        assert importlib.import_module(f"fuzz.fuzz_{target}").__doc__
        assert f"| `{target}` |" in page
