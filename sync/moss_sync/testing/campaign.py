"""Simulates ranges of seeds on all cores, resumes where it was stopped, and says what it has seen.

A range only proves something if things went wrong in it. FLOORS says how often each kind of event
must have happened per 1 000 schedules; a run below a floor fails like one with a violation.

Results lie in a file named after the program's source, so results of another version never count.
"""

from __future__ import annotations

import argparse
import functools
import gc
import json
import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from importlib import import_module
from pathlib import Path
from typing import Any

import moss_sync
from moss_sync.testing.attack_schedule import attack_schedule_of
from moss_sync.testing.attacks import simulate_attack
from moss_sync.testing.copies import Copies
from moss_sync.testing.faults import Fault
from moss_sync.testing.schedule import Schedule, schedule_of
from moss_sync.testing.simulator import Outcome, simulate

CHUNK = 50
"""Seeds per unit of work and per line of the results."""

FLOORS: Mapping[str, int] = {
    **{f"fault {fault}": 50 for fault in Fault},
    "faults": 4_000,
    "killed": 1_500,
    "commits": 6_000,
    "lost races": 1_000,
    "adoptions": 25,
    "compactions": 300,
    "blobs collected": 300,
    "purges": 100,
    "resyncs": 40,
    "reasserted": 3,
    "quarantined": 15,
    "retirements": 300,
    "retired devices back": 200,
    "clones": 100,
    "copies found": 60,
    "restores": 50,
    "generations": 5,
    "repairs": 5,
}
"""Least number of each kind of event per 1 000 schedules that count; below, the run has failed."""

ATTACK_FLOORS: Mapping[str, int] = {
    "absurd commits": 300,
    "blobs spoilt": 400,
    "error BlobCorruptError": 1_000,
    "error ClockError": 100,
    "error ForkDetectedError": 100,
    "error StaleReadError": 100,
    "forged dates": 200,
    "members removed": 100,
    "repaired": 500,
    "replays": 300,
    "trespasses": 100,
}
"""The same of schedules in which somebody attacks."""

COUNTED = 0.9
"""Share of schedules that must count: 3 devices, 40 operations and a fault at least."""

CopiesOfSeed = Callable[[int, Callable[[], None]], Copies]


@dataclass(slots=True)
class Tally:
    """What a range of seeds has shown."""

    schedules: int = 0
    counted: int = 0
    seconds: float = 0.0
    stats: Counter[str] = field(default_factory=Counter)
    violations: list[tuple[int, str]] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        """Take in the tally of other seeds."""
        self.schedules += other.schedules
        self.counted += other.counted
        self.seconds += other.seconds
        self.stats += other.stats
        self.violations += other.violations

    def below_floor(self, *, attacks: bool = False) -> list[str]:
        """Return in words what has happened too rarely."""
        found = []
        floors = ATTACK_FLOORS if attacks else FLOORS
        if not attacks and self.counted < COUNTED * self.schedules:
            found.append(f"only {self.counted} of {self.schedules} schedules count")
        for what, least in floors.items():
            rate = 1000 * self.stats[what] / max(1, self.schedules if attacks else self.counted)
            if rate < least:
                found.append(f"{what}: {rate:.0f} per 1 000 schedules, floor {least}")
        return found

    def to_dict(self) -> dict[str, Any]:
        return {
            "schedules": self.schedules,
            "counted": self.counted,
            "seconds": round(self.seconds, 3),
            "stats": dict(sorted(self.stats.items())),
            "violations": self.violations,
        }

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Tally:
        return cls(
            fields["schedules"],
            fields["counted"],
            fields["seconds"],
            Counter(fields["stats"]),
            [(seed, what) for seed, what in fields["violations"]],
        )


def run_seed(
    seed: int, copies: CopiesOfSeed, *, trace: bool = False, attacks: bool = False
) -> Outcome:
    """Simulate one seed.

    Args:
        attacks: A schedule in which somebody attacks (`attacks`).
    """
    make = functools.partial(copies, seed)
    if attacks:
        return simulate_attack(attack_schedule_of(seed), make, trace=trace)
    return simulate(schedule_of(seed), make, trace=trace)


def run_seeds(seeds: Iterable[int], copies: CopiesOfSeed, *, attacks: bool = False) -> Tally:
    """Simulate seeds one after the other."""
    tally = Tally()
    started = time.process_time()
    for seed in seeds:
        outcome = run_seed(seed, copies, attacks=attacks)
        tally.schedules += 1
        tally.counted += outcome.counts
        tally.stats += outcome.stats
        if outcome.violation is not None:
            error = outcome.violation
            tally.violations.append((seed, f"{type(error).__name__}: {error}"))
    tally.seconds = time.process_time() - started
    return tally


def minimised(
    schedule: Schedule,
    copies: CopiesOfSeed,
    *,
    attacks: bool = False,
    say: Callable[[str], None] = print,
) -> Outcome:
    """Return the outcome of the smallest schedule found that violates the same."""
    make = functools.partial(copies, schedule.seed)
    run = simulate_attack if attacks else simulate
    best = run(schedule, make)
    wanted = _kind(best)
    if wanted is None:
        return best
    size = max(1, len(schedule.steps) // 2)
    while size:
        numbers = [step.number for step in best.schedule.steps]
        smaller = False
        for start in range(0, len(numbers), size):
            cut = best.schedule.without(frozenset(numbers[start : start + size]))
            outcome = run(cut, make)
            if _kind(outcome) == wanted:
                best, smaller = outcome, True
        if not smaller or size > len(best.schedule.steps):
            size //= 2
        say(f"{len(best.schedule.steps)} steps")
    return run(best.schedule, make, trace=True)


def _kind(outcome: Outcome) -> object:
    error = outcome.violation
    return None if error is None else (type(error), getattr(error, "check", None))


def _load(target: str) -> CopiesOfSeed:
    module, _, name = target.partition(":")
    found: CopiesOfSeed = getattr(import_module(module), name)
    return found


def _work(job: tuple[str, bool, int, int]) -> tuple[int, int, dict[str, Any]]:
    target, attacks, first, last = job
    gc.freeze()
    tally = run_seeds(range(first, last + 1), _load(target), attacks=attacks)
    return first, last, tally.to_dict()


def source_mark(*packages: Path) -> str:
    """Return a name for the state of the program's source."""
    digest = blake2b(digest_size=6)
    for package in packages:
        for path in sorted(package.rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _chunks(first: int, last: int) -> Iterator[tuple[int, int]]:
    for start in range(first, last + 1, CHUNK):
        yield start, min(last, start + CHUNK - 1)


def main(argv: list[str], target: str) -> int:
    """Run the command line; return the exit code.

    Args:
        target: "module:function" of a CopiesOfSeed, found again in each worker process.
    """
    parser = argparse.ArgumentParser(description="Simulate the protocol, one schedule per seed.")
    parser.add_argument("seeds", help="a range, such as 0..1999, or one seed")
    parser.add_argument("--trace", action="store_true", help="print what happens, line by line")
    parser.add_argument("--attacks", action="store_true", help="schedules with attackers")
    parser.add_argument("--minimise", action="store_true", help="leave out what is not needed")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--results", type=Path, default=Path(".simulations"), help="a folder")
    parser.add_argument("--afresh", action="store_true", help="do not resume earlier results")
    options = parser.parse_args(argv)
    first, last = _range(options.seeds)
    if options.trace or options.minimise:
        return _show(range(first, last + 1), _load(target), options)
    return _campaign(first, last, target, options)


def _range(text: str) -> tuple[int, int]:
    first, dots, last = text.partition("..")
    return int(first), int(last if dots else first)


def _show(seeds: Iterable[int], copies: CopiesOfSeed, options: argparse.Namespace) -> int:
    failed = 0
    for seed in seeds:
        attacks: bool = options.attacks
        schedule = attack_schedule_of(seed) if attacks else schedule_of(seed)
        if options.minimise:
            outcome = minimised(schedule, copies, attacks=attacks)
        else:
            outcome = run_seed(seed, copies, trace=True, attacks=attacks)
        _say(f"seed {seed}, {schedule.profile}, {len(outcome.schedule.steps)} steps")
        for line in outcome.trace:
            _say(line)
        failed += outcome.violation is not None
    return 1 if failed else 0


def _campaign(first: int, last: int, target: str, options: argparse.Namespace) -> int:
    roots = {Path(moss_sync.__file__).parent}
    module = import_module(target.partition(":")[0])
    if module.__file__ is not None:
        roots.add(Path(module.__file__).parent.parent)
    kind = "attacks-" if options.attacks else ""
    path: Path = options.results / f"{kind}{source_mark(*sorted(roots))}.jsonl"
    done = {} if options.afresh else _read_results(path)
    total, since_report = Tally(), Tally()
    todo: list[tuple[str, bool, int, int]] = []
    for chunk in _chunks(first, last):
        if chunk in done:
            total.add(done[chunk])
        else:
            todo.append((target, options.attacks, *chunk))
    if total.schedules:
        _say(f"{total.schedules} schedules were done before ({path})")
    path.parent.mkdir(parents=True, exist_ok=True)
    # A seed must mean the same in every process: the order of a set must not depend on chance.
    os.environ["PYTHONHASHSEED"] = "0"
    context = multiprocessing.get_context("spawn")
    started = time.monotonic()
    with context.Pool(options.jobs) as pool, path.open("a") as results:
        for begin, end, fields in pool.imap_unordered(_work, todo):
            results.write(json.dumps({"first": begin, "last": end, **fields}) + "\n")
            results.flush()
            tally = Tally.from_dict(fields)
            total.add(tally)
            since_report.add(tally)
            for seed, what in tally.violations:
                _say(f"VIOLATION at seed {seed}: {what}")
                more = " ATTACKS=1" if options.attacks else ""
                _say(f"  replay: make simulate SEEDS={seed} TRACE=1{more}")
            if since_report.schedules >= 1000:
                _say(_line(since_report, time.monotonic() - started, total))
                since_report = Tally()
    return _conclude(total, attacks=options.attacks)


def _read_results(path: Path) -> dict[tuple[int, int], Tally]:
    done = {}
    if path.exists():
        for line in path.read_text().splitlines():
            fields = json.loads(line)
            done[fields["first"], fields["last"]] = Tally.from_dict(fields)
    return done


def _line(tally: Tally, elapsed_s: float, total: Tally) -> str:
    shown = ", ".join(f"{what} {count}" for what, count in sorted(tally.stats.items()))
    rate = tally.schedules / max(tally.seconds, 1e-9)
    return (
        f"{total.schedules} schedules, {len(total.violations)} violations, {elapsed_s:.0f} s, "
        f"{rate:.0f} a second and core; of the last {tally.schedules}: {shown}"
    )


def _conclude(total: Tally, *, attacks: bool) -> int:
    _say(f"{total.schedules} schedules, {total.counted} of them count")
    for what, count in sorted(total.stats.items()):
        _say(f"  {what:32} {count:>10}  {1000 * count / max(1, total.counted):10.1f} per 1 000")
    below = total.below_floor(attacks=attacks)
    for what in below:
        _say(f"BELOW THE FLOOR {what}")
    _say(f"{len(total.violations)} violations")
    for seed, what in total.violations[:20]:
        _say(f"  seed {seed}: {what}")
    return 1 if below or total.violations else 0


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
