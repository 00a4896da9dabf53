"""Every code block of the README is run as its reader would run it, and prints what it says.

In expected output `…` stands for anything. Two commands are not repeated here, because other tests
do the same: they are named in `SHOWN_ELSEWHERE`.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Block:
    """A fenced block: what it is written in, where, and its lines."""

    language: str
    line: int
    text: str


def blocks(page: str) -> Iterator[Block]:
    lines = page.splitlines()
    start: int | None = None
    for number, line in enumerate(lines):
        if line.startswith("```"):
            if start is None:
                start = number
            else:
                yield Block(lines[start][3:], start + 1, "\n".join(lines[start + 1 : number]))
                start = None


def says(expected: str, printed: str) -> bool:
    pattern = ".*".join(re.escape(part) for part in expected.strip().split("…"))
    return re.fullmatch(pattern, printed.strip(), re.DOTALL) is not None


README = list(blocks((ROOT / "README.md").read_text("utf-8")))


def test_the_readme_has_the_blocks_that_this_file_runs() -> None:
    assert [block.language for block in README].count("python") >= 4
    assert {block.language for block in README} == {"console", "python", "text"}


def test_every_python_block_says_what_it_prints() -> None:
    for block, following in zip(README, [*README[1:], None], strict=True):
        if block.language == "python":
            assert following is not None, block
            assert following.language == "text", block


def commands(block: Block) -> Iterator[tuple[str, str]]:
    """Yield each command with the output that is shown below it."""
    for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
        command, _, output = part.partition("\n")
        yield command, output


def test_the_readme_does_what_it_says(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(home),  # a reader may never have heard of AWS
    }

    def run(command: list[str]) -> str:
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    expected_next: str | None = None
    for block in README:
        if block.language == "python":
            script = tmp_path / f"line_{block.line}.py"
            script.write_text(block.text, "utf-8")
            expected_next = run([sys.executable, str(script)])
        elif block.language == "text":
            assert expected_next is not None, f"output of nothing at line {block.line}"
            assert says(block.text, expected_next), f"line {block.line}: {expected_next}"
            expected_next = None
        else:
            for command, output in commands(block):
                if command in SHOWN_ELSEWHERE:
                    continue
                printed = run(["sh", "-c", RECIPES.get(command, command)])
                assert says(output, printed), f"line {block.line}: {command}: {printed}"


RECIPES = {"make demo": "moss-local demo"}
"""What a target of the Makefile runs once the environment is there, as it is here."""

SHOWN_ELSEWHERE = {
    "make test",  # is what runs this
    "pip install .",  # tests/test_wheel.py installs what this builds into an empty place
}


@pytest.mark.parametrize(
    ("target", "command"), [("demo", RECIPES["make demo"]), ("test", "python -m pytest")]
)
def test_make_runs_what_the_tests_run(target: str, command: str) -> None:
    rules = (ROOT / "Makefile").read_text("utf-8")
    recipe = rules.partition(f"\n{target}: ")[2].partition("\n\n")[0]
    assert f"$(BIN)/{command}" in recipe


@pytest.mark.parametrize("page", sorted(ROOT.glob("*.md")) + sorted((ROOT / "docs").rglob("*.md")))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text("utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_tests_that_code_and_pages_name_are_there() -> None:
    sources = [path for name in ("moss_local", "sync") for path in (ROOT / name).rglob("*.py")]
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    named = re.compile(r"tests/[a-z_0-9/-]+(?:\.[a-z]+)?")
    missing = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in sources + pages
        for name in named.findall(path.read_text("utf-8"))
        if not (ROOT / name).exists()
    }
    assert not missing
