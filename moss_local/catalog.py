"""Which sessions are on this device, read from their files: no store, no model, no key is asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from moss_local.standing import Trouble, standing_in
from moss_local.storage.connection import is_being_created
from moss_local.storage.place import Place
from moss_local.storage.rejections import count_rejected
from moss_local.storage.replica import SqliteReplica, read_seen
from moss_local.storage.schema import foreign_file
from moss_local.storage.state import State, read_state
from moss_local.types import SyncState
from moss_sync import MossError, NotFoundError, Seen, manifest
from moss_sync.checkpoint import Checkpoint
from moss_sync.stores.base import ETag


@dataclass(frozen=True, slots=True)
class LocalSession:
    """A session's file.

    Attributes:
        documents: How many there are.
        sync_state: As far as this device knows; whether the store answers is not asked.
        model_id: Of its vectors; None while it has none.
        device_id: Which device this copy writes as: 16 hex digits.
        bytes: Size on disk, write-ahead log included.
        checkpoint: As `session.checkpoint()`; None where it was never exchanged.
        deleted: It was deleted for everybody, as this device has learned, and not created again.
        set_aside: Changes made here that were not merged; see `session.quarantined`.
        rejected: Documents of others that do not count, see `SyncReport.rejected`; at most 100.
    """

    name: str
    documents: int
    sync_state: SyncState
    model_id: str | None
    device_id: str
    bytes: int
    path: Path
    checkpoint: str | None = None
    deleted: bool = False
    set_aside: int = 0
    rejected: int = 0


@dataclass(frozen=True, slots=True)
class Catalog:
    """A project's sessions on this device in order of name.

    Attributes:
        unreadable: One error per file that cannot be read; it stands in the way of no other.
        unreadable_paths: Those files, in the same order.
    """

    sessions: tuple[LocalSession, ...] = ()
    unreadable: tuple[MossError, ...] = ()
    unreadable_paths: tuple[Path, ...] = ()


def read_catalog(place: Place, trouble: Trouble | None = None) -> Catalog:
    """Return what the session files in a project's directory say of themselves.

    Args:
        trouble: What is known to stop the exchange of them all.
    """
    sessions: list[LocalSession] = []
    unreadable: dict[Path, MossError] = {}
    for path in place.files():
        if is_being_created(path):
            continue
        try:
            sessions.append(_read(place, path, trouble))
        except MossError as error:
            unreadable[path] = error
    in_order = tuple(sorted(sessions, key=lambda each: each.name))
    return Catalog(in_order, tuple(unreadable.values()), tuple(unreadable))


@dataclass(frozen=True, slots=True)
class Standing:
    """What a session's file tells of its exchanges.

    Attributes:
        unpushed: It holds changes that are not known to be committed.
        etag: Of the newest manifest that it has seen; None where not all of that is merged.
        seq: Of that manifest, merged or not; 0 where it has seen none.
    """

    unpushed: bool
    etag: ETag | None
    seq: int


def read_standings(
    place: Place, paths: Sequence[Path]
) -> tuple[dict[str, Standing], dict[Path, MossError]]:
    """Return how the sessions of these files stand, by name, and why which cannot be read.

    Left out is what is no session's file of the project (a copy under another name, one that is
    just being made) or is there no more.
    """
    found: dict[str, Standing] = {}
    unreadable: dict[Path, MossError] = {}
    for path in paths:
        try:
            if is_being_created(path):
                continue
            file = place.open_file(path)
            try:
                state = SqliteReplica(file).state()
            finally:
                file.close()
        except NotFoundError:
            continue
        except MossError as error:
            unreadable[path] = error
            continue
        if path != place.path(state.name):
            continue
        seen = state.seen
        merged = seen is not None and state.applied_seq >= seen.seq
        found[state.name] = Standing(
            unpushed=state.dirty > 0 or state.pending is not None,
            etag=ETag(seen.etag) if seen is not None and seen.etag and merged else None,
            seq=0 if seen is None else seen.seq,
        )
    return found, unreadable


def _read(place: Place, path: Path, trouble: Trouble | None) -> LocalSession:
    file = place.open_file(path)
    try:
        with file.reading() as conn:
            state = read_state(conn)
            set_aside: int = conn.execute("SELECT count(*) FROM quarantine").get
            rejected = count_rejected(conn)
            sync_state = standing_in(conn, trouble=trouble)
            seen = read_seen(conn, state.life)
    finally:
        file.close()
    if path != place.path(state.session):
        raise foreign_file(path, state.session)
    beside = (path, path.with_name(path.name + "-wal"))
    return LocalSession(
        name=state.session,
        documents=state.live,
        sync_state=sync_state,
        model_id=None if state.space is None else state.space.id,
        device_id=state.dev.hex(),
        bytes=sum(each.stat().st_size for each in beside if each.exists()),
        path=path,
        checkpoint=None if seen is None else str(Checkpoint.of(seen)),
        deleted=_is_deleted(state, seen) and not sync_state.pending,
        set_aside=set_aside,
        rejected=rejected,
    )


def _is_deleted(state: State, seen: Seen | None) -> bool:
    if seen is None or not state.gen or state.live:
        return False
    return manifest.decode(seen.plain, what="the remembered manifest").deleted
