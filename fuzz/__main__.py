"""Fuzz every target in turn: python -m fuzz [--seconds N | --smoke] [TARGET ...].

New inputs that reach new code are kept in .fuzz/ and are the next run's beginning. What breaks an
invariant is written to .fuzz/findings; mend the code, then keep the input under fuzz/regressions.
Exit code 1 when anything was found.

`--smoke` runs each for a moment from the seeds alone and with one seed of chance: it fails for a
change of the program, never by luck, so it can stand in CI.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
WORK = HERE.parent / ".fuzz"
TARGETS = sorted(path.stem.removeprefix("fuzz_") for path in HERE.glob("fuzz_*.py"))
SLOW_S, MEMORY_MB, MAX_BYTES = 60, 4096, 8192
SMOKE_SEED, SMOKE_RUNS, SMOKE_S = 20_260_101, 400, 30


def fuzz(target: str, seconds: int, *, smoke: bool) -> tuple[str, bool]:
    """Fuzz one target in a process of its own; return a row of the table and whether it held."""
    found, grown = WORK / "findings", WORK / ("smoke" if smoke else "corpus") / target
    if smoke:
        shutil.rmtree(grown, ignore_errors=True)
    for folder in (found, grown):
        folder.mkdir(parents=True, exist_ok=True)
    seeds = [HERE / kind / target for kind in ("corpus", "regressions")]
    command = [
        *(sys.executable, "-m", "fuzz.run", target),
        *(f"-max_total_time={seconds}", f"-timeout={SLOW_S}", f"-rss_limit_mb={MEMORY_MB}"),
        *((f"-seed={SMOKE_SEED}", f"-runs={SMOKE_RUNS}") if smoke else ()),
        *(f"-max_len={MAX_BYTES}", f"-artifact_prefix={found}/{target}-", "-print_final_stats=1"),
        *map(str, [grown, *(seed for seed in seeds if seed.is_dir())]),
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=HERE.parent)
    said = done.stdout + done.stderr
    edges = re.findall(r"cov: (\d+) ft: (\d+)", said)
    executions = re.findall(r"stat::number_of_executed_units:\s+(\d+)", said)
    row = (
        f"| {target} | {int(executions[-1]) if executions else 0:,} |"
        f" {edges[-1][0] if edges else 0} | {edges[-1][1] if edges else 0} |"
    )
    held = done.returncode == 0 and bool(executions)
    if not held:
        row += f" **broken** |\n{said[-3000:]}"
    else:
        row += " – |"
    return row, held


def main() -> int:
    parser = argparse.ArgumentParser(prog="make fuzz")
    parser.add_argument("targets", nargs="*", choices=[*TARGETS, []], default=[])
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--smoke", action="store_true", help="a moment of each, always the same")
    asked = parser.parse_args()
    seconds = SMOKE_S if asked.smoke else asked.seconds
    print("| target | executions | edges | features | findings |")
    print("|---|--:|--:|--:|---|", flush=True)
    broken = 0
    for target in asked.targets or TARGETS:
        row, held = fuzz(target, seconds, smoke=asked.smoke)
        broken += not held
        print(row, flush=True)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
