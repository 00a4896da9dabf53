"""`moss-local import`: what a file holds into a session."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from moss_local.cli import render
from moss_local.cli.command import AsJson, opened_to_fill, run
from moss_sync import InvalidArgumentError

if TYPE_CHECKING:
    from moss_local.client import MossClient


def import_file(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What export has written.")],
    session: Annotated[
        str | None,
        typer.Option("--session", metavar="NAME", help="Into this session, not its own."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Take over the documents of an exported session, all of them or none.

    They are added to the session of the name that it had, which is created where it is not: an id
    that is there is replaced, nothing else is deleted. Vectors are made here where the file's are
    of another model. JSON Lines need --session.

    JSON: {session, added, updated, documents}; documents that the session has now.
    """
    name, added, updated, documents = run(ctx, lambda client: _import(client, file, session))
    if as_json:
        render.say_json(
            {"session": name, "added": added, "updated": updated, "documents": documents}
        )
        return
    render.say(f"{name}: {added} added, {updated} updated; {render.plural(documents, 'document')}")


async def _import(client: MossClient, file: Path, name: str | None) -> tuple[str, int, int, int]:
    from moss_local.runtime import runtime
    from moss_local.transfer import is_portable, verify

    if await runtime.blocking(is_portable, file):
        header = await runtime.blocking(verify, file)
        name = header.session if name is None else name
    elif name is None:
        raise InvalidArgumentError(
            f"{file} does not say which session it is of", hint="name it with --session NAME"
        )
    async with opened_to_fill(client, name, warm_up=False) as session:
        added, updated = await session.import_from(file)
        return name, added, updated, session.doc_count
