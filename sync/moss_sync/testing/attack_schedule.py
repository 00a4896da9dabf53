"""Schedules of honest steps and of attacks between them, made from one seed."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace

from moss_sync.floors import Policy
from moss_sync.testing.absurdities import ABSURDITIES
from moss_sync.testing.clock import EPOCH_MS
from moss_sync.testing.intruder import TRESPASSES
from moss_sync.testing.schedule import DAY_MS, EDITS, YEAR_MS, Schedule, Step

HONEST: Mapping[str, float] = {
    "put": 30,
    "delete": 10,
    "push": 16,
    "sync": 14,
    "pull": 8,
    "compact": 5,
    "collect": 3,
    "erase": 0.5,
    "repair": 1.0,
    "join": 0.7,
    "die": 0.7,
    "jump": 0.7,
}
OPERATOR: Mapping[str, float] = {
    "operator keeps": 4,
    "operator replays": 2,
    "operator replays all": 2,
    "operator hides": 1,
    "operator exchanges": 1,
    "operator spoils": 2,
    "operator dates": 2,
}
REMOVED_MEMBER: Mapping[str, float] = {
    "operator keeps": 3,
    "rotate": 2,
    "operator replays": 1,
    **{f"removed {kind}": 2.0 for kind in TRESPASSES},
}
ABSURD_MEMBER: Mapping[str, float] = {f"absurd {kind}": 1.0 for kind in ABSURDITIES}
ATTACKERS: Mapping[str, Mapping[str, float]] = {
    "operator": OPERATOR,
    "removed member": REMOVED_MEMBER,
    "absurd member": ABSURD_MEMBER,
}
DATES_MS = (0, 0, -YEAR_MS, DAY_MS, 3 * DAY_MS, 10 * YEAR_MS, 253_402_300_799_000 - EPOCH_MS)
"""How far a forged date lies ahead of the truth; the last one is the end of the year 9999."""


def attack_schedule_of(seed: int) -> Schedule:
    """Return the schedule of a seed: honest steps, and those of one kind of attacker or of all."""
    chance = random.Random(f"attack {seed}")
    attackers = chance.choice([[name] for name in ATTACKERS] + [list(ATTACKERS)])
    weights = dict(HONEST)
    for name in attackers:
        weights |= ATTACKERS[name]
    actors, at_ms = chance.choice((2, 3, 3, 4)), 0
    there, steps = actors, []
    for number in range(1, chance.randint(40, 60) + 1):
        at_ms += chance.choice((0, 5, 100, 1_000, 20_000))
        verb = chance.choices(list(weights), list(weights.values()))[0]
        id = f"doc-{chance.randrange(4)}" if verb in EDITS else ""
        amount = 0
        if verb == "operator dates":
            amount = chance.choice(DATES_MS)
        elif verb == "jump":
            amount = chance.choice((-YEAR_MS, -3_600_000, 3_600_000, 2 * DAY_MS, 80 * YEAR_MS))
        dies = chance.randint(1, 60) if chance.random() < 0.04 and verb in HONEST else 0
        steps.append(Step(number, at_ms, chance.randrange(there), verb, id, amount, dies))
        there += verb == "join"
    return Schedule(
        seed=seed,
        profile=" and ".join(attackers),
        actors=actors,
        skews_ms=tuple(chance.choice((0, 0, -500, 5_000)) for _ in range(actors)),
        fault_rate=chance.choice((0.0, 0.02, 0.1)),
        fault_weights=None,
        delay_ms=chance.choice((1, 20)),
        policy=replace(Policy(), **{name: chance.choice(of) for name, of in TIDY.items()}),
        steps=tuple(steps),
    )


TIDY: Mapping[str, Sequence[int]] = {
    "grace_ms": (0, 500, 60_000),
    "purge_after_ms": (0, 500, 60_000),
    "retention_ms": (0, 5_000, 3_600_000),
    "min_tombstones": (0, 0, 1000),
    "small_session_entries": (1, 4),
    "spill_bytes": (0, 300, 12 * 1024),
}
"""Sessions that are tidied up within seconds."""
