"""Writes the pages of docs/ that the program knows better: cli, errors, limits and parity.

`python docs/generate.py` writes them, `--check` fails if one is out of date. The pages depend on
nothing but the source: no terminal, no width, no version of the help formatter.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main
from limits import limits_page  # beside this file
from parity import parity_page

import moss_local.errors
import moss_sync.errors
from moss_local.cli.app import app
from moss_local.cli.command import INTERRUPTED
from moss_local.types import SyncState
from moss_sync import MossError

DOCS = Path(__file__).parent
MADE = "<!-- Made by docs/generate.py; edit the source instead. -->"


def cli_page() -> str:
    """Return docs/cli.md."""
    root: Any = typer.main.get_command(app)
    lines = [MADE, "", "# The command line", "", *_command(root, "moss-local")]
    for name, command in root.commands.items():
        lines += [f"## moss-local {name}", "", *_command(command, f"moss-local {name}")]
    return "\n".join(lines).rstrip() + "\n"


def _command(command: Any, path: str) -> Iterator[str]:
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    options = [each for each in command.params if each.param_type_name == "option"]
    shown = [each.metavar or each.name.upper() for each in arguments]
    usage = [path, *(["[OPTIONS]"] if options else []), *shown]
    if hasattr(command, "commands"):
        usage.append("COMMAND …")
    yield from ("```text", " ".join(usage), "```", "")
    for paragraph in inspect.cleandoc(command.help).split("\n\n"):
        text = " ".join(paragraph.split())
        yield from (_shape(text) if text.startswith("JSON: ") else text, "")
    if arguments or options:
        yield from ("| argument or option | |", "|---|---|")
        for each in [*arguments, *options]:
            yield f"| {_names(each)} | {_cell(each.help or '')}{_default(each)} |"
        yield ""
    example = command.epilog.split("Example:")[1].strip()
    yield from ("Example:", "", "```console", f"$ {example}", "```", "")


def _shape(text: str) -> str:
    shape, _, remark = text.removeprefix("JSON: ").rstrip(".").partition("; ")
    if not shape.startswith("{"):
        return f"`--json` prints the same {shape}."
    return f"`--json` prints `{shape}`" + (f"; {remark}." if remark else ".")


def _names(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return f"`{_cell(parameter.metavar or parameter.name.upper())}`"
    value = "" if parameter.is_flag else f" {parameter.metavar}"
    return f"`{', '.join(parameter.opts)}{value}`"


def _default(parameter: Any) -> str:
    value = parameter.default
    given = isinstance(value, int | float) and not isinstance(value, bool)
    return f" Default: {value}." if given else ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def errors_page() -> str:
    """Return docs/errors.md."""
    lines = [
        MADE,
        "",
        "# Errors",
        "",
        "Everything that the library raises on purpose is a `MossError`: `.code` is the stable",
        "thing to branch on, `.hint` says what to do, `.retryable` whether the same call may",
        "succeed later. The command line prints the message and the hint, and ends with the exit",
        f"code; with 0 if all went well, with {INTERRUPTED} after Ctrl-C.",
        "",
        "| class | code | exit code | retryable | meaning |",
        "|---|---|--:|---|---|",
    ]
    for error in _errors():
        meaning = inspect.cleandoc(error.__doc__ or "").split("\n\n")[0].replace("\n", " ")
        lines.append(
            f"| `{error.__name__}` | `{error.default_code}` | {error.exit_code} |"
            f" {'yes' if error.retryable else 'no'} | {_cell(meaning)} |"
        )
    return "\n".join([*lines, "", *_sync_state()]) + "\n"


IN_JSON = {
    "status": "`state`",
    "pending": "`pending`",
    "last_exchange_ms": "`last_exchange`: ISO 8601 in UTC, or null",
    "reason": "`reason`, only in `status`",
    "code": "",
    "hint": "",
}
"""What `status --json`, `sessions --json` and `show --json` call the fields of a SyncState."""


def _sync_state() -> Iterator[str]:
    yield from (
        "## Where a session stands",
        "",
        "`session.sync_state` raises nothing: its fields say what the last exchange came to.",
        "",
        "| field | meaning | in `status --json` |",
        "|---|---|---|",
    )
    _, _, attributes = inspect.cleandoc(SyncState.__doc__ or "").partition("Attributes:\n")
    # A field begins at the first level of indentation, and goes on at the second.
    fields = re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", attributes, re.MULTILINE)
    for name, meaning in fields:
        text = " ".join(meaning.split())
        yield f"| `{name}` | {_cell(text)} | {IN_JSON[name] or '–'} |"
    yield from (
        "",
        "`sessions --json` and `show --json` name them alike. `status` and `sessions` take them",
        'from this device\'s files and try no exchange: a session is "never", "pending" or',
        '"synced" there, or "stopped" where this device knows that the project\'s key was rotated',
        "elsewhere. Why an exchange failed is in `push --json`, `pull --json` and `sync --json`,",
        "as `error: {code, message}` of each session.",
    )


def _errors() -> Iterator[type[MossError]]:
    for module in (moss_sync.errors, moss_local.errors):
        for value in vars(module).values():
            is_error = isinstance(value, type) and issubclass(value, MossError)
            if is_error and value.__module__ == module.__name__:
                yield value


PAGES = {
    "cli.md": cli_page,
    "errors.md": errors_page,
    "limits.md": limits_page,
    "parity.md": parity_page,
}


def main(arguments: list[str]) -> int:
    """Write the pages, or with --check compare them; return an exit code."""
    if arguments not in ([], ["--check"]):
        sys.stderr.write("usage: python docs/generate.py [--check]\n")
        return 2
    stale = []
    for name, page in PAGES.items():
        path = DOCS / name
        made = page()
        if arguments:
            current = path.read_text("utf-8") if path.exists() else None
            if current != made:
                stale.append(name)
        else:
            path.write_text(made, "utf-8")
    for name in stale:
        sys.stderr.write(f"docs/{name} is out of date; run: make docs\n")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
