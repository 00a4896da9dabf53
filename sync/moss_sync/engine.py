"""The engine of one session: its exchange, and what else its life needs.

Merging small blobs and collecting merged ones, erasing, moving to another vector space, deleting
for everybody, repairing a store that has lost something, sealing anew after a rotation. Each is a
few exchanges around one compare-and-swap of the manifest, whose content `plan`, `tiers` and
`epochs` decide. A crash at any await leaves what was there before or what is there after; an
unknown outcome is settled by looking again.
Source: SYNC-PROTOCOL 2.7, 2.9, 2.10, 2.14 and 2.15.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from moss_sync import epochs, plan
from moss_sync.channel import CONFLICT_BACKOFF_S, without_damaged_inline
from moss_sync.collection import collect
from moss_sync.compaction import compact
from moss_sync.errors import (
    BlobCorruptError,
    BlobNotFoundError,
    ContentionError,
    HistoryError,
    NotFoundError,
    OutcomeUnknownError,
    StoreBusyError,
    UnsupportedFormatError,
    repair_command,
)
from moss_sync.exchange import MAX_ATTEMPTS, Exchange
from moss_sync.history import Side
from moss_sync.keyring import Keys
from moss_sync.manifest import Manifest
from moss_sync.rebuild import Rebuilding
from moss_sync.record import DEVICE_BYTES, VectorSpace
from moss_sync.repair import begun_anew, believed, foundation, with_repair
from moss_sync.replica import ReplicaState, Seen
from moss_sync.report import RepairReport, SyncReport
from moss_sync.tiers import Compaction, are_of_epoch, everything, plan_compaction, plan_vectors
from moss_sync.times import is_ahead, shown

MAX_ERASURES = 8

MAX_COMMITS_MADE = 2**32
"""More than a session can have had: a blob that states more was made up, and is listed by nobody
before a session has come that far."""

MAX_MISSED_REWRITES = 8
"""In a row; each has cost an upload that somebody else's commit made useless."""


class SyncEngine(Exchange):
    """Exchanges one replica's records with everybody else's, and keeps the session in order."""

    _collected_at: float | None = None

    async def compact(self) -> bool:
        """Merge small segments into fewer, if it is time to; return whether it was done.

        Now and then it also deletes what was merged away long enough ago.
        """
        policy = self._channel.policy
        done = await self._compact(lambda current: plan_compaction(current, policy, self.now_ms()))
        now = self._clock.monotonic()
        pause_s = policy.grace_ms / 4000
        if done and (self._collected_at is None or now - self._collected_at >= pause_s):
            self._collected_at = now
            await self.collect()
        return done

    async def collect(self) -> int:
        """Delete blobs that nobody can need any more; return how many."""
        keys = await self._repository.keys()
        if keys is None:
            return 0
        return await collect(self._channel, keys, self._replica, self._run)

    async def check_erasable(self) -> None:
        """Return: what commits by compare-and-swap can be erased."""

    async def erase(self) -> SyncReport:
        """Rewrite the session without any superseded content, and delete what held it.

        When this returns, no blob of the store holds a version that had been replaced, here or by
        anybody's commit, when it was called. (What a device was uploading at that very moment can
        be committed by nobody any more, and goes with the next collection.)

        Raises:
            ContentionError: others kept committing; nothing is lost, erase again.
        """
        return await self._exchange(self._erase, SyncReport())

    async def _erase(self, report: SyncReport) -> None:
        target: int | None = None
        for attempt in range(MAX_ERASURES):
            keys = await self._repository.keys()
            if keys is None:
                await self._check_never_exchanged()
                return
            await self._pull(report)
            await self._push(report)
            known = self._channel.remembered(await self._run(self._replica.state))
            if known is None:
                continue
            # Whoever wrote on top of less than this may have written what was replaced since.
            target = known[0].seq if target is None else target
            rewritten: Manifest | None = known[0]
            if everything(known[0]) is not None:
                rewritten = await self._merge(everything, erasing=True)
            if rewritten is not None and rewritten.gc_floor >= target:
                await self.collect()
                await self._channel.delete_asides(keys)
                return
            await self._clock.sleep(self._channel.backoff(CONFLICT_BACKOFF_S, attempt))
        raise ContentionError(
            "others changed the session while it was rewritten",
            hint="what was to be erased may still be in the store; erase again",
        )

    async def reembed(self, space: VectorSpace) -> SyncReport:
        """Move the session to another vector space, for everybody, by one swap of the manifest.

        Texts, ids and versions stay what they are. Afterwards no document here has a vector that
        is not of the new space; to make the others is up to the caller, on every device.

        Raises:
            NetworkError: the store could not be reached; nothing is moved.
            ContentionError: others kept committing; nothing is moved.
        """

        async def work(report: SyncReport) -> None:
            await self._pull(report)
            await self._push(report)
            await self._move(report, space)
            await self._pull(report)

        return await self._exchange(work, SyncReport())

    async def _move(self, report: SyncReport, space: VectorSpace) -> None:
        async with self._exclusive():
            keys = await self._repository.attach()
            state: ReplicaState = await self._run(self._replica.state)
            for attempt in range(MAX_ATTEMPTS):
                current = await self._channel.read_manifest(keys, state)
                if current is None or current[0].space == space:
                    return
                parent, seen = current
                self._channel.check_writable(parent)
                following = plan.with_space(parent, await self._channel.author(state, seen), space)
                if await self._written(keys, following, seen):
                    return
                report.lost_races += 1
                await self._clock.sleep(self._channel.backoff(CONFLICT_BACKOFF_S, attempt))
        raise ContentionError(
            f"session {state.name!r} changed all the time while it was to be moved",
            hint="nothing has changed; do it again",
        )

    async def publish_vectors(self) -> int:
        """Put the vectors that this device has made into the store; return how often it merged.

        For devices that open the session anew: those that have it make their own. Never needed,
        and what others are merging is left to them.
        """
        await self.sync()
        known = self._channel.remembered(await self._run(self._replica.state))
        if known is None or known[0].space is None:
            return 0
        fingerprint, upto = known[0].space.fingerprint, known[0].seq
        old = {entry.name for entry in known[0].entries if entry.fp != fingerprint}
        done = 0
        # Each merge takes one of them off the list, at least, or the inline pushes.
        while done <= len(old) and await self._merge(
            lambda parent: plan_vectors(parent, old, upto)
        ):
            done += 1
        return done

    async def delete(self) -> SyncReport:
        """Delete the session for everybody; its documents here go too.

        A device that has unpushed changes to it sets them aside when it learns of the deletion.
        """
        return await self._exchange(self._delete, SyncReport())

    async def repair(self, *, force: bool = True, drop_unknown: bool = False) -> RepairReport:
        """Put the session together anew: what the store still has, and all that this device holds.

        Every other device then adds what it holds, by itself. For a store that was wiped, restored
        from a backup or has lost blobs; on a healthy one it only costs bytes.

        Args:
            force: False looks first, which reads every blob of the session, and where nothing is
                wrong this is an ordinary exchange.
            drop_unknown: Leave out of the session what this version does not know: keys and
                features of the manifest, and blobs of a newer version. Only where nobody has one.
        Raises:
            NotFoundError: neither the store nor this device knows the project's keys there.
            StoreChangedError: the store holds another repository; it is left alone.
            NetworkError: as push; repair again.
        """

        async def work(report: RepairReport) -> None:
            await self._repair(report, force=force, drop_unknown=drop_unknown)

        return await self._exchange(work, RepairReport())

    async def _compact(
        self, choose: Callable[[Manifest], Compaction | None], *, erasing: bool = False
    ) -> bool:
        return await self._merge(choose, erasing=erasing) is not None

    async def _merge(
        self, choose: Callable[[Manifest], Compaction | None], *, erasing: bool = False
    ) -> Manifest | None:
        keys = await self._repository.keys()
        if keys is None:
            return None
        return await compact(
            self._channel,
            keys,
            self._replica,
            self._run,
            self._exclusive,
            choose,
            erasing=erasing,
        )

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
            if known is None or not epochs.is_old(known[0], newest):
                return done
            if epochs.plan_rewrite(known[0], newest) is None:
                missed += not await self._sealed_anew(keys)  # it lists nothing
            elif await compact(
                self._channel,
                keys,
                self._replica,
                self._run,
                self._exclusive,
                lambda parent: epochs.plan_rewrite(parent, newest),
            ):
                done, missed = done + 1, 0
            else:
                missed += 1
        raise ContentionError(
            f"session {state.name!r} still has blobs under an old key: others merge them as well",
            hint="try again when they are quiet: moss-local rotate-key --rewrite-only",
        )

    async def _sealed_anew(self, keys: Keys) -> bool:
        """Commit the session as it is, under the newest key; False where others were first."""
        async with self._exclusive():
            state: ReplicaState = await self._run(self._replica.state)
            current = self._channel.remembered(state)
            if current is None:
                return False
            parent, seen = current
            author = await self._channel.author(state, seen)
            following = plan.next_commit(parent, author, repo_id=parent.repo_id, sid=parent.sid)
            return await self._written(keys, following, seen) is not None

    # -- the life of a session -------------------------------------------------------------

    async def _delete(self, report: SyncReport) -> None:
        async with self._exclusive():
            keys = await self._repository.keys()
            if keys is None:
                await self._check_never_exchanged()
                return
            await self._attach(keys, report)
            await self._repository.ready_to_write()
            state: ReplicaState = await self._run(self._replica.state)
            for attempt in range(MAX_ATTEMPTS):
                current = await self._channel.read_manifest(keys, state)
                if current is None or current[0].deleted:
                    break
                parent, seen = current
                self._channel.check_writable(parent)
                following = plan.with_deletion(parent, await self._channel.author(state, seen))
                if await self._written(keys, following, seen):
                    break
                await self._clock.sleep(self._channel.backoff(CONFLICT_BACKOFF_S, attempt))
            else:
                raise ContentionError(
                    f"session {state.name!r} changed all the time while it was to be deleted",
                    hint="delete it again",
                )
        await self._pull(report)
        await collect(self._channel, keys, self._replica, self._run)
        await self._channel.delete_asides(keys)

    async def _repair(self, report: RepairReport, *, force: bool, drop_unknown: bool) -> None:
        mended = await self._repository.mend(drop_unknown=drop_unknown)
        report.keys_restored, report.aside = mended.restored, mended.aside
        keys = await self._repository.attach()
        await self._attach(keys, report)
        await self._repository.ready_to_write()
        async with self._exclusive():
            state: ReplicaState = await self._run(self._replica.state)
            report.trouble = await self._trouble(keys, state, report, drop_unknown)
            if force or report.trouble is not None:
                report.rebuilt = await self._put_together(keys, state, report, drop_unknown)
        await self._pull(report)
        await self._push(report)
        await collect(self._channel, keys, self._replica, self._run)

    async def _trouble(
        self, keys: Keys, state: ReplicaState, report: RepairReport, drop_unknown: bool
    ) -> str | None:
        """Return what is wrong with what the store holds of the session; None if nothing is."""
        try:
            found = await self._channel.read_manifest(keys, state)
        except (HistoryError, BlobCorruptError) as error:
            return str(error)
        except UnsupportedFormatError as error:
            if not drop_unknown:
                raise
            return str(error)
        if found is None:
            return None
        current = found[0]
        if is_ahead(current.ct, self.now_ms()):
            return f"the session's time is in the future, {shown(current.ct)}"
        if drop_unknown and current != current.without_unknown():
            return "the session's manifest holds what this version does not know"
        sound = without_damaged_inline(current, drop_unknown=drop_unknown)
        if (damaged := len(current.inline) - len(sound.inline)) > 0:
            return f"{damaged} of the small pushes in the session's manifest are damaged"
        lost = await self._channel.unreadable(keys, current, drop_unknown=drop_unknown)
        report.blobs, report.lost_blobs = len(current.entries), len(lost)
        if not lost:
            return None
        return f"of {report.blobs} blobs that the session lists, {len(lost)} are missing or damaged"

    async def _put_together(
        self, keys: Keys, state: ReplicaState, report: RepairReport, drop_unknown: bool
    ) -> bool:
        """Commit the session anew; False where there is nothing to begin with."""

        def sound(held: Manifest | None) -> Manifest | None:
            if held is None:
                return None
            kept = held.without_unknown() if drop_unknown else held
            kept = epochs.counted(kept, self._repository.opened.floor)
            return without_damaged_inline(kept, drop_unknown=drop_unknown)

        remembered = self._channel.remembered(state)
        known = None
        if remembered is not None and (manifest := sound(remembered[0])) is not None:
            known = Side(manifest, remembered[1].hash)
        for attempt in range(MAX_ATTEMPTS):
            if attempt:
                await self._clock.sleep(self._channel.backoff(CONFLICT_BACKOFF_S, attempt - 1))
            current, seen, damaged = await self._channel.read_to_replace(
                keys, None if known is None else known.manifest, drop_unknown=drop_unknown
            )
            current = sound(current)
            shown = None if current is None or seen is None else Side(current, seen.hash)
            mine = believed(shown, known, self._repository.opened.floor)
            shunned = known if mine is None else None
            found = foundation(shown, mine)
            if found is None:
                if seen is None:
                    return False
                if not drop_unknown or damaged is None:
                    raise self._never_seen(state)
                await self._channel.set_aside(keys, report, "manifest", damaged)
                if await self._written(keys, await self._begun_anew(keys, state), seen):
                    return True
                continue
            for side in found.sides:
                self._channel.check_writable(side.manifest)
            if damaged is not None:
                await self._channel.set_aside(keys, report, "manifest", damaged)
            rebuilding = Rebuilding(
                self._channel,
                keys,
                self._replica,
                self._run,
                state=state,
                found=found,
                known=mine,
                drop_unknown=drop_unknown,
            )
            try:
                prepared = await rebuilding.prepare(report)
                present = frozenset() if shunned is None else await rebuilding.present()
            except BlobNotFoundError:
                continue  # merged or collected meanwhile
            author = await self._channel.author(state, seen)
            if not are_of_epoch(prepared.outputs, author.epoch):
                continue  # written before a rotation that this device has met meanwhile
            following = with_repair(
                found,
                author,
                lost=prepared.lost,
                outputs=prepared.outputs,
                not_life=None if shunned is None else state.life,
            )
            written = await self._written(keys, following, seen)
            if written is not None:
                if shunned is not None:
                    report.quarantined += await self._leave(following, written, present)
                latest_ms = max(side.manifest.ct for side in found.sides)
                report.set_back_ms = max(0, latest_ms - following.ct)
                return True
        raise ContentionError(
            f"session {state.name!r} changed all the time while it was to be repaired",
            hint=f"repair it again: {repair_command(state.name)}",
        )

    def _never_seen(self, state: ReplicaState) -> NotFoundError:
        command = repair_command(state.name, drop_unknown=True)
        return NotFoundError(
            f"what the store holds of session {state.name!r} is damaged, and this device has never "
            "seen it whole",
            hint=f"on a device that holds the session: {repair_command(state.name)}; if there is "
            f"none, this begins it anew with what is here: {command}",
        )

    async def _begun_anew(self, keys: Keys, state: ReplicaState) -> Manifest:
        """Return the first manifest of a session of which nobody can say what it was."""
        author = await self._channel.author(state, None)
        left = await self._channel.below(keys, 0, whole=True)
        bases = [name.base for name, _ in left if name.base < MAX_COMMITS_MADE]
        seq = max(bases, default=0) + 1
        return begun_anew(author, repo_id=keys.repo_id, sid=self._channel.sid(keys), seq=seq)

    async def _leave(
        self, following: Manifest, written: Seen, present: frozenset[tuple[str, bytes]]
    ) -> int:
        """Go on from a repair's commit, whatever this device has seen; return what it set aside.

        What it has seen is not believed: neither its numbers, which no commit may come after, nor
        its documents and deletions. Its own edits stay.
        """
        moved: int = await self._run(
            partial(
                self._replica.start_life,
                written,
                self._clock.token(DEVICE_BYTES),
                self._clock.token(DEVICE_BYTES),
                keep="edits",
                joint=0,
                correction=plan.correction(following, following, self.now_ms()),
                present=present,
            )
        )
        return moved

    async def _written(self, keys: Keys, following: Manifest, seen: Seen | None) -> Seen | None:
        """Send one compare-and-swap; None where it was refused or its outcome is not known."""
        try:
            return await self._channel.write_manifest(keys, following, seen)
        except (OutcomeUnknownError, StoreBusyError):
            return None
