"""What the help promises: every command ends with an example, and every example runs."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from moss_local.cli.app import EXAMPLES
from tests.moss_local.cli_harness import Cli

ROOT = Path(__file__).parent.parent.parent
COMMANDS = [example.split()[1] for example in EXAMPLES.values()]


def example_of(*command: str) -> list[str]:
    """Return the arguments of the example that ends a command's help."""
    help = Cli()(*command, "--help").ok().stdout
    found = re.fullmatch(r"\s*moss-local (.+)", help.rstrip().splitlines()[-1])
    assert found is not None, help
    assert help.rstrip().splitlines()[-2].strip() == "Example:"
    return shlex.split(found[1])


def test_every_command_of_the_list_has_an_example() -> None:
    listed = Cli()("--help").ok().stdout.split("Commands:")[1].split("Example:")[0]
    names = [line.split()[0] for line in listed.splitlines() if re.match(r"  [a-z]", line)]
    assert names == COMMANDS


def test_every_example_runs_in_the_order_of_the_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for command in COMMANDS:
        example = example_of(command)
        assert example[0] == command
        done = Cli()(*example).ok()
        assert done.stdout, f"{example} prints nothing"
        assert "nothing found" not in done.stderr
    Cli()(*example_of()).ok()


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_goes_to_stdout(flag: str) -> None:
    for arguments in ([flag], ["show", flag]):
        done = Cli()(*arguments).ok()
        assert done.stdout.startswith("Usage: moss-local ")
        assert done.stderr == ""


def test_every_command_that_reads_offers_json() -> None:
    for command in COMMANDS:
        help = Cli()(command, "--help").ok().stdout
        assert ("--json" in help) == (command not in ("demo", "init")), command
        assert ("JSON: " in help) == ("--json" in help), command


def test_the_generated_pages_are_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "generate.py"), "--check"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_a_stale_page_is_named(tmp_path: Path) -> None:
    # The page on parity is made of facts that are kept with the tests which show them.
    pycache = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "docs", tmp_path / "docs", ignore=pycache)
    shutil.copytree(ROOT / "tests", tmp_path / "tests", ignore=pycache)
    with (tmp_path / "docs" / "cli.md").open("a") as page:
        page.write("by hand\n")
    command = [sys.executable, str(tmp_path / "docs" / "generate.py")]
    done = subprocess.run([*command, "--check"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "docs/cli.md is out of date; run: make docs\n"
    assert subprocess.run(command).returncode == 0
    assert (tmp_path / "docs" / "cli.md").read_bytes() == (ROOT / "docs" / "cli.md").read_bytes()
