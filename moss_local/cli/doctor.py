"""`moss-local doctor`: is everything as it must be, and what to do where it is not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from moss_local.cli import render
from moss_local.cli.command import AsJson, globals_of
from moss_local.cli.loop import run_to_end
from moss_sync import MossError

if TYPE_CHECKING:
    from moss_local.cli.checkup import Finding

FAILED = 1
"""Exit code: something needs attention, as the lines say."""


def doctor(
    ctx: typer.Context,
    local: Annotated[
        bool, typer.Option("--local", help="Check this device only, not the store.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check this device and the store, and say what to do.

    The settings and the key, the model and its hash, every session's file (SQLite's integrity
    check, keyword index, vectors, permissions), then the store: whether it really compares and
    swaps under races, and how far its clock is from this one. The store is tried with a few blobs
    that are deleted again. Ends with 1 if anything failed.

    JSON: {ok, checks: [{name, ok, detail, todo}]}.
    """
    found: list[Finding] = []
    for finding in _findings(ctx, local):
        found.append(finding)
        if not as_json:
            _print(finding)
    failed = [finding for finding in found if not finding.ok]
    if as_json:
        render.say_json({"ok": not failed, "checks": [_fields(finding) for finding in found]})
    else:
        render.talk(f"{len(found) - len(failed)} of {render.plural(len(found), 'check')} passed")
    if failed:
        raise typer.Exit(FAILED)


def _findings(ctx: typer.Context, local: bool) -> Iterator[Finding]:
    from moss_local.cli.checkup import Finding, check_device, check_store

    try:
        settings = globals_of(ctx).settings()
    except MossError as error:
        yield Finding("settings", False, str(error), error.hint)
        return
    yield Finding("settings", True, f"project {settings.project_id}, data in {settings.data_dir}")
    yield from check_device(settings)
    if not local:
        with render.waiting(f"asking the store {settings.store}"):
            findings = run_to_end(lambda: check_store(settings))
        yield from findings


def _fields(finding: Finding) -> dict[str, Any]:
    return {**asdict(finding), "todo": None if finding.ok else finding.todo}


def _print(finding: Finding) -> None:
    render.say(f"{'ok    ' if finding.ok else 'FAILED'}  {finding.name}: {finding.detail}")
    if finding.todo is not None and not finding.ok:
        render.say(f"        {finding.todo}")
