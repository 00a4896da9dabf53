"""Runs a schedule: real engines on real copies, over a store with faults, in virtual time.

One seed decides everything. What runs next follows from how long requests take, which the seed
says; every request and every step of a copy's storage is a moment at which another device may act,
and at which a process may be killed. What must hold is checked all the while (`oracle`), and at the
end, when faults have stopped and everybody has exchanged, once more and in full.

Source: SYNC-PROTOCOL 3.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar, cast

from moss_sync import layout
from moss_sync.clock import RESOLUTION_MS
from moss_sync.engine import SyncEngine
from moss_sync.errors import (
    BlobCorruptError,
    BlobMissingError,
    ClockError,
    ManifestMissingError,
    MossError,
    NetworkError,
    PermissionDeniedError,
    StaleReadError,
    StoreChangedError,
    StoreLacksCasError,
    UnauthorizedError,
    UnsupportedFormatError,
)
from moss_sync.keyring import Keys
from moss_sync.layout import Layout
from moss_sync.record import DEVICE_BYTES, VectorSpace
from moss_sync.replica import Replica
from moss_sync.report import SyncReport
from moss_sync.repository import Repository
from moss_sync.stores.base import ETag
from moss_sync.stores.memory import MemoryStore
from moss_sync.testing.clock import EPOCH_MS, VirtualClock
from moss_sync.testing.copies import Copies, LocalCopy, Look, MakeCopies
from moss_sync.testing.faults import Fault, Verb, draw_fault
from moss_sync.testing.loop import VirtualLoop, VirtualTime
from moss_sync.testing.oracle import Oracle, ViolationError, require
from moss_sync.testing.schedule import Schedule, Step
from moss_sync.testing.store import FaultyStore, Request
from moss_sync.times import ANSWER_AHEAD_MS

T = TypeVar("T")

PROJECT = "simulated"
PROJECT_KEY = "ycbc-ydc3-fepe-3zzv-pkbd-fhfh-m247-d3jm-bzf6"
SESSION = "conv-1"

QUIET_ROUNDS = 2
"""Exchanges of everybody, after the last fault, by which all is committed."""

READS = frozenset({"state", "dirty"})
"""The verbs of a replica that change nothing."""

SPOILT = frozenset({Fault.FLIPPED, Fault.CUT})
EXCUSES: Mapping[type[MossError], frozenset[Fault]] = {
    StaleReadError: frozenset({Fault.STALE}),
    BlobCorruptError: SPOILT,
    UnauthorizedError: SPOILT,
    UnsupportedFormatError: SPOILT,
    PermissionDeniedError: frozenset({Fault.DENIED}),
    ManifestMissingError: frozenset({Fault.ABSENT, Fault.STALE}),
    BlobMissingError: frozenset({Fault.ABSENT, Fault.STALE}),
    StoreChangedError: frozenset({Fault.ABSENT}),
    StoreLacksCasError: frozenset(Fault),
}
"""Errors that an exchange may end with, and the faults that excuse them. Besides these, any
NetworkError, while there are faults at all."""


class KilledError(BaseException):
    """The process is gone. Nothing catches this but the simulator."""


@dataclass(slots=True, eq=False)
class Disk:
    """One copy of the session, and the processes that have it open.

    Attributes:
        seen: What the oracle last saw there.
    """

    copy: LocalCopy
    lock: asyncio.Lock
    seen: Look
    users: int = 1
    backup: LocalCopy | None = None


@dataclass(slots=True, eq=False)
class Process:
    """An engine at work on a disk, until it is killed."""

    engine: SyncEngine
    repository: Repository
    dead: bool = False
    tasks: set[asyncio.Task[None]] = field(default_factory=set)


@dataclass(slots=True, eq=False)
class Actor:
    """Somebody with a device: uses one disk, in one process after the other."""

    number: int
    disk: Disk
    clock: VirtualClock
    cache: MemoryCache
    process: Process | None = None
    last: asyncio.Task[None] | None = None

    @property
    def knows_repository(self) -> bool:
        """Whether it need not ask the store for the keys."""
        return any(name.startswith("fmt") for name in self.cache.held)


class MemoryCache:
    """A RepositoryCache that is no disk."""

    def __init__(self, held: Mapping[str, bytes]) -> None:
        self.held = dict(held)

    def load(self, name: str) -> bytes | None:
        return self.held.get(name)

    def save(self, name: str, data: bytes) -> None:
        self.held[name] = data


@dataclass(slots=True, eq=False)
class Operation:
    """One step while it runs.

    Attributes:
        moments: How many more moments its process lives; 0: it is not to be killed.
        met: The faults that its requests have met.
        fetched: How many segments it has asked for.
        rebuilt: How many pushes it has prepared anew, because the floors had passed them.
    """

    step: Step
    process: Process | None
    chance: random.Random
    fault_rate: float
    moments: int
    met: set[Fault] = field(default_factory=set)
    fetched: int = 0
    rebuilt: int = 0


_operation: ContextVar[Operation] = ContextVar("moss_sync_simulated_operation")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a schedule.

    Attributes:
        violation: What did not hold; None when all did.
        stats: How often what happened.
        trace: A line for each thing that happened, if it was asked for.
    """

    schedule: Schedule
    violation: Exception | None
    stats: Counter[str]
    trace: list[str]

    @property
    def counts(self) -> bool:
        """Whether the schedule was one that says something."""
        stats = self.stats
        return stats["actors"] >= 3 and stats["operations"] >= 40 and stats["faults"] >= 1


def simulate(schedule: Schedule, make_copies: MakeCopies, *, trace: bool = False) -> Outcome:
    """Run a schedule to its end or to the first violation."""
    return World(schedule, make_copies, trace=trace).run()


class World:
    """Everything of one run."""

    verbs: ClassVar[Mapping[str, Callable[[Any, Actor, Step, Operation], Awaitable[None]]]]
    """What a step can be; a new operation is a line there and a weight in a profile."""

    def __init__(self, schedule: Schedule, make_copies: MakeCopies, *, trace: bool) -> None:
        self.schedule = schedule
        self.time = VirtualTime()
        self.loop = VirtualLoop(self.time)
        self.stats: Counter[str] = Counter()
        self.trace: list[str] | None = [] if trace else None
        self.violation: Exception | None = None
        self.chance = random.Random(f"world {schedule.seed}")
        self.copies: Copies = make_copies(self.moment)
        self.fault_rate = schedule.fault_rate
        self.actors: list[Actor] = []
        self._blind = 0
        self._ended = asyncio.Event()
        self._make_store()

    # -- the run ---------------------------------------------------------------------------

    def run(self) -> Outcome:
        """Run the schedule."""
        self.loop.set_exception_handler(self._unhandled)
        try:
            self.loop.run_until_complete(self._play())
        except RuntimeError as error:
            # The virtual loop says that nothing can ever happen again.
            self._violated(ViolationError("liveness", str(error)))
        except Exception as error:
            self._violated(error)
        finally:
            self._clear_away()
        self.stats.update(self.oracle.stats)
        return Outcome(self.schedule, self.violation, self.stats, self.trace or [])

    def _clear_away(self) -> None:
        for actor in self.actors:
            if actor.process is not None:
                actor.process.dead = True
        left = asyncio.all_tasks(self.loop)
        for task in left:
            task.cancel()
        if left:
            self.loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        self.loop.close()
        for copy in {id(actor.disk): actor.disk.copy for actor in self.actors}.values():
            copy.close()
        for backup in {id(a.disk): a.disk.backup for a in self.actors}.values():
            if backup is not None:
                backup.close()
        self.copies.close()

    async def _play(self) -> None:
        for number in range(self.schedule.actors):
            self._join(self.schedule.skews_ms[number])
        tasks: list[asyncio.Task[None]] = []
        for step in self.schedule.steps:
            wait_s = step.at_ms / 1000 - self.time.seconds
            if wait_s > 0:
                await self._unless_violated(asyncio.sleep(wait_s))
            tasks.append(self._begin(step))
        if tasks:
            await self._unless_violated(asyncio.wait(tasks))
        await self._unless_violated(self._settle_down())

    async def _unless_violated(self, work: Awaitable[Any]) -> None:
        """Do `work`, or raise what was violated meanwhile."""
        task = asyncio.ensure_future(work)
        ended = asyncio.ensure_future(self._ended.wait())
        await asyncio.wait([task, ended], return_when=asyncio.FIRST_COMPLETED)
        ended.cancel()
        if self.violation is not None:
            task.cancel()
            raise self.violation
        await task

    def _begin(self, step: Step) -> asyncio.Task[None]:
        actor = self.actors[step.actor % len(self.actors)]
        task = self.loop.create_task(self._perform(actor, step, actor.last))
        if not step.beside:
            actor.last = task
        return task

    async def _perform(self, actor: Actor, step: Step, after: asyncio.Task[None] | None) -> None:
        if after is not None and not step.beside:
            await asyncio.wait([after])
        if self.violation is not None:
            return
        operation = Operation(
            step,
            None,
            random.Random(f"{self.schedule.seed} {step.number}"),
            self.fault_rate,
            step.dies_after,
        )
        self.enter(operation)
        self.stats["operations"] += 1
        self.stats[f"op {step.verb}"] += 1
        self.say(actor, "begins")
        self.copies.armed += step.dies_after > 0
        try:
            await self.verbs[step.verb](self, actor, step, operation)
        except KilledError:
            self._bury(actor, operation)
        except asyncio.CancelledError:
            if operation.process is None or not operation.process.dead:
                raise
        except Exception as error:
            self._violated(error)
        finally:
            self.copies.armed -= step.dies_after > 0

    def enter(self, operation: Operation) -> None:
        """Let all that the current task does from here on be part of `operation`."""
        _operation.set(operation)

    def _violated(self, error: Exception) -> None:
        if self.violation is None:
            self.violation = error
            if self.trace is not None:
                self.trace.append(f"VIOLATION {type(error).__name__}: {error}")
        self._ended.set()

    def _unhandled(self, loop: object, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, Exception) and not isinstance(error, MossError):
            self._violated(error)

    # -- moments ---------------------------------------------------------------------------

    def moment(self) -> None:
        """A moment at which the process of the current operation may be gone."""
        operation = _operation.get(None)
        if self._blind or operation is None or operation.process is None:
            return
        process = operation.process
        if process.dead:
            raise KilledError
        if operation.moments:
            operation.moments -= 1
            if not operation.moments:
                process.dead = True
                self.stats["killed"] += 1
                self.say(None, "is killed")
                raise KilledError

    @contextmanager
    def behind_the_scenes(self) -> Iterator[None]:
        """What the simulator itself does in the block are no moments of the process."""
        self._blind += 1
        try:
            yield
        finally:
            self._blind -= 1

    async def pause(self) -> None:
        """Let a request take its time, and others act."""
        self.moment()
        operation = _operation.get()
        await asyncio.sleep(operation.chance.random() * self.schedule.delay_ms / 1000)
        self.moment()

    def _bury(self, actor: Actor, operation: Operation) -> None:
        """The process of `actor` is dead: stop its tasks, keep what is on the disk."""
        process = operation.process
        if process is None or process is not actor.process:
            return
        actor.process = None
        for task in process.tasks:
            if task is not asyncio.current_task():
                task.cancel()
        disk = actor.disk
        with self.behind_the_scenes():
            self._resurface(disk)

    def _resurface(self, disk: Disk) -> None:
        """Check what a restarted process finds on the disk."""
        if disk.users == 1:
            disk.copy = disk.copy.killed()
        else:
            disk.copy.revived()
        self._check_whole(disk)
        before, disk.seen = disk.seen, disk.copy.look()
        for id, row in before.rows.items():
            found = disk.seen.rows.get(id)
            require(
                found is not None and found.version >= row.version,
                "whole after a crash",
                f"{id!r} was at {row} before the process was killed and is at {found}",
            )

    def _check_whole(self, disk: Disk) -> None:
        found = disk.copy.problems()
        require(not found, "whole after a crash", "; ".join(found))

    # -- the store -------------------------------------------------------------------------

    def _make_store(self) -> None:
        self.prepared = prepared = prepared_repository()
        self.layout: Layout = prepared.layout
        self.keys: Keys = prepared.keys
        self.sid = layout.session_id(self.keys.names, SESSION)
        self.manifest_key = self.layout.manifest(self.sid)
        self.blobs = MemoryStore(time_ms=lambda: EPOCH_MS + self.time.ms // 1000 * 1000)
        for key, (data, etag) in prepared.blobs.items():
            self.blobs._content.blobs[key] = (data, etag)
        self.store = FaultyStore(
            self, self.blobs, pause=self.pause, watch=self._watched, changed=self._changed
        )
        self.oracle = Oracle(self.keys, self.sid, blob=self._blob)

    @property
    def random(self) -> random.Random:
        """The chance of the request that is being answered."""
        return _operation.get().chance

    def next(self, verb: Verb, key: str) -> Fault | None:
        """Return what happens to a request: the world is the store's plan."""
        operation = _operation.get()
        operation.fetched += verb == "get" and ("/s/" in key or "/b/" in key)
        fault = draw_fault(
            operation.chance,
            verb,
            rate=operation.fault_rate,
            weights=self.schedule.fault_weights,
        )
        if operation.step.verb == "repair" and fault is Fault.STALE:
            return None  # two old answers in a row look like a store that went back
        if fault is not None:
            operation.met.add(fault)
            self.stats["faults"] += 1
            self.stats[f"fault {fault}"] += 1
        return fault

    def _blob(self, name: str) -> bytes | None:
        found = self.blobs._content.blobs.get(self.layout.blob(self.sid, name))
        return None if found is None else found[0]

    def _changed(self, key: str) -> None:
        found = self.blobs._content.blobs.get(key)
        if key == self.manifest_key:
            require(found is not None, "no dangling reference", "the manifest was deleted")
            if found is not None:
                self.oracle.committed(found[0])
                current = self.oracle.current
                if self.trace is not None and current is not None:
                    self.say(None, f"   COMMIT {_described(current)}")
        elif found is None:
            self.oracle.removed("/".join(key.split("/")[-2:]))

    def _watched(self, request: Request) -> None:
        if self.trace is None:
            return
        fault = "" if request.fault is None else f" !! {request.fault}"
        shown = "/".join(part[:26] for part in request.key.split("/")[1:])
        self.say(None, f"   {request.verb} {shown}{fault} -> {request.outcome}")

    # -- devices ---------------------------------------------------------------------------

    def _join(self, skew_ms: int, disk: Disk | None = None) -> Actor:
        if disk is None:
            dev, inc = self.chance.randbytes(DEVICE_BYTES), self.chance.randbytes(DEVICE_BYTES)
            with self.behind_the_scenes():
                disk = self._disk(self.copies.fresh(SESSION, dev=dev, inc=inc))
        clock = VirtualClock(self.time, lambda: _operation.get().chance, skew_ms=skew_ms)
        cached = self.prepared.cached if self.chance.random() < 0.7 else {}
        actor = Actor(len(self.actors), disk, clock, MemoryCache(cached))
        self.actors.append(actor)
        self.stats["actors"] += 1
        return actor

    def _disk(self, copy: LocalCopy) -> Disk:
        with self.behind_the_scenes():
            return Disk(copy, asyncio.Lock(), copy.look())

    def process(self, actor: Actor, operation: Operation) -> Process:
        """Return the actor's process, started if need be, and let the operation run in it."""
        if actor.process is None:
            actor.process = self._start(actor)
        operation.process = actor.process
        task = cast("asyncio.Task[None]", asyncio.current_task())
        actor.process.tasks.add(task)
        task.add_done_callback(actor.process.tasks.discard)
        self.moment()
        return actor.process

    def _start(self, actor: Actor) -> Process:
        disk = actor.disk
        replica = cast(Replica, Watched(self, disk, disk.copy.replica))

        async def run(fn: Callable[..., T], *args: Any) -> T:
            if disk.users > 1:
                await self.pause()  # the other process has its turn between any two transactions
            return self.call(fn, *args)

        @asynccontextmanager
        async def exclusive() -> AsyncIterator[None]:
            async with disk.lock:
                yield

        def accepts(space: VectorSpace) -> None:
            return None

        repository = Repository(
            self.store, PROJECT, self.key_of(actor), cache=actor.cache, clock=actor.clock, run=run
        )
        engine = SyncEngine(
            repository,
            replica,
            SESSION,
            clock=actor.clock,
            run=run,
            exclusive=exclusive,
            accepts=accepts,
            policy=self.schedule.policy,
        )
        return Process(engine, repository)

    def key_of(self, actor: Actor) -> str:
        """Return the project key that the actor's processes start with."""
        return PROJECT_KEY

    def call(self, fn: Callable[..., T], *args: Any) -> T:
        """Do a step that blocks, as the thread of a real process does."""
        return fn(*args)

    def changed(self, disk: Disk, verb: str) -> None:
        """A verb of a replica has run: check what it did."""
        old = disk.seen
        with self.behind_the_scenes():
            new = disk.seen = disk.copy.look()
        if new.rows != old.rows:
            self.oracle.rows_changed(verb, old, new)

    def count_turn(self, verb: str, args: tuple[Any, ...], disk: Disk) -> None:
        """Count what happens to devices now and then."""
        current = self.oracle.current
        if verb == "abandon_pending":
            _operation.get().rebuilt += 1
        elif verb == "renew_identity" and current is not None:
            with self.behind_the_scenes():
                state = disk.copy.replica.state()
            if state.dev in current.devs:
                self.stats["copies found"] += 1
            elif state.acked_n or state.pending is not None:
                self.stats["retired devices back"] += 1
        elif verb == "merge" and args[0].full and disk.seen.applied_seq:
            self.stats["resyncs"] += 1

    # -- what actors do --------------------------------------------------------------------

    async def edit(self, actor: Actor, step: Step, operation: Operation) -> None:
        """Put or delete a document, as an application does."""
        process = self.process(actor, operation)
        disk = actor.disk
        copy, before = disk.copy, disk.seen
        now_ms = process.engine.now_ms()
        if step.verb == "delete":
            copy.delete(step.id, now_ms=now_ms)
        else:
            text = f"{step.number} by {actor.number} at {self.time.ms}"
            if step.amount:
                text += " " + NOISE[: step.amount]
            copy.put(step.id, text, now_ms=now_ms)
        with self.behind_the_scenes():
            disk.seen = copy.look()
        self.say(actor, f"   {step.id} is {disk.seen.rows.get(step.id)}")
        self.oracle.edited(f"#{step.number} {step.verb}", step.id, before, disk.seen)

    async def exchange(self, actor: Actor, step: Step, operation: Operation) -> None:
        """Pull, push or both."""
        process = self.process(actor, operation)
        disk = actor.disk
        dirty = {id: row.version for id, row in disk.seen.rows.items() if row.dirty}
        name = "delete" if step.verb == "delete session" else step.verb
        verb: Callable[[], Awaitable[SyncReport]] = getattr(process.engine, name)
        knew = actor.knows_repository
        idle = knew and self._is_idle(disk.seen)
        known = disk.seen.etag
        with self.behind_the_scenes():
            resumed = disk.copy.replica.state().pending is not None
        try:
            report = await verb()
        except MossError as error:
            self._check_error(error, actor, operation)
            return
        self.say(actor, f"   done: {_shown(report)}")
        self.stats["lost races"] += report.lost_races
        self.stats["reasserted"] += report.reasserted
        self.stats["quarantined"] += report.quarantined
        if step.verb in ("push", "sync", "repair"):
            for id, version in dirty.items():
                row = disk.seen.rows.get(id)
                require(
                    row is None or not row.dirty or row.version != version,
                    "success is true",
                    f"{step.verb} succeeded, and {id!r} is still to be pushed",
                )
            self._check_cost(report, operation, first=not knew, resumed=resumed)
        elif step.verb == "pull" and idle and not operation.met and disk.seen.etag == known:
            self._check_idle(actor, step, report)

    def _check_idle(self, actor: Actor, step: Step, report: SyncReport) -> None:
        """A pull of what is known already is one request without a body."""
        if actor.disk.users == 1 and not step.beside:
            require(
                (report.requests, report.bytes_received) == (1, 0),
                "cost",
                f"a pull of nothing new took {_shown(report)}",
            )

    def _is_idle(self, seen: Look) -> bool:
        """Whether there is nothing in the store that the copy does not know."""
        current, found = self.oracle.current, self.blobs._content.blobs.get(self.manifest_key)
        if current is None or found is None or seen.etag is None:
            return False
        return found[1] == ETag(seen.etag) and seen.applied_seq == current.seq

    def _check_cost(
        self, report: SyncReport, operation: Operation, *, first: bool, resumed: bool
    ) -> None:
        if operation.met or operation.step.verb != "push":
            return
        # Settling asks once; from the second lost race on it lists; a rebuild pulls, and writes
        # its segment anew; a push of before that is still to be sent is two more, and four after a
        # lost race, when each of the two gathers what others have uploaded; the first contact of
        # all has 54 requests of its own.
        bound = (
            4
            + (4 if report.lost_races else 2) * resumed
            + 3 * (report.lost_races + operation.rebuilt)
            + operation.fetched
            + 54 * first
        )
        require(
            report.requests <= bound,
            "cost",
            f"a push took {report.requests} requests, more than {bound}: {_shown(report)}",
        )

    def _check_error(self, error: MossError, actor: Actor, operation: Operation) -> None:
        self.stats[f"error {type(error).__name__}"] += 1
        self.say(None, f"   failed: {type(error).__name__}: {error}")
        if isinstance(error, ClockError):
            behind_ms = EPOCH_MS + self.time.ms - actor.clock.wall_ms()
            require(
                behind_ms > ANSWER_AHEAD_MS - RESOLUTION_MS,
                "named errors",
                f"ClockError of a clock that is {behind_ms} ms behind: {error}",
            )
            return
        for kind, faults in EXCUSES.items():
            if isinstance(error, kind):
                require(
                    bool(faults & operation.met),
                    "named errors",
                    f"{type(error).__name__} without a reason: {error}",
                )
                return
        require(
            isinstance(error, NetworkError) and bool(self.fault_rate),
            "liveness" if isinstance(error, NetworkError) else "named errors",
            f"{type(error).__name__} without a reason: {error}",
        )

    async def tidy(self, actor: Actor, step: Step, operation: Operation) -> None:
        """Compact or collect, as the background does."""
        process = self.process(actor, operation)
        try:
            done = await getattr(process.engine, step.verb)()
        except MossError as error:
            self._check_error(error, actor, operation)
            return
        self.say(actor, f"   done: {done}")

    async def join(self, actor: Actor, step: Step, operation: Operation) -> None:
        """A fresh device comes."""
        self._join(self.chance.choice((0, 0, -500, 5_000)))

    async def clone(self, actor: Actor, step: Step, operation: Operation) -> None:
        """Somebody copies a device's disk and works on with both."""
        with self.behind_the_scenes():
            disk = self._disk(actor.disk.copy.copied())
        self._join(actor.clock.skew_ms, disk)
        self.stats["clones"] += 1

    async def twin(self, actor: Actor, step: Step, operation: Operation) -> None:
        """A second process opens the copy of the first."""
        actor.disk.users += 1
        self._join(actor.clock.skew_ms, actor.disk)

    async def backup(self, actor: Actor, step: Step, operation: Operation) -> None:
        """The disk is backed up."""
        if actor.disk.backup is not None:
            actor.disk.backup.close()
        with self.behind_the_scenes():
            actor.disk.backup = actor.disk.copy.copied()

    async def restore(self, actor: Actor, step: Step, operation: Operation) -> None:
        """The disk is put back to its backup; what was not pushed since is gone."""
        disk = actor.disk
        if disk.backup is None or disk.users > 1:
            return
        self.process(actor, operation).dead = True
        self._bury(actor, operation)
        with self.behind_the_scenes():
            disk.copy.close()
            disk.copy, disk.backup = disk.backup, None
            disk.seen = disk.copy.look()
        self.stats["restores"] += 1

    async def die(self, actor: Actor, step: Step, operation: Operation) -> None:
        """The process is killed between two of its operations."""
        process = self.process(actor, operation)
        operation.moments = 1
        self.moment()
        raise AssertionError(f"{process} lives on")

    async def leave(self, actor: Actor, step: Step, operation: Operation) -> None:
        """Nothing happens on this device for a while."""
        await asyncio.sleep(step.amount / 1000)

    async def jump(self, actor: Actor, step: Step, operation: Operation) -> None:
        """The wall clock is set to another time."""
        actor.clock.skew_ms += step.amount

    async def freeze(self, actor: Actor, step: Step, operation: Operation) -> None:
        """The wall clock stands still for a while."""
        actor.clock.freeze()
        self.loop.call_later(step.amount / 1000, actor.clock.thaw)

    # -- the end ---------------------------------------------------------------------------

    async def _settle_down(self) -> None:
        """Faults have stopped: everybody exchanges, and then everything is everywhere."""
        self.fault_rate = 0.0
        number = 1_000_000
        self._now(number, "land")
        if self.chance.random() < 0.5:
            await self.store.land()
        for quiet in range(QUIET_ROUNDS):
            together = []
            for actor in self.actors:
                actor.clock.thaw()
                number += 1
                verb = "compact" if quiet == 1 and actor.number % 2 else "sync"
                if (
                    quiet
                    and verb == "sync"
                    and not any(row.dirty for row in actor.disk.seen.rows.values())
                ):
                    continue
                task = self._begin(Step(number, 0, actor.number, verb))
                together.append(task)
                if quiet or actor.number % 3 == 2:
                    await asyncio.wait(together)
            if together:
                await asyncio.wait(together)
            self._now(number + 1, "land")
            await self.store.land()
        fresh = self._join(0)
        for actor in [*self.actors, fresh]:
            number += 1
            await self._begin(Step(number, 0, actor.number, "pull"))
        self._check_end(fresh)

    def _now(self, number: int, what: str) -> None:
        step = Step(number, 0, 0, what)
        _operation.set(Operation(step, None, random.Random(number), 0.0, 0))

    def _check_end(self, fresh: Actor) -> None:
        expected = {id: fact.version for id, fact in self.oracle.newest.items() if not fact.deleted}
        shown = fresh.disk.copy.records()
        for actor in self.actors:
            copy = actor.disk.copy
            records = copy.records()
            live = {id: record.version for id, record in records.items()}
            require(
                live == expected,
                "no lost update",
                lambda: f"a{actor.number} ends with {live}, not {expected}",  # noqa: B023
            )
            require(records == shown, "convergence", f"a{actor.number} differs from a fresh device")
            state = copy.replica.state()
            require(
                state.pending is None and state.dirty == 0,
                "liveness",
                f"a{actor.number} still has {state.dirty} changes to push",
            )
        # After every kill the whole file is checked; at the end one of them stands for all.
        self._check_whole(self.actors[self.schedule.seed % len(self.actors)].disk)

    def say(self, actor: Actor | None, what: str) -> None:
        """Add a line to the trace, if there is one."""
        if self.trace is None:
            return
        operation = _operation.get(None)
        who = "" if operation is None else str(operation.step)
        self.trace.append(f"{self.time.seconds:12.4f}  {who:34.34} {what}")


class Watched:
    """A replica whose every verb is a moment, and whose changes are checked."""

    def __init__(self, world: World, disk: Disk, replica: Replica) -> None:
        self._world = world
        self._disk = disk
        self._replica = replica

    def __getattr__(self, name: str) -> Callable[..., Any]:
        world, disk = self._world, self._disk
        verb: Callable[..., Any] = getattr(self._replica, name)

        def read(*args: Any, **options: Any) -> Any:
            world.moment()
            return verb(*args, **options)

        def watched(*args: Any, **options: Any) -> Any:
            world.moment()
            world.count_turn(name, args, disk)
            result = verb(*args, **options)
            if world.trace is not None:
                world.say(None, f"   {name} -> {result}")
            world.stats[f"verb {name}"] += 1
            world.changed(disk, name)
            world.moment()
            return result

        chosen = read if name in READS else watched
        setattr(self, name, chosen)
        return chosen


World.verbs = {
    "put": World.edit,
    "put big": World.edit,
    "delete": World.edit,
    "push": World.exchange,
    "pull": World.exchange,
    "sync": World.exchange,
    "compact": World.tidy,
    "collect": World.tidy,
    "erase": World.tidy,
    "delete session": World.exchange,
    "repair": World.exchange,
    "join": World.join,
    "clone": World.clone,
    "twin": World.twin,
    "backup": World.backup,
    "restore": World.restore,
    "die": World.die,
    "leave": World.leave,
    "jump": World.jump,
    "freeze": World.freeze,
}

NOISE = random.Random("noise").randbytes(8192).hex()
"""Text that does not compress, so that a document can be too long to ride in the manifest."""


@dataclass(frozen=True, slots=True)
class PreparedRepository:
    """A repository as it is right after its creation, to begin simulations from."""

    layout: Layout
    keys: Keys
    blobs: Mapping[str, tuple[bytes, ETag]]
    cached: Mapping[str, bytes]


_prepared: dict[str, PreparedRepository] = {}


def _called(fn: Callable[..., T], *args: Any) -> T:
    return fn(*args)


def prepared_repository(
    key: str = PROJECT_KEY, *, call: Callable[..., Any] = _called
) -> PreparedRepository:
    """Return the repository that every simulation begins with; each key is derived once.

    Args:
        call: Does a step that blocks.
    """
    if key not in _prepared:
        store = MemoryStore()
        cache = MemoryCache({})
        time = VirtualTime()
        clock = VirtualClock(time, random.Random("repository"))

        async def run(fn: Callable[..., T], *args: Any) -> T:
            result: T = call(fn, *args)
            return result

        repository = Repository(store, PROJECT, key, cache=cache, clock=clock, run=run)
        loop = VirtualLoop(time)
        try:
            keys = loop.run_until_complete(repository.attach())
        finally:
            loop.close()
        _prepared[key] = PreparedRepository(
            repository.layout, keys, dict(store._content.blobs), dict(cache.held)
        )
    return _prepared[key]


def _described(current: Any) -> str:
    names = [f"{e.name[:2]}{e.base if hasattr(e, 'base') else ''}..{e.hi}" for e in current.entries]
    return (
        f"{current.seq} by {current.by.hex()[:4]} ct={current.ct} entries={names} "
        f"inline={[(i.dev.hex()[:4], i.n) for i in current.inline]} "
        f"devs={ {d.hex()[:4]: v.n for d, v in current.devs.items()} } "
        f"gc={current.gc_floor} tomb={current.tomb_seq} gen={current.gen}"
    )


def _shown(report: SyncReport) -> str:
    return (
        f"sent {report.sent}+{report.sent_deletes}, received {report.received}, "
        f"deleted {report.deleted}, seq {report.seq}, lost {report.lost_races}, "
        f"{report.requests} requests, {report.bytes_received} bytes"
    )
