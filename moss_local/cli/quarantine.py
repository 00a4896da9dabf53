"""`moss-local quarantine`: changes that were set aside, and the user's word about each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from moss_local.cli import render
from moss_local.cli.command import AsJson, Local, Name, open_to_read, run
from moss_local.cli.history import DELETION
from moss_sync import InvalidArgumentError

if TYPE_CHECKING:
    from moss_local.client import MossClient
    from moss_local.types import QuarantinedEdit


def quarantine(
    ctx: typer.Context,
    session: Name,
    restore: Annotated[
        int | None, typer.Option(metavar="NUMBER", help="Write this one as a new edit.")
    ] = None,
    discard: Annotated[
        int | None, typer.Option(metavar="NUMBER", help="Forget this one for good.")
    ] = None,
    local: Local = False,
    as_json: AsJson = False,
) -> None:
    """Show changes that were set aside on this device.

    They are not in the session, and pushing them by themselves could bring back what others
    deleted: this device's files were an old copy, or damaged, or the session was deleted elsewhere,
    or repaired. By number, oldest first: why, when it was written, on which device, the document's
    id and its text.

    JSON: {session, device, edits: [{number, reason, id, text, metadata, payload, written_at,
    device, deleted}]}; with --restore and --discard what is left afterwards.
    """
    if restore is not None and discard is not None:
        raise InvalidArgumentError("give one of --restore and --discard")
    edits, own = run(ctx, lambda client: _read(client, session, restore, discard, local))
    if as_json:
        render.say_json(
            {
                "session": session,
                "device": own,
                "edits": [
                    {
                        "number": each.number,
                        "reason": each.reason,
                        "id": each.id,
                        "text": each.text,
                        "metadata": each.metadata,
                        "payload": each.payload,
                        "written_at": render.iso_time(each.written_ms),
                        "device": each.device_id,
                        "deleted": each.deleted,
                    }
                    for each in edits
                ],
            }
        )
    elif restore is not None:
        render.say(f"restored {restore}")
    elif discard is not None:
        render.say(f"discarded {discard}")
    else:
        render.table([_line(each, own) for each in edits], texts=True)
        if not edits:
            render.talk("nothing is set aside")


async def _read(
    client: MossClient, name: str, restore: int | None, discard: int | None, local: bool
) -> tuple[list[QuarantinedEdit], str]:
    session = await open_to_read(client, name, local=local, warm_up=False)
    if restore is not None:
        await session.restore_quarantined(restore)
    if discard is not None:
        await session.discard_quarantined(discard)
    return await session.quarantined(), session.device_id


def _line(edit: QuarantinedEdit, own: str) -> tuple[str, ...]:
    return (
        str(edit.number),
        edit.reason,
        render.clock_time(edit.written_ms),
        render.device(edit.device_id, own),
        edit.id,
        DELETION if edit.deleted else edit.text,
    )
