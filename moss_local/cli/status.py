"""`moss-local status`: where sessions stand towards the store, from this device's files alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from moss_local.cli import render
from moss_local.cli.command import (
    AsJson,
    globals_of,
    run,
    tell_not_listed,
    tell_of_state,
    unreadable_fields,
)
from moss_sync import MossError, NotFoundError
from moss_sync.errors import DOCTOR

if TYPE_CHECKING:
    from moss_local.catalog import Catalog, LocalSession
    from moss_local.storage.place import Place
    from moss_sync.probe import ProbeVerdict


def status(
    ctx: typer.Context,
    session: Annotated[
        str | None, typer.Argument(metavar="[SESSION]", help="One session; all if left out.")
    ] = None,
    checkpoint: Annotated[
        bool,
        typer.Option(
            "--checkpoint", help="Print what names the newest state seen, for pull --checkpoint."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show what is pending and when was the last exchange.

    Reads this device's files only; neither the store nor a model is asked. If this device knows
    that the project's key was rotated elsewhere, it says how to take the new one over.

    Says so where the store has not yet passed the whole probe that follows a project's first push,
    or has failed it: then nothing is pushed until moss-local doctor finds it well.

    JSON: {project, store, probed, data_dir, sessions: [{name, documents, state, reason, pending,
    set_aside, rejected, last_exchange, model, device, bytes, path, checkpoint}], unreadable};
    probed is "fully", "not fully", "failed", or null before a push and where the project commits by
    log; reason is null unless state is "stopped"; unreadable holds {path, code, message} of each
    file that cannot be read. What is set aside is shown by moss-local quarantine. Rejected are
    documents of others that are over a limit, 100 of them at most; doctor names one.
    """
    settings = globals_of(ctx).settings()
    catalog = run(ctx, lambda client: client.local_sessions())
    verdict = run(ctx, lambda client: client._opened().probed())
    found = [known for known in catalog.sessions if session in (None, known.name)]
    if session is not None and not found:
        raise _why_not_here(session, catalog, run(ctx, lambda client: client._opened().place()))
    tell_not_listed(catalog.unreadable, listed=bool(found))
    if as_json:
        render.say_json(
            {
                "project": settings.project_id,
                "store": settings.store,
                "probed": _probed(verdict),
                "data_dir": str(settings.data_dir),
                "sessions": [_fields(each) for each in found],
                "unreadable": unreadable_fields(catalog),
            }
        )
        return
    if checkpoint:
        _print_checkpoints(found, alone=session is not None)
        return
    render.talk(f"project {settings.project_id}, store {settings.store}")
    _tell_of_probe(verdict)
    if found:
        tell_of_state(found[0].sync_state)  # what is known to stop one stops them all
    if not found:
        render.talk(f"there are no sessions in {settings.data_dir}")
        return
    render.table(
        [_row(each) for each in found],
        header=("documents", "state", "last exchange", "size", "model", "device", "session"),
    )


def _tell_of_probe(verdict: ProbeVerdict | None) -> None:
    from moss_sync.probe import LONG_ROUNDS

    if verdict is None or verdict.is_full:
        return
    if verdict.failed:
        render.talk(
            f"the store cannot be used: check {verdict.failed!r} failed; nothing is pushed until "
            f"it passes: {DOCTOR}"
        )
        return
    render.talk(
        f"the store is not fully probed: {verdict.rounds} of {LONG_ROUNDS} rounds; every push goes "
        f"on with it, and all at once: {DOCTOR}"
    )


def _probed(verdict: ProbeVerdict | None) -> str | None:
    if verdict is None:
        return None
    if verdict.failed:
        return "failed"
    return "fully" if verdict.is_full else "not fully"


def _why_not_here(session: str, catalog: Catalog, place: Place) -> MossError:
    """Return the error of a session that is not among those that could be read."""
    file = place.path(session)
    for path, error in zip(catalog.unreadable_paths, catalog.unreadable, strict=True):
        if path == file:
            return error
    return NotFoundError(
        f"there is no session {session!r} on this device",
        hint="list what there is with: moss-local sessions",
    )


def _print_checkpoints(found: list[LocalSession], *, alone: bool) -> None:
    """Print one alone, so that it can be handed on; else which is whose."""
    for known in found:
        if known.checkpoint is not None:
            continue
        if known.sync_state.last_exchange_ms is None:
            render.talk(f"session {known.name!r} was never exchanged with a store")
        else:
            render.talk(f"session {known.name!r} has none: a project that commits by log has none")
    named = [(known.checkpoint, known.name) for known in found if known.checkpoint is not None]
    if alone and not named:
        raise typer.Exit(NotFoundError.exit_code)
    render.table([(each[0],) if alone else each for each in named])


def _row(known: LocalSession) -> tuple[str, ...]:
    waiting = f", {known.set_aside} set aside" if known.set_aside else ""
    waiting += f", {known.rejected} do not count" if known.rejected else ""
    return (
        str(known.documents),
        f"{render.sync_state(known.sync_state)}{waiting}",
        render.clock_time(known.sync_state.last_exchange_ms),
        render.size(known.bytes),
        known.model_id or "none yet",
        known.device_id[: render.SHORT_DEVICE],
        known.name,
    )


def _fields(known: LocalSession) -> dict[str, Any]:
    return {
        "name": known.name,
        "documents": known.documents,
        "state": known.sync_state.status,
        "reason": known.sync_state.reason,
        "pending": known.sync_state.pending,
        "set_aside": known.set_aside,
        "rejected": known.rejected,
        "last_exchange": render.iso_time(known.sync_state.last_exchange_ms),
        "model": known.model_id,
        "device": known.device_id,
        "bytes": known.bytes,
        "path": str(known.path),
        "checkpoint": known.checkpoint,
    }
