"""`pytest --parity`: the run fails unless each test that docs/parity.md names has run and passed.

It judges the run that is going on, so it costs nothing; `make test` asks for it. `make parity` runs
the named tests alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import pytest

from tests.parity.facts import SECTIONS, Fact


def named_tests(facts: Iterable[Fact] | None = None) -> list[str]:
    """Return the tests that rows name, as pytest names them, in order and once each."""
    if facts is None:
        facts = [fact for section in SECTIONS.values() for fact in section]
    return sorted({test for fact in facts for test in fact.tests})


def unshown(named: Iterable[str], outcomes: Mapping[str, str]) -> Iterator[str]:
    """Yield what is wrong with each named test that did not run or did not pass.

    Args:
        named: Tests without parameters.
        outcomes: How each test ended, by its full name; of one with parameters, each must pass.
    """
    by_test: dict[str, set[str]] = {}
    for test, outcome in outcomes.items():
        by_test.setdefault(test.partition("[")[0], set()).add(outcome)
    for test in named:
        ended = by_test.get(test, set())
        if ended != {"passed"}:
            yield f"{test}: {', '.join(sorted(ended - {'passed'})) or 'did not run'}"


class ParityCheck:
    """The plugin: notes how tests end, and judges at the end of the run."""

    def __init__(self) -> None:
        self.outcomes: dict[str, str] = {}
        self.problems: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        # Set-up, call and tear-down are reported one by one: the worst of them counts.
        if self.outcomes.get(report.nodeid, "passed") == "passed":
            self.outcomes[report.nodeid] = report.outcome

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        self.problems = list(unshown(named_tests(), self.outcomes))
        if self.problems and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        count = len(named_tests())
        if not self.problems:
            terminalreporter.write_line(f"docs/parity.md: all of its {count} tests ran and passed")
            return
        terminalreporter.section("docs/parity.md names tests that did not run and pass")
        for problem in self.problems:
            terminalreporter.write_line(problem)
