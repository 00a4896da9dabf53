"""A project on this device: its repository in the store, and its sessions as they are opened.

What `MossClient` promises happens here, behind an import of its own: the client can be made, and
the package imported, without loading SQLite, numpy or cryptography.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from moss_local.auto_sync import check_interval
from moss_local.catalog import Catalog, Standing, read_catalog, read_standings
from moss_local.embedding.base import Progress
from moss_local.embedding.models import resolve_model
from moss_local.errors import FileBusyError, FileCorruptError
from moss_local.exchange import Exchange
from moss_local.key_strength import weakness_of
from moss_local.model_choice import CUSTOM_ID, ModelChoice
from moss_local.querying import query_several
from moss_local.rounds import Round, check_round, go_round
from moss_local.runtime import runtime
from moss_local.session import SessionIndex
from moss_local.settings import Settings, check_copied
from moss_local.snapshots import snapshot_root
from moss_local.standing import trouble_of
from moss_local.storage import conversion, salvage
from moss_local.storage.connection import lost_its_file
from moss_local.storage.file import SessionFile
from moss_local.storage.log_replica import SqliteLogReplica
from moss_local.storage.paths import check_name, project_path
from moss_local.storage.place import Place, Secrets, find_place, read_key_file, rewrap
from moss_local.storage.project_cache import ProjectCache
from moss_local.storage.push_lock import push_lock
from moss_local.storage.schema import ForeignFileError
from moss_local.storage.state import read_state
from moss_local.storage.unused import remove_unused
from moss_local.transfer import verify
from moss_local.types import QueryOptions, Repaired, Rewritten, Salvage, SearchResult, Synced, Verb
from moss_sync import (
    BlobCorruptError,
    BlobDeniedError,
    InvalidArgumentError,
    KeyRotatedError,
    MossError,
    NetworkError,
    NotFoundError,
    PermissionDeniedError,
    RepairReport,
    SyncReport,
    UnsupportedFormatError,
)
from moss_sync.checkpoint import Checkpoint
from moss_sync.clock import SystemClock
from moss_sync.commit import Commit
from moss_sync.directory import (
    Directory,
    Known,
    find_session,
    find_session_by_id,
    has_session,
    list_sessions,
    survey,
)
from moss_sync.engine import SyncEngine
from moss_sync.log_engine import LogEngine
from moss_sync.modes import EitherEngine, Engine
from moss_sync.patience import Patience
from moss_sync.probe import ProbeVerdict
from moss_sync.repository import Repository
from moss_sync.revocation import revoke_older
from moss_sync.rotation import rotate
from moss_sync.seal import FIRST_EPOCH
from moss_sync.stored_session import StoredSession
from moss_sync.stores import BlobStore

log = logging.getLogger("moss_local")

FIRST_ANSWER_S = 15.0
"""Opening a session, and listing what the store has, wait no longer for a store that is silent. A
first answer takes up to five round trips (name, connection, two for TLS, request), and a bad mobile
link has round trips of three seconds."""

FILES_AT_ONCE = 256
"""Session files that are looked at in one go on another thread, which nobody can cancel."""


class Project:
    """The sessions of one project. Owns its store; safe from several loops and threads."""

    def __init__(
        self,
        settings: Settings,
        store: BlobStore,
        *,
        default_model: str,
        low_memory: bool = False,
    ) -> None:
        self._settings = settings
        self._store = store
        self._default_model = default_model
        self._low_memory = low_memory
        self._clock = SystemClock()
        self._directory = project_path(settings.data_dir, settings.project_id)
        self._repository = Repository(
            store,
            settings.project_id,
            settings.project_key,
            cache=ProjectCache(self._directory),
            clock=self._clock,
            run=runtime.blocking,
            commit=settings.commit,
        )
        self._secrets = Secrets(settings.project_key, settings.at_rest)
        self._place: Place | None = None
        self._sessions: set[SessionIndex] = set()
        self._own: set[SessionIndex] = set()
        self._listed: Known = {}
        self._lock = threading.Lock()
        # Programs that never close their client end, or forget it, without a connection left open.
        runtime.when_gone(self, store.close)

    async def session(
        self,
        name: str,
        model_id: str | None,
        *,
        pull: bool,
        create: bool,
        warm_up: bool,
        checkpoint: str | None = None,
        auto_sync: float | None = None,
        passing: bool = False,
    ) -> SessionIndex:
        """Open a session; see `MossClient.session`.

        Args:
            passing: It is this library's own, for a moment: nobody else is given it by its name.
        """
        check_name(name)
        held_to = None if checkpoint is None else Checkpoint.parse(checkpoint)
        interval_s = None if auto_sync is None else check_interval(auto_sync)
        default = resolve_model(self._default_model)
        wanted = None if model_id is None else resolve_model(model_id)
        model = ModelChoice(name, wanted, default, self._settings.cache_dir)
        patience = self._patience()
        outdated = await runtime.on_loop(self._check_key(patience, contact=pull or not create))
        place = await self.place()
        path = place.path(name)
        if not create and not path.exists() and not lost_its_file(path):
            await self._require_stored(name, patience)
        file = await runtime.acquiring(place.open, SessionFile.close, name)
        replica = SqliteLogReplica(file)
        # What runs in the background must not hold the project: a forgotten client is to end.
        repository, clock = self._repository, self._clock

        def engine_of(mode: Commit) -> Engine:
            if mode == "log" and held_to is not None:
                raise InvalidArgumentError(
                    f"session {name!r} commits by log: there are no checkpoints to hold it to",
                    hint="open it without one",
                )
            make = LogEngine if mode == "log" else partial(SyncEngine, checkpoint=held_to)
            return make(
                repository,
                replica,
                name,
                clock=clock,
                run=runtime.blocking,
                exclusive=lambda: push_lock(path),
                accepts=model.accepts,
            )

        engine = EitherEngine(repository, engine_of)
        session = SessionIndex(
            name=name,
            file=file,
            exchange=Exchange(
                name,
                file,
                replica,
                engine,
                self._clock,
                probe_further=repository.probe_further,
                interval_s=interval_s,
                trouble=None if outdated is None else trouble_of(outdated),
            ),
            model=model,
            low_memory=self._low_memory,
            snapshots=snapshot_root(self._settings.snapshot_dir, self._settings.project_id),
            closed=self._forget,
        )
        with self._lock:
            self._sessions.add(session)
            if passing:
                self._own.add(session)
        try:
            await session._open(
                pull=pull, warm_up=warm_up, strict=held_to is not None, patience=patience
            )
        except BaseException:
            await session.close()
            raise
        return session

    async def _check_key(self, patience: Patience, *, contact: bool) -> KeyRotatedError | None:
        """Check the key; return what is known to stop it from exchanging, though it opens files.

        Raises:
            UnauthorizedError: as Repository.check_key.
        """
        await self._repository.check_key(contact=contact, patience=patience)
        return await self._repository.rotation_seen()

    async def import_session(self, path: Path, name: str | None) -> SessionIndex:
        """Open a session and fill it from a file; see `MossClient.import_session`."""
        # Read whole before the session is opened, or a damaged file would leave an empty one.
        header = await runtime.blocking(verify, path)
        wanted = header.session if name is None else name
        session = await self.session(wanted, None, pull=True, create=True, warm_up=False)
        try:
            await session.import_from(path)
        except BaseException:
            await session.close()
            raise
        return session

    async def query_several(
        self,
        sessions: Sequence[SessionIndex | str],
        query: str,
        options: QueryOptions | None,
    ) -> SearchResult:
        """Search open sessions together; see `MossClient.query_multi`."""
        if isinstance(sessions, str) or not isinstance(sessions, Sequence):
            raise InvalidArgumentError(
                f"query_multi takes a list of sessions or names, not {type(sessions).__name__}"
            )
        opened = [self._open_one(session)._local for session in sessions]
        return await query_several(opened, query, options, now_ms=self._repository.time.now_ms())

    async def local_sessions(self) -> Catalog:
        """Return what sessions there are on this device."""
        outdated = await runtime.on_loop(self._repository.rotation_seen())
        trouble = None if outdated is None else trouble_of(outdated)
        return await runtime.blocking(read_catalog, await self.place(), trouble)

    async def stored_sessions(self) -> Directory:
        """Return what sessions there are in the store."""
        listing = partial(list_sessions, self._repository, self._listed)
        return await runtime.on_loop(self._patience().until_answered(listing))

    async def find(self, name: str) -> StoredSession | None:
        """Return what the store tells of a session, also of a deleted one; None if it has none."""
        return await runtime.on_loop(find_session(self._repository, name))

    async def find_by_id(self, session_id: str) -> StoredSession | None:
        """As `find`, by the name under which the store knows the session."""
        return await runtime.on_loop(find_session_by_id(self._repository, session_id))

    async def was_exchanged(self, name: str) -> bool:
        """Return whether this device has ever exchanged a session of this name with the store."""
        return await runtime.blocking(_was_exchanged, await self.place(), name)

    async def sync_sessions(
        self,
        names: Sequence[str] | None,
        verb: Verb,
        closed: Callable[[], bool],
        *,
        at_once: int,
        progress: Progress | None,
    ) -> list[Synced]:
        """Exchange many sessions; see `MossClient.sync_sessions`.

        Args:
            closed: Tells that the client was closed.
        """
        check_round(verb, at_once)
        for name in names or ():
            check_name(name)
        contact = names is not None or verb != "push"
        with suppress(NetworkError, PermissionDeniedError):
            await runtime.on_loop(self._repository.check_key(contact=contact))
        if names is None:
            planned = await self._every_session(verb)
        else:
            planned = Round(list(dict.fromkeys(names)))
        return await go_round(
            planned, verb, self._passing, closed, at_once=at_once, progress=progress
        )

    async def _every_session(self, verb: Verb) -> Round:
        place = await self.place()
        here: dict[str, Standing] = {}
        damaged: dict[Path, MossError] = {}
        files = await runtime.blocking(place.files)
        for start in range(0, len(files), FILES_AT_ONCE):
            some = files[start : start + FILES_AT_ONCE]
            found, unreadable = await runtime.blocking(read_standings, place, some)
            here |= found
            damaged |= unreadable
        if verb == "push":
            unpushed = sorted(name for name, standing in here.items() if standing.unpushed)
            return Round(unpushed, unreadable=list(damaged.values()), every=True)
        etags = {name: standing.etag for name, standing in here.items()}
        stored = await runtime.on_loop(survey(self._repository, etags, self._listed))
        idle = {
            name: here[name]
            for name in stored.unchanged
            if verb == "pull" or not here[name].unpushed
        }
        for name in stored.elsewhere:
            damaged.pop(place.path(name), None)  # known by its name, and told when it is opened
        return Round(
            sorted({*here, *stored.elsewhere}),
            idle,
            frozenset(stored.elsewhere),
            [*damaged.values(), *stored.unreadable],
            every=True,
        )

    async def _passing(self, name: str, *, create: bool) -> SessionIndex:
        """Open a session for work of this library's own; nobody else is given it by its name."""
        return await self.session(
            name, None, pull=False, create=create, warm_up=False, passing=True
        )

    async def take_back(self, name: str) -> None:
        """Delete the file of a session that was opened, and is closed, for nothing; if it is."""
        place = await self.place()
        if salvage.salvage_path(place, name).exists():
            return  # a repair that was cut off has yet to fill it
        path = place.path(name)
        await runtime.blocking(partial(remove_unused, path, key=place.key_of(path)))

    async def rotate_key(self, new_key: str | None) -> int:
        """Rotate the project's key; see `MossClient.rotate_key`."""
        if new_key is None:
            return await runtime.on_loop(rotate(self._repository, self._clock, None))
        if isinstance(new_key, str):  # else it is refused below
            check_copied(new_key)
        old, new = self._secrets, replace(self._secrets, project_key=new_key)
        mine = old.kind == "project"
        # Both keys open the files until it is known which one counts.
        if mine:
            await runtime.blocking(partial(rewrap, self._directory, old, new, keep_old=True))
        epoch = await runtime.on_loop(rotate(self._repository, self._clock, new_key))
        if mine:
            await runtime.blocking(rewrap, self._directory, new, new)
        self._secrets = new
        weakness = weakness_of(new_key, project_id=self._settings.project_id)
        if weakness is not None:
            log.warning("%s; let one be made: moss-local rotate-key", weakness)
        return epoch

    async def encrypt_at_rest(self) -> int:
        """Encrypt the files that are there; see `MossClient.encrypt_at_rest`."""
        self._require_all_closed()
        try:
            return await runtime.blocking(conversion.encrypt, self._directory, self._secrets)
        finally:
            self._place = None

    async def decrypt_at_rest(self) -> int:
        """Decrypt the files that are there; see `MossClient.decrypt_at_rest`."""
        self._require_all_closed()
        try:
            done = await runtime.blocking(conversion.decrypt, self._directory, self._secrets)
        finally:
            self._place = None
        self._secrets = replace(self._secrets, at_rest=None)
        return done

    async def change_at_rest_key(self, new: str | None, *, old: str | None) -> bool:
        """Let another key open the files; see `MossClient.change_at_rest_key`."""
        before, after = self._secrets, replace(self._secrets, at_rest=new or True)
        if old is not None:
            contents = await runtime.blocking(read_key_file, self._directory)
            apps = contents is not None and "app" in contents.kinds
            before = Secrets(old, at_rest=old if apps else True)
        changed = await runtime.blocking(rewrap, self._directory, before, after)
        if changed:
            self._secrets = after
        return changed

    async def check_key(self) -> int:
        """Ask the store whether the key opens it; return the newest key epoch."""
        await runtime.on_loop(self._repository.check_key(contact=True))
        if await runtime.on_loop(self._repository.keys()) is None:
            raise NotFoundError(
                f"the store {self._store.url} has no repository of this project yet",
                hint="check the store's URL; a repository is made by the first push",
            )
        return (await runtime.on_loop(self._repository.refresh())).roots.newest

    async def rewrite_sessions(self) -> list[Rewritten]:
        """Seal anew what stands under old keys; see `MossClient.rewrite_sessions`."""
        epoch = await self.check_key()
        stored = await self.stored_sessions()
        done: list[Rewritten] = []
        for each in stored.sessions:
            try:
                async with await self._passing(each.name, create=False) as session:
                    done.append(Rewritten(each.name, await session._rewrite()))
            except MossError as error:
                done.append(Rewritten(each.name, 0, error))
        unread = [Rewritten(str(error), 0, error) for error in stored.unreadable]
        if epoch > FIRST_EPOCH and not any(each.error for each in done):
            sealed = {each.session for each in done}
            try:
                await runtime.on_loop(
                    revoke_older(self._repository, self._clock, epoch, sealed=sealed)
                )
                unread = [replace(each, left_out=True) for each in unread]
            except (BlobCorruptError, UnsupportedFormatError, BlobDeniedError):
                if not unread:
                    raise
        return unread + done

    async def delete_session(self, name: str, *, local_only: bool) -> SyncReport:
        """Delete a session; see `MossClient.delete_session`."""
        place = await self.place()
        if local_only and not place.holds(name):
            raise NotFoundError(
                f"there is no session {name!r} on this device",
                hint="list what there is with: moss-local sessions",
            )
        report = SyncReport()
        if not local_only:
            async with await self._passing(name, create=False) as session:
                report = await session._delete_for_everybody()
        with self._lock:
            mine = [known for known in self._sessions if known.name == name]
        for known in mine:
            await asyncio.wrap_future(known.begin_to_close(0.0))
        await runtime.blocking(place.remove, name)
        return report

    async def repair_sessions(self, *, force: bool, drop_unknown: bool) -> list[Repaired]:
        """Repair what is on this device; see `MossClient.repair_sessions`."""
        catalog = await self.local_sessions()
        names = [each.name for each in catalog.sessions]
        errors = dict(zip(catalog.unreadable_paths, catalog.unreadable, strict=True))
        if errors:
            # A damaged file may not tell whose it is; of what is stored the names are known.
            place = await self.place()
            with suppress(MossError):
                stored = {each.name for each in (await self.stored_sessions()).sessions}
                names += [name for name in sorted(stored) if errors.pop(place.path(name), None)]
        for error in errors.values():
            if not isinstance(error, FileCorruptError) or isinstance(error, ForeignFileError):
                continue
            error.hint = (
                "the file does not tell its session any more: name it, moss-local repair SESSION"
            )
        done = [Repaired(str(error), RepairReport(), error) for error in errors.values()]
        if not names:
            # A device without a session may still be the one that remembers the project's keys.
            with suppress(NotFoundError):
                mended = await runtime.on_loop(self._repository.mend(drop_unknown=drop_unknown))
                if mended.restored:
                    report = RepairReport(keys_restored=True, aside=mended.aside)
                    done.append(Repaired("the project", report))
        return done + [
            await self.repair_session(name, force=force, drop_unknown=drop_unknown)
            for name in names
        ]

    async def repair_session(self, name: str, *, force: bool, drop_unknown: bool) -> Repaired:
        """Repair a session, its file here first; see `MossClient.repair_session`."""
        salvaged = None
        try:
            salvaged = await self._mend_file(name)
            async with await self._passing(name, create=False) as session:
                report = await session.repair(force=force, drop_unknown=drop_unknown)
                return Repaired(name, report, salvage=salvaged)
        except NotFoundError as error:
            # Nothing of the project was ever pushed: there is no store to repair.
            return Repaired(name, RepairReport(), None if salvaged else error, salvaged)
        except MossError as error:
            return Repaired(name, RepairReport(), error, salvaged)

    async def _mend_file(self, name: str) -> Salvage | None:
        """Put a damaged file in order, or end that where it was cut off; None if it is whole."""
        place = await self.place()
        kept = salvage.salvage_path(place, name)
        trouble = await runtime.blocking(salvage.examine, place, name)
        if not trouble and not kept.exists():
            return None
        stored = None
        if await runtime.on_loop(has_session(self._repository, name)):
            stored = await self.find(name)
        ours: list[bytes] | None = None
        keys = await runtime.on_loop(self._repository.keys())
        by_log = self._repository.wanted == "log" if keys is None else keys.commit == "log"
        if not by_log:  # where the repository follows from the key, whatever the store holds
            ours = [] if keys is None else [keys.repo_id]
        if trouble:
            lost = stored is None or stored.deleted
            found = await runtime.blocking(
                partial(
                    salvage.salvage,
                    place,
                    name,
                    all_rows=lost,
                    stored_seq=None if stored is None or by_log else stored.commits,
                    repositories=ours,
                )
            )
        else:
            found = await runtime.blocking(salvage.kept_of, place, name)
            salvage.check_repository(name, found.repo_id, ours)
        model = CUSTOM_ID if found.own_vectors else found.model_id
        opened = await self.session(
            name, model, pull=True, create=True, warm_up=False, passing=True
        )
        async with opened as session:
            edits = await runtime.blocking(salvage.kept_edits, place, name)
            written, set_aside = await session._writer.again_salvaged(edits)
        await runtime.blocking(salvage.forget_kept, place, name)
        return Salvage(
            tuple(trouble), written, set_aside, found.unreadable, found.exact, found.aside
        )

    async def probed(self) -> ProbeVerdict | None:
        """Return what this device knows of whether the store compares and swaps; asks no store."""
        return await runtime.on_loop(self._repository.verdict())

    async def close_sessions(self, seconds: float) -> None:
        """Close every open session, all within the same time."""
        with self._lock:
            sessions = list(self._sessions)
        closing = [asyncio.wrap_future(session.begin_to_close(seconds)) for session in sessions]
        for outcome in await asyncio.gather(*closing, return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise outcome

    async def place(self) -> Place:
        """Return where the files lie; asks the disk once, and again after a change."""
        place = self._place
        if place is None:
            place = self._place = await runtime.blocking(find_place, self._directory, self._secrets)
        return place

    def _require_all_closed(self) -> None:
        with self._lock:
            names = sorted(each.name for each in self._sessions)
        if names:
            raise FileBusyError(
                f"session {names[0]!r} is open",
                hint="close the sessions first; those of other processes too",
            )

    def _patience(self) -> Patience:
        return Patience(FIRST_ANSWER_S, store=self._store.url)

    async def _require_stored(self, name: str, patience: Patience) -> None:
        found = None
        asked = partial(has_session, self._repository, name)
        if await runtime.on_loop(patience.until_answered(asked)):
            found = await self.find(name)
        if found is None or found.deleted:
            raise NotFoundError(
                f"there is no session {name!r}, here or in the store",
                hint="list what there is with: moss-local sessions",
            )

    def _open_one(self, session: SessionIndex | str) -> SessionIndex:
        if isinstance(session, str):
            with self._lock:
                named = [
                    known
                    for known in self._sessions - self._own
                    if known.name == session and not known._closed
                ]
            if not named:
                raise NotFoundError(
                    f"session {session!r} is not open",
                    hint=f"open it first: await client.session({session!r:.60})",
                )
            session = named[0]
        if not isinstance(session, SessionIndex):
            raise InvalidArgumentError(
                f"query_multi takes sessions or their names, not {type(session).__name__}"
            )
        session._check_open()
        return session

    def _forget(self, session: SessionIndex) -> None:
        with self._lock:
            self._sessions.discard(session)
            self._own.discard(session)


def _was_exchanged(place: Place, name: str) -> bool:
    path = place.path(name)
    if not path.exists():
        return False
    file = place.open_file(path)
    try:
        with file.reading() as conn:
            return read_state(conn).exchanged_ms is not None
    finally:
        file.close()
