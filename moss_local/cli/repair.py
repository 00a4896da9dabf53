"""`moss-local repair`: back into the store what it has lost and this device holds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from moss_local.cli import render
from moss_local.cli.command import AsJson, fail, run
from moss_local.cli.exchange import Sessions, has_news, summary, tell_of_rejected, tell_of_set_aside
from moss_sync import InvalidArgumentError, NetworkError
from moss_sync.times import DAY_MS

if TYPE_CHECKING:
    from moss_local.client import MossClient
    from moss_local.types import Repaired, Salvage


def repair(
    ctx: typer.Context,
    session: Sessions = None,
    all: Annotated[bool, typer.Option("--all", help="Every session on this device.")] = False,
    force: Annotated[
        bool,
        typer.Option("--force", help="Also where nothing is wrong: every device sends all again."),
    ] = False,
    drop_unknown: Annotated[
        bool,
        typer.Option(
            "--drop-unknown",
            help="Leave out what nobody here can read: of a newer version, of a rotation that "
            "never was, of a session that was damaged before any device had it.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Put a damaged file in order, and back into the store what it has lost.

    A file on this device that doctor or an error calls damaged is made anew: what was pushed comes
    from the store, what was not is kept where it can still be read. Name its session: of files
    that do not even tell whose they are, --all can only do those whose sessions are stored.

    The rest is for a store that was emptied, restored from a backup, or has lost or damaged
    blobs, for one whose history contradicts what this device has seen (the errors that say so
    name this command), and for a session that a wrong clock has put into the future. What the
    store still has stays; what is damaged there is copied to aside/ in it before it is replaced.
    Where the error's hint says so, --drop-unknown goes on without what nobody can read; it stays in
    aside/. Where somebody can read it after all, repair there afterwards, and it counts again.
    Repair first on the device that has most; the others then add what they hold by themselves,
    with their next push, pull or sync. Where nothing is wrong it is an ordinary sync, after every
    blob was read once.

    JSON: {repairs: [{session, error, salvage, trouble, rebuilt, keys_restored, blobs, lost_blobs,
    set_back_ms, aside, sent, sent_deletes, received, deleted, superseded, reasserted,
    quarantined, older_copy, adopted, seq, lost_races, requests, bytes_sent, bytes_received,
    elapsed_ms, session_id, waiting, strays, rejected, rejections}]}; session is null where a file
    does not tell it; error is null or {code, message}; salvage is null, or {trouble, written,
    set_aside, unreadable, exact, aside} of a damaged file, where exact is false if more may be
    lost than unreadable says; trouble says what was wrong with the store, null where nothing was;
    aside has the keys under which the store keeps the damaged blobs that were replaced.
    """
    names = session or []
    if all == bool(names):
        raise InvalidArgumentError(
            "name sessions, or give --all", hint="moss-local repair SESSION, or --all"
        )
    done = run(ctx, lambda client: _repair(client, names, force, drop_unknown))
    if as_json:
        render.say_json({"repairs": [_fields(each) for each in done]})
    else:
        whole = 0
        for each in done:
            if all and _is_whole(each):
                whole += 1
                continue
            for line in _lines(each):
                render.say(line)
            tell_of_set_aside(each.session, each.report)
            tell_of_rejected(each.report)
        if whole:
            render.say(f"{render.plural(whole, 'session')}: nothing was wrong and nothing is new")
        if not done:
            render.talk("there are no sessions on this device")
    failed = [each.error for each in done if each.error is not None]
    for error in failed:
        fail(error)
    if failed:
        raise typer.Exit(failed[0].exit_code)


async def _repair(
    client: MossClient, names: list[str], force: bool, drop_unknown: bool
) -> list[Repaired]:
    if not names:
        return await client.repair_sessions(force=force, drop_unknown=drop_unknown)
    done: list[Repaired] = []
    for name in names:
        done.append(await client.repair_session(name, force=force, drop_unknown=drop_unknown))
        if isinstance(done[-1].error, NetworkError):
            break  # the others would only wait for the same store
    return done


def _is_whole(each: Repaired) -> bool:
    report = each.report
    wrong = each.error or each.salvage or report.trouble or report.keys_restored or report.rebuilt
    return not wrong and not has_news(report)


def _lines(each: Repaired) -> list[str]:
    lines = [] if each.salvage is None else list(_of_file(each.session, each.salvage))
    if each.error is not None:
        return lines
    report = each.report
    if report.keys_restored:
        lines.append(f"{each.session}: the store lacked the project's keys; they are back")
    lines += [
        f"{each.session}: what was replaced in the store is kept in it as {key}"
        for key in report.aside
    ]
    if report.trouble is not None:
        lines.append(f"{each.session}: {report.trouble}")
    if report.set_back_ms:
        lines.append(
            f"{each.session}: its time was {_days(report.set_back_ms)} ahead of the clocks; it is "
            "set back, on every device with its next exchange, and all documents keep their order"
        )
    if not report.rebuilt:
        did = "nothing was wrong" if each.salvage is None else "nothing was wrong with the store"
        if report.keys_restored:
            did = "nothing else was wrong"
    else:
        there = report.blobs - report.lost_blobs
        kept = f", {render.plural(there, 'blob')} kept" if there else ""
        did = f"put together anew{kept}"
    return [*lines, f"{each.session}: {did}; {summary(report)}"]


def _days(time_ms: int) -> str:
    return render.plural(time_ms // DAY_MS, "day")


def _of_file(session: str, salvage: Salvage) -> Iterator[str]:
    for trouble in salvage.trouble:
        yield f"{session}: {trouble}"
    kept = f"{render.plural(salvage.written, 'change')} that had not been pushed written again"
    if salvage.set_aside:
        kept += f", {salvage.set_aside} set aside (moss-local quarantine)"
    if salvage.unreadable:
        kept += f"; {render.plural(salvage.unreadable, 'row')} could not be read"
    yield f"{session}: the file was made anew; {kept}"
    if not salvage.exact:
        yield (
            f"{session}: the damage hides how many there were; others that were not pushed may be "
            "lost, and are not counted"
        )
    if salvage.aside is not None:
        yield f"{session}: the damaged file is {salvage.aside}"
        yield (
            f"{session}: what it holds can be read there; delete it when nothing in it is missed "
            "(forget and delete do so too)"
        )


def _fields(each: Repaired) -> dict[str, Any]:
    error = each.error
    shown = None if error is None else {"code": error.code, "message": str(error)}
    salvage = None if each.salvage is None else asdict(each.salvage)
    if salvage is not None:
        salvage["aside"] = None if salvage["aside"] is None else str(salvage["aside"])
    known = error is None or each.session != str(error)
    return {
        "session": each.session if known else None,
        "error": shown,
        "salvage": salvage,
        **asdict(each.report),
    }
