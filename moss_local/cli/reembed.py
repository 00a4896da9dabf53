"""`moss-local reembed`: a session to another model, or the vectors that are lacking here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from moss_local.cli import render
from moss_local.cli.command import AsJson, Name, run

if TYPE_CHECKING:
    from moss_local.client import MossClient
    from moss_local.types import Reembedded


def reembed(
    ctx: typer.Context,
    session: Name,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="M",
            help="Move the session to this model: a name, or a folder. Left out, only make what"
            " vectors are lacking on this device.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Move a session to another model, for everybody, and make its vectors anew.

    Texts stay what they are. Until a document has its new vector it is found by its words. Other
    devices take the move over with their next exchange and make their vectors by themselves, in
    the background while the session is open; one that does not have the model goes on exchanging
    and finds by word. Interrupted, the same command goes on.

    JSON: {session, model, moved_from, made}; moved_from is null where it was of that model before,
    made how many vectors were made here.
    """
    done = run(ctx, lambda client: _reembed(client, session, model))
    if as_json:
        render.say_json(
            {
                "session": session,
                "model": done.model_id,
                "moved_from": done.moved_from,
                "made": done.made,
            }
        )
        return
    moved = "" if done.moved_from is None else f"moved from {done.moved_from} to {done.model_id}, "
    render.say(f"{session}: {moved}{render.plural(done.made, 'vector')} made")


async def _reembed(client: MossClient, name: str, model: str | None) -> Reembedded:
    session = await client.session(
        name, auto_load_on_init=model is None, create=False, warm_up=False
    )
    with render.progress("embedding", session.doc_count) as progress:
        return await session.reembed(model, progress=progress)
