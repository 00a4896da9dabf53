"""`python -m moss_local.compat script.py …` and `python -m moss_local.compat -m module …`."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

from moss_local import compat

USAGE = """usage: python -m moss_local.compat SCRIPT [ARGUMENT ...]
       python -m moss_local.compat -m MODULE [ARGUMENT ...]

Run a program that imports the hosted SDK, on moss_local instead.
"""


def main(arguments: list[str]) -> int:
    """Run the program that `arguments` name, as Python itself would; return an exit code."""
    if not arguments or arguments[0] in ("-h", "--help") or arguments == ["-m"]:
        sys.stderr.write(USAGE)
        return 0 if arguments[:1] in (["-h"], ["--help"]) else 2
    compat.install()
    if arguments[0] == "-m":
        sys.argv = arguments[1:]
        sys.path[0] = ""
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        return 0
    script = Path(arguments[0])
    if not script.exists():
        sys.stderr.write(f"there is no file {script}\n")
        return 2
    sys.argv = arguments
    sys.path[0] = str(script.resolve().parent)
    runpy.run_path(str(script), run_name="__main__")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
