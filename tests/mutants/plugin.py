"""Runs the tests with one safety rule taken away: pytest -p tests.mutants.plugin --mutant NAME."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.mutants.rules import MUTANTS


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--mutant", choices=[mutant.name for mutant in MUTANTS])


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Iterator[None]:
    # Before the test modules are imported, so that what they import by name is taken away too.
    with ExitStack() as stack:
        name = session.config.getoption("--mutant")
        for mutant in MUTANTS:
            if mutant.name == name:
                mutant.remove(stack)
        session.config.add_cleanup(stack.pop_all().close)
        return (yield)
