"""Runs the command line inside the test's process, as a terminal-less shell would."""

from __future__ import annotations

import json
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from moss_local.cli.app import app

PROGRAM = [str(Path(sysconfig.get_path("scripts")) / "moss-local")]


@dataclass(frozen=True)
class Done:
    """How a run ended."""

    code: int
    stdout: str
    stderr: str

    def ok(self) -> Done:
        assert self.code == 0, f"exit {self.code}: {self.stdout}{self.stderr}"
        return self

    def json(self) -> Any:
        return json.loads(self.stdout)


@dataclass(frozen=True)
class Cli:
    """One device; `on` gives another of the same user."""

    before: tuple[str, ...] = ()

    def __call__(self, *arguments: str, stdin: str | None = None) -> Done:
        result = CliRunner().invoke(
            app, [*self.before, *arguments], input=stdin, prog_name="moss-local"
        )
        return Done(result.exit_code, result.stdout, result.stderr)

    def on(self, data_dir: str) -> Cli:
        return Cli(("--data-dir", data_dir))
