"""`moss-local push`, `pull` and `sync`: one exchange per session, and what it cost."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from moss_local.cli import render
from moss_local.cli.command import AsJson, fail, missing_folder, run, tell_of_missing
from moss_sync import InvalidArgumentError, MossError, NetworkError, SyncReport

if TYPE_CHECKING:
    from moss_local.client import MossClient
    from moss_local.types import Synced, Verb

Sessions = Annotated[
    list[str] | None, typer.Argument(metavar="[SESSION]...", help="Names of sessions.")
]


def push(
    ctx: typer.Context,
    session: Sessions = None,
    all: Annotated[
        bool, typer.Option("--all", help="Every session on this device with something to push.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Publish what changed here, merging it with what others publish.

    JSON: {exchanges: [{session, error, sent, sent_deletes, received, deleted, superseded,
    reasserted, quarantined, older_copy, adopted, seq, lost_races, requests, bytes_sent,
    bytes_received, elapsed_ms, waiting, strays, rejected, rejections, session_id}]}; error is null
    or {code, message}.
    """
    _exchange(ctx, "push", session or [], all, as_json)


def pull(
    ctx: typer.Context,
    session: Sessions = None,
    all: Annotated[
        bool, typer.Option("--all", help="Every session on this device or in the store.")
    ] = False,
    checkpoint: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help="Refuse a store that is older than this; from status --checkpoint elsewhere.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Merge what others have pushed; one small request where there is nothing new.

    JSON: as push.
    """
    if checkpoint is not None and (all or len(session or []) != 1):
        raise InvalidArgumentError(
            "a checkpoint is of one session",
            hint="moss-local pull SESSION --checkpoint TEXT",
        )
    _exchange(ctx, "pull", session or [], all, as_json, checkpoint)


def sync(
    ctx: typer.Context,
    session: Sessions = None,
    all: Annotated[
        bool, typer.Option("--all", help="Every session on this device or in the store.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Pull, then push.

    JSON: as push.
    """
    _exchange(ctx, "sync", session or [], all, as_json)


def summary(report: SyncReport) -> str:
    """Return what an exchange did and what it cost, in one line."""
    cost = f"{render.plural(report.requests, 'request')}, {render.size(report.bytes_sent)} out"
    took = f"{cost}, {render.size(report.bytes_received)} in, {report.elapsed_ms:.0f} ms"
    return f"{_did(report) or 'nothing new'} ({took})"


def has_news(report: SyncReport) -> bool:
    """Return whether an exchange did anything."""
    return bool(_did(report))


def _did(report: SyncReport) -> str:
    counts = (
        (report.sent, f"{report.sent} sent"),
        (report.sent_deletes, f"{render.plural(report.sent_deletes, 'deletion')} sent"),
        (report.received, f"{report.received} received"),
        (report.deleted, f"{report.deleted} deleted by others"),
        (report.superseded, f"{report.superseded} superseded by others"),
        (report.quarantined, f"{report.quarantined} set aside"),
        (report.lost_races, f"{render.plural(report.lost_races, 'race')} lost"),
    )
    return ", ".join(words for count, words in counts if count)


def tell_of_set_aside(session: str, report: SyncReport) -> None:
    """Say what became of this device's file, and where changes went that were not merged."""
    if report.older_copy:
        from moss_local.exchange import OLDER_COPY

        render.talk(f"{session}: {OLDER_COPY}")
    if report.quarantined:
        render.talk(
            f"{session}: documents were set aside, because the session was deleted elsewhere or "
            "repaired, or this device's file was an old copy; see "
            f"moss-local quarantine {shlex.quote(session)}"
        )


def _exchange(
    ctx: typer.Context,
    verb: Verb,
    names: list[str],
    every: bool,
    as_json: bool,
    checkpoint: str | None = None,
) -> None:
    if every == bool(names):
        raise InvalidArgumentError(
            f"--all is every session, and {', '.join(map(repr, names))} is named besides"
            if every
            else "name sessions, or give --all",
            hint=f"moss-local {verb} SESSION, or moss-local {verb} --all",
        )
    folder = missing_folder(ctx)
    done = run(ctx, lambda client: _exchange_all(client, verb, names, checkpoint))
    failed = [exchange.error for exchange in done if exchange.error is not None]
    if folder is not None and not any(isinstance(error, NetworkError) for error in failed):
        tell_of_missing(folder)
    if as_json:
        render.say_json({"exchanges": [_fields(exchange) for exchange in done]})
    else:
        idle = 0
        for exchange in done:
            if every and _is_idle(exchange):
                idle += 1
            elif exchange.error is None:
                _say(exchange)
        if not done:
            render.talk(f"there is nothing to {verb}")
        elif idle:
            render.say(f"{render.plural(idle, 'session')}: nothing new")
    for alike in _alike(failed).values():
        fail(alike[0])
        if len(alike) > 1:
            render.talk(f"the same for {render.plural(len(alike) - 1, 'other session')}")
    if failed:
        raise typer.Exit(failed[0].exit_code)


async def _exchange_all(
    client: MossClient, verb: Verb, names: list[str], checkpoint: str | None
) -> list[Synced]:
    if checkpoint is None:
        return await client.sync_sessions(names or None, exchange=verb)
    from moss_local.types import Synced

    (name,) = names
    try:
        async with await client.session(
            name, auto_load_on_init=False, create=False, warm_up=False, checkpoint=checkpoint
        ) as session:
            return [Synced(name, await session.pull())]
    except MossError as error:
        return [Synced(name, error.report or SyncReport(), error)]


def _say(exchange: Synced) -> None:
    render.say(f"{exchange.session}: {summary(exchange.report)}")
    tell_of_set_aside(exchange.session, exchange.report)
    for sentence in exchange.report.waiting:
        render.talk(f"waiting: {sentence}")
    if strays := exchange.report.strays:
        render.talk(f"not ours, left alone: {', '.join(strays)}")
    tell_of_rejected(exchange.report)


def tell_of_rejected(report: SyncReport) -> None:
    """Say what others have written and does not count."""
    for sentence in report.rejections:
        render.talk(f"does not count: {sentence}")
    if more := report.rejected - len(report.rejections):
        render.talk(f"does not count: {render.plural(more, 'other document')}")


def _is_idle(exchange: Synced) -> bool:
    report = exchange.report
    return not (
        exchange.error
        or _did(report)
        or report.older_copy
        or report.waiting
        or report.strays
        or report.rejected
    )


def _alike(errors: list[MossError]) -> dict[str, list[MossError]]:
    """Return the errors by what they say: a store that is away fails every session alike."""
    found: dict[str, list[MossError]] = {}
    for error in errors:
        found.setdefault(str(error), []).append(error)
    return found


def _fields(exchange: Synced) -> dict[str, Any]:
    error = exchange.error
    shown = None if error is None else {"code": error.code, "message": str(error)}
    return {"session": exchange.session, "error": shown, **asdict(exchange.report)}
