"""The command line on a store in which something else stands in the place of each thing in turn."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from moss_sync import ForeignFileError
from tests.keys import KEY

ENDS_S = 60.0
"""A command takes two seconds, ten on a machine that is busy; one that waits never ends."""


class Shell:
    """Commands of one device, each in a process of its own."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._environment = {
            **os.environ,
            "HOME": str(home),
            "XDG_CONFIG_HOME": str(home / "config"),
            "MOSS_PROJECT_ID": "p",
            "MOSS_PROJECT_KEY": KEY,
        }

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        program = "from moss_local.cli.app import main; main()"
        places = ("--data-dir", str(self._home / "data"), "--store", str(self._home / "store"))
        return subprocess.run(
            [sys.executable, "-c", program, *places, *arguments],
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=ENDS_S,
        )


@pytest.fixture(scope="module")
def pushed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A device's home with two sessions, both pushed, and a turn in each that is not yet."""
    home = tmp_path_factory.mktemp("pushed")
    shell = Shell(home)
    for name in ("one", "other"):
        assert shell("add", name, f"a turn of {name}").returncode == 0
    assert shell("push", "--all").returncode == 0
    for name in ("one", "other"):
        assert shell("add", name, "another turn").returncode == 0
    return home


@pytest.fixture
def home(pushed: Path, tmp_path: Path) -> Path:
    shutil.copytree(pushed, tmp_path / "home")
    return tmp_path / "home"


@pytest.mark.parametrize("place", ["*", "*/m", "*/m/*", ".moss/tmp"])
def test_a_command_ends_and_names_the_pipe_that_stands_in_the_place_of_something(
    home: Path, tmp_path: Path, place: str
) -> None:
    store = home / "store"
    path = next(each for each in sorted(store.glob(place)) if each.name != ".moss")
    path.rename(tmp_path / "away")
    os.mkfifo(path)
    name = str(path.relative_to(store))
    shell = Shell(home)

    exchanged = shell("push", "--all")
    assert exchanged.returncode == ForeignFileError.exit_code
    assert f"{name!r} in the store" in exchanged.stderr
    assert f"mv -- {path} ELSEWHERE" in exchanged.stderr
    assert f"{name!r}" in shell("doctor", "--json").stdout
    if place == "*/m/*":
        # The other session has gone on, and a listing names what it leaves out.
        assert exchanged.stdout.count(" 1 sent ") == 1
        listed = shell("sessions")
        assert f"not listed: {name!r}" in listed.stderr


def test_a_pipe_in_the_place_of_what_a_device_remembers_of_its_store_holds_nothing_up(
    home: Path,
) -> None:
    for path in (home / "data").glob("*/repository-*"):
        path.unlink()
        os.mkfifo(path)
    pushing = Shell(home)("push", "one")
    assert pushing.returncode == 0, pushing.stderr
