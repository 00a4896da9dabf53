"""`moss-local forget`: documents out of this device and out of every blob of the store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from moss_local.cli import render
from moss_local.cli.command import AsJson, Name, Yes, confirm, run

if TYPE_CHECKING:
    from pathlib import Path

    from moss_local.client import MossClient
    from moss_local.types import Forgotten


def forget(
    ctx: typer.Context,
    session: Name,
    id: Annotated[list[str], typer.Argument(metavar="ID...", help="Documents, by their ids.")],
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Forget documents for good: deleted everywhere, and their contents erased.

    Afterwards nothing of their texts, metadata and vectors is left in this device's file, its
    history included, nor in any blob of the store. A damaged file of the session that repair has
    moved aside is deleted. Ids that were deleted before are forgotten in the same way. What other
    devices keep in their histories, and the store in its own backups and old versions, is not
    reached: SECURITY.md. If the store does not answer, they are gone here, and the same command
    again ends it. What else is pending is pushed with it. A project that commits by log cannot
    erase: the command refuses, and nothing is done.

    JSON: {session, documents, versions, moved_aside}; documents that were still there, kept
    versions that were dropped here, and files of a repair that were deleted.
    """
    aside = run(ctx, lambda client: _moved_aside(client, session))
    also = f" {aside[0]}, which a repair has moved aside, goes with it." if aside else ""
    confirm(f"Forget {render.plural(len(set(id)), 'document')} of {session!r} for good?{also}", yes)
    done = run(ctx, lambda client: _forget(client, session, id))
    if as_json:
        render.say_json(
            {
                "session": session,
                "documents": done.documents,
                "versions": done.versions,
                "moved_aside": done.moved_aside,
            }
        )
        return
    if done.moved_aside:
        files = render.plural(done.moved_aside, "file")
        render.say(f"{session}: {files} that a repair had moved aside deleted")
    if not done.documents + done.versions:
        render.say(f"{session}: nothing of this was here; no blob of the store holds it either")
        return
    render.say(
        f"{session}: {render.plural(done.documents, 'document')} and "
        f"{render.plural(done.versions, 'kept version')} forgotten; "
        "no blob of the store holds them any more"
    )


async def _moved_aside(client: MossClient, name: str) -> list[Path]:
    from moss_local.storage.file import moved_aside

    return moved_aside((await client._opened().place()).path(name))


async def _forget(client: MossClient, name: str, ids: list[str]) -> Forgotten:
    session = await client.session(name, auto_load_on_init=False, create=False, warm_up=False)
    return await session.forget(ids)
