"""Two thousand schedules of the real engine on real files, on every change of the program."""

from __future__ import annotations

from pathlib import Path

import pytest

from moss_sync.testing import campaign

FIRST, LAST = 0, 1_999


def test_two_thousand_schedules_violate_nothing_and_meet_everything(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code = campaign.main(
        [f"{FIRST}..{LAST}", "--results", str(tmp_path)], "moss_local.testing.__main__:copies_of"
    )
    shown = capfd.readouterr().out
    assert code == 0, shown
    assert "0 violations" in shown
