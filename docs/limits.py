"""Makes docs/limits.md of tests/limits/facts.py; the numbers are the program's own."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
if str(ROOT) not in sys.path:  # the facts are not part of the package
    sys.path.insert(0, str(ROOT))

from tests.limits.facts import LIMITS, Limit  # noqa: E402


def limits_page() -> str:
    """Return docs/limits.md."""
    lines = [
        "<!-- Made by docs/generate.py; edit tests/limits/facts.py instead. -->",
        "",
        "# Limits",
        "",
        "On everything that comes from outside. What is past one is refused before anything is",
        "written, and the error names it; `tests/limits/test_limits.py` tries each at the limit",
        "and one past it. The limits on what lies in a store are in [format.md](format.md),",
        "section 11. How many documents a call or a session has is bounded by memory and disk.",
        "",
        "The limits on documents and vectors hold for what arrives from other devices too, on",
        "every device alike: a document past one counts for nobody, an older version that is",
        "within stays, and the exchange tells it (`report.rejected`; [format.md](format.md),",
        "section 9).",
        "",
        "| what | at most | past it | why | constant |",
        "|---|--:|---|---|---|",
        *map(_row, LIMITS),
    ]
    return "\n".join(lines) + "\n"


def value_of(constant: str) -> int:
    """Return what a constant is."""
    module, _, name = constant.rpartition(".")
    return int(getattr(importlib.import_module(module), name))


def _row(limit: Limit) -> str:
    short = ".".join(limit.constant.split(".")[-2:])
    shown = _shown(value_of(limit.constant), limit.unit)
    return f"| {limit.what} | {shown} | {limit.past} | {limit.why} | `{short}` |"


def _shown(value: int, unit: str) -> str:
    if unit != "bytes":
        return f"{value:,} {unit}"
    for size, name in ((2**20, "MiB"), (2**10, "KiB")):
        if value % size == 0:
            return f"{value // size} {name}"
    return f"{value} bytes"
