"""Simulates schedules in which somebody attacks: an operator, a removed member, an absurd member.

The operator replays old states, hides blobs and forges dates. The removed member has the project
key of before a rotation and can still write to the store. The absurd member holds the key and
writes numbers that no honest device would. Honest devices go on editing, exchanging, repairing and
rotating meanwhile; real engines run on real copies, as in `simulator`.

What the store holds is no truth here, so the truth is what honest devices wrote (`Ledger`). Checked
all the while: adding a document works at any time and comes after all that its device holds; every
failure is a named error. Checked at the end, when the attacks have stopped and every device has
followed the hints of its errors: all devices and a new one show the same; of each document they
show a text that nobody has replaced, or it is in a quarantine; nothing that a removed member wrote
after it was shut out is shown.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, TypeVar

from moss_sync import layout, manifest
from moss_sync.derivation import derived
from moss_sync.errors import MossError, NetworkError, UnauthorizedError
from moss_sync.keyring import Keys
from moss_sync.packing import pack, unpack
from moss_sync.revocation import revoke_older
from moss_sync.rotation import rotate
from moss_sync.seal import RootKeys
from moss_sync.stores.base import ETag
from moss_sync.stores.memory import MemoryStore
from moss_sync.testing.absurdities import ABSURDITIES
from moss_sync.testing.clock import EPOCH_MS
from moss_sync.testing.copies import Look, MakeCopies
from moss_sync.testing.intruder import TRESPASSES, Intruder
from moss_sync.testing.oracle import require
from moss_sync.testing.schedule import Schedule, Step
from moss_sync.testing.simulator import (
    SESSION,
    Actor,
    Operation,
    Outcome,
    World,
    prepared_repository,
)
from moss_sync.testing.store import FaultyStore

T = TypeVar("T")

QUIET_ROUNDS = 2
"""Exchanges of everybody without an error, after which all is everywhere."""

SETTLING_ROUNDS = 8
"""Exchanges and repairs of everybody, after the last attack, by which all must be in order."""


@dataclass(slots=True)
class Ledger:
    """What honest devices wrote, by document.

    Attributes:
        written: Every text of a document; each text is written once.
        replaced: The texts that a later edit of a device that showed them has replaced.
        deleted: The documents that somebody has deleted.
    """

    written: dict[str, set[str]] = field(default_factory=dict)
    replaced: dict[str, set[str]] = field(default_factory=dict)
    deleted: set[str] = field(default_factory=set)

    def edited(self, id: str, before: str | None, after: str | None) -> None:
        """Note an edit. Args: before, after: the texts; None is "not there"."""
        if before is not None:
            self.replaced.setdefault(id, set()).add(before)
        if after is None:
            self.deleted.add(id)
        else:
            self.written.setdefault(id, set()).add(after)

    def is_replaced(self, id: str, text: str) -> bool:
        return text in self.replaced.get(id, ())

    def standing(self, id: str) -> set[str]:
        """Return the texts that nobody has replaced: one of them is what all must show."""
        return self.written.get(id, set()) - self.replaced.get(id, set())


@dataclass(frozen=True, slots=True)
class Removed:
    """Somebody whom a rotation has shut out.

    Attributes:
        roots: The keys that they had.
        shut_out: The epoch below which nothing counts any more; None while all was not sealed anew.
    """

    roots: RootKeys
    shut_out: int | None


class Unwatched:
    """Stands where the oracle of an honest store stands; only counts."""

    def __init__(self) -> None:
        self.current: manifest.Manifest | None = None
        self.newest: dict[str, Any] = {}
        self.stats: dict[str, int] = {}

    def rows_changed(self, verb: str, before: Look, after: Look) -> None:
        return None


class AttackWorld(World):
    """A world in which not everybody is honest."""

    verbs: ClassVar[Mapping[str, Callable[[Any, Actor, Step, Operation], Awaitable[None]]]]

    def __init__(self, schedule: Schedule, make_copies: MakeCopies, *, trace: bool) -> None:
        self.ledger = Ledger()
        self.kept: list[dict[str, tuple[bytes, ETag]]] = []
        self.store_ahead_ms = 0
        self.removed: Removed | None = None
        self.project_keys = ["key 0"]
        self._known_key: dict[int, str] = {}
        super().__init__(schedule, make_copies, trace=trace)

    # -- the world -------------------------------------------------------------------------

    def _make_store(self) -> None:
        self.prepared = prepared_repository(self.project_keys[0], call=self.call)
        self.layout = self.prepared.layout
        self.keys: Keys = self.prepared.keys
        self.sid = layout.session_id(self.keys.names, SESSION)
        self.manifest_key = self.layout.manifest(self.sid)
        self.blobs = MemoryStore(time_ms=self._store_ms)
        self.held.update(self.prepared.blobs)
        self.store = FaultyStore(self, self.blobs, pause=self.pause, watch=self._watched)
        self.oracle: Any = Unwatched()

    @property
    def held(self) -> dict[str, tuple[bytes, ETag]]:
        """What the store holds, for its operator's hands."""
        return self.blobs._content.blobs

    def _store_ms(self) -> int:
        return max(0, EPOCH_MS + self.time.ms // 1000 * 1000 + self.store_ahead_ms)

    def call(self, fn: Callable[..., T], *args: Any) -> T:
        if fn is derived:
            # argon2id is slow on purpose, and every rotation has a salt of its own.
            key, kdf = args
            return cheap_key(key, kdf.salt)  # type: ignore[return-value]
        return fn(*args)

    def key_of(self, actor: Actor) -> str:
        return self._known_key.setdefault(actor.number, self.project_keys[-1])

    # -- honest devices --------------------------------------------------------------------

    async def edit(self, actor: Actor, step: Step, operation: Operation) -> None:
        """Put or delete a document; this works at any time and comes after all that is here."""
        process = self.process(actor, operation)
        disk = actor.disk
        with self.behind_the_scenes():
            before = _text_of(disk.copy.records(), step.id)
        highest = max((row.version.hlc for row in disk.seen.rows.values()), default=0)
        now_ms = process.engine.now_ms()
        after = None
        if step.verb == "delete":
            disk.copy.delete(step.id, now_ms=now_ms)
        else:
            after = f"{step.number} by {actor.number}"
            disk.copy.put(step.id, after, now_ms=now_ms)
        with self.behind_the_scenes():
            disk.seen = disk.copy.look()
        if before is None and after is None:
            return
        row = disk.seen.rows[step.id]
        require(row.version.hlc > highest, "causality", f"{row} does not come after {highest}")
        require(row.dirty, "no lost update", f"the edit of {step.id!r} is not to be pushed")
        self.ledger.edited(step.id, before, after)

    async def exchange(self, actor: Actor, step: Step, operation: Operation) -> None:
        """Pull, push, both, or repair."""
        process = self.process(actor, operation)
        try:
            report = await getattr(process.engine, step.verb)()
        except MossError as error:
            self._note(actor, error)
            return
        self.stats["quarantined"] += report.quarantined
        self.stats["repaired"] += step.verb == "repair"
        self.say(actor, f"   done: seq {report.seq}, quarantined {report.quarantined}")

    async def tidy(self, actor: Actor, step: Step, operation: Operation) -> None:
        """Compact, collect or erase."""
        process = self.process(actor, operation)
        try:
            await getattr(process.engine, step.verb)()
        except MossError as error:
            self._note(actor, error)

    def _note(self, actor: Actor, error: MossError) -> None:
        """Every failure is a named error, which this one is."""
        self.stats[f"error {type(error).__name__}"] += 1
        self.say(actor, f"   failed: {type(error).__name__}: {error}")

    def _changed(self, key: str) -> None:
        return None

    # -- the operator ----------------------------------------------------------------------

    async def keep(self, actor: Actor, step: Step, operation: Operation) -> None:
        """The operator keeps what the store holds now."""
        self.kept.append(dict(self.held))

    async def replay(self, actor: Actor, step: Step, operation: Operation) -> None:
        """The operator puts an old manifest back, or an old state of the whole store."""
        if not self.kept:
            return
        old = operation.chance.choice(self.kept)
        if step.verb == "operator replays all":
            self.held.clear()
            self.held.update(old)
        elif self.manifest_key in old:
            self.held[self.manifest_key] = old[self.manifest_key]
        self.stats["replays"] += 1

    async def hide(self, actor: Actor, step: Step, operation: Operation) -> None:
        """The operator takes away, exchanges or spoils a blob of the session."""
        chance = operation.chance
        keys = sorted(key for key in self.held if self.sid in key)
        if not keys:
            return
        key = chance.choice(keys)
        data, _ = self.held[key]
        kind = step.verb.removeprefix("operator ")
        if kind == "hides":
            del self.held[key]
        elif kind == "exchanges":
            self.held[key] = self.held[chance.choice(keys)]
        elif data:
            at = chance.randrange(min(len(data), 200))
            self.write(
                key, data[:at] + bytes([data[at] ^ 1 << chance.randrange(8)]) + data[at + 1 :]
            )
        self.stats["blobs spoilt"] += 1

    async def date(self, actor: Actor, step: Step, operation: Operation) -> None:
        """The operator's answers tell another time for a while."""
        self.store_ahead_ms = step.amount
        self.stats["forged dates"] += 1

    def write(self, key: str, data: bytes) -> None:
        """Write a blob as somebody who has access to the store."""
        self.held[key] = data, ETag(random.Random(data).randbytes(16).hex())

    # -- the removed member ----------------------------------------------------------------

    async def rotate(self, actor: Actor, step: Step, operation: Operation) -> None:
        """A device rotates the project's key, seals all anew, and lets nothing older count."""
        process = self.process(actor, operation)
        if self.key_of(actor) != self.project_keys[-1]:
            return
        operation.fault_rate = 0.0  # the user ends what a lost answer cuts off, with the same key
        key = f"key {len(self.project_keys)} of {actor.number} in {step.number}"
        repository = process.repository
        try:
            before = (await repository.attach()).roots
            epoch = await rotate(repository, actor.clock, key)
            self.project_keys.append(key)  # no other rotation can have come between
            self._known_key[actor.number] = key
            self.removed = Removed(before, None)
            await process.engine.rewrite()
            await revoke_older(repository, actor.clock, epoch)
        except MossError as error:
            if repository.project_key == key:  # what has failed is what comes after it
                self._known_key[actor.number] = key
            self._note(actor, error)
            return
        self.removed = Removed(before, epoch)
        self.stats["members removed"] += 1
        for other in self.actors:
            if operation.chance.random() < 0.7:
                self._learn_key(other)

    def _all_have_joined(self) -> bool:
        """Whether no device still believes the old key: one that does takes what it seals."""
        return all(
            actor.process is None or actor.process.repository.project_key == self.project_keys[-1]
            for actor in self.actors
        ) and set(self._known_key.values()) == {self.project_keys[-1]}

    async def trespass(self, actor: Actor, step: Step, operation: Operation) -> None:
        """Somebody with the key of before a rotation writes what that key allows."""
        removed = self.removed
        if removed is None or removed.shut_out is None or not self._all_have_joined():
            return
        self.stats["trespasses"] += 1
        intruder = self._intruder(removed.roots, operation.chance)
        held = {key: data for key, (data, _) in self.held.items()}
        kept = [{key: data for key, (data, _) in state.items()} for state in self.kept]
        trespass = TRESPASSES[step.verb.removeprefix("removed ")]
        for key, data in trespass(intruder, held, kept).items():
            self.write(key, data)

    def _intruder(self, roots: RootKeys, chance: random.Random) -> Intruder:
        now_ms = EPOCH_MS + self.time.ms
        return Intruder(self.layout, self.keys, self.sid, roots, now_ms, chance)

    # -- the absurd member -----------------------------------------------------------------

    async def absurd(self, actor: Actor, step: Step, operation: Operation) -> None:
        """A member commits numbers, keys and records that no honest device would."""
        chance = operation.chance
        process = self.process(actor, operation)
        sealed = self.held.get(self.manifest_key)
        if sealed is None or process.repository.project_key != self.project_keys[-1]:
            return
        try:
            await process.repository.refresh()
        except MossError:
            return
        member = self._intruder(process.repository.roots, chance)
        current = member.opened(sealed[0])
        if current is None or current.epoch != member.roots.newest:
            return
        following = member.successor(current, sealed[0])
        fields = unpack(manifest.encode(following), max_bytes=2**24, what="a manifest")
        ABSURDITIES[step.verb.removeprefix("absurd ")](fields, chance)
        self.write(self.manifest_key, member.sealed(pack(fields), epoch=following.epoch))
        self.stats["absurd commits"] += 1

    # -- the end ---------------------------------------------------------------------------

    async def _settle_down(self) -> None:
        """The attacks have stopped: every device follows the hints of its errors."""
        self.fault_rate, self.store_ahead_ms = 0.0, 0
        number = 1_000_000
        await self.store.land()
        known = self._newer_than_replaced()
        quiet = 0
        for turn in range(SETTLING_ROUNDS):
            troubles = []
            for actor in self.actors:
                actor.clock.thaw()
                actor.clock.skew_ms = 0
                number += 1
                step = Step(number, 0, actor.number, "sync")
                trouble = await self._put_in_order(actor, step, helps=turn % 3 == 2)
                troubles += [] if trouble is None else [f"a{actor.number}: {trouble!r}"]
            quiet = 0 if troubles else quiet + 1
            if quiet == QUIET_ROUNDS:
                break
        require(not troubles, "liveness", f"after the attacks: {troubles}")
        await self._check_new_device(number + 1)
        self._check_shown(self.actors[-1], known)

    async def _check_new_device(self, number: int) -> None:
        """A new device reads all, if need be after a repair on a device that holds the session."""
        fresh = self._join(0)
        trouble = await self._exchange_once(fresh, Step(number, 0, fresh.number, "pull"))
        if trouble is not None:
            self.stats["new devices shut out"] += 1
            for actor in self.actors[:-1]:
                number += 1
                await self._exchange_once(actor, Step(number, 0, actor.number, "repair"))
            for actor in (*self.actors, *self.actors):
                number += 1
                trouble = await self._exchange_once(actor, Step(number, 0, actor.number, "sync"))
                require(trouble is None, "liveness", f"a{actor.number}: {trouble!r}")

    async def _put_in_order(self, actor: Actor, step: Step, *, helps: bool) -> MossError | None:
        """Exchange, and do what the hint of an error says; return what is wrong still.

        Args:
            helps: Repair here also where nothing is wrong: others need what this device holds.
        """
        trouble = await self._exchange_once(actor, step)
        if isinstance(trouble, UnauthorizedError):
            self._learn_key(actor)
        elif helps or not (trouble is None or isinstance(trouble, NetworkError)):
            self.say(actor, f"   repairs: {trouble!r}")
            again = replace(step, verb="repair", number=step.number + 500_000)
            failed = await self._exchange_once(actor, again)
            if failed is not None and "--drop-unknown" in (failed.hint or ""):
                # Nobody has a newer version here, which is what the user has to know.
                again = replace(again, number=step.number + 600_000)
                await self._exchange_once(actor, again, drop_unknown=True)
        return trouble

    async def _exchange_once(self, actor: Actor, step: Step, **options: bool) -> MossError | None:
        """Exchange in a task of its own, as an operation of the actor's; return what failed."""
        return await self.loop.create_task(self._exchanged(actor, step, options))

    async def _exchanged(
        self, actor: Actor, step: Step, options: Mapping[str, bool]
    ) -> MossError | None:
        operation = Operation(step, None, random.Random(step.number), 0.0, 0)
        self.enter(operation)
        process = self.process(actor, operation)
        try:
            await getattr(process.engine, step.verb)(**options)
            self.stats["repaired"] += step.verb == "repair"
        except MossError as error:
            self._note(actor, error)
            return error
        return None

    def _learn_key(self, actor: Actor) -> None:
        """The user types the new project key, and the program starts anew."""
        if self._known_key.get(actor.number) == self.project_keys[-1]:
            return
        self._known_key[actor.number] = self.project_keys[-1]
        if actor.process is not None:
            actor.process.dead = True
            for task in actor.process.tasks:
                task.cancel()
            actor.process = None
            with self.behind_the_scenes():
                self._resurface(actor.disk)

    def _newer_than_replaced(self) -> set[str]:
        """Return the ids of which some device still holds what replaced the older texts."""
        found = set()
        for actor in self.actors:
            with self.behind_the_scenes():
                records = actor.disk.copy.records()
                rows = actor.disk.copy.look().rows
            for id, row in rows.items():
                text = _text_of(records, id)
                if row.deleted or (text is not None and not self.ledger.is_replaced(id, text)):
                    found.add(id)
        return found

    def _check_shown(self, fresh: Actor, known: set[str]) -> None:
        shown = fresh.disk.copy.records()
        aside: dict[str, set[str]] = {}
        for actor in self.actors:
            require(
                actor.disk.copy.records() == shown,
                "convergence",
                f"a{actor.number} differs from a new device",
            )
            for id, text, _ in actor.disk.copy.quarantined():
                aside.setdefault(id, set()).add(text)
        for id in {*self.ledger.written, *shown}:
            visible = _text_of(shown, id)
            standing, kept = self.ledger.standing(id), aside.get(id, set())
            if visible is None:
                require(
                    id in self.ledger.deleted or bool(standing & kept) or self._was_deleted(),
                    "no lost update",
                    f"{id!r} is gone; {sorted(standing)} stand, {sorted(kept)} are set aside",
                )
                continue
            require(
                visible in self.ledger.written.get(id, ()),
                "no lost update",
                f"{id!r} shows {visible!r}, which no device has written",
            )
            if self.ledger.is_replaced(id, visible):
                self.stats["replaced texts shown"] += 1
                require(
                    id not in known or bool(kept),
                    "no resurrection",
                    f"{id!r} shows {visible!r}, which was replaced; {sorted(standing)} stand",
                )

    def _was_deleted(self) -> bool:
        """Whether the whole session was deleted on the way."""
        return self.stats["op delete session"] > 0


def cheap_key(project_key: str, salt: bytes) -> bytes:
    """Return 32 bytes for a project key and a salt, at no cost."""
    return random.Random(project_key.encode() + salt).randbytes(32)


def _text_of(records: Mapping[str, Any], id: str) -> str | None:
    found = records.get(id)
    return None if found is None else found.text


AttackWorld.verbs = {
    **World.verbs,
    "put": AttackWorld.edit,
    "delete": AttackWorld.edit,
    "push": AttackWorld.exchange,
    "pull": AttackWorld.exchange,
    "sync": AttackWorld.exchange,
    "repair": AttackWorld.exchange,
    "compact": AttackWorld.tidy,
    "collect": AttackWorld.tidy,
    "erase": AttackWorld.tidy,
    "operator keeps": AttackWorld.keep,
    "operator replays": AttackWorld.replay,
    "operator replays all": AttackWorld.replay,
    "operator hides": AttackWorld.hide,
    "operator exchanges": AttackWorld.hide,
    "operator spoils": AttackWorld.hide,
    "operator dates": AttackWorld.date,
    "rotate": AttackWorld.rotate,
    **{f"removed {kind}": AttackWorld.trespass for kind in TRESPASSES},
    **{f"absurd {kind}": AttackWorld.absurd for kind in ABSURDITIES},
}


def simulate_attack(schedule: Schedule, make_copies: MakeCopies, *, trace: bool = False) -> Outcome:
    """Run a schedule to its end or to the first violation."""
    return AttackWorld(schedule, make_copies, trace=trace).run()
