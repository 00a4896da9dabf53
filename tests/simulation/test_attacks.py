"""Schedules in which somebody attacks: an operator, a removed member, an absurd member."""

from __future__ import annotations

from pathlib import Path

import pytest

from moss_local.testing.__main__ import copies_of
from moss_sync.testing import campaign

FIRST, LAST = 0, 299

FOUND = {
    213: "a clean record of the future beat the edit that had replaced it, after a repair by a "
    "device that had never seen the future",
    240: "a manifest that claims to be of a later rotation had no way out",
}
"""Seeds that have found something, and what."""


def test_three_hundred_attacks_violate_nothing_and_meet_everything(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code = campaign.main(
        [f"{FIRST}..{LAST}", "--attacks", "--results", str(tmp_path)],
        "moss_local.testing.__main__:copies_of",
    )
    shown = capfd.readouterr().out
    assert code == 0, shown
    assert "0 violations" in shown


@pytest.mark.parametrize("seed", FOUND)
def test_what_longer_runs_have_found_does_not_come_back(seed: int) -> None:
    outcome = campaign.run_seed(seed, copies_of, attacks=True)
    assert outcome.violation is None, outcome.violation
