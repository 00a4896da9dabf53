"""`moss-local add`: documents from an argument, a pipe or a file into a session on this device."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from moss_local.arguments import path_of
from moss_local.cli import render
from moss_local.cli.command import AsJson, Name, opened_to_fill, run, tell_of_state
from moss_sync import InvalidArgumentError, KeyRotatedError

if TYPE_CHECKING:
    from moss_local.client import MossClient
    from moss_local.ingest import Given


def add(
    ctx: typer.Context,
    session: Name,
    text: Annotated[
        str | None, typer.Argument(metavar="[TEXT]", help="The text, or - to read it from stdin.")
    ] = None,
    id: Annotated[
        str | None,
        typer.Option(metavar="ID", help="Its id; a new one, later than all before, if left out."),
    ] = None,
    file: Annotated[
        str | None,
        typer.Option(
            metavar="PATH",
            help="Documents from a .json, .jsonl or .ndjson file, or chunks of a .txt, .md, .pdf"
            " or .docx file.",
        ),
    ] = None,
    metadata: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Metadata; may be given several times."),
    ] = None,
    payload: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="An opaque string to keep with it; never searched."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Add documents to a session.

    An id that is there is replaced. Everything is on disk when this ends, and nothing is sent:
    push does that. A JSON document has the keys id and text, and may have
    metadata, embedding and payload. Chunks of a text file get the ids PATH#0, PATH#1, … and the
    path as metadata parentId, those of a PDF also the page. With --file, --metadata goes to every
    document that does not have the key itself. PDF takes the extra moss-local[files].

    JSON: {session, added, updated, ids}.
    """
    from moss_local.ingest import Given
    from moss_local.types import DocumentInfo

    extra = _pairs(metadata or [])
    if (text is None) == (file is None):
        raise InvalidArgumentError(
            "give one of: a text, - for stdin, or --file",
            hint='moss-local add SESSION "TEXT", or moss-local add SESSION --file PATH',
        )
    if file is not None:
        if id is not None or payload is not None:
            raise InvalidArgumentError("--id and --payload are for one text, not for a file")
        given = _read(file)
    else:
        said = _stdin() if text == "-" else str(text)
        if not said.strip():
            raise InvalidArgumentError("the text is blank")
        given = [Given(DocumentInfo(_new_id() if id is None else id, said, None, payload=payload))]
    (added, updated), ids = run(ctx, lambda client: _add(client, session, given, extra))
    if as_json:
        render.say_json({"session": session, "added": added, "updated": updated, "ids": ids})
    elif file is None:
        render.say(f"{'added' if added else 'updated'} {ids[0]}")
    else:
        render.say(f"added {added}, updated {updated}")


async def _add(
    client: MossClient, name: str, given: list[Given], extra: dict[str, str]
) -> tuple[tuple[int, int], list[str]]:
    from moss_local.ingest import Cutting

    # A session that is here is written to without the network. One that is not may be in the
    # store, and then its model is the store's.
    async with opened_to_fill(client, name, pull_known=False) as session:
        documents = await session._writer.cut(given, Cutting())
        for document in documents:
            document.metadata = {**extra, **(document.metadata or {})} or None
        with render.progress("embedding", len(documents)) as progress:
            counts = await session.add_docs(documents, progress=progress)
        if session.sync_state.code == KeyRotatedError.default_code:
            tell_of_state(session.sync_state)
    return counts, [document.id for document in documents]


def _read(file: str) -> list[Given]:
    """Read a file before the session is opened: a wrong one leaves no empty session behind."""
    from moss_local.ingest import read_given

    return read_given(path_of(file, "--file"), what="--file")


def _pairs(given: list[str]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for pair in given:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise InvalidArgumentError(f"--metadata {pair!r} is not KEY=VALUE")
        if key in pairs:
            raise InvalidArgumentError(f"--metadata {key!r} is given twice")
        pairs[key] = value
    return pairs


def _stdin() -> str:
    try:
        return sys.stdin.buffer.read().decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise InvalidArgumentError(f"stdin is not UTF-8 at byte {error.start}") from error


def _new_id() -> str:
    """Return a version 7 UUID: ids made later sort later, and no two devices make the same."""
    from moss_sync.clock import SystemClock

    clock = SystemClock()
    chance = int.from_bytes(clock.token(10), "big")
    fields = (clock.wall_ms() & (1 << 48) - 1) << 80 | chance
    fields = fields & ~(0xF << 76) | 0x7 << 76
    return str(UUID(int=fields & ~(0x3 << 62) | 0x2 << 62))
