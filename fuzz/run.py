"""Fuzz one target in this process: python -m fuzz.run TARGET [libFuzzer's options and folders]."""

from __future__ import annotations

import importlib
import sys

import atheris


def main() -> None:
    target = sys.argv.pop(1)
    with atheris.instrument_imports(include=["moss_local", "moss_sync"]):
        module = importlib.import_module(f"fuzz.fuzz_{target}")
    atheris.Setup(sys.argv, module.one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
