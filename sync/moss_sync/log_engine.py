"""The exchange of one session where nobody compares and swaps: blobs are only added, by anyone.

For folders that a service replicates file by file, and for stores without compare-and-swap. The
log is the set of blobs that a listing shows; what counts is the merge of all of them, in any
order, so a listing that shows only some of them, or files that arrive late, delay and never
mislead. What to do next is decided in `log_plan`, why that is enough stands in
docs/design/0008-log.md.

  push 1 the first push of a file: write the device's head              crash: a head of no push
       2 prepare: records, number, name and exact bytes become pending  crash: resumed as it is
       3 PUT the segment under its own name; repeating it is harmless   crash: 3 again
       4 remember it, settle                                            crash: 3 again
  pull 1 list                   2 read what is not held here, bases first
       3 merge                  crash: read again, which changes nothing
       4 remember what was read
  compaction: write the union of blobs that were read; what is inside it may then be deleted, by
       whoever holds it         crash after any step: the next one finds the same rule to follow
Source: SYNC-PROTOCOL 2.12.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace

from moss_sync import log_blob, log_plan, log_view, packing, segment
from moss_sync.channel import CONFLICT_BACKOFF_S
from moss_sync.clock import Clock
from moss_sync.coverage import Coverage, Floor, highest, reaches
from moss_sync.errors import (
    BlobMissingError,
    BlobNotFoundError,
    MossError,
    NotInLogModeError,
)
from moss_sync.hlc import LAST_STAMP, observe, stamp_limit, to_ms
from moss_sync.keyring import Keys
from moss_sync.log_blob import Head, LogBlob, Since
from moss_sync.log_channel import Listing, LogChannel
from moss_sync.log_plan import DEFAULT_POLICY, LogPolicy, Merge
from moss_sync.log_replica import LogReplica
from moss_sync.log_view import Held, Partial, Unread, View
from moss_sync.manifest import tip_of
from moss_sync.record import DEVICE_BYTES, Record, VectorSpace
from moss_sync.replica import (
    Committed,
    Exclusive,
    Pending,
    ReplicaState,
    Seen,
    Snapshot,
)
from moss_sync.report import RepairReport, SyncReport
from moss_sync.repository import Repository, Runner
from moss_sync.segment import Segment
from moss_sync.spaces import check_space
from moss_sync.traffic import metered

MAX_RELISTS = 5
PUSH_RECORDS = 50_000

APPLIED = 1
"""There is no sequence of commits; every replica says the same here, and nothing rests on it."""

_NOTHING_SEEN = Seen(APPLIED, bytes(32), None, b"")


class LogEngine:
    """Exchanges one replica's records with everybody else's, without coordination."""

    def __init__(
        self,
        repository: Repository,
        replica: LogReplica,
        name: str,
        *,
        clock: Clock,
        run: Runner,
        exclusive: Exclusive,
        accepts: Callable[[VectorSpace], None],
        policy: LogPolicy = DEFAULT_POLICY,
    ) -> None:
        """Make an engine for the session called `name`; arguments as of SyncEngine."""
        self._repository = repository
        self._replica = replica
        self._name = name
        self._clock = clock
        self._run = run
        self._exclusive = exclusive
        self._accepts = accepts
        self._policy = policy
        self._channel = LogChannel(repository, name, clock=clock, run=run)
        self._looked = False

    def now_ms(self) -> int:
        """The wall clock in milliseconds since 1970, corrected by what the store has said."""
        return self._channel.time.now_ms()

    async def pull(self) -> SyncReport:
        """Merge what others have pushed and has arrived. One listing when there is nothing new.

        Raises:
            NetworkError: the store could not be reached; nothing changed.
            BlobCorruptError: what the store holds cannot be trusted; nothing changed.
            ModelMismatchError: the session's vectors are of another model.
        """
        return await self._exchange(self._pull)

    async def push(self) -> SyncReport:
        """Write every local change to the store; one request where the session is known here.

        Raises:
            NetworkError: the store could not be reached; the changes stay pending.
            ModelMismatchError, UnsupportedFormatError: nothing was written.
            ClockError: the store's clock and this device's contradict each other; the changes stay
                pending.
        """
        return await self._exchange(self._push)

    async def sync(self) -> SyncReport:
        """Pull, then push."""

        async def both(report: SyncReport) -> None:
            await self._pull(report)
            await self._push(report)

        return await self._exchange(both)

    async def compact(self) -> bool:
        """Tidy up, if it is time to; return whether blobs were merged and more may be to do."""
        keys = await self._repository.keys()
        if keys is None:
            return False
        await self._say_what_is_applied(keys)
        return await self._compact(keys)

    async def rewrite(self) -> int:
        """Return 0: the keys of a log follow from the project key and are never rotated."""
        return 0

    async def repair(self, *, force: bool = True, drop_unknown: bool = False) -> RepairReport:
        """Put back into the log what it has lost and this device holds.

        Blobs that are damaged are set aside and taken out of the log: nobody can read them there,
        and they keep deletions from being forgotten.
        If that, or a blob that is gone, leaves the log without pushes that this device has read,
        it pushes all that it holds anew; so does every other device that repairs.

        Args:
            force: Push everything anew also where nothing is wrong.
            drop_unknown: Take blobs that only a newer version could read for damaged.
        Raises:
            StoreChangedError: the store holds another repository; it is left alone.
            NetworkError: as push; repair again.
        """
        report = RepairReport()

        async def work(_: SyncReport) -> None:
            await self._repair(report, force=force, drop_unknown=drop_unknown)

        await self._exchange(work, report)
        return report

    async def check_erasable(self) -> None:
        """Raise NotInLogModeError, as `erase`."""
        raise NotInLogModeError("erasing")

    async def erase(self) -> SyncReport:
        """Raise NotInLogModeError: who still holds an older blob is not known."""
        raise NotInLogModeError("erasing")

    async def reembed(self, space: VectorSpace) -> SyncReport:
        """Raise NotInLogModeError: of which space a session is, its first vectors say for ever."""
        raise NotInLogModeError("moving a session to another model")

    async def publish_vectors(self) -> int:
        """Return 0: whoever reads a blob makes the vectors that it lacks."""
        return 0

    async def delete(self) -> SyncReport:
        """Raise NotInLogModeError: a deletion that arrives late would meet a session made anew."""
        raise NotInLogModeError("deleting a session")

    async def _exchange(
        self, work: Callable[[SyncReport], Awaitable[None]], report: SyncReport | None = None
    ) -> SyncReport:
        report = SyncReport() if report is None else report
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
            return  # nobody of this project has pushed anything yet, or `fmt` is not whole yet
        await self._attach(keys, report)
        view = await self._view()
        before = frozenset(view.held)
        missing: BlobNotFoundError | None = None
        for attempt in range(MAX_RELISTS):
            if attempt:
                await self._clock.sleep(self._channel.backoff(CONFLICT_BACKOFF_S, attempt))
            listing = await self._channel.listing(keys)
            if not listing.names and view.known.total:
                # Never so while the store is what it was, but for a listing that is behind.
                await self._repository.refresh()
            view = await self._check_identity(listing, view, report)
            try:
                blobs, lacking = await self._read_new(keys, listing, view)
            except BlobNotFoundError as error:
                missing = error  # merged into another meanwhile: a newer listing shows which
                continue
            await self._merge(listing, view, blobs, lacking, before, report)
            self._looked = True
            return
        raise BlobMissingError(
            f"the store lists blobs of session {self._name!r} that it does not have",
            hint="nothing changed here; pull again",
            detail=str(missing),
        )

    async def _read_new(
        self, keys: Keys, listing: Listing, view: View
    ) -> tuple[list[LogBlob], dict[str, Partial | Unread]]:
        """Read what is listed and not held: bases first, then pushes that are in none of them.

        What could not be read is tried again by every process, and when the store has it otherwise.
        """
        same = log_plan.unchanged(view, listing.etags) if self._looked else set()
        wanted = [name for name in log_plan.unread(view, listing.names) if name not in same]
        bases, lacking = await self._channel.read(
            keys, [name for name in wanted if listing.names[name].kind == "b"]
        )
        inside = log_plan.replaced(bases)
        bases = [blob for blob in bases if str(blob.name) not in inside]
        pushes, others = await self._channel.read(
            keys,
            [n for n in wanted if listing.names[n].kind == "s" and n not in inside],
        )
        lacking = {name: each for name, each in lacking.items() if name not in inside}
        return [*bases, *pushes], {**lacking, **others}

    async def _merge(
        self,
        listing: Listing,
        view: View,
        blobs: list[LogBlob],
        lacking: dict[str, Partial | Unread],
        before: frozenset[str],
        report: SyncReport,
    ) -> None:
        """Merge what was read into the replica, then remember it."""
        state: ReplicaState = await self._run(self._replica.state)
        space, since = log_plan.agreed_space(view, blobs)
        check_space(state.name, theirs=space, ours=state.space, accepts=self._accepts)
        aside = {
            str(blob.name): blob.segment.space.id
            for blob in blobs
            if blob.segment.space is not None and blob.segment.space != space
        }
        taken = log_plan.in_order(blob for blob in blobs if str(blob.name) not in aside)
        partial = {name: each for name, each in lacking.items() if isinstance(each, Partial)}
        unread = {name: each for name, each in lacking.items() if isinstance(each, Unread)}
        floors: list[Floor] = list(view.floors)
        for group in _grouped(taken):
            await self._merge_group(group, floors, space, report)
        now_ms = self._channel.time.wall_ms()

        def change(stored: bytes | None) -> bytes:
            held = log_view.decode(stored)
            if any(floor not in view.floors for floor in held.floors) and taken:
                # Another process of this device has learned meanwhile what is whole, and what was
                # merged here may be older news: those who say so are read once more.
                held = replace(
                    held, held={name: each for name, each in held.held.items() if not each.whole}
                )
            after = log_plan.with_read(
                held, listed=listing.sizes, blobs=taken, seen=before, at_ms=now_ms
            )
            return log_view.encode(
                replace(
                    after,
                    space=space,
                    since=since,
                    aside={**after.aside, **aside},
                    partial={
                        name: log_plan.still_partial(held, name, each)
                        for name, each in partial.items()
                    },
                    unread={**after.unread, **unread},
                )
            )

        changed = (
            taken or aside or partial or view.partial or view.unread != {**view.unread, **unread}
        )
        if changed or any(name not in listing.sizes for name in (*before, *view.unread)):
            await self._run(self._replica.remember, change)
        await self._discipline()
        view = await self._view()
        report.seq = view.known.total
        report.strays = listing.strays
        report.waiting = log_plan.waiting(
            view, state.dev, state.acked_n, listing.names.values(), self._channel.time.wall_ms()
        )

    async def _merge_group(
        self,
        group: Sequence[LogBlob],
        floors: list[Floor],
        space: VectorSpace | None,
        report: SyncReport,
    ) -> None:
        records: list[Record] = []
        for blob in group:
            if blob.whole and not any(reaches(floor, blob.whole) for floor in floors):
                await self._take_over(blob, report)
                floors[:] = highest([*floors, dict(blob.whole)])
            doubtful = log_plan.doubtful(blob, floors)
            known: set[str] = await self._run(self._replica.known, doubtful) if doubtful else set()
            records += [r for r in blob.segment.records if r.id not in doubtful or r.id in known]
        rejected = [each for blob in group for each in blob.segment.rejected]
        snapshot = Snapshot(records, APPLIED, space=space, rejected=rejected)
        counts = await self._run(self._replica.merge, snapshot, _NOTHING_SEEN)
        report.received += counts.received
        report.deleted += counts.deleted
        report.superseded += counts.superseded
        report.tell(counts.rejected)

    async def _take_over(self, blob: LogBlob, report: SyncReport) -> None:
        """Forget what a base that is whole does not hold any more."""
        keep = {record.id for record in blob.segment.records}
        went, anew = await self._run(
            lambda: self._replica.forget(
                blob.whole,
                keep,
                tomb_limit=blob.forgot,
                now_ms=self._channel.time.now_ms(),
            )
        )
        report.deleted += went
        report.reasserted += anew

    # -- push ------------------------------------------------------------------------------

    async def _push(self, report: SyncReport) -> None:
        async with self._exclusive():
            state: ReplicaState = await self._run(self._replica.state)
            view = await self._view()
            if state.pending is None and state.dirty == 0 and view.head_ms is not None:
                report.seq = view.known.total
                return
            keys = await self._repository.attach()
            await self._attach(keys, report)
            await self._repository.ready_to_write()
            if not self._looked:
                # Who this file is, and of which model the session is, stands in the store.
                await self._pull(report)
                view = await self._view()
            if not view.known.total:
                await self._repository.confirm()
            state = await self._run(self._replica.state)
            check_space(state.name, theirs=view.space, ours=state.space, accepts=self._accepts)
            await self._repository.check_time(self._channel.time)
            if view.head_ms is None:
                await self._write_head(keys, state, view)
            while state.pending is not None or state.dirty:
                if state.pending is None:
                    await self._prepare(keys)
                    state = await self._run(self._replica.state)
                if state.pending is None:
                    break
                await self._commit(keys, state, state.pending, report)
                state = await self._run(self._replica.state)
            report.seq = (await self._view()).known.total

    async def _prepare(self, keys: Keys) -> None:
        """Step 2: choose what goes, under which number and name, and keep its exact bytes."""
        await self._discipline()
        state: ReplicaState = await self._run(self._replica.state)
        view = await self._view()
        records: list[Record] = await self._run(
            lambda: self._replica.dirty(
                max_bytes=segment.MAX_SEGMENT_BYTES, max_records=PUSH_RECORDS
            )
        )
        if not records:
            return
        has_vectors = any(record.vector is not None for record in records)
        n, now_ms = state.n + 1, self._channel.time.now_ms()
        # Its own number is not written: the reader takes it from the name.
        fresh = [replace(record, commit_seq=None) for record in records]
        pushed = Segment(state.dev, n, 0, state.space if has_vectors else None, view.tip, fresh)
        payload: bytes = await self._run(segment.encode, pushed)
        plain = log_blob.encode(
            payload,
            ct=now_ms,
            since=(view.since or Since(now_ms, state.dev)) if has_vectors else None,
            covers=Coverage.of(state.dev, n),
        )
        name, body = await self._channel.sealed(keys, plain, kind="s", dev=state.dev, number=n)
        pending = Pending(
            n=n,
            base=0,
            key=self._channel.key(keys, str(name)),
            tip=tip_of(str(name).encode()),
            body=body,
            docs=sum(not record.deleted for record in records),
            tombs=sum(record.deleted for record in records),
            plain=packing.plain_size(payload),
            hlc_max=max(record.version.hlc for record in records),
        )
        versions = [(record.id, record.version) for record in records]
        await self._run(lambda: self._replica.save_pending(pending, versions, dev=state.dev))

    async def _commit(
        self, keys: Keys, state: ReplicaState, pending: Pending, report: SyncReport
    ) -> None:
        """Steps 3 and 4 for the pending push."""
        if pending.key is None:
            raise MossError(f"session {state.name!r} has a prepared push that belongs elsewhere")
        await self._channel.put(pending.key, pending.body)
        name = "s/" + pending.key.rsplit("/", 1)[1].removeprefix("s-")
        covers = Coverage.of(state.dev, pending.n)
        now_ms = self._channel.time.wall_ms()
        first: LogBlob | None = None
        if (await self._view()).since is None and state.space is not None:
            # It may be this push that says of which space the session is; its bytes tell.
            first = await self._channel.opened(keys, name, pending.body)

        def change(stored: bytes | None) -> bytes:
            view = log_view.decode(stored)
            space, since = log_plan.agreed_space(view, [] if first is None else [first])
            return log_view.encode(
                replace(
                    log_plan.with_push(view, pending.n, pending.tip, high=pending.hlc_max),
                    held={
                        **view.held,
                        name: Held(
                            covers=covers,
                            replaces=(),
                            whole={},
                            at_ms=now_ms,
                            bytes=len(pending.body),
                            plain=pending.plain,
                            docs=pending.docs,
                            tombs=pending.tombs,
                            oldest_tomb=pending.hlc_max if pending.tombs else 0,
                            fp=None if space is None else space.fingerprint,
                        ),
                    },
                    known=view.known.plus(covers),
                    space=space,
                    since=since,
                )
            )

        await self._run(self._replica.remember, change)
        # Stamps are never cut: there is no agreed time to cut them by.
        committed = Committed(state.dev, pending.n, commit_seq=pending.n, limit=LAST_STAMP)
        await self._run(self._replica.settle, committed)
        report.sent += pending.docs
        report.sent_deletes += pending.tombs

    # -- repairing -------------------------------------------------------------------------

    async def _repair(self, report: RepairReport, *, force: bool, drop_unknown: bool) -> None:
        mended = await self._repository.mend(drop_unknown=drop_unknown)
        report.keys_restored, report.aside = mended.restored, mended.aside
        keys = await self._repository.attach()
        await self._attach(keys, report)
        listing = await self._channel.listing(keys)
        damaged, cut = await self._channel.examined(keys, listing.names, drop_unknown=drop_unknown)
        state: ReplicaState = await self._run(self._replica.state)
        heads = await self._channel.damaged_heads(keys, drop_unknown=drop_unknown)
        sid = self._channel.sid(keys)
        for kind, found in (("log", damaged), ("head", heads)):
            for key, data in found.items():
                report.aside += (await self._repository.set_aside(kind, data, sid=sid),)
                await self._repository.store.delete(key)
        await self._pull(report)
        view = await self._view()
        held = Coverage().plus(*(e.covers for name, e in view.held.items() if name not in cut))
        report.blobs, report.lost_blobs = len(listing.names), len(damaged)
        if damaged or heads or held.total < view.known.total:
            missing = view.known.total - held.total
            report.trouble = (
                f"{len(damaged) + len(heads)} blobs of the log were damaged, and "
                f"{missing} pushes that this device has read are gone from it"
            )
        if force or report.trouble is not None or not await self._has_head(keys, state.dev):
            report.rebuilt = True
            await self._run(self._replica.offer)
            await self._run(
                self._replica.remember,
                lambda stored: log_view.encode(replace(log_view.decode(stored), head_ms=None)),
            )
        await self._push(report)

    async def _has_head(self, keys: Keys, dev: bytes) -> bool:
        heads, complete = await self._channel.heads(keys)
        view = await self._view()
        return not complete or view.head_ms is None or any(head.dev == dev for head in heads)

    # -- tidying up ------------------------------------------------------------------------

    async def _say_what_is_applied(self, keys: Keys) -> None:
        """Write the head anew, if it is time to: deletions everybody knows of can be forgotten."""
        view = await self._view()
        if view.head_ms is None or not log_plan.head_is_due(
            view, self._channel.time.wall_ms(), self._policy
        ):
            return
        async with self._exclusive():
            state: ReplicaState = await self._run(self._replica.state)
            # A prepared push may hold what has lost to a deletion since; it must be in first.
            if state.pending is None:
                await self._repository.check_time(self._channel.time)
                await self._write_head(keys, state, await self._view())

    async def _write_head(self, keys: Keys, state: ReplicaState, view: View) -> None:
        applied = view.known.floor()
        head = Head(
            sid=self._channel.sid(keys),
            name=state.name,
            dev=state.dev,
            inc=state.inc,
            n=state.n,
            ct=self._channel.time.now_ms(),
            applied=applied,
            model_id=None if state.space is None else state.space.id,
        )
        await self._channel.write_head(keys, head)
        now_ms = self._channel.time.wall_ms()
        await self._run(
            self._replica.remember,
            lambda stored: log_view.encode(
                replace(log_view.decode(stored), head_ms=now_ms, head_applied=applied)
            ),
        )

    async def _compact(self, keys: Keys) -> bool:
        listing = await self._channel.listing(keys)
        await self._sweep(keys, listing)
        view = await self._view()
        state: ReplicaState = await self._run(self._replica.state)
        unread = log_plan.unread(view, listing.names)
        tombs = sum(held.tombs for held in view.held.values())
        heads: list[Head] = []
        complete = False
        waits = unread or view.aside or view.unread
        if tombs > self._policy.min_tombstones and not waits:
            heads, complete = await self._channel.heads(keys)
        complete = complete and state.pending is None
        # Nothing may be ripe among what looked so: then what is merged is as without.
        for forgetting in (True, False) if complete else (False,):
            merge = log_plan.plan_merge(
                view,
                listing.sizes,
                dev=state.dev,
                heads=heads,
                complete=forgetting,
                now_ms=self._channel.time.now_ms(),
                policy=self._policy,
            )
            if merge is not None and await self._write_base(keys, state, listing, merge):
                await self._sweep(keys, await self._channel.listing(keys))
                return True
        return False

    async def _write_base(
        self, keys: Keys, state: ReplicaState, listing: Listing, merge: Merge
    ) -> bool:
        """Write the union of some blobs; False when one of them is gone, or nothing would go."""
        try:
            blobs, lacking = await self._channel.read(keys, merge.names)
        except BlobNotFoundError:
            return False
        if lacking:
            await self._drop_damaged(lacking)
            return False
        await self._repository.check_time(self._channel.time)
        ids = {record.id for blob in blobs for record in blob.segment.records}
        known: set[str] = await self._run(self._replica.known, ids)
        now_ms = self._channel.time.now_ms()
        union = log_plan.merged(blobs, known, merge, now_ms=now_ms, policy=self._policy)
        if merge.stable is not None and not union.left_out:
            return False  # everything is still too young
        space = next((b.segment.space for b in blobs if b.segment.space is not None), None)
        payload: bytes = await self._run(
            segment.encode, Segment(state.dev, 0, 0, space, b"", union.records)
        )
        base = log_blob.encode(
            payload,
            ct=now_ms,
            since=min((b.since for b in blobs if b.since is not None), default=None),
            covers=Coverage().plus(*(blob.covers for blob in blobs)),
            # Not what went long ago: the list would grow for ever.
            replaces=tuple(
                sorted({*merge.names, *(log_plan.replaced(blobs) & listing.sizes.keys())})
            ),
            whole=union.whole,
            forgot=union.forgot,
        )
        name, sealed = await self._channel.sealed(keys, base, kind="b", dev=state.dev, number=0)
        await self._channel.put(self._channel.key(keys, str(name)), sealed)
        made = log_blob.decode(base, name)
        if merge.stable is not None:
            await self._take_over(made, SyncReport())
        listed, at_ms = {**listing.sizes, str(name): len(sealed)}, self._channel.time.wall_ms()
        await self._run(
            self._replica.remember,
            lambda stored: log_view.encode(
                log_plan.with_read(
                    log_view.decode(stored), listed=listed, blobs=[made], seen=(), at_ms=at_ms
                )
            ),
        )
        return True

    async def _drop_damaged(self, lacking: Mapping[str, Partial | Unread]) -> None:
        """Hold no more what has become unreadable in the store: other blobs are merged without."""
        damaged = {name: each for name, each in lacking.items() if isinstance(each, Unread)}

        def change(stored: bytes | None) -> bytes:
            view = log_view.decode(stored)
            held = {name: each for name, each in view.held.items() if name not in damaged}
            return log_view.encode(replace(view, held=held, unread={**view.unread, **damaged}))

        if damaged:
            await self._run(self._replica.remember, change)

    async def _sweep(self, keys: Keys, listing: Listing) -> None:
        """Delete what is inside a base that is held here."""
        state: ReplicaState = await self._run(self._replica.state)
        now_ms = self._channel.time.wall_ms() if self._channel.replicated else None
        view = await self._view()
        await self._channel.delete(
            keys,
            log_plan.sweepable(view, listing.sizes, state.dev, now_ms=now_ms, policy=self._policy),
        )

    # -- both ------------------------------------------------------------------------------

    async def _attach(self, keys: Keys, report: SyncReport) -> None:
        report.session_id = self._channel.sid(keys)
        await self._run(self._replica.attach, keys.repo_id)

    async def _view(self) -> View:
        view = log_view.decode(await self._run(self._replica.recall))
        if high := observe(0, view.high):
            self._channel.time.committed(to_ms(high))
        return view

    async def _check_identity(self, listing: Listing, view: View, report: SyncReport) -> View:
        """Go on as another device where another file writes under this one's id."""
        state: ReplicaState = await self._run(self._replica.state)
        own = None
        if state.pending is not None and state.pending.key is not None:
            own = state.pending.tip
        names = [
            name
            for name in listing.names.values()
            if listing.tips[str(name)] != own  # written, and the process died before it knew
        ]
        since = log_plan.foreign_push(view, names, state.dev, state.n, listing.tips)
        if since is None:
            return view
        token = self._clock.token

        def change(stored: bytes | None) -> bytes:
            return log_view.encode(
                replace(
                    log_view.decode(stored),
                    held={},  # its own pushes of before are another device's now: they are read
                    own={},
                    head_ms=None,
                    head_applied={},
                )
            )

        await self._run(
            lambda: self._replica.become(
                token(DEVICE_BYTES), token(DEVICE_BYTES), was=state.dev, since=since
            )
        )
        await self._run(self._replica.remember, change)
        report.older_copy = True
        return await self._view()

    async def _discipline(self) -> None:
        view = await self._view()
        limit = stamp_limit(self._channel.time.now_ms())
        await self._run(self._replica.discipline, limit, view.high)


def _grouped(blobs: Sequence[LogBlob]) -> list[list[LogBlob]]:
    """Return blobs in groups that are merged at once: each that is whole alone, then the rest."""
    whole = [[blob] for blob in blobs if blob.whole]
    rest = [blob for blob in blobs if not blob.whole]
    return [*whole, rest] if rest else whole
