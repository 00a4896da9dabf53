"""The examples run as they are and print what they are there to show."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"

SHOWN = {
    "escalation.py": r"specialist reads 4 turns, first: Bot: firmware is current .*\n"
    r"bot has note s1 t1 t2 t3 t4\n"
    r"specialist has note s1 t1 t2 t3 t4\n"
    r"specialist finds: Customer: the logs say 'lease expired'\.\n",
    "field_agent.py": r"tablet, offline, finds: The pump of cellar B was replaced in May\.\n"
    r"tablet: NETWORK, 3 changes are kept\n"
    r"tablet: bill leak pump status; The customer calls: it is urgent\.\n"
    r"office: bill leak pump status; The customer calls: it is urgent\.\n"
    r"kept in the tablet's history: Technician on site\.\n",
    "live_call.py": r"Can she send the shoes back\?\n  handbook: Shoes can be returned .*\n"
    r"Which size does she need\?\n  customer-42: She wears shoe size 39 .*\n"
    r"What is wrong with the boots\?\n  call-2025-12-01: Caller: the boots .* are too tight\.\n"
    r"kept: 3 facts on the customer\n",
    "omni_channel.py": r"chat finds what was said on the phone: agent: I have asked .*\n"
    r"2025-03-01 voice Ada: I was charged twice .*\n"
    r"2025-03-01 voice agent: I have asked for a refund .*\n"
    r"2025-03-02 chat  Ada: When will I have my money back\?\n"
    r"2025-03-02 chat  agent: It arrives on Friday, .*\n"
    r"promised in writing: agent: It arrives on Friday, .*\n",
    "phone_to_desktop.py": r"desktop resumes with 2 notes\n"
    r"phone sees: Ask Rui whether the boat leaves on Sundays\.\n"
    r"it was \(replaced\): Ask Rui whether\n"
    r"phone finds: The hotel in Lisbon is booked from the 3rd\.\n",
    "quickstart.py": r"Resumed with 2 turns of prior context\n"
    r"turn-2 score=0\.\d{3} Agent confirmed .*\n"
    r"turn-1 score=0\.\d{3} Customer reported .*\n",
    "semantic_cache.py": r"model: When are you open\? Open 9 to 5\.\n"
    r"cache: when are you open Open 9 to 5\.\n"
    r"cache: At what times are you open\? Open 9 to 5\.\n"
    r"model: How do I change my password\? In the menu, under Account\.\n"
    r"cache: How can I change my password\? In the menu, under Account\.\n",
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
