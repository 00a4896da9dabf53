"""One session's blobs in its repository: read and verified, sealed and written.

Everything that comes out of here has been authenticated, belongs to the session, does not
contradict what the device has seen, and decodes; everything that goes in is sealed for its one
place. What it means is decided elsewhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from moss_sync import checkpoint, epochs, features, layout, manifest, plan, segment
from moss_sync.checkpoint import Checkpoint
from moss_sync.clock import Clock, SessionClock
from moss_sync.errors import (
    BlobCorruptError,
    BlobNotFoundError,
    ManifestMissingError,
    MossError,
    NetworkError,
    RevokedKeyError,
    StaleReadError,
    StoreBusyError,
    UnsupportedFormatError,
    repair_command,
)
from moss_sync.floors import Policy
from moss_sync.keyring import Keys
from moss_sync.layout import SegmentName
from moss_sync.manifest import Entry, Inline, LeaveOut, Manifest
from moss_sync.replica import ReplicaState, Seen
from moss_sync.report import RepairReport
from moss_sync.repository import Repository, Runner
from moss_sync.seal import (
    FIRST_EPOCH,
    SALT_BYTES,
    BlobIdentity,
    epoch_of,
    seal,
    unseal,
    unseal_without_header,
)
from moss_sync.segment import Segment
from moss_sync.stores.base import Blob, ETag, NotModified, Swapped
from moss_sync.stores.listing import list_all

STALE_RETRIES = 3
PARALLEL_READS = 8

MAX_REREADS = 6
"""How often a repair asks for a blob until two answers agree."""

LIST_PAGE = 1000
MAX_LIST_PAGES = 100
"""Of blobs that a collection looks at; it is not the last one, and may leave some for the next."""
MAX_WAITING_PAGES = 5
"""Of segments that may wait to be taken along; to take them is a favour, and who pushes waits."""
CONFLICT_BACKOFF_S = 0.05
BUSY_BACKOFF_S = 0.4
MAX_BACKOFF_S = 8.0

View = tuple[Manifest, Seen]
"""A manifest and how this device remembers it."""


class ToReplace(NamedTuple):
    """What stands in the place of a manifest that a repair is about to write.

    Attributes:
        current: The manifest, if it can be believed; seen: what names the blob, if there is one.
        damaged: The blob, where it is not as it must be; to be set aside.
    """

    current: Manifest | None
    seen: Seen | None
    damaged: bytes | None = None


class Channel:
    """The blobs of one session.

    Attributes:
        time: The time as this device believes it.
        policy: When to tidy up.
    """

    def __init__(
        self,
        repository: Repository,
        name: str,
        *,
        clock: Clock,
        run: Runner,
        policy: Policy,
        checkpoint: Checkpoint | None = None,
    ) -> None:
        self.policy = policy
        self._sid: tuple[bytes, str] = b"", ""
        self._newest: tuple[bytes, Manifest] | None = None
        self._checkpoint = checkpoint
        self._asked = False
        self._repository = repository
        self._store = repository.store
        self._name = name
        self._clock = clock
        self._run = run
        self.time = SessionClock(repository.time)

    async def read_manifest(self, keys: Keys, state: ReplicaState) -> View | None:
        """Read and verify the manifest; None where the session was never pushed."""
        for attempt in range(STALE_RETRIES):
            try:
                return await self._read_once(keys, state)
            except StaleReadError:
                if attempt == STALE_RETRIES - 1:
                    raise
                await self._clock.sleep(self.backoff(CONFLICT_BACKOFF_S, attempt))
        raise AssertionError("unreachable")

    async def _read_once(self, keys: Keys, state: ReplicaState) -> View | None:
        sid = self.sid(keys)
        seen = state.seen
        etag = None if seen is None or seen.etag is None else ETag(seen.etag)
        try:
            answer = await self._store.get(
                self._repository.layout.manifest(sid), if_none_match=etag
            )
        except BlobNotFoundError:
            if seen is None:
                self.check_nothing()
                return None
            raise ManifestMissingError(
                f"the store has no manifest of session {self._name!r}, of which this device has "
                f"seen commit {seen.seq}",
                hint="name the store that this session was exchanged with (store=, MOSS_STORE); if "
                f"that was emptied: {repair_command(self._name)}",
            ) from None
        self.time.observe(answer.time_ms)
        if isinstance(answer, NotModified):
            known = self.remembered(state)
            if known is not None:
                if self._checkpoint is not None:
                    checkpoint.check(self._checkpoint, known[0], known[1].hash, seen)
                await self.check_counts(known[0])
            return known
        before = self.remembered(state)
        current, found = await self._opened(keys, sid, answer)
        plan.check_history(current, found.hash, state, None if before is None else before[0])
        if self._checkpoint is not None:
            checkpoint.check(self._checkpoint, current, found.hash, seen)
        if current.epoch < self.epoch:
            epochs.check_epoch(current, current.epoch, None if before is None else before[0])
        await self.check_counts(current)
        self.time.committed(current.ct)
        return current, found

    async def check_counts(self, current: Manifest) -> None:
        """Refuse a manifest of which something is sealed under a key that no longer counts.

        Which keys do stands in `fmt`, and is asked for once an exchange, for a session that nobody
        has committed to since the newest rotation that this device knows of.

        Raises:
            RevokedKeyError: it is, or lists what is.
        """
        if current.epoch < self.epoch and not self._asked:
            await self._repository.refresh()
            self._asked = True
        epochs.check_counts(current, self._repository.opened.floor)

    def counts(self, current: Manifest) -> bool:
        """Return whether a manifest is one to commit on top of, as far as this device knows."""
        try:
            epochs.check_counts(current, self._repository.opened.floor)
        except RevokedKeyError:
            return False
        return True

    def begin(self) -> None:
        """Begin an exchange: what may have changed meanwhile is asked for again."""
        self._asked = False

    @property
    def epoch(self) -> int:
        """Of the newest key that this device knows; what it writes is sealed under that."""
        return self._repository.roots.newest

    def check_nothing(self) -> None:
        """Refuse a store without this session where a checkpoint says that there is one.

        Raises:
            ManifestMissingError: there must be one.
        """
        if self._checkpoint is not None:
            raise ManifestMissingError(
                f"the store has no session {self._name!r}, and the checkpoint is of its commit "
                f"{self._checkpoint.seq}",
                hint="name the store that this session was exchanged with (store=, MOSS_STORE)",
            )

    async def read_to_replace(
        self, keys: Keys, known: Manifest | None, *, drop_unknown: bool
    ) -> ToReplace:
        """Read what a repair is about to put another manifest in the place of.

        Args:
            known: The newest manifest that this device has verified.
            drop_unknown: Leave out the keys and features that this version does not know, and a
                manifest that says it is under a key which nobody knows here.
        Raises:
            BlobCorruptError: it is sealed under a key that only another device can put back, or
                says so.
            UnsupportedFormatError: a newer version wrote it, or says that it did.
        """
        sid = self.sid(keys)
        answer = await self._read_twice(self._repository.layout.manifest(sid))
        if answer is None:
            return ToReplace(None, None)
        damaged: bytes | None = None
        try:
            current, seen = await self._opened_to_mend(keys, sid, answer, drop_unknown)
        except BlobCorruptError as error:
            damaged = answer.data
            whole = self._without_header(keys, sid, answer, drop_unknown)
            if whole is None:
                if (epoch_of(damaged) or FIRST_EPOCH) > self.epoch and not drop_unknown:
                    raise BlobCorruptError(
                        str(error),
                        hint="if the project's key was rotated, the store has lost the new keys; "
                        f"on a device that knows the new project key: {repair_command()}; if it "
                        "was not, somebody has made this up: "
                        + repair_command(self._name, drop_unknown=True),
                    ) from error
                mark = manifest.ciphertext_hash(damaged)
                return ToReplace(None, Seen(0, mark, answer.etag, b""), damaged)
            current, seen = whole
        lowest = max(FIRST_EPOCH if known is None else known.epoch, self._repository.opened.floor)
        if current.epoch < lowest:
            # Of a backup, or of somebody whom a rotation shut out.
            return ToReplace(None, seen, answer.data)
        return ToReplace(current, seen, damaged)

    def _without_header(
        self, keys: Keys, sid: str, answer: Blob, drop_unknown: bool
    ) -> View | None:
        """Return the manifest in a blob of which no more than the header is damaged."""
        found = unseal_without_header(
            self._repository.roots,
            manifest_identity(keys, sid),
            answer.data,
            max_plain=manifest.MAX_PLAIN_BYTES,
        )
        if found is None:
            return None
        plain, epoch = found
        leave_out: LeaveOut = "keys and features" if drop_unknown else "keys"
        try:
            return self._view(keys, sid, answer, plain, epoch=epoch, leave_out=leave_out)
        except BlobCorruptError:  # it is more than the header
            return None
        except UnsupportedFormatError:
            if not drop_unknown:
                raise
            return None

    async def _opened_to_mend(self, keys: Keys, sid: str, answer: Blob, drop_unknown: bool) -> View:
        """As `_opened`; where too much is in it that nobody knows, without that."""
        if drop_unknown:
            try:
                return await self._opened(keys, sid, answer, leave_out="keys and features")
            except UnsupportedFormatError as error:
                raise BlobCorruptError(str(error)) from error
        try:
            return await self._opened(keys, sid, answer)
        except BlobCorruptError:
            return await self._opened(keys, sid, answer, leave_out="keys")

    async def _opened(
        self, keys: Keys, sid: str, answer: Blob, *, leave_out: LeaveOut = "nothing"
    ) -> View:
        size = len(answer.data)
        if leave_out == "nothing" and size > manifest.MAX_MANIFEST_BYTES:
            raise BlobCorruptError(
                f"the manifest of session {self._name!r} has {size} bytes, more than "
                f"{manifest.MAX_MANIFEST_BYTES}: nobody could write the next one"
            )
        roots = await self._repository.roots_for(answer.data)
        plain = unseal(
            roots,
            manifest_identity(keys, sid),
            answer.data,
            max_plain=manifest.MAX_PLAIN_BYTES,
        )
        epoch = epoch_of(answer.data) or FIRST_EPOCH
        return self._view(keys, sid, answer, plain, epoch=epoch, leave_out=leave_out)

    def _view(
        self, keys: Keys, sid: str, answer: Blob, plain: bytes, *, epoch: int, leave_out: LeaveOut
    ) -> View:
        what = f"the manifest of session {self._name!r}"
        if leave_out == "nothing":
            current = self._decoded(plain, what)
        else:
            current = manifest.decode(plain, what=what, leave_out=leave_out)
        plan.check_place(current, repo_id=keys.repo_id, sid=sid, name=self._name)
        epochs.check_epoch(current, epoch, None)
        mark = manifest.ciphertext_hash(answer.data)
        return current, Seen(current.seq, mark, answer.etag, plain, plan.life_of(current))

    async def _read_twice(self, key: str) -> Blob | None:
        """Read a blob until two answers in a row agree; None where they say that there is none.

        What was damaged or went astray on the way must not be taken for what the store holds, by
        somebody who is about to replace it.

        Raises:
            NetworkError: no two answers agreed.
        """
        before: Blob | None = None
        for attempt in range(MAX_REREADS):
            answer: Blob | NotModified | None
            try:
                answer = await self._store.get(key)
            except BlobNotFoundError:
                answer = None
            if isinstance(answer, NotModified):
                raise AssertionError("an unconditional get returned no blob")
            if attempt and (answer is None) == (before is None):
                if answer is None:
                    return None
                if before is not None and answer.data == before.data:
                    self.time.observe(answer.time_ms)
                    return answer
            before = answer
        raise NetworkError(
            f"the store answers differently each time it is asked for {key}",
            hint="repair again when the connection is better",
        )

    async def unreadable(
        self, keys: Keys, current: Manifest, *, drop_unknown: bool = False
    ) -> dict[str, bytes | None]:
        """Return the names in a manifest whose blobs are missing (None) or damaged, as they are.

        Args:
            drop_unknown: Also those that only a newer version could read.
        """
        gate = asyncio.Semaphore(PARALLEL_READS)

        async def lost(entry: Entry) -> dict[str, bytes | None]:
            async with gate:
                try:
                    await self._read_segment(keys, current, entry)
                except (BlobNotFoundError, BlobCorruptError, UnsupportedFormatError) as error:
                    if isinstance(error, UnsupportedFormatError) and not drop_unknown:
                        raise
                    key = self._repository.layout.blob(current.sid, entry.name)
                    blob = await self._read_twice(key)
                    if blob is None or not await self._opens(keys, current, entry, blob):
                        return {entry.name: None if blob is None else blob.data}
                return {}

        tasks = [asyncio.ensure_future(lost(entry)) for entry in current.entries]
        try:
            found = await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
        return {name: data for each in found for name, data in each.items()}

    async def set_aside(self, keys: Keys, report: RepairReport, kind: str, damaged: bytes) -> None:
        """Keep a copy of a blob that the session is about to lose, and report where."""
        key = await self._repository.set_aside(kind, damaged, sid=self.sid(keys))
        report.aside = tuple(dict.fromkeys((*report.aside, key)))

    async def read_through_throttling(
        self, keys: Keys, state: ReplicaState, deadline: float
    ) -> View | None:
        attempt = 0
        while True:
            try:
                return await self.read_manifest(keys, state)
            except StoreBusyError as busy:
                pause = self.patience(busy, attempt)
                if self._clock.monotonic() + pause > deadline:
                    raise
                await self._clock.sleep(pause)
                attempt += 1

    def remembered(self, state: ReplicaState) -> View | None:
        """Return the newest manifest that the device has verified, without asking anybody."""
        if state.seen is None:
            return None
        what = f"the remembered manifest of session {self._name!r}"
        known = self._decoded(state.seen.plain, what)
        self.time.committed(known.ct)
        return known, state.seen

    def _decoded(self, plain: bytes, what: str) -> Manifest:
        """Decode a manifest, or take it from the last time: most exchanges meet one twice."""
        if self._newest is None or self._newest[0] != plain:
            self._newest = plain, manifest.decode(plain, what=what)
        return self._newest[1]

    async def read_segments(
        self,
        keys: Keys,
        current: Manifest,
        entries: tuple[Entry, ...],
        inline: tuple[Inline, ...],
    ) -> list[Segment]:
        """Return what these entries and payloads hold; entries are read in parallel.

        The one place where segments become records: what does not count is left out of them here,
        for a pull, a compaction and an erasure alike (`limits`, `plan.admitted`).

        Raises:
            BlobNotFoundError: an entry's blob is gone: merged into another, or lost.
            BlobCorruptError: one is not what its name says.
        """
        gate = asyncio.Semaphore(PARALLEL_READS)

        async def read(entry: Entry) -> Segment:
            async with gate:
                return await self._read_segment(keys, current, entry)

        tasks = [asyncio.ensure_future(read(entry)) for entry in entries]
        try:
            segments = list(await asyncio.gather(*tasks))
        finally:
            for task in tasks:
                task.cancel()
        segments = [plan.admitted(each, current) for each in segments]
        return [*segments, *(inline_segment(current, item) for item in inline)]

    async def _read_segment(self, keys: Keys, current: Manifest, entry: Entry) -> Segment:
        blob = await self._store.get(self._repository.layout.blob(current.sid, entry.name))
        if not isinstance(blob, Blob):
            raise AssertionError("an unconditional get returned no blob")
        self.time.observe(blob.time_ms)
        return await self._segment_in(keys, current, entry, blob)

    async def _opens(self, keys: Keys, current: Manifest, entry: Entry, blob: Blob) -> bool:
        try:
            await self._segment_in(keys, current, entry, blob)
        except (BlobCorruptError, UnsupportedFormatError):
            return False
        return True

    async def _segment_in(self, keys: Keys, current: Manifest, entry: Entry, blob: Blob) -> Segment:
        roots = self._repository.roots
        named = layout.parse_name(roots.tag_key(entry.epoch), current.sid, entry.name)
        epochs.check_blob(entry, named, blob.data)

        def opened() -> Segment:
            plain = unseal(
                roots,
                segment_identity(keys, current.sid, named.stem),
                blob.data,
                max_plain=segment.MAX_PLAIN_BYTES,
            )
            return segment.decode(plain, what=f"segment {entry.name!r}", commit_seq=entry.hi)

        decoded: Segment = await self._run(opened)
        if decoded.dev != named.dev or (named.kind == "s" and decoded.n != named.number):
            raise BlobCorruptError(f"segment {entry.name!r} says that it is another one")
        records = plan.clamped(decoded.records, entry.ct, current.setbacks)
        return replace(decoded, records=records)

    async def write_manifest(
        self, keys: Keys, following: Manifest, seen: Seen | None
    ) -> Seen | None:
        """Send one compare-and-swap; None when the store says that the condition failed.

        Args:
            seen: The manifest that `following` replaces; None creates the first.
        Raises:
            OutcomeUnknownError, StoreBusyError: as the store does; read back what happened.
            StoreLacksCasError: the store cannot compare and swap; nothing was sent.
            UnsupportedFormatError: this version must not write to it; nothing was sent.
        """
        await self._repository.ready_to_write()
        self.check_writable(following)
        if seen is None:
            self.check_nothing()
        plain = manifest.encode(following)
        sealed = seal(
            self._repository.roots,
            manifest_identity(keys, following.sid),
            plain,
            salt=self._clock.token(SALT_BYTES),
            epoch=following.epoch,
        )
        if len(sealed) > manifest.MAX_MANIFEST_BYTES:
            raise MossError(
                f"the manifest of session {following.name!r} would be {len(sealed)} bytes, "
                f"more than {manifest.MAX_MANIFEST_BYTES}",
                hint="push from a device that stays online long enough to compact the session",
            )
        etag = None if seen is None or seen.etag is None else ETag(seen.etag)
        key = self._repository.layout.manifest(following.sid)
        answer = await self._store.compare_and_swap(key, sealed, etag=etag)
        self.time.observe(answer.time_ms)
        if not isinstance(answer, Swapped):
            return None
        self.time.committed(following.ct)
        mark = manifest.ciphertext_hash(sealed)
        return Seen(following.seq, mark, answer.etag, plain, plan.life_of(following))

    async def waiting(self, keys: Keys, floor: int, *, epoch: int) -> list[tuple[SegmentName, int]]:
        """Return pushed segments with a base of at least `floor`, listed or not, with their sizes.

        Names that no holder of the key of `epoch` has made are left out. One page of the listing,
        and more only while most of it is such names, which somebody may have left to hide others.
        """
        tag_key = self._repository.roots.tag_key(epoch)
        sid = self.sid(keys)
        prefix = self._repository.layout.segments(sid)
        after = f"{prefix}{floor:016x}"
        names: list[tuple[SegmentName, int]] = []
        for _ in range(MAX_WAITING_PAGES):
            page = await self._store.keys(prefix, start_after=after, limit=LIST_PAGE)
            names += [
                (name, item.size)
                for item in page
                if item.size and (name := _named(tag_key, sid, item.key)) is not None
            ]
            if len(page) < LIST_PAGE or len(names) >= LIST_PAGE // 2:
                break
            after = page[-1].key
        return names

    async def below(self, keys: Keys, floor: int, *, whole: bool) -> list[tuple[SegmentName, int]]:
        """Return every blob of the session with a base below `floor`, listed or not.

        Args:
            whole: Also those with any other base.
        Returns:
            Names with the epochs that they were made under; what no holder of a key has named is
            left out.
        """
        sid = self.sid(keys)
        names: list[tuple[SegmentName, int]] = []
        for prefix in (self._repository.layout.segments(sid), self._repository.layout.bases(sid)):
            after = ""
            for _ in range(MAX_LIST_PAGES):
                page = await self._store.keys(prefix, start_after=after, limit=LIST_PAGE)
                # In the order of their bases: what comes behind the floor need not be asked for.
                old = [item.key for item in page if whole or item.key < f"{prefix}{floor:016x}"]
                names += [found for key in old if (found := self._of_any_epoch(sid, key))]
                if len(page) < LIST_PAGE or len(old) < len(page):
                    break
                after = page[-1].key
        return names

    def _of_any_epoch(self, sid: str, key: str) -> tuple[SegmentName, int] | None:
        roots = self._repository.roots
        for epoch in sorted(roots.by_epoch, reverse=True):
            if (name := _named(roots.tag_key(epoch), sid, key)) is not None:
                return name, epoch
        return None

    async def delete(self, keys: Keys, names: Sequence[SegmentName]) -> None:
        """Delete blobs, several at once; one that is gone already is no error."""
        await self._delete([self.key(keys, name) for name in names])

    async def delete_asides(self, keys: Keys) -> None:
        """Delete what repairs of this session have set aside: who erases it, erases that too."""
        folder = self._repository.layout.asides(self.sid(keys))
        await self._delete([item.key for item in await list_all(self._store, folder)])

    async def _delete(self, keys: Sequence[str]) -> None:
        gate = asyncio.Semaphore(PARALLEL_READS)

        async def delete(key: str) -> None:
            async with gate:
                await self._store.delete(key)

        await asyncio.gather(*(delete(key) for key in keys))

    def check_writable(self, current: Manifest | None) -> None:
        """Refuse to write to a session, or a repository, that needs a later version.

        Asked before anything is prepared, and again by every `write_manifest`.

        Raises:
            UnsupportedFormatError: as `features.check_writable`.
        """
        features.check_writable(self._repository.opened, current)

    async def sealed(
        self,
        keys: Keys,
        state: ReplicaState,
        payload: bytes,
        *,
        kind: str,
        number: int,
        epoch: int,
    ) -> tuple[SegmentName, bytes]:
        """Return the name and the sealed bytes of a segment that `state`'s device will write."""
        sid, salt = self.sid(keys), self._clock.token(SALT_BYTES)
        stem = layout.new_stem(kind=kind, base=state.applied_seq, dev=state.dev, number=number)
        identity, roots = segment_identity(keys, sid, stem), self._repository.roots

        def work() -> tuple[SegmentName, bytes]:
            blob = seal(roots, identity, payload, salt=salt, epoch=epoch)
            return layout.named(roots.tag_key(epoch), sid, stem, blob), blob

        made: tuple[SegmentName, bytes] = await self._run(work)
        return made

    def key(self, keys: Keys, name: SegmentName) -> str:
        """Return the key under which the store holds the blob of this name."""
        return self._repository.layout.blob(self.sid(keys), str(name))

    async def put(self, key: str, blob: bytes) -> None:
        """Write an immutable blob; repeating it is no error."""
        self.time.observe(await self._store.put(key, blob))

    async def author(self, state: ReplicaState, seen: Seen | None) -> plan.Author:
        """Return who commits, when and after what.

        Raises:
            ClockError: this device cannot tell when.
        """
        await self._repository.check_time(self.time)
        return plan.Author(
            state=state,
            now_ms=self.time.now_ms(),
            prev=None if seen is None else seen.hash,
            commit_id=self._clock.token(16),
            epoch=self.epoch,
            policy=self.policy,
        )

    def sid(self, keys: Keys) -> str:
        """Return the session's id in the store."""
        if self._sid[0] != keys.names:
            self._sid = keys.names, layout.session_id(keys.names, self._name)
        return self._sid[1]

    def backoff(self, first_s: float, attempt: int) -> float:
        """Return seconds to wait before attempt `attempt` + 1, spread so that racers part."""
        longest: float = min(MAX_BACKOFF_S, first_s * 2.0**attempt)
        return longest * self._clock.uniform(0.5, 1.0)

    def patience(self, busy: StoreBusyError, attempt: int) -> float:
        """Return seconds to wait before asking a busy store again: never less than it asked for."""
        return (busy.retry_after or 0.0) + self.backoff(BUSY_BACKOFF_S, attempt)


def without_damaged_inline(current: Manifest, *, drop_unknown: bool) -> Manifest:
    """Return a manifest without the pushes inside it that nobody can read.

    Args:
        drop_unknown: Also without those that only a newer version could read.
    Raises:
        UnsupportedFormatError: one is of a newer version.
    """

    def readable(item: Inline) -> bool:
        try:
            inline_segment(current, item)
        except UnsupportedFormatError:
            if not drop_unknown:
                raise
            return False
        except BlobCorruptError:
            return False
        return True

    inline = tuple(item for item in current.inline if readable(item))
    return current if len(inline) == len(current.inline) else replace(current, inline=inline)


def inline_segment(current: Manifest, item: Inline) -> Segment:
    """Return what a small push of a manifest holds, as every reader takes it.

    Raises:
        BlobCorruptError, UnsupportedFormatError: as `segment.decode`.
    """
    what = f"push {item.n} in the manifest of session {current.name!r}"
    decoded = segment.decode(item.payload, what=what, commit_seq=item.seq)
    if (decoded.dev, decoded.n) != (item.dev, item.n):
        raise BlobCorruptError(f"{what} says that it is another one")
    records = plan.clamped(decoded.records, item.ct, current.setbacks)
    return plan.admitted(replace(decoded, records=records), current)


def manifest_identity(keys: Keys, sid: str) -> BlobIdentity:
    return BlobIdentity(keys.repo_id, sid, "manifest", "m")


def segment_identity(keys: Keys, sid: str, stem: str) -> BlobIdentity:
    return BlobIdentity(keys.repo_id, sid, "segment", stem)


def _named(tag_key: bytes, sid: str, key: str) -> SegmentName | None:
    try:
        return layout.parse_name(tag_key, sid, plan.name_in(key))
    except BlobCorruptError:
        return None
