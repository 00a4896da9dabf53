"""`make compat`: drive each integration of the hosted SDK, as PyPI has it, on this library.

Each runs in a process and a home of its own, through `python -m moss_local.compat`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

HOSTED = ("moss", "inferedge-moss", "inferedge-moss-core")
DRIVES = {
    "langchain-moss": "drive_langchain",
    "llama-index-tools-moss": "drive_llama_index",
    "dspy-moss": "drive_dspy",
    "agno-moss": "drive_agno",
    "ten-moss": "drive_ten",
    "pipecat-moss": "drive_pipecat",
    "strands-agents-moss": "drive_strands",
}
TIMEOUT_S = 300


def main() -> int:
    there = [name for name in HOSTED if _version(name) is not None]
    if there:
        print(f"the hosted SDK is installed here ({', '.join(there)}): nothing would be shown")
        return 1
    failed = 0
    print("| integration | version | result |\n|---|---|---|")
    for package, module in DRIVES.items():
        with tempfile.TemporaryDirectory() as home:
            done = subprocess.run(
                [sys.executable, "-m", "moss_local.compat", "-m", f"tests.compat.{module}"],
                env=_environment(Path(home)),
                capture_output=True,
                text=True,
                timeout=TIMEOUT_S,
            )
        good = done.returncode == 0
        said = done.stdout.strip().splitlines()
        result = said[-1] if good and said else "failed"
        print(f"| `{package}` | {_version(package)} | {result} |", flush=True)
        if not good:
            failed += 1
            sys.stderr.write(done.stdout + done.stderr)
    return 1 if failed else 0


def _environment(home: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MOSS_")}
    return {
        **kept,
        "HOME": str(home),
        "XDG_DATA_HOME": str(home / "data"),
        "XDG_CONFIG_HOME": str(home / "config"),
        "MOSS_PROJECT_ID": "compat",
        "MOSS_PROJECT_KEY": "a key for this drive",
        # No framework is to speak to anybody.
        "AGNO_TELEMETRY": "false",
        "OTEL_SDK_DISABLED": "true",
        "DSPY_CACHEDIR": str(home / "dspy"),
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


if __name__ == "__main__":
    sys.exit(main())
