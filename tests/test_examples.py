"""The examples run as they are and print what they are there to show."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"

SHOWN = {
    "quickstart.py": r"Resumed with 2 turns of prior context\n"
    r"turn-2 score=0\.\d{3} Agent confirmed .*\n"
    r"turn-1 score=0\.\d{3} Customer reported .*\n",
    "tested_list.py": r"the phones agreed after 10 days, "
    r"though the store was away [1-9]\d* times\n",
    "two_devices.py": r"laptop: others wrote turn-1\n"
    r"(laptop: synced\nphone: others wrote turn-2\n|phone: others wrote turn-2\nlaptop: synced\n)",
}


def test_every_example_is_listed_here() -> None:
    assert sorted(path.name for path in EXAMPLES.glob("*.py")) == sorted(SHOWN)


@pytest.mark.parametrize("name", sorted(SHOWN))
def test_an_example_runs_from_anywhere_without_set_up(name: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / name)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(SHOWN[name], done.stdout), done.stdout
    assert list(tmp_path.iterdir()) == []
