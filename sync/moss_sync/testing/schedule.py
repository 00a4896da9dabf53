"""What happens in a simulation, as data: who does what when, made from one seed.

A step draws all of its chance (faults, delays, where it dies) from its own number, so leaving
steps out of a schedule leaves the others what they were: that is how a failure is made small.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace

from moss_sync.floors import Policy
from moss_sync.testing.faults import Fault

DAY_MS = 86_400_000
YEAR_MS = 365 * DAY_MS


@dataclass(frozen=True, slots=True)
class Step:
    """One step of one actor.

    Attributes:
        number: Its own; what the step's chance is drawn from.
        at_ms: It begins no earlier, and after the actor's step before it.
        actor: Who: an actor is a process that has a copy of the session open.
        verb: A key of `simulator.World.verbs`.
        id: Of the document, where the verb takes one.
        amount: What the verb takes besides: a size, a time, another actor.
        dies_after: Kill the process at its so-many-th moment; 0: do not.
        beside: Do not wait for the actor's step before it: a task of its own in one process.
    """

    number: int
    at_ms: int
    actor: int
    verb: str
    id: str = ""
    amount: int = 0
    dies_after: int = 0
    beside: bool = False

    def __str__(self) -> str:
        words = [f"#{self.number}", f"a{self.actor}", self.verb, self.id]
        if self.amount:
            words.append(str(self.amount))
        if self.dies_after:
            words.append(f"dies after {self.dies_after}")
        if self.beside:
            words.append("beside")
        return " ".join(word for word in words if word)


@dataclass(frozen=True, slots=True)
class Schedule:
    """A whole run.

    Attributes:
        actors: How many there are at the beginning; steps may bring more.
        skews_ms: What each of their wall clocks is wrong by.
        fault_rate: Chance of a fault at a request.
        fault_weights: How often each kind comes; None: all alike.
        delay_ms: A request takes up to this long each way.
        policy: When devices tidy up.
    """

    seed: int
    profile: str
    actors: int
    skews_ms: tuple[int, ...]
    fault_rate: float
    fault_weights: Mapping[Fault, float] | None
    delay_ms: int
    policy: Policy
    steps: tuple[Step, ...]

    def without(self, numbers: frozenset[int]) -> Schedule:
        """Return the schedule without the steps of these numbers."""
        return replace(self, steps=tuple(s for s in self.steps if s.number not in numbers))


@dataclass(frozen=True, slots=True)
class Profile:
    """What kind of schedule.

    Attributes:
        weights: How often each verb comes, against the others.
        delays_ms: A request takes up to one of these each way.
        gaps_ms: The pause between two steps is drawn from these.
        share: How often this profile comes, against the others.
        returning: Tell stories of a device that comes back (`weights` then play no part).
    """

    weights: Mapping[str, float]
    gaps_ms: tuple[int, ...] = (0, 0, 5, 20, 100, 1_000, 20_000)
    actors: tuple[int, ...] = (3, 3, 3, 4, 4, 5)
    fault_rates: tuple[float, ...] = (0.05, 0.1, 0.2, 0.3)
    skews_ms: tuple[int, ...] = (0, 0, 0, -500, 300, 5_000)
    delays_ms: tuple[int, ...] = (1, 20, 20, 200)
    steps: tuple[int, int] = (42, 56)
    ids: int = 5
    dying: float = 0.08
    share: float = 1.0
    returning: bool = False


EDITS: Mapping[str, float] = {"put": 30, "put big": 4, "delete": 12}
EXCHANGES: Mapping[str, float] = {"push": 18, "sync": 12, "pull": 9, "compact": 5, "collect": 3}
TURNS: Mapping[str, float] = {
    "join": 0.7,
    "clone": 0.4,
    "twin": 0.5,
    "backup": 0.6,
    "restore": 0.6,
    "leave": 0.5,
    "die": 1.0,
    "jump": 0.7,
    "freeze": 0.3,
    "erase": 0.3,
    "delete session": 0.15,
    "repair": 0.15,
}

PROFILES: Mapping[str, Profile] = {
    "ordinary": Profile({**EDITS, **EXCHANGES, **TURNS}, share=4),
    "contention": Profile(
        {
            "burst": 6,
            "put": 10,
            "put big": 8,
            "delete": 5,
            "push": 20,
            "sync": 10,
            "compact": 4,
            "collect": 2,
            "die": 1,
        },
        gaps_ms=(0, 0, 0, 1, 3, 10, 1_000),
        actors=(4, 5, 6, 8),
        fault_rates=(0.03, 0.1, 0.2),
        delays_ms=(20, 200, 500),
        share=1.5,
    ),
    "returning": Profile(
        {},
        actors=(3, 3, 4),
        fault_rates=(0.02, 0.05, 0.15),
        skews_ms=(0, 0, -500, 5_000, -3_600_000, -DAY_MS),
        ids=3,
        dying=0.05,
        share=3,
        returning=True,
    ),
    "one document": Profile(
        {**EDITS, "delete": 24, **EXCHANGES, **TURNS},
        ids=1,
        skews_ms=(0, -500, 300, 5_000, 60_000, -3_600_000),
        share=1.5,
    ),
    "copies": Profile(
        {**EDITS, **EXCHANGES, "clone": 3, "backup": 3, "restore": 3, "twin": 2, "die": 2}, share=1
    ),
    "purges": Profile(
        {
            "put": 22,
            "put big": 2,
            "delete": 26,
            "push": 16,
            "sync": 12,
            "pull": 6,
            "compact": 14,
            "collect": 8,
            "leave": 3,
            "restore": 1,
            "backup": 1,
            "jump": 0.5,
            "join": 1,
            "clone": 0.5,
        },
        ids=4,
        gaps_ms=(0, 5, 20, 100, 1_000, 20_000),
        share=2,
    ),
    "clocks": Profile(
        {**EDITS, **EXCHANGES, "jump": 4, "freeze": 2, "restore": 0.3},
        skews_ms=(0, -3_600_000, 3_600_000, 30_000, -YEAR_MS, YEAR_MS),
        share=1,
    ),
}


def schedule_of(seed: int, profile: str | None = None) -> Schedule:
    """Return the schedule of a seed.

    Args:
        profile: A key of PROFILES; None: chosen by the seed.
    """
    chance = random.Random(f"schedule {seed}")
    if profile is None:
        names = list(PROFILES)
        profile = chance.choices(names, [PROFILES[name].share for name in names])[0]
    kind = PROFILES[profile]
    actors = chance.choice(kind.actors)
    writer = _Writer(chance, kind, actors)
    policy = _policy(chance)
    if kind.returning:
        policy = replace(policy, **{name: chance.choice(of) for name, of in FORGETFUL.items()})
        while len(writer.steps) < kind.steps[0]:
            story = _write_latecomer if chance.random() < 0.4 else _write_return
            story(writer, actors)
    else:
        wanted = chance.randint(*kind.steps)
        while len(writer.steps) < wanted:
            _write_any(writer)
    return Schedule(
        seed=seed,
        profile=profile,
        actors=actors,
        skews_ms=tuple(chance.choice(kind.skews_ms) for _ in range(actors)),
        fault_rate=chance.choice(kind.fault_rates),
        fault_weights=None if chance.random() < 0.6 else _weights(chance),
        delay_ms=chance.choice(kind.delays_ms),
        policy=policy,
        steps=tuple(writer.steps),
    )


class _Writer:
    """Writes steps, one after the other, in time."""

    def __init__(self, chance: random.Random, kind: Profile, actors: int) -> None:
        self.chance = chance
        self.kind = kind
        self.there = actors
        self.saved: list[int] = []
        self.steps: list[Step] = []
        self.now_ms = 0
        self.gaps_ms = kind.gaps_ms[: 4 if chance.random() < 0.5 else None]

    def add(self, actor: int, verb: str, *, id: str = "") -> None:
        """Write what `actor` does next, with any document unless it is named."""
        chance = self.chance
        if verb in EDITS and not id:
            id = f"doc-{chance.randrange(self.kind.ids)}"
        self.steps.append(
            Step(
                len(self.steps) + 1,
                self.now_ms,
                actor,
                verb,
                id=id,
                amount=_amount(chance, verb),
                dies_after=_dies(chance, verb, self.kind.dying),
                beside=verb in ("compact", "pull", "collect") and chance.random() < 0.3,
            )
        )
        self.there += verb in ("join", "clone", "twin")


def _write_any(writer: _Writer) -> None:
    """Write something that anybody may do at any time."""
    chance, kind = writer.chance, writer.kind
    writer.now_ms += chance.choice(writer.gaps_ms)
    verb = chance.choices(list(kind.weights), list(kind.weights.values()))[0]
    actor = chance.randrange(writer.there)
    if verb == "burst":
        # Everybody has something to say at once: who loses twice takes the others along.
        for each in range(writer.there):
            writer.add(each, chance.choice(("put", "put big", "put big")))
        for each in range(writer.there):
            writer.add(each, "push")
        return
    if verb == "restore" and not writer.saved:
        verb = "backup"
    if verb == "restore":
        actor = chance.choice(writer.saved)
    if verb == "backup":
        writer.saved.append(actor)
    writer.add(actor, verb)


def _write_latecomer(writer: _Writer, actors: int) -> None:
    """Write how an old put arrives after the deletion that beats it, and is purged around.

    A purge must also rewrite what was committed late by somebody who had applied little.
    """
    chance = writer.chance
    late, deleter = chance.sample(range(actors), 2)
    others = [actor for actor in range(actors) if actor != late]
    writer.add(deleter, "put")
    id = writer.steps[-1].id
    for actor in (deleter, late):
        writer.add(actor, "sync")
    writer.now_ms += 1_000
    writer.add(late, chance.choice(("put", "put big")), id=id)
    writer.now_ms += chance.choice((5, 50))
    writer.add(deleter, "delete", id=id)
    writer.add(deleter, "push")
    writer.now_ms += chance.choice((0, 60, 60, 120))
    for actor in others:
        if chance.random() < 0.7:
            writer.add(actor, chance.choice(("sync", "pull")))
    writer.now_ms += chance.choice((0, 30, 60, 120))
    writer.add(late, chance.choice(("push", "push", "sync")))
    writer.now_ms += chance.choice((0, 5, 40, 80))
    for _ in range(2):
        actor = chance.choice(others)
        writer.add(actor, "pull")
        writer.add(actor, "compact")
        writer.now_ms += chance.choice((0, 30))


def _write_return(writer: _Writer, actors: int) -> None:
    """Write how a device misses deletions until they are forgotten, and comes back.

    SYNC-PROTOCOL 2.13 names five rules that random schedules hardly ever need: raising the clock
    to the floor's, settling before a resync, forgetting before merging, not adopting twice, and
    raising the collection floor with a purge. Each needs a part of this story.
    """
    chance = writer.chance
    away = chance.randrange(actors)
    others = [actor for actor in range(actors) if actor != away]

    def some(who: list[int], verbs: tuple[str, ...], most: int) -> None:
        for _ in range(chance.randint(1, most)):
            writer.now_ms += chance.choice((0, 5, 50, 500))
            writer.add(chance.choice(who), chance.choice(verbs))

    some(list(range(actors)), ("put", "put", "push", "sync"), 4)
    writer.add(away, chance.choice(("sync", "pull", "push")))
    # What it leaves with: changes, perhaps a push whose outcome it does not know, perhaps none.
    some([away], ("put", "put", "delete"), 2)
    if chance.random() < 0.4:
        some([away], ("push", "delete"), 2)
    for _ in range(chance.randint(1, 2)):
        some(others, ("delete", "delete", "delete", "put"), 4)
        for actor in others:
            writer.add(actor, chance.choice(("push", "sync")))
        writer.now_ms += chance.choice((100, 600))
        some(others, ("sync", "pull"), 2)
        some(others, ("compact",), 2)
    if chance.random() < 0.6:
        writer.now_ms += chance.choice((0, 600))
        some(others, ("compact", "collect"), 2)
    some([away], ("put", "delete", "pull", "push"), 2)
    if chance.random() < 0.5:
        some(others, ("put", "delete", "push"), 2)
    writer.add(away, chance.choice(("sync", "push", "pull")))
    some([away], ("put", "delete", "push"), 2)


FORGETFUL: Mapping[str, tuple[int, ...]] = {
    "grace_ms": (0, 20, 500, 5_000),
    "purge_after_ms": (0, 0, 50, 50),
    "retention_ms": (0, 0, 50, 400),
    "min_tombstones": (0,),
    "spill_bytes": (0, 0, 300),
    "small_session_entries": (1, 2),
}
"""A policy that forgets what one device has not seen, as after a quarter of a year."""


def _amount(chance: random.Random, verb: str) -> int:
    if verb == "jump":
        return chance.choice(
            (-YEAR_MS, YEAR_MS, -DAY_MS, DAY_MS, -3_600_000, 3_600_000, -2_000, 61_000)
        )
    if verb == "put big":
        return chance.choice((3_000, 5_000, 9_000))
    if verb in ("leave", "freeze"):
        return chance.choice((1_000, 60_000, 3_600_000))
    return 0


def _dies(chance: random.Random, verb: str, dying: float) -> int:
    if chance.random() >= dying:
        return 0
    return chance.randint(1, 12 if verb in EDITS else 70)


def _policy(chance: random.Random) -> Policy:
    """Return a policy in which a few commits are a crowd and a few seconds are a long time."""
    return Policy(
        grace_ms=chance.choice((0, 20, 500, 10_000)),
        purge_after_ms=chance.choice((0, 20, 500, 30_000)),
        retention_ms=chance.choice((0, 100, 5_000, 3_600_000)),
        min_tombstones=chance.choice((0, 0, 0, 1, 3)),
        max_devices=chance.choice((1, 2, 3, 4, 128)),
        retire_after_ms=chance.choice((0, 100, 5_000, DAY_MS)),
        max_crowd=chance.choice((2, 3, 512, 512)),
        small_session_bytes=chance.choice((0, 4096, 4 * 1024 * 1024, 4 * 1024 * 1024)),
        small_session_entries=chance.choice((1, 2, 4)),
        spill_bytes=chance.choice((0, 300, 1_000, 12 * 1024)),
        max_at_level=chance.choice((1, 2, 4)),
    )


def _weights(chance: random.Random) -> Mapping[Fault, float]:
    """Return weights that favour a few kinds: several of one kind in a row find other things."""
    favourites = chance.sample(list(Fault), 3)
    return {fault: 10.0 if fault in favourites else 0.3 for fault in Fault}
