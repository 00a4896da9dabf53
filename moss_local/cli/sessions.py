"""`moss-local sessions`: what there is, here and in the store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from moss_local.cli import render
from moss_local.cli.command import (
    AsJson,
    Local,
    missing_folder,
    not_exchanged,
    offline,
    run,
    tell_not_listed,
    tell_of_missing,
    unreadable_fields,
)
from moss_sync import KeyRotatedError, NetworkError

if TYPE_CHECKING:
    from moss_local.catalog import Catalog, LocalSession
    from moss_local.client import MossClient
    from moss_sync.directory import Directory, StoredSession


def sessions(ctx: typer.Context, local: Local = False, as_json: AsJson = False) -> None:
    """List the sessions on this device and in the store.

    If the store does not answer, or the project's key was rotated elsewhere, those on this device.

    JSON: {store_reached, sessions: [{name, here, documents, state, pending, set_aside,
    last_exchange, in_store, commits, committed_at, devices, stored_bytes}], unreadable};
    null where it is not known; unreadable holds {path, code, message} of each file here that
    cannot be read.
    """
    catalog, directory = run(ctx, lambda client: _read(client, local))
    here = {session.name: session for session in catalog.sessions if not _is_gone(session)}
    stored = {session.name: session for session in directory.sessions} if directory else {}
    names = sorted(here.keys() | stored.keys())
    if directory is not None and (folder := missing_folder(ctx)) is not None:
        tell_of_missing(folder)
    if as_json:
        known = None if directory is None else stored
        render.say_json(
            {
                "store_reached": directory is not None,
                "sessions": [_fields(name, here.get(name), known) for name in names],
                "unreadable": unreadable_fields(catalog),
            }
        )
    elif names:
        asked = directory is not None
        rows = [_row(name, here.get(name), stored.get(name), asked=asked) for name in names]
        render.table(rows, header=("documents", "here", "in the store", "session"))
    elif not catalog.unreadable:
        render.talk("there are no sessions")
    if directory is not None:
        tell_not_listed(directory.unreadable, listed=True)
    tell_not_listed(catalog.unreadable, listed=bool(catalog.sessions))


async def _read(client: MossClient, local: bool) -> tuple[Catalog, Directory | None]:
    catalog = await client.local_sessions()
    if local:
        return catalog, None
    try:
        return catalog, await client.stored_sessions()
    except NetworkError as error:
        offline(str(error))
    except KeyRotatedError as error:
        not_exchanged(str(error), error.hint)
    return catalog, None


def _is_gone(session: LocalSession) -> bool:
    """Return whether it was deleted for everybody, and nothing of it waits here."""
    return session.deleted and not session.set_aside


def _row(
    name: str, here: LocalSession | None, stored: StoredSession | None, *, asked: bool
) -> tuple[str, ...]:
    if stored is not None:
        there = (
            f"{render.clock_time(stored.committed_ms)}, {render.plural(stored.devices, 'device')}"
        )
    else:
        there = "no" if asked else "not known"
    return (
        "" if here is None else str(here.documents),
        "no" if here is None else _standing(here),
        there,
        name,
    )


def _standing(here: LocalSession) -> str:
    waiting = f", {here.set_aside} set aside" if here.set_aside else ""
    return f"{'deleted' if here.deleted else render.sync_state(here.sync_state)}{waiting}"


def _fields(
    name: str, here: LocalSession | None, stored: dict[str, StoredSession] | None
) -> dict[str, Any]:
    there = None if stored is None else stored.get(name)
    state = None if here is None else here.sync_state
    return {
        "name": name,
        "here": here is not None,
        "documents": None if here is None else here.documents,
        "state": None if state is None else state.status,
        "pending": None if state is None else state.pending,
        "set_aside": None if here is None else here.set_aside,
        "last_exchange": None if state is None else render.iso_time(state.last_exchange_ms),
        "in_store": None if stored is None else there is not None,
        "commits": None if there is None else there.commits,
        "committed_at": None if there is None else render.iso_time(there.committed_ms),
        "devices": None if there is None else there.devices,
        "stored_bytes": None if there is None else there.bytes,
    }
