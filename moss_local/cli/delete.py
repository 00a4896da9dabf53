"""`moss-local delete`: a session out of the store and off this device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from moss_local.cli import render
from moss_local.cli.command import AsJson, Name, Yes, confirm, run

if TYPE_CHECKING:
    from moss_local.client import MossClient


def delete(
    ctx: typer.Context,
    session: Name,
    local_only: Annotated[
        bool,
        typer.Option("--local-only", help="This device's file only; the store keeps the session."),
    ] = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Delete a session for everybody, and its file here.

    First in the store, so that every device drops its documents with its next exchange; what a
    device had not pushed is set aside there, see moss-local quarantine. A session of the same name
    can be created again, and remembers nothing. With --local-only the others keep it, and what was
    not pushed from here is lost.

    JSON: {session, local_only, lost}; lost is how many changes were on this device only.
    """
    pending, set_aside = run(ctx, lambda client: _waiting(client, session))
    lost = [
        f"{count} {what}"
        for count, what in ((pending, "not pushed"), (set_aside, "set aside"))
        if count
    ]
    where = "on this device" if local_only else "for everybody"
    changes = f" Changes here that are lost: {', '.join(lost)}." if lost else ""
    confirm(f"Delete session {session!r} {where}?{changes}", yes)
    run(ctx, lambda client: client.delete_session(session, local_only=local_only))
    if as_json:
        fields = {"session": session, "local_only": local_only, "lost": pending + set_aside}
        render.say_json(fields)
    else:
        render.say(f"{session}: deleted {where}")


async def _waiting(client: MossClient, name: str) -> tuple[int, int]:
    """Return how many changes of a session are on this device only."""
    for each in (await client.local_sessions()).sessions:
        if each.name == name:
            return each.sync_state.pending, each.set_aside
    return 0, 0
