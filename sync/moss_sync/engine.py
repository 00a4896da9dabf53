"""The exchange of one session: pull and push, as sequences of awaited steps.

What to do next is decided in `plan`; what is kept is kept by the `Replica`, one transaction a
verb; blobs are read, verified, sealed and written by `channel`. After a crash or a lost answer at
any await, the next exchange finds out from the manifest what happened and goes on:

  push 1 settle      a pending push of before is looked up in the manifest    crash: done again
       2 prepare     records, number, name and exact bytes become pending     crash: resumed as is
       3 PUT segment (inline pushes skip it)                                  crash: an orphan blob
       4 swap the manifest, one attempt                                       crash: settled by 1
       5 settle      clear dirty marks whose version is unchanged             crash: settled by 1
  lost race, or no answer: read the manifest; found in it: 5; else 4 again on top of what is there.

  pull 1 read the manifest, verify it against what was seen    2 settle as above
       3 read what is lacking, in parallel, verify and decode all of it       crash: nothing changed
       4 merge in one transaction                                             crash: all or nothing
Source: SYNC-PROTOCOL 2.3, 2.4 and 2.6.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from moss_sync import epochs, manifest, packing, plan, segment
from moss_sync.channel import BUSY_BACKOFF_S, CONFLICT_BACKOFF_S, Channel, View
from moss_sync.clock import Clock
from moss_sync.compaction import compact
from moss_sync.errors import (
    BlobMissingError,
    BlobNotFoundError,
    ContentionError,
    ModelMismatchError,
    MossError,
    OutcomeUnknownError,
    StoreBusyError,
)
from moss_sync.keyring import Keys
from moss_sync.manifest import Manifest
from moss_sync.record import DEVICE_BYTES, Record, VectorSpace
from moss_sync.replica import Committed, Exclusive, Pending, Replica, ReplicaState, Seen, Snapshot
from moss_sync.report import SyncReport
from moss_sync.repository import Repository, Runner
from moss_sync.segment import Segment
from moss_sync.traffic import metered

PUSH_DEADLINE_S = 60.0
MAX_ATTEMPTS = 24
MAX_REFETCHES = 5
PUSH_RECORDS = 50_000

MAX_MISSED_REWRITES = 8
"""In a row; each has cost an upload that somebody else's commit made useless."""


class SyncEngine:
    """Exchanges one replica's records with everybody else's."""

    def __init__(
        self,
        repository: Repository,
        replica: Replica,
        name: str,
        *,
        clock: Clock,
        run: Runner,
        exclusive: Exclusive,
        accepts: Callable[[VectorSpace], None],
    ) -> None:
        """Make an engine for the session called `name`.

        Args:
            run: Runs the replica's verbs and other blocking work.
            exclusive: Held for a push and for a compaction.
            accepts: Raises ModelMismatchError for a vector space that this replica must not take.
        """
        self._repository = repository
        self._replica = replica
        self._clock = clock
        self._run = run
        self._exclusive = exclusive
        self._accepts = accepts
        self._channel = Channel(repository, name, clock=clock, run=run)

    async def pull(self) -> SyncReport:
        """Merge what others have committed. Costs one request when there is nothing new.

        Raises:
            NetworkError: the store could not be reached; nothing changed.
            BlobCorruptError, BlobMissingError, HistoryError: what the store holds cannot be
                trusted; nothing changed.
            ModelMismatchError: the session's vectors are of another model.
        """
        return await self._exchange(self._pull)

    async def push(self) -> SyncReport:
        """Commit every local change, merging with whatever others commit meanwhile.

        A success is never guessed: when this returns, the manifest says so.

        Raises:
            NetworkError: the store could not be reached, or ContentionError: every race was lost;
                the changes stay pending and go with a later push.
            StoreLacksCasError, HistoryError, ModelMismatchError: nothing was written.
        """
        return await self._exchange(self._push)

    async def sync(self) -> SyncReport:
        """Pull, then push."""

        async def both(report: SyncReport) -> None:
            await self._pull(report)
            await self._push(report)

        return await self._exchange(both)

    async def compact(self) -> bool:
        """Merge small segments into fewer, if it is time to; return whether it was done."""
        keys = await self._repository.keys()
        if keys is None:
            return False
        return await compact(self._channel, keys, self._replica, self._run, self._exclusive)

    async def rewrite(self) -> int:
        """Seal anew what stands under the keys of before a rotation; return how often it merged.

        Afterwards the newest manifest that this device has seen, and all that it lists, are under
        the newest key; what was replaced is collected like everything that was merged.

        Raises:
            ContentionError: others kept merging the same; call it again.
            NetworkError, HistoryError, UnsupportedFormatError: as push; nothing is lost.
        """
        keys = await self._repository.keys()
        if keys is None:
            return 0
        newest = (await self._repository.refresh()).roots.newest
        done = missed = 0
        while missed < MAX_MISSED_REWRITES:
            await self.pull()
            state: ReplicaState = await self._run(self._replica.state)
            if state.pending is not None:
                await self.push()  # an unknown outcome keeps compactions away
            known = self._channel.remembered(await self._run(self._replica.state))
            if known is None or epochs.plan_rewrite(known[0], newest) is None:
                return done
            if await compact(
                self._channel,
                keys,
                self._replica,
                self._run,
                self._exclusive,
                choose=lambda parent: epochs.plan_rewrite(parent, newest),
            ):
                done, missed = done + 1, 0
            else:
                missed += 1
        raise ContentionError(
            f"session {state.name!r} still has blobs under an old key: others merge them as well",
            hint="try again when they are quiet: moss-local rotate-key --rewrite-only",
        )

    async def _exchange(self, work: Callable[[SyncReport], Awaitable[None]]) -> SyncReport:
        report = SyncReport()
        started = self._clock.monotonic()
        with metered() as meter:
            try:
                await work(report)
            except MossError as error:
                error.report = report
                raise
            finally:
                report.requests = meter.requests
                report.bytes_sent = meter.bytes_sent
                report.bytes_received = meter.bytes_received
                report.elapsed_ms = (self._clock.monotonic() - started) * 1000
        return report

    # -- pull ------------------------------------------------------------------------------

    async def _pull(self, report: SyncReport) -> None:
        keys = await self._repository.keys()
        if keys is None:
            return  # nobody of this project has pushed anything yet
        await self._attach(keys, report)
        missing: BlobNotFoundError | None = None
        for attempt in range(MAX_REFETCHES):
            if missing is not None:
                await self._clock.sleep(self._channel.backoff(CONFLICT_BACKOFF_S, attempt))
            state: ReplicaState = await self._run(self._replica.state)
            found = await self._channel.read_manifest(keys, state)
            if found is None:
                return
            current, seen = found
            state = await self._settle(state, current, seen, report)
            report.seq = current.seq
            if state.applied_seq >= current.seq:
                if state.seen != seen:
                    await self._run(self._replica.set_seen, seen)
                return
            self._check_space(current, state)
            wanted = plan.to_fetch(current, applied_seq=state.applied_seq, dev=state.dev)
            try:
                segments = await self._channel.read_segments(
                    keys, current, wanted.entries, wanted.inline
                )
            except BlobNotFoundError as error:
                missing = error  # merged into another meanwhile: a newer manifest says where
                continue
            snapshot = Snapshot(
                [record for each in segments for record in each.records],
                current.seq,
                clock_floor=current.tomb_hlc,
                space=current.space,
            )
            counts = await self._run(self._replica.merge, snapshot, seen)
            report.received += counts.received
            report.deleted += counts.deleted
            report.superseded += counts.superseded
            return
        raise BlobMissingError(
            f"session {state.name!r} lists a blob that the store does not have",
            hint="nothing changed here; a device that holds all of the session can restore it",
            detail=str(missing),
        )

    # -- push ------------------------------------------------------------------------------

    async def _push(self, report: SyncReport) -> None:
        async with self._exclusive():
            keys = await self._repository.attach()
            await self._attach(keys, report)
            state: ReplicaState = await self._run(self._replica.state)
            if state.pending is None and state.dirty == 0 and state.seen is not None:
                report.seq = state.seen.seq
                return
            await self._repository.ready_to_write()
            deadline = self._clock.monotonic() + PUSH_DEADLINE_S
            current = self._channel.remembered(state)
            # A pending push of before has an unknown outcome; a session never seen may exist.
            unseen = current is None and not self._repository.made_here
            if state.pending is not None or unseen:
                current = await self._channel.read_manifest(keys, state)
            while True:
                if current is None:
                    await self._repository.confirm()
                else:
                    state = await self._settle(state, *current, report)
                    self._channel.check_writable(current[0])
                    self._check_space(current[0], state)
                if state.pending is None:
                    if state.dirty == 0 and current is not None:
                        report.seq = current[0].seq
                        return
                    await self._prepare(keys, state, current)
                current = await self._commit(keys, current, report, deadline)
                state = await self._run(self._replica.state)

    async def _prepare(self, keys: Keys, state: ReplicaState, current: View | None) -> None:
        """Step 2: choose what goes, under which number and name, and keep its exact bytes."""
        parent = None if current is None else current[0]
        known = None if parent is None else parent.device(state.dev)
        records: list[Record] = await self._run(
            lambda: self._replica.dirty(
                max_bytes=segment.MAX_SEGMENT_BYTES, max_records=PUSH_RECORDS
            )
        )
        has_vectors = any(record.vector is not None for record in records)
        pushed = Segment(
            dev=state.dev,
            n=max(state.n, 0 if known is None else known.n) + 1,
            base=state.applied_seq,
            space=state.space if has_vectors else None,
            prev_tip=b"" if known is None else known.tip,
            records=records,
        )
        body: bytes = await self._run(segment.encode, pushed)
        plain = packing.plain_size(body)
        tip, key = manifest.tip_of(body), None
        if not plan.fits_inline(parent, len(body)):
            name = self._channel.new_name(keys, state, kind="s", number=pushed.n)
            tip, key = manifest.tip_of(str(name).encode()), self._channel.key(keys, name)
            body = await self._channel.sealed(keys, name, body)
        pending = Pending(
            n=pushed.n,
            base=pushed.base,
            key=key,
            tip=tip,
            body=body,
            docs=sum(not record.deleted for record in records),
            tombs=sum(record.deleted for record in records),
            plain=plain,
            hlc_max=max((record.version.hlc for record in records), default=0),
        )
        versions = [(record.id, record.version) for record in records]
        await self._run(self._replica.save_pending, pending, versions)

    async def _commit(
        self, keys: Keys, current: View | None, report: SyncReport, deadline: float
    ) -> View | None:
        """Steps 3 to 5 for the pending push; return the manifest as this device then knows it.

        Comes back without having committed where the push must be prepared anew.
        """
        state: ReplicaState = await self._run(self._replica.state)
        pending = state.pending
        if pending is None:
            return current
        if pending.key is not None:
            await self._channel.put(pending.key, pending.body)
        for attempt in range(MAX_ATTEMPTS):
            parent = None if current is None else current[0]
            if not plan.may_commit(parent, pending, state.applied_seq):
                await self._run(self._replica.abandon_pending)
                await self._pull(report)
                return self._channel.remembered(await self._run(self._replica.state))
            if pending.key is None and not plan.fits_inline(parent, len(pending.body)):
                # Whoever filled the room has changed the manifest since this push was last sent,
                # so no late copy of that request can succeed any more; it may get a new form.
                await self._run(self._replica.abandon_pending)
                return current
            first_wait_s = CONFLICT_BACKOFF_S
            try:
                done = await self._swap(keys, state, current, pending, report)
            except StoreBusyError as busy:
                done, first_wait_s = None, max(BUSY_BACKOFF_S, busy.retry_after or 0.0)
            except OutcomeUnknownError:
                done = None
            if done is not None:
                return done
            pause = self._channel.backoff(first_wait_s, attempt)
            if self._clock.monotonic() + pause > deadline:
                break
            await self._clock.sleep(pause)
            current = await self._channel.read_through_throttling(keys, state, deadline)
            if current is not None:
                state = await self._settle(state, *current, report)
                if state.pending is None:
                    return current
        raise ContentionError(
            f"{report.lost_races} races for session {state.name!r} were lost in a row",
            hint="the changes stay pending; push again",
        )

    async def _swap(
        self,
        keys: Keys,
        state: ReplicaState,
        current: View | None,
        pending: Pending,
        report: SyncReport,
    ) -> View | None:
        """Send one compare-and-swap; return the new manifest, or None when it was refused."""
        parent, seen = current if current is not None else (None, None)
        following = plan.with_push(
            parent,
            self._channel.author(state, seen),
            pending,
            repo_id=keys.repo_id,
            sid=self._channel.sid(keys),
        )
        written = await self._channel.write_manifest(keys, following, seen)
        if written is None:
            report.lost_races += 1
            return None
        applied = parent is None or state.applied_seq >= parent.seq
        committed = Committed(pending.n, following.seq, following.seq if applied else None)
        await self._run(self._replica.settle, committed, written)
        _count_sent(report, pending)
        report.seq = following.seq
        return following, written

    # -- both ------------------------------------------------------------------------------

    async def _attach(self, keys: Keys, report: SyncReport) -> None:
        report.session_id = self._channel.sid(keys)
        await self._run(self._replica.attach, keys.repo_id)

    async def _settle(
        self, state: ReplicaState, current: Manifest, seen: Seen, report: SyncReport
    ) -> ReplicaState:
        """Look the pending push up in the manifest; return the state after that."""
        if plan.is_copy(current, state):
            token = self._clock.token
            await self._run(self._replica.renew_identity, token(DEVICE_BYTES), token(DEVICE_BYTES))
        elif state.pending is None:
            return state
        elif (commit_seq := plan.committed_at(current, state.dev, state.pending)) is not None:
            committed = Committed(state.pending.n, commit_seq)
            await self._run(self._replica.settle, committed, seen)
            _count_sent(report, state.pending)
        elif state.seen != seen:
            await self._run(self._replica.set_seen, seen)
        settled: ReplicaState = await self._run(self._replica.state)
        return settled

    def _check_space(self, current: Manifest, state: ReplicaState) -> None:
        theirs, ours = current.space, state.space
        if theirs is None:
            return
        if ours is None:
            self._accepts(theirs)
        elif theirs != ours:
            raise ModelMismatchError(
                state.name, stored=_describe(theirs, ours), wanted=_describe(ours, theirs)
            )


def _count_sent(report: SyncReport, pending: Pending) -> None:
    report.sent += pending.docs
    report.sent_deletes += pending.tombs


def _describe(space: VectorSpace, other: VectorSpace) -> str:
    """Return what users call the model, with what differs where the names are equal."""
    if space.id != other.id:
        return space.id
    if space.dim != other.dim:
        return f"{space.id} ({space.dim} dimensions)"
    return f"{space.id} ({space.fingerprint[:12]})"
