"""Which sessions a repository holds, read from their manifests.

The store knows sessions by keyed hashes only, so their names come out of the sealed manifests: one
listing, then one read each. Nothing is ever written, and an empty store stays empty.
What holds: tests/moss_sync/test_directory.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from moss_sync import epochs, layout, log_directory, manifest, plan
from moss_sync.channel import PARALLEL_READS, inline_segment, manifest_identity
from moss_sync.errors import (
    BlobCorruptError,
    BlobDeniedError,
    BlobNotFoundError,
    HistoryError,
    InvalidArgumentError,
    MossError,
    NetworkError,
    PermissionDeniedError,
    RevokedKeyError,
    UnsupportedFormatError,
    hint_at_repair,
)
from moss_sync.keyring import Keys
from moss_sync.layout import session_id
from moss_sync.manifest import Manifest
from moss_sync.merge import newest
from moss_sync.repository import Repository
from moss_sync.seal import FIRST_EPOCH, epoch_of, unseal
from moss_sync.stored_session import StoredSession as StoredSession
from moss_sync.stores.base import Blob, ETag, MayBeReplicated
from moss_sync.stores.keys import is_key
from moss_sync.stores.listing import list_all

UNREADABLE = (
    BlobCorruptError,
    BlobDeniedError,
    HistoryError,
    InvalidArgumentError,
    RevokedKeyError,
    UnsupportedFormatError,
)
"""What one manifest may be found to be, and no other session is the worse for."""


@dataclass(frozen=True, slots=True)
class Directory:
    """A repository's sessions in order of name.

    Attributes:
        unreadable: One error per manifest that is damaged or of a newer version, and one for all
            names that are none of ours; the other sessions are none the worse for it.
    """

    sessions: tuple[StoredSession, ...] = ()
    unreadable: tuple[MossError, ...] = ()


@dataclass(frozen=True, slots=True)
class Survey:
    """What a store lists, beside what a device has.

    Attributes:
        unchanged: Names of sessions of which the store has the manifest that the device knows.
        elsewhere: Names of sessions that the device does not have, in order.
        unreadable: As in `Directory`, of those that the device does not have. Where the store has
            stopped answering, one of them says so, and `elsewhere` is not all.
    """

    unchanged: frozenset[str] = frozenset()
    elsewhere: tuple[str, ...] = ()
    unreadable: tuple[MossError, ...] = ()


Known = dict[str, tuple[ETag, StoredSession]]
"""By session id: the ETag of a manifest in a listing, and what was read of it after that."""


async def list_sessions(repository: Repository, known: Known | None = None) -> Directory:
    """Return what sessions there are: one request per thousand, and one for each of them.

    Args:
        known: What listings before have found, and this one adds to: of a manifest that has not
            changed since, nothing is read. A log has no such manifest, and is read in any case.
    Raises:
        UnauthorizedError: the key does not open the repository.
        NetworkError: the store could not be reached.
    """
    await _recall(repository)
    found = await manifest_ids(repository)
    if not found:
        return Directory()
    known = {} if known is None else known
    keys = await _keys_of(repository)
    if keys is None:
        return Directory()
    if keys.commit == "log":
        listed, errors = await log_directory.read_sessions(repository, keys, list(found))
        listed.sort(key=lambda session: session.name)
        return Directory(tuple(listed), tuple(errors))
    return await _read_changed(repository, keys, found, known)


def _strays(found: Mapping[str, ETag | None]) -> list[MossError]:
    """Return what to say of names that no manifest has: nothing of them is read."""
    strays = sorted(part for part in found if not layout.is_session_id(part))
    if not strays:
        return []
    return [
        BlobCorruptError(
            f"among the manifests: {len(strays)} that are none of ours, such as {strays[0]!a:.200}",
            hint="they stand in the way of nothing; remove them with the store's own tools",
        )
    ]


async def survey(
    repository: Repository, here: Mapping[str, ETag | None], known: Known | None = None
) -> Survey:
    """Return what has to be asked for: one request per thousand sessions of the store.

    Names stand in the manifests, so one more is read of each session that the device does not
    have. A log has no manifest that would tell of changes: there nothing is `unchanged`.
    A store that answers the listing and then no more ends only the reading of names.

    Args:
        here: By the name of each session that the device has, the ETag of the manifest that it
            knows and has merged; None where it has not.
        known: As for `list_sessions`.
    Raises:
        UnauthorizedError, NetworkError: as list_sessions.
    """
    await _recall(repository)
    found = await manifest_ids(repository)
    keys = await _keys_of(repository) if found else None
    if keys is None:
        return Survey()
    own = {session_id(keys.names, name): name for name in here}
    if keys.commit == "log":
        parts = [part for part in found if log_directory.session_of(part) not in own]
        listed, errors = await log_directory.read_sessions(repository, keys, parts)
        return Survey(frozenset(), tuple(sorted(each.name for each in listed)), tuple(errors))
    unchanged = frozenset(
        name for sid, name in own.items() if here[name] is not None and here[name] == found.get(sid)
    )
    others = {sid: etag for sid, etag in found.items() if sid not in own}
    known = {} if known is None else known
    read = await _read_changed(repository, keys, others, known, ends=True)
    return Survey(unchanged, tuple(each.name for each in read.sessions), read.unreadable)


async def _read_changed(
    repository: Repository,
    keys: Keys,
    found: Mapping[str, ETag | None],
    known: Known,
    *,
    ends: bool = False,
) -> Directory:
    """Read the manifests of these session ids, but for those that `known` has as they are.

    Args:
        ends: A store that does not answer ends the reading, and is one of the unreadable.
    """
    gate = asyncio.Semaphore(PARALLEL_READS)
    away = False

    async def read(sid: str) -> StoredSession | MossError | None:
        nonlocal away
        async with gate:
            if away:
                return None
            try:
                session = await _read(repository, keys, sid)
            except BlobNotFoundError:
                return None  # removed since it was listed
            except UNREADABLE as error:
                return error
            except (NetworkError, PermissionDeniedError) as error:
                if not ends:
                    raise
                told, away = away, True
                return None if told else error
        if (etag := found[sid]) is not None:
            known[sid] = (etag, session)
        return session

    named = {sid for sid in found if layout.is_session_id(sid)}
    unchanged = {
        sid: known[sid][1] for sid in named if sid in known and known[sid][0] == found[sid]
    }
    tasks = [asyncio.ensure_future(read(sid)) for sid in named - unchanged.keys()]
    try:
        results = await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
    read_now = [each for each in results if isinstance(each, StoredSession)]
    sessions = [each for each in (*unchanged.values(), *read_now) if not each.deleted]
    return Directory(
        tuple(sorted(sessions, key=lambda session: session.name)),
        (*(each for each in results if isinstance(each, MossError)), *_strays(found)),
    )


async def has_session(repository: Repository, name: str) -> bool:
    """Return whether the store holds a session of this name; sets nothing up in an empty store.

    Raises:
        UnauthorizedError, NetworkError: as list_sessions.
    """
    await _recall(repository)
    manifests = repository.layout.manifests
    if not await repository.store.keys(manifests, limit=1):
        return False
    keys = await _keys_of(repository)
    if keys is None:
        return False
    sid = session_id(keys.names, name)
    if keys.commit == "log":
        key = repository.layout.manifest(sid)
        listed = await repository.store.keys(manifests, start_after=key[:-1], limit=1)
        return bool(listed) and listed[0].key.startswith(f"{key}-")
    try:
        return not (await _read(repository, keys, sid)).deleted
    except BlobNotFoundError:
        return False
    except UNREADABLE:
        return True  # whoever asks goes on to read it, and is told


async def find_session(repository: Repository, name: str) -> StoredSession | None:
    """Return what the store tells of the session of this name; None if it was never pushed.

    One request, in a log one listing and one for each device. A deleted one is returned, and says
    so. What is told was not compared with what this device has seen: that is a pull's.

    Raises:
        UnauthorizedError, NetworkError: as list_sessions.
        BlobCorruptError, UnsupportedFormatError: it is there and cannot be read.
    """
    keys = await _recalled(repository)
    return None if keys is None else await _find(repository, keys, session_id(keys.names, name))


async def find_session_by_id(repository: Repository, sid: str) -> StoredSession | None:
    """As `find_session`, by the name under which the store knows the session."""
    keys = await _recalled(repository)
    return None if keys is None else await _find(repository, keys, sid)


async def _recalled(repository: Repository) -> Keys | None:
    await _recall(repository)
    return await repository.keys()


async def _find(repository: Repository, keys: Keys, sid: str) -> StoredSession | None:
    if keys.commit == "log":
        parts = list(await manifest_ids(repository, only=f"{sid}-"))
        listed, errors = await log_directory.read_sessions(repository, keys, parts)
        if not listed and errors:
            raise errors[0]
        return listed[0] if listed else None
    try:
        return await _read(repository, keys, sid)
    except BlobNotFoundError:
        return None


async def _recall(repository: Repository) -> None:
    """Open it where that needs no request: a store that is gone is then not taken for empty."""
    if await repository.is_known():
        await repository.keys()


async def _keys_of(repository: Repository) -> Keys | None:
    """Return the keys of a repository that holds sessions; never makes any.

    None where blobs travel one by one, and `fmt` is still on its way.
    """
    keys = await repository.keys()
    if keys is None and repository.wanted != "log":
        raise repository.keys_missing()
    return keys


async def manifest_ids(repository: Repository, *, only: str = "") -> dict[str, ETag | None]:
    """Return the names below `m/` that start with `only`; one request per thousand.

    What has such a name in a folder and is no blob (a link, a pipe, a folder) is among them:
    whoever reads it is told what it is.
    """
    prefix = repository.layout.manifests
    after = prefix + only if only else ""
    found: dict[str, ETag | None] = {
        each.key.removeprefix(prefix): each.etag or None
        for each in await list_all(repository.store, prefix, start_after=after, beginning=only)
    }
    if isinstance(repository.store, MayBeReplicated):
        for stray in await repository.store.strays(prefix, folders=True):
            if is_key(stray) and stray.startswith(prefix + only):
                found[stray.removeprefix(prefix)] = None
    return found


async def _read(repository: Repository, keys: Keys, sid: str) -> StoredSession:
    try:
        current, _ = await open_manifest(repository, keys, sid)
    except BlobCorruptError as error:
        hint_at_repair(error)
        raise
    epochs.check_counts(current, repository.opened.floor)
    return _described(current)


async def open_manifest(repository: Repository, keys: Keys, sid: str) -> tuple[Manifest, Blob]:
    """Return the manifest of a session id and the blob that it stands in.

    Raises:
        BlobNotFoundError: there is none.
        BlobCorruptError, UnsupportedFormatError: it cannot be read.
    """
    blob = await repository.store.get(repository.layout.manifest(sid))
    if not isinstance(blob, Blob):
        raise AssertionError("an unconditional get returned no blob")
    if len(blob.data) > manifest.MAX_MANIFEST_BYTES:
        raise BlobCorruptError(
            f"the manifest {sid} has {len(blob.data)} bytes, which none may have"
        )
    roots = await repository.roots_for(blob.data)
    identity = manifest_identity(keys, sid)
    plain = unseal(roots, identity, blob.data, max_plain=manifest.MAX_PLAIN_BYTES)
    current = manifest.decode(plain, what=f"the manifest {sid}")
    plan.check_place(current, repo_id=keys.repo_id, sid=sid, name=current.name)
    if session_id(keys.names, current.name) != sid:
        raise BlobCorruptError(f"the manifest {sid} says that it is session {current.name!r}")
    epochs.check_epoch(current, epoch_of(blob.data) or FIRST_EPOCH, None)
    return current, blob


def _described(current: Manifest) -> StoredSession:
    return StoredSession(
        name=current.name,
        session_id=current.sid,
        commits=current.seq,
        committed_ms=current.ct,
        devices=len(current.devs),
        bytes=sum(entry.bytes for entry in current.entries) + current.inline_bytes,
        model_id=None if current.space is None else current.space.id,
        documents=_documents(current),
        first_ms=current.tl[0][1] if current.tl else current.ct,
        model_version=None if current.space is None else current.space.fingerprint,
        deleted=current.deleted,
    )


def _documents(current: Manifest) -> int | None:
    """Return how many documents the session has, if nothing else need be read for it."""
    if not current.entries:
        try:
            segments = [inline_segment(current, item) for item in current.inline]
        except (BlobCorruptError, UnsupportedFormatError):
            return None  # whoever opens it is told
        records = newest(record for each in segments for record in each.records)
        return sum(not record.deleted for record in records.values())
    if len(current.entries) == 1 and not current.inline:
        return current.entries[0].docs  # an id stands in a segment once
    return None
