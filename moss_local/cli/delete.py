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

    JSON: {session, local_only, lost}; lost is how many changes were on this device only, null
    where its file is damaged and nobody knows.
    """
    pending, set_aside = run(ctx, lambda client: _waiting(client, session))
    lost = [
        f"{count} {what}"
        for count, what in ((pending, "not pushed"), (set_aside, "set aside"))
        if count
    ]
    where = "on this device" if local_only else "for everybody"
    changes = f" Changes here that are lost: {', '.join(lost)}." if lost else ""
    if pending is None:
        changes = " Its file is damaged: what of it was not pushed is lost, and not known."
    confirm(f"Delete session {session!r} {where}?{changes}", yes)
    run(ctx, lambda client: client.delete_session(session, local_only=local_only))
    if as_json:
        count = None if pending is None else pending + set_aside
        fields = {"session": session, "local_only": local_only, "lost": count}
        render.say_json(fields)
    else:
        render.say(f"{session}: deleted {where}")


async def _waiting(client: MossClient, name: str) -> tuple[int | None, int]:
    """Return how many changes of a session are on this device only; None if that is not known."""
    catalog = await client.local_sessions()
    for each in catalog.sessions:
        if each.name == name:
            return each.sync_state.pending, each.set_aside
    path = (await client._opened().place()).path(name)
    return None if path in catalog.unreadable_paths else 0, 0
