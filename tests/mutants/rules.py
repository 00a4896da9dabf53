"""The protocol's safety rules, each with a patch that takes it away from the shipped code.

Only the tests apply these. A rule whose removal no test notices is either not needed or not proved:
`make mutants` takes them away one by one and says which test, or which simulated schedule, notices.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

from moss_local.storage import edits as storage_edits
from moss_local.storage import replica as storage_replica
from moss_local.storage.held import hold_all
from moss_local.storage.log_replica import SqliteLogReplica
from moss_local.storage.replica import SqliteReplica
from moss_sync import (
    channel,
    checkpoint,
    clock,
    collection,
    compaction,
    engine,
    epochs,
    floors,
    history,
    keyring,
    layout,
    log_blob,
    manifest,
    marks,
    merge,
    plan,
    probe,
    rebuild,
    repair,
    repository,
    revocation,
    seal,
    segment,
    setbacks,
    tiers,
    times,
    verdict,
)
from moss_sync.errors import BlobCorruptError, ManifestMissingError, OutcomeUnknownError
from moss_sync.hlc import MAX_STAMP
from moss_sync.manifest import Manifest
from moss_sync.replica import Pending, ReplicaState, Snapshot
from moss_sync.repository import Repository
from moss_sync.stores import beneath, folder, folder_blob, s3, s3_client

ENGINE = "tests/moss_sync/test_engine.py"
ADOPTION = "tests/moss_sync/test_adoption.py"
FORGETTING = "tests/moss_sync/test_forgetting.py"
MARKS = "tests/moss_sync/test_marks.py"
ROLLBACK = "tests/moss_sync/test_rollback.py"
HISTORY = "tests/moss_sync/test_history.py"
REPAIR = "tests/moss_sync/test_repair.py"
CHECKPOINT = "tests/moss_sync/test_checkpoint.py"
LIVES = "tests/moss_sync/test_lives.py"
CLOCKS = "tests/moss_sync/test_clocks.py"
DAMAGE = "tests/moss_sync/test_damage.py"
VERDICT = "tests/moss_sync/test_verdict.py"
HOSTILE_CLOCKS = "tests/moss_sync/test_hostile_clocks.py"
PLAN = "tests/moss_sync/test_plan.py"
REMOVED = "tests/moss_sync/test_removed_member.py"
ROTATION = "tests/moss_sync/test_rotation.py"
TIERS = "tests/moss_sync/test_tiers.py"
SEGMENT = "tests/moss_sync/test_segment.py"
ARRIVALS = "tests/moss_sync/test_arrivals.py"
LOG_ARRIVALS = "tests/moss_sync/test_log_arrivals.py"
MANIFESTS = "tests/moss_sync/test_hostile_manifests.py"
REPLICA = "tests/moss_local/test_storage_replica.py"
FOREIGN_FILES = "tests/moss_sync/test_stores_foreign_files.py"
HOSTILE = "tests/moss_sync/test_stores_s3_hostile.py"


async def _no_epoch(repository: Repository) -> int:
    return 0


@dataclass(frozen=True)
class Mutant:
    """One rule taken away.

    Attributes:
        name: For the command line.
        rule: What the shipped code does and the mutant does not.
        remove: Applies the patches; they end with the stack.
        directed: Tests of which at least one must fail.
    """

    name: str
    rule: str
    remove: Callable[[ExitStack], None]
    directed: tuple[str, ...]


def swap(target: object, name: str, new: object) -> Callable[[ExitStack], None]:
    """Return a removal that is one exchanged function or constant."""

    def remove(stack: ExitStack) -> None:
        stack.enter_context(patch.object(target, name, new))

    return remove


def swaps(*removals: Callable[[ExitStack], None]) -> Callable[[ExitStack], None]:
    def remove(stack: ExitStack) -> None:
        for each in removals:
            each(stack)

    return remove


def around(target: object, name: str, wrap: Callable[..., Any]) -> Callable[[ExitStack], None]:
    """Return a removal by a function that gets the shipped one as its first argument."""

    def remove(stack: ExitStack) -> None:
        shipped = getattr(target, name)

        def mutated(*args: Any, **options: Any) -> Any:
            return wrap(shipped, *args, **options)

        stack.enter_context(patch.object(target, name, mutated))

    return remove


# -- what the removals do ------------------------------------------------------------------------


async def _merge_without_erasing(shipped: Any, self: Any, choose: Any, **_: Any) -> Any:
    return await shipped(self, choose)


async def _believe_any_epoch(shipped: Any, self: Any, keys: Any, known: Any, **o: Any) -> Any:
    return await shipped(self, keys, None, **o)


def _collect_unlisted(manifest: Manifest, names: Sequence[tuple[Any, int]]) -> list[Any]:
    listed = {entry.name for entry in manifest.entries}
    return [name for name, _ in names if str(name) not in listed]


async def _all_names(shipped: Any, self: Any, keys: Any, floor: int, **_: Any) -> Any:
    return await shipped(self, keys, layout.MAX_BASE, whole=True)


def _of_the_first_epoch(shipped: Any, manifest: Any, *args: Any, **options: Any) -> Any:
    old = None if manifest is None else replace(manifest, epoch=1)
    return shipped(old, *args, **options)


async def _waiting_of_any_epoch(
    shipped: Any, self: Any, keys: Any, floor: int, *, epoch: int
) -> Any:
    found = [
        await shipped(self, keys, floor, epoch=each) for each in self._repository.roots.by_epoch
    ]
    return [each for names in found for each in names]


def _adoptable_of_any_base(shipped: Any, manifest: Manifest, *args: Any, **options: Any) -> Any:
    return shipped(replace(manifest, seq=layout.MAX_BASE), *args, **options)


def _blob_of_its_epoch_alone(entry: Any, name: Any, sealed: bytes) -> None:
    if seal.epoch_of(sealed) != entry.epoch:
        raise BlobCorruptError("of another epoch")


def _blob_of_its_hash_alone(entry: Any, name: Any, sealed: bytes) -> None:
    if not layout.is_blob_of(name, sealed):
        raise BlobCorruptError("it is not the blob that was listed")


async def _never_asking_for_the_floor(shipped: Any, self: Any, current: Any) -> None:
    self._asked = True
    await shipped(self, current)


async def _nothing_deleted(self: Any, keys: Any) -> None:
    """Leave it."""


async def _empty_and_others_left(repository: Any, clock: Any, epoch: int, sealed: Any) -> None:
    return None


def _everything_held(conn: Any, present: Any) -> int:
    hold_all(conn)
    return 0


async def _opened_by_some_key(repository: Any, keys: Any, sid: str) -> bool:
    return True


async def _opened_by_no_key(repository: Any, keys: Any, sid: str) -> bool:
    return False


def _purge_by_prefix(manifest: Manifest, floor: int) -> Any:
    entries = tuple(each for each in manifest.entries if each.lo < floor)
    inline = tuple(each for each in manifest.inline if each.seq <= floor)
    return tiers.Compaction(entries, inline, purge=floor) if entries or inline else None


def _purge_unfenced(shipped: Any, parent: Manifest, *args: Any, **options: Any) -> Any:
    following = shipped(parent, *args, **options)
    return None if following is None else replace(following, gc_floor=parent.gc_floor)


def _merge_without_clock(shipped: Any, self: Any, snapshot: Snapshot, seen: Any) -> Any:
    return shipped(self, replace(snapshot, tomb_hlc=0), seen)


def _merge_then_purge(shipped: Any, self: Any, snapshot: Snapshot, seen: Any) -> Any:
    counts = shipped(self, replace(snapshot, tomb_seq=0), seen)
    with self.file.writing() as conn:
        storage_replica.purge_tombstones(conn, commit_seq=snapshot.tomb_seq)
    return counts


def _request_anywhere(self: Any, method: str, **options: Any) -> Any:
    return self._session.request(method, **options)


def _left_behind_by_age(name: str, about: Any, *, user: int, now_ms: int) -> bool:
    return bool(about.st_mtime_ns // 1_000_000 < now_ms - folder.TEMP_MAX_AGE_MS)


def _keep_absent(conn: Any, records: Any, tomb_hlc: int) -> int:
    return 0


def _corrected_to_now(shipped: Any, known: Any, current: Any, now_ms: int) -> Any:
    found = shipped(known, current, now_ms)
    return replace(found, to=found.above)


def _resync_without_restamp(shipped: Any, conn: Any, records: Any, tomb_hlc: int) -> Any:
    return shipped(conn, records, 0)


def _resync_restamping_only_puts(shipped: Any, conn: Any, records: Any, tomb_hlc: int) -> int:
    conn.execute("UPDATE document SET hlc = hlc + (1 << 62) WHERE dirty AND deleted")
    try:
        done: int = shipped(conn, records, tomb_hlc)
    finally:
        conn.execute("UPDATE document SET hlc = hlc - (1 << 62) WHERE dirty AND deleted")
    return done


async def _pull_without_settling(shipped: Any, self: Any, report: Any) -> None:
    async def unsettled(state: ReplicaState, *_: Any) -> ReplicaState:
        return state

    with patch.object(self, "_settle", unsettled):
        await shipped(self, report)


async def _forget_pending(shipped: Any, self: Any, report: Any) -> None:
    self._replica.abandon_pending()
    await shipped(self, report)


async def _prepare_again(shipped: Any, self: Any, keys: Any, current: Any, *rest: Any) -> Any:
    """Make the bytes of a prepared segment anew, under the number and name that it has."""
    state = self._replica.state()
    pending: Pending | None = state.pending
    if pending is not None and pending.key is not None:
        records = self._replica.dirty(max_bytes=2**30, max_records=10**6)
        space = state.space if any(record.vector for record in records) else None
        again = segment.Segment(state.dev, pending.n, pending.base, space, b"", records)
        stem = layout.parts_of(plan.name_in(pending.key)).stem
        place = seal.BlobIdentity(keys.repo_id, self._channel.sid(keys), "segment", stem)
        body = seal.seal(keys.roots, place, segment.encode(again), salt=self._clock.token(32))
        self._replica.abandon_pending()
        versions = [(record.id, record.version) for record in records]
        self._replica.save_pending(replace(pending, body=body), versions, dev=state.dev)
    return await shipped(self, keys, current, *rest)


def _stale_time(parent: Manifest | None, now_ms: int) -> int:
    return max(0, now_ms)


async def _ask_nobody(self: Repository) -> None:
    return None


def _age_by_commits(shipped: Any, parent: Manifest | None, author: Any, **options: Any) -> Any:
    following = shipped(parent, author, **options)
    before = () if parent is None else parent.tl
    return replace(following, tl=floors.sampled(before, following.seq, following.ct))


def _believe_every_sample(timeline: Any, moment_ms: int, now_ms: int) -> int:
    return max((seq for seq, at_ms in timeline if at_ms <= moment_ms), default=0)


def _fall_to_one_stamp(stamp: int, committed: int, fallen: Any) -> int:
    for each in fallen:
        if committed <= each.seq:
            stamp = min(stamp, times.MAX_DRIFT_MS + each.commit_ms << 16)
    return stamp


def _unclamped_settle(shipped: Any, self: Any, committed: Any, seen: Any = None) -> Any:
    return shipped(self, replace(committed, limit=MAX_STAMP), seen)


def _settle_whatever_changed(shipped: Any, self: Any, committed: Any, seen: Any = None) -> Any:
    with self.file.writing() as conn:
        conn.execute(
            "UPDATE document SET dirty = 0, commit_seq = ? FROM pending_doc AS p"
            " WHERE document.id = p.id",
            (committed.commit_seq,),
        )
    return shipped(self, committed, seen)


async def _guess_success(shipped: Any, self: Any, keys: Any, following: Any, seen: Any) -> Any:
    try:
        return await shipped(self, keys, following, seen)
    except OutcomeUnknownError:
        from moss_sync.replica import Seen

        return Seen(following.seq, bytes(32), None, b"", plan.life_of(following))


async def _guess_failure(shipped: Any, self: Any, *args: Any) -> Any:
    try:
        return await shipped(self, *args)
    except OutcomeUnknownError:
        self._replica.abandon_pending()
        raise


def _tick_without_looking(last: int, wall_ms: int, seen: int = 0) -> int:
    return wall_ms << 16


def _history_without(error: type[Exception]) -> Callable[..., None]:
    def check(shipped: Any, *args: Any) -> None:
        try:
            shipped(*args)
        except error:
            return

    return check


async def _recreate(shipped: Any, self: Any, keys: Any, state: ReplicaState) -> Any:
    try:
        return await shipped(self, keys, state)
    except ManifestMissingError:
        return None


def _compact_without_looking(
    shipped: Any, parent: Manifest, author: Any, merged: Any, *a: Any, **o: Any
) -> Any:
    kept = {entry.name for entry in parent.entries}
    pushes = {(item.dev, item.n) for item in parent.inline}
    there = replace(
        merged,
        entries=tuple(entry for entry in merged.entries if entry.name in kept),
        inline=tuple(item for item in merged.inline if (item.dev, item.n) in pushes),
    )
    return shipped(parent, author, there, *a, **o)


def _adoptable_of_any_number(shipped: Any, manifest: Manifest, *args: Any, **options: Any) -> Any:
    forgetful = {dev: replace(row, n=0) for dev, row in manifest.devs.items()}
    return shipped(replace(manifest, devs=forgetful), *args, **options)


def _adoptable_below_the_floor(shipped: Any, manifest: Manifest, *args: Any, **options: Any) -> Any:
    return shipped(replace(manifest, gc_floor=0, tomb_seq=0), *args, **options)


async def _waiting_from_the_start(shipped: Any, self: Any, keys: Any, floor: int, **o: Any) -> Any:
    return await shipped(self, keys, 0, **o)


def _named_by_anybody(tag_key: bytes, sid: str, key: str) -> Any:
    name = plan.name_in(key)
    return layout.parts_of(name) if layout.is_name(name) else None


def _retire_unfenced(shipped: Any, manifest: Manifest, policy: Any, **options: Any) -> Any:
    after = shipped(manifest, policy, **options)
    ceiling, now_ms = options["ceiling"], options["now_ms"]
    return replace(
        after, gc_floor=floors.gc_floor(manifest, policy, ceiling=ceiling, now_ms=now_ms)
    )


def _aad_of_nothing(place: seal.BlobIdentity, header: bytes) -> bytes:
    return b""


def _no_standing(kind: plan.Standing) -> Callable[..., plan.Standing]:
    def standing(shipped: Any, *args: Any) -> plan.Standing:
        found: plan.Standing = shipped(*args)
        return plan.Standing.MEMBER if found is kind else found

    return standing


def _accept_any_store(shipped: Any, self: Any) -> Any:
    return probe.ProbeVerdict("quoted", long=False)


def _hear_of_no_failure(self: Any, store: Any) -> None:
    return None


async def _overrule_by_any(shipped: Any, self: Any, verdict: Any, keys: Any, **_: Any) -> None:
    await self.overrule(verdict, keys)


async def _take_for_empty(self: Any) -> bool:
    return False


async def _keep_whatever_decodes(shipped: Any, self: Any, raw: bytes, cached: bytes) -> bool:
    try:
        found = keyring.decode(raw)
    except BlobCorruptError:
        return True
    return found.newest < keyring.decode(cached).newest


async def _set_nothing_aside(self: Any, kind: str, data: bytes, *, sid: str | None) -> str:
    return self.layout.aside(kind, data, sid)


def _last_writer_by_arrival(a: Any, b: Any) -> bool:
    return True


def _only_the_newest(seq: int) -> tuple[int, ...]:
    return tuple(range(seq - 1, max(0, seq - 33), -1))


def _at_the_last_one_seen(shipped: Any, one: marks.Past, other: marks.Past) -> Any:
    return shipped(replace(one, hashes={one.seq: one.hashes[one.seq]}), other)


def _list_what_the_store_shows(shipped: Any, current: Any, known: Any) -> Any:
    found = shipped(current, known)
    return found if found is None or current is None else replace(found, listed=(current,))


def _relate_by_marks_only(earlier: Any, later: Any) -> history.Relation:
    found = marks.compare(earlier.past, later.past)
    return history.Relation(parted=found.forked, joint=found.joint)


def _joint_of_all_that_was_seen(manifest: Any, mark: Any, state: ReplicaState, before: Any) -> int:
    return 0 if state.seen is None else state.seen.seq


def _hold_as_edits(conn: Any) -> None:
    conn.execute("UPDATE document SET dirty = 1, commit_seq = NULL")


def _repair_without_floors(shipped: Any, *args: Any, **options: Any) -> Manifest:
    following: Manifest = shipped(*args, **options)
    return replace(following, tomb_seq=0, tomb_hlc=0)


MUTANTS: Sequence[Mutant] = (
    Mutant(
        "fence",
        "nobody commits a push prepared below the floors",
        swap(plan, "may_commit", lambda *_: True),
        (PLAN, FORGETTING),
    ),
    Mutant(
        "collect-unfenced",
        "only names below the floor are deleted",
        swaps(
            swap(collection, "collectable", _collect_unlisted),
            around(channel.Channel, "below", _all_names),
        ),
        (FORGETTING,),
    ),
    Mutant(
        "resync",
        "who has applied less than was forgotten reads everything anew",
        around(
            plan,
            "to_fetch",
            lambda shipped, manifest, **o: shipped(replace(manifest, tomb_seq=0), **o),
        ),
        (FORGETTING,),
    ),
    Mutant(
        "purge-by-prefix",
        "a purge also rewrites what was written by somebody who had applied less",
        swap(tiers, "to_purge", _purge_by_prefix),
        (FORGETTING,),
    ),
    Mutant(
        "purge-unfenced",
        "the collection floor rises with the floor of tombstones",
        around(compaction.tiers, "with_compaction", _purge_unfenced),
        (FORGETTING, TIERS),
    ),
    Mutant(
        "clock-raise",
        "a pull raises the clock to the highest forgotten deletion",
        around(SqliteReplica, "merge", _merge_without_clock),
        (FORGETTING, REPLICA),
    ),
    Mutant(
        "purge-before-merge",
        "local tombstones below the floor go before records are merged",
        around(SqliteReplica, "merge", _merge_then_purge),
        (REPLICA,),
    ),
    Mutant(
        "drop-absent",
        "clean documents that the whole session does not hold are dropped",
        swap(storage_replica, "_resync", _keep_absent),
        (FORGETTING, REPLICA),
    ),
    Mutant(
        "restamp-absent",
        "unpushed changes are stamped above what was forgotten",
        around(storage_replica, "_resync", _resync_without_restamp),
        (FORGETTING, REPLICA),
    ),
    Mutant(
        "restamp-deletes",
        "unpushed deletions too",
        around(storage_replica, "_resync", _resync_restamping_only_puts),
        (REPLICA,),
    ),
    Mutant(
        "settle-in-pull",
        "a pull settles the push of before first",
        around(engine.SyncEngine, "_pull", _pull_without_settling),
        (FORGETTING, ENGINE),
    ),
    Mutant(
        "settle-after-restart",
        "a push of before is looked up before another is prepared",
        around(engine.SyncEngine, "_push", _forget_pending),
        (ENGINE, ADOPTION),
    ),
    Mutant(
        "same-bytes",
        "a name is only ever written with the same bytes",
        around(engine.SyncEngine, "_commit", _prepare_again),
        (ADOPTION,),
    ),
    Mutant(
        "guess-success",
        "an unknown outcome is no success",
        around(channel.Channel, "write_manifest", _guess_success),
        (ENGINE,),
    ),
    Mutant(
        "guess-failure",
        "an unknown outcome is no failure: the same push is looked for",
        around(engine.SyncEngine, "_swap", _guess_failure),
        (ENGINE,),
    ),
    Mutant(
        "changed-while-pushed",
        "a mark is cleared only where the version is unchanged",
        around(SqliteReplica, "settle", _settle_whatever_changed),
        (REPLICA,),
    ),
    Mutant(
        "applied-by-push",
        "a push on top of what was not applied does not count as applied",
        swap(plan, "applied_with", lambda *_: True),
        (ADOPTION, ENGINE),
    ),
    Mutant(
        "re-adoption",
        "only a device's next numbers are taken along",
        around(plan, "adoptable", _adoptable_of_any_number),
        (ADOPTION,),
    ),
    Mutant(
        "adopt-below-floor",
        "nothing below the floor is taken along",
        swaps(
            around(plan, "adoptable", _adoptable_below_the_floor),
            around(channel.Channel, "waiting", _waiting_from_the_start),
        ),
        (ADOPTION,),
    ),
    Mutant(
        "adopt-forged",
        "only names that a holder of the key has made are taken along",
        swap(channel, "_named", _named_by_anybody),
        (ADOPTION,),
    ),
    Mutant(
        "floor-over-adopted",
        "the floor of a commit stays below what it adds",
        around(
            plan,
            "tidied",
            lambda shipped, manifest, policy, *, ceiling, author: shipped(
                manifest, policy, ceiling=manifest.seq, author=author
            ),
        ),
        (ADOPTION,),
    ),
    Mutant(
        "retire-unfenced",
        "a device leaves the table only with a floor above its last commit",
        swaps(around(plan, "tidied", _retire_unfenced), around(floors, "tidied", _retire_unfenced)),
        (FORGETTING,),
    ),
    Mutant(
        "retired-identity",
        "a device that was forgotten takes a new identity",
        around(plan, "standing", _no_standing(plan.Standing.RETIRED)),
        (FORGETTING,),
    ),
    Mutant(
        "copies",
        "a copied file takes a new identity",
        around(plan, "standing", _no_standing(plan.Standing.COPY)),
        (ENGINE,),
    ),
    Mutant(
        "copy-aside",
        "what a restored backup may have pushed and others deleted is set aside",
        swap(plan, "aside", lambda *_: "nothing"),
        (LIVES,),
    ),
    Mutant(
        "generations",
        "a device notices that the session was deleted",
        around(plan, "standing", _no_standing(plan.Standing.DELETED)),
        (LIVES,),
    ),
    Mutant(
        "stale-time",
        "the time of a commit never falls below the one before",
        swap(plan, "commit_time", _stale_time),
        (CLOCKS, PLAN),
    ),
    Mutant(
        "clamp-own",
        "an author cuts its own stamps as its readers do",
        around(SqliteReplica, "settle", _unclamped_settle),
        (CLOCKS, REPLICA),
    ),
    Mutant(
        "clamp-others",
        "a reader cuts stamps to what their commit allows",
        swap(plan, "clamped", lambda records, commit_ms, setbacks=(): list(records)),
        (CLOCKS,),
    ),
    Mutant(
        "late-snapshot",
        "a file that has applied more meanwhile merges nothing older",
        swap(storage_replica, "_is_late", lambda state, snapshot: False),
        (REPLICA,),
    ),
    Mutant(
        "late-resync",
        "a file that is above the floor again drops nothing",
        swap(storage_replica, "_must_resync", lambda state, snapshot: snapshot.full),
        (REPLICA,),
    ),
    Mutant(
        "correct-low",
        "a wrong clock's stamp is corrected to just above what its file has seen, not to now",
        around(plan, "correction", _corrected_to_now),
        (CLOCKS,),
    ),
    Mutant(
        "restamp-future",
        "stamps of a wrong clock are made anew before they are pushed",
        swap(SqliteReplica, "restamp", lambda self, correction: 0),
        (CLOCKS,),
    ),
    Mutant(
        "causality",
        "an edit is stamped above the version that it replaces",
        swap(storage_edits, "tick", _tick_without_looking),
        (ENGINE, CLOCKS),
    ),
    Mutant(
        "merge-order",
        "the greater version wins, not the one that came last",
        swaps(
            swap(merge, "wins", _last_writer_by_arrival),
            swap(storage_replica, "newest", lambda records: {r.id: r for r in records}),
        ),
        ("tests/properties/test_merge.py", "tests/properties/test_storage.py"),
    ),
    Mutant(
        "compact-inputs",
        "a compaction is given up when one of its inputs is gone",
        around(compaction.tiers, "with_compaction", _compact_without_looking),
        (TIERS,),
    ),
    Mutant(
        "hash-chain",
        "a manifest of another history is refused",
        around(channel.plan, "check_history", _history_without(plan.ForkDetectedError)),
        (PLAN, ENGINE),
    ),
    Mutant(
        "marks-of-the-newest",
        "of old commits too a manifest has marks, the older the fewer",
        swap(marks, "marked", _only_the_newest),
        (MARKS, ROLLBACK),
    ),
    Mutant(
        "every-mark",
        "two histories are compared at every number that both know, not at the last one seen",
        around(plan, "compare", _at_the_last_one_seen),
        (ROLLBACK,),
    ),
    Mutant(
        "short-proof",
        "a short mark that agrees proves no checkpoint",
        swap(checkpoint, "LONG_BYTES", marks.SHORT_BYTES),
        (CHECKPOINT,),
    ),
    Mutant(
        "later-list",
        "of a state and its beginning, a repair lists only what the later one does",
        around(engine, "foundation", _list_what_the_store_shows),
        (REPAIR,),
    ),
    Mutant(
        "unaware",
        "a repair numbered no higher than what a device has seen did not know of it",
        swap(history, "relate", _relate_by_marks_only),
        (HISTORY,),
    ),
    Mutant(
        "undone-deletions",
        "a repaired session without deletions that a device has seen is refused",
        swap(plan, "undoes", lambda *_: False),
        (REPAIR,),
    ),
    Mutant(
        "purged-since",
        "a side is listed again only if the other has forgotten no deletion since they parted",
        swap(repair, "has_purged_since", lambda *_: False),
        (REPAIR, HISTORY),
    ),
    Mutant(
        "doubtful",
        "what the other side may have deleted and forgotten is not written anew",
        swap(repair, "is_doubtful", lambda *_, **__: False),
        (HISTORY, REPAIR),
    ),
    Mutant(
        "discarded",
        "what somebody added who did not know of a deletion of the session is set aside",
        swap(rebuild.repair, "since_the_deletion", lambda *_: ()),
        (REPAIR,),
    ),
    Mutant(
        "repair-floors",
        "a repair keeps the floors of what it builds on",
        around(engine, "with_repair", _repair_without_floors),
        (REPAIR,),
    ),
    Mutant(
        "joint",
        "what a device applied counts only as far as its history is that of the repaired session",
        swap(plan, "joint", _joint_of_all_that_was_seen),
        (REPAIR,),
    ),
    Mutant(
        "held-aside",
        "a held document that may have been deleted goes to the quarantine",
        swap(storage_replica, "set_aside_held", lambda *_: 0),
        (REPLICA, REPAIR),
    ),
    Mutant(
        "held-is-no-edit",
        "what is only offered again after a repair is never stamped anew",
        swap(storage_replica, "hold_all", _hold_as_edits),
        (REPLICA, REPAIR),
    ),
    Mutant(
        "rollback",
        "an older manifest than before is refused",
        around(channel.plan, "check_history", _history_without(plan.StaleReadError)),
        (PLAN, LIVES),
    ),
    Mutant(
        "lost-commit",
        "a history without an acknowledged push is refused",
        around(channel.plan, "check_history", _history_without(plan.LostCommitError)),
        (PLAN,),
    ),
    Mutant(
        "manifest-missing",
        "a manifest that is gone is not made again",
        around(channel.Channel, "read_manifest", _recreate),
        (ENGINE,),
    ),
    Mutant(
        "content-limits",
        "a record over the limits of the format counts for no reader",
        swap(segment, "content_fault", lambda *_: None),
        (SEGMENT, ARRIVALS),
    ),
    Mutant(
        "sound-vectors",
        "a vector without a direction is in no reader's way",
        swap(segment, "vector_fault", lambda *_: None),
        (SEGMENT, ARRIVALS),
    ),
    Mutant(
        "writer-limits",
        "a writer refuses what its readers would leave out",
        swap(segment, "check_encodable", lambda _: None),
        (SEGMENT, ARRIVALS),
    ),
    Mutant(
        "unknown-bound",
        "what nobody knows is bounded in a manifest",
        swap(manifest, "unknown_bytes", lambda _: 0),
        ("tests/moss_sync/test_manifest.py", MANIFESTS),
    ),
    Mutant(
        "manifest-ranges",
        "no number of a manifest leaves its session without a next commit",
        around(manifest, "_check", lambda *_: None),
        ("tests/moss_sync/test_manifest.py", MANIFESTS),
    ),
    Mutant(
        "incomplete-base",
        "a compaction that a record is left out of replaces and fences nothing",
        swap(log_blob, "is_incomplete", lambda _: False),
        (LOG_ARRIVALS,),
    ),
    Mutant(
        "damaged-inline",
        "a repair leaves out a small push that nobody can read",
        swap(engine, "without_damaged_inline", lambda current, **_: current),
        (MANIFESTS,),
    ),
    Mutant(
        "aad",
        "a blob opens only in its own place",
        swap(seal, "_aad", _aad_of_nothing),
        ("tests/moss_sync/test_seal.py", ENGINE),
    ),
    Mutant(
        "probe",
        "a store that cannot compare and swap is refused",
        around(probe.ProbeReport, "require", _accept_any_store),
        ("tests/moss_sync/test_probe.py",),
    ),
    Mutant(
        "published-verdict",
        "a store that one device has found out is written to by none that hears of it",
        swap(probe.ProbeVerdict, "require", _hear_of_no_failure),
        (VERDICT,),
    ),
    Mutant(
        "verdict-order",
        "a round that has passed does not overrule one that has failed",
        around(verdict.StoreVerdict, "publish", _overrule_by_any),
        (VERDICT,),
    ),
    Mutant(
        "empty-store",
        "no keys are made where blobs of the project are",
        swap(repository.Repository, "_holds_anything", _take_for_empty),
        (DAMAGE,),
    ),
    Mutant(
        "header-evidence",
        "a damaged header is told from a newer version and from a key that is not known",
        swap(seal, "unseal_without_header", lambda *_, **__: None),
        ("tests/moss_sync/test_seal.py",),
    ),
    Mutant(
        "header-repair",
        "a repair goes on from a manifest of which only the header is damaged",
        swap(channel.Channel, "_without_header", lambda *_: None),
        (DAMAGE,),
    ),
    Mutant(
        "checked-fmt",
        "a repair replaces a fmt that decodes and that no holder of the key has made",
        around(repository.Repository, "_must_go", _keep_whatever_decodes),
        (DAMAGE,),
    ),
    Mutant(
        "aside",
        "what a repair replaces is copied first",
        swap(repository.Repository, "set_aside", _set_nothing_aside),
        (DAMAGE,),
    ),
    Mutant(
        "log-offer",
        "after a repair of a log its device pushes all that it holds",
        swap(SqliteLogReplica, "offer", lambda self: None),
        (DAMAGE,),
    ),
    Mutant(
        "one-space",
        "vectors of a space that the session has left are left out",
        swap(channel.plan, "admitted", lambda read, manifest: read),
        ("tests/moss_local/test_reembed.py",),
    ),
    Mutant(
        "kept-digests",
        "a version stays what it was after the vector it was made with is gone",
        swap(segment, "_kept_digests", lambda pushed: {}),
        ("tests/moss_sync/test_segment.py",),
    ),
    Mutant(
        "erase-floor",
        "an erasure raises the floor past all that it has merged",
        around(engine.SyncEngine, "_merge", _merge_without_erasing),
        ("tests/moss_local/test_forget.py",),
    ),
    Mutant(
        "repair-epoch",
        "a repair does not believe a manifest of before a rotation",
        around(channel.Channel, "read_to_replace", _believe_any_epoch),
        (LIVES,),
    ),
    Mutant(
        "old-key",
        "a device that has seen a rotation writes nothing more under the old key",
        swap(Repository, "_refused_epoch", _no_epoch),
        ("tests/moss_sync/test_rotation.py",),
    ),
    Mutant(
        "key-cost",
        "a fmt is not opened with a typed key that it lets anybody try out cheaply",
        swap(keyring, "check_cost", lambda fmt, project_key: None),
        ("tests/moss_sync/test_keyring.py",),
    ),
    Mutant(
        "foreign-files",
        "what is no file, or no folder, of a folder store is refused by name",
        swap(beneath.Folder, "_refuse_unless", lambda self, wanted, name, about: None),
        (FOREIGN_FILES,),
    ),
    Mutant(
        "no-follow",
        "a link that takes a file's place while it is opened is not followed",
        swap(beneath, "_NEVER_WAIT", 0),
        (FOREIGN_FILES,),
    ),
    Mutant(
        "sweep",
        "only files of this user with names of ours are swept",
        swap(folder, "is_left_behind", _left_behind_by_age),
        (FOREIGN_FILES,),
    ),
    Mutant(
        "blob-length",
        "a file longer than any blob is not read",
        swap(folder_blob, "check_length", lambda folder, name, size: None),
        (FOREIGN_FILES,),
    ),
    Mutant(
        "redirect",
        "a redirect is followed to no host",
        swap(s3_client.StayingSession, "request", _request_anywhere),
        (HOSTILE,),
    ),
    Mutant(
        "region-redirect",
        "a request stays in the region that it was sent to",
        swap(s3_client, "_keep_region", lambda context, **_: None),
        (HOSTILE,),
    ),
    Mutant(
        "metadata",
        "the machine's metadata service is asked for credentials on demand only",
        swap(s3_client, "_may_ask_metadata", lambda: True),
        (HOSTILE,),
    ),
    Mutant(
        "answer-length",
        "an answer that is no blob is read to a bound",
        swap(s3_client.BoundedResponse, "read", s3_client.aiohttp.ClientResponse.read),
        (HOSTILE,),
    ),
    Mutant(
        "listing-pages",
        "a listing that does not end is given up",
        swap(s3, "MAX_LIST_PAGES", 300),
        (HOSTILE,),
    ),
    Mutant(
        "certificate",
        "a certificate that is not trusted is not told as a fault of the network",
        swap(s3_client, "_untrusted", lambda error: None),
        (HOSTILE,),
    ),
    Mutant(
        "answer-ahead",
        "an answer moves a clock forward by a day at most",
        swap(clock, "ANSWER_AHEAD_MS", 2**50),
        (HOSTILE_CLOCKS,),
    ),
    Mutant(
        "doubtful-commit",
        "nothing is committed while the clocks contradict each other",
        swap(clock.SessionClock, "check", lambda self: None),
        (HOSTILE_CLOCKS,),
    ),
    Mutant(
        "ask-again",
        "one wrong answer is asked about again",
        swap(Repository, "_ask_time", _ask_nobody),
        (HOSTILE_CLOCKS,),
    ),
    Mutant(
        "dead-clock",
        "a clock that was never set says nothing",
        swaps(swap(clock, "EARLIEST_MS", 0), swap(times, "EARLIEST_MS", 0)),
        (HOSTILE_CLOCKS,),
    ),
    Mutant(
        "time-limit",
        "no commit is later than the format allows",
        swap(manifest, "check_time", lambda *_, **__: None),
        (HOSTILE_CLOCKS,),
    ),
    Mutant(
        "time-room",
        "one more than the last time can always be committed",
        swap(times, "latest", lambda number: times.MAX_TIME_MS),
        (HOSTILE_CLOCKS,),
    ),
    Mutant(
        "ages-by-belief",
        "ages follow from what committers believed, not from commit times",
        around(plan, "next_commit", _age_by_commits),
        (HOSTILE_CLOCKS,),
    ),
    Mutant(
        "samples-by-order",
        "a commit is not older than those before it, whatever its committer believed",
        swap(floors, "seq_at", _believe_every_sample),
        (HOSTILE_CLOCKS,),
    ),
    Mutant(
        "repair-time",
        "a repair lets a time fall that is in the future",
        swap(repair, "is_ahead", lambda commit_ms, now_ms: False),
        (HOSTILE_CLOCKS,),
    ),
    Mutant(
        "setbacks-read",
        "readers lower the stamps of before a repair in which time fell",
        swap(plan, "with_lowered", lambda records, fallen: list(records)),
        (HOSTILE_CLOCKS,),
    ),
    Mutant(
        "setbacks-held",
        "a device lowers the stamps of what it holds as readers do",
        swap(storage_replica, "lower_stamps", lambda conn, fallen, known_seq: None),
        (HOSTILE_CLOCKS,),
    ),
    Mutant(
        "stamps-observed",
        "a stamp that no clock can have given moves no clock",
        swap(storage_replica, "observe", max),
        (HOSTILE_CLOCKS,),
    ),
    Mutant(
        "stamps-replaced",
        "nor does an edit of a version with such a stamp",
        swap(storage_edits, "LAST_OBSERVED", MAX_STAMP),
        (HOSTILE_CLOCKS,),
    ),
    Mutant(
        "setbacks-order",
        "stamps that fall keep the order of the commits",
        swap(setbacks, "lowered", _fall_to_one_stamp),
        (HOSTILE_CLOCKS, "tests/properties/test_setbacks.py"),
    ),
    Mutant(
        "listed-hash",
        "a listed blob is the very one that was given its name",
        swap(epochs, "check_blob", _blob_of_its_epoch_alone),
        (REMOVED,),
    ),
    Mutant(
        "listed-epoch",
        "a listed blob is sealed under the epoch that its entry says",
        swap(epochs, "check_blob", _blob_of_its_hash_alone),
        (REMOVED,),
    ),
    Mutant(
        "adopt-epoch",
        "a commit takes along only what was named under its own epoch",
        around(channel.Channel, "waiting", _waiting_of_any_epoch),
        (REMOVED,),
    ),
    Mutant(
        "adopt-base",
        "nothing with a base that there is not yet is taken along",
        around(plan, "adoptable", _adoptable_of_any_base),
        (REMOVED,),
    ),
    Mutant(
        "adopt-size",
        "nothing that is too small to be a blob is taken along",
        swap(plan, "MIN_SEALED_BYTES", -1),
        (REMOVED,),
    ),
    Mutant(
        "adopt-bounds",
        "one commit takes along so many waiting segments and no more",
        swaps(swap(plan, "MAX_ADOPTED", 10**6), swap(plan, "MAX_ADOPTED_EACH", 10**6)),
        (REMOVED,),
    ),
    Mutant(
        "adopt-ahead",
        "a push number far past its device's last is not taken along",
        swap(plan, "MAX_SKIPPED_PUSHES", 2**64),
        (REMOVED,),
    ),
    Mutant(
        "push-epoch",
        "a commit lists no push that was sealed under another epoch",
        swap(plan, "is_of_epoch", lambda pending, epoch: True),
        (REMOVED, ROTATION),
    ),
    Mutant(
        "push-fenced",
        "a push sealed under an older epoch than the manifest is prepared anew",
        around(plan, "may_commit", _of_the_first_epoch),
        (REMOVED,),
    ),
    Mutant(
        "output-epoch",
        "a commit lists no output that was sealed under another epoch",
        swap(tiers, "are_of_epoch", lambda outputs, epoch: True),
        (REMOVED,),
    ),
    Mutant(
        "collect-epochs",
        "what was left under an older key is collected whatever its base",
        around(collection, "collectable", _of_the_first_epoch),
        (REMOVED,),
    ),
    Mutant(
        "keys-continue",
        "a fmt with other keys than those that no rotation changes is refused, whoever made it",
        swap(keyring, "check_continues", lambda keys, before: None),
        (DAMAGE,),
    ),
    Mutant(
        "erase-asides",
        "who erases or deletes a session erases what repairs of it have set aside",
        swap(channel.Channel, "delete_asides", _nothing_deleted),
        (DAMAGE,),
    ),
    Mutant(
        "floor",
        "nothing counts that is sealed under a key below the floor",
        swap(epochs, "check_counts", lambda current, floor: None),
        (REMOVED,),
    ),
    Mutant(
        "floor-asked",
        "the floor is asked for before an old session is believed",
        around(channel.Channel, "check_counts", _never_asking_for_the_floor),
        (REMOVED,),
    ),
    Mutant(
        "floor-repaired",
        "a repair takes over nothing that is sealed under a key below the floor",
        swap(epochs, "counted", lambda known, floor: known),
        (REMOVED,),
    ),
    Mutant(
        "floor-of-verdicts",
        "a verdict that is sealed under a key below the floor is not believed",
        swap(verdict, "counts", lambda epoch, keys: True),
        (REMOVED,),
    ),
    Mutant(
        "floor-orders-fmt",
        "a fmt with a lower floor than was seen is an older one",
        swap(keyring.Format, "age", property(lambda fmt: (fmt.newest, 0))),
        (REMOVED,),
    ),
    Mutant(
        "floor-last",
        "the floor rises only when every session is sealed anew",
        swap(revocation, "_seal_empty_ones", _empty_and_others_left),
        (REMOVED,),
    ),
    Mutant(
        "floor-believed",
        "a repair builds on no state under an older key that what counts does not come from",
        swap(engine, "believed", lambda current, known, floor: known),
        (REMOVED,),
    ),
    Mutant(
        "floor-offline",
        "what a device took from a state that is not believed is not offered to the session",
        swap(storage_replica, "leave_all_but_edits", _everything_held),
        (REMOVED,),
    ),
    Mutant(
        "floor-unopened",
        "what no key opens keeps no old key valid",
        swap(revocation, "_opens", _opened_by_some_key),
        (REMOVED,),
    ),
    Mutant(
        "floor-damaged",
        "what a key opens once it is repaired keeps the floor where it is",
        swap(revocation, "_opens", _opened_by_no_key),
        (REMOVED,),
    ),
    Mutant(
        "floor-launders",
        "what counts no more is never sealed anew",
        swap(revocation, "_is_revoked", lambda current, floor: False),
        (REMOVED,),
    ),
    Mutant(
        "floor-replaced",
        "what stands in the place of a session that was just sealed anew is not sealed anew",
        swap(revocation, "_check_replaced", lambda current, sealed: None),
        (REMOVED,),
    ),
    Mutant(
        "header-epoch",
        "a manifest is sealed under the epoch that it says, and under none older than before",
        swap(epochs, "check_epoch", lambda current, sealed, before: None),
        (REMOVED, ROTATION),
    ),
)
