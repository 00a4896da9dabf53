"""Every rule can be taken away: what a removal patches is there, and so are the tests it names."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.mutants.rules import MUTANTS, Mutant

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_removal_can_be_applied_and_names_tests_that_are_there(mutant: Mutant) -> None:
    with ExitStack() as stack:
        mutant.remove(stack)
    assert mutant.directed
    assert all((ROOT / path).is_file() for path in mutant.directed)


def test_no_two_rules_have_one_name() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 20
