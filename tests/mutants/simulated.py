"""Simulates schedules with one rule taken away: python -m tests.mutants.simulated NAME SEEDS.

Prints how many seeds it took until an invariant was violated, and which; nothing if none was.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack

from tests.mutants.rules import MUTANTS


def main(name: str, seeds: int) -> None:
    [mutant] = [mutant for mutant in MUTANTS if mutant.name == name]
    with ExitStack() as stack:
        mutant.remove(stack)
        # Not above, so that what these import by name is taken away too.
        from moss_local.testing.__main__ import copies_of
        from moss_sync.testing.campaign import run_seed

        for seed in range(seeds):
            violation = run_seed(seed, copies_of).violation
            if violation is not None:
                told = str(violation).splitlines() or [type(violation).__name__]
                print(f"{seed + 1} seeds: {told[0]:.100}")
                return


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
