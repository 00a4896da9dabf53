"""The simulator itself: it repeats itself, it notices, and what it says can be used."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from pathlib import Path

import pytest

from moss_local.testing.__main__ import copies_of
from moss_sync import collection, plan
from moss_sync.testing import campaign
from moss_sync.testing.campaign import Tally, minimised, run_seed, run_seeds, source_mark
from moss_sync.testing.faults import Fault
from moss_sync.testing.schedule import PROFILES, schedule_of
from moss_sync.testing.simulator import simulate

SEEDS = range(900_000, 900_030)


def test_one_seed_is_one_run_down_to_the_last_line() -> None:
    for seed in SEEDS[:6]:
        first = run_seed(seed, copies_of, trace=True)
        assert first.violation is None
        assert first.trace == run_seed(seed, copies_of, trace=True).trace
        assert first.stats == run_seed(seed, copies_of).stats


def test_a_seed_means_the_same_in_another_process_whatever_the_order_of_its_sets() -> None:
    program = (
        "from moss_sync.testing.campaign import run_seed\n"
        "from moss_local.testing.__main__ import copies_of\n"
        "print('\\n'.join(run_seed(900_008, copies_of, trace=True).trace))"
    )
    shown = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": chance},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for chance in ("1", "2")
    }
    assert len(shown) == 1
    assert "COMMIT" in shown.pop()


def test_every_kind_of_schedule_runs_clean_on_a_few_seeds() -> None:
    for profile in PROFILES:
        for seed in SEEDS[:3]:
            outcome = simulate(schedule_of(seed, profile), functools.partial(copies_of, seed))
            assert outcome.violation is None, (profile, seed, outcome.violation)


def test_a_rule_that_is_taken_away_is_noticed_and_told_in_few_steps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(collection, "collectable", lambda manifest, names: list(names))
    seed = next(seed for seed in range(100) if run_seeds([seed], copies_of).violations)
    before = run_seed(seed, copies_of)
    small = minimised(schedule_of(seed), copies_of, say=lambda line: None)
    assert type(small.violation) is type(before.violation)
    assert len(small.schedule.steps) < len(before.schedule.steps)
    assert small.trace[-1].startswith("VIOLATION")


def test_an_error_of_the_program_s_own_is_a_violation_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object, **options: object) -> bool:
        raise KeyError("a bug")

    monkeypatch.setattr(plan, "fits_inline", broken)
    outcome = run_seed(900_001, copies_of)
    assert isinstance(outcome.violation, KeyError)


def test_a_run_in_which_nothing_went_wrong_proves_nothing() -> None:
    tally = Tally(schedules=1000, counted=1000)
    assert len(tally.below_floor()) == len(campaign.FLOORS)
    tally.stats.update(campaign.FLOORS)
    assert tally.below_floor() == []
    tally.counted = 100
    assert "only 100 of 1000" in tally.below_floor()[0]


def test_every_kind_of_fault_has_a_floor() -> None:
    assert {f"fault {fault}" for fault in Fault} <= set(campaign.FLOORS)


def test_results_are_resumed_and_those_of_other_source_are_not(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = ["900000..900009", "--jobs", "1", "--results", str(tmp_path)]
    target = "moss_local.testing.__main__:copies_of"
    campaign.main(arguments, target)
    [results] = tmp_path.iterdir()
    lines = results.read_text().splitlines()
    assert len(lines) == 1
    assert "10 schedules, " in capfd.readouterr().out
    campaign.main(arguments, target)
    assert "10 schedules were done before" in capfd.readouterr().out
    assert results.read_text().splitlines() == lines
    package = tmp_path / "package"
    package.mkdir()
    (package / "a.py").write_text("a = 1")
    before = source_mark(package)
    (package / "a.py").write_text("a = 2")
    assert source_mark(package) != before


def test_the_command_prints_the_trace_of_a_seed(capsys: pytest.CaptureFixture[str]) -> None:
    code = campaign.main(["900003", "--trace"], "moss_local.testing.__main__:copies_of")
    shown = capsys.readouterr().out
    assert code == 0
    assert shown.startswith("seed 900003, ")
    assert "COMMIT 1 by" in shown
