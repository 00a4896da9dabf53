"""`moss-local show`: a session as a timeline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from moss_local.cli import render
from moss_local.cli.command import AsJson, Filter, Local, Name, filter_of, open_to_read, run

if TYPE_CHECKING:
    from moss_local.client import MossClient
    from moss_local.storage.documents import StoredDocument
    from moss_local.types import SyncState

SPEAKER = "speaker"
"""The metadata key that says who spoke, by convention; shown where it is given."""


def show(
    ctx: typer.Context,
    session: Name,
    filter: Filter = None,
    local: Local = False,
    as_json: AsJson = False,
) -> None:
    """Show a session as a timeline.

    Documents in the order in which they were written: when, on which device, whether they are
    synced or still pending here, their ids, and their texts, after the metadata speaker if there
    is one. What others pushed is pulled before, if the store answers. No model is loaded.

    JSON: {session, device, state, pending, last_exchange, documents: [{id, text, metadata,
    payload, written_at, device, pending}]}.
    """
    wanted = filter_of(filter)
    documents, own, state = run(ctx, lambda client: _read(client, session, wanted, local))
    if as_json:
        render.say_json(
            {
                "session": session,
                "device": own,
                "state": state.status,
                "pending": state.pending,
                "last_exchange": render.iso_time(state.last_exchange_ms),
                "documents": [
                    {
                        "id": document.id,
                        "text": document.text,
                        "metadata": document.metadata,
                        "payload": document.payload,
                        "written_at": render.iso_time(document.written_ms),
                        "device": document.dev.hex(),
                        "pending": document.dirty,
                    }
                    for document in documents
                ],
            }
        )
        return
    render.table([_line(document, own) for document in documents], texts=True)
    pending = f", {state.pending} pending" if state.pending else ""
    render.talk(
        f"{render.plural(len(documents), 'document')}{pending};"
        f" last exchange {render.clock_time(state.last_exchange_ms)}"
    )


async def _read(
    client: MossClient, name: str, filter: dict[str, Any] | None, local: bool
) -> tuple[list[StoredDocument], str, SyncState]:
    session = await open_to_read(client, name, local=local, warm_up=False)
    return await session.thread(filter=filter), session.device_id, session.sync_state


def _line(document: StoredDocument, own: str) -> tuple[str, ...]:
    speaker = (document.metadata or {}).get(SPEAKER)
    return (
        render.clock_time(document.written_ms),
        render.device(document.dev.hex(), own),
        "pending" if document.dirty else "synced",
        document.id,
        document.text if speaker is None else f"{render.visible(speaker)}: {document.text}",
    )
