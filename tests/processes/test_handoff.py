"""The main job, as its users write it: two programs, two devices, two interpreters."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.keys import KEY

PROGRAMS = Path(__file__).parent / "programs"


def run(program: str, *, store: str, data_dir: Path) -> list[str]:
    """Run a program in a fresh interpreter that takes warnings for errors; return its lines."""
    done = subprocess.run(
        [sys.executable, "-W", "error", str(PROGRAMS / f"{program}.py")],
        env={
            **os.environ,
            "MOSS_PROJECT_ID": "support",
            "MOSS_PROJECT_KEY": KEY,
            "MOSS_STORE": store,
            "MOSS_DATA_DIR": str(data_dir),
        },
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "s3":
        return str(request.getfixturevalue("s3_url"))
    return str(tmp_path / "store")


def test_another_agent_on_another_device_resumes_the_thread(store: str, tmp_path: Path) -> None:
    voice, chat = tmp_path / "voice", tmp_path / "chat"

    assert run("handoff_first", store=store, data_dir=voice) == []

    resumed, *found = run("handoff_second", store=store, data_dir=chat)
    assert resumed == "Resumed with 2 turns of prior context"
    assert len(found) == 2
    first = re.fullmatch(r"turn-2 score=(\d\.\d{3}) (.*)", found[0])
    assert first is not None
    assert first[2] == "Agent confirmed a refund in 3-5 business days."
    assert 0 < float(first[1]) <= 1
    assert found[1].startswith("turn-1 score=")

    # The device that comes back has the third turn, and embedded nothing to have it.
    assert run("handoff_back", store=store, data_dir=voice) == [
        "3",
        "turn-1 Customer reported a duplicate $49.99 charge.",
        "turn-2 Agent confirmed a refund in 3-5 business days.",
        "turn-3 Customer confirmed the refund posted to their statement.",
        "embedded: []",
    ]


def test_a_cold_device_has_the_whole_thread_without_embedding_it(
    store: str, tmp_path: Path
) -> None:
    run("handoff_first", store=store, data_dir=tmp_path / "voice")
    run("handoff_second", store=store, data_dir=tmp_path / "chat")

    count, *_, embedded = run("handoff_back", store=store, data_dir=tmp_path / "mail")

    assert (count, embedded) == ("3", "embedded: []")
