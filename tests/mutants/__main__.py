"""Takes the safety rules away one by one and prints what notices: `make mutants`.

Every rule must be noticed by one of its directed tests. Exit code 1 when one is not.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from tests.mutants.rules import MUTANTS, Mutant

TIMEOUT_S = 600


@dataclass(frozen=True)
class Finding:
    """Whether the removal was noticed, and by which test; otherwise what pytest said."""

    mutant: Mutant
    test: str | None
    said: str


def directed(mutant: Mutant) -> Finding:
    """Run the directed tests of a mutant until one fails."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "--no-header", "-p", "no:cacheprovider"]
    command += ["-p", "tests.mutants.plugin", "--mutant", mutant.name, *mutant.directed]
    env = {**os.environ, "HYPOTHESIS_STORAGE_DIRECTORY": os.devnull}
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
    asked = parser.parse_args()
    unknown = set(asked.names) - {mutant.name for mutant in MUTANTS}
    if unknown:
        parser.error(f"no such rule: {', '.join(sorted(unknown))}")
    chosen = [mutant for mutant in MUTANTS if not asked.names or mutant.name in asked.names]
    missed = 0
    with ThreadPoolExecutor(asked.jobs) as pool:
        for finding in pool.map(directed, chosen):
            caught = finding.test or "NOT NOTICED"
            print(f"{finding.mutant.name:22} {finding.mutant.rule}\n{'':22} {caught}", flush=True)
            if finding.test is None:
                missed += 1
                print(finding.said)
    print(f"{len(chosen) - missed} of {len(chosen)} rules noticed when taken away")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
