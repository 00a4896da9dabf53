"""Takes the safety rules away one by one and prints what notices: `make mutants`.

Every rule must be noticed by one of its directed tests. Exit code 1 when one is not. With
`--seeds N` (`make mutants SEEDS=N`) as many simulated schedules are asked as well, and it is told
how many the simulator needs: some rules matter only in a schedule that chance does not make, which
is what the directed tests are for.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from tempfile import TemporaryDirectory

from tests.mutants.rules import MUTANTS, Mutant

TIMEOUT_S = 600


@dataclass(frozen=True)
class Finding:
    """Whether the removal was noticed, by which test, and by which schedule.

    Attributes:
        said: What pytest said where no test has noticed.
        simulated: Seeds needed and what was violated; empty where the simulator did not notice.
    """

    mutant: Mutant
    test: str | None
    said: str
    simulated: str = ""


def found(mutant: Mutant, *, seeds: int) -> Finding:
    """Run the directed tests of a mutant until one fails, then schedules until one does."""
    finding = directed(mutant)
    return replace(finding, simulated=simulated(mutant, seeds)) if seeds else finding


def simulated(mutant: Mutant, seeds: int) -> str:
    """Simulate schedules in a process of its own."""
    command = [sys.executable, "-m", "tests.mutants.simulated", mutant.name, str(seeds)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def directed(mutant: Mutant) -> Finding:
    """Run the directed tests of a mutant until one fails."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "--no-header", "-p", "no:cacheprovider"]
    command += ["-p", "tests.mutants.plugin", "--mutant", mutant.name, *mutant.directed]
    # Of its own, since what it finds is no fault of the shipped code; and a real one, since
    # Hypothesis warns of others, so that every test with examples would fail of that.
    with TemporaryDirectory() as examples:
        env = {**os.environ, "HYPOTHESIS_STORAGE_DIRECTORY": examples}
        run = subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False, env=env
        )
    failed = re.search(r"^(?:FAILED|ERROR) (\S+)", run.stdout, re.M)
    if run.returncode != 1 or failed is None:
        return Finding(mutant, None, run.stdout[-400:] + run.stderr[-400:])
    return Finding(mutant, failed[1], "")


def main() -> int:
    parser = argparse.ArgumentParser(prog="make mutants")
    parser.add_argument("names", nargs="*", help="only these; all without any")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seeds", type=int, default=0, help="simulate as many schedules too")
    asked = parser.parse_args()
    unknown = set(asked.names) - {mutant.name for mutant in MUTANTS}
    if unknown:
        parser.error(f"no such rule: {', '.join(sorted(unknown))}")
    chosen = [mutant for mutant in MUTANTS if not asked.names or mutant.name in asked.names]
    missed = noticed = 0
    with ThreadPoolExecutor(asked.jobs) as pool:
        for finding in pool.map(partial(found, seeds=asked.seeds), chosen):
            caught = finding.test or "NOT NOTICED"
            print(f"{finding.mutant.name:22} {finding.mutant.rule}\n{'':22} {caught}", flush=True)
            if asked.seeds:
                noticed += bool(finding.simulated)
                told = finding.simulated or f"none of {asked.seeds} seeds"
                print(f"{'':22} {told}", flush=True)
            if finding.test is None:
                missed += 1
                print(finding.said)
    print(f"{len(chosen) - missed} of {len(chosen)} rules noticed when taken away")
    if asked.seeds:
        print(f"{noticed} of them by the simulator within {asked.seeds} seeds")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
