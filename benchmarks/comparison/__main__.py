"""`make bench-peers`: measure the library beside its peers and write docs/benchmarks.md.

    python -m benchmarks.comparison [--quick] [--sizes 1000 10000 100000] [--minutes 60]
                                   [--threads 1]

To be run in the peers' own environment, which `make bench-peers` makes. `--quick` takes a few
minutes, for 1 000 and 10 000 documents, and writes no page; neither does a run of some engines or
sizes only, unless `--write` asks for it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks.comparison import page
from benchmarks.comparison.data import prepare
from benchmarks.comparison.run import Plan, measure
from benchmarks.comparison.worker import ENGINES

DATA = Path(".bench/comparison")
SIZES = (1000, 10_000, 100_000)
PACKAGES = ("numpy", "chromadb", "lancedb", "qdrant-client", "sqlite-vec", "usearch", "faiss-cpu")


def processor() -> str:
    """Return what the machine calls its processor."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def instructions() -> list[str]:
    """Return which of the wide instruction sets the processor has, where that can be read."""
    cpuinfo = Path("/proc/cpuinfo")
    flags = set(cpuinfo.read_text("utf-8").split()) if cpuinfo.exists() else set()
    return [name for name in ("avx2", "avx512f", "avx512_vnni", "asimd") if name in flags]


def machine() -> dict[str, Any]:
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "instructions": instructions(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "date": datetime.now(UTC).date().isoformat(),
    }


def load_average() -> float | None:
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few minutes; writes no page")
    parser.add_argument("--sizes", type=int, nargs="+", default=None)
    parser.add_argument("--engines", nargs="+", choices=list(ENGINES), default=list(ENGINES))
    parser.add_argument("--minutes", type=float, default=60.0, help="no new round after these")
    parser.add_argument("--threads", type=int, help="of OpenMP and BLAS; 1 on a busy machine")
    parser.add_argument("--write", action="store_true", help="write the page whatever was run")
    parser.add_argument("--page-only", action="store_true", help="of the last run's figures")
    chosen = parser.parse_args()
    kept = DATA / "results.json"
    if chosen.page_only:
        page.write(json.loads(kept.read_text("utf-8")))
        return
    sizes = chosen.sizes or (SIZES[:2] if chosen.quick else SIZES)
    prepare(DATA)
    begun = perf_counter()
    results: dict[str, Any] = {"machine": machine(), "load": [load_average()], "sizes": {}}
    results["threads"] = chosen.threads
    for place, count in enumerate(sizes):
        print(f"{count:,} documents", flush=True)
        share = (place + 1) / len(sizes) if len(sizes) == 1 else (0.15, 0.4, 1.0)[min(place, 2)]
        plan = Plan(
            rounds=3 if chosen.quick else 10,
            by_vector=20 if chosen.quick else 100,
            others=10 if chosen.quick else 20,
            load_limit=60.0 if chosen.quick else 900.0,
            deadline=begun + chosen.minutes * 60 * share,
            threads=chosen.threads,
        )
        with tempfile.TemporaryDirectory() as stores:
            figures = measure(count, chosen.engines, plan, data=DATA, stores=Path(stores))
        results["sizes"][str(count)] = figures
        results["load"].append(load_average())
        results["minutes"] = (perf_counter() - begun) / 60
        print(page.table(count, figures), flush=True)
        kept.write_text(json.dumps(results, indent=1), "utf-8")
    whole = list(sizes) == list(SIZES) and chosen.engines == list(ENGINES)
    if chosen.write or (whole and not chosen.quick):
        page.write(results)


if __name__ == "__main__":
    main()
