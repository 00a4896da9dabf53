"""One project in one store: first contact, keys, the probe's verdict.

Opening works offline: a project that was opened here before is unlocked from what was cached, so
a wrong key is refused with or without a network. Contact with the store happens on first need,
once, and is shared by all sessions of a client.

First contact with an empty store, with what a crash leaves behind:
  1 GET fmt, and list the prefix: nothing there.
  2 probe the store           crash: a few unnamed blobs under _probe/, which nobody reads.
  3 create fmt if absent      lost answer or lost race: read it back; whoever won, its keys count.
  4 publish the verdict       crash before: the next writer probes again.
Nothing of the user's is written before 3, and nothing at all where the probe fails.

A repository that commits by log needs no compare-and-swap: there is no probe, and its `fmt` is
made of the key alone, so that all who create it at once write the same bytes.

The cached `fmt` is read again when it may be too old: a blob is sealed under an epoch that it does
not have, the key given does not open it, or a session is about to be created. What is read then
must be the same repository, no older than the cached one, with the same keys of the same epochs.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from typing import Any, Protocol
from weakref import WeakSet

from moss_sync import key_check, keyring
from moss_sync.clock import OFFSET_SAMPLES, Clock, SessionClock, StoreClock
from moss_sync.commit import MODES, Commit
from moss_sync.derivation import derived
from moss_sync.errors import (
    BlobCorruptError,
    BlobMissingError,
    BlobNotFoundError,
    InvalidArgumentError,
    KeyRotatedError,
    NetworkError,
    NotFoundError,
    OutcomeUnknownError,
    PermissionDeniedError,
    StoreBusyError,
    StoreChangedError,
    StoreLacksCasError,
    UnauthorizedError,
    UnsupportedFormatError,
    other_store_hint,
    repair_command,
)
from moss_sync.features import UPGRADE, check_writable
from moss_sync.key_check import KeyCheck, KnownKeys
from moss_sync.keyring import Format, KdfParams, Keys
from moss_sync.layout import Layout, store_name
from moss_sync.packing import as_map, as_uint, pack, unpack
from moss_sync.patience import Patience
from moss_sync.probe import ProbeReport, ProbeVerdict
from moss_sync.seal import RootKeys, epoch_of
from moss_sync.stores.base import Blob, BlobStore, ETag, MayBeAway, MayBeReplicated, Swapped
from moss_sync.verdict import StoreVerdict

log = logging.getLogger("moss_sync")

Runner = Callable[..., Awaitable[Any]]
"""Runs a blocking function and returns what it returns: in a thread, or at once in a simulation."""

Wanted = Callable[[bytes], Awaitable[bytes]]
"""Returns what must stand in the place of what stands for `fmt`: the same, if it may stay."""

MAX_REMEMBERED_BYTES = 4096
CHECKSUM_BYTES = 16
RESTORE_ATTEMPTS = 8


@dataclass(frozen=True, slots=True)
class Mended:
    """What `Repository.mend` has done.

    Attributes:
        restored: The store lacked `fmt`, or had one that is damaged or of before a rotation.
        aside: The keys under which what was replaced is kept.
    """

    restored: bool = False
    aside: tuple[str, ...] = ()


class RepositoryCache(Protocol):
    """Where a device remembers repositories between processes. Blocking; may lose everything."""

    def load(self, name: str) -> bytes | None:
        """Return what was saved under `name`, or None."""
        ...

    def save(self, name: str, data: bytes) -> None:
        """Keep `data`, atomically and durably."""
        ...


_repositories: WeakSet[Repository] = WeakSet()


def _after_fork() -> None:
    """In a forked child: whoever held a lock in the parent will not give it back here."""
    for repository in _repositories:
        repository._lock = asyncio.Lock()
        repository._probing = asyncio.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class Repository:
    """A project's namespace in a store, opened with its key.

    Safe for concurrent tasks of one event loop. `store` is used for everything and owned by
    whoever made it.
    """

    def __init__(
        self,
        store: BlobStore,
        project_id: str,
        project_key: str,
        *,
        cache: RepositoryCache,
        clock: Clock,
        run: Runner,
        commit: Commit | None = "cas",
    ) -> None:
        """Make a repository object; nothing is asked or written yet.

        Args:
            commit: What the repository must be, and becomes if there is none; None takes the one
                that is there, and makes one that compares and swaps.
        """
        self.store = store
        self.time = StoreClock(clock)
        self.layout = Layout.of(project_id)
        self._project_id = project_id
        self._project_key = project_key
        self._cache = cache
        self._clock = clock
        self._run = run
        self._commit = commit
        self._kdf: KdfParams | None = None
        self._former = False  # the key in use is one of before, as this device knows
        self._refused: int | None = None  # as _refused_epoch; None where that was not read yet
        self._keys: Keys | None = None
        self._confirmed = False
        self._seen_absent = False
        self._just_absent = False
        self._away: NetworkError | None = None
        self._made_here = False
        self._verdict = StoreVerdict(
            store,
            clock,
            prefix=self.layout.prefix,
            key=self.layout.probe,
            time=self.time,
            load=lambda: self._load(self._cached("probe")),
            save=lambda data: self._save(self._cached("probe"), data),
            keys_for=self._keys_for,
        )
        self._lock = asyncio.Lock()
        self._probing = asyncio.Lock()
        _repositories.add(self)

    @property
    def wanted(self) -> Commit | None:
        """What the repository must be; None takes what is there."""
        return self._commit

    @property
    def made_here(self) -> bool:
        """Whether this object has set the repository up: then it holds no session yet.

        If another device makes one meanwhile, creating the same one here meets a conflict.
        """
        return self._made_here

    def __repr__(self) -> str:
        return f"<Repository {self.store.url} prefix={self.layout.prefix}>"

    async def check_key(self, *, contact: bool, patience: Patience | None = None) -> None:
        """Verify the project key against what this device knows, without the network where it can.

        The first open of a project remembers a check value; every later one is held to it. A key
        that no repository has confirmed yet may have been mistyped: it gives way to one that
        opens the store's.

        Args:
            contact: At the very first open, ask the store before anything is remembered.
            patience: Of a caller who goes on without the store: past it, it counts as away.
        Raises:
            UnauthorizedError: another key opened this project here before, or the key does not
                open the store's repository. Nothing was written. Not of a key that opened it here
                and was rotated since: what is on this device stays open to it.
        """
        spend = None if patience is None else patience.clocked()
        async with self._lock:
            if spend is not None and self._keys is None and not self._seen_absent:
                spend()  # whoever held the lock has asked in vain, for as long as this has waited
            known = await self._known_keys()
            if known is None:
                if not (contact and await self._is_confirmed_by_store(patience)):
                    await self._save_check(self._fresh_kdf(), confirmed=False)
                return
            if await self._fits(known.current):
                self._kdf = known.current.kdf
                return
            if await self._is_former(known):
                return
            # A confirmed key gives way only to one that the same repository was rotated to.
            # Also where what is remembered of the repository is damaged: then the store is asked.
            has_fmt = await self._run(self._cache.load, self._cached("fmt")) is not None
            if known.confirmed and not has_fmt:
                raise keyring.wrong_key()
            if not await self._is_confirmed_by_store(patience):
                raise keyring.wrong_key(newest=await self._newest_known())
            await self._save_check(self._kdf or known.current.kdf, confirmed=True)

    async def rotation_seen(self) -> KeyRotatedError | None:
        """Return why nothing is exchanged with the key in use, as far as this device knows.

        None where nothing is known against it. Asks no store and derives no key.
        """
        newest = await self._newest_known()
        refused = await self._refused_epoch()
        if refused > newest or self._former:
            return keyring.key_rotated(newest=max(refused, newest))
        return None

    @property
    def opened(self) -> Keys:
        """The keys as they are known now, once `keys` or `attach` has given any."""
        if self._keys is None:
            raise RuntimeError("the repository was never opened")
        return self._keys

    @property
    def roots(self) -> RootKeys:
        """The root keys as they are known now; what is written is sealed under the newest."""
        return self.opened.roots

    async def roots_for(self, sealed: bytes) -> RootKeys:
        """Return root keys to open `sealed` with; `fmt` is read again if its epoch is a newer one.

        Raises:
            UnauthorizedError: the key was rotated, and this device has the old one.
            StoreChangedError, NetworkError: as refresh.
        """
        epoch = epoch_of(sealed)
        if epoch is not None and epoch > self.roots.newest:
            async with self._lock:
                if epoch > self.roots.newest:
                    await self._reread()
        return self.roots

    async def refresh(self) -> Keys:
        """Read `fmt` again and return the keys that it has now.

        Raises:
            UnauthorizedError: the key was rotated, and this device has the old one.
            StoreChangedError: the store's repository is gone, another one, or of before a rotation
                that this device knows of.
            NetworkError: the store could not be reached.
        """
        await self.attach()
        async with self._lock:
            return await self._reread()

    @property
    def project_key(self) -> str:
        """The key that the project is opened with; a rotation changes it."""
        return self._project_key

    async def read_fmt(self) -> tuple[Format, ETag]:
        """Return the store's `fmt` as it is now, not opened.

        Raises:
            BlobNotFoundError: there is none.
            BlobCorruptError, UnsupportedFormatError: as keyring.decode.
        """
        blob = await self._read(self.layout.fmt)
        try:
            return keyring.decode(blob.data), blob.etag
        except BlobCorruptError as error:
            raise BlobCorruptError(
                str(error), hint=f"on a device that has used this store before: {repair_command()}"
            ) from error

    async def _read(self, key: str) -> Blob:
        blob = await self.store.get(key)
        if not isinstance(blob, Blob):
            raise AssertionError("an unconditional get returned no blob")
        self.time.observe(blob.time_ms)
        return blob

    async def unlocked(self, fmt: Format, key: str | None = None) -> Keys:
        """Return what a `fmt` unlocks to with `key`, by default the project key; remember nothing.

        Raises:
            UnauthorizedError: the key does not open it.
        """
        keyring.check_cost(fmt, self._project_key if key is None else key)
        return keyring.unlock(fmt, await self.kek(fmt.kdf, key))

    async def kek(self, kdf: KdfParams, key: str | None = None) -> bytes:
        """Return the key that wraps keys, derived from `key` or else from the project key."""
        kek: bytes = await self._run(derived, self._project_key if key is None else key, kdf)
        return kek

    async def take_over(self, raw: bytes, project_key: str) -> Keys:
        """Go on with the `fmt` that the store holds and with the key that opens it.

        Raises:
            UnauthorizedError, StoreChangedError: as refresh; nothing is changed then.
        """
        async with self._lock:
            before, self._project_key = self._project_key, project_key
            try:
                # Meanwhile others go on with the keys as they were.
                return await self._renew(raw, again=True)
            except BaseException:
                self._project_key = before
                raise

    async def mend(self, *, drop_unknown: bool = False) -> Mended:
        """Put `fmt` back as this device remembers it, if the store lacks it or has a damaged one.

        So it does with one of before a rotation. For a bucket that was emptied, restored or
        damaged, and to be called on the user's word only: a store that is merely the wrong one
        would get a repository that is not its own. Where nothing is wrong it is one request.

        Args:
            drop_unknown: Also replace one that the key in use does not open, as after a rotation;
                and leave out of one that it opens what this version does not know.
        Raises:
            NotFoundError: this device remembers nothing of this store.
            StoreChangedError: the store holds another repository; it is left alone.
            UnauthorizedError: the key does not open what is remembered, or what is there by now.
            UnsupportedFormatError: a later version has changed it.
            StoreLacksCasError: the store must not be used.
            NetworkError: the store could not be reached; repeating the call is safe.
        """
        async with self._lock:
            cached = await self._cached_fmt()
            if cached is None or not drop_unknown:
                known = await self._known()
                cached = await self._cached_fmt()
                if known is None or cached is None:
                    raise self._never_known()
            if drop_unknown:
                cached = await self._without_unknown(cached)
                self._keys = await self._unlock(cached)
            if isinstance(self.store, MayBeAway):
                self.store.must_exist = False  # the user says that it is empty, not away
            wanted = partial(self._wanted, cached=cached, drop_unknown=drop_unknown)
            try:
                found = await self._fmt_there()
                if found is not None and await wanted(found.data) == found.data:
                    await self._renew(found.data)
                    mended = Mended()
                else:
                    mended = await self._restore(cached, wanted)
                if drop_unknown:
                    await self._note_refused(0)
                return mended
            finally:
                self._expect()

    async def _wanted(self, raw: bytes, *, cached: bytes, drop_unknown: bool) -> bytes:
        """Return what must stand where `raw` stands for `fmt`; `raw` itself, if it may stay."""
        if not drop_unknown:
            return cached if await self._must_go(raw, cached) else raw
        try:
            kept = await self._without_unknown(raw)
        except (BlobCorruptError, UnauthorizedError, UnsupportedFormatError):
            return cached
        found, before = keyring.decode(kept), keyring.decode(cached)
        return cached if found.repo_id == before.repo_id and found.age < before.age else kept

    async def _without_unknown(self, raw: bytes) -> bytes:
        """Return a `fmt` without what this version does not know.

        Raises:
            UnauthorizedError: nobody who has the key in use has made it.
            BlobCorruptError: somebody who has it has exchanged keys that never change.
        """
        fmt = keyring.without_unknown(raw)
        keyring.check_cost(fmt, self._project_key)
        kek = await self.kek(fmt.kdf)
        if not keyring.is_checked(raw, kek):
            raise keyring.wrong_key(newest=fmt.newest)
        if fmt.raw != raw:
            fmt = keyring.rechecked(fmt, kek, nonce=self._clock.token(keyring.NONCE_BYTES))
        keys = keyring.unlock(fmt, kek)
        if self._keys is not None and keys.repo_id == self._keys.repo_id:
            keyring.check_continues(keys, self._keys)
        return fmt.raw

    async def set_aside(self, kind: str, data: bytes, *, sid: str | None) -> str:
        """Keep a copy of a damaged blob that is about to be replaced; return its key.

        Args:
            sid: Of the session that it belongs to; None of what is the whole project's.
        """
        key = self.layout.aside(kind, data, sid)
        self.time.observe(await self.store.put(key, data))
        return key

    async def _fmt_there(self) -> Blob | None:
        try:
            return await self._read(self.layout.fmt)
        except BlobNotFoundError:
            return None

    async def _must_go(self, raw: bytes, cached: bytes) -> bool:
        """Return whether what stands for `fmt` is damaged, made up, or of before a rotation.

        What a later version has written, or another device after a rotation, has either a check
        value that this project's key makes, or an epoch that is new here.
        """
        before = keyring.decode(cached)
        try:
            found = keyring.decode(raw)
        except BlobCorruptError:
            return True
        except UnsupportedFormatError:
            if keyring.body(raw) == keyring.body(cached):
                return True  # what is remembered, under the number of a later version
            newest = keyring.newest_of(raw)
        else:
            if found.repo_id != before.repo_id or found.age < before.age:
                return found.repo_id == before.repo_id
            newest = found.newest
        if newest is None or newest > before.newest:
            return False
        return not keyring.is_checked(raw, await self.kek(before.kdf))

    async def _restore(self, cached: bytes, wanted: Wanted) -> Mended:
        keys = await self._unlock(cached)
        check_writable(keys, None)
        if keys.commit == "log":
            return await self._put_back_log(cached)
        verdict = await self._verdict.find()
        mended = await self._put_back(cached, wanted)
        await self._publish(verdict)
        return mended

    def _never_known(self) -> NotFoundError:
        return NotFoundError(
            f"this device remembers no keys of the store {self.store.url}",
            hint=f"on a device that has used this store before: {repair_command()}",
        )

    async def _put_back_log(self, cached: bytes) -> Mended:
        found = await self._fmt_there()
        aside = () if found is None else (await self.set_aside("fmt", found.data, sid=None),)
        await self.store.put(self.layout.fmt, cached)
        self._keys = await self._accept(cached)
        return Mended(True, aside)

    async def _put_back(self, cached: bytes, wanted: Wanted) -> Mended:
        aside: list[str] = []
        etag: ETag | None = None
        following = cached
        for attempt in range(RESTORE_ATTEMPTS):
            answer: object = None
            with contextlib.suppress(OutcomeUnknownError, StoreBusyError):  # read back below
                answer = await self.store.compare_and_swap(self.layout.fmt, following, etag=etag)
            if isinstance(answer, Swapped):
                self._keys = await self._accept(following)
                return Mended(True, tuple(aside))
            found = await self._fmt_there()
            if found is None:
                etag, following = None, cached
                await self._clock.sleep(self._clock.uniform(0.5, 1.0) * 2.0**attempt / 10)
            elif found.data != following and (better := await wanted(found.data)) != found.data:
                aside.append(await self.set_aside("fmt", found.data, sid=None))
                etag, following = found.etag, better
            else:
                # These very bytes, or what another device has restored or rotated to meanwhile.
                self._keys = await self._renew(found.data)
                return Mended(found.data == following and answer is None, tuple(aside))
        raise OutcomeUnknownError(f"it is not known whether {self.store.url} was restored")

    async def keys(self) -> Keys | None:
        """Return the keys, reading `fmt` from this device's cache or from the store.

        None where the store holds no repository of this project yet: nothing to read.

        Raises:
            UnauthorizedError: the key does not open the repository.
            NetworkError: the store could not be reached.
        """
        async with self._contact():
            return await self._known()

    async def mode(self) -> Commit:
        """Return how the repository commits, or would if it were made now.

        Raises:
            As keys, of which the next call does not ask a second time for what is not there.
        """
        async with self._contact():
            keys = await self._known()
            self._just_absent = keys is None
        if keys is None:
            return self._commit or "cas"
        return "log" if keys.commit == "log" else "cas"

    async def is_known(self) -> bool:
        """Return whether this device has opened this store's repository before; asks no store."""
        return await self._cached_fmt() is not None

    async def attach(self) -> Keys:
        """Return the keys; a store without a repository is probed and gets one.

        Raises:
            UnauthorizedError: the key does not open the repository.
            StoreLacksCasError: the store must not be used.
            StoreChangedError: the store's repository is not the one that this device knows.
            NetworkError: the store could not be reached.
        """
        async with self._contact():
            # Seen to be absent a moment ago: creating it below finds out if that has changed.
            known = None
            if not self._seen_absent or await self._holds_anything():
                known = await self._known()
            if known is None:
                known = self._keys = await self._create()
                self._expect()
            return known

    @contextlib.asynccontextmanager
    async def _contact(self) -> AsyncIterator[None]:
        """Hold the lock to open the repository.

        Whoever waited while the store was asked in vain is told the same and does not ask again:
        one after the other, the sessions of a new device would each wait for a silent store.
        """
        known_of = self._away
        async with self._lock:
            away = self._away
            if away is not None and away is not known_of and self._keys is None:
                raise NetworkError(str(away), hint=away.hint)
            try:
                yield
            except NetworkError as error:
                if type(error) is NetworkError:
                    # Another one: that has a traceback, which holds whatever has failed.
                    self._away = NetworkError(str(error), hint=error.hint)
                raise

    async def confirm(self) -> None:
        """Make sure that the store still holds the repository that this device knows.

        Called before anything is created from a cached `fmt`: a bucket that was emptied and set
        up again by another device would otherwise be written under two different keys.
        """
        await self.attach()
        async with self._lock:
            if not self._confirmed:
                await self._reread()

    async def tell_time(self) -> None:
        """Ask the store for its time, unless an answer has told it already.

        For a commit that nothing else bounds: the time of a session never falls, so one commit by a
        clock that is a year ahead would spoil it for all.
        """
        if not self.time.heard:
            with suppress(BlobNotFoundError):
                await self._read(self.layout.fmt)

    async def check_time(self, time: SessionClock) -> None:
        """Make sure that something may be committed by a session's clock.

        One answer may be wrong, and never come again: where they contradict this device's clock,
        the store is asked anew, and only what it says now counts.

        Raises:
            ClockError: they still contradict it.
        """
        if time.is_doubtful:
            self.time.forget()
            for _ in range(OFFSET_SAMPLES):
                await self._ask_time()
                if not time.is_doubtful:
                    return
        time.check()

    async def _ask_time(self) -> None:
        """Have the store say its time; one that says it of writes only gets one, and loses it."""
        with suppress(BlobNotFoundError):
            blob = await self.store.get(self.layout.fmt)
            if isinstance(blob, Blob) and blob.time_ms is not None:
                self.time.observe(blob.time_ms)
                return
        key = f"{self.layout.prefix}_probe/{self._clock.token(10).hex()}-clock"
        self.time.observe(await self.store.put(key, self._clock.token(16)))
        await self.store.delete(key)

    async def ready_to_write(self) -> None:
        """Make sure that the store was probed, by this device or by one before it.

        Raises:
            StoreLacksCasError: it cannot compare and swap; nothing was written.
            UnsupportedFormatError: the repository may only be read by this version.
        """
        keys = await self.attach()
        check_writable(keys, None)
        if keys.commit == "log":
            return
        async with self._lock:
            await self._verdict.require(self.opened)

    async def renew_verdict(self) -> None:
        """Seal the verdict on the store under the newest key.

        Raises:
            As ready_to_write.
        """
        await self.ready_to_write()
        async with self._lock:
            await self._verdict.renew(self.opened)

    async def verdict(self) -> ProbeVerdict | None:
        """Return what this device knows of whether the store compares and swaps; asks no store."""
        return await self._verdict.remembered()

    async def probe_further(self) -> bool:
        """Run one round of the probe's long form, if it has not passed; return whether it was.

        For after a push, in the background: it needs no attention, and whoever comes next goes on
        where this one was cut off.

        Raises:
            StoreLacksCasError: the store has failed; nobody writes to it any more.
            NetworkError, PermissionDeniedError: the store could not be asked.
        """
        if self._keys is None or self._keys.commit == "log" or self._probing.locked():
            return False
        async with self._probing:
            report = await self._verdict.round()
            if report is None:
                return False
            async with self._lock:
                await self._verdict.count(report, self.opened)
            return True

    async def publish_probe(self, report: ProbeReport) -> None:
        """Tell every device what a probe has found that somebody asked for; it overrules any other.

        Nothing is told where the store has no repository, or could not be asked to the end.
        """
        keys = await self.keys()
        if keys is None or keys.commit == "log":
            return
        check_writable(keys, None)
        verdict = report.verdict
        if isinstance(report.error, StoreLacksCasError):
            verdict = ProbeVerdict(failed=report.error.check)
        async with self._lock:
            if verdict is not None:
                await self._verdict.overrule(verdict, self.opened)

    async def _known(self) -> Keys | None:
        just_absent, self._just_absent = self._just_absent, False
        if self._keys is None and just_absent:
            return None
        if self._keys is None:
            cached = await self._cached_fmt()
            if cached is None:
                self._keys = await self._found()
            else:
                try:
                    self._keys = await self._unlock(cached)
                except UnauthorizedError as refusal:
                    # The key may be the one that another device has rotated to since.
                    await self._reread(refusal)
            if self._keys is not None:
                self._expect()
        if self._keys is not None and await self._refused_epoch() > self._keys.roots.newest:
            # Nothing is read or written under keys that were seen to be of before a rotation. If
            # that was a lie of the store, the store shows it by taking it back.
            await self._reread()
            await self._note_refused(0)
        return self._keys

    async def _reread(self, refusal: UnauthorizedError | None = None) -> Keys:
        """Read `fmt` once more, hold it to what is known, and remember it.

        Args:
            refusal: Of what is remembered; it stays where the store has nothing else.
        """
        try:
            found, _ = await self.read_fmt()
        except BlobNotFoundError:
            if refusal is not None:
                raise refusal from None
            raise StoreChangedError(
                f"the store {self.store.url} holds no repository any more",
                hint="name the store that this project used before (store=, MOSS_STORE); if that "
                f"was emptied: {repair_command()}",
            ) from None
        return await self._renew(found.raw)

    async def _renew(self, raw: bytes, *, again: bool = False) -> Keys:
        cached = await self._cached_fmt()
        if cached == raw and self._keys is not None and not again:
            self._confirmed = True
            return self._keys
        fmt = keyring.decode(raw)
        if cached is not None:
            before = keyring.decode(cached)
            if fmt.repo_id != before.repo_id:
                raise self._changed("holds another repository")
            if fmt.commit != before.commit:
                raise self._changed(f"says that this project commits by {fmt.commit!a:.80}")
            if fmt.age < before.age:
                raise StoreChangedError(
                    f"the store {self.store.url} holds the keys of before a rotation: epoch "
                    f"{fmt.newest} and the floor {fmt.floor}, after {before.newest} and "
                    f"{before.floor}; it was restored from a backup",
                    hint=f"put back what this device knows: {repair_command()}",
                )
        keys = await self._unlock(raw)
        if self._keys is not None:
            try:
                keyring.check_continues(keys, self._keys)
            except BlobCorruptError as error:
                raise self._changed(f"holds what this project never had: {error}") from error
        self._keys = await self._accept(raw)
        return self._keys

    def _expect(self) -> None:
        """From here on a store that is not there is away (an unmounted share), not empty."""
        if isinstance(self.store, MayBeAway):
            self.store.must_exist = True
        if isinstance(self.store, MayBeReplicated) and self._keys is not None:
            self.store.lock_free = self._keys.commit == "log"

    async def _is_confirmed_by_store(self, patience: Patience | None) -> bool:
        """Return whether the store has a repository and the key opens it; False also offline.

        Raises:
            UnauthorizedError: there is one, and the key does not open it.
        """
        try:
            if patience is None:
                return await self._known() is not None
            return await patience.until_answered(self._known) is not None
        except (NetworkError, PermissionDeniedError):
            return False

    async def _known_keys(self) -> KnownKeys | None:
        """Return what is known of the key; None where nothing is, or what there was is damaged."""
        saved = await self._load("key")
        if saved is None:
            return None
        try:
            return key_check.decode(saved)
        except BlobCorruptError as error:
            _forgotten("the check of the project key", error)
            return None

    async def _refused_epoch(self) -> int:
        """Return the newest epoch of a `fmt` that the key no longer opened; 0 before any."""
        if self._refused is None:
            self._refused = 0
            saved = await self._load(self._cached("refused"))
            if saved is not None:
                try:
                    fields = unpack(
                        saved, max_bytes=MAX_REMEMBERED_BYTES, what="a rotation's epoch"
                    )
                    self._refused = as_uint(as_map(fields)["epoch"])
                except (BlobCorruptError, KeyError, TypeError, ValueError) as error:
                    _forgotten("that the key was rotated", error)
        return self._refused

    async def _note_refused(self, epoch: int) -> None:
        self._refused = epoch
        await self._save(self._cached("refused"), pack({"epoch": epoch}))

    async def _cached_fmt(self) -> bytes | None:
        """Return the repository as this device remembers it; None where that is damaged too.

        The store has it, and sessions know which one is theirs by themselves.
        """
        raw: bytes | None = await self._run(self._cache.load, self._cached("fmt"))
        if raw is None:
            return None
        try:
            keyring.decode(raw)
        except BlobCorruptError as error:
            _forgotten("what is remembered of the store", error)
            return None
        return raw

    async def _newest_known(self) -> int:
        cached = await self._cached_fmt()
        return 1 if cached is None else keyring.decode(cached).newest

    async def _found(self) -> Keys | None:
        try:
            found = await self._set_up()
            if found is None and await self._holds_anything():
                found = await self._set_up()  # by another device, in this moment
                if found is None:
                    raise self.keys_missing()
            if found is None:
                self._seen_absent = True
                return None
        except BlobCorruptError:
            if self._commit == "log" and await self._is_part_of_ours():
                return None  # whoever needs it now may write all of it: these very bytes
            raise
        return await self._accept(found.raw)

    async def _set_up(self) -> Format | None:
        try:
            return (await self.read_fmt())[0]
        except BlobNotFoundError:
            return None

    async def _holds_anything(self) -> bool:
        """Return whether the store holds blobs of the project without which its keys are no use.

        What a probe has left behind is none, and nothing that belongs to a log, which gets the same
        keys again.
        """
        if self._commit == "log":
            listed = await self.store.keys(self.layout.prefix)
            return any(self.layout.is_of_cas(each.key) for each in listed)
        listed = await self.store.keys(self.layout.prefix, limit=1)
        if listed and self.layout.is_of_probe(listed[0].key):
            after = self.layout.behind_probes
            listed = await self.store.keys(self.layout.prefix, start_after=after, limit=1)
        return bool(listed)

    def keys_missing(self) -> BlobMissingError:
        """Return the error for a store that holds a project, and not what opens it."""
        return BlobMissingError(
            f"the store {self.store.url} holds blobs of this project and not their keys: its blob "
            f"{self.layout.fmt!r} is gone",
            hint=f"on a device that has used this store before: {repair_command()}",
        )

    async def _is_part_of_ours(self) -> bool:
        """Return whether the store's `fmt` is the beginning of what this key makes of it."""
        kdf = keyring.log_kdf(self._project_id, self._project_key)
        ours = keyring.create_log(await self._kek(kdf), kdf).raw
        blob = await self.store.get(self.layout.fmt)
        if not isinstance(blob, Blob):
            raise AssertionError("an unconditional get returned no blob")
        return len(blob.data) <= len(ours) and ours.startswith(blob.data.rstrip(b"\0"))

    async def _create(self) -> Keys:
        return await (self._create_log() if self._commit == "log" else self._create_cas())

    async def _create_log(self) -> Keys:
        """Write `fmt` where none was seen; whoever else does writes the same bytes."""
        kdf = keyring.log_kdf(self._project_id, self._project_key)
        raw = keyring.create_log(await self._kek(kdf), kdf).raw
        if isinstance(self.store, MayBeReplicated):
            self.store.lock_free = True
        found = await self._found()  # one that compares and swaps may stand there by now
        if found is not None:
            return found
        await self.store.put(self.layout.fmt, raw)
        self._made_here = True
        return await self._accept(raw)

    async def _create_cas(self) -> Keys:
        verdict = await self._verdict.find()
        # The salt of the local key check serves the repository too: one argon2id for both.
        kdf = self._kdf
        if kdf is None or not kdf.suits(self._project_key):
            kdf = self._fresh_kdf()
        kek = await self._kek(kdf)
        fmt = keyring.create(kek, kdf, fresh=self._clock.token(keyring.FRESH_BYTES))
        try:
            answer = await self.store.compare_and_swap(self.layout.fmt, fmt.raw, etag=None)
            self.time.observe(answer.time_ms)
        except OutcomeUnknownError:
            answer = None
        if isinstance(answer, Swapped):
            keys = await self._accept(fmt.raw)
            self._made_here = True
        else:
            found = await self._found()
            if found is None:
                raise OutcomeUnknownError(f"it is not known whether {self.store.url} was set up")
            keys = found
        self._keys = keys
        await self._publish(verdict)
        return keys

    async def _accept(self, raw: bytes) -> Keys:
        keys = await self._unlock(raw)
        self._seen_absent = False
        await self._run(self._cache.save, self._cached("fmt"), raw)
        await self._save_check(keyring.decode(raw).kdf, confirmed=True)
        self._confirmed = True
        return keys

    async def _unlock(self, raw: bytes) -> Keys:
        fmt = keyring.decode(raw)
        if fmt.commit not in MODES:
            raise UnsupportedFormatError(
                f"the repository commits by {fmt.commit!r}, which this version does not know",
                hint=UPGRADE,
            )
        try:
            keyring.check_cost(fmt, self._project_key)
            keys = keyring.unlock(fmt, await self._kek(fmt.kdf))
        except UnauthorizedError:
            raise await self._refusal(fmt) from None
        if self._commit is not None and fmt.commit != self._commit:
            raise InvalidArgumentError(
                f"the project's repository in {self.store.url} commits by {fmt.commit!r}, not by "
                f"{self._commit!r}, and stays so for ever",
                hint=f"leave commit out, or give commit={fmt.commit!r} (MOSS_COMMIT); another "
                "project id, or another store, can be of the other kind",
            )
        return keys

    async def _publish(self, verdict: ProbeVerdict) -> None:
        check_writable(self.opened, None)  # a race for setting up may be won by a later version
        await self._verdict.publish(verdict, self.opened)

    async def _keys_for(self, sealed: bytes) -> Keys:
        """As roots_for, where the lock is held."""
        if (epoch_of(sealed) or 0) > self.roots.newest:
            await self._reread()
        return self.opened

    def _fresh_kdf(self) -> KdfParams:
        return KdfParams.choose(self._project_key, self._clock.token(keyring.KDF_SALT_BYTES))

    async def _refusal(self, fmt: Format) -> UnauthorizedError:
        """Return why a `fmt` does not open; a rotation is remembered."""
        cached = await self._run(self._cache.load, self._cached("fmt"))
        if fmt.newest == 1 or cached is None or not await self._has_opened():
            return keyring.wrong_key(newest=fmt.newest)
        await self._note_refused(fmt.newest)
        return keyring.key_rotated(newest=fmt.newest)

    async def _has_opened(self) -> bool:
        """Return whether the key in use has opened a repository of this project here."""
        known = await self._known_keys()
        if known is None:
            return False
        if await self._fits(known.current):
            return known.confirmed
        return await self._is_former(known)

    async def _is_former(self, known: KnownKeys) -> bool:
        self._former = False
        for check in known.former:
            self._former = self._former or await self._fits(check)
        return self._former

    async def _fits(self, check: KeyCheck) -> bool:
        """Return whether the project key is the one that a check was made of."""
        return check.kdf.suits(self._project_key) and check.fits(await self.kek(check.kdf))

    async def _kek(self, kdf: KdfParams) -> bytes:
        kek = await self.kek(kdf)
        self._kdf = kdf
        return kek

    async def _save_check(self, kdf: KdfParams, *, confirmed: bool) -> None:
        check = KeyCheck.of(await self._kek(kdf), kdf)
        known = await self._known_keys()
        if known is None:
            known = KnownKeys(check, confirmed)
        elif not confirmed or await self._fits(known.current):
            known = known.renewed(check, confirmed=confirmed)
        else:
            known = known.succeeded_by(check)
        self._former = False
        await self._save("key", key_check.encode(known))

    async def _load(self, name: str) -> bytes | None:
        """Return what `_save` has kept; None where there is nothing, or it is damaged."""
        saved: bytes | None = await self._run(self._cache.load, name)
        if saved is None:
            return None
        data = remembered(saved)
        if data is None:
            log.warning("%s, remembered on this device, is damaged, and is asked for anew", name)
        return data

    async def _save(self, name: str, data: bytes) -> None:
        await self._run(self._cache.save, name, data + _checksum(data))

    def _cached(self, what: str) -> str:
        # One project may meet several stores; each has its own repository.
        return f"{what}-{store_name(self.store.url)}"

    def _changed(self, how: str) -> StoreChangedError:
        return StoreChangedError(
            f"the store {self.store.url} {how}",
            hint=other_store_hint("the store that this project used before")
            + f"; if somebody made this up: {repair_command(drop_unknown=True)}",
        )


def remembered(saved: bytes) -> bytes | None:
    """Return what a device remembers, without its checksum; None where that does not fit."""
    data, checksum = saved[:-CHECKSUM_BYTES], saved[-CHECKSUM_BYTES:]
    return data if hmac.compare_digest(checksum, _checksum(data)) else None


def _checksum(data: bytes) -> bytes:
    return blake2b(data, digest_size=CHECKSUM_BYTES).digest()


def _forgotten(what: str, error: Exception) -> None:
    log.warning("%s on this device is damaged, and is asked for anew: %s", what, error)
