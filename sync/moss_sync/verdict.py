"""The verdict on a store: found once, published for every device, remembered by each.

  1 short form   before the first write to a store without a verdict     crash: probed anew
  2 long form    a round at a time, after a push, by whichever device    crash: the rounds that
                 has pushed, until all have passed                       were counted stay counted
A round that fails is published as well, and from then on no device that has heard of it writes:
before the first push of every process, and now and then in one that goes on, the verdict is looked
at again, which is one request without a body. `doctor`, which runs the whole long form, publishes
what it finds in place of anything.

Rules of this file: a verdict that has passed is swapped on top of the one that was read, so that it
never takes the place of one that has failed. What is gone or damaged is put back by whoever
remembers it, and found anew by whoever does not: nobody is locked out by it. So is one that is
sealed under a key that no longer counts.
What holds: tests/moss_sync/test_verdict.py.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace

from moss_sync.clock import Clock, StoreClock
from moss_sync.errors import (
    BlobCorruptError,
    BlobNotFoundError,
    MossError,
    NetworkError,
    OutcomeUnknownError,
    RevokedKeyError,
    StoreBusyError,
    StoreLacksCasError,
    UnsupportedFormatError,
)
from moss_sync.keyring import Keys
from moss_sync.packing import as_str, as_uint, pack, unpack
from moss_sync.probe import RACE, ProbeReport, ProbeVerdict, probe
from moss_sync.seal import FIRST_EPOCH, SALT_BYTES, BlobIdentity, epoch_of, seal, unseal
from moss_sync.stores.base import Blob, BlobStore, ETag, NotModified, Swapped

log = logging.getLogger("moss_sync")

MAX_VERDICT_BYTES = 4096

LOOK_AGAIN_S = 600.0
"""How long a process goes on without looking again at a verdict that is full; one that is not may
change any moment."""
LOOK_AGAIN_SOON_S = 10.0

PUBLISH_ATTEMPTS = 8


class StoreVerdict:
    """What is known of whether a store compares and swaps.

    Not safe for concurrent tasks, but for `round`: the repository's lock is held around the rest.

    Attributes:
        known: The verdict as it is known here; None before anything was found or read.
    """

    def __init__(
        self,
        store: BlobStore,
        clock: Clock,
        *,
        prefix: str,
        key: str,
        time: StoreClock,
        load: Callable[[], Awaitable[bytes | None]],
        save: Callable[[bytes], Awaitable[None]],
        keys_for: Callable[[bytes], Awaitable[Keys]],
    ) -> None:
        """Make what knows nothing yet; nothing is asked.

        Args:
            prefix: Of the probe's own keys; key: where the verdict is published.
            load, save: What this device remembers between processes; None where that is damaged.
            keys_for: Returns the keys to open a blob with, also of an epoch that is new here.
        """
        self.known: ProbeVerdict | None = None
        self._store = store
        self._clock = clock
        self._prefix, self._key = prefix, key
        self._time = time
        self._load, self._save = load, save
        self._keys_for = keys_for
        self._etag: ETag | None = None
        self._looked_at: float | None = None
        self._epoch = FIRST_EPOCH

    async def find(self) -> ProbeVerdict:
        """Run the short form, and go by what it finds.

        Raises:
            StoreLacksCasError, NetworkError, PermissionDeniedError: as `probe`.
        """
        report = await probe(self._store, clock=self._clock, prefix=self._prefix)
        return self._adopt(report.require())

    async def remembered(self) -> ProbeVerdict | None:
        """Return the verdict as this device knows it, without asking the store."""
        saved = None if self.known is not None else await self._load()
        if saved is not None:
            try:
                fields = unpack(saved, max_bytes=MAX_VERDICT_BYTES, what="a remembered verdict")
                verdict, etag = ProbeVerdict.from_dict(fields["verdict"]), as_str(fields["etag"])
                self._epoch = as_uint(fields["epoch"])
            except (BlobCorruptError, KeyError, TypeError, ValueError) as error:
                log.warning("what is remembered of the probe is damaged: %s", error)
                return None
            self._adopt(verdict)
            self._etag = ETag(etag) if etag else None
        return self.known

    async def require(self, keys: Keys) -> None:
        """Make sure that the store may be written to, as far as any device knows.

        Raises:
            StoreLacksCasError: it has failed a check.
            NetworkError, PermissionDeniedError: it could not be asked.
        """
        known = await self.remembered()
        if not counts(self._epoch, keys):
            known = self.known = self._etag = None
        if known is None or self._is_old(known):
            await self._look(keys)
        if self.known is not None:
            self.known.require(self._store)

    async def round(self) -> ProbeReport | None:
        """Run one round of the long form, if the store has not passed them all; else None."""
        if self.known is None or self.known.failed or self.known.is_full:
            return None
        report = await probe(self._store, clock=self._clock, prefix=self._prefix, rounds=1)
        error = report.error
        if isinstance(error, StoreLacksCasError) and not error.check.startswith(RACE):
            # What is seen of single blobs may also come of a bucket that was just restored.
            report = await probe(self._store, clock=self._clock, prefix=self._prefix, rounds=1)
        return report

    async def count(self, report: ProbeReport, keys: Keys) -> None:
        """Publish what a round has found.

        Raises:
            StoreLacksCasError: it has failed; every device will know.
            NetworkError, PermissionDeniedError: the store could not be asked; nothing is counted.
        """
        before = ProbeVerdict() if self.known is None else self.known
        if isinstance(report.error, StoreLacksCasError):
            await self.overrule(replace(before, failed=report.error.check), keys)
        found = report.require()
        await self.publish(replace(found, rounds=before.rounds + found.rounds), keys)

    async def overrule(self, verdict: ProbeVerdict, keys: Keys) -> None:
        """Publish a verdict in the place of whatever is there."""
        self._adopt(verdict)
        await self._remember(None)  # also where the store no longer takes it
        self._time.observe(await self._store.put(self._key, self._sealed(verdict, keys)))
        self._looked_at = self._clock.monotonic()

    async def publish(self, verdict: ProbeVerdict, keys: Keys, *, on: ETag | None = None) -> None:
        """Publish a verdict on top of the one that was read; one that failed, or says more, stays.

        Args:
            on: The ETag of what is there; None: of what was read last.
        """
        self._adopt(verdict)
        sealed, etag = self._sealed(verdict, keys), on or self._etag
        for attempt in range(PUBLISH_ATTEMPTS):
            try:
                answer = await self._store.compare_and_swap(self._key, sealed, etag=etag)
                self._time.observe(answer.time_ms)
                if isinstance(answer, Swapped):
                    await self._remember(answer.etag)
                    return
            except (OutcomeUnknownError, StoreBusyError):
                await self._clock.sleep(self._clock.uniform(0.5, 1.0) * 2.0**attempt / 10)
            stated, etag = await self._read()
            if stated is not None and (stated.failed or stated.rounds >= verdict.rounds):
                self._adopt(stated)
                await self._remember(etag)
                return
        raise NetworkError(f"the verdict on {self._store.url} could not be published")

    async def renew(self, keys: Keys) -> None:
        """Publish the verdict under the newest key, if it is under an older one.

        Raises:
            NetworkError, PermissionDeniedError: the store could not be asked.
        """
        stated, etag = await self._read()
        known = stated if stated is not None else self.known
        if known is not None and self._epoch < keys.roots.newest:
            await self.publish(known, keys, on=etag)

    async def _look(self, keys: Keys) -> None:
        """Read what is published; where that is nothing, publish what is known or is now found."""
        before = self._etag
        stated, etag = await self._read(unless=before)
        if before is not None and etag == before:
            self._looked_at = self._clock.monotonic()
        elif stated is not None:
            self._adopt(stated)
            await self._remember(etag)
        else:
            self._etag = None
            known = self.known if self.known is not None else await self.find()
            await self.publish(known, keys, on=etag)

    async def _read(self, *, unless: ETag | None = None) -> tuple[ProbeVerdict | None, ETag | None]:
        """Return what is published, None where it is nothing or damaged, and its ETag."""
        etag: ETag | None = None
        trouble: MossError | None = None
        for _ in range(2):  # what was damaged on its way must not be taken for what is there
            try:
                found = await self._store.get(self._key, if_none_match=unless)
            except BlobNotFoundError:
                return None, None
            self._time.observe(found.time_ms)
            if isinstance(found, NotModified):
                return None, unless
            etag = found.etag
            try:
                return await self._opened(found), etag
            except (BlobCorruptError, RevokedKeyError, UnsupportedFormatError) as error:
                trouble = error
        if trouble is not None:
            log.warning(
                "the verdict on the store %s does not count, and is found anew: %s",
                self._store.url,
                trouble,
            )
        return None, etag

    async def _opened(self, found: Blob) -> ProbeVerdict:
        keys = await self._keys_for(found.data)
        epoch = epoch_of(found.data) or FIRST_EPOCH
        if not counts(epoch, keys):
            raise RevokedKeyError(f"it is sealed under key epoch {epoch}, below {keys.floor}")
        plain = unseal(keys.roots, _identity(keys), found.data, max_plain=MAX_VERDICT_BYTES)
        fields = unpack(plain, max_bytes=MAX_VERDICT_BYTES, what="the probe's verdict")
        self._epoch = epoch
        return ProbeVerdict.from_dict(fields)

    def _sealed(self, verdict: ProbeVerdict, keys: Keys) -> bytes:
        salt, self._epoch = self._clock.token(SALT_BYTES), keys.roots.newest
        return seal(keys.roots, _identity(keys), pack(verdict.to_dict()), salt=salt)

    def _is_old(self, known: ProbeVerdict) -> bool:
        if self._looked_at is None:
            return True
        allowed = LOOK_AGAIN_S if known.is_full else LOOK_AGAIN_SOON_S
        return self._clock.monotonic() - self._looked_at >= allowed

    def _adopt(self, verdict: ProbeVerdict) -> ProbeVerdict:
        verdict.apply(self._store)
        self.known = verdict
        return verdict

    async def _remember(self, etag: ETag | None) -> None:
        assert self.known is not None
        self._etag, self._looked_at = etag, self._clock.monotonic()
        await self._save(
            pack({"verdict": self.known.to_dict(), "etag": etag or "", "epoch": self._epoch})
        )


def counts(epoch: int, keys: Keys) -> bool:
    """Return whether a verdict that is sealed under this epoch counts."""
    return epoch >= keys.floor


def _identity(keys: Keys) -> BlobIdentity:
    return BlobIdentity(keys.repo_id, "", "probe", "probe")
