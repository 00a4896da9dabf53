"""`moss-local export`: a session into one file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from moss_local.cli import render
from moss_local.cli.command import AsJson, Local, Name, open_to_read, run
from moss_sync import InvalidArgumentError

if TYPE_CHECKING:
    from moss_local.client import MossClient
    from moss_local.types import Exported


def export(
    ctx: typer.Context,
    session: Name,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What is written.")],
    jsonl: Annotated[
        bool, typer.Option("--jsonl", help="JSON Lines, without the vectors of a model.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    local: Local = False,
    as_json: AsJson = False,
) -> None:
    """Write all documents of a session to one file, which import takes over anywhere.

    What others pushed is pulled before, if the store answers. The file has texts, metadata,
    payloads and vectors, and a hash that finds damage; with --jsonl it is text that add reads too.
    It is readable by this user only, and not encrypted.

    JSON: {session, file, documents, bytes}.
    """
    from moss_local.snapshots import check_no_folder

    check_no_folder(file)
    if file.exists() and not force:
        raise InvalidArgumentError(f"{file} is there already", hint="add --force to replace it")
    done = run(ctx, lambda client: _export(client, session, file, jsonl, local))
    if as_json:
        render.say_json(
            {
                "session": session,
                "file": done.path,
                "documents": done.documents,
                "bytes": done.size,
            }
        )
        return
    documents = render.plural(done.documents, "document")
    render.say(f"{session}: {documents} in {file}, {render.size(done.size)}")


async def _export(client: MossClient, name: str, file: Path, jsonl: bool, local: bool) -> Exported:
    session = await open_to_read(client, name, local=local, warm_up=False)
    return await session.export(file, "jsonl" if jsonl else "moss")
