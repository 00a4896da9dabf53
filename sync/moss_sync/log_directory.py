"""Which sessions a repository that commits by log holds, read from the heads of their devices.

A device writes its head before its first push, so a session is listed from its first push on.
Several devices name one session; any of their heads tells its name.
What holds: tests/moss_sync/test_log_engine.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from moss_sync import layout
from moss_sync.channel import PARALLEL_READS
from moss_sync.coverage import joined
from moss_sync.errors import (
    BlobCorruptError,
    BlobDeniedError,
    BlobNotFoundError,
    MossError,
    UnsupportedFormatError,
    hint_at_repair,
)
from moss_sync.keyring import Keys
from moss_sync.log_blob import Head
from moss_sync.log_channel import read_head, read_listing
from moss_sync.repository import Repository
from moss_sync.stored_session import StoredSession


def session_of(part: str) -> str | None:
    """Return the id of the session that a name below `m/` is a head of; None if it is of none."""
    parsed = layout.parse_head(part)
    return None if parsed is None else parsed[0]


async def read_sessions(
    repository: Repository, keys: Keys, parts: Iterable[str]
) -> tuple[list[StoredSession], list[MossError]]:
    """Return the sessions that these names below `m/` are heads of, and what could not be read.

    One request for each head, and one listing for each session.
    """
    devices: dict[str, list[bytes]] = {}
    for part in parts:
        parsed = layout.parse_head(part)
        if parsed is not None:
            devices.setdefault(parsed[0], []).append(parsed[1])
    gate = asyncio.Semaphore(PARALLEL_READS)
    tasks = [
        asyncio.ensure_future(_read(repository, keys, sid, devs, gate))
        for sid, devs in devices.items()
    ]
    try:
        results = await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
    sessions = [each for each, _ in results if each is not None]
    return sessions, [error for _, errors in results for error in errors]


async def _read(
    repository: Repository, keys: Keys, sid: str, devs: list[bytes], gate: asyncio.Semaphore
) -> tuple[StoredSession | None, list[MossError]]:
    heads: list[Head] = []
    errors: list[MossError] = []
    async with gate:
        for dev in devs:
            try:
                head = await read_head(repository, keys, sid, dev)
            except BlobNotFoundError:
                continue
            except (BlobCorruptError, BlobDeniedError, UnsupportedFormatError) as error:
                if isinstance(error, BlobCorruptError):
                    hint_at_repair(error)
                errors.append(error)
                continue
            if head is None:
                continue  # not wholly there yet
            if layout.session_id(keys.names, head.name) != sid:
                errors.append(
                    BlobCorruptError(f"the head {sid} says that it is session {head.name!r}")
                )
                continue
            heads.append(head)
        if not heads:
            return None, errors
        listing = await read_listing(repository, keys, sid)
    applied = joined(
        [
            *(head.applied for head in heads),
            *({head.dev: head.n} for head in heads),
            *({n.dev: n.number} for n in listing.names.values() if n.kind == "s"),
        ]
    )
    newest = max(heads, key=lambda head: head.ct)
    return (
        StoredSession(
            name=newest.name,
            session_id=sid,
            commits=sum(applied.values()),
            committed_ms=newest.ct,
            devices=len(heads),
            bytes=sum(listing.sizes.values()),
            model_id=next((head.model_id for head in heads if head.model_id is not None), None),
        ),
        errors,
    )
