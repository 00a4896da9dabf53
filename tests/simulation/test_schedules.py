"""Two thousand schedules of the real engine on real files, on every change of the program."""

from __future__ import annotations

from pathlib import Path

import pytest

from moss_local.testing.__main__ import copies_of
from moss_sync.testing import campaign

FIRST, LAST = 0, 1_999

FOUND = {
    14226: "a restored backup's stamp of a wrong clock beat what was written over it",
    17919: "the same, seen by a push that did not know yet that its file was a copy",
    25047: "the same, a day ahead",
    997: "a push for which a session was missing that another task had just met was not made",
    27242: "a late pull of a file forgot what a push of the same file had committed meanwhile",
}
"""Seeds of longer runs that have found something, and what."""


def test_two_thousand_schedules_violate_nothing_and_meet_everything(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code = campaign.main(
        [f"{FIRST}..{LAST}", "--results", str(tmp_path)], "moss_local.testing.__main__:copies_of"
    )
    shown = capfd.readouterr().out
    assert code == 0, shown
    assert "0 violations" in shown


@pytest.mark.parametrize("seed", FOUND)
def test_what_longer_runs_have_found_does_not_come_back(seed: int) -> None:
    outcome = campaign.run_seed(seed, copies_of)
    assert outcome.counts
    assert outcome.violation is None, outcome.violation
