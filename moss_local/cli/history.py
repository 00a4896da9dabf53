"""`moss-local history`: what was replaced on this device, and back with it."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated

import typer

from moss_local.cli import render
from moss_local.cli.command import AsJson, Local, Name, open_to_read, run
from moss_sync import InvalidArgumentError, NotFoundError

if TYPE_CHECKING:
    from moss_local.client import MossClient
    from moss_local.types import DocumentVersion

DELETION = "[deleted]"


def history(
    ctx: typer.Context,
    session: Name,
    id: Annotated[
        str | None,
        typer.Argument(metavar="[ID]", help="One document; all that have a history if left out."),
    ] = None,
    restore: Annotated[
        str | None,
        typer.Option(metavar="VERSION", help="Write this version of document ID again."),
    ] = None,
    local: Local = False,
    as_json: AsJson = False,
) -> None:
    """Show what was replaced or deleted here, or lost to another device's change.

    By document, the current version first, then what was replaced last: when it was written, on
    which device, what became of it, its version, the document's id and its text. "current" is what
    the session holds; "edited" was replaced by an edit on this device, "replaced" by another
    device's, "deleted" by a deletion; "lost" was written at the same time as a change that won.
    The last 8 contents of a document are kept, on this device only. --restore writes one again as
    a new edit, which beats the current version.

    JSON: {session, device, versions: [{id, version, text, metadata, payload, written_at, device,
    deleted, current, reason}]}; with --restore as it is afterwards.
    """
    if restore is not None and id is None:
        raise InvalidArgumentError(
            "--restore needs the document's id",
            hint="moss-local history SESSION ID --restore VERSION",
        )
    versions, own = run(ctx, lambda client: _read(client, session, id, restore, local))
    if as_json:
        render.say_json(
            {
                "session": session,
                "device": own,
                "versions": [
                    {
                        "id": each.id,
                        "version": each.version,
                        "text": each.text,
                        "metadata": each.metadata,
                        "payload": each.payload,
                        "written_at": render.iso_time(each.written_ms),
                        "device": each.device_id,
                        "deleted": each.deleted,
                        "current": each.current,
                        "reason": each.reason,
                    }
                    for each in versions
                ],
            }
        )
        return
    if restore is not None:
        render.say(f"restored {id}")
        return
    render.table([_line(each, own) for each in versions], texts=True)
    if not versions:
        render.talk("nothing was replaced here")


async def _read(
    client: MossClient, name: str, id: str | None, restore: str | None, local: bool
) -> tuple[list[DocumentVersion], str]:
    session = await open_to_read(client, name, local=local, warm_up=False)
    if id is not None and restore is not None:
        await session.restore(id, restore)
    versions = await session.history(id)
    if id is not None and not versions:
        raise NotFoundError(
            f"session {name!r} has no document {id!r}, and nothing is kept of one",
            hint=f"list what it has with: moss-local show {shlex.quote(name)}",
        )
    return versions, session.device_id


def _line(version: DocumentVersion, own: str) -> tuple[str, ...]:
    return (
        render.clock_time(version.written_ms),
        render.device(version.device_id, own),
        version.reason or "current",
        version.version,
        version.id,
        DELETION if version.deleted else version.text,
    )
