"""`moss-local query`: search a session by meaning and by word."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from moss_local.cli import render
from moss_local.cli.command import AsJson, Filter, Local, Name, filter_of, open_to_read, run

if TYPE_CHECKING:
    from moss_local.client import MossClient
    from moss_local.types import ParentGrouping, QueryOptions, SearchResult


def query(
    ctx: typer.Context,
    session: Name,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="What to look for.")],
    top_k: Annotated[int, typer.Option(metavar="N", help="At most this many.")] = 5,
    alpha: Annotated[
        float, typer.Option(metavar="A", help="1.0 by meaning only, 0.0 by word only.")
    ] = 0.5,
    min_score: Annotated[
        float | None, typer.Option(metavar="S", help="Leave out scores below this, 0.0 to 1.0.")
    ] = None,
    filter: Filter = None,
    group_by: Annotated[
        str | None,
        typer.Option(
            metavar="PARENT,ORDER",
            help="Put documents with the same PARENT together, in the order of ORDER.",
        ),
    ] = None,
    local: Local = False,
    as_json: AsJson = False,
) -> None:
    """Search a session by meaning and by word, best first.

    What others pushed is pulled before, if the store answers. A score is the likeness of meaning,
    0 to 1; words count for the order too, so scores need not fall. A filter is written as in
    docs/filters.md: {"field": "channel", "condition": {"$eq": "voice"}}.

    JSON: {session, query, model, time_ms, results: [{id, text, score, metadata, payload}]}.
    """
    from moss_local.types import QueryOptions

    options = QueryOptions(
        top_k=top_k,
        alpha=alpha,
        filter=filter_of(filter),
        group_by=_grouping(group_by),
        min_score=min_score,
    )
    found = run(ctx, lambda client: _search(client, session, text, options, local))
    if as_json:
        render.say_json(
            {
                "session": session,
                "query": found.query,
                "model": found.model_id,
                "time_ms": found.time_taken_ms,
                "results": [
                    {
                        "id": hit.id,
                        "text": hit.text,
                        "score": hit.score,
                        "metadata": hit.metadata,
                        "payload": hit.payload,
                    }
                    for hit in found.docs
                ],
            }
        )
        return
    if not found.docs:
        render.talk("nothing found")
    render.table([(f"{hit.score:.3f}", hit.id, hit.text) for hit in found.docs], texts=True)


def _grouping(fields: str | None) -> ParentGrouping | None:
    from moss_local.types import ParentGrouping
    from moss_sync import InvalidArgumentError

    if fields is None:
        return None
    parent, comma, order = fields.partition(",")
    if not comma:
        raise InvalidArgumentError(
            f"--group-by takes two names of metadata, not {fields!r:.60}",
            hint=f"write --group-by {fields:.60},ORDER",
        )
    return ParentGrouping(parent.strip(), order.strip())


async def _search(
    client: MossClient, name: str, text: str, options: QueryOptions, local: bool
) -> SearchResult:
    session = await open_to_read(client, name, local=local, warm_up=True)
    return await session.query(text, options)
