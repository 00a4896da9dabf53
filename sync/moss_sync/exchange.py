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
from functools import partial
from typing import TypeVar

from moss_sync import manifest, packing, plan, segment
from moss_sync.channel import CONFLICT_BACKOFF_S, Channel, View
from moss_sync.checkpoint import Checkpoint
from moss_sync.clock import Clock
from moss_sync.errors import (
    BlobCorruptError,
    BlobMissingError,
    BlobNotFoundError,
    ContentionError,
    MossError,
    NetworkError,
    OutcomeUnknownError,
    RevokedKeyError,
    StoreBusyError,
    UnsupportedFormatError,
    repair_command,
)
from moss_sync.floors import DEFAULT_POLICY, Policy
from moss_sync.hlc import stamp_limit
from moss_sync.keyring import Keys
from moss_sync.layout import SegmentName
from moss_sync.manifest import Manifest
from moss_sync.plan import Standing
from moss_sync.race import ADOPT_AFTER, Race, Streak
from moss_sync.record import DEVICE_BYTES, Record, VectorSpace
from moss_sync.replica import (
    Committed,
    Correction,
    Exclusive,
    Pending,
    Replica,
    ReplicaState,
    Seen,
    Snapshot,
    other_store,
)
from moss_sync.report import SyncReport
from moss_sync.repository import Repository, Runner
from moss_sync.segment import Segment
from moss_sync.setbacks import since
from moss_sync.spaces import check_space
from moss_sync.traffic import metered

R = TypeVar("R", bound=SyncReport)

PUSH_DEADLINE_S = 60.0
MAX_ATTEMPTS = 24
MAX_REFETCHES = 5
PUSH_RECORDS = 50_000


class Exchange:
    """Pulls and pushes one replica's records; `engine.SyncEngine` adds the upkeep."""

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
        policy: Policy = DEFAULT_POLICY,
        checkpoint: Checkpoint | None = None,
    ) -> None:
        """Prepare the exchange of the session called `name`.

        Args:
            policy: When to tidy up.
            checkpoint: What a store that this replica does not know yet must have in its history.
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
        self._channel = Channel(
            repository, name, clock=clock, run=run, policy=policy, checkpoint=checkpoint
        )
        self._streak = Streak()

    def now_ms(self) -> int:
        """The wall clock in milliseconds since 1970, corrected by what the store has said."""
        return self._channel.time.now_ms()

    async def pull(self) -> SyncReport:
        """Merge what others have committed. Costs one request when there is nothing new.

        Raises:
            NetworkError: the store could not be reached; nothing changed.
            BlobCorruptError, BlobMissingError, HistoryError: what the store holds cannot be
                trusted; nothing changed.
            ModelMismatchError: the session's vectors are of another model.
        """
        return await self._exchange(self._pull, SyncReport())

    async def push(self) -> SyncReport:
        """Commit every local change, merging with whatever others commit meanwhile.

        A success is never guessed: when this returns, the manifest says so.

        Raises:
            NetworkError: the store could not be reached, or ContentionError: every race was lost;
                the changes stay pending and go with a later push.
            StoreLacksCasError, HistoryError, ModelMismatchError: nothing was written.
            ClockError: the store's clock and this device's contradict each other; the changes stay
                pending.
        """
        return await self._exchange(self._push, SyncReport())

    async def sync(self) -> SyncReport:
        """Pull, then push."""

        async def both(report: SyncReport) -> None:
            await self._pull(report)
            await self._push(report)

        return await self._exchange(both, SyncReport())

    async def _exchange(self, work: Callable[[R], Awaitable[None]], report: R) -> R:
        started = self._clock.monotonic()
        state: ReplicaState
        self._channel.begin()
        with metered() as meter:
            try:
                await work(report)
            except MossError as error:
                error.report = report
                if isinstance(error, UnsupportedFormatError):
                    state = await self._run(self._replica.state)
                    error.hint = (
                        f"{error.hint}; if nobody has a newer one, somebody made this up: "
                        + repair_command(state.name, drop_unknown=True)
                    )
                if isinstance(error, BlobCorruptError) and error.hint is None:
                    state = await self._run(self._replica.state)
                    error.hint = (
                        f"put it back from a device that holds it: {repair_command(state.name)}"
                    )
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
            self._channel.check_nothing()
            await self._check_never_exchanged()
            return
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
            if state.life != seen.life:
                continue  # another process of this file has gone on to a newer life
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
                tomb_seq=current.tomb_seq,
                tomb_hlc=current.tomb_hlc,
                full=wanted.full,
                space=current.space,
                former=current.former,
                rejected=[each for read in segments for each in read.rejected],
            )
            counts = await self._run(self._replica.merge, snapshot, seen)
            report.received += counts.received
            report.deleted += counts.deleted
            report.superseded += counts.superseded
            report.reasserted += counts.reasserted
            report.quarantined += counts.quarantined
            report.tell(counts.rejected)
            return
        raise BlobMissingError(
            f"session {state.name!r} lists a blob that the store does not have",
            hint="nothing changed here; on a device that holds the session: "
            + repair_command(state.name),
            detail=str(missing),
        )

    # -- push ------------------------------------------------------------------------------

    async def _push(self, report: SyncReport) -> None:
        async with self._exclusive():
            if await self._repository.keys() is None:
                await self._check_never_exchanged()
            keys = await self._repository.attach()
            await self._attach(keys, report)
            state: ReplicaState = await self._run(self._replica.state)
            if state.pending is None and state.dirty == 0 and state.seen is not None:
                report.seq = state.seen.seq
                return
            await self._repository.ready_to_write()
            started = self._clock.monotonic()
            race = Race(started + PUSH_DEADLINE_S)
            self._streak.begins(started)
            current = self._channel.remembered(state)
            # A pending push of before has an unknown outcome; a session never seen may exist.
            unseen = current is None and not self._repository.made_here
            if state.seen is not None and state.seen.etag is None:
                unseen = True  # what is remembered is not all of it
            if current is not None and not await self._still_counts(current[0]):
                unseen = True  # by now the store must have it under a newer key
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
                    await self._repository.check_time(self._channel.time)
                    await self._prepare(keys, state, current, race)
                current = await self._commit(keys, current, report, race)
                state = await self._run(self._replica.state)

    async def _prepare(
        self, keys: Keys, state: ReplicaState, current: View | None, race: Race
    ) -> None:
        """Step 2: choose what goes, under which number and name, and keep its exact bytes."""
        parent = None if current is None else current[0]
        if plan.doubts_time(parent, self._channel.time.now_ms()):
            await self._repository.tell_time()
        correction = plan.correction(parent, parent, self._channel.time.now_ms())
        if state.hlc > correction.above:
            await self._run(self._replica.restamp, correction)
        known = None if parent is None else parent.device(state.dev)
        records: list[Record] = await self._run(
            lambda: self._replica.dirty(
                max_bytes=segment.MAX_SEGMENT_BYTES, max_records=PUSH_RECORDS
            )
        )
        # The first vector may have come since the state was read, and with it the space.
        state = await self._run(self._replica.state)
        if parent is not None:
            self._check_space(parent, state)
        if (await self._run(self._replica.state)).space != state.space:
            return  # another process of this file has moved it to another space meanwhile
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
        if race.crowded or not plan.fits_inline(parent, len(body)):
            name, body = await self._channel.sealed(
                keys, state, body, kind="s", number=pushed.n, epoch=self._channel.epoch
            )
            tip, key = manifest.tip_of(str(name).encode()), self._channel.key(keys, name)
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
        await self._run(partial(self._replica.save_pending, pending, versions, dev=state.dev))

    async def _commit(
        self, keys: Keys, current: View | None, report: SyncReport, race: Race
    ) -> View | None:
        """Steps 3 to 5 for the pending push; return the manifest as this device then knows it.

        Comes back without having committed where the push must be prepared anew.
        """
        state: ReplicaState = await self._run(self._replica.state)
        pending = state.pending
        if pending is None:
            return current
        stored = False
        for attempt in range(MAX_ATTEMPTS):
            parent = None if current is None else current[0]
            if not plan.may_commit(parent, pending, state.applied_seq):
                await self._run(self._replica.abandon_pending)
                await self._pull(report)
                return self._channel.remembered(await self._run(self._replica.state))
            crowded_out = race.crowded or not plan.fits_inline(parent, len(pending.body))
            if pending.key is None and crowded_out:
                # The manifest has changed since this push was last sent, so no late copy of that
                # request can succeed any more: it may get a new form, which others can adopt.
                await self._run(self._replica.abandon_pending)
                return current
            listable = plan.is_of_epoch(pending, self._channel.epoch)
            if pending.key is not None and listable and not stored:
                await self._channel.put(pending.key, pending.body)
                stored = True
                if race.crowded and current is not None:
                    # The others are uploading too. Whoever looks first takes them all along, and
                    # the rest need no swap: fifty at once send a third of what they did without.
                    await self._clock.sleep(self._clock.uniform(0.0, race.gathering_s))
                    state, current = await self._looked_again(keys, state, report, race)
                    if state.pending is None:
                        return current
                    continue  # by what is there now
            pause, lost = self._channel.backoff(CONFLICT_BACKOFF_S, attempt), 1
            asked = self._clock.monotonic()
            try:
                done = await self._swap(keys, state, current, pending, report, race)
            except StoreBusyError as busy:
                done, pause, lost = None, self._channel.patience(busy, attempt), ADOPT_AFTER
                race.gathers_for(pause)
            except OutcomeUnknownError:
                done, lost = None, 0
            if done is not None:
                return done
            told = self._clock.monotonic()
            race.gathers_for(told - asked)
            if told + pause > race.deadline:
                break
            await self._clock.sleep(pause)
            before, looked = current, self._clock.monotonic()
            state, current = await self._looked_again(keys, state, report, race)
            if state.pending is None:
                return current
            # Only a manifest that has changed proves that the request is out of the race.
            if current is not None and (before is None or before[1].hash != current[1].hash):
                read_s = self._clock.monotonic() - looked
                race.was_lost(lost, swap_s=told - asked, read_s=read_s)
        raise ContentionError(
            f"{report.lost_races} races for session {state.name!r} were lost in a row",
            hint="the changes stay pending; push again",
        )

    async def _looked_again(
        self, keys: Keys, state: ReplicaState, report: SyncReport, race: Race
    ) -> tuple[ReplicaState, View | None]:
        """Read the manifest and what it says of the pending push, which is gone if it is in."""
        current = await self._channel.read_through_throttling(keys, state, race.deadline)
        if current is not None:
            state = await self._settle(state, *current, report)
        return state, current

    async def _swap(
        self,
        keys: Keys,
        state: ReplicaState,
        current: View | None,
        pending: Pending,
        report: SyncReport,
        race: Race,
    ) -> View | None:
        """Send one compare-and-swap; return the new manifest, or None when it was refused."""
        parent, seen = current if current is not None else (None, None)
        author = await self._channel.author(state, seen)
        if not plan.is_of_epoch(pending, author.epoch):
            return await self._fence(keys, state, current, author, report)
        adopted: list[tuple[SegmentName, int]] = []
        looks = race.crowded or self._streak.looks(self._clock.monotonic())
        if parent is not None and looks:
            waiting = await self._waiting(keys, parent, author.epoch)
            adopted = plan.adoptable(parent, waiting, dev=state.dev)
        following = plan.with_push(
            parent,
            author,
            pending,
            repo_id=keys.repo_id,
            sid=self._channel.sid(keys),
            adopted=adopted,
        )
        written = await self._channel.write_manifest(keys, following, seen)
        if written is None:
            report.lost_races += 1
            return None
        applied = plan.applied_with(parent, state.applied_seq, adopted)
        committed = Committed(
            state.dev,
            pending.n,
            following.seq,
            limit=stamp_limit(following.ct),
            applied_seq=following.seq if applied else None,
        )
        await self._run(self._replica.settle, committed, written)
        self._streak.committed(self._clock.monotonic())
        _count_sent(report, pending)
        report.adopted += len(adopted)
        report.seq = following.seq
        return following, written

    async def _fence(
        self,
        keys: Keys,
        state: ReplicaState,
        current: View | None,
        author: plan.Author,
        report: SyncReport,
    ) -> View | None:
        """Seal the session under a newer key, with nothing new in it; None when it was refused.

        After that a push that was prepared under an older key can be given up: no request that has
        sent it can succeed any more, and nobody adopts it.
        """
        parent, seen = current if current is not None else (None, None)
        following = plan.next_commit(
            parent, author, repo_id=keys.repo_id, sid=self._channel.sid(keys)
        )
        written = await self._channel.write_manifest(keys, following, seen)
        if written is None:
            report.lost_races += 1
            return None
        applied = following.seq if plan.applied_with(parent, state.applied_seq, ()) else None
        await self._run(partial(self._replica.set_seen, written, applied_seq=applied))
        return following, written

    async def _still_counts(self, remembered: Manifest) -> bool:
        try:
            await self._channel.check_counts(remembered)
        except RevokedKeyError:
            return False
        return True

    async def _waiting(
        self, keys: Keys, parent: Manifest, epoch: int
    ) -> list[tuple[SegmentName, int]]:
        try:
            return await self._channel.waiting(keys, parent.gc_floor, epoch=epoch)
        except NetworkError:
            return []  # to take others along is a favour; the own push goes on without it

    # -- both ------------------------------------------------------------------------------

    async def _check_never_exchanged(self) -> None:
        """Return if nobody of this project has pushed anything yet, as the store says.

        Raises:
            StoreChangedError: this file's session was pushed, so to another store.
        """
        state: ReplicaState = await self._run(self._replica.state)
        # In the moment since the store was asked another process of this file may have pushed.
        if state.repo_id is not None and await self._repository.keys() is None:
            raise other_store(state, self._repository.store.url)

    async def _attach(self, keys: Keys, report: SyncReport) -> None:
        report.session_id = self._channel.sid(keys)
        await self._run(self._replica.attach, keys.repo_id)

    async def _settle(
        self, state: ReplicaState, current: Manifest, seen: Seen, report: SyncReport
    ) -> ReplicaState:
        """Find out what has become of this device and of its push; return the state after that."""
        if plan.standing(current, state) is not Standing.MEMBER:
            # While the manifest was on its way, a push of this very file, in another task or
            # process, may have been prepared and committed: what is kept now tells it apart from
            # another file's.
            state = await self._run(self._replica.state)
        token, standing = self._clock.token, plan.standing(current, state)
        if standing is not Standing.MEMBER:
            dev, inc = token(DEVICE_BYTES), token(DEVICE_BYTES)
            if standing in (Standing.DELETED, Standing.REPAIRED):
                known = self._channel.remembered(state)
                before = None if known is None else known[0]
                become = partial(
                    self._replica.start_life,
                    seen,
                    dev,
                    inc,
                    keep=plan.keep(current, state),
                    joint=plan.joint(current, seen.hash, state, before),
                    setbacks=since(current.setbacks, state.life.repairs),
                    correction=plan.correction(current, current, self._channel.time.now_ms()),
                )
            else:
                aside = plan.aside(current, state, standing)
                become = partial(
                    self._replica.renew_identity,
                    dev,
                    inc,
                    was=state.dev,
                    aside=aside,
                    correction=self._correction(state, current, standing),
                )
            report.quarantined += await self._run(become)
            report.older_copy = report.older_copy or standing is Standing.COPY
        elif state.pending is None:
            return state
        elif (found := plan.committed_at(current, state.dev, state.pending)) is not None:
            # What is of another space than the session's may count for nobody else: it is not in.
            self._check_space(current, state)
            committed = Committed(
                state.dev, state.pending.n, found.seq, limit=stamp_limit(found.ct)
            )
            await self._run(self._replica.settle, committed, seen)
            _count_sent(report, state.pending)
        elif state.seen != seen:
            await self._run(self._replica.set_seen, seen)
        settled: ReplicaState = await self._run(self._replica.state)
        return settled

    def _correction(
        self, state: ReplicaState, current: Manifest, found: Standing
    ) -> Correction | None:
        if found is not Standing.COPY:
            return None
        known = self._channel.remembered(state)
        parent = None if known is None else known[0]
        return plan.correction(parent, current, self._channel.time.now_ms())

    def _check_space(self, current: Manifest, state: ReplicaState) -> None:
        check_space(
            state.name,
            theirs=current.space,
            ours=state.space,
            accepts=self._accepts,
            former=current.former,
        )


def _count_sent(report: SyncReport, pending: Pending) -> None:
    report.sent += pending.docs
    report.sent_deletes += pending.tombs
